// A program that this one starts and waits for, in a process group of its own: Ctrl-C at the
// terminal reaches this process alone, which decides what to pass on. When the thread that started
// it ends, however that comes, the program gets SIGTERM. Linux alone.
#pragma once
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace minke {

class ChildProcess {
 public:
  enum class Output { Shared, Dropped };  // stdout and stderr: those of this process, or none

  // command[0] is looked for on PATH; its input is empty. IoError when it cannot be started.
  explicit ChildProcess(const std::vector<std::string>& command, Output output = Output::Shared);
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  // As kill() when it still runs.
  ~ChildProcess();

  pid_t id() const { return id_; }
  // Its exit status once it has ended, as a shell gives it: 128 + the signal that ended it.
  std::optional<int> status();
  // To the program alone, not to what it started.
  void signal(int number);
  // SIGKILL to it and to all of its group.
  void kill();

 private:
  pid_t id_ = -1;
  std::optional<int> status_;
};

}  // namespace minke
