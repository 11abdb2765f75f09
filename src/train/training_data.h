// The text of a recipe as tokens: what is trained on, and what the held-out loss looks at.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/document_transform.h"
#include "data/packing.h"
#include "train/recipe.h"
#include "train/step_form.h"

namespace minke {

// Held-out rows of one source.
struct HeldOutRows {
  std::string source;
  std::vector<std::int32_t> tokens;             // [rows, T+1]
  std::vector<std::vector<Index>> starts = {};  // of documents, with data.mask_documents
  Index rows = 0;
  double bytes_per_token = 0;  // of the source's held-out text, end-of-sentence counted
};

struct TrainingData {
  TokenCorpus train;
  std::vector<double> shares;                  // of its sources; empty: by size
  std::optional<DocumentTransform> transform;  // fill in the middle, split punctuation
  std::vector<HeldOutRows> held_out;
  Index held_out_tokens = 0;  // in all, more than the rows may hold

  // The rows to train on. It points into this object, which must stay where it is.
  BatchSource batches(const Recipe& recipe) const;
};

// Reads, splits and tokenises data.paths as text, or maps them when they are what `minke data`
// made, whose held-out split then holds. ConfigError when they are of both kinds, the tokenizer has
// no end-of-sentence token or is not the one of the shards, or the mixture does not fit the
// sources. The tokenizer must outlive the result.
TrainingData load_training_data(const Recipe& recipe, const Tokenizer& tokenizer);

struct HeldOutLoss {
  double loss = 0;           // nats a token, mean over all rows
  double bits_per_byte = 0;  // likewise, by each source's bytes per token
  std::vector<std::pair<std::string, double>> by_source;  // nats a token
};
// By form.losses, so collective. `rows_at_once` rows go through the model together.
HeldOutLoss held_out_loss(StepForm& form, const std::vector<HeldOutRows>& held_out,
                          Index sequence_length, Index rows_at_once);

}  // namespace minke
