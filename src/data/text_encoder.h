// Text as the tokens of a document in training: begin-of-sentence where the tokenizer's settings
// ask for it, so that prompts begin as in training, the text, and end-of-sentence. Text that looks
// like a special token is none. Of a dialogue the template's own tokens are special, not those of
// its messages.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace minke {

class TextEncoder {
 public:
  // `where` names the tokenizer's directory. ConfigError when it has no end-of-sentence token. The
  // tokenizer must outlive the encoder.
  TextEncoder(const Tokenizer& tokenizer, std::string_view where);

  // Without the end-of-sentence token. Any number of threads may call it.
  std::vector<std::int32_t> operator()(std::string_view text) const;
  std::vector<std::int32_t> document(std::string_view text) const;  // with it
  // A dialogue in DeepSeek-V3's template, from begin-of-sentence to end-of-sentence.
  std::vector<std::int32_t> dialogue(std::span<const Message> messages) const;

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  std::optional<std::int32_t> begin_of_sentence() const { return bos_; }
  std::int32_t end_of_sentence() const { return eos_; }

 private:
  const Tokenizer* tokenizer_;
  std::optional<std::int32_t> bos_;
  std::int32_t eos_;
};

// Of DIR/tokenizer.json: tells whether shards were made with the same one.
std::uint64_t tokenizer_hash(const std::filesystem::path& directory);

}  // namespace minke
