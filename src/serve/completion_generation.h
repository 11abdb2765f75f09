// The answer of a plain completion: one or many prompts, perhaps echoed and scored.
#pragma once
#include "serve/generation.h"
#include "serve/prompt.h"

namespace minke {

class CompletionGeneration : public Generation {
 public:
  struct Form {
    std::vector<std::string> stop;
    bool echo = false, logprobs = false;
    // With log-probabilities the end of sentence has an entry too, so the engine hands it out and
    // the answer ends here.
    std::vector<std::int32_t> stop_ids = {};
  };
  CompletionGeneration(Backend& backend, std::shared_ptr<HttpReply> reply, Settings settings,
                       const ServedModel& model, Form form, std::vector<CompletionPrompt> prompts);

 protected:
  void take_prompt(Index prompt, std::vector<ScoredToken> tokens) override;
  bool take_token(Index choice, ScoredToken token) override;
  void take_finish(Index choice, FinishReason reason) override;
  ApiJson choices() override;

 private:
  struct Choice {
    AnswerText reader;
    std::string text;
    ApiJson logprobs;
    bool echoed = false;
    const char* finish = nullptr;
  };
  bool is_stop_id(std::int32_t id) const;
  std::string_view text_bytes(std::int32_t id) const;
  void echo(Index index);
  void take(Index index, TextPiece piece);

  const ServedModel& model_;
  const Form form_;
  std::vector<CompletionPrompt> prompts_;
  std::vector<std::vector<ScoredToken>> scored_;  // of the prompts, with echo
  std::vector<Choice> choices_;
};

}  // namespace minke
