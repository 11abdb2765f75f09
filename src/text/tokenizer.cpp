#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <functional>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/utf8.h"

namespace minke {
namespace {

constexpr std::size_t kMostTextBytes = (std::size_t{1} << 31) - 1;

// Pieces met earlier in the same text: most words come again, and copying ids costs less than
// merging. Direct-mapped, so it never grows with the text.
class PieceCache {
 public:
  PieceCache(std::string_view text)
      : slots_(std::bit_ceil(std::clamp<std::size_t>(text.size() / 16, 16, 8192))) {}

  struct Slot {
    std::string_view piece;
    std::uint32_t begin = 0, count = 0;  // of its ids in the output
  };
  Slot& slot_of(std::string_view piece) {
    return slots_[std::hash<std::string_view>()(piece) & (slots_.size() - 1)];
  }

 private:
  std::vector<Slot> slots_;
};

constexpr std::size_t kLongestCached = 64;

}  // namespace

Tokenizer::Tokenizer(TokenizerParts parts, TokenizerConfig config)
    : config_(std::move(config)),
      added_(std::move(parts.added_tokens)),
      pre_tokenizer_(std::move(parts.pre_tokenizer)) {
  std::int32_t size = static_cast<std::int32_t>(parts.vocab.size());
  for (const AddedToken& token : added_) size = std::max(size, token.id + 1);
  contents_.resize(size);
  bytes_.resize(size);
  special_.resize(size);
  ids_.reserve(size);
  for (std::size_t id = 0; id < parts.vocab.size(); ++id)
    if (!parts.vocab[id].empty()) add_token(static_cast<std::int32_t>(id), parts.vocab[id]);
  merges_ = BpeMerges(index_bytes(), parts.merges);
  if (parts.ignore_merges)
    for (std::size_t id = 0; id < parts.vocab.size(); ++id)
      if (!bytes_[id].empty()) whole_.emplace(bytes_[id], static_cast<std::int32_t>(id));
  index_added_tokens();
  bos_id_ = configured_id(config_.bos_token, "bos_token");
  eos_id_ = configured_id(config_.eos_token, "eos_token");
  pad_id_ = configured_id(config_.pad_token, "pad_token");
}

void Tokenizer::add_token(std::int32_t id, const std::string& content) {
  contents_[id] = content;
  const auto [entry, is_new] = ids_.emplace(contents_[id], id);
  if (!is_new)
    throw FormatError(
        fmt::format("'{}' has two ids, {} and {}; expected one", content, entry->second, id));
  std::optional<std::string> bytes = from_stand_ins(content);
  bytes_[id] = bytes ? std::move(*bytes) : content;
}

std::array<std::int32_t, 256> Tokenizer::index_bytes() const {
  std::array<std::int32_t, 256> out;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    const auto id = ids_.find(to_stand_ins({&c, 1}));
    if (id == ids_.end())
      throw FormatError(
          fmt::format("model.vocab has no piece for byte 0x{:02X} ('{}'); a byte-level vocabulary "
                      "needs all 256",
                      byte, to_stand_ins({&c, 1})));
    out[byte] = id->second;
  }
  return out;
}

void Tokenizer::index_added_tokens() {
  for (const AddedToken& token : added_) {
    if (token.id < 0 || token.content.empty())
      throw FormatError(
          fmt::format("added token '{}' with id {}: expected a content and an id that "
                      "is not negative",
                      token.content, token.id));
    const std::string& other = contents_[token.id];
    if (other.empty())
      add_token(token.id, token.content);
    else if (other != token.content)
      throw FormatError(fmt::format("id {} is both '{}' and '{}'; expected one content for an id",
                                    token.id, other, token.content));
    special_[token.id] = token.special;
    (token.normalized ? second_ : first_).add(token.content, token.id);
  }
}

std::optional<std::int32_t> Tokenizer::configured_id(const std::optional<std::string>& content,
                                                     const char* key) const {
  if (!content) return std::nullopt;
  if (const auto id = token_to_id(*content)) return id;
  throw FormatError(fmt::format(
      "tokenizer_config.json: {} is '{}', which tokenizer.json does not have; are the two files "
      "from the same model?",
      key, *content));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, SpecialTokens special) const {
  std::vector<AddedTokens::Found> added;
  require_utf8(text, "text");
  if (special == SpecialTokens::Recognise) find_added(text, 0, added);
  return encode(text, added);
}

std::vector<std::int32_t> Tokenizer::encode(std::span<const TextSegment> segments) const {
  std::string text;
  std::vector<AddedTokens::Found> added;
  for (const TextSegment& segment : segments) {
    require_utf8(segment.text, "text");
    if (segment.special == SpecialTokens::Recognise) find_added(segment.text, text.size(), added);
    text += segment.text;
  }
  return encode(text, added);
}

void Tokenizer::find_added(std::string_view text, std::size_t offset,
                           std::vector<AddedTokens::Found>& found) const {
  const auto search = [&](const AddedTokens& tokens, std::size_t begin, std::size_t end,
                          auto between) {
    const std::string_view part = text.substr(0, end);
    for (std::size_t at = begin;;) {
      AddedTokens::Found f = tokens.empty() ? AddedTokens::Found{} : tokens.find(part, at);
      between(at, std::min(f.begin, end));
      if (f.id < 0) return;
      at = f.end;
      found.push_back({f.begin + offset, f.end + offset, f.id});
    }
  };
  search(first_, 0, text.size(), [&](std::size_t begin, std::size_t end) {
    search(second_, begin, end, [](std::size_t, std::size_t) {});
  });
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text,
                                            std::span<const AddedTokens::Found> added) const {
  if (text.size() > kMostTextBytes)
    throw FormatError(fmt::format("text has {} bytes; expected at most {}: encode it in parts",
                                  text.size(), kMostTextBytes));
  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 4 + 16);
  PieceCache cache(text);
  BpeMerges::Scratch scratch;
  const auto encode_piece = [&](std::string_view piece) {
    if (!whole_.empty()) {
      if (const auto id = whole_.find(piece); id != whole_.end()) {
        ids.push_back(id->second);
        return;
      }
    }
    if (piece.size() > kLongestCached) return merges_.encode(piece, scratch, ids);
    PieceCache::Slot& slot = cache.slot_of(piece);
    const auto begin = static_cast<std::uint32_t>(ids.size());
    if (slot.piece == piece) {
      for (std::uint32_t i = 0; i < slot.count; ++i) {
        const std::int32_t id = ids[slot.begin + i];
        ids.push_back(id);
      }
      return;
    }
    merges_.encode(piece, scratch, ids);
    slot = {piece, begin, static_cast<std::uint32_t>(ids.size()) - begin};
  };
  std::size_t at = 0;
  for (const AddedTokens::Found& token : added) {
    pre_tokenizer_.split(text.substr(at, token.begin - at), encode_piece);
    ids.push_back(token.id);
    at = token.end;
  }
  pre_tokenizer_.split(text.substr(at), encode_piece);
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, SkipSpecial skip_special) const {
  std::string bytes;
  for (const std::int32_t id : ids)
    if (skip_special == SkipSpecial::No || !is_special(id)) bytes += token_bytes(id);
  if (find_invalid_utf8(bytes) == kValidUtf8) return bytes;
  std::string text;
  finish_utf8(bytes, text);
  return text;
}

std::string_view Tokenizer::token_bytes(std::int32_t id) const {
  return id >= 0 && id < vocab_size() ? std::string_view(bytes_[id]) : std::string_view();
}

std::string_view Tokenizer::token_content(std::int32_t id) const {
  return id >= 0 && id < vocab_size() ? std::string_view(contents_[id]) : std::string_view();
}

bool Tokenizer::is_special(std::int32_t id) const {
  return id >= 0 && id < vocab_size() && special_[id];
}

std::optional<std::int32_t> Tokenizer::token_to_id(std::string_view content) const {
  const auto id = ids_.find(content);
  if (id == ids_.end()) return std::nullopt;
  return id->second;
}

std::string StreamDecoder::push(std::int32_t id) {
  std::string text;
  if (skip_special_ == SkipSpecial::Yes && tokenizer_->is_special(id)) return text;
  pending_ += tokenizer_->token_bytes(id);
  take_utf8(pending_, text);
  return text;
}

std::string StreamDecoder::flush() {
  std::string text;
  finish_utf8(pending_, text);
  return text;
}

}  // namespace minke
