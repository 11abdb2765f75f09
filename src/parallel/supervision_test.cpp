#include "parallel/supervision.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

#include "parallel/job_status.h"

namespace minke {
namespace {

const std::vector<HostSlots> kHosts = {{"a", 2}, {"b", 2}};

// What happens at each start, and what the supervisor did.
class ScriptedJob final : public SupervisedJob {
 public:
  struct Start {
    int status;
    std::int64_t newest = -1;            // checkpoint that it leaves
    std::vector<std::string> lost = {};  // hosts that do not answer after it
    bool asked_to_stop = false;
  };
  using Starts = std::vector<Start>;
  explicit ScriptedJob(Starts starts) : starts_(starts.begin(), starts.end()) {}

  int run(const JobShape& shape, bool again) override {
    EXPECT_EQ(again, !shapes.empty());
    shapes.push_back(shape);
    EXPECT_FALSE(starts_.empty()) << "started too often";
    if (starts_.empty()) return 0;
    now_ = starts_.front();
    starts_.pop_front();
    return now_.status;
  }
  bool stop_requested() const override { return now_.asked_to_stop; }
  void pause(std::chrono::seconds seconds) override {
    pauses.push_back(static_cast<int>(seconds.count()));
    if (pauses.size() == stop_in_pause) now_.asked_to_stop = true;
  }
  std::vector<HostSlots> answering(const std::vector<HostSlots>& hosts) override {
    std::vector<HostSlots> here;
    for (const HostSlots& host : hosts)
      if (std::find(now_.lost.begin(), now_.lost.end(), host.host) == now_.lost.end())
        here.push_back(host);
    return here;
  }
  bool can_run_on(int ranks) const override { return 4 % ranks == 0; }
  std::int64_t newest_checkpoint() const override { return now_.newest; }
  std::string checkpoint_name(std::int64_t step) const override {
    return "step-" + std::to_string(step);
  }
  void say(std::string_view line) override { said.emplace_back(line); }

  std::vector<JobShape> shapes;
  std::vector<int> pauses;
  std::vector<std::string> said;
  std::size_t stop_in_pause = 0;  // the one in which the user asks, from 1

 private:
  std::deque<Start> starts_;
  Start now_{};
};

using Starts = ScriptedJob::Starts;

TEST(Supervision, WhatIsDoneOrRefusedEnds) {
  for (const int status : {0, 1, 2, 130}) {
    ScriptedJob job(Starts{{status}});
    EXPECT_EQ(supervise(job, {.shape = {.ranks = 4}}), status);
    EXPECT_TRUE(job.said.empty());
  }
}

TEST(Supervision, AFailureGoesOnFromTheNewestCheckpoint) {
  ScriptedJob job({{137, 40}, {75, 40}, {0, 100}});
  EXPECT_EQ(supervise(job, {.shape = {.ranks = 4}}), 0);
  EXPECT_EQ(job.said,
            (std::vector<std::string>{
                "a process was ended by signal 9 (Killed); going on from step-40 with 4 ranks in 1 "
                "s (restart 1 of 3 without a new checkpoint)",
                "a rank waited for another one in vain; going on from step-40 with 4 ranks in 2 s "
                "(restart 2 of 3 without a new checkpoint)"}));
}

TEST(Supervision, OneRankIsNotSeveral) {
  ScriptedJob job({{137}, {0, 10}});
  EXPECT_EQ(supervise(job, {.shape = {.ranks = 1}}), 0);
  EXPECT_EQ(
      job.said.front(),
      "a process was ended by signal 9 (Killed); going on from the beginning with 1 rank in 1 "
      "s (restart 1 of 3 without a new checkpoint)");
}

TEST(Supervision, RestartsAreCountedSinceTheLastCheckpoint) {
  ScriptedJob job({{137}, {137}, {137, 10}, {137, 10}, {137, 20}, {137, 20}, {137, 20}});
  EXPECT_EQ(supervise(job, {.shape = {.ranks = 2}, .restarts = 2}), 137);
  EXPECT_EQ(job.pauses, (std::vector<int>{1, 2, 1, 2, 1, 2}));
  EXPECT_EQ(job.said.back(),
            "a process was ended by signal 9 (Killed); given up after 2 restarts without a new "
            "checkpoint; the same command goes on from step-20");
  ScriptedJob once(Starts{{139}});
  EXPECT_EQ(supervise(once, {.shape = {.ranks = 2}, .restarts = 0}), 139);
}

TEST(Supervision, PausesGrowToAMinute) {
  ScriptedJob job(Starts(10, {137}));
  EXPECT_EQ(supervise(job, {.shape = {.ranks = 2}, .restarts = 9}), 137);
  EXPECT_EQ(job.pauses, (std::vector<int>{1, 2, 4, 8, 16, 32, 60, 60, 60}));
}

TEST(Supervision, AStopIsNotFollowedByAStart) {
  // Also when the job ends badly upon it, and when it was done all the same.
  ScriptedJob ended({{.status = 137, .asked_to_stop = true}});
  EXPECT_EQ(supervise(ended, {.shape = {.ranks = 2}}), 130);
  ScriptedJob done({{.status = 0, .asked_to_stop = true}});
  EXPECT_EQ(supervise(done, {.shape = {.ranks = 2}}), 0);
  ScriptedJob pausing({{137}, {137}});
  pausing.stop_in_pause = 2;
  EXPECT_EQ(supervise(pausing, {.shape = {.ranks = 2}}), 130);
  EXPECT_EQ(pausing.shapes.size(), 2u);
}

TEST(Supervision, LostHostsAreLeftOutWhereFewerRanksAreAllowed) {
  // 3 slots are left, but the job can run on 4, 2 or 1 ranks; later all hosts are back.
  const std::vector<HostSlots> hosts = {{"a", 2}, {"b", 1}, {"c", 1}};
  ScriptedJob job({{205, 10, {"c"}}, {75, 20, {"b", "c"}}, {137, 30}, {0, 40}});
  EXPECT_EQ(supervise(job, {.shape = {.ranks = 4, .hosts = hosts}, .least_ranks = 2}), 0);
  ASSERT_EQ(job.shapes.size(), 4u);
  EXPECT_EQ(job.shapes[1], (JobShape{2, {{"a", 2}, {"b", 1}}}));
  EXPECT_EQ(job.shapes[2], (JobShape{2, {{"a", 2}}}));
  EXPECT_EQ(job.shapes[3], (JobShape{4, hosts}));
  EXPECT_EQ(job.said.front(),
            "c did not answer (a host was lost (mpirun's status 205)); going on from step-10 with "
            "2 ranks instead of 4 in 1 s (restart 1 of 3 without a new checkpoint)");
}

TEST(Supervision, TooFewRanksWaitForTheHostsToComeBack) {
  const JobShape whole{4, kHosts};
  ScriptedJob job({{205, 10, {"b"}}, {1, 10, {"b"}}, {1, 10, {"b"}}, {0, 40}});
  EXPECT_EQ(supervise(job, {.shape = whole}), 0);
  EXPECT_EQ(job.shapes, std::vector<JobShape>(4, whole));
  // mpirun says 1 when it cannot start on a host, and so does minke of an error.
  ScriptedJob error({{1, 10, {"b"}}, {1, 10}});
  EXPECT_EQ(supervise(error, {.shape = whole}), 1);
  EXPECT_EQ(error.shapes.size(), 2u);
}

}  // namespace
}  // namespace minke
