#include "serve/prompt.h"

#include <fmt/format.h>

#include <algorithm>

#include "serve/api_error.h"

namespace minke {
namespace {

void add_to_system(std::vector<Message>& messages, const std::string& text) {
  // The last one: a template that keeps only one system message keeps that.
  for (auto m = messages.rbegin(); m != messages.rend(); ++m)
    if (m->role == "system") {
      m->content = m->content->empty() ? text : *m->content + "\n\n" + text;
      return;
    }
  messages.insert(messages.begin(), {.role = "system", .content = text, .tool_calls = {}});
}

// The templates write the calls of a message without content only: such a message becomes two.
std::vector<Message> with_calls_alone(const std::vector<Message>& messages) {
  std::vector<Message> out;
  for (const Message& m : messages) {
    out.push_back(m);
    if (!m.content || m.tool_calls.empty()) continue;
    out.back().tool_calls.clear();
    out.push_back(m);
    out.back().content.reset();
  }
  return out;
}

// The templates open no thinking then.
bool ends_with_tool_result(const std::vector<Message>& messages) {
  const auto last = std::find_if(messages.rbegin(), messages.rend(),
                                 [](const Message& m) { return m.role != "system"; });
  return last != messages.rend() && last->role == "tool";
}

std::string how_to_call(const ServedModel& model) {
  if (model.tools)
    return "To call tools, write for each call its name and, as JSON, its arguments in the form of "
           "tool calls.";
  return "To call a tool, answer with one JSON object and nothing else: "
         "{\"name\": \"NAME\", \"arguments\": ARGUMENTS}";
}

void add_prefix(const ChatRequest& request, bool thinking, std::vector<TextSegment>& segments) {
  if (thinking) {
    segments.push_back({request.prefix_reasoning, SpecialTokens::Ignore});
    segments.push_back({"\n</think>\n\n", SpecialTokens::Recognise});
  }
  segments.push_back({request.messages.back().content.value_or(""), SpecialTokens::Ignore});
}

}  // namespace

std::string describe_tools(const ServedModel& model, const ChatRequest& request) {
  std::string text = "## Tools\nYou have access to the following tools:\n";
  for (const ToolDefinition& tool : request.tools) {
    text += fmt::format("\n### {}\n", tool.name);
    if (!tool.description.empty()) text += fmt::format("Description: {}\n", tool.description);
    if (!tool.parameters.is_null()) text += fmt::format("Parameters: {}\n", tool.parameters.dump());
  }
  return text + "\n" + how_to_call(model);
}

ChatPrompt chat_prompt(const ServedModel& model, const ChatRequest& request) {
  if (!model.chat_template)
    throw ApiError(400,
                   "this model has no chat template; use /v1/completions, or start the server "
                   "with --chat-template");
  std::vector<Message> messages = with_calls_alone(request.messages);
  if (request.prefix) messages.pop_back();
  if (request.tool_choice != ToolChoice::None)
    add_to_system(messages, describe_tools(model, request));

  std::vector<TextSegment> segments =
      model.chat_template->render(messages, model.tokenizer.config().bos_token.value_or(""), true);
  const bool opened = model.chat_template->opens_thinking() && !ends_with_tool_result(messages);
  const bool asked = request.common.model == kReasonerName && model.think_begin && model.think_end;
  bool thinking = (opened && model.think_end) || asked;
  if (asked && !opened) segments.push_back({"<think>\n", SpecialTokens::Recognise});
  if (request.prefix) {
    add_prefix(request, thinking || opened, segments);
    thinking = false;
  }
  return {model.tokenizer.encode(segments), thinking};
}

namespace {

std::vector<std::int32_t> fim_prompt(const ServedModel& model, const std::string& prefix,
                                     const std::string& suffix) {
  if (!model.fim)
    throw ApiError(400,
                   "suffix: this model's vocabulary has no tokens to fill in the middle "
                   "(<｜fim▁begin｜>, <｜fim▁hole｜>, <｜fim▁end｜>)",
                   "suffix");
  std::vector<std::int32_t> ids;
  const auto add = [&](const std::string& text) {
    const auto more = model.tokenizer.encode(text, SpecialTokens::Ignore);
    ids.insert(ids.end(), more.begin(), more.end());
  };
  if (model.tokenizer.add_bos_token() && model.tokenizer.bos_id())
    ids.push_back(*model.tokenizer.bos_id());
  ids.push_back(model.fim->begin);
  add(prefix);
  ids.push_back(model.fim->hole);
  add(suffix);
  ids.push_back(model.fim->end);
  return ids;
}

}  // namespace

CompletionPrompt completion_prompt(const ServedModel& model, const PromptInput& input,
                                   const std::optional<std::string>& suffix) {
  if (const auto* ids = std::get_if<std::vector<std::int32_t>>(&input)) return {*ids, false};
  const std::string& text = std::get<std::string>(input);
  if (suffix) return {fim_prompt(model, text, *suffix), false};
  CompletionPrompt out{model.tokenizer.encode(text, SpecialTokens::Recognise)};
  if (model.tokenizer.add_bos_token() && model.tokenizer.bos_id()) {
    out.ids.insert(out.ids.begin(), *model.tokenizer.bos_id());
    out.begins_with_bos = true;
  }
  return out;
}

}  // namespace minke
