#include "base/child_process.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <thread>

#include "base/test_directory.h"

namespace minke {
namespace {

using std::chrono::milliseconds;

int end_of(ChildProcess& child) {
  for (int i = 0; i < 3000; ++i) {
    if (const auto status = child.status()) return *status;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return -1;
}

int end_of_shell(const std::string& script) {
  ChildProcess child({"sh", "-c", script});
  return end_of(child);
}

TEST(ChildProcess, HasTheStatusOfAShell) {
  EXPECT_EQ(end_of_shell("exit 0"), 0);
  EXPECT_EQ(end_of_shell("exit 75"), 75);
  EXPECT_EQ(end_of_shell("kill -9 $$"), 137);
}

TEST(ChildProcess, ReadsNothingAndKeepsArguments) {
  EXPECT_EQ(end_of_shell("read line || exit 3"), 3);
  ChildProcess child({"test", "a  b", "=", "a  b"});
  EXPECT_EQ(end_of(child), 0);
}

TEST(ChildProcess, DropsItsOutput) {
  testing::internal::CaptureStdout();
  ChildProcess dropped({"sh", "-c", "echo dropped"}, ChildProcess::Output::Dropped);
  EXPECT_EQ(end_of(dropped), 0);
  ChildProcess shared({"sh", "-c", "echo shared"});
  EXPECT_EQ(end_of(shared), 0);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "shared\n");
}

struct ChildProcessSignals : TestDirectory {};

TEST_F(ChildProcessSignals, Arrive) {
  const std::string ready = dir / "ready";
  ChildProcess child(
      {"sh", "-c", "trap 'exit 5' USR2; : > \"$0\"; while :; do sleep 0.01; done", ready});
  while (!std::filesystem::exists(ready)) std::this_thread::sleep_for(milliseconds(10));
  EXPECT_EQ(child.status(), std::nullopt);
  child.signal(SIGUSR2);
  EXPECT_EQ(end_of(child), 5);
  child.signal(SIGUSR2);  // it has ended: nobody gets it
}

TEST(ChildProcess, IsEndedWithWhatItStarted) {
  const auto begun = std::chrono::steady_clock::now();
  ChildProcess child({"sh", "-c", "sleep 60 & wait"});
  child.kill();
  EXPECT_EQ(child.status(), 137);
  { ChildProcess forgotten({"sleep", "60"}); }
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(30));
}

TEST(ChildProcess, EndsWithTheThreadThatStartedIt) {
  std::unique_ptr<ChildProcess> child;
  std::thread([&] {
    child = std::make_unique<ChildProcess>(std::vector<std::string>{"sleep", "60"});
  }).join();
  EXPECT_EQ(end_of(*child), 128 + SIGTERM);
}

TEST(ChildProcess, SaysWhatIsMissing) {
  EXPECT_EQ(error_of([] { ChildProcess child({"minke-no-such-program"}); }),
            "cannot start minke-no-such-program: No such file or directory");
}

}  // namespace
}  // namespace minke
