#include "plan/one_device.h"

#include <cmath>

#include "plan/cache_bytes.h"
#include "plan/flops.h"

namespace minke {

double distinct_experts(const PlanModel& m, double tokens) {
  if (!m.has_experts()) return 0;
  const auto E = static_cast<double>(m.n_routed_experts);
  return E * (1 - std::pow(1 - static_cast<double>(m.num_experts_per_tok) / E, tokens));
}

double decode_bytes(const PlanModel& m, const DecodeLoad& load) {
  const ParameterTable t = parameter_table(m);
  const double fixed = static_cast<double>(t.total - t.routed_experts_total - t.embedding);
  const double experts = static_cast<double>(t.n_moe_layers) * distinct_experts(m, load.sequences) *
                         static_cast<double>(t.expert);
  return (fixed + experts) * load.weight_bits / 8 +
         load.sequences * load.context * cache_row(m).bytes(load.cache_bits);
}

double decode_tokens_per_s(const PlanModel& m, const Cluster& c, const DecodeLoad& load,
                           double efficiency) {
  return load.sequences * c.memory_bytes_per_s * efficiency / decode_bytes(m, load);
}

double prefill_tokens_per_s(const PlanModel& m, const Cluster& c, Index tokens,
                            const PhaseSettings& settings) {
  Layout l;
  l.schedule = "1f1b";
  l.pipeline = l.expert = l.data = l.micro_batches = 1;
  l.sequence = tokens;
  l.fp8 = c.peak_fp8_flops_per_s > 0;
  l.mtp = false;
  const double all = phase_times(m, c, l, settings).stages.front().forward;
  PlanModel headless = m;
  headless.vocab_size = 1;
  const double body = phase_times(headless, c, l, settings).stages.front().forward;
  const auto n = static_cast<double>(tokens);
  return n / (body + (all - body) / n);
}

}  // namespace minke
