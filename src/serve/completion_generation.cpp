#include "serve/completion_generation.h"

#include <algorithm>

namespace minke {

CompletionGeneration::CompletionGeneration(Backend& backend, std::shared_ptr<HttpReply> reply,
                                           Settings settings, const ServedModel& model, Form form,
                                           std::vector<CompletionPrompt> prompts)
    : Generation(backend, std::move(reply), std::move(settings)),
      model_(model),
      form_(std::move(form)),
      prompts_(std::move(prompts)),
      scored_(prompts_.size()) {
  for (std::size_t p = 0; p < prompts_.size(); ++p) {
    for (const std::int32_t id : prompts_[p].ids)
      if (form_.echo && !form_.logprobs) scored_[p].push_back({.id = id, .logprob = {}, .top = {}});
    for (Index k = 0; k < this->settings().n; ++k)
      choices_.push_back(
          {.reader = AnswerText(form_.stop),
           .text = "",
           .logprobs = form_.logprobs && !streaming() ? empty_completion_logprobs() : ApiJson()});
  }
}

void CompletionGeneration::take_prompt(Index prompt, std::vector<ScoredToken> tokens) {
  scored_[static_cast<std::size_t>(prompt)] = std::move(tokens);
}

bool CompletionGeneration::is_stop_id(std::int32_t id) const {
  return std::find(form_.stop_ids.begin(), form_.stop_ids.end(), id) != form_.stop_ids.end();
}

std::string_view CompletionGeneration::text_bytes(std::int32_t id) const {
  return model_.tokenizer.is_special(id) ? std::string_view() : model_.tokenizer.token_bytes(id);
}

// The prompt as text, special tokens of the client's own included.
void CompletionGeneration::echo(Index index) {
  Choice& choice = choices_[static_cast<std::size_t>(index)];
  if (!form_.echo || choice.echoed) return;
  choice.echoed = true;
  const auto prompt = static_cast<std::size_t>(index / settings().n);
  AnswerText reader;
  bool hidden = prompts_[prompt].begins_with_bos;
  for (const ScoredToken& token : scored_[prompt]) {
    take(index,
         reader.push(token, hidden ? std::string_view() : model_.tokenizer.token_bytes(token.id)));
    hidden = false;
  }
  take(index, reader.finish());
  choice.reader = AnswerText(form_.stop, reader.offset());
}

bool CompletionGeneration::take_token(Index index, ScoredToken token) {
  echo(index);
  AnswerText& reader = choices_[static_cast<std::size_t>(index)].reader;
  const bool ends = is_stop_id(token.id);
  const std::string_view bytes = ends ? std::string_view() : text_bytes(token.id);
  take(index, reader.push(std::move(token), bytes));
  return !ends && !reader.stopped();
}

void CompletionGeneration::take_finish(Index index, FinishReason reason) {
  echo(index);
  Choice& choice = choices_[static_cast<std::size_t>(index)];
  take(index, choice.reader.finish());
  choice.finish = finish_name(reason, false);
  if (streaming()) send_chunk(completion_choice(index, "", nullptr, choice.finish));
}

void CompletionGeneration::take(Index index, TextPiece piece) {
  if (piece.text.empty() && piece.tokens.empty()) return;
  Choice& choice = choices_[static_cast<std::size_t>(index)];
  if (!streaming()) {
    choice.text += piece.text;
    if (form_.logprobs) add_completion_logprobs(model_.tokenizer, piece.tokens, choice.logprobs);
    return;
  }
  ApiJson logprobs;
  if (form_.logprobs) {
    logprobs = empty_completion_logprobs();
    add_completion_logprobs(model_.tokenizer, piece.tokens, logprobs);
  }
  send_chunk(completion_choice(index, std::move(piece.text), std::move(logprobs), nullptr));
}

ApiJson CompletionGeneration::choices() {
  ApiJson list = ApiJson::array();
  for (std::size_t i = 0; i < choices_.size(); ++i)
    list.push_back(completion_choice(static_cast<Index>(i), std::move(choices_[i].text),
                                     std::move(choices_[i].logprobs), choices_[i].finish));
  return list;
}

}  // namespace minke
