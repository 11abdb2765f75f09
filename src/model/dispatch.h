// Sending tokens to their experts and back. The layer below expert parallelism: model/ asks, a
// communicator answers. LocalDispatch is the answer of one rank that holds every expert. Rows are
// FP32 or double, those of one call all of one type; operands of linears may be rounded to BF16.
#pragma once
#include <functional>
#include <memory>
#include <span>

#include "ops/fp8_tiles.h"
#include "ops/permute.h"
#include "tensor/tensor.h"

namespace minke {

class Dispatch {
 public:
  virtual ~Dispatch() = default;

  // indices [T, K] -> which rows come here. The experts held here are those of this rank, in order;
  // rows [offsets()[e], offsets()[e + 1]) belong to the e-th of them.
  virtual void plan(View2<const std::int32_t> indices, Index n_experts) = 0;
  virtual std::span<const Index> offsets() const = 0;
  // The rows of an expert are sorted by the rank that they come from, then by token: rows
  // [segments()[e * S + s], segments()[e * S + s + 1]) come from source s of S = n_sources().
  virtual std::span<const Index> segments() const = 0;
  virtual Index n_sources() const = 0;

  // x [T, D] -> the rows that came here, sorted by expert.
  virtual Tensor send(View2<const float> x) = 0;
  virtual Tensor send(View2<const double> x) = 0;
  virtual Tensor send(View2<const BF16> x) = 0;
  // A token's codes and scales as they are: FP8 dispatch (the report, 3.3.3).
  virtual Fp8Rows send(const Fp8View& x) = 0;
  // Rows on their way: send() of the same x waits for them, and other work fits between both.
  virtual void begin_send(View2<const float>) {}
  virtual void begin_send(View2<const double>) {}
  virtual void begin_send(View2<const BF16>) {}
  virtual void begin_send(const Fp8View&) {}
  // Gate weights on their way, where the ranks of experts apply them: combine() of the same weights
  // waits for them.
  virtual void begin_combine(View2<const float>) {}
  virtual void begin_combine(View2<const double>) {}
  // What send() returned, once more, for B: x is the same. What came from other ranks was kept.
  virtual Tensor send_again(View2<const float> x) { return send(x); }
  virtual Tensor send_again(View2<const double> x) { return send(x); }
  virtual Tensor send_again(View2<const BF16> x) { return send(x); }
  virtual Fp8Rows send_again(const Fp8View& x) { return send(x); }
  // y [T, D] += sum_k weights[t, k] * (row of expert k of token t).
  virtual void combine(View2<const float> rows, View2<const float> weights, View2<float> y) = 0;
  virtual void combine(View2<const double> rows, View2<const double> weights, View2<double> y) = 0;

  // The gradients: of combine (-> drows as rows, dweights [T, K]) and of send (dx += ...). dweights
  // may be on their way until send_backward returns.
  virtual void combine_backward(View2<const float> dy, View2<const float> rows,
                                View2<const float> weights, View2<float> drows,
                                View2<float> dweights) = 0;
  virtual void combine_backward(View2<const float> dy, View2<const float> rows,
                                View2<const float> weights, View2<BF16> drows,
                                View2<float> dweights) = 0;
  virtual void combine_backward(View2<const double> dy, View2<const double> rows,
                                View2<const double> weights, View2<double> drows,
                                View2<double> dweights) = 0;
  virtual void send_backward(View2<const float> drows, View2<float> dx) = 0;
  virtual void send_backward(View2<const double> drows, View2<double> dx) = 0;
  // As begin_send.
  virtual void begin_send_backward(View2<const float>) {}
  virtual void begin_send_backward(View2<const double>) {}
};

// Makes the dispatch of one MoE layer, by its number in published names, and micro-batch.
using DispatchFactory = std::function<std::unique_ptr<Dispatch>(Index layer)>;

class LocalDispatch final : public Dispatch, public InBlock {
 public:
  void plan(View2<const std::int32_t> indices, Index n_experts) override;
  std::span<const Index> offsets() const override { return order_.offsets; }
  std::span<const Index> segments() const override { return order_.offsets; }
  Index n_sources() const override { return 1; }
  Tensor send(View2<const float> x) override;
  Tensor send(View2<const double> x) override;
  Tensor send(View2<const BF16> x) override;
  Fp8Rows send(const Fp8View& x) override;
  void combine(View2<const float> rows, View2<const float> weights, View2<float> y) override;
  void combine(View2<const double> rows, View2<const double> weights, View2<double> y) override;
  void combine_backward(View2<const float> dy, View2<const float> rows, View2<const float> weights,
                        View2<float> drows, View2<float> dweights) override;
  void combine_backward(View2<const float> dy, View2<const float> rows, View2<const float> weights,
                        View2<BF16> drows, View2<float> dweights) override;
  void combine_backward(View2<const double> dy, View2<const double> rows,
                        View2<const double> weights, View2<double> drows,
                        View2<double> dweights) override;
  void send_backward(View2<const float> drows, View2<float> dx) override;
  void send_backward(View2<const double> drows, View2<double> dx) override;

 private:
  ExpertOrder order_;
};

}  // namespace minke
