// Requests in flight in the batch engine, and the sequences that generate their choices.
#pragma once
#include <chrono>
#include <optional>

#include "infer/batch_engine.h"
#include "infer/batch_plan.h"
#include "infer/prefix_cache.h"

namespace minke {

using Clock = std::chrono::steady_clock;

// A request, shared by the sequences of its choices.
struct ActiveRequest {
  RequestId id = 0;     // ids rise: the order of arrival
  RequestId place = 0;  // in the queue: the same for those that came together
  GenerationRequest request;
  std::shared_ptr<RequestSink> sink;

  Index max_generated = 0;                 // of a choice: max_tokens, or what the context leaves
  std::vector<ScoredToken> prompt_scores;  // [prompt], filled as the prompt is computed
  bool prompt_delivered = false;
  bool started = false;  // has been in a step
  bool ended = false;    // on_done was called, or the sink must not be called any more
  Index unfinished = 1;  // choices
  RequestUsage usage;
  Clock::time_point submitted_at, started_at, first_token_at;

  Index prompt_tokens() const { return static_cast<Index>(request.prompt.size()); }
  // Where log-probabilities are wanted, one form for all tokens: the prefill form rounds otherwise
  // than the decode form, and a token's would not be the same generated and scored.
  AttentionForm prompt_form() const {
    return request.top_logprobs ? AttentionForm::Absorbed : AttentionForm::Expanded;
  }
  // The prompt's scores are wanted and were not handed out.
  bool scores_prompt() const { return request.score_prompt && !prompt_delivered; }
};

// ConfigError, one line, for a request that cannot be served at all: prompt empty, too long for the
// context or the pages, ids outside the vocabulary, settings out of range.
std::shared_ptr<ActiveRequest> make_active(const ModelConfig& config, Index context, Index n_pages,
                                           GenerationRequest request,
                                           std::shared_ptr<RequestSink> sink);

// The tokens of one choice, and the rows of those that were computed.
//
// Rows of the MTP module (layer L of the cache): row i was made from the state at i and token i
// + 1. They keep up with the main model's while drafts are made. A row that a step left out cannot
// be made later, because the state is gone: when drafts are made again, a sequence that decodes
// begins the module's rows anew, and the module sees what is generated from there on. Drafts may
// then be worse for a while, never a token.
class BatchSequence {
 public:
  BatchSequence(std::shared_ptr<ActiveRequest> request, PagePool& pool);
  // Choice k of the same request, after its prompt and before its first token: `parent` is choice 0
  // with the whole prompt in its cache. Without pages for the copy it begins with an empty cache.
  std::unique_ptr<BatchSequence> fork(Index choice) const;

  // Room in its lists for all the tokens that it may have: what comes then takes no memory but
  // pages.
  void make_lists();

  ActiveRequest& request() const { return *request_; }
  Index choice() const { return choice_; }
  PagedCache& cache() { return cache_; }
  const PagedCache& cache() const { return cache_; }

  Index cached() const { return cache_.length(0); }
  Index total() const { return request_->prompt_tokens() + n_generated(); }
  Index n_generated() const { return static_cast<Index>(generated_.size()); }
  std::int32_t token(Index position) const;
  // Own pages are counted only where they matter: when pages may run out.
  enum class OwnPages : std::uint8_t { Leave, Count };
  PlannedSequence planned(OwnPages own) const;
  // Choice 0 before its first token stands for all choices.
  bool unforked() const { return choice_ == 0 && generated_.empty(); }
  // Whole blocks of the prompt that are in the cache.
  std::span<const std::int32_t> cached_prompt() const;
  void begin_with(std::span<const PageId> pages, bool module_rows);
  // And then with the rest of the prompt: all rows are in the cache then, the last one not counted
  // yet, and its state is known. Needs a free page.
  void begin_with_end(const PrefixCache::End& end);
  // [1, D]: of the prompt's last token, if that is the next and needs not be computed.
  const Tensor* known_state(Index next) const {
    return next + 1 == request_->prompt_tokens() ? prompt_state_.get() : nullptr;
  }
  void give_pages_back();

  // The next token from logits [V], which may be overwritten: with the request's bias and
  // constraint, scored when wanted. Throws what the sampler and the constraint throw.
  ScoredToken draw(std::span<float> logits);
  // Takes a token as the next one; tells whether the choice ends with it.
  std::optional<FinishReason> accept(std::int32_t id);
  // What draw would give if these were the main model's logits.
  std::int32_t guess(std::span<float> logits);

  std::optional<std::int32_t> draft;  // of the token after the last
  bool module_rows = false;           // those of the MTP module keep up from the beginning
  bool module_failed = false;         // it threw: no more drafts
  bool finished = false;              // and told so; its pages are given back

  // Two tokens more may be generated: a draft of the next is of use.
  bool can_use_draft() const { return n_generated() + 2 <= request_->max_generated; }

 private:
  void restrict(std::span<float> logits);

  std::shared_ptr<ActiveRequest> request_;
  PagePool* pool_;
  Index choice_ = 0;
  PagedCache cache_;
  PromptState prompt_state_;
  std::vector<std::int32_t> generated_;
  Sampler sampler_;
  std::unique_ptr<TokenConstraint> constraint_;
};

}  // namespace minke
