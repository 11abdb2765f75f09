#include "parallel/pipeline.h"

#include <fmt/format.h>

#include <map>
#include <tuple>

namespace minke {
namespace {

// One tag a direction and phase: within it, messages between two ranks go in the order of chunks.
int tag_of(MessageKind kind, int phase) {
  const bool gradient = kind == MessageKind::SendB || kind == MessageKind::RecvB;
  return 2 * (gradient ? 1 : 0) + phase;
}

struct Parcel {  // the request is given up before its bytes
  MessageBytes bytes;
  Request request;
  MessageEnd end = {};
};

// Keeps what a rank has received, produced and not yet sent while its list runs.
class Executor {
 public:
  Executor(const Schedule& schedule, Communicator& pipeline, StageRunner& runner,
           const PipelineRank& rank)
      : schedule_(schedule), pipeline_(pipeline), runner_(runner), options_(rank) {}

  void run() {
    const FillingWaits filling(options_.baton, [this] { return fill(); });
    for (const ScheduleOp& op : schedule_.ranks[static_cast<std::size_t>(pipeline_.rank())])
      execute(op);
    for (Parcel& parcel : sending_) await(parcel, {});
    finish_parts();
    MINKE_ASSERT(inputs_.empty() && outputs_.empty());
  }

 private:
  using Key = std::tuple<bool, int, int>;  // gradient or activation, phase, chunk

  static Key key(bool gradient, MicroBatch m) { return {gradient, m.phase, m.chunk}; }

  void execute(const ScheduleOp& op) {
    switch (op.kind) {
      case OpKind::Comm:
        post(op.messages);
        break;
      case OpKind::F:
        forward(op.forward, take_input(false, op.forward));
        break;
      case OpKind::B:
      case OpKind::BI:
        backward(op.backward, take_input(true, op.backward), op.kind == OpKind::BI);
        break;
      case OpKind::W:
        finish_parts();
        timed(Activity::W, op.backward, [&] { runner_.backward_weight(op.backward); });
        break;
      case OpKind::FB:
        pair(op);
        break;
    }
  }

  void post(const std::vector<StageMessage>& messages) {
    std::erase_if(sending_, [](Parcel& parcel) { return parcel.request->test(); });
    for (const StageMessage& m : messages) {
      const bool gradient = m.kind == MessageKind::SendB || m.kind == MessageKind::RecvB;
      const int tag = tag_of(m.kind, m.micro_batch.phase);
      if (m.kind == MessageKind::RecvF || m.kind == MessageKind::RecvB) {
        Parcel& parcel = inputs_[key(gradient, m.micro_batch)];
        parcel.bytes.resize(runner_.message_bytes(m.micro_batch));
        parcel.end = posted({.receives = true, .peer = m.peer, .tag = tag});
        parcel.request = pipeline_.receive(parcel.bytes, m.peer, tag);
      } else {
        auto output = outputs_.extract(key(gradient, m.micro_batch));
        MINKE_ASSERT(!output.empty());
        Parcel& parcel = sending_.emplace_back(std::move(output.mapped()), nullptr);
        parcel.end = posted({.peer = m.peer, .tag = tag});
        parcel.request = pipeline_.send(parcel.bytes, m.peer, tag);
      }
    }
  }

  // Both strands find their own inputs; what they produce is kept when both have ended.
  void pair(const ScheduleOp& op) {
    Parcel x = take_input(false, op.forward), dy = take_input(true, op.backward);
    if (!options_.baton) {
      forward(op.forward, std::move(x));
      backward(op.backward, std::move(dy), false);
      return;
    }
    MessageBytes y, dx;
    run_strands(
        *options_.baton,
        [&] { ending_all([&] { y = compute_forward(op.forward, std::move(x)); }); },
        [&] { ending_all([&] { dx = compute_backward(op.backward, std::move(dy), false); }); });
    keep(false, op.forward, std::move(y));
    keep(true, op.backward, std::move(dx));
  }

  // What a strand throws must end the waits of the other one, which may be for this rank itself.
  void ending_all(FunctionRef<void()> strand) {
    try {
      strand();
    } catch (const std::exception& error) {
      pipeline_.abort(error.what());
      throw;
    }
  }

  void forward(MicroBatch m, Parcel x) { keep(false, m, compute_forward(m, std::move(x))); }
  void backward(MicroBatch m, Parcel dy, bool input_only) {
    keep(true, m, compute_backward(m, std::move(dy), input_only));
  }

  MessageBytes compute_forward(MicroBatch m, Parcel x) {
    await(x, m);
    MessageBytes y;
    timed(Activity::F, m, [&] { y = runner_.forward(m, std::move(x.bytes)); });
    return y;
  }
  MessageBytes compute_backward(MicroBatch m, Parcel dy, bool input_only) {
    await(dy, m);
    MessageBytes dx;
    timed(input_only ? Activity::BI : Activity::B, m, [&] {
      if (input_only)
        dx = runner_.backward_input(m, std::move(dy.bytes));
      else if (options_.baton)
        dx = runner_.backward_in_parts(m, std::move(dy.bytes));
      else
        dx = runner_.backward(m, std::move(dy.bytes));
    });
    return dx;
  }

  // Gradients of weights are added in the order of their micro-batches.
  void finish_parts() {
    while (options_.baton && fill()) {
    }
  }

  bool fill() {
    TimelineEvent event{Activity::Part, options_.baton->strand(), {}, 0, 0};
    if (options_.timeline) event.begin_s = options_.timeline->now_s();
    const std::optional<MicroBatch> done = runner_.backward_weight_part();
    if (done && options_.timeline) {
      event.micro_batch = *done;
      event.end_s = options_.timeline->now_s();
      options_.timeline->add(event);
    }
    return done.has_value();
  }

  // Empty on a pipeline's first stage (activations) and last one (gradients).
  Parcel take_input(bool gradient, MicroBatch m) {
    auto found = inputs_.extract(key(gradient, m));
    return found.empty() ? Parcel{} : std::move(found.mapped());
  }

  // For a later COMM, or, where dualpipev turns round, for the other phase on this rank.
  void keep(bool gradient, MicroBatch m, MessageBytes bytes) {
    if (bytes.empty()) return;
    const int peer = gradient ? schedule_.upstream(pipeline_.rank(), m.phase)
                              : schedule_.downstream(pipeline_.rank(), m.phase);
    if (peer >= 0)
      outputs_[key(gradient, m)] = std::move(bytes);
    else
      inputs_[key(gradient, {1 - m.phase, m.chunk})].bytes = std::move(bytes);
  }

  void await(Parcel& parcel, MicroBatch m) {
    if (parcel.request)
      wait_without_baton(*parcel.request, {options_.baton, options_.timeline}, Activity::Message, m,
                         parcel.end);
  }

  // The end of a message with a rank of the pipeline.
  MessageEnd posted(MessageEnd end) const {
    end.peer = pipeline_.world_rank(end.peer);
    return options_.timeline ? options_.timeline->post(end) : end;
  }

  void timed(Activity activity, MicroBatch m, FunctionRef<void()> body) {
    if (!options_.timeline) return body();
    TimelineEvent event{activity, options_.baton ? options_.baton->strand() : 0, m,
                        options_.timeline->now_s(), 0};
    body();
    event.end_s = options_.timeline->now_s();
    options_.timeline->add(event);
  }

  const Schedule& schedule_;
  Communicator& pipeline_;
  StageRunner& runner_;
  const PipelineRank options_;
  std::map<Key, Parcel> inputs_;
  std::map<Key, MessageBytes> outputs_;
  std::vector<Parcel> sending_;
};

}  // namespace

void run_pipeline(const Schedule& schedule, Communicator& pipeline, StageRunner& runner,
                  const PipelineRank& rank) {
  if (pipeline.size() != schedule.n_ranks)
    throw CommError(fmt::format("a schedule of {} ranks cannot run on a communicator of {}",
                                schedule.n_ranks, pipeline.size()));
  const HoldingBaton holding(rank.baton);
  Executor(schedule, pipeline, runner, rank).run();
}

std::vector<StageHolder> holders_of(const Schedule& schedule, int stage) {
  std::vector<StageHolder> holders;
  for (int phase = 0; phase < schedule.n_phases(); ++phase)
    for (int rank = 0; rank < schedule.n_ranks; ++rank)
      if (schedule.stage(rank, phase) == stage) holders.push_back({rank, phase});
  return holders;
}

int index_of(const Schedule& schedule, MicroBatch micro_batch) {
  const bool second_half = schedule.kind == ScheduleKind::DualPipe && micro_batch.phase == 1;
  return micro_batch.chunk + (second_half ? schedule.chunks_per_phase() : 0);
}

}  // namespace minke
