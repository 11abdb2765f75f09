// minke plan time: seconds of a training step, simulated, and what a run of it takes.
#include <span>

#include "base/error.h"
#include "cli/plan_inputs.h"
#include "cli/plan_pictures.h"
#include "plan/page_blocks.h"
#include "plan/report_facts.h"

namespace minke {
namespace {

using Json = nlohmann::ordered_json;

struct TimeInputs : PlanInputs {
  PhaseFlags phases;
  LoadSpread loads;
  std::optional<double> price;
  bool balance = false;
  double tokens = facts::kTokens;
  PictureFiles pictures;

  template <class Visitor>
  void visit(Visitor& field) {
    phases.visit(field);
    field("balance", balance,
          "move layers so that ranks compute about equally long, instead of evenly");
    field("load-spread", loads.spread,
          "loads of the ranks' experts differ: from 1 - S to 1 + S times the mean",
          between(0, 0.99));
    field("seed", loads.seed, "of the loads");
    field("tokens", tokens, "of the training run", above(0));
    field("price", price, "US dollars a device hour (default: the cluster's)", at_least(0));
    pictures.visit(field);
  }
};

// Everything that is shown of a step.
struct TimeStudy {
  PlanModel model;
  Cluster cluster;
  LoadSpread loads;
  StepTime step;
  double tokens = 0;
  RunCost run;
  int shown_rank = 0;  // whose parts are told

  const StepParts& parts() const { return step.ranks[static_cast<std::size_t>(shown_rank)]; }
  std::string title() const { return fmt::format("{} on {}", model.name, cluster.name); }
};

Layout chosen_layout(const TimeInputs& in, const PlanModel& m, const Cluster& c,
                     const PhaseSettings& phases) {
  const Layout layout = complete_layout(m, c, in.layout);
  if (!in.balance) return layout;
  if (!layout.layers_per_stage.empty())
    throw UsageError("--balance chooses the layers of each stage, and so does --layers-per-stage");
  // Checked again: other layers need other memory.
  return complete_layout(m, c, with_balanced_layers(m, c, layout, phases));
}

TimeStudy study(const TimeInputs& in) {
  TimeStudy s;
  s.model = plan_model(in.model);
  s.cluster = cluster(in.cluster);
  if (in.price) s.cluster.price_per_device_hour = *in.price;
  s.loads = in.loads;
  const PhaseSettings phases = in.phases.settings(s.cluster);
  const Layout layout = chosen_layout(in, s.model, s.cluster, phases);
  s.step = step_time(s.model, s.cluster, layout, phases, in.loads);
  s.tokens = in.tokens;
  s.run = run_cost(s.step.speed().device_hours(in.tokens), layout.devices(),
                   s.cluster.price_per_device_hour);
  s.shown_rank = binding_rank(s.step.schedule);
  return s;
}

Layout with_even_layers(Layout layout) {
  layout.layers_per_stage.clear();
  return layout;
}

// Whether this is the run whose step was published.
bool is_report_run(const TimeStudy& s) {
  return s.model.name == "deepseek-v3" && s.cluster.name == "h800x2048" &&
         with_even_layers(s.step.layout).flags() == report_layout().flags();
}

struct PartRow {
  const char* name;
  double seconds, published;
};
std::vector<PartRow> part_rows(const TimeStudy& s) {
  const StepParts& p = s.parts();
  const facts::StepParts published;
  return {{"F", p.F, published.F},
          {"FB", p.FB, published.FB},
          {"B", p.B, published.B},
          {"W", p.W, published.W},
          {"bubble", p.bubble, published.bubble},
          {"gradients", s.step.gradients_s, 0},
          {"optimiser", s.step.optimizer_s, published.optimizer}};
}

std::string published_line(const TimeStudy& s) {
  return fmt::format(
      "published step of this run {:.3f} s (arXiv 2505.09343, table 4): this is {:+.1f} %. Layers "
      "of each stage are not published, here {}; efficiencies are assumed",
      facts::kStepSeconds, 100 * (s.step.step_s / facts::kStepSeconds - 1),
      s.step.layout.layers_per_stage.empty()
          ? "evenly, which makes the stage with head and MTP the slowest (--balance moves layers)"
          : "as given");
}

std::string shares_line(const TimeStudy& s) {
  RankTime sum;
  const Index replicas = s.step.simulation.n_replicas();
  for (int rank = 0; rank < s.step.schedule.n_ranks; ++rank)
    for (Index r = 0; r < replicas; ++r) {
      const RankTime& t = s.step.simulation.of(rank, r);
      sum.compute += t.compute;
      sum.exchange += t.exchange;
      sum.straggling += t.straggling;
      sum.bubble += t.bubble;
    }
  const double all =
      s.step.pipeline_s * static_cast<double>(s.step.schedule.n_ranks * replicas) / 100;
  return fmt::format(
      "all ranks of the pipeline: {:.1f} % computing, {:.1f} % exchange, {:.1f} % waiting for "
      "slower ranks of the group, {:.1f} % bubble",
      sum.compute / all, sum.exchange / all, sum.straggling / all, sum.bubble / all);
}

std::string simulated_line(const TimeStudy& s) {
  if (s.loads.spread == 0) return "all replicas equal: one of them simulated";
  return fmt::format("{} replicas simulated in groups of {}, loads of experts {:g} to {:g}",
                     s.step.simulation.n_replicas(), s.step.layout.expert, 1 - s.loads.spread,
                     1 + s.loads.spread);
}

Json time_json(const TimeStudy& s) {
  const Speed speed = s.step.speed();
  Json j = {{"model", s.model.name},
            {"cluster", s.cluster.name},
            {"layout", layout_json(s.step.layout)},
            {"step_s", s.step.step_s},
            {"pipeline_s", s.step.pipeline_s},
            {"bubble_s", s.step.bubble_s},
            {"gradients_s", s.step.gradients_s},
            {"optimizer_s", s.step.optimizer_s},
            {"replicas_simulated", s.step.simulation.n_replicas()},
            {"load_spread", s.loads.spread},
            {"mfu", s.step.mfu},
            {"mfu_with_mtp", s.step.mfu_with_mtp},
            {"tokens_per_s_per_device", speed.tokens_per_s_per_device()},
            {"tokens_per_day", speed.tokens_per_day()},
            {"tokens", s.tokens},
            {"device_hours", s.run.hours},
            {"days", s.run.days},
            {"usd", s.run.usd}};
  if (is_report_run(s)) j["published_step_s"] = facts::kStepSeconds;
  for (std::size_t i = 0; i < s.step.phases.stages.size(); ++i) {
    const StagePhases& p = s.step.phases.stages[i];
    const OpSeconds& o = s.step.phases.ops[i];
    j["stages"].push_back({{"F", o.F},
                           {"B", o.B},
                           {"BI", o.BI},
                           {"W", o.W},
                           {"FB", o.FB},
                           {"dispatch", p.dispatch},
                           {"combine", p.combine},
                           {"message", p.message}});
  }
  for (const StepParts& p : s.step.ranks)
    j["ranks"].push_back({{"F", p.F},
                          {"FB", p.FB},
                          {"B", p.B},
                          {"W", p.W},
                          {"bubble", p.bubble},
                          {"gradients", p.gradients},
                          {"optimizer", p.optimizer}});
  return j;
}

void print_time(const TimeStudy& s) {
  const Speed speed = s.step.speed();
  fmt::print("{}\n{}\n\nmilliseconds of a micro-batch on each stage\n", s.title(),
             s.step.layout.flags());
  print_table(stage_table(s.model, s.step));
  const bool report = is_report_run(s);
  fmt::print("\nseconds of a step on rank {}{}\n", s.shown_rank,
             report ? "                     published" : "");
  for (const PartRow& row : part_rows(s))
    fmt::print("  {:<12}{:>9.3f}{:>8.1f} %{}\n", row.name, row.seconds,
               100 * row.seconds / s.step.step_s,
               !report              ? ""
               : row.published == 0 ? fmt::format("{:>18}", "-")
                                    : fmt::format("{:>18.3f}", row.published));
  fmt::print("  {:<12}{:>9.3f}{}\n\n", "step", s.step.step_s,
             report ? fmt::format("{:>28.3f}", facts::kStepSeconds) : "");
  if (report) fmt::print("{}\n", published_line(s));
  fmt::print("{}\n{}\n\n", shares_line(s), simulated_line(s));
  fmt::print("MFU {:.1f} % of the BF16 peak (causal{})\n", 100 * s.step.mfu,
             s.step.mfu_with_mtp > s.step.mfu
                 ? fmt::format("; {:.1f} % with the MTP module's work", 100 * s.step.mfu_with_mtp)
                 : "");
  fmt::print("{:.1f} tokens/s a device, {:.3g} tokens a day\n", speed.tokens_per_s_per_device(),
             speed.tokens_per_day());
  fmt::print("{:.4g} tokens: {:.1f} days, {:.1f} K device hours, {:.3f} M USD at {} an hour\n",
             s.tokens, s.run.days, s.run.hours / 1e3, s.run.usd / 1e6,
             s.cluster.price_per_device_hour);
}

std::string html_page(const TimeStudy& s, const std::string& svg) {
  page::HtmlPage page(s.title());
  page.paragraph(s.step.layout.flags());
  page.paragraph(
      fmt::format("Step {:.3f} s: pipeline {:.3f} s, gradients {:.3f} s, optimiser "
                  "{:.3f} s. MFU {:.1f} % of the BF16 peak. {:.1f} tokens/s a device.",
                  s.step.step_s, s.step.pipeline_s, s.step.gradients_s, s.step.optimizer_s,
                  100 * s.step.mfu, s.step.speed().tokens_per_s_per_device()));
  if (is_report_run(s)) page.paragraph(published_line(s) + ".");
  page.paragraph(shares_line(s) + "; " + simulated_line(s) + ".");
  page.heading("Timeline");
  page.picture(svg);
  page.heading("Memory by rank");
  page.paragraph(fmt::format("GB of the {:.0f} of a device.", s.cluster.memory_bytes / 1e9));
  page.bars(memory_bars(rank_memory(s.model, s.step.layout, {})));
  page.heading("Seconds of a step by rank");
  page.table(rank_table(s.step));
  page.heading("Milliseconds of a micro-batch by stage");
  page.table(stage_table(s.model, s.step));
  page.heading("Cost");
  page.paragraph(fmt::format("At {} USD a device hour.", s.cluster.price_per_device_hour));
  const auto row = [&](const char* what, double tokens) {
    return CostRow{what, tokens,
                   run_cost(s.step.speed().device_hours(tokens), s.step.layout.devices(),
                            s.cluster.price_per_device_hour)};
  };
  page.table(cost_table({row("this run", s.tokens), row("a trillion tokens", 1e12)}));
  return page.finish();
}

void time(const TimeInputs& in) {
  const TimeStudy s = study(in);
  const auto compute_time = [&](int rank, const ScheduleOp& op) {
    return computing_seconds(s.step, s.cluster, rank, op);
  };
  const PictureSource source = {s.step.schedule, s.step.simulation,
                                s.title(),       fmt::format("step {:.3f} s", s.step.step_s),
                                "seconds",       s.step.phases.stages.front().message,
                                compute_time};
  write_pictures(in.pictures, source, 1e6,
                 [&](const std::string& svg) { return html_page(s, svg); });
  if (in.json)
    print_json(time_json(s));
  else if (!in.pictures.any())
    print_time(s);
}

}  // namespace

void add_plan_time(CLI::App& plan) {
  const auto in = std::make_shared<TimeInputs>();
  CLI::App* command = plan.add_subcommand(
      "time", "seconds of a training step, simulated; MFU, days and dollars of a run");
  add_plan_flags(*command, *in, PlanFlags::Layout);
  add_flags(*command, OptionList(*in));
  command->callback([in] { time(*in); });
}

}  // namespace minke
