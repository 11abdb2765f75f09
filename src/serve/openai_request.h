// Requests of the OpenAI and DeepSeek API: from JSON to structs, every field checked. Pure
// functions; ApiError 400 names the field.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "infer/sampler.h"
#include "serve/constraint.h"
#include "serve/json_fields.h"
#include "text/chat_template.h"

namespace minke {

// What a request may ask for at most.
struct ApiLimits {
  std::int64_t vocab = 0;  // ids below it
  std::int64_t n = 8;
  std::size_t top_logprobs = 20;
  std::size_t stops = 16, stop_bytes = 256;
  std::size_t messages = 4096, tools = 128, logit_bias = 512;
  std::size_t prompts = 256;
};

struct CommonRequest {
  std::string model;
  std::optional<std::int64_t> max_tokens;
  SamplerSettings sampler;  // without the seed
  std::optional<std::int64_t> seed;
  std::int64_t n = 1;
  std::vector<std::string> stop;
  bool stream = false, include_usage = false;
  std::optional<std::int64_t> top_logprobs;  // log-probabilities wanted, with so many alternatives
  std::vector<std::pair<std::int32_t, float>> logit_bias;
};

enum class ToolChoice : std::uint8_t { None, Auto, Required };
enum class ResponseFormat : std::uint8_t { Text, JsonObject, JsonSchema };

struct ChatRequest {
  CommonRequest common = {};
  std::vector<Message> messages = {};  // `developer` is system
  // Prefix completion: the last message is the beginning of the answer.
  bool prefix = false;
  std::string prefix_reasoning = {};
  std::vector<ToolDefinition> tools = {};  // for a named choice just that one
  ToolChoice tool_choice = ToolChoice::None;
  bool parallel_tool_calls = true;
  ResponseFormat format = ResponseFormat::Text;
  ApiJson schema = {};
};
// `beta`: prefix completion is allowed.
ChatRequest parse_chat_request(const ApiJson& body, const ApiLimits& limits, bool beta);

using PromptInput = std::variant<std::string, std::vector<std::int32_t>>;

struct CompletionRequest {
  CommonRequest common = {};  // max_tokens is set
  std::vector<PromptInput> prompts = {};
  bool echo = false;
  std::optional<std::string> suffix = {};
};
CompletionRequest parse_completion_request(const ApiJson& body, const ApiLimits& limits);

// `tokens` of /detokenize, of any number.
std::vector<std::int32_t> parse_ids(const ApiJson& list, const std::string& field,
                                    std::int64_t vocab);

}  // namespace minke
