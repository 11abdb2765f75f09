#include "parallel/schedule.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "base/error.h"
#include "base/files.h"
#include "parallel/schedule_json.h"

namespace minke {
namespace {

using nlohmann::json;

json as_json(const Schedule& schedule) {
  std::string text;
  write_schedule_json(schedule, nlohmann::ordered_json::object(),
                      [&](std::string_view piece) { text += piece; });
  return json::parse(text);
}

// Every size that a kind takes up to 16 ranks and `most_chunks`.
template <class Check>
void for_each_size(int most_chunks, Check check) {
  for (const ScheduleKind kind : {ScheduleKind::OneFOneB, ScheduleKind::Zb1p,
                                  ScheduleKind::DualPipe, ScheduleKind::DualPipeV})
    for (int ranks = kind == ScheduleKind::DualPipe ? 2 : 1; ranks <= 16; ++ranks) {
      if (kind == ScheduleKind::DualPipe && ranks % 2 != 0) continue;
      const bool one_phase = kind == ScheduleKind::OneFOneB || kind == ScheduleKind::Zb1p;
      const int step = kind == ScheduleKind::DualPipe ? 2 : 1;
      for (int chunks = one_phase ? 1 : 2 * ranks; chunks <= most_chunks; chunks += step) {
        SCOPED_TRACE(std::string(name_of(kind)) + " " + std::to_string(ranks) + " x " +
                     std::to_string(chunks));
        check(make_schedule(kind, ranks, chunks));
        if (::testing::Test::HasFailure()) return;
      }
    }
}

TEST(Schedule, GoldenOrdersOfThePublishedScheduler) {
  int files = 0;
  for (const auto& file :
       std::filesystem::directory_iterator(std::filesystem::path(MINKE_GOLDEN_DIR) / "dualpipe")) {
    if (file.path().filename().string().rfind("dualpipe", 0) != 0) continue;
    SCOPED_TRACE(file.path().filename().string());
    ++files;
    const json expected = json::parse(read_file(file.path()));
    const Schedule schedule = make_schedule(parse_schedule_kind(expected["schedule"]),
                                            expected["num_ranks"], expected["num_chunks"]);
    EXPECT_EQ(as_json(schedule), expected);
  }
  EXPECT_EQ(files, 6);
}

TEST(Schedule, GoldenCountsOfOperations) {
  const json bubbles =
      json::parse(read_file(std::filesystem::path(MINKE_GOLDEN_DIR) / "dualpipe" / "bubbles.json"));
  for (const json& row : bubbles["op_counts"]) {
    SCOPED_TRACE(row["schedule"].get<std::string>() + " " + row["num_ranks"].dump() + " x " +
                 row["num_chunks"].dump());
    const Schedule s =
        make_schedule(parse_schedule_kind(row["schedule"]), row["num_ranks"], row["num_chunks"]);
    json counts = json::array();
    for (const auto& ops : s.ranks) {
      json of_rank = json::object();
      for (const ScheduleOp& op : ops) {
        json& n = of_rank[std::string(name_of(op.kind))];
        n = n.is_null() ? 1 : n.get<int>() + 1;
      }
      counts.push_back(of_rank);
    }
    EXPECT_EQ(counts, row["counts_per_rank"]);
  }
}

TEST(Schedule, GoldenPeakActivations) {
  const json bubbles =
      json::parse(read_file(std::filesystem::path(MINKE_GOLDEN_DIR) / "dualpipe" / "bubbles.json"));
  int rows = 0;
  for (const json& row : bubbles["memory"]) {
    ++rows;
    SCOPED_TRACE(row["schedule"].get<std::string>() + " " + row["num_ranks"].dump());
    const Schedule s =
        make_schedule(parse_schedule_kind(row["schedule"]), row["num_ranks"], row["num_chunks"]);
    std::vector<double> until_b, until_w;
    for (const auto& ops : s.ranks) {
      until_b.push_back(peak_activations(ops, {}));
      until_w.push_back(peak_activations(ops, {.weight_work = {1, 1}}));
    }
    EXPECT_EQ(until_b, row["peak_per_rank"].get<std::vector<double>>());
    EXPECT_EQ(until_w, row["peak_per_rank_held_until_W"].get<std::vector<double>>());
  }
  EXPECT_GT(rows, 8);
}

// F before B before W, each once for every micro-batch of every rank; W takes the oldest BI.
TEST(Schedule, EveryForwardBackwardAndWeightOnce) {
  for_each_size(64, [](const Schedule& s) {
    for (const auto& ops : s.ranks) {
      std::set<std::pair<int, int>> forward, backward;
      std::vector<MicroBatch> waiting;
      std::size_t done = 0;
      int last_step = 1;
      for (const ScheduleOp& op : ops) {
        EXPECT_GE(op.step, last_step);
        last_step = op.step;
        // In a pair the backward does not need the forward beside it.
        if (op.has_backward()) {
          const MicroBatch b = op.backward;
          EXPECT_TRUE(forward.count({b.phase, b.chunk}));
          EXPECT_TRUE(backward.insert({b.phase, b.chunk}).second);
          if (op.kind == OpKind::BI) waiting.push_back(b);
        }
        if (op.has_forward()) {
          EXPECT_TRUE(forward.insert({op.forward.phase, op.forward.chunk}).second);
        }
        if (op.kind == OpKind::W) {
          ASSERT_LT(done, waiting.size());
          EXPECT_EQ(op.backward, waiting[done++]);
        }
        EXPECT_EQ(op.kind == OpKind::Comm, !op.messages.empty());
      }
      EXPECT_EQ(done, waiting.size());
      std::set<std::pair<int, int>> all;
      for (int phase = 0; phase < s.n_phases(); ++phase)
        for (int chunk = 0; chunk < s.chunks_per_phase(); ++chunk) all.insert({phase, chunk});
      EXPECT_EQ(forward, all);
      EXPECT_EQ(backward, all);
    }
  });
}

// What one rank sends another is what that one expects, in the same order; each stage gets every
// activation and gradient exactly once, before it is needed and after it was made.
TEST(Schedule, MessagesMatchBetweenPeers) {
  for_each_size(64, [](const Schedule& s) {
    using Sent = std::tuple<bool, int, int>;  // forward, phase, chunk
    std::map<std::pair<int, int>, std::vector<Sent>> sent, received;
    for (int rank = 0; rank < s.n_ranks; ++rank) {
      std::set<Sent> here, made;
      for (const ScheduleOp& op : s.ranks[static_cast<std::size_t>(rank)]) {
        for (const StageMessage& m : op.messages) {
          const bool forward = m.kind == MessageKind::SendF || m.kind == MessageKind::RecvF;
          const bool send = m.kind == MessageKind::SendF || m.kind == MessageKind::SendB;
          const Sent what{forward, m.micro_batch.phase, m.micro_batch.chunk};
          const int phase = m.micro_batch.phase;
          EXPECT_EQ(m.peer, send == forward ? s.downstream(rank, phase) : s.upstream(rank, phase));
          if (send) {
            EXPECT_TRUE(made.count(what));
            sent[{rank, m.peer}].push_back(what);
          } else {
            EXPECT_TRUE(here.insert(what).second);
            received[{m.peer, rank}].push_back(what);
          }
        }
        if (op.has_forward()) {
          const auto [phase, chunk] = op.forward;
          EXPECT_TRUE(s.upstream(rank, phase) < 0 || here.count({true, phase, chunk}));
          made.insert({true, phase, chunk});
        }
        if (op.has_backward()) {
          const auto [phase, chunk] = op.backward;
          EXPECT_TRUE(s.downstream(rank, phase) < 0 || here.count({false, phase, chunk}));
          made.insert({false, phase, chunk});
        }
      }
    }
    EXPECT_EQ(sent, received);
  });
}

TEST(Schedule, StagesAndNeighbours) {
  const Schedule dual = make_schedule(ScheduleKind::DualPipe, 4, 8);
  EXPECT_EQ(dual.stage(1, 0), 1);
  EXPECT_EQ(dual.stage(1, 1), 2);
  EXPECT_EQ(dual.upstream(0, 0), -1);
  EXPECT_EQ(dual.downstream(0, 0), 1);
  EXPECT_EQ(dual.upstream(3, 1), -1);
  EXPECT_EQ(dual.downstream(3, 1), 2);
  const Schedule v = make_schedule(ScheduleKind::DualPipeV, 4, 8);
  EXPECT_EQ(v.n_stages(), 8);
  EXPECT_EQ(v.stage(3, 0), 3);
  EXPECT_EQ(v.stage(3, 1), 4);
  EXPECT_EQ(v.stage(0, 1), 7);
}

TEST(Schedule, FormatOfRefusals) {
  const auto message = [](const std::string& kind, std::int64_t ranks, std::int64_t chunks) {
    try {
      make_schedule(parse_schedule_kind(kind), ranks, chunks);
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message("dualpipe", 5, 20),
            "ranks is 5, but dualpipe needs an even number; nearest: 4 or 6");
  EXPECT_EQ(message("dualpipe", 8, 15),
            "chunks is 15, but dualpipe needs at least 2 x 8 ranks; nearest: 16");
  EXPECT_EQ(message("dualpipe", 8, 17),
            "chunks is 17, but dualpipe needs an even number, half from each end; "
            "nearest: 16 or 18");
  EXPECT_EQ(message("dualpipe", 1, 20), "ranks is 1, but dualpipe needs at least 2; nearest: 2");
  EXPECT_EQ(message("dualpipev", 4, 7),
            "chunks is 7, but dualpipev needs at least 2 x 4 ranks; nearest: 8");
  EXPECT_EQ(message("dualpipev", 1, 2), "accepted");
  EXPECT_EQ(message("1f1b", 0, 7), "ranks is 0, but 1f1b needs at least 1; nearest: 1");
  EXPECT_EQ(message("zb1p", 4, -7), "chunks is -7, but zb1p needs at least 1; nearest: 1");
  EXPECT_EQ(message("1f1b", std::int64_t{1} << 40, 7),
            "ranks is 1099511627776, but 1f1b needs at most 16384; nearest: 16384");
  EXPECT_EQ(message("1f1b", 4, INT64_MAX),
            "chunks is 9223372036854775807, but 1f1b needs at most 524288 with 4 ranks; "
            "nearest: 524288");
  EXPECT_EQ(message("dualpipev", 1025, 1 << 20),
            "ranks is 1025, but dualpipev needs at most 1024; nearest: 1024");
  EXPECT_EQ(message("gpipe", 4, 8),
            "there is no schedule 'gpipe'; there are dualpipe, dualpipev, 1f1b and zb1p");
}

}  // namespace
}  // namespace minke
