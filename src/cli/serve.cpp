// minke serve: the OpenAI and DeepSeek API over HTTP.
#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <memory>
#include <thread>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/model_flags.h"
#include "cli/over_ranks.h"
#include "infer/batch_engine.h"
#include "infer/warm_up.h"
#include "ops/isa.h"
#include "serve/backend.h"
#include "serve/server.h"
#include "tensor/block_cache.h"

namespace minke {
namespace {

// Of the latent cache, with the warm-up: more than a full batch of short answers of a small model
// holds, and nothing beside the weights of a large one.
constexpr std::int64_t kTouchedBytes = 64 << 20;

struct ServeFlags {
  ModelFlags model;
  std::string host = "127.0.0.1", served_name, chat_template, api_key_file, cors_origin, access_log,
              prefix_dir;
  std::string draft = "auto";
  std::int64_t port = 8080;
  std::int64_t max_batch = 64, max_waiting = 256, cache_bytes = 0, context = 0;
  std::int64_t prefill_chunk = 512;
  bool prefix_cache = true, warm_up = true;
  std::int64_t max_tokens = 4096, max_n = 8, max_prompts = 256;
  std::int64_t max_body_bytes = 8 << 20, max_header_bytes = 16 << 10, max_connections = 4096;
  std::int64_t max_bodies_bytes = 256 << 20;
  double header_timeout = 10, body_timeout = 60, idle_timeout = 75, drain_timeout = 120;
  double comment_after = 15;

  template <class Visitor>
  void visit(Visitor& field) {
    model.visit(field);
    field("host", host, "address to listen on; 0.0.0.0: all, use a key then");
    field("port", port, "0: a free one, which is printed", between(0, 65535));
    field("api-key-file", api_key_file,
          "file with keys, one a line; the variable MINKE_API_KEY does the same (default: none)");
    field("served-name", served_name, "name of the model (default: that of the directory)");
    field("chat-template", chat_template,
          "deepseek-v3 or deepseek-r1 (default: by the directory's own template)");
    field("max-batch", max_batch, "sequences decoded together", at_least(1));
    field("max-waiting", max_waiting, "requests in the queue; more get 429", at_least(1));
    field("cache-bytes", cache_bytes,
          "memory for the latent cache, 0: what max-batch sequences need, at most a quarter of the "
          "free memory",
          at_least(0));
    field("context", context, "most tokens of a sequence, 0: the model's", at_least(0));
    field("prefill-chunk", prefill_chunk, "prompt tokens in one step", at_least(1));
    field("prefix-cache", prefix_cache, "keep prompts' rows for prompts that begin alike");
    field("prefix-dir", prefix_dir,
          "directory that keeps cached prefixes from one start to the next (default: none)");
    field("warm-up", warm_up,
          "run the largest steps before /health says 200, so that memory does not grow under load");
    field("draft", draft, "guess tokens with the MTP module: off, auto (where it pays) or always",
          one_of({"off", "auto", "always"}));
    field("max-tokens", max_tokens, "new tokens of a chat answer that asks for no number",
          at_least(1));
    field("max-n", max_n, "most choices of a request", between(1, 128));
    field("max-prompts", max_prompts, "most prompts of a request", at_least(1));
    field("max-body-bytes", max_body_bytes, "of a request", at_least(1024));
    field("max-bodies-bytes", max_bodies_bytes, "of all requests being read; more get 503",
          at_least(1024));
    field("max-header-bytes", max_header_bytes, "of a request", between(1024, 1 << 20));
    field("max-connections", max_connections, "more get 503", at_least(1));
    field("header-timeout", header_timeout, "seconds for a request's header", above(0));
    field("body-timeout", body_timeout, "seconds for a request's body", above(0));
    field("idle-timeout", idle_timeout, "seconds between requests of a connection", above(0));
    field("comment-after", comment_after,
          "seconds without an event until a stream gets a comment (: keep-alive)", above(0));
    field("drain-timeout", drain_timeout,
          "seconds that running answers have after SIGTERM or Ctrl-C", at_least(0));
    field("cors-origin", cors_origin,
          "origin whose pages may use the server, * any (default: none)");
    field("access-log", access_log, "file for a JSON line per request, - stderr (default: none)");
  }
};

// Many connections need many file descriptors; what the system allows is taken.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

std::string directory_name(const std::string& path) {
  std::filesystem::path p = std::filesystem::absolute(path).lexically_normal();
  if (!p.has_filename()) p = p.parent_path();
  return p.filename().string();
}

ServerSettings server_settings(const ServeFlags& f) {
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  ServerSettings s;
  s.http = {.host = f.host,
            .port = static_cast<int>(f.port),
            .max_connections = size(f.max_connections),
            .max_header_bytes = size(f.max_header_bytes),
            .max_body_bytes = size(f.max_body_bytes),
            .max_bodies_bytes = size(f.max_bodies_bytes),
            .header_timeout_s = f.header_timeout,
            .body_timeout_s = f.body_timeout,
            .idle_timeout_s = f.idle_timeout,
            .comment_after_s = f.comment_after};
  s.limits.n = f.max_n;
  s.limits.prompts = size(f.max_prompts);
  s.default_max_tokens = f.max_tokens;
  s.cors_origin = f.cors_origin;
  s.access_log = f.access_log;
  s.info = {{"isa", std::string(name_of(chosen_isa()))},
            {"compute", f.model.compute},
            {"cache_dtype", f.model.cache_dtype}};
  return s;
}

BatchSettings batch_settings(const ServeFlags& f) {
  return {.max_batch = f.max_batch,
          .max_waiting = f.max_waiting,
          .cache_bytes = f.cache_bytes,
          .context = f.context,
          .prefill_chunk = f.prefill_chunk,
          .prefix_cache = f.prefix_cache,
          .drafting = f.draft == "off"    ? Drafting::Off
                      : f.draft == "auto" ? Drafting::Auto
                                          : Drafting::Always,
          .touched_bytes = f.warm_up ? kTouchedBytes : 0,
          .prefix_dir = f.prefix_dir};
}

ApiKeys load_keys(const ServeFlags& f) {
  const char* key = std::getenv("MINKE_API_KEY");
  return ApiKeys::load(f.api_key_file, key ? key : "");
}

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

// The address, for a program on stdout and for people on stderr.
void announce(const ServeFlags& f, int port, bool has_key) {
  const bool ipv6 = f.host.find(':') != std::string::npos;
  const std::string url = fmt::format("http://{}:{}", ipv6 ? "[" + f.host + "]" : f.host, port);
  std::puts(url.c_str());
  std::fflush(stdout);
  log_info(fmt::format("listening on {}; loading {}", url, f.model.model));
  if (!has_key && !is_loopback(f.host))
    log_warning(fmt::format(
        "{} can be reached by others and no key is set: give --api-key-file or MINKE_API_KEY",
        f.host));
}

// None where the directory has none that is known: chat is refused then, all else works.
std::optional<ChatTemplate> load_template(const ServeFlags& f) {
  if (!f.chat_template.empty()) return ChatTemplate::named(f.chat_template);
  try {
    return ChatTemplate::load(f.model.model);
  } catch (const Error& e) {
    log_warning(fmt::format("no chat, only completions: {}", e.what()));
    return std::nullopt;
  }
}

ServedModel describe_model(const ServeFlags& f, const ModelConfig& config) {
  Tokenizer tokenizer = Tokenizer::load(f.model.model);
  const auto stop_ids = stop_ids_of(config, GenerationConfig::load(f.model.model), &tokenizer);
  ServedModel model(f.served_name.empty() ? directory_name(f.model.model) : f.served_name,
                    std::move(tokenizer), load_template(f), stop_ids);
  model.vocab = config.vocab_size;
  return model;
}

void run_warm_up(const Model& model, const BatchEngine& engine, const InterruptScope& interrupt) {
  const WarmUp done =
      warm_up(model, engine.settings(), {.cancelled = [&] { return interrupt.requested(); }});
  log_info(fmt::format(
      "warmed up in {:.1f} s: {} steps of up to {} sequences, a prompt of {} tokens (--no-warm-up)",
      done.seconds, done.steps, done.sequences, done.prompt_tokens));
}

// Until a signal comes; a second one ends the process at once.
void serve_until_interrupted(const ServeFlags& f, ApiServer& server,
                             const InterruptScope& interrupt, ModelCaller* ranks) {
  ServedModel served = describe_model(f, ModelConfig::load(f.model.model));
  const Model model = load_for_use(f.model, AttentionForms{},
                                   {.mtp = f.draft != "off",
                                    .cancelled = [&] { return interrupt.requested(); },
                                    .ranks = ranks});
  BatchEngine engine(model, batch_settings(f));
  if (f.warm_up) run_warm_up(model, engine, interrupt);
  EngineBackend backend(engine);
  served.context = engine.context();
  server.serve(served, backend);
  log_info(fmt::format("ready: {} with a context of {} tokens", served.name, served.context));
  while (!interrupt.requested()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  log_info("stopping: running answers are finished first; a second signal ends them");
  if (!server.stop(f.drain_timeout)) log_warning("the remaining answers were cut");
}

void run_serve(const ServeFlags& f, ModelCaller* ranks) {
  if (!f.prefix_dir.empty() && ranks && ranks->layout().pipeline > 1)
    throw ConfigError(
        fmt::format("--prefix-dir is {}, but rows of layers on other ranks are not written; start "
                    "without it, or with --layout 1x{}",
                    f.prefix_dir, ranks->n_ranks()));
  raise_descriptor_limit();
  keep_freed_memory();
  const ApiKeys keys = load_keys(f);
  const InterruptScope interrupt;
  ApiServer server(server_settings(f), keys);
  announce(f, server.port(), keys.required());
  try {
    serve_until_interrupted(f, server, interrupt, ranks);
  } catch (const Interrupted&) {
    log_info("stopped while loading");
  }
}

}  // namespace

void add_serve(CLI::App& app) {
  const auto flags = std::make_shared<ServeFlags>();
  CLI::App* cmd = app.add_subcommand("serve", "Serve the OpenAI and DeepSeek API over HTTP");
  add_flags(*cmd, OptionList(*flags));
  cmd->get_option("--model")->required();
  cmd->footer("Routes, limits and examples: docs/serving.md");
  cmd->callback(
      [flags] { over_ranks(flags->model, [&](ModelCaller* ranks) { run_serve(*flags, ranks); }); });
}

}  // namespace minke
