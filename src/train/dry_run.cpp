#include "train/dry_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/machine_memory.h"
#include "text/tokenizer.h"
#include "train/training_data.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

bool text_is_there(const Recipe& r) {
  return !r.data.paths.empty() &&
         std::all_of(r.data.paths.begin(), r.data.paths.end(),
                     [](const std::string& path) { return fs::exists(path); });
}

TextSummary summary_of(const Recipe& recipe, const Tokenizer& tokenizer) {
  const TrainingData data = load_training_data(recipe, tokenizer);
  return {.documents = static_cast<Index>(data.train.documents.size()),
          .bytes = data.train.text_bytes(),
          .tokens = static_cast<Index>(data.train.tokens.size()),
          .held_out_tokens = data.held_out_tokens};
}

// Model, and text where there is some.
void read_inputs(const Recipe& recipe, DryRun& run) {
  const bool tokenizer_is_there = fs::exists(fs::path(recipe.data.tokenizer) / "tokenizer.json");
  if (!recipe.init_from.empty())
    run.config = ModelConfig::load(recipe.init_from);
  else if (!tokenizer_is_there)
    run.config = recipe.new_model();
  if (!tokenizer_is_there) return;
  const Tokenizer tokenizer = Tokenizer::load(recipe.data.tokenizer);
  if (recipe.init_from.empty()) run.config = recipe.new_model(tokenizer);
  recipe.check_model(run.config, tokenizer);
  if (text_is_there(recipe)) run.text = summary_of(recipe, tokenizer);
}

// As few ranks as the recipe's pipeline and experts take.
TrainingLayout smallest_layout(const Recipe& recipe) {
  return layout_of(recipe.parallel,
                   static_cast<int>(recipe.parallel.pipeline * recipe.parallel.experts));
}

const char* on_off(bool on) {
  return on ? "on" : "off";
}

}  // namespace

DryRun plan_run(const Recipe& recipe, const std::vector<Index>& at) {
  DryRun run;
  read_inputs(recipe, run);
  const RunSchedule schedule(recipe);
  run.parameters = count_parameters(run.config);
  const TrainingLayout layout = smallest_layout(recipe);
  if (layout.mesh.n_ranks() > 1) check_layout(recipe, run.config, layout);
  run.mesh = layout.mesh;
  run.memory = training_memory(recipe, run.config, layout);
  run.recomputes = recipe.recompute;
  run.recompute = recompute_savings(recipe, run.config);
  for (double* bytes : {&run.recompute.rmsnorm, &run.recompute.mla_up, &run.recompute.swiglu})
    *bytes *= static_cast<double>(recipe.tokens_at_a_time());
  run.steps = schedule.total_steps();
  run.tokens = schedule.total_tokens();
  std::vector<Index> points = at.empty() ? schedule.milestones() : at;
  std::sort(points.begin(), points.end());
  for (Index tokens : points) {
    if (tokens < 0 || tokens > run.tokens)
      throw ConfigError(
          fmt::format("--at {}: must be from 0 to {}, the tokens of the run", tokens, run.tokens));
    run.schedule.push_back(schedule.at_tokens(tokens));
  }
  run.speed = measure_training_speed(run.config, recipe.data.sequence_length,
                                     parse_compute(recipe.compute));
  return run;
}

void print(const DryRun& run) {
  const ParameterCount& n = run.parameters;
  const TrainingMemory& m = run.memory;
  const auto tokens = static_cast<double>(run.tokens);
  fmt::print(
      "model       {} parameters ({} without MTP modules), {} active for a token, vocabulary {}\n",
      n.total, n.main, n.active, run.config.vocab_size);
  if (run.text) {
    const auto text_tokens = static_cast<double>(run.text->tokens);
    fmt::print(
        "text        {} documents, {} bytes, {} tokens ({:.2f} bytes a token); held out {} tokens; "
        "{:.2f} passes\n",
        run.text->documents, run.text->bytes, run.text->tokens,
        static_cast<double>(run.text->bytes) / text_tokens, run.text->held_out_tokens,
        tokens / text_tokens);
  } else {
    fmt::print("text        not read: data.paths or data.tokenizer is not there\n");
  }
  fmt::print("steps       {}, {} tokens in all\n", run.steps, run.tokens);
  fmt::print(
      "memory      {}{}: masters {}, gradients {}, moments {}, products {}, moving average {}, "
      "activations about {}\n",
      bytes_text(m.total()),
      run.mesh.n_ranks() > 1 ? fmt::format(" of the largest rank of {}", to_string(run.mesh)) : "",
      bytes_text(m.masters), bytes_text(m.gradients), bytes_text(m.moments), bytes_text(m.products),
      bytes_text(m.ema), bytes_text(m.activations));
  fmt::print(
      "recompute   saves, or would: RMSNorm {} ({}), MLA up-projections {} ({}), SwiGLU {} ({})\n",
      bytes_text(run.recompute.rmsnorm), on_off(run.recomputes.rmsnorm),
      bytes_text(run.recompute.mla_up), on_off(run.recomputes.mla_up),
      bytes_text(run.recompute.swiglu), on_off(run.recomputes.swiglu));
  fmt::print("time        {:.3g} hours on this machine ({:.4g} tokens/s), by {}\n",
             run.speed.hours(tokens, static_cast<double>(run.steps)),
             tokens / 3600 / run.speed.hours(tokens, static_cast<double>(run.steps)),
             run.speed.measured_on);
  fmt::print("\n{:>16} {:>10} {:>12} {:>8} {:>10} {:>10}\n", "tokens", "step", "lr", "batch",
             "gamma", "lambda");
  for (const StepSchedule& s : run.schedule)
    fmt::print("{:>16} {:>10} {:>12.6g} {:>8} {:>10g} {:>10g}\n", s.tokens, s.step, s.lr, s.rows,
               s.gamma, s.mtp_lambda);
}

Json to_json(const DryRun& run) {
  const auto tokens = static_cast<double>(run.tokens), steps = static_cast<double>(run.steps);
  Json schedule = Json::array();
  for (const StepSchedule& s : run.schedule)
    schedule.push_back({{"tokens", s.tokens},
                        {"step", s.step},
                        {"lr", s.lr},
                        {"batch", s.rows},
                        {"gamma", s.gamma},
                        {"mtp_lambda", s.mtp_lambda}});
  Json text = nullptr;
  if (run.text)
    text = {{"documents", run.text->documents},
            {"bytes", run.text->bytes},
            {"tokens", run.text->tokens},
            {"held_out_tokens", run.text->held_out_tokens}};
  return {{"parameters",
           {{"total", run.parameters.total},
            {"main", run.parameters.main},
            {"mtp", run.parameters.mtp},
            {"active", run.parameters.active}}},
          {"text", text},
          {"steps", run.steps},
          {"tokens", run.tokens},
          {"layout", to_string(run.mesh)},
          {"memory_bytes",
           {{"total", run.memory.total()},
            {"masters", run.memory.masters},
            {"gradients", run.memory.gradients},
            {"moments", run.memory.moments},
            {"products", run.memory.products},
            {"ema", run.memory.ema},
            {"activations", run.memory.activations}}},
          {"recompute_saves_bytes",
           {{"rmsnorm", run.recompute.rmsnorm},
            {"mla_up", run.recompute.mla_up},
            {"swiglu", run.recompute.swiglu}}},
          {"hours", run.speed.hours(tokens, steps)},
          {"rate",
           {{"measured_on", run.speed.measured_on},
            {"s_per_token", run.speed.token_s},
            {"s_per_update", run.speed.update_s}}},
          {"schedule", schedule}};
}

}  // namespace minke
