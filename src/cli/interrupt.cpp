#include "cli/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <iterator>

namespace minke {
namespace {

std::atomic<int> requests{0};  // a handler has no other way to speak
constexpr int kSignals[] = {SIGINT, SIGTERM, SIGUSR2};
struct sigaction previous[std::size(kSignals)];

void on_signal(int) {
  if (requests.fetch_add(1) > 0) _exit(130);
}

std::atomic<bool> asked{false};
struct sigaction before_ask;

void on_ask(int) {
  asked = true;
}

}  // namespace

InterruptScope::InterruptScope() {
  requests = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = 0;  // reading a line from the terminal ends
  for (std::size_t i = 0; i < std::size(kSignals); ++i)
    sigaction(kSignals[i], &action, &previous[i]);
}

InterruptScope::~InterruptScope() {
  for (std::size_t i = 0; i < std::size(kSignals); ++i)
    sigaction(kSignals[i], &previous[i], nullptr);
}

bool InterruptScope::requested() const {
  return requests.load() > 0;
}

void InterruptScope::forget() {
  requests = 0;
}

AskScope::AskScope() {
  asked = false;
  struct sigaction action {};
  action.sa_handler = on_ask;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, &before_ask);
}

AskScope::~AskScope() {
  sigaction(SIGUSR1, &before_ask, nullptr);
}

bool AskScope::take() {
  return asked.exchange(false);
}

}  // namespace minke
