// What a recipe says about each step of its run: rows, learning rate, gamma and lambda, all pure
// functions of the step and of the tokens seen before it.
#pragma once
#include "train/recipe.h"

namespace minke {

struct StepSchedule {
  std::int64_t step = 0;  // from 0
  Index tokens = 0;       // seen before it
  Index rows = 0;
  double lr = 0, gamma = 0, mtp_lambda = 0;
};

class RunSchedule {
 public:
  // ConfigError naming the setting that cannot be.
  explicit RunSchedule(const Recipe& recipe);

  std::int64_t total_steps() const { return total_steps_; }
  // In whole steps, so at least what the recipe asks for.
  Index total_tokens() const { return batch_.tokens_before(total_steps_); }
  const BatchSchedule& batch() const { return batch_; }

  StepSchedule at_step(std::int64_t step) const;
  // When `tokens` have been seen, also within a step, which is then the unfinished one.
  StepSchedule at_tokens(Index tokens) const;
  // Token counts where something begins, ends or is half way, ascending: for a table.
  std::vector<Index> milestones() const;

 private:
  StepSchedule values(std::int64_t step, Index tokens, Index rows) const;

  BatchSchedule batch_;
  BatchRampRecipe ramp_;
  LossRecipe loss_;
  std::int64_t total_steps_;
  LrSchedule lr_;
};

}  // namespace minke
