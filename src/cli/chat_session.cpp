#include "cli/chat_session.h"

#include <utility>

namespace minke {
namespace {

// An answer as it comes: told apart by the ids of the think tags, never by their text.
class AnswerReader {
 public:
  AnswerReader(const Tokenizer& tokenizer, std::optional<std::int32_t> think_begin,
               std::optional<std::int32_t> think_end, bool thinking)
      : decoder_(tokenizer, SkipSpecial::Yes),
        think_begin_(think_begin),
        think_end_(think_end),
        thinking_(thinking) {}

  AnswerPart push(std::int32_t id) {
    const bool begins = id == think_begin_, ends = id == think_end_;
    if (!begins && !ends) return keep(decoder_.push(id));
    AnswerPart rest = keep(decoder_.flush());
    thinking_ = begins;
    return rest;
  }
  AnswerPart finish() { return keep(decoder_.flush()); }

  // Without thoughts: templates leave earlier ones out, and a broken-off one helps nobody.
  std::string answer() && { return std::move(answer_); }

 private:
  AnswerPart keep(std::string text) {
    if (!thinking_) answer_ += text;
    return {std::move(text), thinking_};
  }

  StreamDecoder decoder_;
  std::optional<std::int32_t> think_begin_, think_end_;
  bool thinking_;
  std::string answer_;
};

}  // namespace

ChatSession::ChatSession(const Model& model, const Tokenizer& tokenizer,
                         const ChatTemplate& chat_template, GenerationSettings settings)
    : model_(model),
      tokenizer_(tokenizer),
      chat_template_(chat_template),
      settings_(std::move(settings)),
      sequence_(model),
      think_begin_(tokenizer.token_to_id("<think>")),
      think_end_(tokenizer.token_to_id("</think>")) {
  if (settings_.max_tokens == 0) settings_.max_tokens = model.config.max_position_embeddings;
}

void ChatSession::clear() {
  turns_.clear();
}

void ChatSession::set_system(std::optional<std::string> text) {
  system_ = std::move(text);
}

std::vector<Message> ChatSession::messages() const {
  std::vector<Message> all;
  if (system_) all.push_back({.role = "system", .content = *system_, .tool_calls = {}});
  all.insert(all.end(), turns_.begin(), turns_.end());
  return all;
}

GenerationResult ChatSession::generate_answer(std::string& content,
                                              const std::function<void(const AnswerPart&)>& show,
                                              const std::function<bool()>& cancelled) {
  const std::vector<std::int32_t> prompt = encode_chat(tokenizer_, chat_template_, messages());
  check_prompt(model_.config, prompt, "conversation (/clear begins a new one)");
  AnswerReader reader(tokenizer_, think_begin_, think_end_, chat_template_.opens_thinking());
  const auto show_part = [&](const AnswerPart& part) {
    if (!part.text.empty()) show(part);
  };
  GenerationHooks hooks;
  hooks.cancelled = cancelled;
  hooks.on_token = [&](std::int32_t id) {
    show_part(reader.push(id));
    return true;
  };
  GenerationResult result = generate(model_, sequence_, prompt, settings_, hooks);
  show_part(reader.finish());
  content = std::move(reader).answer();
  return result;
}

GenerationResult ChatSession::answer(const std::string& user,
                                     const std::function<void(const AnswerPart&)>& show,
                                     const std::function<bool()>& cancelled) {
  turns_.push_back({.role = "user", .content = user, .tool_calls = {}});
  try {
    std::string content;
    GenerationResult result = generate_answer(content, show, cancelled);
    if (result.ids.empty())
      turns_.pop_back();
    else
      turns_.push_back({.role = "assistant", .content = std::move(content), .tool_calls = {}});
    return result;
  } catch (...) {
    turns_.pop_back();
    throw;
  }
}

}  // namespace minke
