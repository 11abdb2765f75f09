#include "tensor/tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <atomic>
#include <cstring>

namespace minke {
namespace {

std::atomic<std::size_t> live_bytes{0};

}  // namespace

std::string to_string(const Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

Index element_count(const Shape& shape) {
  Index n = 1;
  for (Index e : shape) n *= e;
  return n;
}

void FreeBlock::operator()(void* block) const {
  if (memory == Memory::Borrowed) return;
  live_bytes.fetch_sub(bytes, std::memory_order_relaxed);
  memory == Memory::Weights ? free_weights(block, bytes) : free_block(block, bytes);
}

std::size_t live_tensor_bytes() {
  return live_bytes.load(std::memory_order_relaxed);
}

Tensor Tensor::uninitialized(DType dtype, Shape shape) {
  return uninitialized(dtype, std::move(shape), Memory::Block, kNoHome);
}
Tensor Tensor::for_weights(DType dtype, Shape shape, Index home) {
  return uninitialized(dtype, std::move(shape), Memory::Weights, home);
}

Tensor Tensor::uninitialized(DType dtype, Shape shape, Memory memory, Index home) {
  for (Index e : shape)
    if (e < 0)
      throw ShapeError(fmt::format("a tensor cannot have the extents {}", to_string(shape)));
  Tensor t;
  t.dtype_ = dtype;
  t.shape_ = std::move(shape);
  void* const block =
      memory == Memory::Weights ? allocate_weights(t.bytes(), home) : allocate_block(t.bytes());
  t.memory_ = std::unique_ptr<void, FreeBlock>(block, FreeBlock{t.bytes(), memory});
  live_bytes.fetch_add(t.bytes(), std::memory_order_relaxed);
  return t;
}

Tensor Tensor::borrowed(DType dtype, Shape shape, const void* memory) {
  Tensor t;
  t.dtype_ = dtype;
  t.shape_ = std::move(shape);
  t.memory_ =
      std::unique_ptr<void, FreeBlock>(const_cast<void*>(memory), FreeBlock{0, Memory::Borrowed});
  return t;
}

Tensor::Tensor(DType dtype, Shape shape, Device device)
    : Tensor(uninitialized(dtype, std::move(shape))) {
  device_ = device;
  std::memset(raw(), 0, bytes());
}

Tensor Tensor::clone() const {
  Tensor t = uninitialized(dtype_, shape_);
  std::memcpy(t.raw(), raw(), bytes());
  return t;
}

void Tensor::wrong_view(DType dtype, int rank) const {
  throw ShapeError(fmt::format("a view of {} with {} dimensions was asked of a tensor of {} {}",
                               name_of(dtype), rank, name_of(dtype_), to_string(shape_)));
}

}  // namespace minke
