// Many requests on one model: continuous batching over a paged latent cache.
//
// One thread owns the model and the pages. Every step runs one batch: all sequences that decode, and
// prompt pieces of waiting ones up to a token budget. What a request generates does not depend on
// what else is in the batch, on drafting, or on preemption: rows of a batch are independent, prompt
// tokens always take the prefill form and generated ones the decode form, and the prefix cache
// shares only rows of prompts, which a fresh run would have made the same way. A request for
// log-probabilities takes the decode form for its prompt too, so that a token's is the same whether
// it was generated or is scored.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/options.h"
#include "infer/request.h"

namespace minke {

enum class Drafting : std::uint8_t { Off, Auto, Always };  // Auto: off by itself where it loses

struct BatchSettings {
  Index max_batch = 64;          // sequences decoded together
  Index max_waiting = 256;       // requests in the queue
  Index cache_bytes = 0;         // for latent pages; 0: what max_batch sequences of the context need,
                                 // at most a quarter of the free memory
  Index context = 0;             // tokens of a sequence; 0: the model's
  Index prefill_chunk = 512;     // prompt tokens in one step
  bool prefix_cache = true;
  Drafting drafting = Drafting::Auto;
  Index touched_bytes = 0;       // of cache_bytes: real memory from the start, not when first used
  std::string prefix_dir = {};   // prefixes are read from there at the start and left there at the
                                 // end; empty: not
};

// The queue is full; try again in about retry_after_s.
struct QueueFull : Error {
  QueueFull(const std::string& what, int seconds) : Error(what), retry_after_s(seconds) {}
  int retry_after_s;
};
// The engine is being stopped and takes no more requests.
struct Draining : Error { using Error::Error; };

struct BatchStatistics {           // since the start, unless said
  Index running = 0, waiting = 0;  // requests now; those that came together wait as one
  Index pages_total = 0, pages_used = 0, pages_cached = 0;  // used by sequences; kept for prefixes
  std::uint64_t prompt_tokens = 0, cached_prompt_tokens = 0, generated_tokens = 0;
  std::uint64_t preemptions = 0, steps = 0, ended = 0;  // requests that have ended
  std::uint64_t drafted = 0, accepted = 0;
  bool drafting = false;        // now
  double draft_gain = 0;        // measured tokens/s with drafts over without; 0: not known
};

using RequestId = std::uint64_t;

struct Submission {
  GenerationRequest request;
  std::shared_ptr<RequestSink> sink;
};

class BatchEngine {
 public:
  // The model must outlive it. Throws ConfigError when the settings or the memory do not fit.
  BatchEngine(const Model& model, const BatchSettings& settings);
  ~BatchEngine();  // cancels what is running

  const BatchSettings& settings() const;  // with the zeros resolved
  Index context() const;

  // From any thread. Throws QueueFull, Draining, or ConfigError when the request cannot be served at
  // all (prompt empty or too long, id outside the vocabulary, sampler setting).
  RequestId submit(GenerationRequest request, std::shared_ptr<RequestSink> sink);
  // The same for several that one client sends together: all are taken, or none and it throws. They
  // have one place in the queue until the last of them begins, and begin one by one as there is room.
  std::vector<RequestId> submit_together(std::vector<Submission> submissions);
  // From any thread: the request ends at the next step, its pages are free then. Unknown ids are
  // ignored (it may have just ended).
  void cancel(RequestId id);
  BatchStatistics statistics() const;
  // Takes no more requests; returns when all have ended or after timeout_s (then cancels the rest
  // and returns false).
  bool drain(double timeout_s);

 private:
  class Worker;
  std::unique_ptr<Worker> worker_;
};

}  // namespace minke
