// Part of train/loop.h: what a run would do.
#include <fmt/format.h>

#include "model/config.h"
#include "text/tokenizer.h"
#include "train/loop.h"
#include "train/training_data.h"

namespace minke {
namespace {

std::string mebibytes(double bytes) {
  return fmt::format("{:.0f} MiB", bytes / (1 << 20));
}

}  // namespace

void describe_run(const Recipe& recipe) {
  const Tokenizer tokenizer = Tokenizer::load(recipe.data.tokenizer);
  const ModelConfig config =
      recipe.init_from.empty() ? recipe.new_model(tokenizer) : ModelConfig::load(recipe.init_from);
  recipe.check_model(config, tokenizer);
  const ParameterCount count = count_parameters(config);
  const TrainingData data = load_training_data(recipe, tokenizer);
  const auto train_tokens = static_cast<double>(data.train.tokens.size());
  const double seen = static_cast<double>(recipe.total_steps() * recipe.tokens_per_step());
  const TrainingMemory memory = training_memory(recipe, config);

  fmt::print("model       {} parameters, {} active for a token, vocabulary {}\n", count.total,
             count.active, config.vocab_size);
  fmt::print(
      "text        {} documents, {} bytes, {:.0f} tokens ({:.2f} bytes a token); held out {} "
      "tokens\n",
      data.train.documents.size(), data.train.text_bytes(), train_tokens,
      static_cast<double>(data.train.text_bytes()) / train_tokens, data.held_out_tokens);
  fmt::print("steps       {} of {} tokens: {:.0f} tokens, {:.2f} passes over the text\n",
             recipe.total_steps(), recipe.tokens_per_step(), seen, seen / train_tokens);
  fmt::print(
      "memory      {}: masters {}, gradients {}, moments {}, products {}, activations about "
      "{}\n",
      mebibytes(memory.total()), mebibytes(memory.masters), mebibytes(memory.gradients),
      mebibytes(memory.moments), mebibytes(memory.products), mebibytes(memory.activations));
}

}  // namespace minke
