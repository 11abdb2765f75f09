// Products with weights in form Int4 (ops/linear.h). For ops/ only.
#pragma once
#include "ops/gemm.h"

namespace minke::int4 {

// None of them joined.
void multiply(std::span<const gemm::Product> products);

}  // namespace minke::int4
