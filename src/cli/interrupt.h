// Ctrl-C (also SIGTERM, and SIGUSR2, which mpirun passes on to every rank) as a request: the first
// is noted for the work to end by itself, the second ends the process at once with status 130.
#pragma once

namespace minke {

// One at a time; the handlers that were there come back afterwards.
class InterruptScope {
 public:
  InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;
  ~InterruptScope();

  bool requested() const;
  void forget();  // the request has been served
};

// SIGUSR1 as a question that the work answers when it can: for a checkpoint. One at a time, too.
class AskScope {
 public:
  AskScope();
  AskScope(const AskScope&) = delete;
  AskScope& operator=(const AskScope&) = delete;
  ~AskScope();

  bool take();  // whether there was one since the last call
};

}  // namespace minke
