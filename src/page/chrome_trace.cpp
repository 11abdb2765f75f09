#include "page/chrome_trace.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>

namespace minke::page {
namespace {

// A name with bytes that are no UTF-8 still gives a valid document.
std::string quoted(std::string_view text) {
  return nlohmann::json(std::string(text))
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

ChromeTrace::ChromeTrace(FunctionRef<void(std::string_view)> out) : out_(out) {
  out_("{\"displayTimeUnit\": \"ms\",\n \"traceEvents\": [");
}

void ChromeTrace::begin_event() {
  out_(first_ ? "\n  " : ",\n  ");
  first_ = false;
}

void ChromeTrace::name_process(std::int64_t process, std::string_view name) {
  begin_event();
  out_(
      fmt::format("{{\"ph\": \"M\", \"name\": \"process_name\", \"pid\": {}, "
                  "\"args\": {{\"name\": {}}}}}",
                  process, quoted(name)));
}

void ChromeTrace::name_thread(std::int64_t process, std::int64_t thread, std::string_view name) {
  begin_event();
  out_(
      fmt::format("{{\"ph\": \"M\", \"name\": \"thread_name\", \"pid\": {}, \"tid\": {}, "
                  "\"args\": {{\"name\": {}}}}}",
                  process, thread, quoted(name)));
}

void ChromeTrace::span(std::int64_t process, std::int64_t thread, std::string_view name,
                       std::string_view category, double begin_us, double end_us,
                       std::string_view detail) {
  begin_event();
  out_(
      fmt::format("{{\"ph\": \"X\", \"name\": {}, \"cat\": {}, \"pid\": {}, \"tid\": {}, "
                  "\"ts\": {:.3f}, \"dur\": {:.3f}, \"args\": {{\"detail\": {}}}}}",
                  quoted(name), quoted(category), process, thread, begin_us, end_us - begin_us,
                  quoted(detail)));
}

void ChromeTrace::finish() {
  out_("\n ]\n}\n");
}

}  // namespace minke::page
