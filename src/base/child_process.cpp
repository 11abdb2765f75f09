#include "base/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"

namespace minke {
namespace {

constexpr int kNotStarted = 127;

// Between fork and exec, where only calls that a signal handler may make are allowed. Writes errno
// to `problem` when the program cannot be started.
[[noreturn]] void become(char* const* arguments, ChildProcess::Output output, pid_t parent,
                         int problem) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(kNotStarted);  // it ended before the call above
  const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
  dup2(nothing, STDIN_FILENO);
  if (output == ChildProcess::Output::Dropped) {
    dup2(nothing, STDOUT_FILENO);
    dup2(nothing, STDERR_FILENO);
  }
  execvp(arguments[0], arguments);
  const int error = errno;
  [[maybe_unused]] const auto written = write(problem, &error, sizeof error);
  _exit(kNotStarted);
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& command, Output output) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  int problem[2];  // closed by a successful exec
  if (pipe2(problem, O_CLOEXEC) != 0) throw_io_error("cannot start " + command[0], errno);
  const pid_t parent = getpid();
  id_ = fork();
  if (id_ == 0) become(arguments.data(), output, parent, problem[1]);
  int error = id_ < 0 ? errno : 0;
  ::close(problem[1]);
  if (id_ > 0) {
    setpgid(id_, id_);  // as the program itself does; whoever comes first
    int from_child = 0;
    ssize_t got = 0;
    while ((got = read(problem[0], &from_child, sizeof from_child)) < 0 && errno == EINTR) {
    }
    if (got == sizeof from_child) error = from_child;
  }
  ::close(problem[0]);
  if (error == 0) return;
  if (id_ > 0) kill();
  throw_io_error("cannot start " + command[0], error);
}

ChildProcess::~ChildProcess() {
  kill();
}

std::optional<int> ChildProcess::status() {
  int how = 0;
  if (!status_ && waitpid(id_, &how, WNOHANG) == id_)
    status_ = WIFSIGNALED(how) ? 128 + WTERMSIG(how) : WEXITSTATUS(how);
  return status_;
}

void ChildProcess::signal(int number) {
  if (!status()) ::kill(id_, number);
}

void ChildProcess::kill() {
  if (status()) return;
  ::kill(-id_, SIGKILL);
  int how = 0;
  while (waitpid(id_, &how, 0) < 0 && errno == EINTR) {
  }
  status_ = 128 + SIGKILL;
}

}  // namespace minke
