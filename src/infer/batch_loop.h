// The batch engine without its thread: requests go in, step() runs them on, sinks hear about it.
// One thread at a time; infer/batch_engine.h is the way in from many.
#pragma once
#include <map>
#include <optional>
#include <vector>

#include "infer/batch_step.h"
#include "infer/prefix_store.h"

namespace minke {

// The zeros of the settings resolved. ConfigError for settings that cannot be.
BatchSettings resolve_settings(const Model& model, BatchSettings settings);

class BatchLoop {
 public:
  // Resolved settings; the model must outlive it. ConfigError when cache_bytes hold no page.
  BatchLoop(const Model& model, const BatchSettings& settings, AcceptanceRule rule = accept_equal);

  Index n_pages() const { return pool_.n_pages(); }
  // From make_active; ids rise from call to call.
  void add(std::shared_ptr<ActiveRequest> request);
  // Ends a request now: its pages are free on return. Unknown ids are ignored.
  void cancel(RequestId id);
  void cancel_all();

  bool idle() const { return requests_.empty(); }
  Index n_requests() const { return static_cast<Index>(requests_.size()); }
  Index n_places() const;  // of the queue that are taken
  // Admits who can begin, runs one step on the model, tells the sinks. A sink, sampler or
  // constraint that throws, and a sequence that the model cannot compute, ends its own request.
  void step();
  // Leaves the prefixes in prefix_dir, if there is one. A disk that fails is a warning.
  void save_prefixes() const;
  // pages, counts and drafting; running and waiting of requests.
  BatchStatistics statistics() const;

 private:
  using Sequences = std::vector<std::unique_ptr<BatchSequence>>;

  void admit();
  // Somebody older is about to compute more of its prompt than the prefix cache holds.
  bool waits_for_prefix(const BatchSequence& sequence, std::span<BatchSequence* const> older);
  void begin(std::unique_ptr<BatchSequence> sequence);
  void adopt(BatchSequence& sequence, const PrefixCache::Match& match);
  StepPlan plan(bool verify_drafts) const;
  Index n_decoding() const;
  PrefixCache& prefixes_of(const ActiveRequest& request) {
    return request.prompt_form() == AttentionForm::Expanded ? prefixes_ : decode_form_prefixes_;
  }
  Index available_pages() const { return pool_.n_free() + pool_.n_kept(); }
  BlockVector<StepPiece> pieces_of(const StepPlan& plan, DraftTiming& timing) const;
  void preempt(const StepPlan& plan);
  void make_room(std::span<const StepPiece> pieces);
  void free_pages(Index n);  // from the prefix caches, as far as they go
  void run(std::span<const StepPiece> pieces, bool make_drafts, DraftTiming timing);
  void finish_piece(const StepPiece& piece, PieceResult& result);
  void remember_prompt(const BatchSequence& sequence, PromptState state);
  void fork_choices(BatchSequence& lead, std::span<const float> first_logits);
  void emit(BatchSequence& sequence, std::span<ScoredToken> tokens,
            std::optional<FinishReason> ended);
  void finish(BatchSequence& sequence, FinishReason reason);
  void end_request(ActiveRequest& request);
  void sweep();  // removes what has finished

  // Calls f(sink); false when the request has ended, or ends now because the sink threw.
  template <class F>
  bool tell(ActiveRequest& request, F&& f);
  void abandon(ActiveRequest& request, const char* why);

  const Model& model_;
  BatchSettings settings_;
  PagePool pool_;
  PrefixCache prefixes_, decode_form_prefixes_;  // by the form that made the rows of the prompts
  std::optional<PrefixStore> store_;
  StepRunner runner_;
  DraftSwitch drafts_;
  std::map<RequestId, std::shared_ptr<ActiveRequest>> requests_;
  Sequences running_, waiting_;  // both by age
  Sequences forked_;             // in this step
  BatchStatistics counts_;       // those that only grow
};

}  // namespace minke
