// The inner loops of the operations that walk over rows, with a row per instruction set. For ops/
// only. Pointers are to dense elements; results depend on the arguments and the form alone.
#pragma once
#include <type_traits>

#include "ops/adamw.h"
#include "ops/isa.h"

namespace minke {

// The constants of one step, rounded once.
struct AdamWConstants {
  explicit AdamWConstants(const AdamW& settings);
  float beta1, one_minus_beta1, beta2, one_minus_beta2;
  float keep;     // 1 - lr weight_decay
  float step;     // lr / (1 - beta1^t)
  float v_scale;  // 1 / (1 - beta2^t)
  float eps, gradient_scale;
};

// The same rows of two matrices.
struct RowPair {
  const float* dy;
  const float* x;
  Index dy_stride, x_stride;
  Index rows, columns;
};

// Those whose results only a product reads: To is float, or BF16 where it rounds its operands.
template <class To>
struct OperandKernels {
  // y = gain x rstd; returns rstd.
  float (*rmsnorm)(const float* x, const float* gain, float eps, To* y, Index n);
  void (*swiglu)(const float* gate, const float* up, To* y, Index n);
  void (*swiglu_backward)(const float* dy, const float* gate, const float* up, To* dgate, To* dup,
                          Index n);
  // scaled = w x; returns x . other
  float (*scale_and_dot)(float w, const float* x, const float* other, To* scaled, Index n);
};

struct ElementwiseKernels {
  OperandKernels<float> to_f32;
  OperandKernels<BF16> to_bf16;
  void (*rmsnorm_backward)(const float* dy, const float* x, const float* gain, float rstd,
                           float* dx, Index n);
  // dgain [columns] += sum over rows of dy x rstd, in pieces of rows at fixed positions.
  void (*rmsnorm_weight)(const RowPair& rows, const float* rstd, float* dgain);
  void (*sigmoid)(const float* x, float* y, Index n);
  // Returns sum e^(z - largest) and the largest; `exponentials` may be z, or null.
  float (*exponentials)(const float* z, float* exponentials, float* largest, Index n);
  void (*scale)(float factor, float* x, Index n);
  // x [pairs][2] turned by the angles, in place; sign -1 turns back.
  void (*turn_pairs)(float* x, const float* cos, const float* sin, bool back, Index pairs);
  // y += w x
  void (*add_scaled)(float w, const float* x, float* y, Index n);
  void (*narrow)(const float* x, BF16* y, Index n);
  double (*sum_of_squares)(const float* x, Index n);
  void (*adamw_f32)(const AdamWConstants& c, const float* gradient, float* weight, float* m,
                    float* v, Index n);
  void (*adamw_bf16)(const AdamWConstants& c, const float* gradient, float* weight, BF16* m,
                     BF16* v, Index n);

  template <class To>
  const OperandKernels<To>& to() const {
    if constexpr (std::is_same_v<To, BF16>)
      return to_bf16;
    else
      return to_f32;
  }
};

namespace scalar {
extern const ElementwiseKernels elementwise_kernels;
}
namespace avx2 {
extern const ElementwiseKernels elementwise_kernels;
}
namespace avx512 {
extern const ElementwiseKernels elementwise_kernels;
}

inline const ElementwiseKernels& elementwise() {
  static constexpr FormTable<ElementwiseKernels> table{
      &scalar::elementwise_kernels, &avx2::elementwise_kernels, &avx512::elementwise_kernels};
  return table.chosen();
}

}  // namespace minke
