#include "train/step_line.h"

#include <nlohmann/json.hpp>

#include "train/balance.h"
#include "train/training_step.h"

namespace minke {

using Json = nlohmann::ordered_json;

Json step_line(const StepSchedule& schedule, const PassResult& result, const StepMeasured& measured,
               Index tokens) {
  Json load_ratios = Json::object(), loads = Json::object();
  for (const MoeLayerRecord& layer : result.moe) {
    load_ratios[std::to_string(layer.layer)] = worst_load_ratio(layer.load);
    loads[std::to_string(layer.layer)] = layer.load;
  }
  Json line = {{"step", measured.step},
               {"tokens", schedule.tokens + tokens},
               {"batch", schedule.rows},
               {"loss",
                {{"total", result.total},
                 {"main", result.main},
                 {"mtp", result.mtp},
                 {"mtp_k", result.mtp_k},
                 {"balance", result.balance}}},
               {"lr", schedule.lr},
               {"gamma", schedule.gamma},
               {"mtp_lambda", schedule.mtp_lambda},
               {"grad_norm", measured.norm},
               {"worst_load_ratio", worst_load_ratio(result)},
               {"load_ratios", std::move(load_ratios)},
               {"tokens_per_s", static_cast<double>(tokens) / measured.seconds}};
  if (measured.loads) line["loads"] = std::move(loads);
  const auto shares = [](const Fp8Counts& n) {
    return Json::array({n.clipped_share(), n.underflow_share()});
  };
  for (const Fp8LayerRecord& layer : result.fp8)
    line["fp8"][std::to_string(layer.layer)] = {{"x", shares(layer.counts.x)},
                                                {"dy", shares(layer.counts.dy)},
                                                {"w", shares(layer.counts.w)}};
  return line;
}

}  // namespace minke
