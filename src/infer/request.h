// A request to the batch engine, and what comes back.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "infer/engine.h"
#include "infer/token_constraint.h"

namespace minke {

struct GenerationRequest {
  std::vector<std::int32_t> prompt;
  Index n_choices = 1;      // continuations of one prompt, which is computed once
  SamplerSettings sampler;  // choice 0 draws by its seed, choice k by a seed derived from it and k
  std::vector<std::pair<std::int32_t, float>> logit_bias;  // added to the logits before sampling
  Index max_tokens = 256;  // of each choice; 0: the prompt is only scored
  std::vector<std::int32_t> stop_ids;
  // Log-probabilities wanted, with this many alternatives for each token. They are natural
  // logarithms of the model's own distribution: before penalties, bias, temperature, constraint.
  std::optional<Index> top_logprobs;
  bool score_prompt = false;                    // the prompt's tokens too; needs top_logprobs
  std::unique_ptr<TokenConstraint> constraint;  // none: any text
};

struct TokenAlternative {
  std::int32_t id;
  float logprob;
};
struct ScoredToken {
  std::int32_t id;
  std::optional<float> logprob;       // none where not wanted, and of the very first prompt token
  std::vector<TokenAlternative> top;  // the most likely ones; ties: lower id first
};

struct RequestUsage {
  Index prompt_tokens = 0;
  Index cached_tokens = 0;     // of them: found in the prefix cache; a multiple of kKeyTile, or all
                               // but the last
  Index generated_tokens = 0;  // of all choices, stop ids included
  double queue_s = 0, prefill_s = 0, decode_s = 0;
};

// Receives a request's results, all from the engine's thread, so it must not block. Choice by
// choice in order: on_token for each token (a stop id is not handed out), then on_finish.
class RequestSink {
 public:
  virtual ~RequestSink() = default;
  // Once, before any token, when score_prompt was set: all tokens of the prompt.
  virtual void on_prompt(std::vector<ScoredToken> prompt) = 0;
  // False ends this choice here (a stop string), as FinishReason::Stop.
  virtual bool on_token(Index choice, ScoredToken token) = 0;
  virtual void on_finish(Index choice, FinishReason reason) = 0;
  // Last, once, whatever happened. The engine keeps nothing of the request after it.
  virtual void on_done(const RequestUsage& usage) = 0;
};

}  // namespace minke
