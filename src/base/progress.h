// How far a long job is: one line on stderr with count, rate and time left.
//
//   train  120/400 steps  30%  4.1 steps/s  1:08 left  loss 3.412
//
// On a terminal the line is rewritten in place, at most ten times a second. Elsewhere (a file, a
// pipe) a plain line comes every `plain_every_s` seconds and one at the end.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace minke {

struct ProgressOptions {
  std::string label;       // "train"
  std::string unit;        // "steps"; "bytes" are shown as KB, MB, GB
  std::int64_t total = 0;  // 0: not known
  std::int64_t start = 0;  // items done before this run: not counted in the rate
  double plain_every_s = 10;
};

class Progress {
 public:
  explicit Progress(ProgressOptions options);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  // as finish()

  // `done` items of the total are done, counted from the beginning of the job, not of this run.
  void update(std::int64_t done, std::string_view suffix = {});

  // Shows the last state and leaves the line.
  void finish();

  // The line without a look at the clock; used by update() and by tests.
  static std::string line(const ProgressOptions& options, std::int64_t done, double elapsed_s,
                          std::string_view suffix);

 private:
  using Clock = std::chrono::steady_clock;
  void show(Clock::time_point now);

  ProgressOptions options_;
  Clock::time_point begin_, last_shown_;
  std::int64_t done_;
  std::string suffix_;
  bool shown_ = false;  // whether the last state has been shown
  bool finished_ = false;
};

// 5 -> "0:05", 3725 -> "1:02:05".
std::string format_duration(double seconds);

}  // namespace minke
