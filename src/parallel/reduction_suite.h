// For tests: sums over ranks, on every form of the communicator (parallel/communicator_suite.h says
// what a form is).
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/function_ref.h"
#include "parallel/reduction.h"

namespace minke::test {

// Values of very different sizes: their sum depends on the order.
template <class T>
std::vector<T> micro_batch_gradient(Index m, Index n) {
  constexpr double kScales[] = {1, 1e3, 1e-3, 1e6, 1e-6, 1e8, 1e-1};
  std::vector<T> values;
  for (Index i = 0; i < n; ++i)
    values.push_back(static_cast<T>((static_cast<double>((17 * m + i) % 1013) - 500.3) *
                                    kScales[(3 * m + i) % 7]));
  return values;
}

template <class T>
std::vector<T> sum_of_all(Index n_micro_batches, Index n) {
  std::vector<T> total = micro_batch_gradient<T>(0, n);
  for (Index m = 1; m < n_micro_batches; ++m) {
    const std::vector<T> term = micro_batch_gradient<T>(m, n);
    for (std::size_t i = 0; i < total.size(); ++i) total[i] += term[i];
  }
  return total;
}

template <class T>
View1<T> view_of(std::vector<T>& values) {
  return View1<T>(values.data(), {static_cast<Index>(values.size())});
}

template <class Form>
struct ReductionSuite : testing::Test {};
TYPED_TEST_SUITE_P(ReductionSuite);

// Micro-batches in contiguous shares, gradients in three tensors, ranges that cut them: every rank
// gets its part of what one rank would have summed.
template <class T>
void expect_order_of_micro_batches(Communicator& c, Index n_micro_batches, Index n) {
  const IndexRange mine = share_of(n_micro_batches, c.size(), c.rank());
  std::vector<std::vector<T>> gradients;
  for (Index m = mine.begin; m < mine.end; ++m) gradients.push_back(micro_batch_gradient<T>(m, n));
  std::vector<FlatRow<const T>> terms;
  for (std::vector<T>& gradient : gradients) {
    const View1<const T> all = view_of(gradient);
    const Index third = n / 3;
    terms.emplace_back(std::vector{all.slice(0, 0, third), all.slice(0, third, 0),
                                   all.slice(0, third, n - third)});
  }
  std::vector<IndexRange> ranges;
  for (int r = 0; r < c.size(); ++r) ranges.push_back(share_of(n, c.size(), r));
  const IndexRange own = ranges[static_cast<std::size_t>(c.rank())];
  std::vector<T> result(static_cast<std::size_t>(own.size()), T{-1});
  reduce_scatter<T>(c, terms, ranges, view_of(result));
  const std::vector<T> total = sum_of_all<T>(n_micro_batches, n);
  EXPECT_TRUE(std::equal(result.begin(), result.end(), total.begin() + own.begin))
      << n_micro_batches << " micro-batches, " << n << " elements";
}

// The same total of micro-batches dealt out like cards, the last one first: their numbers tell the
// order.
template <class T>
void expect_order_of_numbers(Communicator& c, Index n_micro_batches, Index n) {
  std::vector<Index> numbers;
  std::vector<std::vector<T>> gradients;
  for (Index m = n_micro_batches; m-- > 0;)
    if (m % c.size() == c.rank()) {
      numbers.push_back(10 * m);
      gradients.push_back(micro_batch_gradient<T>(m, n));
    }
  std::vector<FlatRow<const T>> terms;
  for (std::vector<T>& gradient : gradients)
    terms.emplace_back(std::vector<View1<const T>>{view_of(gradient)});
  std::vector<IndexRange> ranges;
  for (int r = 0; r < c.size(); ++r) ranges.push_back(share_of(n, c.size(), r));
  const IndexRange own = ranges[static_cast<std::size_t>(c.rank())];
  std::vector<T> result(static_cast<std::size_t>(own.size()), T{-1});
  reduce_scatter<T>(c, terms, numbers, ranges, view_of(result));
  const std::vector<T> total = sum_of_all<T>(n_micro_batches, n);
  EXPECT_TRUE(std::equal(result.begin(), result.end(), total.begin() + own.begin))
      << n_micro_batches << " numbered micro-batches, " << n << " elements";
}

TYPED_TEST_P(ReductionSuite, TheOrderOfMicroBatchesIsThatOfOneRank) {
  TypeParam::run([](Communicator& c) {
    for (const Index n_micro_batches : {1, 5, 8})  // 1: most ranks have none
      for (const Index n : {0, 1, 2, 7, 100}) {
        expect_order_of_micro_batches<float>(c, n_micro_batches, n);
        expect_order_of_micro_batches<double>(c, n_micro_batches, n);
        expect_order_of_numbers<float>(c, n_micro_batches, n);
        expect_order_of_numbers<double>(c, n_micro_batches, n);
      }
  });
}

// Of several rounds.
TYPED_TEST_P(ReductionSuite, LongRows) {
  TypeParam::run([](Communicator& c) {
    expect_order_of_micro_batches<float>(c, 2, (Index{1} << 20) + 12345);
  });
}

TYPED_TEST_P(ReductionSuite, AllReduceIsInTheOrderOfRanks) {
  TypeParam::run([](Communicator& c) {
    for (const Index n : {0, 1, 3, 1000}) {
      std::vector<float> values = micro_batch_gradient<float>(c.rank(), n);
      all_reduce(c, view_of(values));
      EXPECT_EQ(values, sum_of_all<float>(c.size(), n));
    }
    std::vector<std::int64_t> loads{c.rank(), std::int64_t{1} << 53, 1};
    all_reduce(c, view_of(loads));
    const std::int64_t ranks = c.size();
    EXPECT_EQ(loads, (std::vector<std::int64_t>{ranks * (ranks - 1) / 2,
                                                ranks * (std::int64_t{1} << 53), ranks}));
  });
}

TYPED_TEST_P(ReductionSuite, RangesOfEveryRankGoToAll) {
  TypeParam::run([](Communicator& c) {
    std::vector<double> first(10, -1), second(7, -1);
    const FlatRow<double> row({view_of(first), view_of(second)});
    std::vector<IndexRange> ranges;
    for (int r = 0; r < c.size(); ++r) ranges.push_back(share_of(17, c.size(), r));
    const IndexRange own = ranges[static_cast<std::size_t>(c.rank())];
    Index next = own.begin;
    for (const View1<double>& piece : row.pieces(own))
      for (Index i = 0; i < piece.size(); ++i) piece(i) = static_cast<double>(next++);
    gather_ranges(c, ranges, row);
    for (Index i = 0; i < 10; ++i) EXPECT_EQ(first[static_cast<std::size_t>(i)], i);
    for (Index i = 0; i < 7; ++i) EXPECT_EQ(second[static_cast<std::size_t>(i)], 10 + i);
  });
}

// An element goes to its owner once for each micro-batch of this rank, and nothing more goes out
// but the number of terms.
TYPED_TEST_P(ReductionSuite, BytesAreThoseOfTheTermsOfOthersRanges) {
  TypeParam::run([](Communicator& c) {
    const Index n = 24 * c.size();
    std::vector<float> one(static_cast<std::size_t>(n)), two = one, own(24);
    const std::vector<FlatRow<const float>> terms{
        FlatRow<const float>({View1<const float>(view_of(one))}),
        FlatRow<const float>({View1<const float>(view_of(two))})};
    std::vector<IndexRange> ranges;
    for (int r = 0; r < c.size(); ++r) ranges.push_back(share_of(n, c.size(), r));
    const std::uint64_t before = c.bytes_sent();
    reduce_scatter<float>(c, terms, ranges, view_of(own));
    const auto others = static_cast<std::uint64_t>(c.size() - 1);
    EXPECT_EQ(c.bytes_sent() - before, others * (2 * 24 * sizeof(float) + sizeof(Index)));
  });
}

TYPED_TEST_P(ReductionSuite, RangesThatDoNotFit) {
  TypeParam::run([](Communicator& c) {
    std::vector<float> row(4), own(4);
    const FlatRow<const float> term({View1<const float>(view_of(row))});
    const auto reduce = [&](Index end) {
      const std::vector<IndexRange> ranges(static_cast<std::size_t>(c.size()), {0, end});
      reduce_scatter<float>(c, std::span(&term, 1), ranges, view_of(own));
    };
    EXPECT_THROW(reduce(3), CommError);
    own.resize(5);
    EXPECT_THROW(reduce(5), CommError);
    EXPECT_THROW(reduce_scatter<float>(c, std::span(&term, 1), {}, view_of(own)), CommError);
  });
}

REGISTER_TYPED_TEST_SUITE_P(ReductionSuite, TheOrderOfMicroBatchesIsThatOfOneRank, LongRows,
                            AllReduceIsInTheOrderOfRanks, RangesOfEveryRankGoToAll,
                            BytesAreThoseOfTheTermsOfOthersRanges, RangesThatDoNotFit);

}  // namespace minke::test
