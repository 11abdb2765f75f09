#include "train/training_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/log.h"
#include "data/held_out.h"
#include "data/mixture.h"
#include "data/shard_reader.h"
#include "data/text_encoder.h"
#include "model/training_pass.h"

namespace minke {
namespace {

std::vector<HeldOutRows> held_out_rows(const TokenCorpus& corpus, const DataRecipe& data) {
  const std::size_t n_sources = corpus.sources.size();
  std::vector<double> tokens(n_sources), bytes(n_sources);
  for (Index i = 0; i < corpus.documents.size(); ++i) {
    const TokenDocument document = corpus.documents[i];
    const auto source = static_cast<std::size_t>(document.source);
    tokens[source] += static_cast<double>(document.end - document.begin);
    bytes[source] += static_cast<double>(document.text_bytes);
  }
  const auto n_rows = data.held_out_rows / std::max<Index>(1, static_cast<Index>(n_sources));
  std::vector<HeldOutRows> all;
  for (std::size_t s = 0; s < n_sources; ++s) {
    if (tokens[s] == 0) continue;  // of sharded text, a source may have no held-out document
    HeldOutRows rows;
    rows.source = corpus.sources[s];
    RowBatch packed = pack_in_order(corpus, data.sequence_length, std::max<Index>(1, n_rows),
                                    static_cast<int>(s));
    rows.tokens = std::move(packed.tokens);
    if (data.mask_documents) rows.starts = std::move(packed.starts);
    rows.rows = static_cast<Index>(rows.tokens.size()) / (data.sequence_length + 1);
    rows.bytes_per_token = bytes[s] / tokens[s];
    all.push_back(std::move(rows));
  }
  return all;
}

void set_held_out(TrainingData& data, const TokenCorpus& held_out, const DataRecipe& recipe) {
  data.held_out_tokens = held_out.tokens.size();
  data.held_out = held_out_rows(held_out, recipe);
}

// Whether data.paths are all directories of shards (or none is).
bool are_sharded(const std::vector<std::string>& paths) {
  const auto sharded = std::count_if(
      paths.begin(), paths.end(), [](const std::string& path) { return is_shard_directory(path); });
  if (sharded != 0 && sharded != static_cast<std::ptrdiff_t>(paths.size()))
    throw ConfigError(
        "data.paths has directories that minke data made and others; make shards of all of them, "
        "or of none");
  return sharded != 0;
}

void load_shards(TrainingData& data, const DataRecipe& recipe, const TextEncoder& encoder) {
  ShardedText text = open_shards(recipe.paths, encoder, recipe.tokenizer);
  for (const double fraction : text.held_out_fractions)
    if (fraction != recipe.held_out_fraction)
      log_info(
          fmt::format("the shards were made with a held_out_fraction of {}, which holds; "
                      "data.held_out_fraction = {} is for text",
                      fraction, recipe.held_out_fraction));
  data.train = std::move(text.train);
  set_held_out(data, text.held_out, recipe);
}

void load_text(TrainingData& data, const DataRecipe& recipe, const TextEncoder& encoder) {
  const CorpusSplit split = split_held_out(load_documents(recipe.paths), recipe.held_out_fraction);
  data.train = tokenize_corpus(split.train, encoder, encoder.end_of_sentence());
  if (!split.held_out.empty())
    set_held_out(data, tokenize_corpus(split.held_out, encoder, encoder.end_of_sentence()), recipe);
}

}  // namespace

BatchSource TrainingData::batches(const Recipe& recipe) const {
  return BatchSource(train, recipe.data.sequence_length, recipe.seed,
                     {.shares = shares, .transform = transform ? &*transform : nullptr});
}

TrainingData load_training_data(const Recipe& recipe, const Tokenizer& tokenizer) {
  const TextEncoder encoder(tokenizer, recipe.data.tokenizer);
  TrainingData data;
  if (recipe.data.fim_rate > 0 || recipe.data.split_rate > 0)
    data.transform.emplace(
        encoder, TransformRates{.fim = recipe.data.fim_rate, .split = recipe.data.split_rate});
  if (are_sharded(recipe.data.paths))
    load_shards(data, recipe.data, encoder);
  else
    load_text(data, recipe.data, encoder);
  data.shares = mixture_shares(recipe.data.mixture, data.train.sources);
  return data;
}

HeldOutLoss held_out_loss(StepForm& form, const std::vector<HeldOutRows>& held_out,
                          Index sequence_length, Index rows_at_once) {
  std::vector<LossRows> groups;
  for (const HeldOutRows& source : held_out) {
    const View2<const std::int32_t> tokens(source.tokens.data(),
                                           {source.rows, sequence_length + 1});
    for (Index begin = 0; begin < source.rows; begin += rows_at_once) {
      const Index n = std::min(rows_at_once, source.rows - begin);
      groups.push_back({tokens.rows(begin, n), starts_of_rows(source.starts, begin, n)});
    }
  }
  const std::vector<double> losses = form.losses(groups);
  HeldOutLoss result;
  double rows = 0;
  std::size_t group = 0;
  for (const HeldOutRows& source : held_out) {
    double sum = 0;
    for (Index begin = 0; begin < source.rows; begin += rows_at_once, ++group)
      sum += losses[group] * static_cast<double>(groups[group].tokens.extent(0));
    result.loss += sum;
    result.bits_per_byte += sum / source.bytes_per_token / std::log(2.0);
    rows += static_cast<double>(source.rows);
    result.by_source.emplace_back(source.source, sum / static_cast<double>(source.rows));
  }
  if (rows > 0) result.loss /= rows, result.bits_per_byte /= rows;
  return result;
}

}  // namespace minke
