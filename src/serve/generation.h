// One API request on its way through the engine: its prompts are submitted, what comes back becomes
// the answer, whole or as Server-Sent Events, and a client that goes cancels it.
//
// Threads: run() and the reply's on_gone come from the server, everything else from the engine's
// thread; a mutex keeps them apart.
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "serve/backend.h"
#include "serve/http_message.h"
#include "serve/openai_response.h"
#include "serve/request_record.h"

namespace minke {

// Who is told at the end of a request.
using RequestEnded = std::function<void(const RequestRecord&)>;

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  struct Settings {
    AnswerHead head;
    bool stream = false, include_usage = false;
    Index n = 1;  // choices of a prompt
    RequestRecord record;
    RequestEnded ended;
  };
  Generation(Backend& backend, std::shared_ptr<HttpReply> reply, Settings settings);
  virtual ~Generation() = default;

  // Submits all, or none and throws what the engine throws.
  void run(std::vector<GenerationRequest> requests);

 protected:
  // The kind of answer. `choice` counts through the prompts. Called with the mutex held.
  virtual void begin_stream() {}
  virtual void take_prompt(Index prompt, std::vector<ScoredToken> tokens) = 0;
  virtual bool take_token(Index choice, ScoredToken token) = 0;  // false ends the choice
  virtual void take_finish(Index choice, FinishReason reason) = 0;
  virtual ApiJson choices() = 0;  // without stream, at the end
  virtual Index reasoning_tokens() const { return 0; }
  virtual Index uncounted_tokens() const { return 0; }  // generated, but not of the answer's usage

  bool streaming() const { return settings_.stream; }
  void send_chunk(ApiJson choice);
  const Settings& settings() const { return settings_; }

 private:
  class Sink;
  using Clock = RequestRecord::Clock;
  struct Pace {  // of a choice
    Clock::time_point first, last;
    Index n_tokens = 0;
  };

  void ensure_started();
  void note_token(Index choice);
  void prompt_done(const RequestUsage& usage);
  void complete();
  void send_end();
  void gone();

  Backend& backend_;
  const std::shared_ptr<HttpReply> reply_;
  Settings settings_;
  std::mutex mutex_;
  std::vector<RequestId> ids_;
  std::vector<Pace> paces_;
  std::size_t n_pending_ = 0;  // prompts
  bool submitted_ = false, started_ = false, gone_ = false;
};

}  // namespace minke
