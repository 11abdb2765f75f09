// The idle time of a pipeline schedule in closed form (the report, table 2), and where it holds.
//
//   1f1b       bubble = (PP-1)(F + B)              T = M (F + B) + bubble
//   zb1p       bubble = (PP-1)(F + B - 2W)         T = M (F + B) + bubble
//   dualpipe   bubble = (PP/2-1)(FB + B - 3W)      T = bubble + (M-PP-1) FB + (PP+1)(F + B)
//
// F, B: forward and full backward of a micro-batch on one stage; W: the weight-gradient part of B;
// FB: a forward and a backward as one overlapped pair; PP: stages that a micro-batch passes (N;
// dualpipev: 2N); M: forwards of a rank (C; dualpipev: 2C). All stages cost the same and transfers
// nothing; anything else is for plan/simulate.h. dualpipev has dualpipe's formula.
//
// With FB < F + B the ranks of dualpipe are busy for different times, as they hold different
// numbers of pairs. Its bubble is that of the ranks that bind: the middle two, or dualpipev's last.
#pragma once
#include <string_view>

#include "model/config.h"
#include "parallel/schedule.h"

namespace minke {

struct UnitTimes {      // in any unit
  double forward = 1;   // F
  double backward = 2;  // B, weight gradients included
  double weight = 1;    // W; a BI costs B - W
  double pair = 3;      // FB
};
// ConfigError unless all are finite, F > 0, 0 <= W <= B, and FB takes at least its longer half.
void check_unit_times(const UnitTimes& times);

enum class FormulaRegion {
  Exact,      // T and the bubble are those of the list
  Corrected,  // the list is better by min((PP/2-1)(B-W-F), F): the middle ranks' first forward and
              // backward are not overlapped, and start earlier
  None        // no closed form holds; simulate
};
struct BubbleFormula {
  double bubble;    // as printed in the report
  double makespan;  // T
  FormulaRegion region;
  double gain;  // 0 unless region is Corrected; makespan - gain and bubble - gain are exact
};
struct PipelineSize {
  ScheduleKind kind = ScheduleKind::OneFOneB;
  Index n_ranks = 1;   // N
  Index n_chunks = 1;  // C
};
// Exact: 1f1b always; zb1p for W <= F <= B - W and C >= N; dualpipe
// and dualpipev for B - W = F and W <= F, corrected for B - W > F and B - W >= W, both for FB of at
// most F + B; always exact with PP = 2, where there is no bubble.
BubbleFormula bubble_formula(const PipelineSize& size, const UnitTimes& times);
inline BubbleFormula bubble_formula(const Schedule& s, const UnitTimes& times) {
  return bubble_formula(PipelineSize{s.kind, s.n_ranks, s.n_chunks}, times);
}

// The rank whose bubble the formula gives: a middle one, dualpipev's last, any one (0) of the rest.
int binding_rank(const Schedule& schedule);

std::string_view name_of(FormulaRegion region);  // "exact", "corrected", "none"

}  // namespace minke
