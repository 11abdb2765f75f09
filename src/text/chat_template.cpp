#include "text/chat_template.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::string_view kHowToName =
    "name the one to use with --chat-template deepseek-v3 or deepseek-r1";

std::string string_field(const Json& object, const char* key, const std::string& where) {
  const Json value = object.value(key, Json());
  if (!value.is_string())
    throw FormatError(fmt::format("{}.{}: expected a string, found {}", where, key,
                                  object.contains(key) ? value.type_name() : "nothing"));
  return value;
}

ToolCall tool_call(const Json& value, const std::string& where) {
  if (!value.is_object()) throw FormatError(where + ": expected an object");
  const Json function = value.value("function", Json());
  if (!function.is_object()) throw FormatError(where + ".function: expected an object");
  ToolCall call;
  if (value.contains("type")) call.type = string_field(value, "type", where);
  call.name = string_field(function, "name", where + ".function");
  call.arguments = string_field(function, "arguments", where + ".function");
  return call;
}

Message message(const Json& value, const std::string& where) {
  if (!value.is_object()) throw FormatError(where + ": expected an object");
  Message out;
  out.role = string_field(value, "role", where);
  const bool may_lack = out.role == "assistant" && value.value("content", Json()).is_null();
  if (!may_lack) out.content = string_field(value, "content", where);
  const Json calls = value.value("tool_calls", Json());
  if (!calls.is_null() && !calls.is_array())
    throw FormatError(where + ".tool_calls: expected an array");
  for (std::size_t i = 0; i < calls.size(); ++i)
    out.tool_calls.push_back(tool_call(calls[i], fmt::format("{}.tool_calls[{}]", where, i)));
  return out;
}

// Line ends inside the templates' strings are written as themselves or as \n.
std::string canonical(std::string_view jinja) {
  std::string out;
  for (std::size_t i = 0; i < jinja.size(); ++i) {
    if (jinja.substr(i, 2) == "\\n") {
      out += '\n';
      ++i;
    } else {
      out += jinja[i];
    }
  }
  const std::size_t last = out.find_last_not_of(" \n");
  out.resize(last == std::string::npos ? 0 : last + 1);
  return out;
}

// Segments of the template's text and of the messages' in turn.
class Renderer {
 public:
  Renderer& own(std::string_view text) { return add(text, SpecialTokens::Recognise); }
  Renderer& given(std::string_view text) { return add(text, SpecialTokens::Ignore); }
  std::vector<TextSegment> take() { return std::move(segments_); }

 private:
  Renderer& add(std::string_view text, SpecialTokens special) {
    if (text.empty()) return *this;
    if (segments_.empty() || segments_.back().special != special)
      segments_.push_back({std::string(text), special});
    else
      segments_.back().text += text;
    return *this;
  }
  std::vector<TextSegment> segments_;
};

}  // namespace

std::vector<Message> messages_from_json(const Json& value) {
  if (!value.is_array()) throw FormatError("messages: expected an array");
  std::vector<Message> out;
  for (std::size_t i = 0; i < value.size(); ++i)
    out.push_back(message(value[i], fmt::format("messages[{}]", i)));
  return out;
}

ChatTemplate ChatTemplate::named(std::string_view name) {
  if (name == "deepseek-v3") return {true, false, false};
  if (name == "deepseek-r1") return {false, true, true};
  throw ConfigError(
      fmt::format("unknown chat template '{}'; expected deepseek-v3 or deepseek-r1", name));
}

ChatTemplate ChatTemplate::recognise(std::string_view jinja) {
  const std::string text = canonical(jinja);
  for (const bool joins : {true, false})
    for (const bool cuts : {false, true})
      for (const bool opens : {false, true})
        if (const ChatTemplate t(joins, cuts, opens); text == t.jinja()) return t;
  throw FormatError(
      fmt::format("this chat template is not known (known are those of DeepSeek-V3 "
                  "and R1); {}",
                  kHowToName));
}

ChatTemplate ChatTemplate::load(const fs::path& dir) {
  fs::path path = dir / "chat_template.jinja";
  try {
    if (fs::exists(path)) return recognise(read_file(path));
    path = dir / "tokenizer_config.json";
    Json value;
    if (fs::exists(path)) {
      const Json config = parse_json(read_file(path));
      if (config.is_object()) value = config.value("chat_template", Json());
    }
    if (value.is_array()) {  // [{"name", "template"}]
      Json chosen;
      for (const Json& entry : value)
        if (entry.is_object() && entry.value("name", Json()) == "default")
          chosen = entry.value("template", Json());
      value = chosen;
    }
    if (!value.is_string())
      throw FormatError(
          fmt::format("chat_template: expected a string or a list with a \"default\" "
                      "one; {}",
                      kHowToName));
    return recognise(value.get<std::string>());
  } catch (const FormatError& e) {
    throw FormatError(path.string() + ": " + e.what());
  }
}

std::string ChatTemplate::jinja() const {
  std::string out =
      "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}"
      "{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, "
      "system_prompt=''";
  if (joins_system_) out += ", is_first_sp=true";
  out += ") %}{%- for message in messages %}{%- if message['role'] == 'system' %}";
  out += joins_system_
             ? "{%- if ns.is_first_sp %}{% set ns.system_prompt = ns.system_prompt + "
               "message['content'] %}{% set ns.is_first_sp = false %}{%- else %}{% set "
               "ns.system_prompt = ns.system_prompt + '\n\n' + message['content'] %}{%- endif %}"
             : "{% set ns.system_prompt = message['content'] %}";
  out +=
      "{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}"
      "{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + "
      "message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and "
      "message['content'] is none %}{%- set ns.is_tool = false -%}{%- for tool in "
      "message['tool_calls']%}{%- if not ns.is_first %}{{'<｜Assistant｜><｜tool▁calls▁begin｜>"
      "<｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\n' "
      "+ '```json' + '\n' + tool['function']['arguments'] + '\n' + '```' + "
      "'<｜tool▁call▁end｜>'}}{%- set ns.is_first = true -%}{%- else %}{{'\n' + "
      "'<｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\n' "
      "+ '```json' + '\n' + tool['function']['arguments'] + '\n' + '```' + "
      "'<｜tool▁call▁end｜>'}}{{'<｜tool▁calls▁end｜><｜end▁of▁sentence｜>'}}{%- endif %}"
      "{%- endfor %}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is "
      "not none %}{%- if ns.is_tool %}{{'<｜tool▁outputs▁end｜>' + message['content'] + "
      "'<｜end▁of▁sentence｜>'}}{%- set ns.is_tool = false -%}{%- else %}";
  out += cuts_thinking_ ? "{% set content = message['content'] %}{% if '</think>' in content %}"
                          "{% set content = content.split('</think>')[-1] %}{% endif %}"
                          "{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}"
                        : "{{'<｜Assistant｜>' + message['content'] + '<｜end▁of▁sentence｜>'}}";
  out +=
      "{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}"
      "{%- if ns.is_output_first %}{{'<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>' + "
      "message['content'] + '<｜tool▁output▁end｜>'}}{%- set ns.is_output_first = false %}"
      "{%- else %}{{'\n<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>'}}"
      "{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<｜tool▁outputs▁end｜>'}}"
      "{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜>";
  if (opens_thinking_) out += "<think>\n";
  return out + "'}}{% endif %}";
}

std::vector<TextSegment> ChatTemplate::render(std::span<const Message> messages,
                                              std::string_view bos,
                                              bool add_generation_prompt) const {
  Renderer out;
  std::string system;
  bool first_system = true;
  for (const Message& m : messages) {
    if (m.role != "system") continue;
    if (!joins_system_) system.clear();
    if (joins_system_ && !first_system) system += "\n\n";
    system += m.content.value_or("");
    first_system = false;
  }
  out.own(bos).given(system);

  bool called = false;    // some tool was called before
  bool answered = false;  // some tool has answered before
  bool in_tool = false;   // the last message was a tool's answer
  for (const Message& m : messages) {
    const std::string_view content = m.content ? std::string_view(*m.content) : std::string_view();
    if (m.role == "user") {
      in_tool = false;
      out.own("<｜User｜>").given(content);
    } else if (m.role == "assistant" && !m.content) {
      in_tool = false;
      for (const ToolCall& call : m.tool_calls) {
        out.own(called ? "\n<｜tool▁call▁begin｜>"
                       : "<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>");
        out.given(call.type).own("<｜tool▁sep｜>").given(call.name).own("\n```json\n");
        out.given(call.arguments).own("\n```<｜tool▁call▁end｜>");
        if (called) out.own("<｜tool▁calls▁end｜><｜end▁of▁sentence｜>");
        called = true;
      }
    } else if (m.role == "assistant") {
      const std::size_t thought =
          cuts_thinking_ && !in_tool ? content.rfind("</think>") : std::string_view::npos;
      out.own(in_tool ? "<｜tool▁outputs▁end｜>" : "<｜Assistant｜>");
      out.given(thought == std::string_view::npos
                    ? content
                    : content.substr(thought + std::string_view("</think>").size()));
      out.own("<｜end▁of▁sentence｜>");
      in_tool = false;
    } else if (m.role == "tool") {
      in_tool = true;
      out.own(answered ? "\n<｜tool▁output▁begin｜>"
                       : "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>");
      out.given(content).own("<｜tool▁output▁end｜>");
      answered = true;
    }
  }
  if (in_tool) out.own("<｜tool▁outputs▁end｜>");
  if (add_generation_prompt && !in_tool)
    out.own(opens_thinking_ ? "<｜Assistant｜><think>\n" : "<｜Assistant｜>");
  return out.take();
}

std::string text_of(std::span<const TextSegment> segments) {
  std::string text;
  for (const TextSegment& segment : segments) text += segment.text;
  return text;
}

std::vector<std::int32_t> encode_chat(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                      std::span<const Message> messages, ChatOptions options) {
  const std::vector<TextSegment> segments = chat_template.render(
      messages, tokenizer.config().bos_token.value_or(""), options.add_generation_prompt);
  return options.trust_content ? tokenizer.encode(text_of(segments)) : tokenizer.encode(segments);
}

}  // namespace minke
