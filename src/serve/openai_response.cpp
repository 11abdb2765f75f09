#include "serve/openai_response.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/utf8.h"

namespace minke {
namespace {

constexpr double kLeastLogprob = -9999;

double finite(float logprob) {
  return std::max(static_cast<double>(logprob), kLeastLogprob);
}

ApiJson bytes_json(std::string_view bytes) {
  ApiJson list = ApiJson::array();
  for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
  return list;
}

// Keys must differ where tokens do: parts of characters are spelled out, as OpenAI did.
std::string token_key(const Tokenizer& tokenizer, std::int32_t id) {
  const std::string_view bytes = tokenizer.token_bytes(id);
  if (bytes.empty()) return fmt::format("<token {}>", id);
  if (find_invalid_utf8(bytes) == kValidUtf8) return std::string(bytes);
  std::string key = "bytes:";
  for (const char c : bytes) key += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return key;
}

ApiJson token_logprob(const std::string& token, std::optional<float> logprob,
                      std::string_view bytes) {
  return {{"token", token},
          {"logprob", logprob ? ApiJson(finite(*logprob)) : ApiJson()},
          {"bytes", bytes_json(bytes)}};
}

}  // namespace

std::string token_text(const Tokenizer& tokenizer, std::int32_t id) {
  return tokenizer.decode({&id, 1});
}

std::string dump(const ApiJson& json) {
  return json.dump(-1, ' ', false, ApiJson::error_handler_t::replace);
}

std::string event(const ApiJson& json) {
  return "data: " + dump(json) + "\n\n";
}

ApiJson answer_json(const AnswerHead& head, ApiJson choices) {
  return {{"id", head.id},
          {"object", head.object},
          {"created", head.created},
          {"model", head.model},
          {"system_fingerprint", "minke-" MINKE_VERSION},
          {"choices", std::move(choices)}};
}

ApiJson usage_json(const AnswerUsage& u) {
  return {{"prompt_tokens", u.prompt_tokens},
          {"completion_tokens", u.completion_tokens},
          {"total_tokens", u.prompt_tokens + u.completion_tokens},
          {"prompt_cache_hit_tokens", u.cached_tokens},
          {"prompt_cache_miss_tokens", u.prompt_tokens - u.cached_tokens},
          {"prompt_tokens_details", {{"cached_tokens", u.cached_tokens}}},
          {"completion_tokens_details", {{"reasoning_tokens", u.reasoning_tokens}}}};
}

const char* finish_name(FinishReason reason, bool called_tools) {
  switch (reason) {
    case FinishReason::Stop:
      return called_tools ? "tool_calls" : "stop";
    case FinishReason::Length:
      return "length";
    default:
      return "insufficient_system_resource";
  }
}

ApiJson chat_delta(const AnswerDelta& delta, std::span<const std::string> call_ids) {
  ApiJson json = ApiJson::object();
  if (!delta.reasoning.empty()) json["reasoning_content"] = delta.reasoning;
  if (!delta.content.empty() || !delta.tokens.empty()) json["content"] = delta.content;
  for (const ToolPiece& piece : delta.tools) {
    // One entry for each call, also where several pieces of it came together.
    if (json.contains("tool_calls") && json["tool_calls"].back()["index"] == piece.index) {
      ApiJson& arguments = json["tool_calls"].back()["function"]["arguments"];
      arguments = arguments.get<std::string>() + piece.arguments;
      continue;
    }
    ApiJson call = {{"index", piece.index}};
    if (piece.name) {
      call["id"] = call_ids[static_cast<std::size_t>(piece.index)];
      call["type"] = "function";
      call["function"]["name"] = *piece.name;
    }
    call["function"]["arguments"] = piece.arguments;
    json["tool_calls"].push_back(std::move(call));
  }
  return json;
}

ApiJson chat_chunk_choice(Index index, ApiJson delta, ApiJson logprobs, const char* finish) {
  return {{"index", index},
          {"delta", std::move(delta)},
          {"logprobs", std::move(logprobs)},
          {"finish_reason", finish ? ApiJson(finish) : ApiJson()}};
}

ApiJson chat_logprobs(const Tokenizer& tokenizer, std::span<const TextToken> tokens) {
  ApiJson content = ApiJson::array();
  for (const TextToken& token : tokens) {
    ApiJson entry =
        token_logprob(token_text(tokenizer, token.scored.id), token.scored.logprob, token.bytes);
    entry["top_logprobs"] = ApiJson::array();
    for (const TokenAlternative& top : token.scored.top)
      entry["top_logprobs"].push_back(
          token_logprob(token_text(tokenizer, top.id), top.logprob, tokenizer.token_bytes(top.id)));
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}};
}

ApiJson empty_completion_logprobs() {
  return {{"tokens", ApiJson::array()},
          {"token_logprobs", ApiJson::array()},
          {"top_logprobs", ApiJson::array()},
          {"text_offset", ApiJson::array()}};
}

void add_completion_logprobs(const Tokenizer& tokenizer, std::span<const TextToken> tokens,
                             ApiJson& lists) {
  for (const TextToken& token : tokens) {
    const std::string key = token_key(tokenizer, token.scored.id);
    const auto& logprob = token.scored.logprob;
    ApiJson top;
    if (logprob) {
      top = ApiJson::object();
      for (const TokenAlternative& other : token.scored.top)
        top.emplace(token_key(tokenizer, other.id), finite(other.logprob));
      top.emplace(key, finite(*logprob));
    }
    lists["tokens"].push_back(key);
    lists["token_logprobs"].push_back(logprob ? ApiJson(finite(*logprob)) : ApiJson());
    lists["top_logprobs"].push_back(std::move(top));
    lists["text_offset"].push_back(token.offset);
  }
}

ApiJson completion_choice(Index index, std::string text, ApiJson logprobs, const char* finish) {
  return {{"index", index},
          {"text", std::move(text)},
          {"logprobs", std::move(logprobs)},
          {"finish_reason", finish ? ApiJson(finish) : ApiJson()}};
}

}  // namespace minke
