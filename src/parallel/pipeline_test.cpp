#include "parallel/pipeline.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/files.h"
#include "parallel/thread_ranks.h"

namespace minke {
namespace {

constexpr ScheduleKind kKinds[] = {ScheduleKind::OneFOneB, ScheduleKind::Zb1p,
                                   ScheduleKind::DualPipe, ScheduleKind::DualPipeV};

// Computes nothing: says what it would be in the message, and checks what it is given.
class NamingRunner final : public StageRunner {
 public:
  NamingRunner(const Schedule& schedule, int rank) : schedule_(schedule), rank_(rank) {}

  std::size_t message_bytes(MicroBatch) const override { return sizeof(Name); }

  MessageBytes forward(MicroBatch m, MessageBytes input) override {
    const int stage = schedule_.stage(rank_, m.phase);
    expect(input, stage == 0, {'F', stage - 1, index_of(schedule_, m)});
    EXPECT_TRUE(forwards_.insert({m.phase, m.chunk}).second);
    return named(stage + 1 == schedule_.n_stages(), {'F', stage, index_of(schedule_, m)});
  }
  MessageBytes backward_input(MicroBatch m, MessageBytes dy) override {
    const int stage = schedule_.stage(rank_, m.phase);
    expect(dy, stage + 1 == schedule_.n_stages(), {'B', stage + 1, index_of(schedule_, m)});
    EXPECT_TRUE(forwards_.contains({m.phase, m.chunk}));
    EXPECT_TRUE(backwards_.insert({m.phase, m.chunk}).second);
    return named(stage == 0, {'B', stage, index_of(schedule_, m)});
  }
  MessageBytes backward(MicroBatch m, MessageBytes dy) override {
    MessageBytes dx = backward_input(m, std::move(dy));
    backward_weight(m);
    return dx;
  }
  void backward_weight(MicroBatch m) override {
    EXPECT_TRUE(backwards_.contains({m.phase, m.chunk}));
    EXPECT_TRUE(weights_.insert({m.phase, m.chunk}).second);
  }

  void expect_complete() const {
    const auto all = static_cast<std::size_t>(schedule_.n_phases() * schedule_.chunks_per_phase());
    EXPECT_EQ(forwards_.size(), all);
    EXPECT_EQ(backwards_.size(), all);
    EXPECT_EQ(weights_.size(), all);
  }

 private:
  struct Name {
    int direction, stage, index;
    bool operator==(const Name&) const = default;
  };
  static MessageBytes named(bool at_end, const Name& name) {
    MessageBytes bytes(at_end ? 0 : sizeof name);
    if (!at_end) std::memcpy(bytes.data(), &name, sizeof name);
    return bytes;
  }
  static void expect(const MessageBytes& bytes, bool at_end, const Name& name) {
    ASSERT_EQ(bytes.empty(), at_end);
    if (at_end) return;
    Name found;
    std::memcpy(&found, bytes.data(), sizeof found);
    EXPECT_EQ(found, name);
  }

  const Schedule& schedule_;
  const int rank_;
  std::set<std::pair<int, int>> forwards_, backwards_, weights_;
};

void run_names(const Schedule& schedule, bool strands) {
  SCOPED_TRACE(std::string(name_of(schedule.kind)) + " " + std::to_string(schedule.n_ranks) + "x" +
               std::to_string(schedule.n_chunks));
  run_ranks(schedule.n_ranks,
            [&](Communicator& c) {
              NamingRunner runner(schedule, c.rank());
              Baton baton;
              run_pipeline(schedule, c, runner, {nullptr, strands ? &baton : nullptr});
              runner.expect_complete();
            },
            {.rendezvous = true, .timeout = std::chrono::seconds(60)});
}

Schedule legal(ScheduleKind kind, int ranks, int chunks) {
  return make_schedule(kind, ranks, has_two_phases(kind) ? std::max(chunks, 2 * ranks) : chunks);
}

// Sends wait for their receives, so that any circle of waits would be one here: no deadlock.
TEST(PipelineThreads, EveryNumberOfRanksRunsWithoutBuffers) {
  for (const ScheduleKind kind : kKinds)
    for (int ranks = 1; ranks <= 16; ++ranks)
      if (kind != ScheduleKind::DualPipe || ranks % 2 == 0) run_names(legal(kind, ranks, 6), false);
}

TEST(PipelineThreads, SixtyFourChunksRunWithoutBuffers) {
  for (const ScheduleKind kind : kKinds)
    for (const int ranks : {2, 6, 16}) run_names(legal(kind, ranks, 64), false);
}

TEST(PipelineThreads, PairsRunAsStrands) {
  for (const ScheduleKind kind : {ScheduleKind::DualPipe, ScheduleKind::DualPipeV})
    for (const int ranks : {2, 4}) run_names(legal(kind, ranks, 12), true);
}

TEST(Pipeline, ACommunicatorOfAnotherSizeIsRefused) {
  const Schedule schedule = make_schedule(ScheduleKind::OneFOneB, 2, 2);
  NamingRunner runner(schedule, 0);
  EXPECT_THROW(run_pipeline(schedule, *one_rank(), runner), CommError);
}

// The other ranks' waits end as well: nobody is left behind.
TEST(PipelineThreads, AFailureOnOneRankEndsAll) {
  class Failing final : public StageRunner {
   public:
    std::size_t message_bytes(MicroBatch) const override { return 1; }
    MessageBytes forward(MicroBatch m, MessageBytes) override {
      if (m.chunk == 3) throw ShapeError("no such token");  // within a pair on the middle ranks
      return MessageBytes(1);
    }
    MessageBytes backward_input(MicroBatch, MessageBytes) override { return MessageBytes(1); }
    MessageBytes backward(MicroBatch, MessageBytes) override { return MessageBytes(1); }
    void backward_weight(MicroBatch) override {}
  };
  for (const bool strands : {false, true}) {
    const Schedule schedule = make_schedule(ScheduleKind::DualPipe, 4, 8);
    std::string error;
    try {
      run_ranks(4, [&](Communicator& c) {
        Failing failing;
        Baton baton;
        run_pipeline(schedule, c, failing, {nullptr, strands ? &baton : nullptr});
      });
    } catch (const Error& e) {  // of the rank that failed, or of one that was told why
      error = e.what();
    }
    EXPECT_NE(error.find("no such token"), std::string::npos) << error;
  }
}

TEST(Pipeline, HoldersOfAStageAreInTheOrderOfTheirMicroBatches) {
  const Schedule dual = make_schedule(ScheduleKind::DualPipe, 4, 8);
  EXPECT_EQ(holders_of(dual, 1), (std::vector<StageHolder>{{1, 0}, {2, 1}}));
  EXPECT_EQ(index_of(dual, {0, 3}), 3);
  EXPECT_EQ(index_of(dual, {1, 0}), 4);
  const Schedule v = make_schedule(ScheduleKind::DualPipeV, 2, 4);
  EXPECT_EQ(holders_of(v, 3), (std::vector<StageHolder>{{0, 1}}));
  EXPECT_EQ(index_of(v, {1, 2}), 2);
}

// A stage that takes its time without taking a core.
class SleepingRunner final : public StageRunner {
 public:
  using Unit = std::chrono::duration<double>;
  struct Times {
    Unit f, b, w;
  };
  SleepingRunner(const Schedule& schedule, int rank, const Times& times)
      : schedule_(schedule), rank_(rank), times_(times) {}
  std::size_t message_bytes(MicroBatch) const override { return 1; }
  MessageBytes forward(MicroBatch m, MessageBytes) override {
    std::this_thread::sleep_for(times_.f);
    return MessageBytes(schedule_.stage(rank_, m.phase) + 1 < schedule_.n_stages() ? 1 : 0);
  }
  MessageBytes backward_input(MicroBatch m, MessageBytes) override {
    return slept(m, times_.b - times_.w);
  }
  MessageBytes backward(MicroBatch m, MessageBytes) override { return slept(m, times_.b); }
  void backward_weight(MicroBatch) override { std::this_thread::sleep_for(times_.w); }

 private:
  MessageBytes slept(MicroBatch m, Unit time) const {
    std::this_thread::sleep_for(time);
    return MessageBytes(schedule_.stage(rank_, m.phase) > 0 ? 1 : 0);
  }
  const Schedule& schedule_;
  const int rank_;
  const Times times_;
};

// Mean over ranks of what is idle of the step, in seconds.
double measured_bubble(const Schedule& schedule, const SleepingRunner::Times& times) {
  std::vector<std::vector<TimelineEvent>> events(static_cast<std::size_t>(schedule.n_ranks));
  const Timeline::Clock::time_point origin = Timeline::Clock::now();
  run_ranks(schedule.n_ranks, [&](Communicator& c) {
    SleepingRunner runner(schedule, c.rank(), times);
    Timeline timeline(origin);
    c.barrier();
    run_pipeline(schedule, c, runner, {&timeline});
    events[static_cast<std::size_t>(c.rank())] = timeline.events();
  });
  double sum = 0;
  for (const TimelineShares& shares : shares_of(events)) sum += shares.idle();
  return sum / schedule.n_ranks;
}

// Against the formulas of the report's Table 2. Other work on the machine wakes sleepers late, by a
// time that does not grow with the sleep and is no fault of the executor: the test takes the first
// of five tries, each with longer sleeps, that is within 5 %, and prints all of them.
TEST(PipelineTimed, TheBubbleIsThatOfTheFormula) {
  const nlohmann::json rows = nlohmann::json::parse(
      read_file(std::filesystem::path(MINKE_GOLDEN_DIR) / "dualpipe" / "bubbles.json"));
  int checked = 0;
  for (const nlohmann::json& row : rows.at("rows")) {
    const ScheduleKind kind = parse_schedule_kind(row.at("schedule"));
    const int ranks = row.at("num_ranks"), chunks = row.at("num_chunks");
    const double F = row.at("F"), B = row.at("B"), W = row.at("W");
    const bool few = chunks == (has_two_phases(kind) ? 2 * ranks : 10);
    const bool folded = kind == ScheduleKind::DualPipeV;
    if (F != 2 || B != 3 || W != 1 || row.at("FB") != F + B || ranks != (folded ? 2 : 4) || !few)
      continue;
    ++checked;
    const Schedule schedule = make_schedule(kind, ranks, chunks);
    double formula = 0, bubble = 0;
    for (int attempt = 1; attempt <= 5; ++attempt) {
      const double unit = 0.01 * attempt;  // seconds
      formula = unit * row.at("formula_bubble").get<double>();
      bubble =
          measured_bubble(schedule, {SleepingRunner::Unit(F * unit), SleepingRunner::Unit(B * unit),
                                     SleepingRunner::Unit(W * unit)});
      std::printf("%s %dx%d, try %d: a bubble of %.1f ms, by the formula %.1f ms\n",
                  std::string(name_of(kind)).c_str(), ranks, chunks, attempt, 1e3 * bubble,
                  1e3 * formula);
      if (std::abs(bubble - formula) <= 0.05 * formula) break;
    }
    EXPECT_NEAR(bubble, formula, 0.05 * formula) << name_of(kind);
  }
  EXPECT_EQ(checked, 4);
}

}  // namespace
}  // namespace minke
