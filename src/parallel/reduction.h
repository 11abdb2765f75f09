// Sums over ranks in an order that does not depend on how the ranks are laid out: the terms travel,
// one rank adds them. MPI's own sums go in trees whose shape depends on the number of ranks.
//
//   total[i] = ((t_0[i] + t_1[i]) + t_2[i]) + ...     terms of rank 0 in their order, then of rank
//   1, ...
//
// or, of numbered terms, in the order of their numbers, whichever ranks they are on. With one term
// a rank the first is the order of ranks. With a term for each micro-batch, numbered, the second
// has the same bits on any number of ranks, one included. Every element then travels once for each
// micro-batch instead of once for each rank; that is the price of the fixed order.
#pragma once
#include <span>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/mesh.h"
#include "tensor/view.h"

namespace minke {

// Numbers of several tensors as one row, one tensor after another; owns none of them.
template <class T>
class FlatRow {
 public:
  FlatRow() = default;
  explicit FlatRow(std::vector<View1<T>> parts);

  Index size() const { return begins_.back(); }
  // The dense pieces that make up `range`, in order.
  std::vector<View1<T>> pieces(IndexRange range) const;

 private:
  std::vector<View1<T>> parts_;
  std::vector<Index> begins_{0};  // of each part in the row, and the row's end
};

// Collective. terms: any number, of one size, the same on all ranks. Rank r gets the total of
// ranges[r]: own [ranges[rank].size()]. The ranges are the same on all ranks. T is float, double or
// std::int64_t. CommError when own or a range does not fit.
template <class T>
void reduce_scatter(Communicator& communicator, std::span<const FlatRow<const T>> terms,
                    std::span<const IndexRange> ranges, View1<T> own);
// numbers: one for each term, no two terms of any ranks having the same.
template <class T>
void reduce_scatter(Communicator& communicator, std::span<const FlatRow<const T>> terms,
                    std::span<const Index> numbers, std::span<const IndexRange> ranges,
                    View1<T> own);

// Collective. What rank r has in ranges[r] of its row goes to the rows of all.
template <class T>
void gather_ranges(Communicator& communicator, std::span<const IndexRange> ranges,
                   const FlatRow<T>& row);

// Collective. values <- the sum over the ranks, in their order, on every rank.
template <class T>
void all_reduce(Communicator& communicator, View1<T> values);

}  // namespace minke
