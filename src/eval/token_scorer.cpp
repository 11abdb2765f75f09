#include "eval/token_scorer.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "model/cached_forward.h"
#include "ops/cross_entropy.h"
#include "ops/permute.h"

namespace minke {
namespace {

constexpr Index kLogitElements = Index{1} << 24;  // of one piece: 64 MiB

}  // namespace

void WindowSettings::check(const ModelConfig& config) const {
  if (window < 1 || window > config.max_position_embeddings)
    throw ConfigError(
        fmt::format("window is {}; expected 1 to {} tokens (the model's max_position_embeddings)",
                    window, config.max_position_embeddings));
  if (stride < 1 || stride > window)
    throw ConfigError(fmt::format("stride is {}; expected 1 to {} (the window)", stride, window));
}

std::vector<Window> plan_windows(Index n, const WindowSettings& settings) {
  std::vector<Window> windows;
  for (Index scored = 0; scored < n - 1;) {
    const Index step = scored == 0 ? settings.window : settings.stride;
    const Index end = std::min(scored + step, n - 1);
    windows.push_back({std::max<Index>(0, end - settings.window), end, scored + 1});
    scored = end;
  }
  return windows;
}

TokenScorer::TokenScorer(const Model& model, const WindowSettings& settings, Index batch_tokens)
    : model_(model), settings_(settings), batch_tokens_(batch_tokens) {
  settings.check(model.config);
}

void TokenScorer::add(const std::vector<std::int32_t>& tokens, std::size_t group) {
  for (const std::int32_t id : tokens)
    if (id < 0 || id >= model_.config.vocab_size)
      throw ConfigError(fmt::format(
          "token {} is outside the model's vocabulary of {}; are tokenizer and model from the same "
          "directory?",
          id, model_.config.vocab_size));
  if (sums_.size() <= group) sums_.resize(group + 1);
  for (const Window& w : plan_windows(static_cast<Index>(tokens.size()), settings_)) {
    if (pending_tokens_ > 0 && pending_tokens_ + w.end - w.begin > batch_tokens_) flush();
    pending_.push_back(
        {{tokens.begin() + w.begin, tokens.begin() + w.end + 1}, w.n_targets(), group});
    pending_tokens_ += w.end - w.begin;
  }
}

// -ln p of all scored tokens of the pending windows, in order.
std::vector<double> TokenScorer::score_pending() {
  std::vector<std::int32_t> inputs, targets;
  std::vector<std::unique_ptr<SequenceCache>> caches;
  std::vector<Segment> segments;
  for (const Pending& p : pending_) {
    const Index n = static_cast<Index>(p.tokens.size()) - 1;
    inputs.insert(inputs.end(), p.tokens.begin(), p.tokens.end() - 1);
    targets.insert(targets.end(), p.tokens.end() - p.n_targets, p.tokens.end());
    caches.push_back(std::make_unique<SequenceCache>(model_));
    caches.back()->reserve(n);
    segments.push_back({caches.back().get(), n, AttentionForm::Expanded});
  }
  Tensor scored =
      Tensor::uninitialized({static_cast<Index>(targets.size()), model_.config.hidden_size});
  {
    const Tensor h = cached_forward(model_, inputs, segments);
    Index from = 0, to = 0;
    for (const Pending& p : pending_) {
      from += static_cast<Index>(p.tokens.size()) - 1;
      copy(h.v2().rows(from - p.n_targets, p.n_targets), scored.v2().rows(to, p.n_targets));
      to += p.n_targets;
    }
  }
  std::vector<double> nats;
  nats.reserve(targets.size());
  const Index piece = std::max<Index>(1, kLogitElements / model_.config.vocab_size);
  const Index n = static_cast<Index>(targets.size());
  for (Index begin = 0; begin < n; begin += piece) {
    const Index count = std::min(piece, n - begin);
    const Tensor logits = output_logits(model_, scored.v2().rows(begin, count));
    Tensor nll = Tensor::uninitialized({count});
    cross_entropy_forward(logits.v2(),
                          std::span(targets).subspan(static_cast<std::size_t>(begin),
                                                     static_cast<std::size_t>(count)),
                          nll.v1());
    for (Index i = 0; i < count; ++i) nats.push_back(nll.v1()(i));
  }
  return nats;
}

void TokenScorer::flush() {
  if (pending_.empty()) return;
  const std::vector<double> nats = score_pending();
  auto next = nats.begin();
  for (const Pending& p : pending_) {
    ScoreSum& sum = sums_[p.group];
    for (Index i = 0; i < p.n_targets; ++i) sum.nats += *next++;
    sum.tokens += p.n_targets;
    scored_ += p.n_targets;
  }
  pending_.clear();
  pending_tokens_ = 0;
  if (on_batch) on_batch(scored_);
}

ScoreSum TokenScorer::sum(std::size_t group) const {
  return group < sums_.size() ? sums_[group] : ScoreSum{};
}

}  // namespace minke
