#include "serve/answer_reader.h"

namespace minke {

AnswerReader::AnswerReader(const ServedModel& model, std::vector<std::string> stops, ToolForm form,
                           bool thinking)
    : model_(model), thinking_(thinking) {
  // A call as an object comes where content would, and is no content.
  if (form != ToolForm::Object) content_ = AnswerText(std::move(stops));
  if (form == ToolForm::Tokens && model.tools) calls_.emplace(*model.tools);
  if (form == ToolForm::Object) object_.emplace();
}

AnswerDelta AnswerReader::push(ScoredToken token) {
  AnswerDelta out;
  const std::int32_t id = token.id;
  if (thinking_) ++reasoning_tokens_;
  if (mark(id, out)) return out;
  const std::string_view bytes =
      model_.tokenizer.is_special(id) ? std::string_view() : model_.tokenizer.token_bytes(id);
  if (thinking_) {
    out.reasoning = thoughts_.push(std::move(token), bytes).text;
  } else if (calls_ && calls_->inside()) {
    calls_->text(call_text_.push(std::move(token), bytes).text, out.tools);
  } else {
    answering_ = true;
    add_content(content_.push(std::move(token), bytes), out);
  }
  return out;
}

// Ids that change what the following ones are.
bool AnswerReader::mark(std::int32_t id, AnswerDelta& out) {
  if (id == model_.think_end && thinking_) {
    out.reasoning = thoughts_.finish().text;
    thinking_ = false;
    return true;
  }
  if (id == model_.think_begin && !thinking_ && !answering_) return thinking_ = true;
  if (id == model_.think_begin || id == model_.think_end) return true;  // no tags in the text
  if (thinking_ || !calls_) return false;
  const bool inside = calls_->inside();
  if (inside) calls_->text(call_text_.finish().text, out.tools);
  if (!calls_->mark(id, out.tools)) return false;
  if (!inside && calls_->inside()) add_content(content_.finish(), out);
  return true;
}

void AnswerReader::add_content(TextPiece piece, AnswerDelta& out) {
  if (object_) {
    object_->text(piece.text, out.tools);
    return;
  }
  out.content += piece.text;
  for (TextToken& token : piece.tokens) out.tokens.push_back(std::move(token));
}

AnswerDelta AnswerReader::finish() {
  AnswerDelta out;
  out.reasoning = thoughts_.finish().text;
  if (calls_ && calls_->inside()) {
    calls_->text(call_text_.finish().text, out.tools);
    calls_->finish(out.tools);
  } else {
    add_content(content_.finish(), out);
  }
  return out;
}

Index AnswerReader::n_calls() const {
  if (object_) return object_->n_calls();
  return calls_ ? calls_->n_calls() : 0;
}

}  // namespace minke
