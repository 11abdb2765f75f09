// minke eval: measures a model on a task. Today: bpb, bits per byte of any text.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/threads.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/model_flags.h"
#include "data/corpus.h"
#include "eval/bits_per_byte.h"
#include "ops/isa.h"

namespace minke {
namespace {

constexpr Index kDefaultWindow = 2048;

struct EvalOptions {
  ModelFlags model;
  std::string task = "bpb";
  std::vector<std::string> data;
  std::optional<std::string> out;
  std::optional<std::int64_t> window, stride, max_bytes;
  std::int64_t batch_tokens = 4096;

  template <class Visitor>
  void visit(Visitor& field) {
    model.visit(field);
    field("task", task, "what to measure: bpb");
    field("data", data, "text files (.txt, .jsonl) or folders of them");
    field("out", out, "JSON file to write");
    field("window", window,
          "tokens in one pass (default: 2048, or the model's context if that is less)",
          at_least(1));
    field("stride", stride, "tokens from one window's end to the next (default: half the window)",
          at_least(1));
    field("max-bytes", max_bytes,
          "of each source only so many bytes, from its beginning (default: all)", at_least(1));
    field("batch-tokens", batch_tokens, "windows computed together; does not change the result",
          at_least(1));
  }
};

// Calls f with every document, cut where its source has given `max_bytes`.
void for_each_document(const EvalOptions& o, FunctionRef<void(Document)> f) {
  std::map<std::string, std::int64_t> taken;
  const std::int64_t most = o.max_bytes.value_or(INT64_MAX);
  for (const std::string& path : o.data)
    read_documents(path, [&](Document d) {
      std::int64_t& bytes = taken[d.source];
      auto end = static_cast<std::size_t>(
          std::min(static_cast<std::int64_t>(d.text.size()), most - bytes));
      bytes += static_cast<std::int64_t>(end);
      if (end < d.text.size()) {  // between two characters
        while (end > 0 && (static_cast<unsigned char>(d.text[end]) & 0xC0) == 0x80) --end;
        if (end == 0) return;
        d.text.resize(end);
      }
      f(std::move(d));
    });
}

// Reads everything once: a bad line is found before the long part begins.
std::int64_t count_bytes(const EvalOptions& o) {
  std::int64_t bytes = 0;
  for_each_document(o,
                    [&](const Document& d) { bytes += static_cast<std::int64_t>(d.text.size()); });
  if (bytes == 0) throw ConfigError("--data: no text found in .txt or .jsonl files");
  return bytes;
}

nlohmann::ordered_json to_json(const TextScore& s) {
  return {{"documents", s.documents},
          {"bytes", s.bytes},
          {"tokens", s.tokens},
          {"nats", s.nats},
          {"loss", s.loss()},
          {"perplexity", s.perplexity()},
          {"bits_per_byte", s.bits_per_byte()}};
}

nlohmann::ordered_json to_json(const EvalOptions& o, const WindowSettings& windows,
                               const Tokenizer& tokenizer, const TextScores& scores,
                               double seconds) {
  nlohmann::ordered_json json;
  json["task"] = o.task;
  json["settings"] = {
      {"model", o.model.model},
      {"data", o.data},
      {"compute", o.model.compute},
      {"window", windows.window},
      {"stride", windows.stride},
      {"max_bytes", o.max_bytes ? nlohmann::ordered_json(*o.max_bytes) : nlohmann::ordered_json()},
      {"begin_of_sentence", tokenizer.add_bos_token()},
      {"batch_tokens", o.batch_tokens},
      {"isa", name_of(chosen_isa())},
      {"threads", n_threads()},
      {"version", MINKE_VERSION}};
  json["overall"] = to_json(scores.overall);
  json["sources"] = nlohmann::ordered_json::array();
  for (const NamedScore& s : scores.sources) {
    nlohmann::ordered_json entry{{"source", s.source}};
    entry.update(to_json(s.score));
    json["sources"].push_back(std::move(entry));
  }
  json["seconds"] = seconds;
  return json;
}

// Code points; names are mostly narrow, and a wide one only moves its own row.
std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

void print_table(const TextScores& scores) {
  std::size_t width = 8;
  for (const NamedScore& s : scores.sources) width = std::max(width, width_of(s.source));
  fmt::print("{:<{}} {:>10} {:>12} {:>12} {:>9} {:>11} {:>9}\n", "source", width, "documents",
             "bytes", "tokens", "loss", "perplexity", "bits/byte");
  const auto row = [&](std::string_view name, const TextScore& s) {
    fmt::print("{}{} {:>10} {:>12} {:>12} {:>9.4f} {:>11.5g} {:>9.4f}\n", name,
               std::string(width - width_of(name), ' '), s.documents, s.bytes, s.tokens, s.loss(),
               s.perplexity(), s.bits_per_byte());
  };
  for (const NamedScore& s : scores.sources) row(s.source, s.score);
  row("overall", scores.overall);
}

void run_bits_per_byte(const EvalOptions& o) {
  if (o.data.empty()) throw UsageError("--task bpb needs --data FILE or DIR");
  const ModelConfig config = ModelConfig::load(o.model.model);
  WindowSettings windows;
  windows.window = o.window.value_or(std::min(config.max_position_embeddings, kDefaultWindow));
  windows.stride = o.stride.value_or(std::max<Index>(1, windows.window / 2));
  windows.check(config);
  const Tokenizer tokenizer = Tokenizer::load(o.model.model);
  std::optional<AtomicFile> out;  // made now: a path that cannot be written is found early
  if (o.out) {
    out.emplace(*o.out);
    FileWriter(out->partial()).finish();
  }
  const std::int64_t bytes = count_bytes(o);
  const Model model = load_for_use(o.model, {AttentionForm::Expanded, AttentionForm::Expanded});

  const InterruptScope interrupt;
  const auto begin = std::chrono::steady_clock::now();
  TextScorer scorer(model, tokenizer, windows, o.batch_tokens);
  Progress progress({.label = "bpb", .unit = "bytes", .total = bytes});
  scorer.on_progress = [&](std::int64_t done) {
    if (interrupt.requested()) throw Interrupted("stopped; no results were written");
    progress.update(done);
  };
  for_each_document(o, [&](const Document& d) { scorer.add(d.text, d.source); });
  const TextScores scores = scorer.finish();
  progress.finish();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  print_table(scores);
  if (out) {
    FileWriter file(out->partial());
    file.write(to_json(o, windows, tokenizer, scores, seconds).dump(2) + "\n");
    file.finish();
    out->commit();
  }
}

void run_eval(const EvalOptions& o) {
  if (o.task == "bpb") return run_bits_per_byte(o);
  throw UsageError(fmt::format("--task {} is not implemented; there is: bpb", o.task));
}

}  // namespace

void add_eval(CLI::App& app) {
  const auto o = std::make_shared<EvalOptions>();
  CLI::App* cmd = app.add_subcommand("eval", "Measure a model: bits per byte of any text");
  OptionList options(*o);
  add_flags(*cmd, options);
  cmd->get_option("--model")->required();
  cmd->callback([o] { run_eval(*o); });
}

}  // namespace minke
