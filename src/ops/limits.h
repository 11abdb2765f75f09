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

// Memory that no cache holds, on huge pages where the system has them, read with prefetches.
class MemoryLimit {
 public:
  static constexpr int kStreams[] = {1, 2, 4};  // that a thread reads in turn

  explicit MemoryLimit(Index bytes);
  // The read bandwidth: a pass with each number of streams, the fastest counts.
  double read_bytes_per_s() const;

  // One pass by all threads; the bytes that it moved.
  double read(int streams) const;  // streams: one of kStreams
  double copy();                   // half of the memory to the other half: read and written
  double update();                 // all of it in place: read and written

 private:
  Index part(Index n) const;
  Tensor memory_;
};

}  // namespace minke
