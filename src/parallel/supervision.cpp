#include "parallel/supervision.h"

#include <fmt/format.h>

#include <algorithm>

#include "parallel/job_status.h"

namespace minke {
namespace {

std::string names_of(const std::vector<HostSlots>& hosts) {
  std::string text;
  for (const HostSlots& host : hosts) text += (text.empty() ? "" : ", ") + host.host;
  return text;
}

class Supervisor {
 public:
  Supervisor(SupervisedJob& job, const Supervision& supervision)
      : job_(job),
        settings_(supervision),
        least_ranks_(supervision.least_ranks > 0 ? supervision.least_ranks
                                                 : supervision.shape.ranks),
        newest_(job.newest_checkpoint()) {}

  int run() {
    JobShape shape = settings_.shape;
    for (bool again = false;; again = true) {
      const int status = job_.run(shape, again);
      const JobEnd end = end_of(status);
      if (job_.stop_requested()) return stopped(status);
      if (end == JobEnd::Done || end == JobEnd::Stopped) return status;
      const std::vector<HostSlots> lost = lost_hosts();
      if (end == JobEnd::Refused && lost.empty()) return status;  // the job has said why
      const std::string what =
          lost.empty() ? words_of_status(status)
                       : names_of(lost) + " did not answer (" + words_of_status(status) + ")";
      count_restart();
      if (in_vain_ > settings_.restarts) {
        job_.say(fmt::format("{}; given up after {} restarts without a new checkpoint{}", what,
                             settings_.restarts, place_to_go_on()));
        return status;
      }
      shape = shape_without(lost);
      announce(what, shape);
      job_.pause(pause());
      if (job_.stop_requested()) return stopped(status);
    }
  }

 private:
  // A job that left a checkpoint has said so.
  int stopped(int status) {
    if (end_of(status) == JobEnd::Failed) {
      newest_ = job_.newest_checkpoint();
      job_.say("stopped" + place_to_go_on());
    }
    return end_of(status) == JobEnd::Done ? status : kInterruptedStatus;
  }

  std::vector<HostSlots> lost_hosts() {
    std::vector<HostSlots> lost;
    if (settings_.shape.hosts.empty()) return lost;
    const std::vector<HostSlots> here = job_.answering(settings_.shape.hosts);
    for (const HostSlots& host : settings_.shape.hosts)
      if (std::find(here.begin(), here.end(), host) == here.end()) lost.push_back(host);
    return lost;
  }

  void count_restart() {
    const std::int64_t newest = job_.newest_checkpoint();
    in_vain_ = newest > newest_ ? 1 : in_vain_ + 1;
    newest_ = newest;
  }

  // On the hosts that are left as many ranks as they have slots and the job can run on. All hosts
  // again where that is too few: they may come back.
  JobShape shape_without(const std::vector<HostSlots>& lost) const {
    if (lost.empty()) return settings_.shape;
    JobShape shape;
    for (const HostSlots& host : settings_.shape.hosts)
      if (std::find(lost.begin(), lost.end(), host) == lost.end()) shape.hosts.push_back(host);
    const int most = std::min(settings_.shape.ranks, total_slots(shape.hosts));
    for (shape.ranks = most; shape.ranks >= least_ranks_ && shape.ranks > 0; --shape.ranks)
      if (job_.can_run_on(shape.ranks)) return shape;
    return settings_.shape;
  }

  std::string place_to_go_on() const {
    return newest_ < 0 ? "" : "; the same command goes on from " + job_.checkpoint_name(newest_);
  }

  void announce(const std::string& what, const JobShape& shape) {
    const std::string from =
        newest_ < 0 ? "from the beginning" : "from " + job_.checkpoint_name(newest_);
    std::string ranks = fmt::format("{} {}", shape.ranks, shape.ranks == 1 ? "rank" : "ranks");
    if (shape.ranks != settings_.shape.ranks)
      ranks += fmt::format(" instead of {}", settings_.shape.ranks);
    job_.say(
        fmt::format("{}; going on {} with {} in {} s (restart {} of {} without a new "
                    "checkpoint)",
                    what, from, ranks, pause().count(), in_vain_, settings_.restarts));
  }

  std::chrono::seconds pause() const {
    return std::chrono::seconds(std::min(60, 1 << std::min(in_vain_ - 1, 6)));
  }

  SupervisedJob& job_;
  const Supervision& settings_;
  const int least_ranks_;
  std::int64_t newest_;  // checkpoint
  int in_vain_ = 0;      // restarts since then
};

}  // namespace

int supervise(SupervisedJob& job, const Supervision& supervision) {
  return Supervisor(job, supervision).run();
}

}  // namespace minke
