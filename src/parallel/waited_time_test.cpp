#include "parallel/waited_time.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <csignal>
#include <mutex>
#include <thread>

namespace minke {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(WaitedTime, IsTheTimeBetweenLooks) {
  const WaitedTime::Clock::time_point begin{};
  WaitedTime waited(begin);
  EXPECT_EQ(waited.look(begin + milliseconds(40)), milliseconds(40));
  EXPECT_EQ(waited.look(begin + milliseconds(140)), milliseconds(140));
  EXPECT_EQ(waited.look(begin + milliseconds(140)), milliseconds(140));
}

TEST(WaitedTime, HasNoneOfATimeInWhichTheProcessWasStopped) {
  const WaitedTime::Clock::time_point begin{};
  WaitedTime waited(begin);
  waited.look(begin + milliseconds(50));
  EXPECT_EQ(waited.look(begin + seconds(1000)), milliseconds(150));
  EXPECT_EQ(waited.look(begin + seconds(1000) + milliseconds(50)), milliseconds(200));
}

TEST(WaitedTime, EndsAWaitForNothingByTheBound) {
  std::mutex mutex;
  std::condition_variable never;
  std::unique_lock lock(mutex);
  const auto begin = WaitedTime::Clock::now();
  EXPECT_FALSE(WaitedTime::wait(never, lock, milliseconds(120), [] { return false; }));
  EXPECT_GE(WaitedTime::Clock::now() - begin, milliseconds(120));
  EXPECT_TRUE(WaitedTime::wait(never, lock, milliseconds(0), [] { return true; }));
}

TEST(WaitedTime, EndsAWaitBySomethingThatHappens) {
  std::mutex mutex;
  std::condition_variable changed;
  bool happened = false;
  std::thread other([&] {
    std::lock_guard lock(mutex);
    happened = true;
    changed.notify_all();
  });
  {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(WaitedTime::wait(changed, lock, std::chrono::hours(1), [&] { return happened; }));
  }
  other.join();
}

// A process waits for a pipe with a bound of 1 s, is stopped for 2 s, and still gets what comes.
TEST(WaitedTime, OutlivesAStopOfTheProcess) {
  int to_child[2], from_child[2];
  ASSERT_EQ(pipe(to_child), 0);
  ASSERT_EQ(pipe(from_child), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    WaitedTime waited;
    fd_set files;
    char byte = 'r';
    if (write(from_child[1], &byte, 1) != 1) _exit(3);
    while (waited.look() < seconds(1)) {
      FD_ZERO(&files);
      FD_SET(to_child[0], &files);
      timeval nap{.tv_sec = 0, .tv_usec = 1000};
      if (select(to_child[0] + 1, &files, nullptr, nullptr, &nap) > 0) _exit(0);
    }
    _exit(1);
  }
  char byte = 0;
  ASSERT_EQ(read(from_child[0], &byte, 1), 1);
  kill(child, SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, WUNTRACED), child);
  ASSERT_TRUE(WIFSTOPPED(status));
  std::this_thread::sleep_for(seconds(2));
  kill(child, SIGCONT);
  ASSERT_EQ(write(to_child[1], "x", 1), 1);
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  for (const int file : {to_child[0], to_child[1], from_child[0], from_child[1]}) close(file);
}

}  // namespace
}  // namespace minke
