#include "data/packing.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/hash.h"
#include "base/options.h"
#include "base/random.h"

namespace minke {

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

BatchSource::BatchSource(const TokenCorpus& corpus, Index positions, std::uint64_t seed,
                         BatchOptions options)
    : corpus_(&corpus), row_(positions + 1), seed_(seed), options_(std::move(options)) {
  if (corpus.tokens.size() == 0)
    throw ConfigError("no text is left to train on; give more data or a smaller held_out_fraction");
  if (positions < 1)
    throw ConfigError(fmt::format("rows of {} positions; expected 1 or more", positions));
  if (options_.ranks < 1 || options_.rank < 0 || options_.rank >= options_.ranks)
    throw ConfigError(
        fmt::format("rank {} of {} ranks does not exist", options_.rank, options_.ranks));
  position_.corpus = identify();
  make_streams();
  choose_stream();
  enter_document();
}

std::uint64_t BatchSource::identify() const {
  Hash64 hash;
  const auto add = [&](const auto& value) { hash.add(std::as_bytes(std::span(&value, 1))); };
  add(corpus_->identity);
  add(seed_);
  for (const double share : options_.shares) add(share);
  if (options_.transform) {
    add(options_.transform->rates().fim);
    add(options_.transform->rates().split);
  }
  return hash.value();
}

void BatchSource::make_streams() {
  if (!is_mixture()) streams_.emplace_back();
  for (std::size_t source = 0; source < options_.shares.size(); ++source)
    if (options_.shares[source] > 0)
      streams_.push_back({static_cast<int>(source), options_.shares[source], {}});
  for (std::size_t stream = 0; stream < streams_.size(); ++stream) {
    order_documents(stream, 0);
    if (streams_[stream].order.empty())
      throw ConfigError(fmt::format(
          "data.mixture: the source '{}' has no document to train on; set its weight to 0",
          corpus_->sources[static_cast<std::size_t>(streams_[stream].source)]));
  }
  if (!is_mixture()) return;
  position_.stream_epochs.assign(streams_.size(), 0);
  position_.stream_documents.assign(streams_.size(), 0);
  position_.stream_tokens.assign(streams_.size(), 0);
}

void BatchSource::order_documents(std::size_t number, std::int64_t epoch) {
  Stream& stream = streams_[number];
  stream.order.clear();
  for (Index document = 0; document < corpus_->documents.size(); ++document)
    if (stream.source < 0 || corpus_->documents[document].source == stream.source)
      stream.order.push_back(document);
  std::uint64_t key = mix_bits(static_cast<std::uint64_t>(epoch));
  // By name: another source in the list does not change this one's order.
  if (stream.source >= 0)
    key ^= hash64(as_byte_span(corpus_->sources[static_cast<std::size_t>(stream.source)]));
  Random(seed_, key).shuffle(std::span(stream.order));
}

void BatchSource::enter_document() {
  const std::int64_t document = current().order[static_cast<std::size_t>(position_.document)];
  place_ = corpus_->documents[document];
  length_ = place_.end - place_.begin;
  if (!options_.transform) return;
  transformed_ = options_.transform->apply(corpus_->document_tokens(document), seed_,
                                           position_.epoch, document);
  length_ = static_cast<Index>(transformed_.size());
}

void BatchSource::leave_document() {
  position_.offset = 0;
  if (++position_.document == static_cast<std::int64_t>(current().order.size())) {
    position_.document = 0;
    ++position_.epoch;
    order_documents(static_cast<std::size_t>(position_.stream), position_.epoch);
  }
  if (!is_mixture()) return;
  const auto stream = static_cast<std::size_t>(position_.stream);
  position_.stream_epochs[stream] = position_.epoch;
  position_.stream_documents[stream] = position_.document;
  position_.stream_tokens[stream] += length_;
  choose_stream();
}

// The stream whose tokens are farthest behind its share of all so far.
void BatchSource::choose_stream() {
  if (!is_mixture()) return;
  std::int64_t all = 0;
  for (const std::int64_t tokens : position_.stream_tokens) all += tokens;
  const auto behind = [&](std::size_t stream) {
    return streams_[stream].share * static_cast<double>(all) -
           static_cast<double>(position_.stream_tokens[stream]);
  };
  std::size_t next = 0;
  for (std::size_t stream = 1; stream < streams_.size(); ++stream)
    if (behind(stream) > behind(next)) next = stream;
  position_.stream = static_cast<std::int64_t>(next);
  position_.epoch = position_.stream_epochs[next];
  position_.document = position_.stream_documents[next];
}

// From the current offset on.
void BatchSource::copy_tokens(Index count, std::vector<std::int32_t>& out) const {
  const std::size_t before = out.size();
  out.resize(before + static_cast<std::size_t>(count));
  if (options_.transform)
    std::copy_n(transformed_.begin() + position_.offset, count,
                out.begin() + static_cast<long>(before));
  else
    corpus_->tokens.copy(place_.begin + position_.offset, std::span(out).subspan(before));
}

// Goes one row on; adds it to `batch` unless that is null.
void BatchSource::walk_row(RowBatch* batch) {
  if (batch) batch->starts.push_back({0});
  // All tokens but the last are taken; the last one is looked at and begins the next row.
  for (Index left = row_; left > 0;) {
    const Index at = row_ - left, count = std::min(left, length_ - position_.offset);
    if (batch) {
      if (position_.offset == 0 && at > 0 && at + 1 < row_) batch->starts.back().push_back(at);
      copy_tokens(count, batch->tokens);
    }
    left -= count;
    position_.offset += left == 0 ? count - 1 : count;
    if (position_.offset < length_) continue;
    leave_document();
    enter_document();
  }
  ++position_.rows;
}

RowBatch BatchSource::next_rows(Index n) {
  RowBatch batch;
  batch.tokens.reserve(static_cast<std::size_t>(n * row_));
  for (Index row = 0; row < n; ++row)
    for (Index rank = 0; rank < options_.ranks; ++rank)
      walk_row(rank == options_.rank ? &batch : nullptr);
  return batch;
}

void BatchSource::set_position(const DataPosition& position) {
  if (position.corpus != position_.corpus)
    throw ConfigError(
        "the checkpoint's data position belongs to other data, another tokenizer, another seed or "
        "another mixture; give the same ones, or start a new run from the model");
  const auto out_of_range = [] {
    return ConfigError("the checkpoint's data position is out of range");
  };
  constexpr std::int64_t most = std::int64_t{1} << 60;  // counted up from there
  const auto counts = [](std::int64_t n) { return n >= 0 && n <= most; };
  const std::size_t lists = is_mixture() ? streams_.size() : 0;
  if (position.stream < 0 || position.stream >= static_cast<std::int64_t>(streams_.size()) ||
      position.stream_epochs.size() != lists || position.stream_documents.size() != lists ||
      position.stream_tokens.size() != lists || position.offset < 0 || !counts(position.rows))
    throw out_of_range();
  const auto is_place = [&](std::size_t stream, std::int64_t epoch, std::int64_t document) {
    return counts(epoch) && document >= 0 &&
           document < static_cast<std::int64_t>(streams_[stream].order.size());
  };
  const auto stream = static_cast<std::size_t>(position.stream);
  bool in_range = is_place(stream, position.epoch, position.document);
  for (std::size_t i = 0; i < lists; ++i)
    in_range = in_range && is_place(i, position.stream_epochs[i], position.stream_documents[i]) &&
               counts(position.stream_tokens[i]);
  if (is_mixture())
    in_range = in_range && position.epoch == position.stream_epochs[stream] &&
               position.document == position.stream_documents[stream];
  if (!in_range) throw out_of_range();
  position_ = position;
  for (std::size_t i = 0; i < streams_.size(); ++i)
    order_documents(i, is_mixture() ? position.stream_epochs[i] : position.epoch);
  enter_document();
  if (position_.offset >= length_) throw out_of_range();
}

const std::string& BatchSource::next_source() const {
  return corpus_->sources[static_cast<std::size_t>(place_.source)];
}

RowBatch pack_in_order(const TokenCorpus& corpus, Index positions, Index max_rows, int source) {
  // One row more than whole ones: the last token of a row is the first of the next.
  std::vector<std::int32_t> tokens;
  std::vector<bool> is_start;
  RowBatch batch;
  for (Index i = 0; i < corpus.documents.size() && max_rows > 0; ++i) {
    if (static_cast<Index>(tokens.size()) > max_rows * positions) break;
    if (source >= 0 && corpus.documents[i].source != source) continue;
    const auto document = corpus.document_tokens(i);
    tokens.insert(tokens.end(), document.begin(), document.end());
    is_start.push_back(true);
    is_start.resize(tokens.size());
  }
  const auto n = static_cast<Index>(tokens.size());
  if (n == 0 || max_rows < 1) return batch;
  const Index count = std::clamp<Index>((n - 1) / positions, 1, max_rows);
  for (Index row = 0; row < count; ++row) {
    batch.starts.push_back({0});
    for (Index i = 0; i <= positions; ++i) {
      const auto at = static_cast<std::size_t>((row * positions + i) % n);
      batch.tokens.push_back(tokens[at]);
      if (i > 0 && i < positions && is_start[at]) batch.starts.back().push_back(i);
    }
  }
  return batch;
}

}  // namespace minke
