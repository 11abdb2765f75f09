// A conversation with a model: messages, and the latent cache that is kept between turns.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "infer/engine.h"
#include "text/chat_template.h"

namespace minke {

// Part of an answer, as it comes. Thinking is what stands before </think>; the tags themselves are
// not shown.
struct AnswerPart {
  std::string text;
  bool thinking = false;
};

class ChatSession {
 public:
  // All of these must outlive the session. max_tokens 0: until the context is full.
  ChatSession(const Model& model, const Tokenizer& tokenizer, const ChatTemplate& chat_template,
              GenerationSettings settings);

  // Takes the user's message and answers it. Only what the cache does not hold already goes through
  // the model. An answer that is cancelled stays as far as it came; one that had not begun is
  // forgotten together with the message, as is the message when an error is thrown (ConfigError
  // when the conversation does not fit into the context).
  GenerationResult answer(const std::string& user,
                          const std::function<void(const AnswerPart&)>& show,
                          const std::function<bool()>& cancelled);

  void clear();  // the system message stays
  void set_system(std::optional<std::string> text);
  std::vector<Message> messages() const;  // the system message first

 private:
  GenerationResult generate_answer(std::string& content,
                                   const std::function<void(const AnswerPart&)>& show,
                                   const std::function<bool()>& cancelled);

  const Model& model_;
  const Tokenizer& tokenizer_;
  const ChatTemplate& chat_template_;
  GenerationSettings settings_;
  Sequence sequence_;
  std::optional<std::string> system_;
  std::vector<Message> turns_;
  std::optional<std::int32_t> think_begin_, think_end_;
};

}  // namespace minke
