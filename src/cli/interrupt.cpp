#include "cli/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace minke {
namespace {

std::atomic<int> requests{0};  // a handler has no other way to speak
struct sigaction previous_int, previous_term;

void on_signal(int) {
  if (requests.fetch_add(1) > 0) _exit(130);
}

}  // namespace

InterruptScope::InterruptScope() {
  requests = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = 0;  // reading a line from the terminal ends
  sigaction(SIGINT, &action, &previous_int);
  sigaction(SIGTERM, &action, &previous_term);
}

InterruptScope::~InterruptScope() {
  sigaction(SIGINT, &previous_int, nullptr);
  sigaction(SIGTERM, &previous_term, nullptr);
}

bool InterruptScope::requested() const {
  return requests.load() > 0;
}

void InterruptScope::forget() {
  requests = 0;
}

}  // namespace minke
