// The files in which a subcommand of `plan` draws a simulated schedule.
#pragma once
#include <optional>
#include <string>

#include "base/function_ref.h"
#include "plan/schedule_picture.h"

namespace minke {

struct PictureFiles {
  std::optional<std::string> svg, html, trace;
  bool any() const { return svg || html || trace; }

  template <class Visitor>
  void visit(Visitor& field) {
    field("svg", svg, "write the timeline of every rank as a picture");
    field("html", html, "write a page: timeline, times, memory");
    field("trace", trace, "write a trace for chrome://tracing");
  }
};

// Writes those that are wanted; `unit_us` microseconds a unit of time, `page` the HTML document
// around the timeline.
void write_pictures(const PictureFiles& files, const PictureSource& source, double unit_us,
                    FunctionRef<std::string(const std::string& svg)> page);

void write_page(const std::string& path, const std::string& text);

}  // namespace minke
