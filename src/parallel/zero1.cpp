#include "parallel/zero1.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/threads.h"

namespace minke {
namespace {

std::vector<Index> sizes_of(const std::vector<ShardedTensor>& tensors) {
  std::vector<Index> sizes;
  for (const ShardedTensor& tensor : tensors) sizes.push_back(tensor.weight->size());
  return sizes;
}

template <class T>
FlatRow<T> row_of(const std::vector<Tensor*>& tensors) {
  std::vector<View1<T>> parts;
  for (Tensor* tensor : tensors) parts.push_back(tensor->flat<std::remove_const_t<T>>());
  return FlatRow<T>(std::move(parts));
}

template <class Real>
void reduce(Communicator& group, std::span<const GradientTerm> terms,
            const std::vector<Index>& sizes, std::span<const IndexRange> ranges, Tensor& gradient) {
  std::vector<FlatRow<const Real>> rows;
  std::vector<Index> numbers;
  for (const GradientTerm& term : terms) {
    MINKE_ASSERT(term.parts.size() == sizes.size());
    std::vector<View1<const Real>> parts;
    for (std::size_t i = 0; i < sizes.size(); ++i)
      parts.push_back(term.parts[i].view<Real>(sizes[i]));
    rows.emplace_back(std::move(parts));
    numbers.push_back(term.number);
  }
  reduce_scatter<Real>(group, rows, numbers, ranges, gradient.flat<Real>());
}

template <class F>
void for_each_in_parallel(std::size_t n, F f) {
  parallel_for(static_cast<Index>(n), [&](Index i) { f(static_cast<std::size_t>(i)); });
}

// All pieces of the job come to rank 0, which alone adds them: an exchange of 16 bytes a piece with
// one rank, where a sum known to all would need every piece everywhere.
std::vector<PieceSum> gather_to_first(Communicator& world, std::span<const PieceSum> own) {
  const auto n_ranks = static_cast<std::size_t>(world.size());
  const std::size_t bytes = own.size_bytes();
  std::vector<std::size_t> all_bytes(n_ranks), to(n_ranks), from(n_ranks);
  Request request = world.all_gather(std::as_bytes(std::span(&bytes, 1)),
                                     std::as_writable_bytes(std::span(all_bytes)));
  wait(request);
  std::size_t total = 0;
  if (world.rank() == 0) {
    from = all_bytes;
    for (const std::size_t n : from) total += n;
  }
  to[0] = bytes;
  std::vector<PieceSum> all(total / sizeof(PieceSum));
  request = world.all_to_all(std::as_bytes(own), to, std::as_writable_bytes(std::span(all)), from);
  wait(request);
  return all;
}

struct Total {
  double sum = 0;
  Index wrong = -1;  // the first piece that is missing or there twice
};

Total sum_in_order(std::vector<PieceSum> all, Index n_pieces) {
  std::sort(all.begin(), all.end(),
            [](const PieceSum& a, const PieceSum& b) { return a.piece < b.piece; });
  Total total;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].piece != static_cast<Index>(i) && total.wrong < 0)
      total.wrong = static_cast<Index>(i);
    total.sum += all[i].sum;
  }
  const auto n = static_cast<Index>(all.size());
  if (n != n_pieces && total.wrong < 0) total.wrong = std::min(n, n_pieces);
  return total;
}

}  // namespace

std::vector<IndexRange> owned_pieces(const std::vector<Piece>& pieces, int n_ranks) {
  Index total = 0;
  for (const Piece& piece : pieces) total += piece.count;
  std::vector<IndexRange> owned;
  Index next = 0, begin = 0;  // a piece, and the element it begins with
  for (int r = 0; r < n_ranks; ++r) {
    IndexRange range{next, next};
    const Index end = share_of(total, n_ranks, r).end;
    for (; next < static_cast<Index>(pieces.size()) && begin < end; ++next)
      begin += pieces[static_cast<std::size_t>(next)].count;
    range.end = next;
    owned.push_back(range);
  }
  return owned;
}

GradientTerm whole_term(Index number, const std::vector<Tensor*>& tensors) {
  GradientTerm term{number, {}};
  for (Tensor* tensor : tensors) term.parts.push_back({tensor, 0});
  return term;
}

ShardedOptimizer::ShardedOptimizer(Communicator& group, std::vector<ShardedTensor> tensors,
                                   const ShardSettings& settings)
    : group_(group), tensors_(std::move(tensors)) {
  const std::vector<Piece> pieces = cut_into_pieces(sizes_of(tensors_));
  std::vector<Index> begins{0};  // of each piece in the flattened tensors
  for (const Piece& piece : pieces) begins.push_back(begins.back() + piece.count);
  const std::vector<IndexRange> owned = owned_pieces(pieces, group.size());
  for (const IndexRange& range : owned)
    ranges_.push_back({begins[static_cast<std::size_t>(range.begin)],
                       begins[static_cast<std::size_t>(range.end)]});
  const IndexRange own = owned[static_cast<std::size_t>(group.rank())];
  add_slices({pieces.begin() + own.begin, pieces.begin() + own.end}, settings);
}

// Neighbouring pieces of a tensor are one slice.
void ShardedOptimizer::add_slices(const std::vector<Piece>& pieces, const ShardSettings& settings) {
  Index n_elements = 0;
  for (const Piece& piece : pieces) {
    if (slices_.empty() || slices_.back().tensor != piece.tensor)
      slices_.push_back({piece.tensor, piece.begin, 0, {}, {}, {}});
    OwnedSlice& slice = slices_.back();
    pieces_.push_back({slices_.size() - 1, piece.begin - slice.begin, piece.count, n_elements,
                       tensors_[piece.tensor].first_piece + piece.begin / kPiece});
    slice.count += piece.count;
    n_elements += piece.count;
  }
  for (OwnedSlice& slice : slices_) {
    slice.first = Tensor(settings.moments, {slice.count});
    slice.second = Tensor(settings.moments, {slice.count});
    if (settings.ema)
      slice.ema = Tensor(tensors_[slice.tensor].weight->rank() == 1 ? DType::F32 : *settings.ema,
                         {slice.count});
  }
  gradient_ = Tensor(in_double() ? DType::F64 : DType::F32, {n_elements});
}

bool ShardedOptimizer::in_double() const {
  return !tensors_.empty() && tensors_.front().weight->dtype() == DType::F64;
}

TensorPart ShardedOptimizer::weight_of(const OwnedPiece& piece) const {
  const OwnedSlice& slice = slices_[piece.slice];
  return {tensors_[slice.tensor].weight, slice.begin + piece.begin};
}

void ShardedOptimizer::reduce_gradients(std::span<const GradientTerm> terms) {
  in_double() ? reduce<double>(group_, terms, sizes_of(tensors_), ranges_, gradient_)
              : reduce<float>(group_, terms, sizes_of(tensors_), ranges_, gradient_);
}

void ShardedOptimizer::gather_gradients(const std::vector<Tensor*>& whole) const {
  in_double() ? gather<double>(whole) : gather<float>(whole);
}

template <class Real>
void ShardedOptimizer::gather(const std::vector<Tensor*>& whole) const {
  for (const OwnedPiece& piece : pieces_) {
    const OwnedSlice& slice = slices_[piece.slice];
    const View1<const Real> from = gradient_.flat<Real>().slice(0, piece.in_gradient, piece.count);
    std::copy_n(from.data(), from.size(),
                whole[slice.tensor]->flat<Real>().data() + slice.begin + piece.begin);
  }
  gather_ranges(group_, ranges_, row_of<Real>(whole));
}

std::vector<PieceSum> ShardedOptimizer::squares() {
  std::vector<PieceSum> sums(pieces_.size());
  for_each_in_parallel(pieces_.size(), [&](std::size_t i) {
    const OwnedPiece& piece = pieces_[i];
    sums[i] = {piece.in_model, sum_of_squares({&gradient_, piece.in_gradient}, piece.count)};
  });
  return sums;
}

void ShardedOptimizer::update(const AdamW& settings) {
  AdamW without_decay = settings;
  without_decay.weight_decay = 0;
  for_each_in_parallel(pieces_.size(), [&](std::size_t i) {
    const OwnedPiece& piece = pieces_[i];
    OwnedSlice& slice = slices_[piece.slice];
    adamw_update(tensors_[slice.tensor].decays ? settings : without_decay,
                 {.gradient = {&gradient_, piece.in_gradient},
                  .weight = weight_of(piece),
                  .m = {&slice.first, piece.begin},
                  .v = {&slice.second, piece.begin}},
                 piece.count);
  });
}

void ShardedOptimizer::gather_weights() {
  std::vector<Tensor*> weights;
  for (const ShardedTensor& tensor : tensors_) weights.push_back(tensor.weight);
  in_double() ? gather_ranges(group_, ranges_, row_of<double>(weights))
              : gather_ranges(group_, ranges_, row_of<float>(weights));
}

void ShardedOptimizer::update_ema(const EmaUpdate& update) {
  for_each_in_parallel(pieces_.size(), [&](std::size_t i) {
    const OwnedPiece& piece = pieces_[i];
    OwnedSlice& slice = slices_[piece.slice];
    const TensorPart weight = weight_of(piece);
    average_into(update, tensors_[slice.tensor].name, weight.begin, weight.view<float>(piece.count),
                 {&slice.ema, piece.begin});
  });
}

double gradient_norm(Communicator& world, std::span<const PieceSum> own, Index n_pieces) {
  Total total;
  std::vector<PieceSum> all = gather_to_first(world, own);
  if (world.rank() == 0) total = sum_in_order(std::move(all), n_pieces);
  Request request = world.broadcast(std::as_writable_bytes(std::span(&total, 1)), 0);
  wait(request);
  if (total.wrong >= 0)
    throw CommError(fmt::format(
        "gradient_norm: the ranks do not have each of the model's {} pieces once; the first that "
        "is missing, or there twice, is {}",
        n_pieces, total.wrong));
  return std::sqrt(total.sum);
}

}  // namespace minke
