// Units of serving: devices that prefill or decode together, the experts that lie on each, and how
// fast they can be.
//
//   experts a device     (E + redundant) / expert ranks
//   load of a device     B K / n tokens of a step on average; with random routing the largest of n
//                        is about sqrt(2 ln n / load) above it, so a batch of
//                        B = n / K 2 ln n / tolerance^2 keeps it within the tolerance
//   decode step          max(products or weights read) + max(attention or cache read), beside the
//                        exchange when two micro-batches overlap
//
// Efficiencies and sequences a device are settings: no report gives them.
#pragma once
#include <string>
#include <vector>

#include "plan/cluster.h"
#include "plan/plan_model.h"

namespace minke {

struct ServingUnit {
  std::string name;
  std::string source;
  bool prefill = false;
  Index nodes = 1, devices_per_node = 8;
  Index attention_tensor = 1;     // ranks that share the heads of one sequence
  Index expert_ranks = 0;         // 0: all devices
  Index redundant_experts = 0;    // further copies of routed experts
  bool shared_everywhere = true;  // else shared experts take places among the redundant ones
  Index ranks_of_experts() const { return expert_ranks > 0 ? expert_ranks : devices(); }
  Index devices() const { return nodes * devices_per_node; }
  Index attention_data() const { return devices() / attention_tensor; }
};

// report-prefill, report-decode: arXiv 2412.19437, section 3.4. production-prefill,
// production-decode: DeepSeek-V3/R1 inference system overview, March 2025. node-prefill,
// node-decode: one node, for smaller models.
const std::vector<ServingUnit>& serving_units();
// UsageError naming the nearest known one.
ServingUnit serving_unit(const std::string& name);

// ConfigError naming what does not go together and the nearest number that does.
void check_serving_unit(const PlanModel& model, const ServingUnit& unit);

double routed_experts_per_device(const PlanModel& model, const ServingUnit& unit);

// Sequences of a unit from which on the busiest device has at most `tolerance` more than the mean.
double batch_for_balance(const PlanModel& model, const ServingUnit& unit, double tolerance);

// Tokens of one expert from which on its products are bound by arithmetic, not by reading weights.
double tokens_for_compute_bound(const Cluster& cluster);

struct ServingSettings {
  double sequences_per_device = 32;  // in two micro-batches, assumed
  double context = 4989;             // cached tokens of a sequence: mean of the overview
  double prompt = 4096;              // prefill
  double cache_hit = 0;              // share of prompt tokens that need no work
  double compute_efficiency = 0.6;   // of the peak, assumed
  double memory_efficiency = 0.8;    // of the bandwidth, assumed
  double acceptance = 0;             // of drafted tokens; 0: no drafting
  double balance_tolerance = 0.2;

  template <class Visitor>
  void visit(Visitor& field) {
    field("sequences-per-device", sequences_per_device, "decoded at once, in two micro-batches",
          between(1, 1e6));
    field("context", context, "cached tokens of a sequence", between(1, 1e9));
    field("prompt", prompt, "tokens of a prompt", between(1, 1e9));
    field("cache-hit", cache_hit, "share of prompt tokens found in a cache", between(0, 0.999));
    field("compute-efficiency", compute_efficiency, "of the peak, assumed", between(0.001, 1));
    field("memory-efficiency", memory_efficiency, "of the bandwidth, assumed", between(0.001, 1));
    field("acceptance", acceptance, "of drafted tokens; 0: no drafting", between(0, 1));
    field("balance-tolerance", balance_tolerance,
          "how far the busiest device may be above the mean", between(0.001, 10));
  }
};

struct ServingSpeed {
  double routed_experts = 0;      // on a device
  double weight_bytes = 0;        // on a device, FP8
  double cache_bytes = 0;         // on a device, of the sequences asked for (decode)
  double sequences_that_fit = 0;  // on a device, in 95 % of its memory
  double tokens_per_expert = 0;   // of one step (decode) or micro-batch of a prompt a device
  double batch = 0, batch_for_balance = 0;                 // sequences of the unit
  double products_s = 0, attention_s = 0, exchange_s = 0;  // of one step, or of one token (prefill)
  double exchange_bound_s = 0;  // from token to token when only the exchange counts (decode)
  double step_s = 0;            // overlapped: the larger of compute and exchange
  double tokens_per_s_per_sequence = 0;
  double tokens_per_s_per_node = 0;
  std::string bound;  // what is largest
};
ServingSpeed serving_speed(const PlanModel& model, const Cluster& cluster, const ServingUnit& unit,
                           const ServingSettings& settings);

// Cost and revenue of a day's serving.
struct ServingDay {
  double mean_nodes = 0, devices_per_node = 8, price_per_device_hour = 0;
  double input_tokens = 0, input_cached = 0, output_tokens = 0;
  double usd_per_1e6_cached = 0, usd_per_1e6_input = 0, usd_per_1e6_output = 0;
  double cost_usd() const { return mean_nodes * devices_per_node * 24 * price_per_device_hour; }
  double revenue_usd() const {
    return (input_cached * usd_per_1e6_cached + (input_tokens - input_cached) * usd_per_1e6_input +
            output_tokens * usd_per_1e6_output) /
           1e6;
  }
};

}  // namespace minke
