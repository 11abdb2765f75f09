#include "train/training_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/training_pass.h"
#include "text/tokenizer.h"

namespace minke {
namespace {

// The documents of one source, as a corpus of its own.
TokenCorpus only_source(const TokenCorpus& corpus, int source) {
  TokenCorpus part;
  part.sources = {corpus.sources[static_cast<std::size_t>(source)]};
  for (const TokenDocument& document : corpus.documents) {
    if (document.source != source) continue;
    const auto begin = static_cast<Index>(part.tokens.size());
    part.tokens.insert(part.tokens.end(), corpus.tokens.begin() + document.begin,
                       corpus.tokens.begin() + document.end);
    part.documents.push_back(
        {begin, static_cast<Index>(part.tokens.size()), 0, document.text_bytes});
  }
  return part;
}

std::vector<HeldOutRows> held_out_rows(const TokenCorpus& corpus, const DataRecipe& data) {
  std::vector<HeldOutRows> all;
  const auto n_sources = static_cast<Index>(corpus.sources.size());
  for (Index s = 0; s < n_sources; ++s) {
    const TokenCorpus part = only_source(corpus, static_cast<int>(s));
    HeldOutRows rows;
    rows.source = part.sources[0];
    rows.tokens = pack_in_order(part, data.sequence_length,
                                std::max<Index>(1, data.held_out_rows / n_sources));
    rows.rows = static_cast<Index>(rows.tokens.size()) / (data.sequence_length + 1);
    rows.bytes_per_token =
        static_cast<double>(part.text_bytes()) / static_cast<double>(part.tokens.size());
    all.push_back(std::move(rows));
  }
  return all;
}

}  // namespace

TrainingData load_training_data(const Recipe& recipe, const Tokenizer& tokenizer) {
  if (!tokenizer.eos_id())
    throw ConfigError(
        fmt::format("{}: tokenizer_config.json names no eos_token, which ends every "
                    "document in training",
                    recipe.data.tokenizer));
  const std::optional<std::int32_t> bos =
      tokenizer.add_bos_token() ? tokenizer.bos_id() : std::nullopt;
  const auto encode = [&](std::string_view text) {
    std::vector<std::int32_t> ids = tokenizer.encode(text, SpecialTokens::Ignore);
    if (bos) ids.insert(ids.begin(), *bos);
    return ids;
  };
  CorpusSplit split =
      split_held_out(load_documents(recipe.data.paths), recipe.data.held_out_fraction);
  TrainingData data;
  data.train = tokenize_corpus(split.train, encode, *tokenizer.eos_id());
  if (!split.held_out.empty()) {
    const TokenCorpus held_out = tokenize_corpus(split.held_out, encode, *tokenizer.eos_id());
    data.held_out_tokens = static_cast<Index>(held_out.tokens.size());
    data.held_out = held_out_rows(held_out, recipe.data);
  }
  return data;
}

HeldOutLoss held_out_loss(const Model& model, const std::vector<HeldOutRows>& held_out,
                          Index sequence_length, Index rows_at_once) {
  HeldOutLoss result;
  double rows = 0;
  for (const HeldOutRows& source : held_out) {
    const View2<const std::int32_t> tokens(source.tokens.data(),
                                           {source.rows, sequence_length + 1});
    double sum = 0;
    for (Index begin = 0; begin < source.rows; begin += rows_at_once) {
      const Index n = std::min(rows_at_once, source.rows - begin);
      sum += evaluate_loss(model, tokens.rows(begin, n)) * static_cast<double>(n);
    }
    result.loss += sum;
    result.bits_per_byte += sum / source.bytes_per_token / std::log(2.0);
    rows += static_cast<double>(source.rows);
    result.by_source.emplace_back(source.source, sum / static_cast<double>(source.rows));
  }
  if (rows > 0) result.loss /= rows, result.bits_per_byte /= rows;
  return result;
}

}  // namespace minke
