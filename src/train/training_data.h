// The text of a recipe as tokens: what is trained on, and what the held-out loss looks at.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "data/packing.h"
#include "model/weights.h"
#include "train/recipe.h"

namespace minke {

// Held-out rows of one source.
struct HeldOutRows {
  std::string source;
  std::vector<std::int32_t> tokens;  // [rows, T+1]
  Index rows = 0;
  double bytes_per_token = 0;  // of the source's held-out text, end-of-sentence counted
};

struct TrainingData {
  TokenCorpus train;
  std::vector<HeldOutRows> held_out;
  Index held_out_tokens = 0;  // in all, more than the rows may hold
};

// Reads, splits and tokenises data.paths. A document begins with begin-of-sentence where the
// tokenizer's settings ask for it, so that prompts begin as in training, and ends with
// end-of-sentence. Text that looks like a special token is none. ConfigError when the tokenizer has
// no end-of-sentence token.
TrainingData load_training_data(const Recipe& recipe, const Tokenizer& tokenizer);

struct HeldOutLoss {
  double loss = 0;           // nats a token, mean over all rows
  double bits_per_byte = 0;  // likewise, by each source's bytes per token
  std::vector<std::pair<std::string, double>> by_source;  // nats a token
};
// `rows_at_once` rows go through the model together.
HeldOutLoss held_out_loss(const Model& model, const std::vector<HeldOutRows>& held_out,
                          Index sequence_length, Index rows_at_once);

}  // namespace minke
