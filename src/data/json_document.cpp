#include "data/json_document.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace minke {
namespace {

std::optional<JsonProblem> read_messages(const nlohmann::json& messages, JsonDocument& document) {
  try {
    document.messages = messages_from_json(messages);
    const ChatTemplate v3 = ChatTemplate::named("deepseek-v3");
    document.text = text_of(v3.render(document.messages, "", false));
  } catch (const Error& error) {
    return JsonProblem{JsonProblem::Kind::WrongType, error.what()};
  }
  if (document.messages.empty())
    return JsonProblem{JsonProblem::Kind::WrongType, "field 'messages' is empty"};
  return std::nullopt;
}

}  // namespace

std::optional<JsonProblem> parse_json_document(std::string_view line, const std::string& text_field,
                                               const std::string& source_field,
                                               JsonDocument& document) {
  using Kind = JsonProblem::Kind;
  nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded())
    return JsonProblem{
        Kind::NotJson,
        fmt::format("not valid JSON; expected one object {{\"{}\": ..., \"{}\": ...}} "
                    "a line",
                    text_field, source_field)};
  if (!json.is_object())
    return JsonProblem{Kind::NotJson, fmt::format("not a JSON object; expected {{\"{}\": ..., "
                                                  "\"{}\": ...}}",
                                                  text_field, source_field)};
  const auto text = json.find(text_field), messages = json.find("messages");
  const bool is_dialogue = text == json.end() && messages != json.end();
  if (text == json.end() && !is_dialogue)
    return JsonProblem{Kind::NoText, fmt::format("has no field '{}'", text_field)};
  if (!is_dialogue && !text->is_string())
    return JsonProblem{Kind::WrongType, fmt::format("field '{}' is not a string", text_field)};
  const auto source = json.find(source_field);
  if (source != json.end() && !source->is_string())
    return JsonProblem{Kind::WrongType, fmt::format("field '{}' is not a string", source_field)};
  if (!is_dialogue)
    document.text = std::move(text->get_ref<std::string&>());
  else if (auto problem = read_messages(*messages, document))
    return problem;
  document.source = source == json.end()
                        ? std::nullopt
                        : std::optional(std::move(source->get_ref<std::string&>()));
  return std::nullopt;
}

}  // namespace minke
