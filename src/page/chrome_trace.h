// Spans in the Trace Event Format of Chrome, which chrome://tracing and ui.perfetto.dev show: one
// complete event ("ph": "X") a line, microseconds, processes and threads with names.
#pragma once
#include <cstdint>
#include <string_view>

#include "base/function_ref.h"

namespace minke::page {

class ChromeTrace {
 public:
  // The document goes to `out`, which must outlive it, piece by piece.
  explicit ChromeTrace(FunctionRef<void(std::string_view)> out);

  void name_process(std::int64_t process, std::string_view name);
  void name_thread(std::int64_t process, std::int64_t thread, std::string_view name);
  // `category` decides the colour; `detail` is shown when the span is clicked.
  void span(std::int64_t process, std::int64_t thread, std::string_view name,
            std::string_view category, double begin_us, double end_us, std::string_view detail);
  void finish();

 private:
  void begin_event();

  FunctionRef<void(std::string_view)> out_;
  bool first_ = true;
};

}  // namespace minke::page
