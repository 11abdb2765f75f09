#include "serve/openai_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "serve/api_error.h"

namespace minke {
namespace {

constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kSmallest = std::numeric_limits<std::int64_t>::min();

void read_sampler(const JsonFields& fields, CommonRequest& out) {
  out.sampler.temperature = fields.number("temperature", 0, 2).value_or(1);
  out.sampler.top_p = fields.number("top_p", 0, 1).value_or(1);
  out.sampler.presence_penalty = fields.number("presence_penalty", -2, 2).value_or(0);
  out.sampler.frequency_penalty = fields.number("frequency_penalty", -2, 2).value_or(0);
  out.seed = fields.integer("seed", kSmallest, kLargest);
}

void add_stop(const ApiJson& value, const std::string& field, const ApiLimits& limits,
              std::vector<std::string>& out) {
  if (!value.is_string())
    throw_bad_field(field, fmt::format("expected a string, found {}", shown(value)));
  const auto& text = value.get_ref<const std::string&>();
  if (text.size() > limits.stop_bytes)
    throw_bad_field(
        field, fmt::format("is {} bytes long; {} are allowed", text.size(), limits.stop_bytes));
  if (!text.empty()) out.push_back(text);
}

std::vector<std::string> read_stop(const JsonFields& fields, const ApiLimits& limits) {
  std::vector<std::string> out;
  const ApiJson* stop = fields.find("stop");
  if (!stop) return out;
  if (!stop->is_array()) {
    add_stop(*stop, "stop", limits, out);
    return out;
  }
  fields.list("stop", limits.stops);
  for (std::size_t i = 0; i < stop->size(); ++i)
    add_stop((*stop)[i], fmt::format("stop[{}]", i), limits, out);
  return out;
}

std::vector<std::pair<std::int32_t, float>> read_logit_bias(const JsonFields& fields,
                                                            const ApiLimits& limits) {
  std::vector<std::pair<std::int32_t, float>> out;
  const ApiJson* bias = fields.object("logit_bias");
  if (!bias) return out;
  const JsonFields entries(*bias, "logit_bias");
  for (const auto& [key, value] : bias->items()) {
    std::int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id >= limits.vocab)
      throw_bad_field("logit_bias",
                      fmt::format("a key is no token id from 0 to {}", limits.vocab - 1));
    if (const auto number = entries.number(key.c_str(), -100, 100))
      out.emplace_back(id, static_cast<float>(*number));
  }
  return out;
}

void read_stream(const JsonFields& fields, CommonRequest& out) {
  out.stream = fields.boolean("stream").value_or(false);
  const ApiJson* options = fields.object("stream_options");
  if (!options) return;
  if (!out.stream) throw_bad_field("stream_options", "is only allowed with \"stream\": true");
  out.include_usage =
      JsonFields(*options, "stream_options").boolean("include_usage").value_or(false);
}

CommonRequest read_common(const JsonFields& fields, const ApiLimits& limits) {
  CommonRequest out;
  out.model = fields.required_string("model");
  read_sampler(fields, out);
  out.n = fields.integer("n", 1, limits.n).value_or(1);
  out.stop = read_stop(fields, limits);
  read_stream(fields, out);
  out.logit_bias = read_logit_bias(fields, limits);
  fields.string("user");
  return out;
}

void read_chat_logprobs(const JsonFields& fields, const ApiLimits& limits, CommonRequest& out) {
  const bool wanted = fields.boolean("logprobs").value_or(false);
  const auto top =
      fields.integer("top_logprobs", 0, static_cast<std::int64_t>(limits.top_logprobs));
  if (top && !wanted) throw_bad_field("top_logprobs", "needs \"logprobs\": true");
  if (wanted) out.top_logprobs = top.value_or(0);
}

// A string, or text parts that are joined.
std::optional<std::string> read_content(const JsonFields& message) {
  const ApiJson* content = message.find("content");
  if (!content) return std::nullopt;
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) message.fail("content", "a string or a list of text parts");
  std::string text;
  for (std::size_t i = 0; i < content->size(); ++i) {
    const JsonFields part((*content)[i], fmt::format("{}[{}]", message.name("content"), i));
    const std::string type = part.required_string("type");
    if (type != "text") part.fail("type", "\"text\"");
    text += part.required_string("text");
  }
  return text;
}

std::vector<ToolCall> read_tool_calls(const JsonFields& message, const ApiLimits& limits) {
  std::vector<ToolCall> out;
  const ApiJson* calls = message.list("tool_calls", limits.tools);
  if (!calls) return out;
  for (std::size_t i = 0; i < calls->size(); ++i) {
    const JsonFields call((*calls)[i], fmt::format("{}[{}]", message.name("tool_calls"), i));
    const ApiJson* function = call.object("function");
    if (!function) call.fail("function", "an object");
    const JsonFields fields(*function, call.name("function"));
    out.push_back(
        {.name = fields.required_string("name"), .arguments = fields.required_string("arguments")});
  }
  return out;
}

Message read_message(const JsonFields& fields, const ApiLimits& limits) {
  Message out;
  out.role = fields.required_string("role");
  if (out.role == "developer") out.role = "system";
  const bool assistant = out.role == "assistant";
  if (!assistant && out.role != "system" && out.role != "user" && out.role != "tool")
    throw_bad_field(fields.name("role"),
                    "expected system, developer, user, assistant or tool, found another role");
  out.content = read_content(fields);
  if (assistant) out.tool_calls = read_tool_calls(fields, limits);
  if (out.role == "tool") fields.required_string("tool_call_id");
  if (!out.content && out.tool_calls.empty())
    fields.fail("content", assistant ? "a string, or tool_calls" : "a string");
  // Templates write the calls of a message without content only.
  if (out.content && out.content->empty() && !out.tool_calls.empty()) out.content.reset();
  return out;
}

bool valid_tool_name(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  };
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), allowed);
}

ToolDefinition read_tool(const JsonFields& tool) {
  if (tool.required_string("type") != "function") tool.fail("type", "\"function\"");
  const ApiJson* function = tool.object("function");
  if (!function) tool.fail("function", "an object");
  const JsonFields fields(*function, tool.name("function"));
  ToolDefinition out;
  out.name = fields.required_string("name");
  if (!valid_tool_name(out.name))
    throw_bad_field(fields.name("name"), "expected 1 to 64 of a-z, A-Z, 0-9, _ and -");
  out.description = fields.string("description").value_or("");
  if (const ApiJson* parameters = fields.object("parameters")) out.parameters = *parameters;
  return out;
}

// The one tool that tool_choice names.
void choose_named(const JsonFields& choice, ChatRequest& out) {
  if (choice.required_string("type") != "function") choice.fail("type", "\"function\"");
  const ApiJson* function = choice.object("function");
  if (!function) choice.fail("function", "an object");
  const std::string name = JsonFields(*function, "tool_choice.function").required_string("name");
  for (const ToolDefinition& tool : out.tools)
    if (tool.name == name) {
      out.tools = {ToolDefinition(tool)};
      out.tool_choice = ToolChoice::Required;
      out.parallel_tool_calls = false;
      return;
    }
  throw_bad_field("tool_choice.function.name", "is not among the names in tools");
}

void read_tools(const JsonFields& fields, const ApiLimits& limits, ChatRequest& out) {
  if (const ApiJson* tools = fields.list("tools", limits.tools))
    for (std::size_t i = 0; i < tools->size(); ++i)
      out.tools.push_back(read_tool(JsonFields((*tools)[i], fmt::format("tools[{}]", i))));
  out.parallel_tool_calls = fields.boolean("parallel_tool_calls").value_or(true);
  out.tool_choice = out.tools.empty() ? ToolChoice::None : ToolChoice::Auto;
  const ApiJson* choice = fields.find("tool_choice");
  if (!choice) return;
  if (choice->is_object()) return choose_named(JsonFields(*choice, "tool_choice"), out);
  const std::string name = fields.string("tool_choice").value_or("");
  if (name == "none")
    out.tool_choice = ToolChoice::None;
  else if (name == "required")
    out.tool_choice = ToolChoice::Required;
  else if (name != "auto")
    throw_bad_field("tool_choice", "expected none, auto, required or an object");
  if (name == "required" && out.tools.empty())
    throw_bad_field("tool_choice", "needs at least one entry in tools");
}

void read_format(const JsonFields& fields, ChatRequest& out) {
  const ApiJson* format = fields.object("response_format");
  if (!format) return;
  const JsonFields inner(*format, "response_format");
  const std::string type = inner.required_string("type");
  if (type == "text") return;
  if (type == "json_object") {
    out.format = ResponseFormat::JsonObject;
  } else if (type == "json_schema") {
    out.format = ResponseFormat::JsonSchema;
    const ApiJson* description = inner.object("json_schema");
    if (!description) inner.fail("json_schema", "an object");
    const ApiJson* schema =
        JsonFields(*description, "response_format.json_schema").object("schema");
    if (!schema)
      throw_bad_field("response_format.json_schema.schema", "expected an object, found nothing");
    out.schema = *schema;
  } else {
    throw_bad_field("response_format.type", "expected text, json_object or json_schema");
  }
}

void read_prefix(const ApiJson& messages, bool beta, ChatRequest& out) {
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const JsonFields message(messages[i], fmt::format("messages[{}]", i));
    if (!message.boolean("prefix").value_or(false)) continue;
    if (!beta) throw_bad_field(message.name("prefix"), "is only allowed at /beta/chat/completions");
    if (i + 1 != messages.size() || out.messages.back().role != "assistant" ||
        !out.messages.back().tool_calls.empty())
      throw_bad_field(message.name("prefix"),
                      "is only allowed in the last message, with the role assistant");
    out.prefix = true;
    out.prefix_reasoning = message.string("reasoning_content").value_or("");
  }
}

std::vector<Message> parse_messages(const JsonFields& fields, const ApiLimits& limits) {
  const ApiJson* messages = fields.list("messages", limits.messages);
  if (!messages || messages->empty()) fields.fail("messages", "a list of at least one message");
  std::vector<Message> out;
  for (std::size_t i = 0; i < messages->size(); ++i)
    out.push_back(read_message(JsonFields((*messages)[i], fmt::format("messages[{}]", i)), limits));
  return out;
}

}  // namespace

ChatRequest parse_chat_request(const ApiJson& body, const ApiLimits& limits, bool beta) {
  const JsonFields fields(body, "");
  ChatRequest out{.common = read_common(fields, limits)};
  const auto old_limit = fields.integer("max_tokens", 1, kLargest);
  const auto new_limit = fields.integer("max_completion_tokens", 1, kLargest);
  out.common.max_tokens = new_limit ? new_limit : old_limit;
  read_chat_logprobs(fields, limits, out.common);
  out.messages = parse_messages(fields, limits);
  read_prefix(*fields.find("messages"), beta, out);
  read_tools(fields, limits, out);
  read_format(fields, out);
  return out;
}

std::vector<std::int32_t> parse_ids(const ApiJson& list, const std::string& field,
                                    std::int64_t vocab) {
  std::vector<std::int32_t> ids;
  ids.reserve(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) ids.push_back(token_id(list[i], field, vocab));
  return ids;
}

namespace {

std::vector<PromptInput> read_prompts(const JsonFields& fields, const ApiLimits& limits) {
  const ApiJson* prompt = fields.find("prompt");
  if (prompt && prompt->is_string()) return {prompt->get<std::string>()};
  if (!prompt || !prompt->is_array() || prompt->empty())
    fields.fail("prompt", "a string, a list of strings, of token ids, or of lists of token ids");
  if (prompt->front().is_number()) return {parse_ids(*prompt, "prompt", limits.vocab)};
  fields.list("prompt", limits.prompts);
  std::vector<PromptInput> out;
  for (std::size_t i = 0; i < prompt->size(); ++i) {
    const ApiJson& entry = (*prompt)[i];
    const std::string field = fmt::format("prompt[{}]", i);
    if (entry.is_string())
      out.emplace_back(entry.get<std::string>());
    else if (entry.is_array())
      out.emplace_back(parse_ids(entry, field, limits.vocab));
    else
      throw_bad_field(
          field, fmt::format("expected a string or a list of token ids, found {}", shown(entry)));
  }
  return out;
}

}  // namespace

CompletionRequest parse_completion_request(const ApiJson& body, const ApiLimits& limits) {
  const JsonFields fields(body, "");
  CompletionRequest out{.common = read_common(fields, limits)};
  out.prompts = read_prompts(fields, limits);
  out.echo = fields.boolean("echo").value_or(false);
  out.common.max_tokens = fields.integer("max_tokens", out.echo ? 0 : 1, kLargest).value_or(16);
  out.common.top_logprobs =
      fields.integer("logprobs", 0, static_cast<std::int64_t>(limits.top_logprobs));
  out.suffix = fields.string("suffix");
  if (out.suffix && out.suffix->empty()) out.suffix.reset();
  if (out.suffix && out.echo) throw_bad_field("suffix", "cannot be combined with echo");
  if (out.suffix)
    for (const PromptInput& prompt : out.prompts)
      if (!std::holds_alternative<std::string>(prompt))
        throw_bad_field("suffix", "needs a prompt of text");
  return out;
}

}  // namespace minke
