#include "data/token_corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "base/error.h"
#include "base/hash.h"
#include "base/progress.h"

namespace minke {
namespace {

constexpr Index kBytesAtOnce = 4 << 20;  // tokenised between two looks at the progress
constexpr Index kBytesWorthProgress = 16 << 20;

// The piece in which number `at` lies, of pieces that begin at begins[0], begins[1], ...
std::size_t piece_of(const std::vector<Index>& begins, Index at) {
  return static_cast<std::size_t>(std::upper_bound(begins.begin(), begins.end(), at) -
                                  begins.begin()) -
         1;
}

template <class Id>
void widen(std::span<const std::byte> bytes, std::span<std::int32_t> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    Id id;
    std::memcpy(&id, bytes.data() + i * sizeof(Id), sizeof(Id));
    out[i] = static_cast<std::int32_t>(id);
  }
}

}  // namespace

TokenStore::TokenStore(std::vector<std::int32_t> tokens)
    : tokens_(std::move(tokens)), begins_{0, static_cast<Index>(tokens_.size())} {}

TokenStore::TokenStore(std::vector<Mapped> shards, std::int32_t vocab_size)
    : shards_(std::move(shards)), vocab_size_(vocab_size) {
  for (const Mapped& shard : shards_)
    begins_.push_back(begins_.back() +
                      static_cast<Index>(shard.file.bytes().size()) / shard.id_bytes);
}

void TokenStore::copy(Index begin, std::span<std::int32_t> out) const {
  MINKE_ASSERT(begin >= 0 && begin + static_cast<Index>(out.size()) <= size());
  if (shards_.empty()) {
    std::copy_n(tokens_.begin() + begin, out.size(), out.begin());
    return;
  }
  while (!out.empty()) {
    const std::size_t shard = piece_of(begins_, begin);
    const auto n = std::min(static_cast<Index>(out.size()), begins_[shard + 1] - begin);
    copy_from_shard(shard, begin - begins_[shard], out.first(static_cast<std::size_t>(n)));
    out = out.subspan(static_cast<std::size_t>(n));
    begin += n;
  }
}

void TokenStore::copy_from_shard(std::size_t number, Index at, std::span<std::int32_t> out) const {
  const Mapped& shard = shards_[number];
  const auto bytes = shard.file.bytes().subspan(static_cast<std::size_t>(at * shard.id_bytes));
  if (shard.id_bytes == 2)
    widen<std::uint16_t>(bytes, out);
  else
    widen<std::uint32_t>(bytes, out);
  shard.file.check_intact();
  // The embedding would be read out of bounds.
  for (const std::int32_t id : out)
    if (id < 0 || id >= vocab_size_)
      throw FormatError(fmt::format(
          "{}: holds the token id {}, but the tokenizer has {} entries; the file is damaged, make "
          "the shards again with minke data",
          shard.file.path().string(), static_cast<std::uint32_t>(id), vocab_size_));
}

DocumentList::DocumentList(std::vector<TokenDocument> documents)
    : documents_(std::move(documents)), begins_{0, static_cast<Index>(documents_.size())} {}

DocumentList::DocumentList(std::vector<Mapped> shards) : shards_(std::move(shards)) {
  for (const Mapped& shard : shards_)
    begins_.push_back(begins_.back() +
                      static_cast<Index>(shard.file.bytes().size() / sizeof(ShardDocument)));
}

TokenDocument DocumentList::operator[](Index document) const {
  MINKE_ASSERT(document >= 0 && document < size());
  if (shards_.empty()) return documents_[static_cast<std::size_t>(document)];
  const std::size_t number = piece_of(begins_, document);
  const Mapped& shard = shards_[number];
  ShardDocument entry;
  std::memcpy(&entry,
              shard.file.bytes().data() +
                  static_cast<std::size_t>(document - begins_[number]) * sizeof entry,
              sizeof entry);
  shard.file.check_intact();
  const auto tokens = static_cast<std::uint64_t>(shard.tokens);
  if (entry.begin > tokens || entry.tokens > tokens - entry.begin || entry.tokens == 0 ||
      entry.source >= shard.sources->size())
    throw FormatError(fmt::format(
        "{}: the entry of document {} is damaged; make the shards again with minke data",
        shard.file.path().string(), document - begins_[number]));
  const Index begin = shard.first_token + static_cast<Index>(entry.begin);
  return {begin, begin + static_cast<Index>(entry.tokens), (*shard.sources)[entry.source],
          static_cast<Index>(entry.text_bytes)};
}

Index TokenCorpus::text_bytes() const {
  Index sum = 0;
  for (Index i = 0; i < documents.size(); ++i) sum += documents[i].text_bytes;
  return sum;
}

std::vector<std::int32_t> TokenCorpus::document_tokens(Index document) const {
  const TokenDocument place = documents[document];
  std::vector<std::int32_t> ids(static_cast<std::size_t>(place.end - place.begin));
  tokens.copy(place.begin, ids);
  return ids;
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
  std::vector<std::int32_t> tokens;
  std::vector<TokenDocument> list;
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
      const auto first = static_cast<Index>(tokens.size());
      tokens.insert(tokens.end(), ids.begin(), ids.end());
      tokens.push_back(end_of_sentence);
      list.push_back({first, static_cast<Index>(tokens.size()), place->second,
                      static_cast<Index>(at(i).text.size())});
    }
    begin = end;
    done += bytes;
    if (progress) progress->update(done);
  }
  corpus.identity = hash64(std::as_bytes(std::span(tokens)));
  corpus.tokens = TokenStore(std::move(tokens));
  corpus.documents = DocumentList(std::move(list));
  return corpus;
}

}  // namespace minke
