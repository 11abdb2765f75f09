// Matrix products of a layer y = x W^T, with weights packed once into the order the kernels read.
//
//   forward   y [T, N]  = x [T, K] W^T           W [N, K]
//   dgrad     dx [T, K] = dy [T, N] W            (the same product with W packed transposed)
//   wgrad     dW [N, K] += dy^T x
//
// Numeric contract. Form F32: FP32 products and sums. Form Bf16: x is rounded to BF16, products are
// summed in FP32. Form E4m3: weights stay codes with 128x128 scales in memory and become
// BF16(float(code) * scale) when used, otherwise as Bf16. Form Int4: weights are codes of 4 bits in
// groups (tensor/int4_groups.h); x becomes codes of 8 bits in the same groups, sums over a group
// are exact, and are added in FP32; the bits do not depend on the instruction set either. A row of
// y depends on that row of x, on W and on the instruction set alone: not on T, on the other rows,
// or on the number of threads.
#pragma once
#include <span>
#include <utility>
#include <vector>

#include "base/threads.h"
#include "ops/fp8_tiles.h"
#include "tensor/tensor.h"

namespace minke {

enum class WeightForm : std::uint8_t { F32, Bf16, E4m3, Int4 };
enum class Write : std::uint8_t { Overwrite, Add };
enum class Precision : std::uint8_t { Full, Bf16 };  // operands of a product: as they are, rounded

// What the bytes of packed weights follow from.
struct PackedShape {
  Index n, k;
  WeightForm form;
  Index group = 0;  // numbers under one scale; form Int4
};

// W [n, k] in packed order (zero padded to whole panels). The order is the same for every
// instruction set. Where threads have several homes (base/threads.h), the memory is shared out over
// their nodes in contiguous parts of the outputs, and products are done by the threads that have
// the weights near; or all of it is at one home.
class PackedWeights {
 public:
  static constexpr Index kAllHomes = -1;

  PackedWeights() = default;
  // w [N, K]. Forms F32 and Bf16.
  static PackedWeights pack(View2<const float> w, WeightForm form, Index home = kAllHomes);
  static PackedWeights pack(View2<const BF16> w);  // form Bf16
  // w [K', N'] is packed as its transpose: n() = w.extent(1), k() = w.extent(0).
  static PackedWeights pack_transposed(View2<const float> w, WeightForm form,
                                       Index home = kAllHomes);
  // codes [N, K], scales [ceil(N/128), ceil(K/128)]. Form E4m3.
  static PackedWeights pack(View2<const E4M3> codes, View2<const float> scales);
  // packed I32 [N, ceil(K / 8)], scales [N, ceil(K / group)] as in tensor/int4_groups.h. Form Int4.
  static PackedWeights pack_int4(View2<const std::int32_t> packed, View2<const BF16> scales,
                                 Index k, Index group);
  static PackedWeights pack_transposed(View2<const E4M3> codes, View2<const float> scales);

  // For files of packed weights: panels, then the scales of form E4m3, zero padded to a multiple of
  // kAlign bytes.
  static constexpr std::size_t kAlign = 64;
  static std::size_t stored_bytes(const PackedShape& shape);
  PackedShape shape() const { return {n_, k_, form_, group_}; }
  void store(std::span<std::byte> to) const;
  // What store() wrote, used where it lies: `from` is aligned to kAlign and outlives the weights.
  // Pages of a file are on the node of whoever read them first, so nothing is promised of homes.
  static PackedWeights stored(const PackedShape& shape, std::span<const std::byte> from);

  // Packs again into the memory that is there (after an optimiser step). Same extents and form.
  void repack(View2<const float> w);
  void repack_transposed(View2<const float> w);

  Index n() const { return n_; }
  Index k() const { return k_; }
  WeightForm form() const { return form_; }
  std::size_t bytes() const;
  bool defined() const { return n_ > 0; }

  // For ops/ only: panels of kPanel outputs, k padded to a multiple of 32 with zeros. F32:
  // [panel][k][kPanel]; Bf16: [panel][k / 2][kPanel][2]; E4m3: [panel][k / 4][64], see ops/gemm.h;
  // Int4: see ops/int4_kernels.h, k padded to whole groups.
  static constexpr Index kPanel = 16;
  // So many panels, from a multiple of it on, are at one home and lie one behind the other.
  static constexpr Index kTogether = 8;
  // Groups of kTogether panels of n outputs over `homes`.
  static EvenParts parts(Index n, Index homes) {
    return {(n + kTogether * kPanel - 1) / (kTogether * kPanel), homes};
  }
  const void* panel(Index p) const {
    const Index part = parts_.size() == 1 ? 0 : homes_.part_of(p / kTogether);
    return static_cast<const char*>(parts_[static_cast<std::size_t>(part)].raw()) +
           (p - homes_.begin(part) * kTogether) * panel_bytes_;
  }
  void* panel(Index p) { return const_cast<void*>(std::as_const(*this).panel(p)); }
  Index panel_bytes() const { return panel_bytes_; }
  Index padded_k() const { return padded_k_; }
  View2<const float> scales() const { return scales_.v2(); }
  Index group() const { return group_; }  // numbers under one scale; form Int4

 private:
  explicit PackedWeights(const PackedShape& shape);
  PackedWeights(const PackedShape& shape, Index home);  // with memory of its own

  Index n_ = 0, k_ = 0, padded_k_ = 0, group_ = 0;
  WeightForm form_ = WeightForm::F32;
  Index panel_bytes_ = 0;
  EvenParts homes_{0, 1};      // of groups of panels
  std::vector<Tensor> parts_;  // the panels of each
  Tensor scales_;
};

// x [T, K] -> y [T, N], overwritten or added to. Rows may be strided; x and y may not overlap.
void linear(View2<const float> x, const PackedWeights& w, View2<float> y,
            Write write = Write::Overwrite);
// x rounded already, W in form Bf16 or E4m3: the bits are those of x in FP32.
void linear(View2<const BF16> x, const PackedWeights& w, View2<float> y,
            Write write = Write::Overwrite);

// The official FP8 arithmetic, W in form E4m3: x is quantised per row and 128 columns, per 128 of K
// the dot product of the codes is rounded to FP32, times x's scale, times W's, added in FP32.
void linear_fp8(View2<const float> x, const PackedWeights& w, View2<float> y,
                Write write = Write::Overwrite);

// Rows [offsets[e], offsets[e + 1]) of x times w[e]: one call for all experts, parallel over
// experts and tiles. offsets has w.size() + 1 entries; experts without rows are legal.
void linear_grouped(View2<const float> x, std::span<const Index> offsets,
                    std::span<const PackedWeights* const> w, View2<float> y,
                    Write write = Write::Overwrite);
void linear_grouped(View2<const BF16> x, std::span<const Index> offsets,
                    std::span<const PackedWeights* const> w, View2<float> y,
                    Write write = Write::Overwrite);
void linear_fp8_grouped(View2<const float> x, std::span<const Index> offsets,
                        std::span<const PackedWeights* const> w, View2<float> y,
                        Write write = Write::Overwrite);

// FP8 training: x in tiles of 1x128 (ops/fp8_tiles.h). The form of W says how it is multiplied:
//   Bf16   power-of-two scales on both sides. code * scale is exact in BF16 (that of W was packed
//          so), products are exact in FP32, and only their sum over all of K rounds.
//   E4m3   FP32 scales: the arithmetic of linear_fp8, per 128 of K.
void linear(const Fp8View& x, const PackedWeights& w, View2<float> y,
            Write write = Write::Overwrite);
void linear_grouped(const Fp8View& x, std::span<const Index> offsets,
                    std::span<const PackedWeights* const> w, View2<float> y,
                    Write write = Write::Overwrite);

// dw [N, K] += dy^T x, both in tiles of 128x1: as above, per 128 tokens where there are scales.
void linear_weight_gradient(const Fp8Columns& dy, const Fp8Columns& x, View2<float> dw);
// `offsets` are those of the tiles.
void linear_weight_gradient_grouped(const Fp8Columns& dy, const Fp8Columns& x,
                                    std::span<const Index> offsets,
                                    std::span<const View2<float>> dw);

// dw [N, K] += dy [T, N]^T x [T, K]. In BF16: the bits are those of Precision::Bf16.
void linear_weight_gradient(View2<const float> dy, View2<const float> x, View2<float> dw,
                            Precision precision);
void linear_weight_gradient(View2<const BF16> dy, View2<const BF16> x, View2<float> dw);
void linear_weight_gradient_grouped(View2<const float> dy, View2<const float> x,
                                    std::span<const Index> offsets,
                                    std::span<const View2<float>> dw, Precision precision);
void linear_weight_gradient_grouped(View2<const BF16> dy, View2<const BF16> x,
                                    std::span<const Index> offsets,
                                    std::span<const View2<float>> dw);

// In double: the definitions, parallel over rows. W [N, K] is not packed; dx = dy W reads it as it
// is, and operands are never rounded (Precision::Full).
void linear(View2<const double> x, View2<const double> w, View2<double> y,
            Write write = Write::Overwrite);
void linear_backward_input(View2<const double> dy, View2<const double> w, View2<double> dx,
                           Write write = Write::Overwrite);
void linear_weight_gradient(View2<const double> dy, View2<const double> x, View2<double> dw,
                            Precision precision);
void linear_weight_gradient_grouped(View2<const double> dy, View2<const double> x,
                                    std::span<const Index> offsets,
                                    std::span<const View2<double>> dw, Precision precision);

namespace reference {
// The definitions, summed in T from first to last. T is float or double.
template <class T>
void linear(View2<const T> x, View2<const T> w, View2<T> y, Write write);
template <class T>
void linear_backward_input(View2<const T> dy, View2<const T> w, View2<T> dx, Write write);
template <class T>
void linear_weight_gradient(View2<const T> dy, View2<const T> x, View2<T> dw);

// y [T, N] += sum over tiles of 128 of (sum of products of codes, in FP32) times both scales: x
// [T, K] with scales [T, tiles], w [N, K] with scales [block of N, tiles]. Where all scales are
// powers of two it differs from `linear` of the dequantised operands in the sums' roundings alone.
void linear_fp8(const Fp8View& x, const Fp8View& w, View2<float> y);
}  // namespace reference

}  // namespace minke
