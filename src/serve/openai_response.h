// Answers of the OpenAI and DeepSeek API as JSON: pure functions. Log-probabilities of minus
// infinity, which JSON cannot say, are written as -9999.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "serve/answer_reader.h"
#include "serve/json_fields.h"
#include "serve/served_model.h"

namespace minke {

// What all chunks of an answer have in common.
struct AnswerHead {
  std::string id;      // "chatcmpl-..." or "cmpl-..."
  std::string object;  // "chat.completion", "chat.completion.chunk", "text_completion"
  std::int64_t created = 0;
  std::string model;
};
ApiJson answer_json(const AnswerHead& head, ApiJson choices);

struct AnswerUsage {
  Index prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0, reasoning_tokens = 0;
};
ApiJson usage_json(const AnswerUsage& usage);

const char* finish_name(FinishReason reason, bool called_tools);

// {"index", "delta", "logprobs", "finish_reason"}: the keys of `delta` are those that have
// something to say. `call_ids`: of the calls, by index.
ApiJson chat_delta(const AnswerDelta& delta, std::span<const std::string> call_ids);
ApiJson chat_chunk_choice(Index index, ApiJson delta, ApiJson logprobs, const char* finish);

// One entry for each token; `n_top` alternatives.
ApiJson chat_logprobs(const Tokenizer& tokenizer, std::span<const TextToken> tokens);

// The old format of plain completions. Appends to lists that are begun empty.
ApiJson empty_completion_logprobs();
void add_completion_logprobs(const Tokenizer& tokenizer, std::span<const TextToken> tokens,
                             ApiJson& lists);
ApiJson completion_choice(Index index, std::string text, ApiJson logprobs, const char* finish);

// "data: {...}\n\n"
std::string event(const ApiJson& json);
std::string dump(const ApiJson& json);  // what is no UTF-8 becomes U+FFFD

// A token's text for people: what is no UTF-8 shows as U+FFFD.
std::string token_text(const Tokenizer& tokenizer, std::int32_t id);

}  // namespace minke
