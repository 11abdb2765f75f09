#include "infer/expert_ranks.h"

#include <fmt/format.h>

#include <thread>
#include <type_traits>

#include "base/error.h"
#include "model/experts.h"

namespace minke {
namespace {

constexpr ExchangeForm kFromRank0{.from_rank_0 = true};
constexpr int kCallTag = 0, kLoadedTag = 1;
enum What : std::int32_t { kLoad, kLayer, kEnd };

struct Call {
  std::int32_t what = kEnd;
  std::int32_t mtp = 0;     // kLoad
  std::int64_t number = 0;  // kLoad: routed experts of a layer, kLayer: which
};

std::string place(Index layer) {
  return fmt::format("experts of layer {}", layer);
}

}  // namespace

// The dispatch of one layer on rank 0. The others answer a call once it was made, so that an error
// on the way here cannot be survived: it ends the job.
class CalledExperts final : public ExpertExchange {
 public:
  CalledExperts(ExpertCaller& caller, Index layer)
      : ExpertExchange(*caller.group_), caller_(caller), layer_(layer) {}
  ~CalledExperts() override {
    if (under_way_)
      caller_.ranks_->abort("a pass failed while rows were with the experts of other ranks");
  }

  void plan(View2<const std::int32_t> indices, Index n_experts) override {
    under_way_ = true;
    guarded([&] {
      caller_.call(kLayer, layer_);
      ExpertExchange::plan(indices, n_experts);
    });
  }
  using ExpertExchange::send;
  Tensor send(View2<const float> x) override {
    return guarded([&] { return ExpertExchange::send(x); });
  }
  using ExpertExchange::combine;
  void combine(View2<const float> rows, View2<const float> weights, View2<float> y) override {
    guarded([&] { ExpertExchange::combine(rows, weights, y); });
    under_way_ = false;
  }

 private:
  // Says what the error is before the job ends.
  template <class F>
  std::invoke_result_t<F> guarded(F f) {
    try {
      return f();
    } catch (const std::exception& error) {
      caller_.ranks_->abort(error.what());
      throw;
    }
  }

  ExpertCaller& caller_;
  const Index layer_;
  bool under_way_ = false;
};

// ---- rank 0

ExpertCaller::ExpertCaller(Communicator& ranks, std::chrono::milliseconds bound)
    : ranks_(ranks.split(0, ranks.rank())), bound_(bound) {}

void ExpertCaller::call(std::int32_t what, Index number, bool mtp) {
  if (what == kLayer) ranks_->set_progress(++n_layers_called_, place(number));
  const Call call{what, mtp, number};
  std::vector<Request> sent;
  for (int r = 1; r < n_ranks(); ++r)
    sent.push_back(ranks_->send(std::as_bytes(std::span(&call, 1)), r, kCallTag));
  wait_all(sent);
}

ExpertRange ExpertCaller::call_to_load(const ModelConfig& config, bool mtp) {
  const Index n = config.n_routed_experts;
  if (n == 0)
    throw ConfigError(fmt::format(
        "the model has no routed experts to be spread over {} ranks; start it on one", n_ranks()));
  if (n % n_ranks() != 0)
    throw ConfigError(
        fmt::format("{} routed experts of a layer cannot be shared out evenly over {} ranks; start "
                    "a number of ranks that divides {}",
                    n, n_ranks(), n));
  call(kLoad, n, mtp);
  for (int r = 1; r < n_ranks(); ++r) loaded_.push_back(ranks_->receive({}, r, kLoadedTag));
  group_.emplace(*ranks_, n, kFromRank0);
  return group_->held();
}

void ExpertCaller::attach_to(Model& model, const std::function<bool()>& cancelled) {
  for (Request& loaded : loaded_)
    while (!loaded->test()) {
      if (cancelled && cancelled()) throw Interrupted("");
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  ranks_->set_timeout(bound_);
  model.make_dispatch = [this](Index layer) {
    return std::make_unique<CalledExperts>(*this, layer);
  };
}

void ExpertCaller::end() {
  ranks_->set_timeout(std::chrono::milliseconds(0));  // the others may be reading a tensor
  call(kEnd, 0);
  wait_all(loaded_);
}

// ---- the others

namespace {

// The next call, which may come at any time.
class Calls {
 public:
  explicit Calls(Communicator& ranks) : ranks_(ranks) { expect(); }

  bool ended() { return arriving_->test() && call_.what == kEnd; }
  Call next() {
    ranks_.set_progress(n_, "waiting for work");
    arriving_->wait_idle();
    const Call call = call_;
    if (call.what == kLayer) ranks_.set_progress(++n_, place(call.number));
    if (call.what != kEnd) expect();
    return call;
  }

 private:
  void expect() {
    arriving_ = ranks_.receive(std::as_writable_bytes(std::span(&call_, 1)), 0, kCallTag);
  }

  Communicator& ranks_;
  Call call_;
  Request arriving_;
  std::int64_t n_ = 0;
};

// A layer of rank 0's pass, of which this rank has no tokens.
void answer(const Model& model, ExpertGroup& group, Index layer) {
  const ModelConfig& c = model.config;
  const Index D = c.hidden_size, K = c.num_experts_per_tok;
  const Tensor no_choices = Tensor::uninitialized(DType::I32, {0, K});
  const Tensor no_weights = Tensor::uninitialized({0, K});
  Tensor no_rows = Tensor::uninitialized({0, D});
  ExpertExchange exchange(group);
  exchange.plan(no_choices.view<std::int32_t, 2>(), c.n_routed_experts);
  const Operand rows{share(exchange.send(std::as_const(no_rows).v2())), nullptr};
  Tensor out = Tensor::uninitialized({exchange.offsets().back(), D});
  if (out.extent(0) > 0)
    experts_forward(model, moe_of(c, model.weights, layer), exchange.offsets(), rows, out.v2());
  exchange.combine(std::as_const(out).v2(), no_weights.v2(), no_rows.v2());
}

}  // namespace

void hold_experts(Communicator& ranks, std::chrono::milliseconds bound,
                  FunctionRef<std::optional<Model>(const ExpertLoad&)> load) {
  const std::unique_ptr<Communicator> own = ranks.split(0, ranks.rank());
  Calls calls(*own);
  const Call first = calls.next();
  if (first.what == kEnd) return;
  ExpertGroup group(*own, first.number, kFromRank0);
  const std::optional<Model> model =
      load({group.held(), first.mtp != 0, [&] { return calls.ended(); }});
  Request loaded = own->send({}, 0, kLoadedTag);
  wait(loaded);
  own->set_timeout(bound);
  for (Call call = calls.next(); call.what != kEnd; call = calls.next())
    answer(*model, group, call.number);
}

}  // namespace minke
