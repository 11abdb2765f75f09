#include "serve/generation.h"

#include <algorithm>

namespace minke {

// The results of one prompt.
class Generation::Sink : public RequestSink {
 public:
  Sink(std::shared_ptr<Generation> owner, Index prompt)
      : owner_(std::move(owner)), prompt_(prompt), first_choice_(prompt * owner_->settings_.n) {}

  void on_prompt(std::vector<ScoredToken> tokens) override {
    const std::lock_guard lock(owner_->mutex_);
    if (!owner_->gone_) owner_->take_prompt(prompt_, std::move(tokens));
  }
  bool on_token(Index choice, ScoredToken token) override {
    const std::lock_guard lock(owner_->mutex_);
    if (owner_->gone_) return false;
    owner_->note_token(first_choice_ + choice);
    return owner_->take_token(first_choice_ + choice, std::move(token));
  }
  void on_finish(Index choice, FinishReason reason) override {
    const std::lock_guard lock(owner_->mutex_);
    if (!owner_->gone_) owner_->take_finish(first_choice_ + choice, reason);
  }
  void on_done(const RequestUsage& usage) override { owner_->prompt_done(usage); }

 private:
  const std::shared_ptr<Generation> owner_;
  const Index prompt_, first_choice_;
};

Generation::Generation(Backend& backend, std::shared_ptr<HttpReply> reply, Settings settings)
    : backend_(backend), reply_(std::move(reply)), settings_(std::move(settings)) {}

void Generation::run(std::vector<GenerationRequest> requests) {
  n_pending_ = requests.size();
  paces_.resize(requests.size() * static_cast<std::size_t>(settings_.n));
  reply_->on_gone([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->gone();
  });
  std::vector<Submission> submissions;
  for (GenerationRequest& request : requests) {
    const auto prompt = static_cast<Index>(submissions.size());
    submissions.push_back({std::move(request), std::make_shared<Sink>(shared_from_this(), prompt)});
  }
  std::vector<RequestId> ids = backend_.submit(std::move(submissions));
  const std::lock_guard lock(mutex_);
  ids_ = std::move(ids);
  if (gone_)
    for (const RequestId id : ids_) backend_.cancel(id);
  submitted_ = true;
  if (streaming()) ensure_started();
  if (n_pending_ == 0) complete();
}

void Generation::gone() {
  const std::lock_guard lock(mutex_);
  gone_ = true;
  for (const RequestId id : ids_) backend_.cancel(id);
}

void Generation::ensure_started() {
  if (started_ || gone_) return;
  started_ = true;
  reply_->start_stream({.content_type = "text/event-stream",
                        .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}});
  begin_stream();
}

void Generation::send_chunk(ApiJson choice) {
  ensure_started();
  ApiJson chunk = answer_json(settings_.head, ApiJson::array({std::move(choice)}));
  if (settings_.include_usage) chunk["usage"] = nullptr;
  reply_->write(event(chunk));
}

void Generation::note_token(Index choice) {
  Pace& pace = paces_[static_cast<std::size_t>(choice)];
  pace.last = Clock::now();
  if (pace.n_tokens++ == 0) pace.first = pace.last;
  auto& first = settings_.record.first_token_s;
  if (!first) first = std::chrono::duration<double>(pace.first - settings_.record.begin).count();
}

void Generation::prompt_done(const RequestUsage& usage) {
  const std::lock_guard lock(mutex_);
  AnswerUsage& sum = settings_.record.usage;
  sum.prompt_tokens += usage.prompt_tokens;
  sum.cached_tokens += usage.cached_tokens;
  sum.completion_tokens += usage.generated_tokens;
  --n_pending_;
  if (n_pending_ == 0 && submitted_) complete();  // else run() does
}

void Generation::complete() {
  RequestRecord& record = settings_.record;
  record.status = gone_ ? 499 : 200;
  record.usage.completion_tokens -= std::min(uncounted_tokens(), record.usage.completion_tokens);
  record.usage.reasoning_tokens = std::min(reasoning_tokens(), record.usage.completion_tokens);
  double seconds = 0;
  Index n = 0;
  for (const Pace& pace : paces_) {
    seconds += std::chrono::duration<double>(pace.last - pace.first).count();
    n += std::max<Index>(pace.n_tokens - 1, 0);
  }
  if (n > 0) record.per_output_token_s = seconds / static_cast<double>(n);
  settings_.ended(record);
  if (!gone_) send_end();
}

void Generation::send_end() {
  if (!streaming()) {
    ApiJson answer = answer_json(settings_.head, choices());
    answer["usage"] = usage_json(settings_.record.usage);
    return reply_->send({.body = dump(answer)});
  }
  ensure_started();
  if (settings_.include_usage) {
    ApiJson chunk = answer_json(settings_.head, ApiJson::array());
    chunk["usage"] = usage_json(settings_.record.usage);
    reply_->write(event(chunk));
  }
  reply_->write("data: [DONE]\n\n");
  reply_->finish();
}

}  // namespace minke
