#include "data/packing.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "base/files.h"
#include "base/hash.h"
#include "base/options.h"
#include "base/progress.h"
#include "base/random.h"

namespace minke {
namespace {

constexpr std::size_t kSmallestDocumentToCut = 4096;
constexpr Index kBytesAtOnce = 4 << 20;  // tokenised between two looks at the progress
constexpr Index kBytesWorthProgress = 16 << 20;

std::uint64_t text_hash(const std::string& text) {
  return mix_bits(hash64(as_byte_span(text)));
}

// The hash up to which documents of one source are held out; hashes are evenly spread. 0: none.
std::uint64_t hash_limit(std::vector<std::uint64_t> hashes, double fraction) {
  const auto limit = static_cast<std::uint64_t>(fraction * 0x1p64);
  std::sort(hashes.begin(), hashes.end());
  if (hashes.front() == hashes.back()) return 0;
  // At least the smallest hash, and never the largest.
  return std::clamp(limit, hashes.front(), hashes.back() - 1);
}

// Cuts the end off a single document, from the first line (or else code point) in the last part.
void cut_end(Document& document, double fraction, CorpusSplit& split) {
  const std::string& text = document.text;
  const auto size = static_cast<double>(text.size());
  const auto kept = static_cast<std::size_t>(size - std::max(fraction * size, size / 16));
  std::size_t cut = text.find('\n', kept);
  cut = cut == std::string::npos || cut + 1 >= text.size() ? kept : cut + 1;
  while ((static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) ++cut;
  Document end = document;
  end.text.erase(0, cut);
  end.line += std::count(text.begin(), text.begin() + static_cast<long>(cut), '\n');
  document.text.resize(cut);
  split.held_out.push_back(std::move(end));
  split.train.push_back(std::move(document));
}

std::uint64_t identify(const TokenCorpus& corpus, std::uint64_t seed) {
  Hash64 hash;
  hash.add(std::as_bytes(std::span(corpus.tokens)));
  hash.add(std::as_bytes(std::span(&seed, 1)));
  return hash.value();
}

}  // namespace

CorpusSplit split_held_out(std::vector<Document> documents, double fraction) {
  if (!(fraction >= 0 && fraction < 1))
    throw ConfigError(
        fmt::format("held_out_fraction is {}, but must be at least 0 and below 1", fraction));
  if (fraction == 0) return {std::move(documents), {}};
  std::vector<std::uint64_t> hashes(documents.size());
  parallel_for(static_cast<Index>(documents.size()), [&](Index i) {
    hashes[static_cast<std::size_t>(i)] = text_hash(documents[static_cast<std::size_t>(i)].text);
  });
  std::map<std::string, std::vector<std::uint64_t>> by_source;
  for (std::size_t i = 0; i < documents.size(); ++i)
    by_source[documents[i].source].push_back(hashes[i]);
  std::map<std::string, std::uint64_t> limits;
  for (const auto& [source, list] : by_source) limits[source] = hash_limit(list, fraction);

  CorpusSplit split;
  for (std::size_t i = 0; i < documents.size(); ++i) {
    Document& document = documents[i];
    if (by_source[document.source].size() == 1 && document.text.size() >= kSmallestDocumentToCut) {
      cut_end(document, fraction, split);
    } else {
      const std::uint64_t limit = limits[document.source];
      auto& side = limit > 0 && hashes[i] <= limit ? split.held_out : split.train;
      side.push_back(std::move(document));
    }
  }
  return split;
}

Index TokenCorpus::text_bytes() const {
  return std::accumulate(documents.begin(), documents.end(), Index{0},
                         [](Index sum, const TokenDocument& d) { return sum + d.text_bytes; });
}

TokenCorpus tokenize_corpus(const std::vector<Document>& documents, EncodeText encode,
                            std::int32_t end_of_sentence) {
  const auto n = static_cast<Index>(documents.size());
  const auto at = [&](Index i) -> const Document& {
    return documents[static_cast<std::size_t>(i)];
  };
  Index total = 0;
  for (const Document& document : documents) total += static_cast<Index>(document.text.size());
  std::unique_ptr<Progress> progress;
  if (total >= kBytesWorthProgress)
    progress = std::make_unique<Progress>(
        ProgressOptions{.label = "tokenize", .unit = "bytes", .total = total});

  TokenCorpus corpus;
  std::map<std::string, int> source_number;
  Index done = 0;
  for (Index begin = 0; begin < n;) {
    Index end = begin, bytes = 0;
    while (end < n && bytes < kBytesAtOnce) bytes += static_cast<Index>(at(end++).text.size());
    std::vector<std::vector<std::int32_t>> encoded(static_cast<std::size_t>(end - begin));
    parallel_for(end - begin, [&](Index i) {
      const Document& document = at(begin + i);
      try {
        encoded[static_cast<std::size_t>(i)] = encode(document.text);
      } catch (const FormatError& error) {
        throw FormatError(
            fmt::format("{}: line {}: {}", document.path, document.line, error.what()));
      }
    });
    for (Index i = begin; i < end; ++i) {
      const auto& ids = encoded[static_cast<std::size_t>(i - begin)];
      if (ids.empty()) continue;
      const auto [place, is_new] =
          source_number.try_emplace(at(i).source, static_cast<int>(corpus.sources.size()));
      if (is_new) corpus.sources.push_back(at(i).source);
      const auto first = static_cast<Index>(corpus.tokens.size());
      corpus.tokens.insert(corpus.tokens.end(), ids.begin(), ids.end());
      corpus.tokens.push_back(end_of_sentence);
      corpus.documents.push_back({first, static_cast<Index>(corpus.tokens.size()), place->second,
                                  static_cast<Index>(at(i).text.size())});
    }
    begin = end;
    done += bytes;
    if (progress) progress->update(done);
  }
  return corpus;
}

nlohmann::ordered_json to_json(const DataPosition& position) {
  DataPosition copy = position;
  return options_to_json(OptionList(copy));
}

DataPosition data_position_from_json(const nlohmann::json& json, std::string_view where) {
  DataPosition position;
  const OptionList list(position);
  options_from_json(list, json, where);
  for (const Option& option : list.options())
    if (!json.contains(option.name))
      throw ConfigError(fmt::format("{}: the data position lacks '{}'", where, option.name));
  return position;
}

BatchSource::BatchSource(const TokenCorpus& corpus, Index positions, std::uint64_t seed)
    : corpus_(&corpus), row_(positions + 1), seed_(seed) {
  if (corpus.tokens.empty())
    throw ConfigError("no text is left to train on; give more data or a smaller held_out_fraction");
  if (positions < 1)
    throw ConfigError(fmt::format("rows of {} positions; expected 1 or more", positions));
  position_.corpus = identify(corpus, seed);
  order_documents();
}

void BatchSource::order_documents() {
  order_.resize(corpus_->documents.size());
  std::iota(order_.begin(), order_.end(), std::int64_t{0});
  Random(seed_, mix_bits(static_cast<std::uint64_t>(position_.epoch))).shuffle(std::span(order_));
}

std::vector<std::int32_t> BatchSource::next(Index n) {
  std::vector<std::int32_t> rows;
  rows.reserve(static_cast<std::size_t>(n * row_));
  for (Index row = 0; row < n; ++row) {
    // All tokens but the last are taken; the last one is looked at and begins the next row.
    for (Index left = row_; left > 0;) {
      const auto number = order_[static_cast<std::size_t>(position_.document)];
      const TokenDocument& document = corpus_->documents[static_cast<std::size_t>(number)];
      const Index begin = document.begin + position_.offset;
      const Index count = std::min(left, document.end - begin);
      rows.insert(rows.end(), corpus_->tokens.begin() + begin,
                  corpus_->tokens.begin() + begin + count);
      left -= count;
      position_.offset += left == 0 ? count - 1 : count;
      if (document.begin + position_.offset < document.end) continue;
      position_.offset = 0;
      if (++position_.document == static_cast<std::int64_t>(order_.size())) {
        position_.document = 0;
        ++position_.epoch;
        order_documents();
      }
    }
    ++position_.rows;
  }
  return rows;
}

void BatchSource::set_position(const DataPosition& position) {
  if (position.corpus != position_.corpus)
    throw ConfigError(
        "the checkpoint's data position belongs to other data, another tokenizer or another seed; "
        "give "
        "the same ones, or start a new run from the model");
  const auto n = static_cast<std::int64_t>(order_.size());
  constexpr std::int64_t most = std::int64_t{1} << 60;  // counted up from there
  if (position.epoch < 0 || position.epoch > most || position.document < 0 ||
      position.document >= n || position.offset < 0 || position.rows < 0 || position.rows > most)
    throw ConfigError("the checkpoint's data position is out of range");
  position_ = position;
  order_documents();
  const auto number = order_[static_cast<std::size_t>(position_.document)];
  const TokenDocument& document = corpus_->documents[static_cast<std::size_t>(number)];
  if (position_.offset >= document.end - document.begin)
    throw ConfigError("the checkpoint's data position is out of range");
}

const std::string& BatchSource::next_source() const {
  const auto number = order_[static_cast<std::size_t>(position_.document)];
  const TokenDocument& document = corpus_->documents[static_cast<std::size_t>(number)];
  return corpus_->sources[static_cast<std::size_t>(document.source)];
}

std::vector<std::int32_t> pack_in_order(const TokenCorpus& corpus, Index positions,
                                        Index max_rows) {
  const auto n = static_cast<Index>(corpus.tokens.size());
  std::vector<std::int32_t> rows;
  if (n == 0 || max_rows < 1) return rows;
  const Index count = std::clamp<Index>((n - 1) / positions, 1, max_rows);
  for (Index row = 0; row < count; ++row)
    for (Index i = 0; i <= positions; ++i)
      rows.push_back(corpus.tokens[static_cast<std::size_t>((row * positions + i) % n)]);
  return rows;
}

}  // namespace minke
