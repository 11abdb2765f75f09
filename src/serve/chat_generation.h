// The answer of a chat request.
#pragma once
#include "serve/generation.h"

namespace minke {

class ChatGeneration : public Generation {
 public:
  struct Form {
    std::vector<std::string> stop;
    ToolForm tools = ToolForm::None;
    bool thinking = false;   // the answer begins inside its thinking
    bool reasoning = false;  // reasoning_content is written even when it is empty
    bool logprobs = false;
  };
  ChatGeneration(Backend& backend, std::shared_ptr<HttpReply> reply, Settings settings,
                 const ServedModel& model, const Form& form);

 protected:
  void begin_stream() override;
  void take_prompt(Index, std::vector<ScoredToken>) override {}
  bool take_token(Index choice, ScoredToken token) override;
  void take_finish(Index choice, FinishReason reason) override;
  ApiJson choices() override;
  Index reasoning_tokens() const override;
  // The end of sentence is no part of what was written: usage counts the tokens that `logprobs` and
  // the text have, as OpenAI's does.
  Index uncounted_tokens() const override;

 private:
  struct Call {
    std::string id, name, arguments;
  };
  struct Choice {
    AnswerReader reader;
    std::string reasoning = {}, content = {};
    std::vector<std::string> call_ids = {};
    std::vector<Call> calls = {};
    ApiJson logprobs = {};
    const char* finish = nullptr;
    bool ended_by_id = false;
  };
  void take(Index index, AnswerDelta delta);
  void keep(Choice& choice, AnswerDelta delta);
  ApiJson message(const Choice& choice) const;

  const ServedModel& model_;
  const Form form_;
  std::vector<Choice> choices_;
};

}  // namespace minke
