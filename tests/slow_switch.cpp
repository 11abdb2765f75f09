// An Ethernet switch between emulated hosts, with a latency and a rate, for kernels without netem:
//
//   slow_switch PREFIX HOSTS LATENCY_US MBIT
//
// makes the TAP devices PREFIX0 .. PREFIX(HOSTS-1), one to be moved into each host, and says
// "ready" (tests/emulated_hosts.py). A frame reaches its host LATENCY_US after that host's link of
// MBIT per second has carried it. A link with more than kQueueBytes waiting drops frames, as
// switches do.
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Address = std::array<char, 6>;

constexpr std::size_t kQueueBytes = 1 << 20;
constexpr std::size_t kLongestFrame = 65536 + 64;
constexpr int kFramesAtOnce = 32;  // of one host before the others are looked at

struct Frame {
  Clock::time_point arrives;
  std::string bytes;
};

struct Link {
  int tap = -1;
  Clock::time_point free_at{};
  std::deque<Frame> frames;
};

int open_tap(const std::string& name) {
  const int tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  ifreq request{};
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  if (tap >= 0 && ioctl(tap, TUNSETIFF, &request) == 0) return tap;
  std::perror(("slow_switch: " + name).c_str());
  std::exit(1);
}

Address address_at(const char* bytes) {
  Address address;
  std::memcpy(address.data(), bytes, address.size());
  return address;
}

class Switch {
 public:
  Switch(const std::string& prefix, int n_hosts, std::chrono::microseconds latency, double mbit)
      : latency_(latency), bytes_per_s_(mbit * 1e6 / 8), links_(static_cast<std::size_t>(n_hosts)) {
    for (std::size_t i = 0; i < links_.size(); ++i)
      links_[i].tap = open_tap(prefix + std::to_string(i));
  }

  [[noreturn]] void run() {
    std::vector<pollfd> looks;
    for (const Link& link : links_) looks.push_back({link.tap, POLLIN, 0});
    for (;;) {
      const std::chrono::nanoseconds wait = deliver();
      const timespec timeout{wait.count() / 1'000'000'000, wait.count() % 1'000'000'000};
      ppoll(looks.data(), looks.size(), &timeout, nullptr);
      for (std::size_t i = 0; i < links_.size(); ++i)
        if (looks[i].revents & POLLIN) take_from(i);
    }
  }

 private:
  // What is due -> until the next frame is. A host that is down or full loses its frame.
  std::chrono::nanoseconds deliver() {
    const Clock::time_point now = Clock::now();
    Clock::time_point next = now + std::chrono::seconds(1);
    for (Link& link : links_) {
      while (!link.frames.empty() && link.frames.front().arrives <= now) {
        const std::string& bytes = link.frames.front().bytes;
        [[maybe_unused]] const ssize_t written = write(link.tap, bytes.data(), bytes.size());
        link.frames.pop_front();
      }
      if (!link.frames.empty()) next = std::min(next, link.frames.front().arrives);
    }
    return std::max(next - Clock::now(), Clock::duration::zero());
  }

  void take_from(std::size_t host) {
    for (int i = 0; i < kFramesAtOnce; ++i) {
      const ssize_t n = read(links_[host].tap, frame_.data(), frame_.size());
      if (n < 14) return;  // none, or less than a header
      const std::string bytes(frame_.data(), static_cast<std::size_t>(n));
      seen_[address_at(frame_.data() + 6)] = host;
      const auto to = seen_.find(address_at(frame_.data()));
      for (std::size_t h = 0; h < links_.size(); ++h)
        if (h != host && (to == seen_.end() || to->second == h)) carry(links_[h], bytes);
    }
  }

  void carry(Link& link, const std::string& bytes) {
    const Clock::time_point now = Clock::now(), start = std::max(now, link.free_at);
    const std::chrono::duration<double> waits = start - now;
    if (waits.count() * bytes_per_s_ > kQueueBytes) return;
    const std::chrono::duration<double> takes(static_cast<double>(bytes.size()) / bytes_per_s_);
    link.free_at = start + std::chrono::duration_cast<Clock::duration>(takes);
    link.frames.push_back({link.free_at + latency_, bytes});
  }

  const std::chrono::microseconds latency_;
  const double bytes_per_s_;
  std::vector<Link> links_;
  std::map<Address, std::size_t> seen_;  // where frames from an address came in
  std::array<char, kLongestFrame> frame_{};
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fputs("usage: slow_switch PREFIX HOSTS LATENCY_US MBIT\n", stderr);
    return 2;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // without its hosts it would spin on devices that are gone
  Switch hosts(argv[1], std::atoi(argv[2]), std::chrono::microseconds(std::atoi(argv[3])),
               std::atof(argv[4]));
  std::puts("ready");
  std::fflush(stdout);
  hosts.run();
}
