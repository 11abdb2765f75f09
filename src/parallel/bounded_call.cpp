#include "parallel/bounded_call.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "parallel/job_status.h"
#include "parallel/waited_time.h"

namespace minke {

BoundedCall::BoundedCall(std::string rank, std::string call, std::chrono::milliseconds bound) {
  if (bound.count() <= 0) return;
  watch_ = std::thread([this, rank = std::move(rank), call = std::move(call), bound] {
    std::unique_lock lock(mutex_);
    if (WaitedTime::wait(returned_, lock, bound, [&] { return has_returned_; })) return;
    std::fputs(fmt::format("minke: {}: {} did not return within {} ms; another rank is stuck, or "
                           "the bound is too short\n",
                           rank, call, bound.count())
                   .c_str(),
               stderr);
    std::fflush(stderr);
    _exit(kRankFailureStatus);
  });
}

BoundedCall::~BoundedCall() {
  if (!watch_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    has_returned_ = true;
  }
  returned_.notify_all();
  watch_.join();
}

}  // namespace minke
