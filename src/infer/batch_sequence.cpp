#include "infer/batch_sequence.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/random.h"
#include "infer/token_score.h"

namespace minke {
namespace {

void check_ids(const GenerationRequest& request, Index vocabulary) {
  const auto check = [&](std::int32_t id, std::string_view where, std::size_t i) {
    if (id < 0 || id >= vocabulary)
      throw ConfigError(fmt::format("{}: token {} is {}; expected an id from 0 to {}", where, i, id,
                                    vocabulary - 1));
  };
  for (std::size_t i = 0; i < request.prompt.size(); ++i) check(request.prompt[i], "prompt", i);
  for (std::size_t i = 0; i < request.logit_bias.size(); ++i)
    check(request.logit_bias[i].first, "logit_bias", i);
}

void check_lengths(const GenerationRequest& request, Index context, Index n_pages) {
  const Index n = static_cast<Index>(request.prompt.size());
  if (n == 0) throw ConfigError("prompt: no tokens; give at least one");
  const Index room = request.max_tokens > 0 ? 1 : 0;  // for a new token
  if (n + room > context)
    throw ConfigError(
        fmt::format("prompt: {} tokens do not fit: the context is {} tokens and must hold {} more; "
                    "shorten it",
                    n, context, room));
  if (pages_for(n) > n_pages)
    throw ConfigError(
        fmt::format("prompt: {} tokens do not fit into the latent cache of {} tokens; shorten it, "
                    "or give the cache more bytes",
                    n, n_pages * kKeyTile));
}

void check_settings(const GenerationRequest& request) {
  request.sampler.check("request");
  const auto require = [](bool good, std::string_view what, Index value, std::string_view wanted) {
    if (!good) throw ConfigError(fmt::format("{} is {}; expected {}", what, value, wanted));
  };
  require(request.n_choices >= 1, "n", request.n_choices, "1 or more");
  require(request.max_tokens >= 0, "max_tokens", request.max_tokens, "0 or more");
  require(request.top_logprobs.value_or(0) >= 0, "top_logprobs", request.top_logprobs.value_or(0),
          "0 or more");
  if (request.score_prompt && !request.top_logprobs)
    throw ConfigError("the prompt is to be scored without log-probabilities; ask for logprobs");
}

// Choice k draws by a seed of its own, choice 0 by the request's.
SamplerSettings settings_of(const ActiveRequest& request, Index choice) {
  SamplerSettings settings = request.request.sampler;
  if (choice > 0)
    settings.seed = mix_bits(settings.seed + mix_bits(static_cast<std::uint64_t>(choice)));
  return settings;
}

}  // namespace

std::shared_ptr<ActiveRequest> make_active(const ModelConfig& config, Index context, Index n_pages,
                                           GenerationRequest request,
                                           std::shared_ptr<RequestSink> sink) {
  check_settings(request);
  check_lengths(request, context, n_pages);
  check_ids(request, config.vocab_size);
  auto active = std::make_shared<ActiveRequest>();
  active->request = std::move(request);
  active->sink = std::move(sink);
  const Index n = active->prompt_tokens();
  active->max_generated = std::min(active->request.max_tokens, context - n);
  active->unfinished = active->request.n_choices;
  active->usage.prompt_tokens = n;
  active->submitted_at = Clock::now();
  if (active->request.score_prompt)
    for (const std::int32_t id : active->request.prompt)
      active->prompt_scores.push_back({id, std::nullopt, {}});
  return active;
}

BatchSequence::BatchSequence(std::shared_ptr<ActiveRequest> request, PagePool& pool)
    : request_(std::move(request)),
      pool_(&pool),
      cache_(pool),
      sampler_(settings_of(*request_, 0)) {
  if (request_->request.constraint) constraint_ = request_->request.constraint->clone();
}

std::unique_ptr<BatchSequence> BatchSequence::fork(Index choice) const {
  auto copy = std::make_unique<BatchSequence>(request_, *pool_);
  copy->choice_ = choice;
  copy->sampler_ = Sampler(settings_of(*request_, choice));
  try {
    copy->cache_ = cache_.fork(request_->prompt_tokens());
    copy->make_lists();
    copy->module_rows = module_rows;
  } catch (const PagesExhausted&) {
    // It is computed anew when there is room, from the prefix cache where that holds the prompt.
  }
  return copy;
}

void BatchSequence::make_lists() {
  generated_.reserve(static_cast<std::size_t>(request_->max_generated));
  const Index most = request_->prompt_tokens() + request_->max_generated;
  cache_.expect(std::min(most, pool_->n_pages() * kKeyTile));
}

std::int32_t BatchSequence::token(Index position) const {
  const Index n = request_->prompt_tokens();
  return position < n ? request_->request.prompt[static_cast<std::size_t>(position)]
                      : generated_[static_cast<std::size_t>(position - n)];
}

PlannedSequence BatchSequence::planned(OwnPages own) const {
  return {.prompt = request_->prompt_tokens(),
          .total = total(),
          .cached = cached(),
          .pages = static_cast<Index>(cache_.table().size()),
          .own_pages = own == OwnPages::Count ? cache_.n_own() : 0,
          .drafts = draft ? 1 : 0,
          .choices = unforked() ? request_->request.n_choices : 1,
          .prompt_form = request_->prompt_form()};
}

std::span<const std::int32_t> BatchSequence::cached_prompt() const {
  const Index n = std::min(cached(), request_->prompt_tokens());
  return std::span(request_->request.prompt).first(static_cast<std::size_t>(n));
}

void BatchSequence::begin_with(std::span<const PageId> pages, bool rows) {
  cache_.adopt(pages);
  module_rows = rows;
}

void BatchSequence::begin_with_end(const PrefixCache::End& end) {
  cache_.adopt_copy(end.page, request_->prompt_tokens() - 1);
  prompt_state_ = end.state;
  module_rows = module_rows && end.module_rows;
}

void BatchSequence::give_pages_back() {
  cache_.clear();
  prompt_state_.reset();
  draft.reset();
  module_rows = false;
}

void BatchSequence::restrict(std::span<float> logits) {
  for (const auto& [id, bias] : request_->request.logit_bias)
    logits[static_cast<std::size_t>(id)] += bias;
  if (constraint_) constraint_->mask(logits);
}

ScoredToken BatchSequence::draw(std::span<float> logits) {
  const GenerationRequest& r = request_->request;
  BlockVector<float> as_they_are;
  if (r.top_logprobs) as_they_are.assign(logits.begin(), logits.end());
  restrict(logits);
  const std::int32_t id = sampler_.sample(logits, {r.prompt, generated_});
  if (r.top_logprobs) return score_token(as_they_are, id, *r.top_logprobs);
  return {id, std::nullopt, {}};
}

std::optional<FinishReason> BatchSequence::accept(std::int32_t id) {
  const std::vector<std::int32_t>& stops = request_->request.stop_ids;
  if (constraint_) constraint_->accept(id);
  generated_.push_back(id);
  if (std::find(stops.begin(), stops.end(), id) != stops.end()) return FinishReason::Stop;
  if (n_generated() >= request_->max_generated) return FinishReason::Length;
  return std::nullopt;
}

std::int32_t BatchSequence::guess(std::span<float> logits) {
  restrict(logits);
  return sampler_.sample(logits, {request_->request.prompt, generated_});
}

}  // namespace minke
