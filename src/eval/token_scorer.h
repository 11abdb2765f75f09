// How well a model predicts given tokens: sums of -ln p(token | tokens before it in its window).
//
// A long text is cut into windows of `window` tokens whose ends lie `stride` apart. Every token but
// the first of a text is scored once, in the first window that reaches it; from the second window
// on each has at least window - stride tokens of context.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "model/weights.h"

namespace minke {

struct WindowSettings {
  Index window = 2048;
  Index stride = 1024;  // 1 to window

  // ConfigError naming the setting; the window may not be longer than the model's context.
  void check(const ModelConfig& config) const;
};

// Inputs are tokens [begin, end); scored are tokens [first_target, end], each predicted by the
// input before it.
struct Window {
  Index begin, end, first_target;
  Index n_targets() const { return end - first_target + 1; }
  bool operator==(const Window&) const = default;
};

// The windows of a text of n tokens; none when n < 2.
std::vector<Window> plan_windows(Index n, const WindowSettings& settings);

struct ScoreSum {
  double nats = 0;
  Index tokens = 0;  // scored
};

// Scores texts, many windows in one pass through the model. Sums depend neither on how windows were
// batched nor on the threads.
class TokenScorer {
 public:
  // Windows are put together until they hold `batch_tokens`.
  TokenScorer(const Model& model, const WindowSettings& settings, Index batch_tokens);

  // Called with the tokens scored so far in all, after each pass. It may throw to end the work.
  std::function<void(Index)> on_batch;

  // Adds the scores of `tokens` to the sum number `group`. They arrive with a later pass.
  void add(const std::vector<std::int32_t>& tokens, std::size_t group);
  // Scores what is waiting.
  void flush();
  // After flush.
  ScoreSum sum(std::size_t group) const;

 private:
  struct Pending {
    std::vector<std::int32_t> tokens;  // inputs and the last target
    Index n_targets;
    std::size_t group;
  };
  std::vector<double> score_pending();

  const Model& model_;
  WindowSettings settings_;
  Index batch_tokens_;
  std::vector<Pending> pending_;
  Index pending_tokens_ = 0, scored_ = 0;
  std::vector<ScoreSum> sums_;
};

}  // namespace minke
