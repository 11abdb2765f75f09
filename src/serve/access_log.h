// One JSON object a line for each answered request, without prompts, answers and keys.
#pragma once
#include <cstdio>
#include <mutex>
#include <string>

#include "serve/request_record.h"

namespace minke {

class AccessLog {
 public:
  // "": none; "-": standard error; else a file that is appended to. IoError when it cannot be.
  explicit AccessLog(const std::string& path);
  AccessLog(const AccessLog&) = delete;
  AccessLog& operator=(const AccessLog&) = delete;
  ~AccessLog();
  void write(const RequestRecord& request);  // from any thread

 private:
  std::mutex mutex_;
  std::FILE* file_ = nullptr;
};

// The line, without its end.
std::string access_line(const RequestRecord& request, double seconds, std::int64_t unix_time);

}  // namespace minke
