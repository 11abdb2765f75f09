#include "parallel/reduction.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/threads.h"
#include "ops/permute.h"

namespace minke {
namespace {

constexpr Index kGrain = 1 << 15;  // elements that a thread adds while they are in its cache

template <class T>
std::span<std::byte> bytes_of(View1<T> values) {
  return std::as_writable_bytes(std::span(values.data(), static_cast<std::size_t>(values.size())));
}

template <class T>
View2<T> as_row(View1<T> values) {
  return reshape<2>(values, {1, values.size()});
}

void add_to(View1<const float> term, View1<float> sum) {
  minke::add_to(as_row(term), as_row(sum));
}
void add_to(View1<const double> term, View1<double> sum) {
  minke::add_to(as_row(term), as_row(sum));
}
void add_to(View1<const std::int64_t> term, View1<std::int64_t> sum) {
  for (Index i = 0; i < sum.size(); ++i) sum(i) += term(i);
}

// Terms lie one after another in `terms`; their sum, order[0] first, goes to `sum`.
template <class T>
void sum_in_order(std::span<const T> terms, std::span<const std::size_t> order, View1<T> sum) {
  const Index n = sum.size();
  if (n == 0) return;
  const auto n_terms = static_cast<Index>(order.size());
  parallel_ranges(n, kGrain, [&](Index begin, Index end) {
    const View1<T> part = sum.slice(0, begin, end - begin);
    const auto term = [&](Index k) {
      const auto at = static_cast<Index>(order[static_cast<std::size_t>(k)]);
      return View1<const T>(terms.data() + at * n + begin, {end - begin});
    };
    if (n_terms == 0) std::fill_n(part.data(), part.size(), T{0});
    for (Index k = 0; k < n_terms; ++k)
      if (k == 0)
        std::memcpy(part.data(), term(0).data(), bytes_of(part).size());
      else
        add_to(term(k), part);
  });
}

// Ranges travel in rounds, so that buffers stay small; while one is added up, the next is under
// way. 2^20 elements of each term in a round, over all ranks.
Index round_size(int n_ranks) {
  return std::max<Index>(kGrain, (Index{1} << 20) / n_ranks);
}

IndexRange in_round(IndexRange range, Index round, Index size) {
  const Index begin = std::min(range.begin + round * size, range.end);
  return {begin, std::min(begin + size, range.end)};
}

// How many terms each rank has.
std::vector<Index> gather_counts(Communicator& communicator, Index own) {
  std::vector<Index> counts(static_cast<std::size_t>(communicator.size()));
  Request request = communicator.all_gather(std::as_bytes(std::span(&own, 1)),
                                            std::as_writable_bytes(std::span(counts)));
  wait(request);
  return counts;
}

// The places of the terms of all ranks in the order of their numbers.
std::vector<std::size_t> order_of_numbers(Communicator& communicator,
                                          std::span<const Index> n_terms,
                                          std::span<const Index> numbers) {
  std::vector<Index> to_all, from_all;
  std::vector<std::size_t> receive_sizes;
  for (const Index n : n_terms) {
    to_all.insert(to_all.end(), numbers.begin(), numbers.end());
    receive_sizes.push_back(static_cast<std::size_t>(n) * sizeof(Index));
    from_all.resize(from_all.size() + static_cast<std::size_t>(n));
  }
  const std::vector<std::size_t> send_sizes(n_terms.size(), numbers.size_bytes());
  Request request =
      communicator.all_to_all(std::as_bytes(std::span(to_all)), send_sizes,
                              std::as_writable_bytes(std::span(from_all)), receive_sizes);
  wait(request);
  std::vector<std::size_t> order(from_all.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return from_all[a] < from_all[b]; });
  return order;
}

// The terms of all ranks for a part of the own range, and the own terms for the parts of the
// others.
template <class T>
struct Round {
  std::vector<T> to_all, from_all;
  IndexRange part;
  Request request;
};

template <class T>
void start_round(Communicator& communicator, std::span<const FlatRow<const T>> terms,
                 std::span<const IndexRange> ranges, std::span<const Index> n_terms, Index number,
                 Round<T>& round) {
  const Index size = round_size(communicator.size());
  std::vector<std::size_t> send_sizes, receive_sizes;
  round.to_all.clear();
  for (const IndexRange& range : ranges) {
    const IndexRange part = in_round(range, number, size);
    for (const FlatRow<const T>& term : terms)
      for (const View1<const T>& piece : term.pieces(part))
        round.to_all.insert(round.to_all.end(), piece.data(), piece.data() + piece.size());
    send_sizes.push_back(static_cast<std::size_t>(part.size()) * terms.size() * sizeof(T));
  }
  round.part = in_round(ranges[static_cast<std::size_t>(communicator.rank())], number, size);
  std::size_t n_received = 0;
  for (const Index k : n_terms) {
    const auto n = static_cast<std::size_t>(k * round.part.size());
    receive_sizes.push_back(n * sizeof(T));
    n_received += n;
  }
  round.from_all.resize(n_received);
  round.request =
      communicator.all_to_all(std::as_bytes(std::span(round.to_all)), send_sizes,
                              std::as_writable_bytes(std::span(round.from_all)), receive_sizes);
}

template <class T>
void check_ranges(const Communicator& communicator, std::span<const FlatRow<const T>> terms,
                  std::span<const IndexRange> ranges, Index own) {
  const Index expected = ranges.size() == static_cast<std::size_t>(communicator.size())
                             ? ranges[static_cast<std::size_t>(communicator.rank())].size()
                             : -1;
  if (own != expected)
    throw CommError(
        fmt::format("reduce_scatter: {} ranges for {} ranks, a result of {} for a range of {}",
                    ranges.size(), communicator.size(), own, expected));
  for (const FlatRow<const T>& term : terms)
    for (const IndexRange& range : ranges)
      if (range.begin < 0 || range.begin > range.end || range.end > term.size())
        throw CommError(fmt::format("reduce_scatter: the range [{}, {}) of a term of {} elements",
                                    range.begin, range.end, term.size()));
}

template <class T>
void reduce_in_rounds(Communicator& communicator, std::span<const FlatRow<const T>> terms,
                      std::span<const Index> n_terms, std::span<const std::size_t> order,
                      std::span<const IndexRange> ranges, View1<T> own) {
  const Index size = round_size(communicator.size());
  Index n_rounds = 0;
  for (const IndexRange& range : ranges)
    n_rounds = std::max(n_rounds, (range.size() + size - 1) / size);

  Round<T> rounds[2];
  if (n_rounds > 0) start_round(communicator, terms, ranges, n_terms, 0, rounds[0]);
  const Index begin = ranges[static_cast<std::size_t>(communicator.rank())].begin;
  for (Index number = 0; number < n_rounds; ++number) {
    if (number + 1 < n_rounds)
      start_round(communicator, terms, ranges, n_terms, number + 1, rounds[(number + 1) % 2]);
    Round<T>& round = rounds[number % 2];
    wait(round.request);
    sum_in_order<T>(round.from_all, order,
                    own.slice(0, round.part.begin - begin, round.part.size()));
  }
}

}  // namespace

template <class T>
FlatRow<T>::FlatRow(std::vector<View1<T>> parts) : parts_(std::move(parts)) {
  for (const View1<T>& part : parts_) begins_.push_back(begins_.back() + part.size());
}

template <class T>
std::vector<View1<T>> FlatRow<T>::pieces(IndexRange range) const {
  std::vector<View1<T>> pieces;
  const auto after = std::upper_bound(begins_.begin(), begins_.end(), range.begin);
  for (auto i = static_cast<std::size_t>(after - begins_.begin()) - 1;
       i < parts_.size() && begins_[i] < range.end; ++i) {
    const Index begin = std::max(range.begin, begins_[i]);
    const Index end = std::min(range.end, begins_[i + 1]);
    if (end > begin) pieces.push_back(parts_[i].slice(0, begin - begins_[i], end - begin));
  }
  return pieces;
}

template <class T>
void reduce_scatter(Communicator& communicator, std::span<const FlatRow<const T>> terms,
                    std::span<const IndexRange> ranges, View1<T> own) {
  check_ranges(communicator, terms, ranges, own.size());
  const std::vector<Index> n_terms = gather_counts(communicator, static_cast<Index>(terms.size()));
  std::vector<std::size_t> as_they_come(
      static_cast<std::size_t>(std::accumulate(n_terms.begin(), n_terms.end(), Index{0})));
  std::iota(as_they_come.begin(), as_they_come.end(), std::size_t{0});
  reduce_in_rounds(communicator, terms, n_terms, as_they_come, ranges, own);
}

template <class T>
void reduce_scatter(Communicator& communicator, std::span<const FlatRow<const T>> terms,
                    std::span<const Index> numbers, std::span<const IndexRange> ranges,
                    View1<T> own) {
  MINKE_ASSERT(numbers.size() == terms.size());
  check_ranges(communicator, terms, ranges, own.size());
  const std::vector<Index> n_terms = gather_counts(communicator, static_cast<Index>(terms.size()));
  reduce_in_rounds(communicator, terms, n_terms, order_of_numbers(communicator, n_terms, numbers),
                   ranges, own);
}

template <class T>
void gather_ranges(Communicator& communicator, std::span<const IndexRange> ranges,
                   const FlatRow<T>& row) {
  std::vector<Request> requests;
  for (std::size_t r = 0; r < ranges.size(); ++r)
    for (const View1<T>& piece : row.pieces(ranges[r]))
      requests.push_back(communicator.broadcast(bytes_of(piece), static_cast<int>(r)));
  wait_all(requests);
}

template <class T>
void all_reduce(Communicator& communicator, View1<T> values) {
  std::vector<IndexRange> ranges;
  for (int r = 0; r < communicator.size(); ++r)
    ranges.push_back(share_of(values.size(), communicator.size(), r));
  const IndexRange own = ranges[static_cast<std::size_t>(communicator.rank())];
  std::vector<T> total(static_cast<std::size_t>(own.size()));
  const FlatRow<const T> term({View1<const T>(values)});
  reduce_scatter<T>(communicator, std::span(&term, 1), ranges,
                    View1<T>(total.data(), {own.size()}));
  std::copy(total.begin(), total.end(), values.data() + own.begin);
  gather_ranges(communicator, ranges, FlatRow<T>({values}));
}

#define MINKE_REDUCTION(T)                                                                     \
  template class FlatRow<T>;                                                                   \
  template class FlatRow<const T>;                                                             \
  template void reduce_scatter(Communicator&, std::span<const FlatRow<const T>>,               \
                               std::span<const IndexRange>, View1<T>);                         \
  template void reduce_scatter(Communicator&, std::span<const FlatRow<const T>>,               \
                               std::span<const Index>, std::span<const IndexRange>, View1<T>); \
  template void gather_ranges(Communicator&, std::span<const IndexRange>, const FlatRow<T>&);  \
  template void all_reduce(Communicator&, View1<T>);
MINKE_REDUCTION(float)
MINKE_REDUCTION(double)
MINKE_REDUCTION(std::int64_t)
#undef MINKE_REDUCTION

}  // namespace minke
