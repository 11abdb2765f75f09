// Chat templates: what a model is given for a list of messages. DeepSeek-V3's and R1's are written
// by hand; a directory's own Jinja text says which one it is. What surprises in them is theirs:
//   system messages come first wherever they stood (V3: joined by a blank line; R1: the last one);
//   the end of tool calls is only written from a message's second call on; an assistant message
//   with content loses its tool calls; roles they do not know render nothing.
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace minke {

struct ToolCall {
  std::string type = "function";
  std::string name;
  std::string arguments;  // JSON, as text
};

struct Message {
  std::string role;                    // system, user, assistant or tool
  std::optional<std::string> content;  // an assistant message with tool calls may have none
  std::vector<ToolCall> tool_calls;
};

// From [{"role","content","tool_calls"}]; `reasoning_content` and other keys are accepted and have
// no effect. Throws FormatError naming the field, as messages[2].content.
std::vector<Message> messages_from_json(const nlohmann::json& value);

class ChatTemplate {
 public:
  // deepseek-v3 or deepseek-r1. Throws ConfigError for another name.
  static ChatTemplate named(std::string_view name);
  // By the text of a template. Throws FormatError when it is neither.
  static ChatTemplate recognise(std::string_view jinja);
  // Of dir/chat_template.jinja, else of `chat_template` in dir/tokenizer_config.json.
  static ChatTemplate load(const std::filesystem::path& dir);

  // The published text, for a tokenizer_config.json.
  std::string jinja() const;

  // The template's own text may hold added tokens (SpecialTokens::Recognise), the messages' may
  // not. `bos` comes first.
  std::vector<TextSegment> render(std::span<const Message> messages, std::string_view bos,
                                  bool add_generation_prompt) const;

  // Whether the generation prompt ends in <think>: the answer then begins inside its thinking.
  bool opens_thinking() const { return opens_thinking_; }

 private:
  ChatTemplate(bool joins_system, bool cuts_thinking, bool opens_thinking)
      : joins_system_(joins_system),
        cuts_thinking_(cuts_thinking),
        opens_thinking_(opens_thinking) {}

  bool joins_system_;   // several system messages, by a blank line; else the last one holds
  bool cuts_thinking_;  // earlier answers lose what stands before </think>
  bool opens_thinking_;
};

std::string text_of(std::span<const TextSegment> segments);

struct ChatOptions {
  bool add_generation_prompt = true;
  bool trust_content = false;  // recognise added tokens in the messages too, as the reference does
};

std::vector<std::int32_t> encode_chat(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                      std::span<const Message> messages, ChatOptions options = {});

}  // namespace minke
