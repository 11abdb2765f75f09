#include "plan/simulate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/random.h"

namespace minke {
namespace {

using nlohmann::json;

constexpr ScheduleKind kKinds[] = {ScheduleKind::OneFOneB, ScheduleKind::Zb1p,
                                   ScheduleKind::DualPipe, ScheduleKind::DualPipeV};

// Sums of some hundred times of up to 5 units: 1e-9 is far above their rounding and far below the
// smallest difference between two schedules.
constexpr double kRounding = 1e-9;

struct Bubbles {
  double smallest, largest;
};
Bubbles bubbles(const Simulation& sim, int n_ranks) {
  Bubbles b{sim.makespan, 0};
  for (int rank = 0; rank < n_ranks; ++rank) {
    b.smallest = std::min(b.smallest, sim.of(rank).bubble);
    b.largest = std::max(b.largest, sim.of(rank).bubble);
  }
  return b;
}

TEST(Simulate, GoldenBubbles) {
  const json file =
      json::parse(read_file(std::filesystem::path(MINKE_GOLDEN_DIR) / "dualpipe" / "bubbles.json"));
  std::size_t rows = 0;
  for (const json& row : file["rows"]) {
    SCOPED_TRACE(row.dump());
    ++rows;
    const Schedule s =
        make_schedule(parse_schedule_kind(row["schedule"]), row["num_ranks"], row["num_chunks"]);
    const UnitTimes t{row["F"], row["B"], row["W"], row["FB"]};
    const Simulator simulator(s);
    const Simulation sim = simulator.run(t);
    EXPECT_NEAR(sim.makespan, row["sim_makespan"], kRounding);
    EXPECT_NEAR(bubbles(sim, s.n_ranks).smallest, row["sim_bubble_min"], kRounding);
    EXPECT_NEAR(bubbles(sim, s.n_ranks).largest, row["sim_bubble_max"], kRounding);
    const BubbleFormula formula = bubble_formula(s, t);
    EXPECT_NEAR(formula.bubble, row["formula_bubble"], kRounding);
    EXPECT_NEAR(formula.makespan, row["formula_makespan"], kRounding);
    EXPECT_TRUE(formula.region != FormulaRegion::Exact || row["equal"].get<bool>());
    if (!row.contains("sim_makespan_blocking")) continue;
    EXPECT_TRUE(s.n_stages() == 2 || name_of(formula.region) == row["region"]);
    EXPECT_NEAR(sim.of(binding_rank(s)).bubble, row["sim_bubble_bottleneck_rank"], kRounding);
    const Simulation blocking = simulator.run(t, Messages::Blocking);
    EXPECT_NEAR(blocking.makespan, row["sim_makespan_blocking"], kRounding);
    EXPECT_NEAR(blocking.of(binding_rank(s)).bubble, row["sim_bubble_bottleneck_rank_blocking"],
                kRounding);
    if (!row.contains("corrected_makespan")) continue;
    EXPECT_NEAR(formula.makespan - formula.gain, row["corrected_makespan"], kRounding);
  }
  EXPECT_EQ(rows, 496u);
}

// Every size up to 16 ranks and 64 chunks, with random times: where the closed form says exact or
// corrected, the list agrees; with messages that block at both ends nothing waits in a circle.
TEST(Simulate, FormulasHoldForEverySize) {
  Random random(3);
  std::map<FormulaRegion, int> checked;
  for (const ScheduleKind kind : kKinds)
    for (int ranks = kind == ScheduleKind::DualPipe ? 2 : 1; ranks <= 16; ++ranks) {
      const bool dual = kind == ScheduleKind::DualPipe;
      if (dual && ranks % 2 != 0) continue;
      const bool one_phase = kind == ScheduleKind::OneFOneB || kind == ScheduleKind::Zb1p;
      for (int chunks = one_phase ? 1 : 2 * ranks; chunks <= 64; chunks += dual ? 2 : 1) {
        SCOPED_TRACE(std::string(name_of(kind)) + " " + std::to_string(ranks) + " x " +
                     std::to_string(chunks));
        const Schedule s = make_schedule(kind, ranks, chunks);
        const Simulator simulator(s);
        for (int round = 0; round < 3; ++round) {
          UnitTimes t;
          t.forward = 0.5 + random.uniform();
          t.weight = t.forward * random.uniform();
          // Exact region, corrected region, anything.
          t.backward = round == 0   ? t.forward + t.weight
                       : round == 1 ? t.forward + t.weight + random.uniform()
                                    : t.weight + 2 * random.uniform();
          const double both = t.forward + t.backward, longer = std::max(t.forward, t.backward);
          t.pair = longer + (both - longer) * random.uniform();
          const BubbleFormula formula = bubble_formula(s, t);
          const Simulation sim = simulator.run(t), blocking = simulator.run(t, Messages::Blocking);
          EXPECT_GE(blocking.makespan, sim.makespan - kRounding);
          ++checked[formula.region];
          if (formula.region == FormulaRegion::None) continue;
          EXPECT_NEAR(sim.makespan, formula.makespan - formula.gain, kRounding);
          EXPECT_NEAR(sim.of(binding_rank(s)).bubble, formula.bubble - formula.gain, kRounding);
          EXPECT_TRUE(one_phase || std::abs(blocking.makespan - sim.makespan) < kRounding);
        }
        if (::testing::Test::HasFailure()) return;
      }
    }
  EXPECT_GT(checked[FormulaRegion::Exact], 1000);
  EXPECT_GT(checked[FormulaRegion::Corrected], 100);
  EXPECT_GT(checked[FormulaRegion::None], 100);
}

// Written another way: relaxes the recurrences until nothing changes.
std::vector<std::vector<double>> relax(const Schedule& s, const std::vector<std::vector<double>>& d,
                                       double message_time) {
  std::vector<std::vector<double>> end;
  for (const auto& ops : s.ranks) end.emplace_back(ops.size(), 0.0);
  for (bool changed = true; changed;) {
    changed = false;
    std::map<std::tuple<int, bool, int, int>, double> made;  // rank, forward, micro-batch
    for (int rank = 0; rank < s.n_ranks; ++rank)
      for (std::size_t i = 0; i < s.ranks[static_cast<std::size_t>(rank)].size(); ++i) {
        const ScheduleOp& op = s.ranks[static_cast<std::size_t>(rank)][i];
        const double at = end[static_cast<std::size_t>(rank)][i];
        if (op.has_forward()) made[{rank, true, op.forward.phase, op.forward.chunk}] = at;
        if (op.has_backward()) made[{rank, false, op.backward.phase, op.backward.chunk}] = at;
      }
    for (int rank = 0; rank < s.n_ranks; ++rank) {
      double clock = 0;
      for (std::size_t i = 0; i < s.ranks[static_cast<std::size_t>(rank)].size(); ++i) {
        const ScheduleOp& op = s.ranks[static_cast<std::size_t>(rank)][i];
        if (op.has_forward()) {
          const int from = s.upstream(rank, op.forward.phase);
          if (from >= 0)
            clock = std::max(clock,
                             made[{from, true, op.forward.phase, op.forward.chunk}] + message_time);
        }
        if (op.has_backward()) {
          const int from = s.downstream(rank, op.backward.phase);
          if (from >= 0)
            clock = std::max(
                clock, made[{from, false, op.backward.phase, op.backward.chunk}] + message_time);
        }
        clock += d[static_cast<std::size_t>(rank)][i];
        double& known = end[static_cast<std::size_t>(rank)][i];
        changed = changed || known != clock;
        known = clock;
      }
    }
  }
  return end;
}

TEST(Simulate, UnequalTimesAsByRelaxation) {
  Random random(5);
  for (const ScheduleKind kind : kKinds) {
    const Schedule s = make_schedule(kind, 4, 12);
    std::vector<std::vector<double>> d;
    for (const auto& ops : s.ranks) {
      d.emplace_back();
      for (const ScheduleOp& op : ops)
        d.back().push_back(op.kind == OpKind::Comm ? 0 : 0.1 + random.uniform());
    }
    const Simulation sim = Simulator(s).run(
        {.message_time = 0.25}, [&](int rank, const ScheduleOp& op, std::span<OpTime> t) {
          const auto& ops = s.ranks[static_cast<std::size_t>(rank)];
          t[0].compute =
              d[static_cast<std::size_t>(rank)][static_cast<std::size_t>(&op - ops.data())];
          return 1;
        });
    const auto end = relax(s, d, 0.25);
    for (int rank = 0; rank < s.n_ranks; ++rank)
      for (std::size_t i = 0; i < end[static_cast<std::size_t>(rank)].size(); ++i)
        EXPECT_DOUBLE_EQ(sim.end(rank, i), end[static_cast<std::size_t>(rank)][i]);
  }
}

// One rank, one micro-batch, three replicas of which the first two share experts.
TEST(Simulate, ExchangesEndWithTheSlowestOfTheGroup) {
  const Schedule s = make_schedule(ScheduleKind::OneFOneB, 1, 1);
  const double compute[] = {1, 3, 5, 2};
  const Simulation sim = Simulator(s).run(
      {.n_replicas = 4, .expert_group = 2}, [&](int, const ScheduleOp& op, std::span<OpTime> t) {
        for (std::size_t i = 0; i < 4; ++i)
          t[i] = op.kind == OpKind::F ? OpTime{compute[i], 0.5, 0} : OpTime{1, 0, 0};
        return op.kind == OpKind::F ? 2 : 1;
      });
  // Two parts: max(0.5, 1.5) + 0.25, then both again.
  EXPECT_DOUBLE_EQ(sim.end(0, 0, 0), 3.5);
  EXPECT_DOUBLE_EQ(sim.end(0, 0, 1), 3.5);
  EXPECT_DOUBLE_EQ(sim.end(0, 0, 2), 5.5);
  EXPECT_DOUBLE_EQ(sim.of(0, 0).straggling, 2);
  EXPECT_DOUBLE_EQ(sim.of(0, 0).exchange, 0.5);
  EXPECT_DOUBLE_EQ(sim.of(0, 0).compute, 2);
  EXPECT_DOUBLE_EQ(sim.of(0, 0).bubble, 2);  // the other group is the slower one
  EXPECT_DOUBLE_EQ(sim.of(0, 2).straggling, 0);
  EXPECT_DOUBLE_EQ(sim.makespan, 6.5);
}

TEST(Simulate, HiddenExchangesShowOnlyWhereTheyAreLonger) {
  const Schedule s = make_schedule(ScheduleKind::OneFOneB, 1, 1);
  const auto forward = [&](double compute0, double compute1, double hidden) {
    return Simulator(s).run({.n_replicas = 2, .expert_group = 2},
                            [&](int, const ScheduleOp& op, std::span<OpTime> t) {
                              if (op.kind != OpKind::F) return 1;
                              t[0] = {compute0, 0, hidden};
                              t[1] = {compute1, 0, hidden};
                              return 1;
                            });
  };
  EXPECT_DOUBLE_EQ(forward(2, 3, 1.5).end(0, 0, 0), 2);
  EXPECT_DOUBLE_EQ(forward(2, 3, 2.5).end(0, 0, 0), 2.5);
  EXPECT_DOUBLE_EQ(forward(2, 3, 2.5).of(0, 0).exchange, 0.5);
  EXPECT_DOUBLE_EQ(forward(2, 3, 2.5).end(0, 0, 1), 3);
}

TEST(Simulate, RanksAccountForTheWholeTime) {
  Random random(9);
  const Schedule s = make_schedule(ScheduleKind::DualPipe, 4, 8);
  const Simulation sim =
      Simulator(s).run({.n_replicas = 6, .expert_group = 3, .message_time = 0.1},
                       [&](int, const ScheduleOp& op, std::span<OpTime> t) {
                         for (OpTime& o : t)
                           o = {random.uniform(), op.kind == OpKind::W ? 0 : random.uniform(), 0.3};
                         return 3;
                       });
  for (int rank = 0; rank < 4; ++rank)
    for (Index r = 0; r < 6; ++r) {
      const RankTime& t = sim.of(rank, r);
      EXPECT_NEAR(t.compute + t.exchange + t.straggling + t.bubble, sim.makespan, kRounding);
      EXPECT_GE(t.bubble, -kRounding);
      EXPECT_GE(t.straggling, -kRounding);
    }
}

TEST(Simulate, FormatOfListsThatCannotRun) {
  const auto message = [](const Schedule& s, Messages messages = Messages::Asynchronous) {
    try {
      Simulator(s).run(UnitTimes{}, messages);
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string("ran");
  };
  const Schedule good = make_schedule(ScheduleKind::OneFOneB, 2, 2);
  EXPECT_EQ(message(good), "ran");
  Schedule s = good;
  s.ranks[1].erase(s.ranks[1].begin());  // the first receive
  EXPECT_EQ(message(s), "schedule: receive 0 of rank 1 from rank 0 is not what that rank sends");
  s = good;
  std::swap(s.ranks[1][0], s.ranks[1][1]);
  EXPECT_EQ(message(s),
            "schedule: rank 1, operation 0 (F) needs an input that no earlier COMM received");
  // Both send first and receive later: fine with asynchronous messages, a circle with blocking.
  s = make_schedule(ScheduleKind::DualPipe, 2, 4);
  for (auto& ops : s.ranks) {
    ScheduleOp& comm = ops[1];
    ScheduleOp second = comm;
    ASSERT_EQ(comm.messages.size(), 2u);
    comm.messages.pop_back();
    second.messages.erase(second.messages.begin());
    ops.insert(ops.begin() + 2, second);
  }
  EXPECT_EQ(message(s), "ran");
  EXPECT_EQ(message(s, Messages::Blocking),
            "schedule: ranks wait for each other: rank 0, operation 1 (COMM); rank 1, operation 1 "
            "(COMM); rank 0, operation 1 (COMM)");
}

TEST(Simulate, FormatOfOptions) {
  const Schedule s = make_schedule(ScheduleKind::OneFOneB, 2, 2);
  const auto run = [&](const SimulationOptions& o) {
    Simulator(s).run(o, [](int, const ScheduleOp&, std::span<OpTime>) { return 1; });
  };
  EXPECT_THROW(run({.n_replicas = 0}), ConfigError);
  EXPECT_THROW(run({.n_replicas = Index{1} << 40}), ConfigError);
  EXPECT_THROW(run({.n_replicas = Index{1} << 26}), ConfigError);
  EXPECT_THROW(run({.n_replicas = 4, .expert_group = 3}), ConfigError);
  EXPECT_THROW(run({.n_replicas = 4, .expert_group = 0}), ConfigError);
  EXPECT_THROW(run({.message_time = std::nan("")}), ConfigError);
}

// 16,384 ranks, each operation of each rank with a time of its own.
TEST(SimulateTimed, SixteenThousandRanks) {
  const auto start = std::chrono::steady_clock::now();
  const Schedule s = make_schedule(ScheduleKind::DualPipe, 64, 256);
  std::uint64_t draw = 0;
  const Simulation sim = Simulator(s).run(
      {.n_replicas = 256, .expert_group = 64, .message_time = 0.01},
      [&](int, const ScheduleOp& op, std::span<OpTime> t) {
        for (OpTime& o : t) {
          const double load = 0.8 + 0.4 * static_cast<double>(mix_bits(++draw) >> 11) * 0x1p-53;
          o.compute = unit_time({1, 2, 1, 2.5}, op) * load;
          if (op.kind == OpKind::FB) o.hidden_exchange = 1;
          if (op.kind == OpKind::F || op.kind == OpKind::B || op.kind == OpKind::BI)
            o.exchange = 0.2;
        }
        return 4;
      });
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  EXPECT_GT(sim.n_operations(), 10'000'000u);
  EXPECT_GT(sim.makespan, bubble_formula(s, {1, 2, 1, 2.5}).makespan);
  EXPECT_LT(seconds, 60) << "10 s without sanitizers and other work on the machine";
  RecordProperty("seconds", std::to_string(seconds));
}

}  // namespace
}  // namespace minke
