// Log-probabilities of tokens under the model's own distribution: natural logarithms of the softmax
// of the logits as they are, in double. The one definition for generated tokens and for prompts.
#pragma once
#include <span>

#include "infer/request.h"

namespace minke {

// logits [V], finite; id in [0, V). With `top` alternatives (at most V): the most likely tokens,
// ties: lower id first.
ScoredToken score_token(std::span<const float> logits, std::int32_t id, Index top);

}  // namespace minke
