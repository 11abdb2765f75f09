// minke chat: a conversation on the terminal.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/log.h"
#include "cli/chat_session.h"
#include "cli/commands.h"
#include "cli/line_input.h"
#include "cli/model_flags.h"
#include "cli/over_ranks.h"
#include "text/utf8.h"

namespace minke {
namespace {

constexpr const char* kHelp =
    "/clear         begin a new conversation (the system message stays)\n"
    "/system TEXT   set the system message; without TEXT take it away\n"
    "/save FILE     write the conversation as JSON (`minke generate --chat FILE` reads it)\n"
    "/quit          leave, as Ctrl-D does\n"
    "Ctrl-C stops an answer; at an empty line, or a second time, it leaves. A line that ends in "
    "\\\n"
    "goes on in the next.\n";

struct ChatFlags {
  ModelFlags model;
  std::optional<std::string> system, chat_template;
  std::int64_t max_tokens = 0, prefill_chunk = 512;
  SamplingFlags sampling;
  std::string attention = "auto";
  bool history = true;

  template <class Visitor>
  void visit(Visitor& field) {
    model.visit(field);
    field("system", system, "system message (default: none)");
    field("chat-template", chat_template,
          "deepseek-v3 or deepseek-r1 (default: by the directory's own template)");
    field("max-tokens", max_tokens, "most new tokens of an answer, 0: until the context is full",
          at_least(0));
    sampling.visit(field);
    field("attention", attention, "form; auto is expanded for the prompt, absorbed for new tokens",
          one_of({"auto", "absorbed", "expanded"}));
    field("prefill-chunk", prefill_chunk,
          "prompt tokens in one pass, 0 all; does not change the result", at_least(0));
    field("history", history, "keep entered lines in $XDG_STATE_HOME/minke/chat_history");
  }
};

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// Thinking is dimmed on a terminal, and a blank line follows it.
class AnswerPrinter {
 public:
  explicit AnswerPrinter(bool terminal) : dims_(terminal && !std::getenv("NO_COLOR")) {}
  void show(const AnswerPart& part) {
    if (part.thinking != thinking_) turn(part.thinking);
    print(part.text);
  }
  void finish() {
    if (thinking_ && dims_) print("\x1b[0m");
    print("\n");
  }

 private:
  void turn(bool thinking) {
    if (thinking_) print("\n");
    if (dims_) print(thinking ? "\x1b[2m" : "\x1b[0m");
    thinking_ = thinking;
  }
  bool dims_;
  bool thinking_ = false;
};

nlohmann::ordered_json to_json(const std::vector<Message>& messages) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const Message& m : messages)
    json.push_back({{"role", m.role}, {"content", m.content.value_or("")}});
  return json;
}

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") + 1 - begin);
}

class Chat {
 public:
  Chat(ChatSession& session, InterruptScope& interrupt, LineInput& input)
      : session_(session), interrupt_(interrupt), input_(input) {}

  // Until the user leaves; the exit status.
  void run() {
    std::string text;
    while (read(text)) {
      const std::string_view command = trimmed(text);
      if (command.empty()) continue;
      if (command == "/quit" || command == "/exit") return;
      try {
        if (command.front() == '/')
          obey(command);
        else
          answer(text);
      } catch (const Error& e) {
        log_warning(e.what());  // the conversation goes on
      }
    }
  }

 private:
  // False at the end of the input.
  bool read(std::string& text) {
    text.clear();
    std::string line;
    while (true) {
      switch (input_.read(text.empty() ? "> " : "… ", line)) {
        case LineInput::Result::End:
          return !text.empty();
        case LineInput::Result::Interrupted:
          throw Interrupted("");
        case LineInput::Result::Discarded:
          interrupt_.forget();
          text.clear();
          continue;
        case LineInput::Result::Line:
          break;
      }
      text += line;
      if (!text.ends_with('\\')) break;
      text.back() = '\n';
    }
    if (find_invalid_utf8(text) != kValidUtf8) {
      log_warning("the line is not UTF-8 text and was left out");
      text.clear();
    }
    return true;
  }

  void obey(std::string_view command) {
    const std::size_t space = std::min(command.find(' '), command.size());
    const std::string_view name = command.substr(0, space);
    const std::string argument(trimmed(command.substr(space)));
    if (name == "/help") {
      print(kHelp);
    } else if (name == "/clear") {
      session_.clear();
    } else if (name == "/system") {
      session_.set_system(argument.empty() ? std::nullopt : std::optional(argument));
    } else if (name == "/save") {
      if (argument.empty()) throw UsageError("/save needs a file name");
      write_file_atomic(argument, to_json(session_.messages()).dump(2) + "\n");
    } else {
      throw UsageError(fmt::format("there is no command {}; /help shows them", name));
    }
  }

  void answer(const std::string& text) {
    AnswerPrinter printer(input_.is_terminal());
    const GenerationResult result = session_.answer(
        text, [&](const AnswerPart& part) { printer.show(part); },
        [&] { return interrupt_.requested(); });
    printer.finish();
    if (result.finish_reason == FinishReason::Length)
      log_info("the answer was cut: --max-tokens or the context is full");
    if (interrupt_.requested() && !input_.is_terminal()) throw Interrupted("");
    interrupt_.forget();
  }

  ChatSession& session_;
  InterruptScope& interrupt_;
  LineInput& input_;
};

void run_chat(const ChatFlags& flags, ModelCaller* ranks) {
  const std::filesystem::path dir = flags.model.model;
  const Tokenizer tokenizer = Tokenizer::load(dir);
  const ChatTemplate chat_template =
      flags.chat_template ? ChatTemplate::named(*flags.chat_template) : ChatTemplate::load(dir);
  const GenerationConfig file = GenerationConfig::load(dir);
  GenerationSettings settings{.sampler = flags.sampling.over(file),
                              .max_tokens = flags.max_tokens,
                              .prefill_chunk = flags.prefill_chunk,
                              .attention = parse_attention_forms(flags.attention)};
  const Model model = load_for_use(flags.model, settings.attention, {.ranks = ranks});
  settings.stop_ids = stop_ids_of(model.config, file, &tokenizer);

  InterruptScope interrupt;
  LineInput input(interrupt, flags.history ? state_file("chat_history") : std::filesystem::path());
  if (input.is_terminal()) print("/help shows the commands, Ctrl-D leaves.\n");
  ChatSession session(model, tokenizer, chat_template, settings);
  session.set_system(flags.system);
  Chat(session, interrupt, input).run();
}

}  // namespace

void add_chat(CLI::App& app) {
  const auto flags = std::make_shared<ChatFlags>();
  CLI::App* cmd = app.add_subcommand("chat", "Talk with a model on the terminal");
  add_flags(*cmd, OptionList(*flags));
  cmd->get_option("--model")->required();
  cmd->footer(std::string("Commands at the prompt:\n") + kHelp);
  cmd->callback(
      [flags] { over_ranks(flags->model, [&](ModelCaller* ranks) { run_chat(*flags, ranks); }); });
}

}  // namespace minke
