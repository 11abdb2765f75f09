#include "base/log.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>

namespace minke {
namespace {

struct Logger {
  std::mutex mutex;
  LogLevel level = LogLevel::Info;
  std::string line;  // shown last, without a line feed; empty when there is none

  void write(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stderr); }

  void message(LogLevel at, std::string_view prefix, std::string_view text) {
    std::lock_guard lock(mutex);
    if (at < level) return;
    std::string out = line.empty() ? "" : "\r\x1b[K";
    out.append(prefix).append(readable_line(text)).append("\n").append(line);
    write(out);
  }
};

Logger& logger() {
  static Logger instance;
  return instance;
}

std::size_t terminal_columns() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1) return size.ws_col;
  return 80;
}

// The longest start of `text` that takes fewer than `columns` columns; one column a code point (the
// lines shown hold no wide characters).
std::string_view cut_to_columns(std::string_view text, std::size_t columns) {
  std::size_t used = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool starts = (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80;
    if (starts && ++used >= columns) return text.substr(0, i);
  }
  return text;
}

}  // namespace

std::string readable_line(std::string_view text) {
  constexpr std::size_t kLongest = 2000;
  std::size_t end = std::min(text.size(), kLongest);
  while (end < text.size() && end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80)
    --end;  // between two characters
  std::string line;
  for (const char c : text.substr(0, end)) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)
      line += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      line += c;
  }
  return end < text.size() ? line + "..." : line;
}

void set_log_level(LogLevel level) {
  std::lock_guard lock(logger().mutex);
  logger().level = level;
}

LogLevel log_level() {
  std::lock_guard lock(logger().mutex);
  return logger().level;
}

void log_info(std::string_view message) {
  logger().message(LogLevel::Info, "minke: ", message);
}

void log_warning(std::string_view message) {
  logger().message(LogLevel::Warning, "minke: warning: ", message);
}

bool log_is_terminal() {
  static const bool terminal = [] {
    const char* term = std::getenv("TERM");
    return isatty(STDERR_FILENO) == 1 && term && std::string_view(term) != "dumb";
  }();
  return terminal;
}

void log_rewrite_line(std::string_view text) {
  Logger& log = logger();
  std::lock_guard lock(log.mutex);
  if (log.line.empty() && text.empty()) return;
  log.line = cut_to_columns(text, terminal_columns());
  log.write("\r\x1b[K" + log.line);
}

void log_keep_line() {
  Logger& log = logger();
  std::lock_guard lock(log.mutex);
  if (log.line.empty()) return;
  log.line.clear();
  log.write("\n");
}

}  // namespace minke
