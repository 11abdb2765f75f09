// What the server knows of the model besides its weights: names, text, ids that mean something.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/constraint.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace minke {

inline constexpr std::string_view kChatName = "deepseek-chat";
inline constexpr std::string_view kReasonerName = "deepseek-reasoner";

struct FimTokens {
  std::int32_t begin, hole, end;
};

struct ServedModel {
  // Finds the ids in the tokenizer.
  ServedModel(std::string name, Tokenizer tokenizer, std::optional<ChatTemplate> chat_template,
              std::vector<std::int32_t> stop_ids);

  std::string name;
  Tokenizer tokenizer;
  std::optional<ChatTemplate> chat_template;  // none: no chat
  std::vector<std::int32_t> stop_ids;
  std::int64_t context = 0;  // tokens of a sequence
  std::int64_t vocab = 0;    // ids that the model knows; the tokenizer may know fewer
  std::int64_t created = 0;  // UNIX time

  std::optional<std::int32_t> think_begin, think_end;
  std::optional<FimTokens> fim;
  std::optional<ToolTokens> tools;
  std::shared_ptr<const TokenTrie> trie;  // for constraints

  std::vector<std::string> names() const;  // its own first
  bool is_served(std::string_view asked) const;
};

}  // namespace minke
