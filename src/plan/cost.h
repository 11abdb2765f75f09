// Hours and dollars of training.
//
//   tokens a second and device = tokens a step / step seconds / devices
//   device hours = tokens / (tokens a second and device) / 3600
//   days = hours / devices / 24          USD = price x hours
//   MFU = tokens a second and device x FLOP a token / peak
//
// Inverse, for a planned run: tokens a second and device = MFU x peak / FLOP a token.
#pragma once
#include <string>
#include <vector>

#include "plan/cluster.h"
#include "plan/flops.h"

namespace minke {

struct RunCost {
  double hours = 0;  // of one device
  double days = 0;
  double usd = 0;
};

// Steps of `tokens_per_step` tokens in `step_seconds` on `devices` devices.
struct Speed {
  double tokens_per_step = 0, step_seconds = 0;
  Index devices = 0;

  double tokens_per_s_per_device() const {
    return tokens_per_step / step_seconds / static_cast<double>(devices);
  }
  double tokens_per_day() const { return tokens_per_step * 86400 / step_seconds; }
  double device_hours(double tokens) const {
    return tokens / tokens_per_step * step_seconds * static_cast<double>(devices) / 3600;
  }
};

RunCost run_cost(double device_hours, Index devices, double price_per_device_hour);

// Tokens a second and device of a run that took `device_hours` for `tokens`.
double tokens_per_s_per_device(double tokens, double device_hours);

// Share of `peak_flops_per_s` that goes into the model's own products.
double model_flops_utilisation(double tokens_per_s_per_device, double flops_per_token,
                               double peak_flops_per_s);

// Device hours of `tokens` at an assumed utilisation.
double device_hours_at(double mfu, double tokens, double flops_per_token, double peak_flops_per_s);

// One row of a table of costs.
struct CostRow {
  std::string what;
  double tokens = 0;  // 0: not known
  RunCost cost;
};
// The last row is the sum.
std::vector<CostRow> with_total(std::vector<CostRow> rows);

// A phase of context extension.
struct ContextPhase {
  double steps = 0, sequences = 0;
  Index sequence = 0;
  double tokens() const { return steps * sequences * static_cast<double>(sequence); }
};
// Causal training FLOP of all phases.
double context_flops(const PlanModel& model, const std::vector<ContextPhase>& phases);

}  // namespace minke
