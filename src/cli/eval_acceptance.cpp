// minke eval --task mtp_acceptance: how often the first prediction module says what the model then
// says.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/progress.h"
#include "cli/eval_task.h"
#include "cli/interrupt.h"
#include "eval/text_acceptance.h"

namespace minke {
namespace {

constexpr Index kDefaultWindow = 512, kDefaultEvery = 16;

TextAcceptanceSettings settings_for(const EvalOptions& o, const ModelConfig& config) {
  if (o.stride)
    throw UsageError("--stride belongs to --task bpb; windows of mtp_acceptance do not overlap");
  TextAcceptanceSettings settings;
  settings.window = o.window.value_or(std::min(config.max_position_embeddings - 1, kDefaultWindow));
  settings.every = o.every.value_or(std::min(settings.window, kDefaultEvery));
  settings.check(config);
  return settings;
}

nlohmann::ordered_json to_json(const NamedAcceptance& s) {
  const Acceptance::Interval interval = s.acceptance.interval();
  return {{"documents", s.documents},
          {"positions", s.acceptance.positions},
          {"accepted", s.acceptance.accepted},
          {"acceptance", s.acceptance.share()},
          {"interval_95", {interval.low, interval.high}}};
}

void print_table(const std::vector<NamedAcceptance>& rows) {
  std::size_t width = 8;
  for (const NamedAcceptance& s : rows) width = std::max(width, width_of(s.source));
  fmt::print("{:<{}} {:>10} {:>10} {:>10} {:>11}   {}\n", "source", width, "documents", "positions",
             "accepted", "acceptance", "95 %");
  for (const NamedAcceptance& s : rows) {
    const Acceptance::Interval interval = s.acceptance.interval();
    fmt::print("{}{} {:>10} {:>10} {:>10} {:>9.2f} %   {:.2f} to {:.2f} %\n", s.source,
               std::string(width - width_of(s.source), ' '), s.documents, s.acceptance.positions,
               s.acceptance.accepted, 100 * s.acceptance.share(), 100 * interval.low,
               100 * interval.high);
  }
}

nlohmann::ordered_json to_json(const EvalOptions& o, const TextAcceptanceSettings& settings,
                               bool begin_of_sentence, const std::vector<NamedAcceptance>& rows,
                               double seconds) {
  nlohmann::ordered_json json{{"task", o.task}, {"settings", settings_of(o, begin_of_sentence)}};
  json["settings"]["window"] = settings.window;
  json["settings"]["every"] = settings.every;
  json["overall"] = to_json(rows.back());
  json["sources"] = nlohmann::ordered_json::array();
  for (std::size_t i = 0; i + 1 < rows.size(); ++i) {
    nlohmann::ordered_json entry{{"source", rows[i].source}};
    entry.update(to_json(rows[i]));
    json["sources"].push_back(std::move(entry));
  }
  json["seconds"] = seconds;
  return json;
}

}  // namespace

void eval_mtp_acceptance(const EvalOptions& o, ModelCaller* ranks) {
  const TextAcceptanceSettings settings = settings_for(o, ModelConfig::load(o.model.model));
  const Tokenizer tokenizer = Tokenizer::load(o.model.model);
  ResultFile out(o.out);
  const std::int64_t bytes = count_bytes(o);
  const Model model = load_for_use(o.model, {AttentionForm::Expanded, AttentionForm::Absorbed},
                                   {.mtp = true, .ranks = ranks});

  const InterruptScope interrupt;
  const auto begin = std::chrono::steady_clock::now();
  TextAcceptance acceptance(model, tokenizer, settings, o.batch_tokens);
  Progress progress({.label = "mtp_acceptance", .unit = "bytes", .total = bytes});
  acceptance.on_progress = [&](std::int64_t done) {
    if (interrupt.requested()) throw Interrupted("stopped; no results were written");
    progress.update(done);
  };
  for_each_document(o, [&](const Document& d) { acceptance.add(d.text, d.source); });
  std::vector<NamedAcceptance> rows = acceptance.finish();
  progress.finish();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  NamedAcceptance overall{"overall", 0, {}};
  for (const NamedAcceptance& s : rows) {
    overall.documents += s.documents;
    overall.acceptance += s.acceptance;
  }
  rows.push_back(overall);
  if (overall.acceptance.positions == 0)
    throw ConfigError(fmt::format(
        "--data: no document has {} tokens, so no position was looked at; give more text or a "
        "smaller --every",
        settings.every));
  print_table(rows);
  out.write(to_json(o, settings, tokenizer.add_bos_token(), rows, seconds));
}

}  // namespace minke
