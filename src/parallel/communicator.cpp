#include "parallel/communicator.h"

#include <algorithm>
#include <thread>

namespace minke {
namespace {

constexpr std::chrono::microseconds kAwake{200};  // of a wait, before the rank sleeps
constexpr std::chrono::microseconds kLongestNap{2000};

}  // namespace

void PendingMessage::wait_idle() {
  const auto begin = std::chrono::steady_clock::now();
  while (!test()) {
    const auto waited = std::chrono::duration_cast<std::chrono::microseconds>(
        std::chrono::steady_clock::now() - begin);
    if (waited < kAwake)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(std::min(waited / 16, kLongestNap));
  }
}

void wait(Request& request) {
  if (request) request->wait();
}

void wait_all(std::span<Request> requests) {
  for (Request& request : requests) wait(request);
}

}  // namespace minke
