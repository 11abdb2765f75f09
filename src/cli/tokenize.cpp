// minke tokenize: text, messages and ids from standard input to standard output.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <optional>

#include "cli/commands.h"
#include "text/line_service.h"

namespace minke {

void add_tokenize(CLI::App& app) {
  struct Options {
    std::string model;
    std::optional<std::string> chat_template;
  };
  const auto o = std::make_shared<Options>();
  CLI::App* cmd =
      app.add_subcommand("tokenize", "Encode, decode and render: JSON lines in and out");
  cmd->footer(
      "One JSON object a line on standard input, one answer a line on standard output:\n"
      "  {\"text\"}                               -> {\"ids\"}\n"
      "  {\"messages\", \"add_generation_prompt\"}  -> {\"text\", \"ids\"}\n"
      "  {\"ids\", \"skip_special_tokens\"}         -> {\"text\"}\n"
      "A bad line gives {\"error\"} in its place, and exit status 1 at the end.");
  cmd->add_option("--model", o->model,
                  "directory with tokenizer.json and tokenizer_config.json (or "
                  "chat_template.jinja)")
      ->required();
  cmd->add_option("--chat-template", o->chat_template, "deepseek-v3 or deepseek-r1")
      ->type_name("NAME")
      ->default_str("by the directory's own template");
  cmd->callback([o] {
    std::ios::sync_with_stdio(false);
    LineService service(o->model, o->chat_template);
    if (service.run(std::cin, std::cout) > 0) throw CommandFailed();
  });
}

}  // namespace minke
