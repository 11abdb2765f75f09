#include "serve/served_model.h"

#include <algorithm>
#include <ctime>

namespace minke {
namespace {

std::optional<FimTokens> find_fim(const Tokenizer& tokenizer) {
  const auto begin = tokenizer.token_to_id("<｜fim▁begin｜>");
  const auto hole = tokenizer.token_to_id("<｜fim▁hole｜>");
  const auto end = tokenizer.token_to_id("<｜fim▁end｜>");
  if (!begin || !hole || !end) return std::nullopt;
  return FimTokens{*begin, *hole, *end};
}

}  // namespace

ServedModel::ServedModel(std::string name, Tokenizer tokenizer,
                         std::optional<ChatTemplate> chat_template,
                         std::vector<std::int32_t> stop_ids)
    : name(std::move(name)),
      tokenizer(std::move(tokenizer)),
      chat_template(std::move(chat_template)),
      stop_ids(std::move(stop_ids)),
      created(std::time(nullptr)),
      think_begin(this->tokenizer.token_to_id("<think>")),
      think_end(this->tokenizer.token_to_id("</think>")),
      fim(find_fim(this->tokenizer)),
      tools(ToolTokens::find(this->tokenizer)),
      trie(constraint_vocabulary(this->tokenizer)) {}

std::vector<std::string> ServedModel::names() const {
  return {name, std::string(kChatName), std::string(kReasonerName)};
}

bool ServedModel::is_served(std::string_view asked) const {
  return asked == name || asked == kChatName || asked == kReasonerName;
}

}  // namespace minke
