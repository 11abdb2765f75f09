#include "data/text_encoder.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/files.h"
#include "base/hash.h"

namespace minke {

TextEncoder::TextEncoder(const Tokenizer& tokenizer, std::string_view where)
    : tokenizer_(&tokenizer),
      bos_(tokenizer.add_bos_token() ? tokenizer.bos_id() : std::nullopt),
      eos_(tokenizer.eos_id().value_or(-1)) {
  if (!tokenizer.eos_id())
    throw ConfigError(
        fmt::format("{}: tokenizer_config.json names no eos_token, which ends every "
                    "document in training",
                    where));
}

std::vector<std::int32_t> TextEncoder::operator()(std::string_view text) const {
  std::vector<std::int32_t> ids = tokenizer_->encode(text, SpecialTokens::Ignore);
  if (bos_) ids.insert(ids.begin(), *bos_);
  return ids;
}

std::vector<std::int32_t> TextEncoder::document(std::string_view text) const {
  std::vector<std::int32_t> ids = (*this)(text);
  ids.push_back(eos_);
  return ids;
}

std::vector<std::int32_t> TextEncoder::dialogue(std::span<const Message> messages) const {
  std::vector<std::int32_t> ids =
      encode_chat(*tokenizer_, ChatTemplate::named("deepseek-v3"), messages,
                  {.add_generation_prompt = false, .trust_content = false});
  if (ids.empty() || ids.back() != eos_) ids.push_back(eos_);
  return ids;
}

std::uint64_t tokenizer_hash(const std::filesystem::path& directory) {
  return hash64(as_byte_span(read_file(directory / "tokenizer.json")));
}

}  // namespace minke
