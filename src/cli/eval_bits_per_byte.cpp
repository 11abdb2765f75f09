// minke eval --task bpb: loss, perplexity and bits per byte of any text.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/progress.h"
#include "cli/eval_task.h"
#include "cli/interrupt.h"
#include "eval/bits_per_byte.h"

namespace minke {
namespace {

constexpr Index kDefaultWindow = 2048;

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
                               bool begin_of_sentence, const TextScores& scores, double seconds) {
  nlohmann::ordered_json json{{"task", o.task}, {"settings", settings_of(o, begin_of_sentence)}};
  json["settings"]["window"] = windows.window;
  json["settings"]["stride"] = windows.stride;
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

}  // namespace

void eval_bits_per_byte(const EvalOptions& o, ModelCaller* ranks) {
  if (o.every) throw UsageError("--every belongs to --task mtp_acceptance; bpb scores every token");
  const ModelConfig config = ModelConfig::load(o.model.model);
  WindowSettings windows;
  windows.window = o.window.value_or(std::min(config.max_position_embeddings, kDefaultWindow));
  windows.stride = o.stride.value_or(std::max<Index>(1, windows.window / 2));
  windows.check(config);
  const Tokenizer tokenizer = Tokenizer::load(o.model.model);
  ResultFile out(o.out);
  const std::int64_t bytes = count_bytes(o);
  const Model model =
      load_for_use(o.model, {AttentionForm::Expanded, AttentionForm::Expanded}, {.ranks = ranks});

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
  out.write(to_json(o, windows, tokenizer.add_bos_token(), scores, seconds));
}

}  // namespace minke
