// minke plan schedule: the list of a pipeline schedule, its simulation, and pictures of it.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/options.h"
#include "cli/plan.h"
#include "cli/plan_pictures.h"
#include "page/html.h"
#include "parallel/schedule_json.h"
#include "plan/load_spread.h"
#include "plan/schedule_picture.h"
#include "plan/simulate.h"

namespace minke {
namespace {

struct ScheduleOptions {
  std::string kind = "dualpipe";
  std::int64_t ranks = 8, chunks = 20;
  double forward_time = 1, backward_time = 2, weight_time = 1;
  std::optional<double> pair_time;
  double message_time = 0;
  bool blocking = false;
  std::int64_t replicas = 1;
  std::optional<std::int64_t> expert_group;
  double exchange_time = 0;
  std::int64_t exchanges = 2;
  double load_spread = 0;
  std::uint64_t seed = 1;
  bool json = false;
  PictureFiles pictures;

  template <class Visitor>
  void visit(Visitor& field) {
    field("kind", kind, "dualpipe, dualpipev, 1f1b or zb1p");
    field("ranks", ranks, "pipeline ranks");
    field("chunks", chunks, "micro-batches of a step");
    field("forward-time", forward_time, "F: forward of a micro-batch on one stage, in any unit");
    field("backward-time", backward_time, "B: its full backward");
    field("weight-time", weight_time, "W: the weight gradients in B");
    field("pair-time", pair_time, "FB: a forward and a backward overlapped (default: F + B)");
    field("message-time", message_time, "of one message between two stages");
    field("blocking", blocking, "sends wait for their receiver");
    field("replicas", replicas, "ranks that hold the same stages: expert and data parallel");
    field("expert-group", expert_group,
          "replicas that exchange tokens with each other (default: all)");
    field("exchange-time", exchange_time,
          "dispatch and combine of a forward or a backward, added to F and B, hidden in pairs");
    field("exchanges", exchanges, "dispatches and combines in one F or B");
    field("load-spread", load_spread,
          "loads of the ranks' experts differ: computing takes 1 - S to 1 + S times as long");
    field("seed", seed, "of the loads");
    field("json", json, "the list as one JSON document on standard output");
    pictures.visit(field);
  }
};

void check_options(const ScheduleOptions& o) {
  const auto check = [](const char* name, double value, double most) {
    if (!(value >= 0 && value <= most))
      throw ConfigError(fmt::format("{} is {}, but must be from 0 to {}", name, value, most));
  };
  check("message-time", o.message_time, 1e12);
  check("exchange-time", o.exchange_time, 1e12);
  check("load-spread", o.load_spread, 0.99);
  check("forward-time", o.forward_time, 1e12);
  check("backward-time", o.backward_time, 1e12);
  if (o.exchanges < 1 || o.exchanges > 10000)
    throw ConfigError(fmt::format("exchanges is {}, but must be from 1 to 10000", o.exchanges));
}

// A schedule with its simulation and everything that is printed of them.
struct Study {
  explicit Study(const ScheduleOptions& options)
      : o(options),
        times{o.forward_time, o.backward_time, o.weight_time,
              o.pair_time.value_or(o.forward_time + o.backward_time)},
        schedule(make_schedule(parse_schedule_kind(o.kind), o.ranks, o.chunks)) {
    check_options(o);
    check_unit_times(times);
    formula = bubble_formula(schedule, times);
    const Simulator simulator(schedule);
    const auto op_times = [this](int rank, const ScheduleOp& op, std::span<OpTime> replicas) {
      for (std::size_t r = 0; r < replicas.size(); ++r)
        replicas[r] = time_of(rank, op, static_cast<Index>(r));
      return static_cast<int>(o.exchanges);
    };
    const SimulationOptions settings{
        .n_replicas = o.replicas,
        .expert_group = o.expert_group.value_or(o.replicas),
        .messages = o.blocking ? Messages::Blocking : Messages::Asynchronous,
        .message_time = o.message_time};
    simulation = simulator.run(settings, op_times);
  }

  OpTime time_of(int rank, const ScheduleOp& op, Index replica) const {
    const double exchange = o.exchange_time;
    OpTime t{unit_time(times, op) * load(rank, op, replica), 0, 0};
    if (op.kind == OpKind::FB)
      t.hidden_exchange = 2 * exchange;
    else if (op.kind != OpKind::W)
      t.exchange = exchange;
    return t;
  }
  // The same for all operations of a stage on a rank: it holds the same experts all along.
  double load(int rank, const ScheduleOp& op, Index replica) const {
    const int phase = op.has_forward() ? op.forward.phase : op.backward.phase;
    return LoadSpread{o.load_spread, o.seed}.load(rank * o.replicas + replica, phase);
  }

  // The closed form speaks of equal stages without transfers.
  bool formula_applies() const {
    return formula.region != FormulaRegion::None && o.message_time == 0 && o.exchange_time == 0 &&
           o.load_spread == 0;
  }
  double peak(int rank, double weight_work) const {
    return peak_activations(schedule.ranks[static_cast<std::size_t>(rank)],
                            {.saved = {1, 1}, .weight_work = {weight_work, weight_work}});
  }
  int count(int rank, OpKind kind) const {
    const auto& ops = schedule.ranks[static_cast<std::size_t>(rank)];
    return static_cast<int>(std::count_if(ops.begin(), ops.end(),
                                          [&](const ScheduleOp& op) { return op.kind == kind; }));
  }
  std::string title() const {
    return fmt::format("{}, {} ranks, {} micro-batches", o.kind, o.ranks, o.chunks);
  }
  std::string times_line() const {
    return fmt::format("F = {:g}, B = {:g} with W = {:g} in it{}", times.forward, times.backward,
                       times.weight,
                       schedule.n_phases() == 2 ? fmt::format(", FB = {:g}", times.pair)
                       : o.pair_time            ? "; there are no pairs, so that FB is not used"
                                                : "");
  }
  std::string formula_line() const {
    const std::string printed =
        fmt::format("closed form: bubble {:.6g}, step {:.6g}", formula.bubble, formula.makespan);
    if (!formula_applies()) return printed + "; does not hold for these times";
    if (formula.gain == 0) return printed + "; exact for these times";
    return fmt::format("{}; less {:.6g} for these times: {:.6g}, {:.6g}", printed, formula.gain,
                       formula.bubble - formula.gain, formula.makespan - formula.gain);
  }

  const ScheduleOptions& o;
  UnitTimes times;
  Schedule schedule;
  BubbleFormula formula;
  Simulation simulation;
};

// Means of all ranks of all replicas, as shares of the step.
RankTime shares(const Study& s) {
  RankTime sum;
  for (int rank = 0; rank < s.schedule.n_ranks; ++rank)
    for (Index r = 0; r < s.o.replicas; ++r) {
      const RankTime& t = s.simulation.of(rank, r);
      sum.compute += t.compute;
      sum.exchange += t.exchange;
      sum.straggling += t.straggling;
      sum.bubble += t.bubble;
    }
  const double all = s.simulation.makespan * static_cast<double>(s.o.ranks * s.o.replicas);
  return {sum.compute / all, sum.exchange / all, sum.straggling / all, sum.bubble / all};
}

std::string replicas_line(const Study& s) {
  const RankTime t = shares(s);
  return fmt::format(
      "all {} ranks: {:.1f} % computing, {:.1f} % exchange, {:.1f} % waiting for slower ranks of "
      "the "
      "group, {:.1f} % bubble",
      s.o.ranks * s.o.replicas, 100 * t.compute, 100 * t.exchange, 100 * t.straggling,
      100 * t.bubble);
}

nlohmann::ordered_json simulation_json(const Study& s) {
  const Simulation& sim = s.simulation;
  double smallest = sim.makespan, largest = 0;
  nlohmann::ordered_json bubbles = nlohmann::json::array(), peaks = bubbles, held = bubbles;
  for (int rank = 0; rank < s.schedule.n_ranks; ++rank) {
    const double bubble = sim.of(rank).bubble;
    smallest = std::min(smallest, bubble);
    largest = std::max(largest, bubble);
    bubbles.push_back(bubble);
    peaks.push_back(s.peak(rank, 0));
    held.push_back(s.peak(rank, 1));
  }
  const UnitTimes& t = s.times;
  const RankTime mean = shares(s);
  return {{"F", t.forward},
          {"B", t.backward},
          {"W", t.weight},
          {"FB", t.pair},
          {"messages", s.o.blocking ? "blocking" : "asynchronous"},
          {"region", name_of(s.formula.region)},
          {"formula_bubble", s.formula.bubble},
          {"formula_makespan", s.formula.makespan},
          {"corrected_makespan", s.formula.makespan - s.formula.gain},
          {"sim_makespan", sim.makespan},
          {"sim_bubble_min", smallest},
          {"sim_bubble_max", largest},
          {"sim_bubble_bottleneck_rank", sim.of(binding_rank(s.schedule)).bubble},
          {"bubble_per_rank", bubbles},
          {"peak_per_rank", peaks},
          {"peak_per_rank_held_until_W", held},
          {"replicas", s.o.replicas},
          {"mean_shares",
           {{"computing", mean.compute},
            {"exchange", mean.exchange},
            {"waiting", mean.straggling},
            {"bubble", mean.bubble}}}};
}

page::Table rank_table(const Study& s) {
  page::Table table;
  table.columns = {"rank",     "F",       "FB",     "B",     "BI",   "W",        "computing",
                   "exchange", "waiting", "bubble", "share", "peak", "peak to W"};
  for (int rank = 0; rank < s.schedule.n_ranks; ++rank) {
    const RankTime& t = s.simulation.of(rank);
    std::vector<std::string> row{std::to_string(rank)};
    for (const OpKind kind : {OpKind::F, OpKind::FB, OpKind::B, OpKind::BI, OpKind::W})
      row.push_back(std::to_string(s.count(rank, kind)));
    for (const double time : {t.compute, t.exchange, t.straggling, t.bubble})
      row.push_back(fmt::format("{:.6g}", time));
    row.push_back(fmt::format("{:.1f} %", 100 * t.bubble / s.simulation.makespan));
    row.push_back(fmt::format("{:g}", s.peak(rank, 0)));
    row.push_back(fmt::format("{:g}", s.peak(rank, 1)));
    table.rows.push_back(std::move(row));
  }
  return table;
}

PictureSource picture(const Study& s, FunctionRef<double(int, const ScheduleOp&)> compute_time) {
  return {s.schedule, s.simulation,     s.title(),   s.times_line(),
          "time",     s.o.message_time, compute_time};
}

void print_table(const Study& s, const PictureSource& source) {
  constexpr int kWidth = 100;
  constexpr std::size_t kMostRows = 64;
  fmt::print("{}\n{}\n\n", s.title(), s.times_line());
  if (s.schedule.n_ranks <= static_cast<int>(kMostRows))
    fmt::print("{}F forward, {}B backward, b gradient of inputs, W of weights, . nothing\n\n",
               schedule_text(source, kWidth), s.schedule.n_phases() == 2 ? "X pair, " : "");
  const page::Table table = rank_table(s);
  const auto print_row = [](const std::vector<std::string>& cells) {
    constexpr int widths[] = {5, 5, 5, 5, 5, 5, 11, 10, 10, 10, 8, 6, 10};
    for (std::size_t i = 0; i < cells.size(); ++i) fmt::print("{:>{}}", cells[i], widths[i]);
    fmt::print("\n");
  };
  print_row(table.columns);
  for (std::size_t i = 0; i < std::min(table.rows.size(), kMostRows); ++i) print_row(table.rows[i]);
  if (table.rows.size() > kMostRows)
    fmt::print("  ... and {} more ranks\n", table.rows.size() - kMostRows);
  fmt::print("\nstep {:.6g}, bubble {:.6g} on rank {}\n{}\n", s.simulation.makespan,
             s.simulation.of(binding_rank(s.schedule)).bubble, binding_rank(s.schedule),
             s.formula_line());
  if (s.o.replicas > 1) fmt::print("{}\n", replicas_line(s));
  fmt::print(
      "peak: live activations of a micro-batch on a stage, to the end of B or BI, or of W\n");
}

std::string html_page(const Study& s, const std::string& svg) {
  page::HtmlPage page(s.title());
  page.paragraph(s.times_line() + ". Step " + fmt::format("{:.6g}", s.simulation.makespan) + "; " +
                 s.formula_line() + ".");
  if (s.o.replicas > 1) page.paragraph("One replica is drawn; " + replicas_line(s) + ".");
  page.heading("Timeline");
  page.picture(svg);
  page.heading("Time by rank");
  page::Bars times{{"computing", "exchange", "waiting for the group", "bubble"}, {}};
  page::Bars memory{{"live activations"}, {}};
  for (int rank = 0; rank < s.schedule.n_ranks; ++rank) {
    const RankTime& t = s.simulation.of(rank);
    times.bars.push_back({fmt::format("rank {}", rank),
                          {t.compute, t.exchange, t.straggling, t.bubble},
                          fmt::format("bubble {:.4g} ({:.1f} %)", t.bubble,
                                      100 * t.bubble / s.simulation.makespan)});
    memory.bars.push_back({fmt::format("rank {}", rank),
                           {s.peak(rank, 1)},
                           fmt::format("{:g} micro-batches", s.peak(rank, 1))});
  }
  page.bars(times);
  page.heading("Peak of live activations");
  page.paragraph(
      "From the start of a forward to the end of its weight gradients, in activations of "
      "one micro-batch on one stage.");
  page.bars(memory);
  page.heading("Operations and times");
  page.table(rank_table(s));
  return page.finish();
}

void run_schedule(const ScheduleOptions& o) {
  const Study study(o);
  const auto compute_time = [&](int rank, const ScheduleOp& op) {
    return study.time_of(rank, op, 0).compute;
  };
  const PictureSource source = picture(study, compute_time);
  write_pictures(o.pictures, source, 1000,
                 [&](const std::string& svg) { return html_page(study, svg); });
  if (o.json) {
    nlohmann::ordered_json more;
    more["simulation"] = simulation_json(study);
    write_schedule_json(study.schedule, more, [](std::string_view piece) {
      std::fwrite(piece.data(), 1, piece.size(), stdout);
    });
  } else if (!o.pictures.any()) {
    print_table(study, source);
  }
}

}  // namespace

void add_plan_schedule(CLI::App& plan) {
  const auto o = std::make_shared<ScheduleOptions>();
  CLI::App* cmd = plan.add_subcommand(
      "schedule", "A pipeline schedule: its operations, when they run, and the bubble");
  add_flags(*cmd, OptionList(*o));
  for (const char* needed : {"--kind", "--ranks", "--chunks"}) cmd->get_option(needed)->required();
  cmd->callback([o] { run_schedule(*o); });
}

}  // namespace minke
