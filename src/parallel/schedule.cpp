#include "parallel/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <deque>

#include "base/error.h"

namespace minke {
namespace {

constexpr std::int64_t kMaxRanks = 16384;
constexpr std::int64_t kMaxOps = std::int64_t{1} << 21;  // ranks x chunks; some 500 MB of lists
constexpr std::int64_t kMaxRanksOfTwoPhases = 1024;      // whose chunks are at least 2 x 1024

// Writes the list of one rank. Messages are collected as operations produce or need them and leave
// together when the next operation begins.
class ListWriter {
 public:
  // `turned`: phases are named from the other end, as dualpipe's second half of the ranks sees it.
  ListWriter(const Schedule& schedule, int rank, bool turned = false)
      : schedule_(schedule), rank_(rank), turned_(turned) {}

  void begin_step(int step) { step_ = step; }

  void forward(int phase) {
    expect_forward(phase);
    forward_received(phase);
    send_forward(phase);
  }
  // Its input was expected before; its output is sent by a later send_forward.
  void forward_received(int phase) { compute(OpKind::F, next_f_[absolute(phase)]++, phase, 0, 0); }

  void backward(int phase) {
    backward_unsent(phase);
    send_backward(phase);
  }
  void backward_unsent(int phase) {
    expect_backward(phase);
    compute(OpKind::B, 0, 0, next_b_[absolute(phase)]++, phase);
  }
  void backward_input(int phase) {
    expect_backward(phase);
    const int chunk = next_b_[absolute(phase)]++;
    compute(OpKind::BI, 0, 0, chunk, phase);
    weights_.push_back({absolute(phase), chunk});
    send_backward(phase);
  }
  void weight() {
    const MicroBatch oldest = weights_.front();
    weights_.pop_front();
    flush();
    ops_.push_back({OpKind::W, step_, {}, oldest, {}});
  }
  std::size_t waiting_weights() const { return weights_.size(); }

  void pair(int forward_phase, int backward_phase) {
    expect_forward(forward_phase);
    pair_received(forward_phase, backward_phase);
  }
  // The input of its forward was expected before.
  void pair_received(int forward_phase, int backward_phase) {
    expect_backward(backward_phase);
    compute(OpKind::FB, next_f_[absolute(forward_phase)]++, forward_phase,
            next_b_[absolute(backward_phase)]++, backward_phase);
    send_forward(forward_phase);
    send_backward(backward_phase);
  }

  void expect_forward(int phase) {
    const int p = absolute(phase);
    collect(MessageKind::RecvF, p, expected_f_[p]++, schedule_.upstream(rank_, p));
  }
  void send_forward(int phase) {
    const int p = absolute(phase);
    collect(MessageKind::SendF, p, sent_f_[p]++, schedule_.downstream(rank_, p));
  }
  void send_backward(int phase) {
    const int p = absolute(phase);
    collect(MessageKind::SendB, p, sent_b_[p]++, schedule_.upstream(rank_, p));
  }

  std::vector<ScheduleOp> finish() {
    flush();
    return std::move(ops_);
  }

 private:
  int absolute(int phase) const { return turned_ ? 1 - phase : phase; }

  void expect_backward(int phase) {
    const int p = absolute(phase);
    collect(MessageKind::RecvB, p, next_b_[p], schedule_.downstream(rank_, p));
  }
  void collect(MessageKind kind, int phase, int chunk, int peer) {
    if (peer >= 0) messages_.push_back({kind, {phase, chunk}, peer});
  }
  void flush() {
    if (!messages_.empty()) ops_.push_back({OpKind::Comm, step_, {}, {}, std::move(messages_)});
    messages_.clear();
  }
  void compute(OpKind kind, int f_chunk, int f_phase, int b_chunk, int b_phase) {
    flush();
    ScheduleOp op{kind, step_, {}, {}, {}};
    if (op.has_forward()) op.forward = {absolute(f_phase), f_chunk};
    if (op.has_backward()) op.backward = {absolute(b_phase), b_chunk};
    ops_.push_back(std::move(op));
  }

  const Schedule& schedule_;
  int rank_;
  bool turned_;
  int step_ = 1;
  std::array<int, 2> next_f_{}, next_b_{}, expected_f_{}, sent_f_{}, sent_b_{};
  std::deque<MicroBatch> weights_;
  std::vector<StageMessage> messages_;
  std::vector<ScheduleOp> ops_;
};

// 1. warm up: as many forwards as ranks follow   2. one forward, one backward   3. the backwards
std::vector<ScheduleOp> one_f_one_b(const Schedule& s, int rank) {
  ListWriter list(s, rank);
  const int warm_up = std::min(s.n_ranks - 1 - rank, s.n_chunks);
  for (int i = 0; i < warm_up; ++i) list.forward(0);
  list.begin_step(2);
  for (int i = warm_up; i < s.n_chunks; ++i) {
    list.forward(0);
    list.backward(0);
  }
  list.begin_step(3);
  for (int i = 0; i < warm_up; ++i) list.backward(0);
  return list.finish();
}

// 1F1B with BI and W apart. Rank r holds r weight gradients back, so that every rank keeps at most
// N activations until their W, and 4. spends them where 1F1B's bubble would be at the end.
std::vector<ScheduleOp> zb1p(const Schedule& s, int rank) {
  ListWriter list(s, rank);
  const auto held_back = static_cast<std::size_t>(rank);
  const int warm_up = std::min(s.n_ranks - 1 - rank, s.n_chunks);
  const auto backward = [&] {
    list.backward_input(0);
    if (list.waiting_weights() > held_back) list.weight();
  };
  for (int i = 0; i < warm_up; ++i) list.forward(0);
  list.begin_step(2);
  for (int i = warm_up; i < s.n_chunks; ++i) {
    list.forward(0);
    backward();
  }
  list.begin_step(3);
  for (int i = 0; i < warm_up; ++i) backward();
  list.begin_step(4);
  while (list.waiting_weights() > 0) list.weight();
  return list.finish();
}

// The published order of DualPipe and DualPipeV, which differ only in how far a rank is from where
// the two phases meet: between the two middle ranks, or on the last rank. Phase 0 here is the one
// that starts on this rank's side.
//   depth  ranks from this side's end up to this one     inner  ranks from here to the meeting
//   point
std::vector<ScheduleOp> two_phases(const Schedule& s, int rank) {
  const bool v = s.kind == ScheduleKind::DualPipeV;
  const int half = v ? s.n_ranks : s.n_ranks / 2;
  const bool turned = !v && rank >= half;
  const int depth = (turned ? s.n_ranks - 1 - rank : rank) + 1;
  const int inner = half - depth;
  const bool meeting = inner == 0;
  ListWriter list(s, rank, turned);

  list.begin_step(1);  // F0
  for (int i = 0; i < 2 * inner; ++i) list.forward(0);

  list.begin_step(2);  // F0 F1
  list.expect_forward(0);
  for (int i = 0; i < depth; ++i) {
    list.forward_received(0);
    if (meeting) list.send_forward(0);
    list.expect_forward(0);
    list.expect_forward(1);
    list.forward_received(1);
    if (!meeting || i < depth - 1) list.send_forward(1);  // the last one leaves in step 4
    if (!meeting) list.send_forward(0);
  }

  list.begin_step(3);  // BI1 W F1
  for (int i = 0; i < inner; ++i) {
    list.backward_input(1);
    list.expect_forward(1);
    list.weight();
    list.forward_received(1);
    list.send_forward(1);
  }

  list.begin_step(4);  // F0B1 F1B0
  for (int i = 0; i < s.chunks_per_phase() - 2 * half + depth; ++i) {
    if (i > 0) {
      list.pair(0, 1);
    } else if (meeting) {  // not overlapped here: the neighbour waits for the forward
      list.forward_received(0);
      list.send_forward(1);
      list.backward_unsent(1);
      list.send_forward(0);
      list.send_backward(1);
    } else {
      list.pair_received(0, 1);
    }
    list.pair(1, 0);
  }

  list.begin_step(5);  // B1 F1B0
  for (int i = 0; i < inner; ++i) {
    list.backward(1);
    list.pair(1, 0);
  }

  list.begin_step(6);  // B1 B0; weight gradients are held back from the middle of it on
  for (int i = 0; i < 2 * depth; ++i) {
    const int phase = i % 2 == 0 ? 1 : 0;
    i < depth ? list.backward(phase) : list.backward_input(phase);
  }

  list.begin_step(7);  // W BI0
  for (int i = 0; i < inner; ++i) {
    list.weight();
    list.backward_input(0);
  }

  list.begin_step(8);  // W
  while (list.waiting_weights() > 0) list.weight();
  return list.finish();
}

[[noreturn]] void refuse(ScheduleKind kind, const char* what, std::int64_t found,
                         const std::string& needs) {
  throw ConfigError(fmt::format("{} is {}, but {} needs {}", what, found, name_of(kind), needs));
}

void check_sizes(ScheduleKind kind, std::int64_t n_ranks, std::int64_t n_chunks) {
  const bool dual = kind == ScheduleKind::DualPipe;
  const std::int64_t fewest_ranks = dual ? 2 : 1;
  if (n_ranks < fewest_ranks)
    refuse(kind, "ranks", n_ranks, fmt::format("at least {0}; nearest: {0}", fewest_ranks));
  if (n_ranks > kMaxRanks)
    refuse(kind, "ranks", n_ranks, fmt::format("at most {0}; nearest: {0}", kMaxRanks));
  if (dual && n_ranks % 2 != 0)
    refuse(kind, "ranks", n_ranks,
           fmt::format("an even number; nearest: {} or {}", n_ranks - 1, n_ranks + 1));
  const bool two_per_rank = dual || kind == ScheduleKind::DualPipeV;
  const std::int64_t fewest_chunks = two_per_rank ? 2 * n_ranks : 1;
  if (two_per_rank && n_ranks > kMaxRanksOfTwoPhases)
    refuse(kind, "ranks", n_ranks, fmt::format("at most {0}; nearest: {0}", kMaxRanksOfTwoPhases));
  if (n_chunks < fewest_chunks)
    refuse(kind, "chunks", n_chunks,
           two_per_rank ? fmt::format("at least 2 x {} ranks; nearest: {}", n_ranks, fewest_chunks)
                        : "at least 1; nearest: 1");
  if (n_chunks > kMaxOps / n_ranks) {
    const std::int64_t most = kMaxOps / n_ranks;
    refuse(kind, "chunks", n_chunks,
           fmt::format("at most {} with {} ranks; nearest: {}", dual ? most / 2 * 2 : most, n_ranks,
                       dual ? most / 2 * 2 : most));
  }
  if (dual && n_chunks % 2 != 0)
    refuse(kind, "chunks", n_chunks,
           fmt::format("an even number, half from each end; nearest: {}",
                       n_chunks - 1 >= fewest_chunks
                           ? fmt::format("{} or {}", n_chunks - 1, n_chunks + 1)
                           : fmt::format("{}", n_chunks + 1)));
}

}  // namespace

int Schedule::stage(int rank, int phase) const {
  return phase == 0 ? rank : n_stages() - 1 - rank;
}

int Schedule::upstream(int rank, int phase) const {
  if (phase == 0) return rank - 1;
  return rank + 1 < n_ranks ? rank + 1 : -1;
}

int Schedule::downstream(int rank, int phase) const {
  return upstream(rank, 1 - phase);
}

Schedule make_schedule(ScheduleKind kind, std::int64_t n_ranks, std::int64_t n_chunks) {
  check_sizes(kind, n_ranks, n_chunks);
  Schedule s{kind, static_cast<int>(n_ranks), static_cast<int>(n_chunks), {}};
  s.ranks.reserve(static_cast<std::size_t>(n_ranks));
  for (int rank = 0; rank < s.n_ranks; ++rank) {
    switch (kind) {
      case ScheduleKind::OneFOneB:
        s.ranks.push_back(one_f_one_b(s, rank));
        break;
      case ScheduleKind::Zb1p:
        s.ranks.push_back(zb1p(s, rank));
        break;
      case ScheduleKind::DualPipe:
      case ScheduleKind::DualPipeV:
        s.ranks.push_back(two_phases(s, rank));
        break;
    }
  }
  return s;
}

double peak_activations(const std::vector<ScheduleOp>& ops, const ActivationSize& size) {
  double live = 0, peak = 0;
  for (const ScheduleOp& op : ops) {
    if (op.has_forward()) live += size.saved[op.forward.phase];
    peak = std::max(peak, live);
    if (op.has_backward()) live -= size.saved[op.backward.phase];
    if (op.kind == OpKind::BI) live += size.weight_work[op.backward.phase];
    peak = std::max(peak, live);
    if (op.kind == OpKind::W) live -= size.weight_work[op.backward.phase];
  }
  return peak;
}

std::string_view name_of(ScheduleKind kind) {
  switch (kind) {
    case ScheduleKind::OneFOneB:
      return "1f1b";
    case ScheduleKind::Zb1p:
      return "zb1p";
    case ScheduleKind::DualPipe:
      return "dualpipe";
    case ScheduleKind::DualPipeV:
      return "dualpipev";
  }
  return "";
}

std::string_view name_of(OpKind kind) {
  constexpr std::array<std::string_view, 6> names{"F", "B", "BI", "W", "FB", "COMM"};
  return names[static_cast<std::size_t>(kind)];
}

std::string_view name_of(MessageKind kind) {
  constexpr std::array<std::string_view, 4> names{"send_f", "recv_f", "send_b", "recv_b"};
  return names[static_cast<std::size_t>(kind)];
}

ScheduleKind parse_schedule_kind(const std::string& name) {
  for (const ScheduleKind kind : {ScheduleKind::DualPipe, ScheduleKind::DualPipeV,
                                  ScheduleKind::OneFOneB, ScheduleKind::Zb1p})
    if (name == name_of(kind)) return kind;
  throw ConfigError(
      fmt::format("there is no schedule '{}'; there are dualpipe, dualpipev, 1f1b and zb1p", name));
}

}  // namespace minke
