#include "base/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/log.h"

namespace minke {
namespace {

constexpr double terminal_every_s = 0.1;

std::string format_bytes(double bytes) {
  if (bytes < 1e3) return fmt::format("{:.0f} B", bytes);
  if (bytes < 1e6) return fmt::format("{:.1f} KB", bytes / 1e3);
  if (bytes < 1e9) return fmt::format("{:.1f} MB", bytes / 1e6);
  return fmt::format("{:.2f} GB", bytes / 1e9);
}

std::string format_rate(double per_s) {
  return per_s >= 100 ? fmt::format("{:.0f}", per_s) : fmt::format("{:.3g}", per_s);
}

}  // namespace

std::string format_duration(double seconds) {
  const auto s = static_cast<std::int64_t>(std::llround(std::clamp(seconds, 0.0, 1e9)));
  if (s < 3600) return fmt::format("{}:{:02}", s / 60, s % 60);
  return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

std::string Progress::line(const ProgressOptions& options, std::int64_t done, double elapsed_s,
                           std::string_view suffix) {
  const bool bytes = options.unit == "bytes";
  std::string text = options.label.empty() ? "" : options.label + "  ";
  const auto count = [&](std::int64_t n) {
    return bytes ? format_bytes(static_cast<double>(n)) : fmt::format("{}", n);
  };
  text += count(done);
  if (options.total > 0) text += "/" + count(options.total);
  if (!bytes) text += " " + options.unit;
  if (options.total > 0)
    text += fmt::format("  {:.0f}%", std::floor(100.0 * static_cast<double>(done) /
                                                static_cast<double>(options.total)));
  const std::int64_t here = done - options.start;
  if (here > 0 && elapsed_s > 0) {
    const double rate = static_cast<double>(here) / elapsed_s;
    text += bytes ? fmt::format("  {}/s", format_bytes(rate))
                  : fmt::format("  {} {}/s", format_rate(rate), options.unit);
    if (options.total > done)
      text += fmt::format("  {} left",
                          format_duration(static_cast<double>(options.total - done) / rate));
    else
      text += fmt::format("  in {}", format_duration(elapsed_s));
  }
  if (!suffix.empty()) text.append("  ").append(suffix);
  return text;
}

Progress::Progress(ProgressOptions options)
    : options_(std::move(options)),
      begin_(Clock::now()),
      last_shown_(begin_),
      done_(options_.start) {}

Progress::~Progress() {
  finish();
}

void Progress::show(Clock::time_point now) {
  const double elapsed = std::chrono::duration<double>(now - begin_).count();
  const std::string text = line(options_, done_, elapsed, suffix_);
  if (log_is_terminal() && log_level() == LogLevel::Info)
    log_rewrite_line(text);
  else
    log_info(text);
  last_shown_ = now;
  shown_ = true;
}

void Progress::update(std::int64_t done, std::string_view suffix) {
  done_ = done;
  suffix_ = suffix;
  shown_ = false;
  const auto now = Clock::now();
  const double every = log_is_terminal() ? terminal_every_s : options_.plain_every_s;
  if (std::chrono::duration<double>(now - last_shown_).count() >= every) show(now);
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  if (!shown_ && done_ > options_.start) show(Clock::now());
  log_keep_line();
}

}  // namespace minke
