#include "data/document_transform.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "base/error.h"
#include "text/unicode_class.h"
#include "text/utf8.h"

namespace minke {
namespace {

constexpr std::uint64_t kTransformStream = 0x66696D;  // apart from the orders of documents

// Where the line breaks of ` ?[\p{P}\p{S}]+[\r\n]+` begin, or 0 when the token is not of this form
// (also where it begins inside a character: its parts would be no text).
std::size_t line_breaks_of(std::string_view token) {
  const std::size_t breaks = token.find_first_of("\r\n");
  if (breaks == std::string_view::npos || breaks == 0) return 0;
  if (token.find_first_not_of("\r\n", breaks) != std::string_view::npos) return 0;
  std::string_view head = token.substr(0, breaks);
  if (head.starts_with(' ')) head.remove_prefix(1);
  if (head.empty() || find_invalid_utf8(head) != kValidUtf8) return 0;
  for (std::size_t at = 0; at < head.size();) {
    const CodePoint point = code_point_at(head, at);
    const UnicodeClass c = unicode_class(point.code);
    if (c != UnicodeClass::Punctuation && c != UnicodeClass::Symbol) return 0;
    at += point.bytes;
  }
  return breaks;
}

bool begins_character(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
}

// The byte offset of a code point.
std::size_t offset_of(std::string_view text, std::uint64_t character) {
  std::size_t at = 0;
  for (; at < text.size(); ++at)
    if (begins_character(text[at]) && character-- == 0) break;
  return at;
}

}  // namespace

DocumentTransform::DocumentTransform(const TextEncoder& encoder, TransformRates rates)
    : encoder_(encoder),
      rates_(rates),
      is_added_(static_cast<std::size_t>(encoder.tokenizer().vocab_size())) {
  for (const AddedToken& token : encoder.tokenizer().added_tokens())
    is_added_[static_cast<std::size_t>(token.id)] = true;
  if (rates_.fim > 0) find_fim_tokens();
  if (rates_.split > 0) find_joined_tokens();
}

void DocumentTransform::find_fim_tokens() {
  const auto find = [&](const char* name) {
    const auto id = encoder_.tokenizer().token_to_id(name);
    if (!id)
      throw ConfigError(fmt::format(
          "data.fim_rate is {}, but the tokenizer has no token {}; take one that has, or 0",
          rates_.fim, name));
    return *id;
  };
  begin_ = find("<｜fim▁begin｜>");
  hole_ = find("<｜fim▁hole｜>");
  end_ = find("<｜fim▁end｜>");
}

void DocumentTransform::find_joined_tokens() {
  const Tokenizer& tokenizer = encoder_.tokenizer();
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string_view bytes = tokenizer.token_bytes(id);
    const std::size_t breaks = line_breaks_of(bytes);
    if (breaks == 0) continue;
    std::vector<std::int32_t> parts =
        tokenizer.encode(bytes.substr(0, breaks), SpecialTokens::Ignore);
    const auto tail = tokenizer.encode(bytes.substr(breaks), SpecialTokens::Ignore);
    parts.insert(parts.end(), tail.begin(), tail.end());
    joined_.emplace(id, std::move(parts));
  }
  if (joined_.empty())
    throw ConfigError(fmt::format(
        "data.split_rate is {}, but no token of the tokenizer joins punctuation with line breaks; "
        "set it to 0",
        rates_.split));
}

std::vector<std::int32_t> DocumentTransform::apply(std::vector<std::int32_t> tokens,
                                                   std::uint64_t seed, std::int64_t epoch,
                                                   std::int64_t document) const {
  const std::uint64_t stream = mix_bits(static_cast<std::uint64_t>(epoch) + kTransformStream);
  Random random(seed, mix_bits(stream ^ static_cast<std::uint64_t>(document)));
  if (random.uniform() < rates_.fim && !is_dialogue(tokens))
    tokens = fill_in_the_middle(tokens, random);
  if (rates_.split > 0) tokens = split_joined(tokens, random);
  return tokens;
}

// Added tokens inside: those of a chat template, which has no middle to fill.
bool DocumentTransform::is_dialogue(const std::vector<std::int32_t>& tokens) const {
  for (std::size_t i = 1; i + 1 < tokens.size(); ++i)
    if (is_added_[static_cast<std::size_t>(tokens[i])]) return true;
  return false;
}

std::vector<std::int32_t> DocumentTransform::fill_in_the_middle(
    const std::vector<std::int32_t>& tokens, Random& random) const {
  const auto bos = encoder_.begin_of_sentence();
  const std::size_t first = bos && !tokens.empty() && tokens.front() == *bos ? 1 : 0;
  std::string text;
  for (std::size_t i = first; i + 1 < tokens.size(); ++i)
    text += encoder_.tokenizer().token_bytes(tokens[i]);
  const auto characters = static_cast<std::uint64_t>(
      std::count_if(text.begin(), text.end(), [](char byte) { return begins_character(byte); }));
  if (characters == 0) return tokens;
  // Two different ones of the characters + 1 borders.
  std::uint64_t a = random.below(characters + 1), b = random.below(characters);
  if (b >= a) ++b;
  const std::size_t from = offset_of(text, std::min(a, b)), to = offset_of(text, std::max(a, b));

  const std::string_view view(text);
  std::vector<std::int32_t> result(tokens.begin(), tokens.begin() + static_cast<long>(first));
  const auto add = [&](std::int32_t mark, std::string_view part) {
    const auto ids = encoder_.tokenizer().encode(part, SpecialTokens::Ignore);
    result.push_back(mark);
    result.insert(result.end(), ids.begin(), ids.end());
  };
  add(begin_, view.substr(0, from));
  add(hole_, view.substr(to));
  add(end_, view.substr(from, to - from));
  result.push_back(tokens.back());
  return result;
}

std::vector<std::int32_t> DocumentTransform::split_joined(const std::vector<std::int32_t>& tokens,
                                                          Random& random) const {
  std::vector<std::int32_t> result;
  result.reserve(tokens.size() + tokens.size() / 8);
  for (const std::int32_t id : tokens) {
    const auto parts = joined_.find(id);
    if (parts != joined_.end() && random.uniform() < rates_.split)
      result.insert(result.end(), parts->second.begin(), parts->second.end());
    else
      result.push_back(id);
  }
  return result;
}

}  // namespace minke
