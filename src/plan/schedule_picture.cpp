#include "plan/schedule_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "page/chrome_trace.h"

namespace minke {
namespace {

using page::Span;
using page::SpanStyle;

// Styles: four kinds with a paler form for phase 1 each, then what is not computation.
enum Style : std::size_t { Forward = 0, Backward = 2, Input = 4, Weight = 6, Exchange = 8 };

std::vector<SpanStyle> styles(bool two_phases) {
  const std::string from = two_phases ? ", phase 0" : "";
  return {{"forward" + from, "#f0a040", "#d98b2b"},
          {"phase 1", "#f8d5a2", "#f0c98f", two_phases},
          {"backward" + from, "#5cb77d", "#47a36a"},
          {"phase 1", "#b3dfc2", "#9fd4b2", two_phases},
          {"gradient of inputs" + from, "#5bbcc4", "#47a7b0"},
          {"phase 1", "#b5e1e5", "#a5d7dc", two_phases},
          {"gradient of weights" + from, "#7f9fe0", "#6f8fd4"},
          {"phase 1", "#c3d1f2", "#b3c4ee", two_phases},
          {"exchange of tokens, messages", "#c98bb5", "#b06a9b"}};
}

std::size_t style_of(OpKind kind) {
  switch (kind) {
    case OpKind::F:
      return Forward;
    case OpKind::BI:
      return Input;
    case OpKind::W:
      return Weight;
    default:
      return Backward;
  }
}

std::string describe(std::string_view what, MicroBatch m, bool two_phases) {
  return two_phases ? fmt::format("{} of phase {}, micro-batch {}", what, m.phase, m.chunk)
                    : fmt::format("{} of micro-batch {}", what, m.chunk);
}

std::string_view words(OpKind kind) {
  switch (kind) {
    case OpKind::F:
      return "forward";
    case OpKind::B:
      return "backward";
    case OpKind::BI:
      return "gradient of inputs";
    case OpKind::W:
      return "gradient of weights";
    default:
      return "";
  }
}

std::string describe(const ScheduleOp& op, bool two_phases) {
  if (op.kind == OpKind::Comm) {
    std::string text;
    for (const StageMessage& m : op.messages)
      text += fmt::format("{}{} {}.{} rank {}", text.empty() ? "" : ", ", name_of(m.kind),
                          m.micro_batch.phase, m.micro_batch.chunk, m.peer);
    return text;
  }
  if (op.kind == OpKind::FB)
    return describe("pair: forward", op.forward, two_phases) + "; " +
           describe("backward", op.backward, two_phases);
  return describe(words(op.kind), op.has_forward() ? op.forward : op.backward, two_phases);
}

// Spans of one operation, without those that take no time.
void add_spans(const PictureSource& source, int rank, std::size_t i, std::vector<Span>& spans) {
  const bool two = source.schedule.n_phases() == 2;
  const ScheduleOp& op = source.schedule.ranks[static_cast<std::size_t>(rank)][i];
  const double begin = source.simulation.begin(rank, i), end = source.simulation.end(rank, i);
  if (end <= begin) return;
  const std::string tooltip =
      fmt::format("rank {}: {}\n{:.6g} to {:.6g}", rank, describe(op, two), begin, end);
  if (op.kind == OpKind::Comm) {
    const double sent = std::max(begin, end - source.message_time);
    if (sent < end) spans.push_back({sent, end, Exchange, "", tooltip});
    return;
  }
  const double computed = std::min(end, begin + source.compute_time(rank, op));
  const auto add = [&](std::size_t style, MicroBatch m, Span::Part part) {
    spans.push_back({begin, computed, style + static_cast<std::size_t>(m.phase),
                     std::to_string(m.chunk), tooltip, part});
  };
  if (op.kind == OpKind::FB) {
    add(Forward, op.forward, Span::Part::Top);
    add(Backward, op.backward, Span::Part::Bottom);
  } else {
    add(style_of(op.kind), op.has_forward() ? op.forward : op.backward, Span::Part::Whole);
  }
  if (end - computed > 1e-9 * end) spans.push_back({computed, end, Exchange, "", tooltip});
}

char letter(OpKind kind) {
  constexpr std::array<char, 6> letters{'F', 'B', 'b', 'W', 'X', ':'};
  return letters[static_cast<std::size_t>(kind)];
}

}  // namespace

void check_drawable(const Schedule& schedule) {
  constexpr std::size_t kMostSpans = 400'000;
  std::size_t n = 0;
  for (const auto& ops : schedule.ranks) n += ops.size();
  if (n > kMostSpans)
    throw ConfigError(
        fmt::format("{} operations are too many for a picture (at most {}); use fewer ranks or "
                    "micro-batches, or --trace",
                    n, kMostSpans));
}

page::Timeline schedule_timeline(const PictureSource& source) {
  page::Timeline t;
  t.title = source.title;
  t.note = source.note;
  if (source.schedule.n_phases() == 2) t.note += "; a pair is its forward above its backward";
  t.time_unit = source.time_unit;
  t.styles = styles(source.schedule.n_phases() == 2);
  for (int rank = 0; rank < source.schedule.n_ranks; ++rank) {
    const double bubble = source.simulation.of(rank).bubble;
    page::Timeline::Row row;
    row.label = fmt::format("rank {}", rank);
    row.note = fmt::format("bubble {:.4g} ({:.1f} %)", bubble,
                           100 * bubble / std::max(source.simulation.makespan, 1e-300));
    for (std::size_t i = 0; i < source.schedule.ranks[static_cast<std::size_t>(rank)].size(); ++i)
      add_spans(source, rank, i, row.spans);
    t.rows.push_back(std::move(row));
  }
  const auto used = [&](std::size_t style) {
    return std::any_of(t.rows.begin(), t.rows.end(), [&](const page::Timeline::Row& row) {
      return std::any_of(row.spans.begin(), row.spans.end(),
                         [&](const Span& span) { return span.style == style; });
    });
  };
  for (std::size_t i = 0; i < t.styles.size(); ++i)
    t.styles[i].in_legend = t.styles[i].in_legend && used(i);
  return t;
}

void write_schedule_trace(const PictureSource& source, double unit_us,
                          FunctionRef<void(std::string_view)> out) {
  const bool two = source.schedule.n_phases() == 2;
  page::ChromeTrace trace(out);
  trace.name_process(0, source.title);
  for (int rank = 0; rank < source.schedule.n_ranks; ++rank) {
    trace.name_thread(0, rank, fmt::format("rank {}", rank));
    const auto& ops = source.schedule.ranks[static_cast<std::size_t>(rank)];
    for (std::size_t i = 0; i < ops.size(); ++i) {
      const ScheduleOp& op = ops[i];
      const double begin = source.simulation.begin(rank, i), end = source.simulation.end(rank, i);
      if (op.kind == OpKind::Comm && end <= begin) continue;
      std::string name{name_of(op.kind)};
      if (op.kind == OpKind::FB)
        name = fmt::format("F{} B{}", op.forward.chunk, op.backward.chunk);
      else if (op.kind != OpKind::Comm)
        name += std::to_string(op.has_forward() ? op.forward.chunk : op.backward.chunk);
      trace.span(0, rank, name, name_of(op.kind), begin * unit_us, end * unit_us,
                 describe(op, two));
    }
  }
  trace.finish();
}

std::string schedule_text(const PictureSource& source, int width) {
  const double makespan = source.simulation.makespan;
  if (makespan <= 0) return "";
  // A whole number of letters for each unit of time, or of units for a letter.
  const double step =
      makespan <= width ? 1 / std::floor(width / makespan) : std::ceil(makespan / width);
  const auto cells = static_cast<std::size_t>(std::ceil(makespan / step - 1e-9));
  const std::size_t digits = std::to_string(source.schedule.n_ranks - 1).size();
  std::string text;
  for (int rank = 0; rank < source.schedule.n_ranks; ++rank) {
    const auto& ops = source.schedule.ranks[static_cast<std::size_t>(rank)];
    std::string line(cells, '.');
    std::vector<double> most(cells, 0.0);  // time of the letter in each cell
    for (std::size_t i = 0; i < ops.size(); ++i) {
      const double begin = source.simulation.begin(rank, i), end = source.simulation.end(rank, i);
      auto cell = static_cast<std::size_t>(begin / step);
      for (; cell < cells && static_cast<double>(cell) * step < end; ++cell) {
        const double from = static_cast<double>(cell) * step;
        const double inside = std::min(end, from + step) - std::max(begin, from);
        if (inside <= most[cell] * (1 + 1e-9) || inside < step / 4) continue;
        most[cell] = inside;
        line[cell] = letter(ops[i].kind);
      }
    }
    text += fmt::format("{:>{}} |{}|\n", rank, digits, line);
  }
  return text;
}

}  // namespace minke
