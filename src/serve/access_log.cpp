#include "serve/access_log.h"

#include <cerrno>
#include <ctime>

#include "base/error.h"

namespace minke {

AccessLog::AccessLog(const std::string& path) {
  if (path.empty()) return;
  file_ = path == "-" ? stderr : std::fopen(path.c_str(), "ae");
  if (!file_) throw_io_error("--access-log: cannot open " + path, errno);
}

AccessLog::~AccessLog() {
  if (file_ && file_ != stderr) std::fclose(file_);
}

void AccessLog::write(const RequestRecord& request) {
  if (!file_) return;
  const std::chrono::duration<double> took = RequestRecord::Clock::now() - request.begin;
  const std::string line = access_line(request, took.count(), std::time(nullptr)) + "\n";
  std::lock_guard lock(mutex_);
  std::fwrite(line.data(), 1, line.size(), file_);
  std::fflush(file_);
}

std::string access_line(const RequestRecord& r, double seconds, std::int64_t unix_time) {
  ApiJson json = {{"time", unix_time},  {"method", r.method}, {"route", r.route},
                  {"status", r.status}, {"seconds", seconds}, {"body_bytes", r.body_bytes}};
  if (!r.id.empty()) {
    json["id"] = r.id;
    json["stream"] = r.stream;
    json["prompt_tokens"] = r.usage.prompt_tokens;
    json["cached_tokens"] = r.usage.cached_tokens;
    json["completion_tokens"] = r.usage.completion_tokens;
  }
  if (r.first_token_s) json["first_token_s"] = *r.first_token_s;
  return dump(json);
}

}  // namespace minke
