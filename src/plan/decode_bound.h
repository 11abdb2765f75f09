// What bounds the decoding of a token: memory, products, or the network.
//
//   absorbed MLA   2 H (2 C + R) FLOP for 2 (C + R) bytes of a cached token and layer (BF16)
//   grouped        2 H 2 A FLOP for 2 G 2 A bytes
//   one stream     tokens/s <= memory bandwidth / bytes of the activated parameters
//   network        seconds of a layer = tokens x copies x D x (bytes out + bytes back) / bandwidth;
//                  two micro-batches in turn: seconds of a token = 2 x layers x that
//                  (arXiv 2505.09343, section 2.3.2)
//   drafting       tokens a step = 1 + acceptance; speed-up = that / (1 + cost of the MTP module)
#pragma once
#include "plan/cluster.h"
#include "plan/plan_model.h"

namespace minke {

struct AttentionIntensity {
  double flops = 0;  // of one cached token and layer
  double bytes = 0;
  double flops_per_byte() const { return flops / bytes; }
};
AttentionIntensity decode_attention(const PlanModel& model);

// FLOP a byte from which on a BF16 product is bound by the device's arithmetic.
double ridge_flops_per_byte(const Cluster& cluster);

// Upper bound of one sequence alone on one memory; the cache is not counted.
double single_stream_tokens_per_s(const PlanModel& model, double memory_bytes_per_s,
                                  double bits_per_parameter);

struct ExchangeLoad {
  double tokens = 0;  // of one device and micro-batch
  double copies = 0;  // experts that each goes to, shared ones included when they lie elsewhere
  double hidden = 0;  // D
  double bytes_out = 1, bytes_back = 2;
};
double exchange_seconds(const ExchangeLoad& load, double bytes_per_s);

// Seconds from token to token when the exchange alone counts.
double token_seconds(double exchange_seconds, double layers);

double mtp_speedup(double acceptance, double module_cost);

// Products of the MTP modules divided by those of the main model.
double mtp_module_cost(const PlanModel& model);

}  // namespace minke
