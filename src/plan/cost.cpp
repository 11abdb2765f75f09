#include "plan/cost.h"

namespace minke {

RunCost run_cost(double device_hours, Index devices, double price_per_device_hour) {
  return {device_hours, device_hours / static_cast<double>(devices) / 24,
          device_hours * price_per_device_hour};
}

double tokens_per_s_per_device(double tokens, double device_hours) {
  return tokens / (device_hours * 3600);
}

double model_flops_utilisation(double tokens_per_s, double flops_per_token, double peak) {
  return tokens_per_s * flops_per_token / peak;
}

double device_hours_at(double mfu, double tokens, double flops_per_token, double peak) {
  return tokens * flops_per_token / (mfu * peak) / 3600;
}

std::vector<CostRow> with_total(std::vector<CostRow> rows) {
  CostRow total{"total", 0, {}};
  for (const CostRow& row : rows) {
    total.tokens += row.tokens;
    total.cost.hours += row.cost.hours;
    total.cost.days += row.cost.days;
    total.cost.usd += row.cost.usd;
  }
  rows.push_back(total);
  return rows;
}

double context_flops(const PlanModel& model, const std::vector<ContextPhase>& phases) {
  double flops = 0;
  for (const ContextPhase& phase : phases)
    flops += phase.tokens() * flops_per_token(model, {.sequence = phase.sequence}).train();
  return flops;
}

}  // namespace minke
