#include "plan/bubble.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace minke {
namespace {

// Times are sums of what a user typed: B - W may miss F by rounding.
bool same(double a, double b) {
  return std::abs(a - b) <= 1e-12 * std::max(std::abs(a), std::abs(b));
}
bool at_most(double a, double b) {
  return a <= b || same(a, b);
}

FormulaRegion dualpipe_region(const UnitTimes& t) {
  const double input = t.backward - t.weight;
  if (!at_most(t.pair, t.forward + t.backward)) return FormulaRegion::None;
  if (same(input, t.forward) && at_most(t.weight, t.forward)) return FormulaRegion::Exact;
  if (input > t.forward && at_most(t.weight, input)) return FormulaRegion::Corrected;
  return FormulaRegion::None;
}

}  // namespace

void check_unit_times(const UnitTimes& t) {
  const auto check = [](const char* name, double value, bool may_be_zero) {
    if (!std::isfinite(value) || value < 0 || (value == 0 && !may_be_zero))
      throw ConfigError(fmt::format("{} is {}, but must be finite and {}", name, value,
                                    may_be_zero ? "at least 0" : "above 0"));
  };
  check("forward-time", t.forward, false);
  check("backward-time", t.backward, true);
  check("weight-time", t.weight, true);
  check("pair-time", t.pair, false);
  if (t.weight > t.backward)
    throw ConfigError(fmt::format(
        "weight-time is {}, but is a part of backward-time = {} and must be at most that", t.weight,
        t.backward));
  const double longer = std::max(t.forward, t.backward);
  if (!at_most(longer, t.pair))
    throw ConfigError(fmt::format(
        "pair-time is {}, but a pair takes at least its longer half; nearest: {}", t.pair, longer));
}

BubbleFormula bubble_formula(const PipelineSize& s, const UnitTimes& t) {
  const auto PP = static_cast<double>(stages_of(s.kind, s.n_ranks));
  const auto M =
      static_cast<double>(s.kind == ScheduleKind::DualPipeV ? 2 * s.n_chunks : s.n_chunks);
  const double both = t.forward + t.backward;
  switch (s.kind) {
    case ScheduleKind::OneFOneB: {
      const double bubble = (PP - 1) * both;
      return {bubble, M * both + bubble, FormulaRegion::Exact, 0};
    }
    case ScheduleKind::Zb1p: {
      const double bubble = (PP - 1) * (both - 2 * t.weight);
      const bool holds =
          at_most(t.weight, t.forward) && at_most(t.forward, t.backward - t.weight) && M >= PP;
      return {bubble, M * both + bubble, holds ? FormulaRegion::Exact : FormulaRegion::None, 0};
    }
    case ScheduleKind::DualPipe:
    case ScheduleKind::DualPipeV:
      break;
  }
  BubbleFormula f;
  f.bubble = (PP / 2 - 1) * (t.pair + t.backward - 3 * t.weight);
  f.makespan = f.bubble + (M - PP - 1) * t.pair + (PP + 1) * both;
  f.region = PP == 2 ? FormulaRegion::Exact : dualpipe_region(t);  // PP = 2: no bubble at all
  f.gain = f.region == FormulaRegion::Corrected
               ? std::min((PP / 2 - 1) * (t.backward - t.weight - t.forward), t.forward)
               : 0;
  return f;
}

int binding_rank(const Schedule& s) {
  if (s.kind == ScheduleKind::DualPipe) return s.n_ranks / 2 - 1;
  if (s.kind == ScheduleKind::DualPipeV) return s.n_ranks - 1;
  return 0;
}

std::string_view name_of(FormulaRegion region) {
  switch (region) {
    case FormulaRegion::Exact:
      return "exact";
    case FormulaRegion::Corrected:
      return "corrected";
    case FormulaRegion::None:
      return "none";
  }
  return "";
}

}  // namespace minke
