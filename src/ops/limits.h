// What this machine can do at most, measured anew each time, with the threads and the instruction
// set in use: multiply-adds that never leave registers, and reading memory from front to back.
#pragma once
#include <string_view>

#include "tensor/tensor.h"

namespace minke {

// About 2 ms each.
double fp32_flop_per_s();
// By the instruction that BF16 products use: AMX tiles, vdpbf16ps, or else FP32 multiply-adds.
double bf16_flop_per_s();
std::string_view bf16_limit_name();

// Reads of memory that no cache holds: huge pages, two streams a thread, prefetched.
class MemoryLimit {
 public:
  explicit MemoryLimit(Index bytes);
  double read_bytes_per_s() const;  // one pass

 private:
  Tensor memory_;
};

}  // namespace minke
