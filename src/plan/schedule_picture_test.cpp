#include "plan/schedule_picture.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace minke {
namespace {

const UnitTimes kTimes{1, 2, 1, 2.5};
const auto kComputeTime = [](int, const ScheduleOp& op) { return unit_time(kTimes, op); };

TEST(SchedulePicture, TimelineHoldsEveryOperation) {
  const Schedule s = make_schedule(ScheduleKind::DualPipe, 4, 10);
  const Simulation sim = Simulator(s).run(kTimes);
  const page::Timeline t = schedule_timeline({s, sim, "title", "", "time", 0, kComputeTime});
  ASSERT_EQ(t.rows.size(), 4u);
  for (std::size_t rank = 0; rank < 4; ++rank) {
    std::size_t expected = 0;
    for (const ScheduleOp& op : s.ranks[rank])
      expected += op.kind == OpKind::FB ? 2 : op.kind == OpKind::Comm ? 0 : 1;
    EXPECT_EQ(t.rows[rank].spans.size(), expected);
    double covered = 0;
    for (const page::Span& span : t.rows[rank].spans)
      covered += (span.end - span.begin) * (span.part == page::Span::Part::Whole ? 1 : 0.5);
    EXPECT_NEAR(covered, sim.of(static_cast<int>(rank)).busy(), 1e-9);
  }
}

TEST(SchedulePicture, ExchangesAndMessagesAreDrawnApart) {
  const Schedule s = make_schedule(ScheduleKind::OneFOneB, 2, 1);
  const Simulation sim = Simulator(s).run({.messages = Messages::Blocking, .message_time = 0.5},
                                          [](int, const ScheduleOp& op, std::span<OpTime> t) {
                                            t[0] = {unit_time(kTimes, op), 0.25, 0};
                                            return 1;
                                          });
  const page::Timeline t = schedule_timeline({s, sim, "", "", "time", 0.5, kComputeTime});
  // F and its exchange, messages out and in at once, B and its exchange.
  ASSERT_EQ(t.rows[0].spans.size(), 5u);
  const std::size_t exchange = t.styles.size() - 1;
  EXPECT_EQ(t.rows[0].spans[0].end, 1);
  EXPECT_EQ(t.rows[0].spans[1].style, exchange);
  EXPECT_EQ(t.rows[0].spans[1].end, 1.25);
  EXPECT_EQ(t.rows[0].spans[2].style, exchange);
  EXPECT_NEAR(t.rows[0].spans[2].end - t.rows[0].spans[2].begin, 0.5, 1e-12);
}

TEST(SchedulePicture, TraceIsJsonWithASpanForEachOperation) {
  const Schedule s = make_schedule(ScheduleKind::DualPipeV, 2, 4);
  const Simulation sim = Simulator(s).run(kTimes);
  std::string text;
  write_schedule_trace({s, sim, "title", "", "time", 0, kComputeTime}, 1000,
                       [&](std::string_view piece) { text += piece; });
  std::size_t spans = 0, expected = 0;
  double last = 0;
  const auto json = nlohmann::json::parse(text);
  for (const auto& event : json["traceEvents"]) {
    if (event["ph"] != "X") continue;
    ++spans;
    last = std::max(last, event["ts"].get<double>() + event["dur"].get<double>());
  }
  for (const auto& ops : s.ranks)
    for (const ScheduleOp& op : ops) expected += op.kind != OpKind::Comm;
  EXPECT_EQ(spans, expected);
  EXPECT_NEAR(last, sim.makespan * 1000, 1e-3);
}

TEST(SchedulePicture, TextInWholeUnits) {
  const Schedule s = make_schedule(ScheduleKind::OneFOneB, 2, 2);
  const Simulation sim = Simulator(s).run(kTimes);
  const PictureSource source{s, sim, "", "", "time", 0, kComputeTime};
  EXPECT_EQ(schedule_text(source, 9),
            "0 |FF..BB.BB|\n"
            "1 |.FBBFBB..|\n");
  EXPECT_EQ(schedule_text(source, 17), schedule_text(source, 9));
  EXPECT_EQ(schedule_text(source, 5).size(), 2 * (3 + 5 + 2));
}

}  // namespace
}  // namespace minke
