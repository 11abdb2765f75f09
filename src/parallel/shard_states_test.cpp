#include "parallel/shard_states.h"

#include <gtest/gtest.h>

#include <cstring>
#include <list>

#include "parallel/thread_ranks.h"

namespace minke {
namespace {

// Sizes around those of pieces: tensors cut over ranks, several on one rank, one of one element.
const std::vector<Shape> kShapes{{3, kPiece}, {5}, {1}, {kPiece + 7}, {2, 40}};

struct Tensors {
  std::list<Tensor> memory;
  std::vector<Tensor*> list;

  explicit Tensors(DType dtype) {
    for (const Shape& shape : kShapes) list.push_back(&memory.emplace_back(dtype, shape));
  }
};

// Another value for each element, exact in BF16.
float value(std::size_t tensor, Index i) {
  return static_cast<float>((i * 7 + static_cast<Index>(tensor) * 11) % 251);
}

std::vector<ShardedTensor> sharded(const Tensors& weights) {
  std::vector<ShardedTensor> tensors;
  for (Tensor* weight : weights.list) tensors.push_back({.name = "t", .weight = weight});
  return tensors;
}

TEST(ShardStatesThreads, OwnedSlicesAreThoseOfTheOptimizer) {
  std::vector<Index> sizes;
  for (const Shape& shape : kShapes) sizes.push_back(element_count(shape));
  for (const int n : {1, 2, 3, 8})
    run_ranks(n, [&](Communicator& group) {
      const Tensors weights(DType::F32);
      ShardedOptimizer optimizer(group, sharded(weights), {});
      const std::vector<Piece> slices = owned_slices(sizes, n, group.rank());
      ASSERT_EQ(slices.size(), optimizer.slices().size());
      for (std::size_t i = 0; i < slices.size(); ++i) {
        EXPECT_EQ(slices[i].tensor, optimizer.slices()[i].tensor);
        EXPECT_EQ(slices[i].begin, optimizer.slices()[i].begin);
        EXPECT_EQ(slices[i].count, optimizer.slices()[i].count);
      }
    });
}

TEST(ShardStatesThreads, MomentsComeBackWhole) {
  for (const DType dtype : {DType::BF16, DType::F32})
    for (const int n : {1, 3})
      run_ranks(n, [&](Communicator& group) {
        const Tensors weights(DType::F32);
        Tensors first(dtype), second(dtype), first_back(dtype), second_back(dtype);
        for (std::size_t t = 0; t < first.list.size(); ++t)
          for (Index i = 0; i < first.list[t]->size(); ++i)
            if (dtype == DType::BF16) {
              first.list[t]->flat<BF16>()(i) = BF16(value(t, i));
              second.list[t]->flat<BF16>()(i) = BF16(-value(t, i));
            } else {
              first.list[t]->flat()(i) = value(t, i);
              second.list[t]->flat()(i) = -value(t, i);
            }
        ShardedOptimizer optimizer(group, sharded(weights), {.moments = dtype});
        take_moments({first.list, second.list}, optimizer);
        std::vector<int> to;  // in turn
        for (std::size_t t = 0; t < first.list.size(); ++t)
          to.push_back(static_cast<int>(t) % group.size());
        gather_moments(group, optimizer, to, {first_back.list, second_back.list});
        for (std::size_t t = 0; t < first.list.size(); ++t) {
          if (to[t] != group.rank()) continue;
          for (const auto& [was, is] : {std::pair{first.list[t], first_back.list[t]},
                                        std::pair{second.list[t], second_back.list[t]}})
            EXPECT_EQ(std::memcmp(was->raw(), is->raw(), static_cast<std::size_t>(was->bytes())), 0)
                << n << " ranks, tensor " << t;
        }
      });
}

TEST(ShardStatesThreads, AveragesComeBackWholeOnEveryRank) {
  run_ranks(3, [&](Communicator& group) {
    const Tensors weights(DType::F32);
    Tensors average(DType::F32), back(DType::F32);
    for (std::size_t t = 0; t < average.list.size(); ++t)
      for (Index i = 0; i < average.list[t]->size(); ++i) average.list[t]->flat()(i) = value(t, i);
    ShardedOptimizer optimizer(group, sharded(weights), {.ema = DType::F32});
    take_averages(average.list, optimizer);
    gather_averages(group, optimizer, back.list);
    for (std::size_t t = 0; t < average.list.size(); ++t)
      EXPECT_EQ(std::memcmp(average.list[t]->raw(), back.list[t]->raw(), back.list[t]->bytes()), 0)
          << "tensor " << t;
  });
}

// The sum is whole on every rank, whoever owns which part.
TEST(ShardStatesThreads, GradientsCanBeLookedAtWhole) {
  run_ranks(3, [&](Communicator& group) {
    const Tensors weights(DType::F32), gradient(DType::F32), whole(DType::F32);
    for (std::size_t t = 0; t < gradient.list.size(); ++t)
      for (Index i = 0; i < gradient.list[t]->size(); ++i)
        gradient.list[t]->flat()(i) = value(t, i);
    ShardedOptimizer optimizer(group, sharded(weights), {});
    const GradientTerm term = whole_term(group.rank(), gradient.list);
    optimizer.reduce_gradients(std::span(&term, 1));
    optimizer.gather_gradients(whole.list);
    Index wrong = 0;
    for (std::size_t t = 0; t < whole.list.size(); ++t)
      for (Index i = 0; i < whole.list[t]->size(); ++i)
        wrong += whole.list[t]->flat()(i) != 3 * value(t, i);
    EXPECT_EQ(wrong, 0);
  });
}

}  // namespace
}  // namespace minke
