// The forward pass over blocks of query rows and splits of keys.
//
// The lanes of a vector are query rows: scores are formed transposed, s [keys, query rows], so that
// the running softmax needs no sums across lanes. A block holds the rows of one head, or, where all
// heads share their keys, the rows of all heads of some queries: then a cache row is read once for
// all of them. Arithmetic is FP32 (attention_block_pass.h), or products of pairs of BF16 numbers
// where rows are in BF16 or FP8 and the processor has them at full rate: the same pass, or, for
// latent rows, attention_latent_pass.h.
//
// Bits: every score and every sum is a chain, or sixteen, in the order of the keys; after kSplit
// keys a new partial result begins, and partial results are merged in rising order. All of it
// depends on positions alone, so pieces may run on any thread, and queries in any company.
#include <fmt/format.h>

#include <algorithm>
#include <type_traits>

#include "base/threads.h"
#include "ops/attention_block_pass.h"
#include "ops/attention_latent_pass.h"
#include "ops/check_extents.h"
#include "ops/gemm.h"

namespace minke {
namespace {

using namespace attention;

void add_blocks(const AttentionShape& shape, Index problem, Index T, BlockVector<Block>& blocks) {
  const bool shared = shape.n_kv_heads == 1;
  const Index rows = shared ? T * shape.n_heads : T;
  for (Index head = 0; head < shape.n_kv_heads; ++head)
    for (Index first = 0; first < rows; first += kMostRows)
      blocks.push_back({problem, head, first, std::min(kMostRows, rows - first)});
}

template <class Problem>
void check(const AttentionShape& s, const Problem& p) {
  const Index T = p.q.extent(0);
  if (s.n_kv_heads != 1 && s.n_kv_heads != s.n_heads)
    throw ShapeError(fmt::format("attention_forward: {} key heads for {} heads; expected 1 or {}",
                                 s.n_kv_heads, s.n_heads, s.n_heads));
  check_extents("attention_forward", "q", p.q, {T, s.n_heads * s.qk});
  check_extents("attention_forward", "out", p.out, {T, s.n_heads * s.value});
  if (!p.lse.empty()) check_extents("attention_forward", "lse", p.lse, {T, s.n_heads});
  for (Index rows : {p.k.n_rows, p.v.n_rows})
    if (p.first_position < 0 || rows < p.first_position + T)
      throw ShapeError(
          fmt::format("attention_forward: queries at positions {} to {} but {} key or value rows",
                      p.first_position, p.first_position + T - 1, rows));
}

// A block on one thread, or, where there are fewer blocks than would keep the threads busy, a split
// of a block. Both make the same partial results and merge them in the same order.
template <template <class> class Pass, class Problem>
void run_blocks(const AttentionShape& shape, std::span<const Problem> problems, float scale) {
  const AttentionKernels& kernels = attention_kernels();
  BlockVector<Block> blocks;
  for (std::size_t i = 0; i < problems.size(); ++i) {
    check(shape, problems[i]);
    add_blocks(shape, static_cast<Index>(i), problems[i].q.extent(0), blocks);
  }
  const auto pass_of = [&](const Block& b) {
    return Pass<Problem>(kernels, shape, problems[static_cast<std::size_t>(b.problem)], b, scale);
  };
  struct Split {
    Index block, split;
    Index offset;  // of its partial result
  };
  BlockVector<Split> splits;
  Index size = 0;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const auto pass = pass_of(blocks[b]);
    for (Index s = 0; s < pass.n_splits(); ++s, size += pass.partial_size())
      splits.push_back({static_cast<Index>(b), s, size});
  }
  const Index n_blocks = static_cast<Index>(blocks.size());
  const Index n_splits = static_cast<Index>(splits.size());
  if (n_splits == n_blocks || n_blocks >= 4 * n_threads() || n_threads() == 1) {
    parallel_for(n_blocks, [&](Index b) {
      auto pass = pass_of(blocks[static_cast<std::size_t>(b)]);
      float* memory = attention_scratch(2 * pass.partial_size() + pass.scratch_size());
      const Partial whole = pass.partial_at(memory);
      const Partial next = pass.partial_at(memory + pass.partial_size());
      pass.take_queries(memory + 2 * pass.partial_size());
      pass.attend(0, whole);
      for (Index s = 1; s < pass.n_splits(); ++s) {
        pass.attend(s, next);
        pass.merge(next, whole);
      }
      pass.write(whole);
    });
    return;
  }
  Tensor partials = Tensor::uninitialized({size});
  float* memory = partials.v1().data();
  parallel_for(n_splits, [&](Index i) {
    const Split& s = splits[static_cast<std::size_t>(i)];
    auto pass = pass_of(blocks[static_cast<std::size_t>(s.block)]);
    pass.take_queries(attention_scratch(pass.scratch_size()));
    pass.attend(s.split, pass.partial_at(memory + s.offset));
  });
  BlockVector<Index> first_split(static_cast<std::size_t>(n_blocks) + 1, n_splits);
  for (Index i = n_splits - 1; i >= 0; --i)
    first_split[static_cast<std::size_t>(splits[static_cast<std::size_t>(i)].block)] = i;
  parallel_for(n_blocks, [&](Index b) {
    const auto pass = pass_of(blocks[static_cast<std::size_t>(b)]);
    const Index first = first_split[static_cast<std::size_t>(b)];
    const auto partial = [&](Index s) {
      return pass.partial_at(memory + splits[static_cast<std::size_t>(first + s)].offset);
    };
    for (Index s = 1; s < pass.n_splits(); ++s) pass.merge(partial(s), partial(0));
    pass.write(partial(0));
  });
}

template <class Rows>
void run_one(const AttentionShape& shape, const Problem<Rows>& problem, double scale) {
  const auto s = static_cast<float>(scale);
  const std::span<const Problem<Rows>> one(&problem, 1);
  if constexpr (!std::is_same_v<Rows, KeyRows<float>>)
    if (LatentPass<Problem<Rows>>::takes(attention_kernels(), shape, problem))
      return run_blocks<LatentPass>(shape, one, s);
  run_blocks<BlockPass>(shape, one, s);
}

template <class T>
void run_batch(const AttentionShape& shape, std::span<const Index> offsets, View2<const T> q,
               View2<const T> k, View2<const T> v, double scale, View2<float> out,
               View2<float> lse) {
  check_sequences("attention_forward_batch", offsets, q.extent(0));
  check_extents("attention_forward_batch", "k", {k.extent(0)}, {q.extent(0)});
  check_extents("attention_forward_batch", "v", {v.extent(0)}, {q.extent(0)});
  BlockVector<Problem<KeyRows<T>, T>> problems;
  for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
    const Index first = offsets[b], n = offsets[b + 1] - first;
    if (n > 0)
      problems.push_back({q.rows(first, n), KeyRows<T>::of(k.rows(first, n)),
                          KeyRows<T>::of(v.rows(first, n)), 0, out.rows(first, n),
                          lse.empty() ? lse : lse.rows(first, n)});
  }
  run_blocks<BlockPass>(shape, std::span<const Problem<KeyRows<T>, T>>(problems),
                        static_cast<float>(scale));
}

}  // namespace

const AttentionKernels& attention_kernels() {
  static const PairKernels tiles = amx::pair_kernels();
  static const auto with = [](const PairKernels* pairs) {
    AttentionKernels k = avx512::attention_kernels;
    k.pairs = pairs;
    return k;
  };
  static const AttentionKernels vectors =
      with(cpu_features().full_rate_bf16 ? &avx512_bf16::pair_kernels : nullptr);
  static const AttentionKernels amx = gemm::tiles_agree() ? with(&tiles) : vectors;
  static constexpr FormTable<AttentionKernels> table{&scalar::attention_kernels,
                                                     &avx2::attention_kernels, &vectors, &amx};
  return table.chosen();
}

float* attention_scratch(Index n) {
  thread_local Tensor memory;
  if (!memory.defined() || memory.size() < n) memory = Tensor::uninitialized({n});
  return memory.v1().data();
}

void attention_forward(const AttentionShape& shape, View2<const float> q, KeyRows<float> k,
                       KeyRows<float> v, Index first_position, double scale, View2<float> out,
                       View2<float> lse) {
  run_one<KeyRows<float>>(shape, {q, k, v, first_position, out, lse}, scale);
}

void attention_forward(const AttentionShape& shape, View2<const float> q, KeyRows<BF16> k,
                       KeyRows<BF16> v, Index first_position, double scale, View2<float> out,
                       View2<float> lse) {
  run_one<KeyRows<BF16>>(shape, {q, k, v, first_position, out, lse}, scale);
}

void attention_forward(const AttentionShape& shape, View2<const float> q, const Fp8LatentRows& rows,
                       Index first_position, double scale, View2<float> out, View2<float> lse) {
  if (shape.n_kv_heads != 1 || rows.row.dtype != DType::F8_E4M3 || shape.qk != rows.row.width() ||
      shape.value != rows.row.latent)
    throw ShapeError(fmt::format(
        "attention_forward: {} key heads of {} and {}, but rows in FP8 hold {} + {} numbers for "
        "all heads",
        shape.n_kv_heads, shape.qk, shape.value, rows.row.latent, rows.row.rope));
  run_one<Fp8LatentRows>(shape, {q, rows, rows, first_position, out, lse}, scale);
}

void attention_forward_batch(const AttentionShape& shape, std::span<const Index> offsets,
                             View2<const float> q, View2<const float> k, View2<const float> v,
                             double scale, View2<float> out, View2<float> lse) {
  run_batch(shape, offsets, q, k, v, scale, out, lse);
}

void attention_forward_batch(const AttentionShape& shape, std::span<const Index> offsets,
                             View2<const BF16> q, View2<const BF16> k, View2<const BF16> v,
                             double scale, View2<float> out, View2<float> lse) {
  run_batch(shape, offsets, q, k, v, scale, out, lse);
}

}  // namespace minke
