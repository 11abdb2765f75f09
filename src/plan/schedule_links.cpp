#include "plan/schedule_links.h"

#include <fmt/format.h>

#include <map>
#include <utility>

#include "base/error.h"

namespace minke {
namespace {

bool is_forward(MessageKind kind) {
  return kind == MessageKind::SendF || kind == MessageKind::RecvF;
}
bool is_send(MessageKind kind) {
  return kind == MessageKind::SendF || kind == MessageKind::SendB;
}

std::string describe(OpRef at, const ScheduleOp& op) {
  return fmt::format("schedule: rank {}, operation {} ({})", at.rank, at.op, name_of(op.kind));
}

// One value for each activation and each gradient of the micro-batches.
class PerData {
 public:
  explicit PerData(const Schedule& s)
      : phases_(s.n_phases()),
        chunks_(s.chunks_per_phase()),
        values_(static_cast<std::size_t>(2 * phases_ * chunks_)) {}
  OpRef& at(bool forward, MicroBatch m) {
    if (m.phase < 0 || m.phase >= phases_ || m.chunk < 0 || m.chunk >= chunks_)
      throw ConfigError(
          fmt::format("schedule: there is no micro-batch {} of phase {}", m.chunk, m.phase));
    return values_[static_cast<std::size_t>(((forward ? 0 : phases_) + m.phase) * chunks_ +
                                            m.chunk)];
  }

 private:
  int phases_, chunks_;
  std::vector<OpRef> values_;
};

// What one rank sends to another one, in order.
struct Stream {
  struct Sent {
    OpRef comm, producer;
    bool forward;
    MicroBatch micro_batch;
  };
  std::vector<Sent> sent;
  std::vector<OpRef> received;  // the COMMs that receive them
  std::size_t next_sent = 0, next_received = 0;
};
using Streams = std::map<std::pair<int, int>, Stream>;  // sender, receiver

const std::vector<ScheduleOp>& list_of(const Schedule& s, int rank) {
  return s.ranks[static_cast<std::size_t>(rank)];
}

void collect_sends(const Schedule& s, int rank, Streams& streams) {
  PerData made(s);
  OpRef here{rank, 0};
  for (const ScheduleOp& op : list_of(s, rank)) {
    if (op.has_forward()) made.at(true, op.forward) = here;
    if (op.has_backward()) made.at(false, op.backward) = here;
    for (const StageMessage& m : op.messages) {
      if (!is_send(m.kind)) continue;
      const OpRef producer = made.at(is_forward(m.kind), m.micro_batch);
      if (producer.op < 0)
        throw ConfigError(describe(here, op) + " sends what was not computed before");
      streams[{rank, m.peer}].sent.push_back({here, producer, is_forward(m.kind), m.micro_batch});
    }
    ++here.op;
  }
}

void collect_receives(const Schedule& s, int rank, Streams& streams) {
  OpRef here{rank, 0};
  for (const ScheduleOp& op : list_of(s, rank)) {
    for (const StageMessage& m : op.messages) {
      if (is_send(m.kind)) continue;
      Stream& stream = streams[{m.peer, rank}];
      const std::size_t k = stream.received.size();
      if (k >= stream.sent.size() || stream.sent[k].forward != is_forward(m.kind) ||
          stream.sent[k].micro_batch != m.micro_batch)
        throw ConfigError(
            fmt::format("schedule: receive {} of rank {} from rank {} is not what that rank sends",
                        k, rank, m.peer));
      stream.received.push_back(here);
    }
    ++here.op;
  }
}

void check_all_received(const Streams& streams) {
  for (const auto& [ranks, stream] : streams)
    if (stream.sent.size() != stream.received.size())
      throw ConfigError(
          fmt::format("schedule: rank {} sends {} messages to rank {}, which receives {}",
                      ranks.first, stream.sent.size(), ranks.second, stream.received.size()));
}

// Appends the references of each operation of `rank`, and where they end.
void connect(const Schedule& s, int rank, Streams& streams, std::vector<OpRef>& refs,
             std::vector<std::size_t>& ends) {
  PerData inputs(s);  // producers of what was received
  OpRef here{rank, 0};
  for (const ScheduleOp& op : list_of(s, rank)) {
    const auto need = [&](bool forward, MicroBatch m, int from) {
      if (from < 0) return;
      const OpRef producer = inputs.at(forward, m);
      if (producer.op < 0)
        throw ConfigError(describe(here, op) + " needs an input that no earlier COMM received");
      refs.push_back(producer);
    };
    if (op.has_forward()) need(true, op.forward, s.upstream(rank, op.forward.phase));
    if (op.has_backward()) need(false, op.backward, s.downstream(rank, op.backward.phase));
    for (const StageMessage& m : op.messages) {
      if (is_send(m.kind)) {
        Stream& stream = streams[{rank, m.peer}];
        refs.push_back(stream.received[stream.next_sent++]);
      } else {
        Stream& stream = streams[{m.peer, rank}];
        const Stream::Sent& sent = stream.sent[stream.next_received++];
        inputs.at(sent.forward, sent.micro_batch) = sent.producer;
        refs.push_back(sent.comm);
      }
    }
    ends.push_back(refs.size());
    ++here.op;
  }
}

}  // namespace

ScheduleLinks::ScheduleLinks(const Schedule& s) : first_op_{0}, first_ref_{0} {
  for (const auto& ops : s.ranks) first_op_.push_back(first_op_.back() + ops.size());
  Streams streams;
  for (int rank = 0; rank < s.n_ranks; ++rank) collect_sends(s, rank, streams);
  for (int rank = 0; rank < s.n_ranks; ++rank) collect_receives(s, rank, streams);
  check_all_received(streams);
  for (int rank = 0; rank < s.n_ranks; ++rank) connect(s, rank, streams, refs_, first_ref_);
}

}  // namespace minke
