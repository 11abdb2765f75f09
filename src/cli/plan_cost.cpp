// minke plan cost, failures: hours and dollars of training, and how much of them failures take.
#include "base/error.h"
#include "cli/plan_inputs.h"
#include "cli/plan_pictures.h"
#include "plan/cost.h"
#include "plan/failures.h"
#include "plan/page_blocks.h"
#include "plan/report_facts.h"

namespace minke {
namespace {

using Json = nlohmann::ordered_json;

struct CostInputs : PlanInputs {
  std::optional<double> tokens, mfu, price;
  std::int64_t sequence = 4096;
  std::optional<std::string> html;
  template <class Visitor>
  void visit(Visitor& field) {
    field("tokens", tokens, "of training (default: 14.8e12)", above(0));
    field("mfu", mfu, "share of the BF16 peak (default: what the report's step of 19.926 s gives)",
          above(0));
    field("price", price, "US dollars a device hour (default: the cluster's)", at_least(0));
    field("sequence", sequence, "tokens of a sequence", between(1, 1 << 24));
    field("html", html, "write a page of the tables");
  }
};

// Utilisation of the report's whole run, of DeepSeek-V3 on H800.
double report_mfu() {
  const Layout l = report_layout();
  const Speed speed = {l.tokens_per_step(), facts::kStepSeconds, l.devices()};
  return model_flops_utilisation(speed.tokens_per_s_per_device(),
                                 flops_per_token(plan_model_preset("deepseek-v3"), {}).train(),
                                 cluster_preset("h800x2048").peak_bf16_flops_per_s);
}

std::vector<CostRow> report_table(const Cluster& c) {
  double context = 0;
  for (const ContextPhase& phase : facts::kContextPhases) context += phase.tokens();
  const auto cost = [&](double hours) {
    return run_cost(hours, c.devices, c.price_per_device_hour);
  };
  return with_total(
      {{"pre-training", facts::kTokens, cost(facts::kHoursPerTrillion * (facts::kTokens / 1e12))},
       {"context extension", context, cost(facts::kContextHours)},
       {"post-training", 0, cost(facts::kPostTrainingHours)}});
}

Json cost_json(const RunCost& cost) {
  return {{"device_hours", cost.hours}, {"days", cost.days}, {"usd", cost.usd}};
}

void cost(const CostInputs& in) {
  const PlanModel m = plan_model(in.model);
  Cluster c = cluster(in.cluster);
  if (in.price) c.price_per_device_hour = *in.price;
  const double tokens = in.tokens.value_or(facts::kTokens), mfu = in.mfu.value_or(report_mfu());
  if (mfu > 1) throw UsageError(fmt::format("--mfu is {}, but must be at most 1", mfu));
  const double flops = flops_per_token(m, {.sequence = in.sequence}).train();
  const auto run = [&](double n) {
    return run_cost(device_hours_at(mfu, n, flops, c.peak_bf16_flops_per_s), c.devices,
                    c.price_per_device_hour);
  };
  const RunCost whole = run(tokens), trillion = run(1e12);
  const std::vector<CostRow> table = report_table(cluster_preset("h800x2048"));
  const double llama = facts::kLlama405bHours / table.back().cost.hours;
  if (in.html) {
    page::HtmlPage page(fmt::format("Cost of training {} on {}", m.name, c.name));
    page.paragraph(
        fmt::format("{:.2f} GFLOP a token, {:.1f} % of the BF16 peak, {} USD a device hour.",
                    flops / 1e9, mfu * 100, c.price_per_device_hour));
    page.table(cost_table({{"this run", tokens, whole}, {"a trillion tokens", 1e12, trillion}}));
    page.heading("DeepSeek-V3 as reported, 2048 H800");
    page.table(cost_table(table));
    write_page(*in.html, page.finish());
    if (!in.json) return;
  }
  if (in.json) {
    Json rows = Json::array();
    for (const CostRow& row : table) {
      Json r = cost_json(row.cost);
      r["what"] = row.what;
      rows.push_back(r);
    }
    return print_json({{"model", m.name},
                       {"cluster", c.name},
                       {"tokens", tokens},
                       {"flops_per_token", flops},
                       {"mfu", mfu},
                       {"price_per_device_hour", c.price_per_device_hour},
                       {"run", cost_json(whole)},
                       {"per_1e12_tokens", cost_json(trillion)},
                       {"report_table_1", rows},
                       {"llama_3_1_405b",
                        {{"device_hours", facts::kLlama405bHours}, {"over_deepseek_v3", llama}}}});
  }
  fmt::print(
      "{} on {}: {:.3g} tokens, {:.2f} GFLOP a token, {:.1f} % of the BF16 peak, {} USD an "
      "hour\n\n",
      m.name, c.name, tokens, flops / 1e9, mfu * 100, c.price_per_device_hour);
  const auto row = [](const std::string& what, const RunCost& r) {
    fmt::print("{:<26}{:>14.1f} K device hours{:>10.2f} days{:>14.3f} M USD\n", what, r.hours / 1e3,
               r.days, r.usd / 1e6);
  };
  row("this run", whole);
  row("a trillion tokens", trillion);
  fmt::print(
      "\nDeepSeek-V3 as reported (table 1, 2048 H800; research and ablations not counted)\n");
  for (const CostRow& r : table) row(r.what, r.cost);
  fmt::print(
      "\nLlama-3.1-405B by its model card: {:.2f} M H100 hours, {:.1f} times DeepSeek-V3's total\n",
      facts::kLlama405bHours / 1e6, llama);
}

struct FailureInputs : PlanInputs {
  std::optional<double> mtbf_hours, interval_s;
  double checkpoint_s = 10, restart_s = 600, days = 54.2;
  template <class Visitor>
  void visit(Visitor& field) {
    field("mtbf-hours", mtbf_hours,
          "mean time between failures of one device (default: the cluster's)", above(0));
    field("checkpoint-s", checkpoint_s, "seconds that work stands still for a checkpoint",
          at_least(0));
    field("restart-s", restart_s, "seconds from a failure to the next useful step", at_least(0));
    field("interval-s", interval_s, "seconds between checkpoints (default: the best)", above(0));
    field("days", days, "useful days of the run", above(0));
  }
};

void failures(const FailureInputs& in) {
  const Cluster c = cluster(in.cluster);
  const double device = in.mtbf_hours.value_or(c.device_mtbf_hours);
  if (!(device > 0))
    throw ConfigError(c.name + ": device_mtbf_hours is not known; give --mtbf-hours");
  const FailureModel model = {job_mtbf_s(device, static_cast<double>(c.devices)), in.checkpoint_s,
                              in.restart_s};
  const double best = best_interval_s(model);
  const double interval = in.interval_s.value_or(best);
  if (!(interval > 0))
    throw ConfigError("checkpoints that cost nothing have no best interval; give --interval-s");
  const double share = goodput(model, interval), at_best = best > 0 ? goodput(model, best) : share;
  if (!(share > 1e-9))
    throw ConfigError(fmt::format(
        "with an interval of {:.0f} s and a failure every {:.0f} s no work gets done; the best "
        "interval is {:.0f} s",
        interval, model.mtbf_s, best));
  const double wall_days = in.days / share;
  const double failed = expected_failures(model, wall_days * 86400);
  if (in.json)
    return print_json({{"cluster", c.name},
                       {"devices", c.devices},
                       {"device_mtbf_hours", device},
                       {"job_mtbf_s", model.mtbf_s},
                       {"checkpoint_s", model.checkpoint_s},
                       {"restart_s", model.restart_s},
                       {"interval_s", interval},
                       {"goodput", share},
                       {"best_interval_s", best},
                       {"best_goodput", at_best},
                       {"useful_days", in.days},
                       {"wall_days", wall_days},
                       {"expected_failures", failed}});
  fmt::print("{}: {} devices, each failing every {:.0f} hours: the job every {:.2f} hours\n",
             c.name, c.devices, device, model.mtbf_s / 3600);
  fmt::print("checkpoint {:.0f} s, restart {:.0f} s\n\n", model.checkpoint_s, model.restart_s);
  fmt::print("a checkpoint every {:>8.0f} s      goodput {:.2f} %\n", interval, share * 100);
  if (in.interval_s)
    fmt::print("best:        every {:>8.0f} s      goodput {:.2f} %\n", best, at_best * 100);
  fmt::print("{:.1f} useful days take {:.1f} days with {:.0f} failures\n", in.days, wall_days,
             failed);
}

}  // namespace

void add_plan_cost(CLI::App& plan) {
  const auto in = std::make_shared<CostInputs>();
  CLI::App* command = plan.add_subcommand("cost", "device hours, days and dollars of training");
  add_plan_flags(*command, *in, PlanFlags::Cluster);
  add_flags(*command, OptionList(*in));
  command->callback([in] { cost(*in); });

  const auto fail = std::make_shared<FailureInputs>();
  CLI::App* second = plan.add_subcommand(
      "failures", "goodput when devices fail, and how often to write a checkpoint");
  second->add_option("--cluster", fail->cluster, "as for cost")->capture_default_str();
  second->add_flag("--json", fail->json, "one JSON document on standard output");
  add_flags(*second, OptionList(*fail));
  second->callback([fail] { failures(*fail); });
}

}  // namespace minke
