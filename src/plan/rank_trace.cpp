#include "plan/rank_trace.h"

#include <fmt/format.h>

#include <algorithm>

#include "page/chrome_trace.h"

namespace minke {
namespace {

constexpr double kMicro = 1e6;  // a trace counts in microseconds

bool is_wait(Activity activity) {
  return activity == Activity::Message || activity == Activity::Exchange;
}

std::string describe(const TimelineEvent& e) {
  if (e.activity == Activity::Exchange)
    return fmt::format("came after {:.3f} ms, {:.3f} ms of it under way",
                       1e3 * (e.came_s - e.begin_s),
                       1e3 * (e.came_s - std::clamp(e.peer_s, e.begin_s, e.came_s)));
  return fmt::format("phase {}, micro-batch {}", e.micro_batch.phase, e.micro_batch.chunk);
}

}  // namespace

void write_rank_trace(std::string_view title, const std::vector<std::vector<TimelineEvent>>& ranks,
                      FunctionRef<void(std::string_view)> out) {
  page::ChromeTrace trace(out);
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    const auto process = static_cast<std::int64_t>(r);
    trace.name_process(process, fmt::format("{}: rank {}", title, r));
    trace.name_thread(process, 0, "operations");
    trace.name_thread(process, 1, "backwards of pairs");
    for (const TimelineEvent& e : ranks[r]) {
      std::string name(name_of(e.activity));
      if (!is_wait(e.activity)) name += std::to_string(e.micro_batch.chunk);
      trace.span(process, e.strand, name, name_of(e.activity), e.begin_s * kMicro, e.end_s * kMicro,
                 describe(e));
    }
  }
  trace.finish();
}

std::string rank_report(const std::vector<TimelineShares>& ranks) {
  const auto words = [](std::string_view of, const WaitShares& w) {
    return fmt::format("{} {:.3f} s under way, {:.3f} s shown, {:.1f} % hidden", of, w.under_way,
                       w.shown, 100 * w.hidden_share());
  };
  std::string text;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    const TimelineShares& s = ranks[r];
    text += fmt::format(
        "rank {}: step {:.3f} s, idle {:.1f} % ({:.3f} s); {}; {}; late ranks {:.3f} s\n", r,
        s.span, s.span > 0 ? 100 * s.idle() / s.span : 0, s.idle(), words("experts", s.experts),
        words("stages", s.stages), s.experts.late + s.stages.late);
  }
  return text;
}

}  // namespace minke
