// Rows of each step, and how steps and tokens follow from each other.
//
// The report (section 4.2) lets the batch grow from 3072 to 15360 rows over the first 469B tokens
// and does not say how. A step that begins after t tokens has the greatest number of rows r, of
// from, from + multiple, ..., to, whose threshold was reached:
//   linear      threshold(r) = tokens (r - from) / (to - from)
//   geometric   threshold(r) = tokens log(r / from) / log(to / from)
// rounded up to a whole token. Everything is in integers, so that the number of steps and of tokens
// of a run are exact.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/options.h"
#include "tensor/view.h"

namespace minke {

struct BatchRampRecipe {
  Index from = 0, tokens = 0;
  std::string shape = "linear";
  Index multiple = 1;

  template <class Visitor>
  void visit(Visitor& field) {
    field("from", from, "rows of the first step; 0: data.batch_size from the beginning",
          at_least(0));
    field("tokens", tokens, "tokens after which a step has data.batch_size rows", at_least(0));
    field("shape", shape, "rows as a function of tokens", one_of({"linear", "geometric"}));
    field("multiple", multiple, "rows that the batch grows by at a time", at_least(1));
  }
};

class BatchSchedule {
 public:
  // Steps of at most `rows` rows of `positions` positions. ConfigError naming the setting when the
  // ramp does not lead to `rows`.
  BatchSchedule(Index rows, Index positions, const BatchRampRecipe& ramp = {});

  // Of a step that begins when `tokens` have been seen.
  Index rows_at(Index tokens) const;
  // Of step s >= 0, and the tokens seen when it begins.
  Index rows(std::int64_t step) const { return stage_of_step(step).rows; }
  Index tokens_before(std::int64_t step) const;
  // The step that is made when `tokens` have been seen: the greatest s with tokens_before(s) <=
  // tokens.
  std::int64_t step_at(Index tokens) const;
  // The fewest steps that see at least `tokens`.
  std::int64_t steps_until(Index tokens) const;

 private:
  struct Stage {  // steps of equal size
    std::int64_t first_step;
    Index first_token;
    Index rows;
  };
  Index n_sizes() const;
  Index size(Index i) const;       // the i-th number of rows
  Index threshold(Index i) const;  // tokens from which steps have it
  const Stage& stage_of_step(std::int64_t step) const;
  const Stage& stage_of_token(Index tokens) const;

  Index rows_, positions_;
  BatchRampRecipe ramp_;
  std::vector<Stage> stages_;
};

}  // namespace minke
