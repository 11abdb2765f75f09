// How long a wait has lasted while this process ran: of the time between two looks no more than
// kMostOfALook counts. A rank that was stopped (SIGSTOP, Ctrl-Z, a debugger) and goes on does not
// find that the others are late.
#pragma once
#include <algorithm>
#include <chrono>

namespace minke {

class WaitedTime {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kMostOfALook{100};

  explicit WaitedTime(Clock::time_point begin = Clock::now()) : last_(begin) {}

  // To be called more often than every kMostOfALook.
  Clock::duration look(Clock::time_point now = Clock::now()) {
    waited_ += std::min<Clock::duration>(now - last_, kMostOfALook);
    last_ = now;
    return waited_;
  }

  // Waits for `changed` until `done()`, under `lock`; false where the bound was reached before.
  template <class Condition, class Lock, class Done>
  static bool wait(Condition& changed, Lock& lock, std::chrono::milliseconds bound, Done done) {
    WaitedTime waited;
    for (Clock::duration so_far{0}; so_far < bound; so_far = waited.look())
      if (changed.wait_for(lock, std::min<Clock::duration>(bound - so_far, kMostOfALook / 2), done))
        return true;
    return done();
  }

 private:
  Clock::time_point last_;
  Clock::duration waited_{0};
};

}  // namespace minke
