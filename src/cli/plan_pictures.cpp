#include "cli/plan_pictures.h"

#include "base/files.h"
#include "base/log.h"
#include "page/timeline.h"

namespace minke {

void write_page(const std::string& path, const std::string& text) {
  write_file_atomic(path, text);
  log_info(path + " written");
}

void write_pictures(const PictureFiles& files, const PictureSource& source, double unit_us,
                    FunctionRef<std::string(const std::string& svg)> page) {
  if (files.svg || files.html) {
    check_drawable(source.schedule);
    const std::string svg = page::timeline_svg(schedule_timeline(source));
    if (files.svg) write_page(*files.svg, svg);
    if (files.html) write_page(*files.html, page(svg));
  }
  if (!files.trace) return;
  AtomicFile file(*files.trace);
  FileWriter writer(file.partial());
  write_schedule_trace(source, unit_us, [&](std::string_view piece) { writer.write(piece); });
  writer.finish();
  file.commit();
  log_info(*files.trace + " written");
}

}  // namespace minke
