// Products with weights in form Int4 (ops/linear.h). For ops/ only.
#pragma once
#include "ops/gemm.h"

namespace minke::int4 {

void multiply(std::span<const gemm::Product> products, Write write);

}  // namespace minke::int4
