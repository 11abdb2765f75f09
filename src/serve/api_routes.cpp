#include "serve/api_routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "serve/api_error.h"
#include "serve/chat_generation.h"
#include "serve/completion_generation.h"
#include "serve/prompt.h"
#include "serve/random_id.h"

namespace minke {
namespace {

ToolForm tool_form(const ServedModel& model, const ChatRequest& request) {
  if (request.tool_choice == ToolChoice::None) return ToolForm::None;
  if (model.tools) return ToolForm::Tokens;
  return request.tool_choice == ToolChoice::Required ? ToolForm::Object : ToolForm::None;
}

HttpResponse json_response(const ApiJson& json) {
  return {.body = dump(json)};
}

}  // namespace

ApiRoutes::ApiRoutes(const ServedModel& model, Backend& backend, ApiLimits limits,
                     std::int64_t default_max_tokens)
    : model_(model),
      backend_(backend),
      limits_(std::move(limits)),
      default_max_tokens_(default_max_tokens) {}

void ApiRoutes::require_model(const std::string& name) const {
  if (!model_.is_served(name))
    throw ApiError(
        404, fmt::format("there is no such model; served are {}", fmt::join(model_.names(), ", ")),
        "model", "model_not_found");
}

void ApiRoutes::check_prompt(std::size_t n_tokens, bool generates, const char* field) const {
  const auto n = static_cast<std::int64_t>(n_tokens);
  if (n == 0) throw_bad_field(field, "is empty; at least one token is needed");
  if (n + (generates ? 1 : 0) > model_.context)
    throw ApiError(400,
                   fmt::format("This model's maximum context length is {} tokens, but the prompt "
                               "has {} tokens; shorten it.",
                               model_.context, n),
                   field, "context_length_exceeded");
}

GenerationRequest ApiRoutes::engine_request(const CommonRequest& common,
                                            std::vector<std::int32_t> prompt,
                                            std::int64_t max_tokens, const char* field) const {
  check_prompt(prompt.size(), max_tokens > 0, field);
  GenerationRequest out;
  out.max_tokens = std::min(max_tokens, model_.context - static_cast<std::int64_t>(prompt.size()));
  out.prompt = std::move(prompt);
  out.n_choices = common.n;
  out.sampler = common.sampler;
  out.sampler.seed = common.seed ? static_cast<std::uint64_t>(*common.seed) : random_seed();
  out.logit_bias = common.logit_bias;
  out.stop_ids = model_.stop_ids;
  out.top_logprobs = common.top_logprobs;
  return out;
}

Generation::Settings ApiRoutes::answer(const CommonRequest& common, const char* prefix,
                                       const char* object, RequestRecord record,
                                       RequestEnded ended) const {
  Generation::Settings settings{.head = {.id = prefix + random_id(),
                                         .object = object,
                                         .created = std::time(nullptr),
                                         .model = model_.name},
                                .stream = common.stream,
                                .include_usage = common.include_usage,
                                .n = common.n,
                                .record = std::move(record),
                                .ended = std::move(ended)};
  settings.record.id = settings.head.id;
  settings.record.stream = common.stream;
  return settings;
}

void ApiRoutes::start(const std::shared_ptr<Generation>& generation,
                      std::vector<GenerationRequest> requests) const {
  try {
    generation->run(std::move(requests));
  } catch (const QueueFull& e) {
    ApiError error(429, e.what(), "", "rate_limit_exceeded");
    error.retry_after_s = e.retry_after_s;
    throw error;
  } catch (const Draining& e) {
    throw ApiError(503, e.what());
  } catch (const ConfigError& e) {
    throw ApiError(400, e.what());
  }
}

std::unique_ptr<TokenConstraint> ApiRoutes::constraint(const ChatRequest& request,
                                                       bool thinking) const {
  std::unique_ptr<TokenConstraint> inner;
  const bool formatted = request.format != ResponseFormat::Text;
  try {
    if (request.tool_choice == ToolChoice::Required ||
        (request.tool_choice == ToolChoice::Auto && !formatted))
      inner = tool_call_constraint(
          model_.trie,
          {.tools = request.tools,
           .tokens = model_.tools,
           .use = request.tool_choice == ToolChoice::Required ? ToolUse::Required : ToolUse::Auto,
           .parallel = request.parallel_tool_calls},
          model_.stop_ids);
    else if (request.format == ResponseFormat::JsonObject)
      inner = json_object_constraint(model_.trie, model_.stop_ids);
    else if (request.format == ResponseFormat::JsonSchema)
      inner = json_schema_constraint(model_.trie, request.schema,
                                     "response_format.json_schema.schema", model_.stop_ids);
  } catch (const ConfigError& e) {
    throw ApiError(400, e.what(), formatted ? "response_format" : "tools");
  }
  if (!inner || !thinking) return inner;
  return constraint_after(*model_.think_end, std::move(inner), model_.trie, model_.stop_ids);
}

void ApiRoutes::chat(std::string_view body, bool beta, std::shared_ptr<HttpReply> reply,
                     RequestRecord record, RequestEnded ended) const {
  const ChatRequest request = parse_chat_request(parse_body(body), limits_, beta);
  require_model(request.common.model);
  ChatPrompt prompt = chat_prompt(model_, request);
  const bool thinking = prompt.thinking;
  std::vector<GenerationRequest> requests;
  requests.push_back(engine_request(request.common, std::move(prompt.ids),
                                    request.common.max_tokens.value_or(default_max_tokens_),
                                    "messages"));
  requests[0].constraint = constraint(request, thinking);
  const bool stream = request.common.stream;
  start(
      std::make_shared<ChatGeneration>(
          backend_, std::move(reply),
          answer(request.common, "chatcmpl-", stream ? "chat.completion.chunk" : "chat.completion",
                 std::move(record), std::move(ended)),
          model_,
          ChatGeneration::Form{.stop = request.common.stop,
                               .tools = tool_form(model_, request),
                               .thinking = thinking,
                               .reasoning = request.common.model == kReasonerName,
                               .logprobs = request.common.top_logprobs.has_value()}),
      std::move(requests));
}

void ApiRoutes::completions(std::string_view body, std::shared_ptr<HttpReply> reply,
                            RequestRecord record, RequestEnded ended) const {
  const CompletionRequest request = parse_completion_request(parse_body(body), limits_);
  const CommonRequest& common = request.common;
  require_model(common.model);
  const bool logprobs = common.top_logprobs.has_value();
  std::vector<CompletionPrompt> prompts;
  std::vector<GenerationRequest> requests;
  for (const PromptInput& input : request.prompts) {
    prompts.push_back(completion_prompt(model_, input, request.suffix));
    requests.push_back(engine_request(common, prompts.back().ids, *common.max_tokens, "prompt"));
    requests.back().score_prompt = request.echo && logprobs;
    if (logprobs) requests.back().stop_ids.clear();
  }
  start(std::make_shared<CompletionGeneration>(
            backend_, std::move(reply),
            answer(common, "cmpl-", "text_completion", std::move(record), std::move(ended)), model_,
            CompletionGeneration::Form{.stop = common.stop,
                                       .echo = request.echo,
                                       .logprobs = logprobs,
                                       .stop_ids = model_.stop_ids},
            std::move(prompts)),
        std::move(requests));
}

ApiJson ApiRoutes::model_json(std::string_view id) const {
  return {{"id", id},
          {"object", "model"},
          {"created", model_.created},
          {"owned_by", "minke"},
          {"max_model_len", model_.context},
          {"context_length", model_.context}};
}

HttpResponse ApiRoutes::models() const {
  ApiJson list = ApiJson::array();
  for (const std::string& name : model_.names()) list.push_back(model_json(name));
  return json_response({{"object", "list"}, {"data", std::move(list)}});
}

HttpResponse ApiRoutes::model(std::string_view id) const {
  require_model(std::string(id));
  return json_response(model_json(id));
}

HttpResponse ApiRoutes::tokenize(std::string_view body) const {
  const ApiJson json = parse_body(body);
  const JsonFields fields(json, "");
  if (const auto name = fields.string("model")) require_model(*name);
  std::vector<std::int32_t> ids;
  if (const auto prompt = fields.string("prompt")) {
    ids = completion_prompt(model_, *prompt, {}).ids;
    if (!fields.boolean("add_special_tokens").value_or(true))
      ids = model_.tokenizer.encode(*prompt, SpecialTokens::Recognise);
  } else {
    if (!fields.find("messages")) fields.fail("prompt", "a string, or messages");
    ApiJson chat = json;  // as a chat with it would be read, tools and thinking included
    if (!fields.find("model")) chat["model"] = model_.name;
    ids = chat_prompt(model_, parse_chat_request(chat, limits_, /*beta=*/true)).ids;
  }
  return json_response({{"tokens", ids}, {"count", ids.size()}, {"max_model_len", model_.context}});
}

HttpResponse ApiRoutes::detokenize(std::string_view body) const {
  const ApiJson json = parse_body(body);
  const JsonFields fields(json, "");
  if (const auto name = fields.string("model")) require_model(*name);
  const ApiJson* list = fields.list("tokens", static_cast<std::size_t>(-1));
  if (!list) fields.fail("tokens", "a list of token ids");
  const bool skip = fields.boolean("skip_special_tokens").value_or(true);
  return json_response(
      {{"prompt", model_.tokenizer.decode(parse_ids(*list, "tokens", limits_.vocab),
                                          skip ? SkipSpecial::Yes : SkipSpecial::No)}});
}

}  // namespace minke
