#include "serve/chat_generation.h"

#include <algorithm>

#include "serve/random_id.h"

namespace minke {

ChatGeneration::ChatGeneration(Backend& backend, std::shared_ptr<HttpReply> reply,
                               Settings settings, const ServedModel& model, const Form& form)
    : Generation(backend, std::move(reply), std::move(settings)), model_(model), form_(form) {
  for (Index i = 0; i < this->settings().n; ++i)
    choices_.push_back(
        {.reader = AnswerReader(model, form.stop, form.tools, form.thinking),
         .logprobs = form.logprobs ? chat_logprobs(model.tokenizer, {}) : ApiJson()});
}

void ChatGeneration::begin_stream() {
  for (std::size_t i = 0; i < choices_.size(); ++i)
    send_chunk(chat_chunk_choice(static_cast<Index>(i), {{"role", "assistant"}, {"content", ""}},
                                 nullptr, nullptr));
}

bool ChatGeneration::take_token(Index index, ScoredToken token) {
  AnswerReader& reader = choices_[static_cast<std::size_t>(index)].reader;
  take(index, reader.push(std::move(token)));
  return !reader.stopped();
}

void ChatGeneration::take_finish(Index index, FinishReason reason) {
  Choice& choice = choices_[static_cast<std::size_t>(index)];
  choice.ended_by_id = reason == FinishReason::Stop && !choice.reader.stopped();
  take(index, choice.reader.finish());
  choice.finish = finish_name(reason, choice.reader.n_calls() > 0);
  if (streaming()) send_chunk(chat_chunk_choice(index, ApiJson::object(), nullptr, choice.finish));
}

void ChatGeneration::take(Index index, AnswerDelta delta) {
  if (delta.empty()) return;
  Choice& choice = choices_[static_cast<std::size_t>(index)];
  for (const ToolPiece& piece : delta.tools)
    if (piece.name) choice.call_ids.push_back("call_" + random_id());
  if (!streaming()) return keep(choice, std::move(delta));
  ApiJson logprobs = form_.logprobs && !delta.tokens.empty()
                         ? chat_logprobs(model_.tokenizer, delta.tokens)
                         : ApiJson();
  send_chunk(
      chat_chunk_choice(index, chat_delta(delta, choice.call_ids), std::move(logprobs), nullptr));
}

void ChatGeneration::keep(Choice& choice, AnswerDelta delta) {
  choice.reasoning += delta.reasoning;
  choice.content += delta.content;
  for (ToolPiece& piece : delta.tools) {
    if (piece.name)
      choice.calls.push_back({.id = choice.call_ids.back(), .name = *piece.name, .arguments = ""});
    choice.calls[static_cast<std::size_t>(piece.index)].arguments += piece.arguments;
  }
  if (!form_.logprobs) return;
  const ApiJson more = chat_logprobs(model_.tokenizer, delta.tokens);
  for (const ApiJson& entry : more["content"]) choice.logprobs["content"].push_back(entry);
}

ApiJson ChatGeneration::message(const Choice& choice) const {
  ApiJson message = {{"role", "assistant"}};
  const bool only_calls = choice.content.empty() && !choice.calls.empty();
  message["content"] = only_calls ? ApiJson() : ApiJson(choice.content);
  if (form_.reasoning || !choice.reasoning.empty()) message["reasoning_content"] = choice.reasoning;
  for (const Call& call : choice.calls)
    message["tool_calls"].push_back(
        {{"id", call.id},
         {"type", "function"},
         {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  return message;
}

ApiJson ChatGeneration::choices() {
  ApiJson list = ApiJson::array();
  for (std::size_t i = 0; i < choices_.size(); ++i)
    list.push_back({{"index", i},
                    {"message", message(choices_[i])},
                    {"logprobs", std::move(choices_[i].logprobs)},
                    {"finish_reason", choices_[i].finish}});
  return list;
}

Index ChatGeneration::uncounted_tokens() const {
  return std::count_if(choices_.begin(), choices_.end(),
                       [](const Choice& choice) { return choice.ended_by_id; });
}

Index ChatGeneration::reasoning_tokens() const {
  Index n = 0;
  for (const Choice& choice : choices_) n += choice.reader.reasoning_tokens();
  return n;
}

}  // namespace minke
