// For tests: steps with sharded states, on every form of the communicator
// (parallel/communicator_suite.h says what a form is).
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <list>
#include <vector>

#include "base/function_ref.h"
#include "parallel/mesh.h"
#include "parallel/zero1.h"

namespace minke::test {

// A list of tensors of one dtype with weights and the gradients of micro-batches.
class ShardedCase {
 public:
  ShardedCase(DType dtype, const std::vector<Shape>& shapes) : dtype_(dtype), shapes_(shapes) {
    Index first_piece = 0;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      Tensor& weight = filled(shapes[i], 0.01 * static_cast<double>(i + 1));
      tensors_.push_back(
          {"tensor." + std::to_string(i), &weight, shapes[i].size() > 1, first_piece});
      first_piece += (weight.size() + kPiece - 1) / kPiece;
    }
    n_pieces_ = first_piece;
  }

  const std::vector<ShardedTensor>& tensors() const { return tensors_; }
  Index n_pieces() const { return n_pieces_; }

  std::vector<GradientTerm> gradients(IndexRange micro_batches) {
    std::vector<GradientTerm> terms;
    for (Index m = micro_batches.begin; m < micro_batches.end; ++m) {
      terms.push_back({m, {}});
      for (const Shape& shape : shapes_)
        terms.back().parts.push_back(
            {&filled(shape, std::pow(7.0, static_cast<double>(m % 3))), 0});
    }
    return terms;
  }

  std::vector<std::byte> weight_bytes() const {
    std::vector<std::byte> bytes;
    for (const ShardedTensor& tensor : tensors_) {
      const auto* begin = static_cast<const std::byte*>(tensor.weight->raw());
      bytes.insert(bytes.end(), begin, begin + tensor.weight->bytes());
    }
    return bytes;
  }

 private:
  Tensor& filled(const Shape& shape, double scale) {
    Tensor& tensor = memory_.emplace_back(dtype_, shape);
    dtype_ == DType::F64 ? fill(tensor.flat<double>(), scale) : fill(tensor.flat(), scale);
    return tensor;
  }
  template <class T>
  static void fill(View1<T> values, double scale) {
    for (Index i = 0; i < values.size(); ++i)
      values(i) = static_cast<T>(scale * (static_cast<double>((31 * i) % 997) - 498.3));
  }

  const DType dtype_;
  const std::vector<Shape> shapes_;
  std::list<Tensor> memory_;
  std::vector<ShardedTensor> tensors_;
  Index n_pieces_ = 0;
};

// Two steps on the ranks of `c`: the norms, then the bytes of all weights.
struct ShardedRun {
  std::vector<double> norms;
  std::vector<std::byte> weights;
};

inline ShardedRun run_sharded(Communicator& c, ShardedCase& model, const ShardSettings& settings) {
  ShardedOptimizer optimizer(c, model.tensors(), settings);
  ShardedRun run;
  for (int step = 1; step <= 2; ++step) {
    optimizer.reduce_gradients(model.gradients(share_of(5, c.size(), c.rank())));
    run.norms.push_back(gradient_norm(c, optimizer.squares(), model.n_pieces()));
    optimizer.update({.lr = 0.01,
                      .weight_decay = 0.1,
                      .step = step,
                      .gradient_scale = std::min(1.0, 1 / run.norms.back())});
    optimizer.gather_weights();
    if (settings.ema) optimizer.update_ema({.decay = 0.9, .n = step});
  }
  run.weights = model.weight_bytes();
  return run;
}

// Big ones of several pieces, small ones, one that is empty.
inline std::vector<Shape> several_shapes() {
  return {{3, 11000}, {17}, {0, 5}, {1, 1}, {2, kPiece}, {129}};
}

template <class Form>
struct Zero1Suite : testing::Test {};
TYPED_TEST_SUITE_P(Zero1Suite);

TYPED_TEST_P(Zero1Suite, AStepHasTheBitsOfOneRank) {
  struct Types {
    DType weights, moments;
  };
  for (const Types types : {Types{DType::F32, DType::BF16}, Types{DType::F32, DType::F32},
                            Types{DType::F64, DType::F64}, Types{DType::F64, DType::BF16}}) {
    ShardedCase alone(types.weights, several_shapes());
    const ShardedRun expected = run_sharded(*one_rank(), alone, {.moments = types.moments});
    EXPECT_GT(expected.norms[0], 1);
    TypeParam::run([&](Communicator& c) {
      ShardedCase shared(types.weights, several_shapes());
      const ShardedRun got = run_sharded(c, shared, {.moments = types.moments});
      EXPECT_EQ(got.norms, expected.norms);
      EXPECT_TRUE(got.weights == expected.weights);
    });
  }
}

// Moments and averages of a rank are those of its part of the tensors on one rank.
TYPED_TEST_P(Zero1Suite, StatesAreThoseOfOneRankInSlices) {
  const ShardSettings settings{.moments = DType::BF16, .ema = DType::BF16};
  const auto step = [](ShardedOptimizer& optimizer, ShardedCase& model, IndexRange micro_batches) {
    optimizer.reduce_gradients(model.gradients(micro_batches));
    optimizer.update({.lr = 0.01});
    optimizer.update_ema({.decay = 0.9, .n = 3});
  };
  ShardedCase alone(DType::F32, several_shapes());
  const std::unique_ptr<Communicator> one = one_rank();
  ShardedOptimizer whole(*one, alone.tensors(), settings);
  step(whole, alone, {0, 5});
  TypeParam::run([&](Communicator& c) {
    ShardedCase shared(DType::F32, several_shapes());
    ShardedOptimizer part(c, shared.tensors(), settings);
    step(part, shared, share_of(5, c.size(), c.rank()));
    const auto same = [](const Tensor& a, Index begin, const Tensor& b) {
      const auto skipped = static_cast<std::size_t>(begin) * size_of(a.dtype());
      return a.dtype() == b.dtype() &&
             std::memcmp(static_cast<const std::byte*>(a.raw()) + skipped, b.raw(), b.bytes()) == 0;
    };
    for (const OwnedSlice& slice : part.slices())
      for (const OwnedSlice& all : whole.slices())
        if (all.tensor == slice.tensor) {
          EXPECT_TRUE(same(all.first, slice.begin, slice.first)) << slice.tensor;
          EXPECT_TRUE(same(all.second, slice.begin, slice.second)) << slice.tensor;
          EXPECT_TRUE(same(all.ema, slice.begin, slice.ema)) << slice.tensor;
        }
    EXPECT_GE(whole.slices().size(), part.slices().size());
  });
}

TYPED_TEST_P(Zero1Suite, TheNormNeedsEveryPieceOnce) {
  TypeParam::run([](Communicator& c) {
    const std::vector<PieceSum> own{{c.rank(), 4.0}};
    EXPECT_EQ(gradient_norm(c, own, c.size()), 2 * std::sqrt(static_cast<double>(c.size())));
    const auto message = [&](std::span<const PieceSum> pieces, Index n) {
      try {
        gradient_norm(c, pieces, n);
      } catch (const CommError& error) {
        return std::string(error.what());
      }
      return std::string("no error");
    };
    const auto ends_with = [](const std::string& text, Index n) {
      const std::string end = " is " + std::to_string(n);
      return text.size() > end.size() && text.substr(text.size() - end.size()) == end;
    };
    EXPECT_TRUE(ends_with(message(own, c.size() + 1), c.size()));
    EXPECT_TRUE(ends_with(message(own, c.size() - 1), c.size() - 1));
    const std::vector<PieceSum> twice{{c.rank(), 1.0}, {c.rank(), 1.0}};
    EXPECT_TRUE(ends_with(message(twice, 2 * c.size()), 1));
    EXPECT_EQ(gradient_norm(c, {}, 0), 0.0);
    const std::vector<PieceSum> nan{{c.rank(), std::nan("")}};
    EXPECT_TRUE(std::isnan(gradient_norm(c, nan, c.size())));
  });
}

REGISTER_TYPED_TEST_SUITE_P(Zero1Suite, AStepHasTheBitsOfOneRank, StatesAreThoseOfOneRankInSlices,
                            TheNormNeedsEveryPieceOnce);

}  // namespace minke::test
