// minke generate: continues a text, a list of token ids or a conversation.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/model_flags.h"
#include "cli/over_ranks.h"
#include "text/chat_template.h"

namespace minke {
namespace {

using Ids = std::vector<std::int32_t>;

struct GenerateOptions {
  ModelFlags model;
  std::optional<std::string> prompt, prompt_ids, chat, chat_template;
  std::int64_t max_tokens = 256, prefill_chunk = 2048;
  SamplingFlags sampling;
  std::string attention = "auto";
  bool ignore_eos = false, json = false;

  template <class Visitor>
  void visit(Visitor& field) {
    field("max-tokens", max_tokens, "most new tokens", at_least(1));
    field("prefill-chunk", prefill_chunk,
          "prompt tokens in one pass, 0 all; does not change the result", at_least(0));
    field("attention", attention, "form; auto is expanded for the prompt, absorbed for new tokens",
          one_of({"auto", "absorbed", "expanded"}));
  }
};

struct Prompt {
  Ids ids;
  std::string where;  // the flag that it came from
};

Ids parse_ids(std::string_view text) {
  Ids ids;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    std::string_view item = text.substr(begin, end - begin);
    while (item.starts_with(' ')) item.remove_prefix(1);
    while (item.ends_with(' ')) item.remove_suffix(1);
    std::int32_t id = 0;
    const auto [last, error] = std::from_chars(item.data(), item.data() + item.size(), id);
    if (error != std::errc() || last != item.data() + item.size())
      throw UsageError(fmt::format("--prompt-ids: \"{}\" is not a token id; expected 1,2,3", item));
    ids.push_back(id);
    begin = end + 1;
  }
  return ids;
}

std::vector<Message> read_messages(const std::string& path) {
  const nlohmann::json json = read_json(path, std::size_t{64} << 20);
  const bool wrapped = json.is_object() && json.contains("messages");
  try {
    return messages_from_json(wrapped ? json["messages"] : json);
  } catch (const FormatError& e) {
    throw FormatError(fmt::format("{}: {}", path, e.what()));
  }
}

Prompt make_prompt(const GenerateOptions& o, const Tokenizer* tokenizer) {
  if (o.prompt_ids) return {parse_ids(*o.prompt_ids), "--prompt-ids"};
  if (o.prompt) {
    Ids ids = encode_prompt(*tokenizer, *o.prompt);
    return {std::move(ids), "--prompt"};
  }
  const ChatTemplate chat_template =
      o.chat_template ? ChatTemplate::named(*o.chat_template) : ChatTemplate::load(o.model.model);
  return {encode_chat(*tokenizer, chat_template, read_messages(*o.chat)), "--chat"};
}

// Ids need no tokenizer; one that cannot be read then costs the text only.
std::optional<Tokenizer> load_tokenizer(const GenerateOptions& o) {
  const std::filesystem::path dir = o.model.model;
  if (!o.prompt_ids) return Tokenizer::load(dir);
  if (!std::filesystem::exists(dir / "tokenizer.json")) return std::nullopt;
  try {
    return Tokenizer::load(dir);
  } catch (const Error& e) {
    log_warning(fmt::format("no text, only ids: {}", e.what()));
    return std::nullopt;
  }
}

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void print_json(const GenerationResult& r, const std::optional<std::string>& text) {
  nlohmann::ordered_json json;
  json["prompt_tokens"] = r.prompt_tokens;
  json["ids"] = r.ids;
  json["text"] = text ? nlohmann::ordered_json(*text) : nlohmann::ordered_json();
  json["finish_reason"] = name_of(r.finish_reason);
  json["prefill_s"] = r.prefill_s;
  json["decode_s"] = r.decode_s;
  print(json.dump() + "\n");
}

std::string statistics(const GenerationResult& r, const SamplerSettings& sampler) {
  const auto rate = [](std::size_t n, double seconds) {
    return seconds > 0 ? static_cast<double>(n) / seconds : 0;
  };
  const auto prompt = static_cast<std::size_t>(r.prompt_tokens);
  std::string text = fmt::format("{} prompt tokens in {:.2f} s ({:.0f}/s)", prompt, r.prefill_s,
                                 rate(prompt, r.prefill_s));
  if (r.ids.size() > 1)  // the first one comes with the prompt
    text += fmt::format(", {} new in {:.2f} s ({:.1f}/s)", r.ids.size(), r.decode_s,
                        rate(r.ids.size() - 1, r.decode_s));
  if (sampler.temperature > 0) text += fmt::format(", seed {}", sampler.seed);
  return text + fmt::format(", {}", name_of(r.finish_reason));
}

void run_generate(const GenerateOptions& o, ModelCaller* ranks) {
  const std::optional<Tokenizer> tokenizer = load_tokenizer(o);
  const Tokenizer* text_of_ids = tokenizer ? &*tokenizer : nullptr;
  const GenerationConfig file = GenerationConfig::load(o.model.model);
  const Prompt prompt = make_prompt(o, text_of_ids);
  check_prompt(ModelConfig::load(o.model.model), prompt.ids, prompt.where);

  GenerationSettings settings{.sampler = o.sampling.over(file),
                              .max_tokens = o.max_tokens,
                              .prefill_chunk = o.prefill_chunk,
                              .attention = parse_attention_forms(o.attention)};
  const Model model = load_for_use(o.model, settings.attention, {.ranks = ranks});
  if (!o.ignore_eos) settings.stop_ids = stop_ids_of(model.config, file, text_of_ids);

  const InterruptScope interrupt;
  std::optional<StreamDecoder> decoder;
  if (tokenizer) decoder.emplace(*tokenizer);
  std::string text;
  bool first = true;
  const auto show = [&](std::string_view piece) {
    if (o.json)
      text += piece;
    else
      print(piece);
  };
  GenerationHooks hooks;
  hooks.cancelled = [&] { return interrupt.requested(); };
  hooks.on_token = [&](std::int32_t id) {
    if (decoder)
      show(decoder->push(id));
    else
      show(fmt::format("{}{}", first ? "" : ",", id));
    first = false;
    return true;
  };
  Sequence sequence(model);
  const GenerationResult result = generate(model, sequence, prompt.ids, settings, hooks);
  if (decoder) show(decoder->flush());
  if (o.json)
    print_json(result, tokenizer ? std::optional(text) : std::nullopt);
  else
    print("\n");
  if (result.finish_reason == FinishReason::Cancelled)
    throw Interrupted(fmt::format("stopped after {} new tokens", result.ids.size()));
  log_info(statistics(result, settings.sampler));
}

}  // namespace

void add_generate(CLI::App& app) {
  const auto o = std::make_shared<GenerateOptions>();
  CLI::App* cmd = app.add_subcommand("generate", "Continue a text, token ids or a conversation");
  add_flags(*cmd, OptionList(o->model));
  cmd->get_option("--model")->required();
  CLI::Option_group* prompt = cmd->add_option_group("Prompt", "one of");
  prompt->add_option("--prompt", o->prompt, "text to continue; special tokens in it are recognised")
      ->type_name("TEXT");
  prompt->add_option("--prompt-ids", o->prompt_ids, "token ids to continue; needs no tokenizer")
      ->type_name("1,2,3");
  prompt
      ->add_option("--chat", o->chat,
                   "file with messages [{\"role\", \"content\"}], put into the chat template")
      ->type_name("FILE");
  prompt->require_option(1);
  cmd->add_option("--chat-template", o->chat_template, "deepseek-v3 or deepseek-r1")
      ->type_name("NAME")
      ->default_str("by the directory's own template");
  add_flags(*cmd, OptionList(*o));
  add_flags(*cmd, OptionList(o->sampling));
  cmd->add_flag("--ignore-eos", o->ignore_eos, "go on after end of sentence");
  cmd->add_flag("--json", o->json,
                "print one JSON object: prompt_tokens, ids, text, finish_reason, prefill_s, "
                "decode_s");
  cmd->callback(
      [o] { over_ranks(o->model, [&](ModelCaller* ranks) { run_generate(*o, ranks); }); });
}

}  // namespace minke
