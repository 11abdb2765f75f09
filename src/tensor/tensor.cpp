#include "tensor/tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstring>

#include "tensor/block_cache.h"

namespace minke {

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

Index element_count(const Shape& shape) {
  Index n = 1;
  for (Index e : shape) n *= e;
  return n;
}

void FreeBlock::operator()(void* block) const { free_block(block, bytes); }

Tensor Tensor::uninitialized(DType dtype, Shape shape) {
  for (Index e : shape)
    if (e < 0) throw ShapeError(fmt::format("a tensor cannot have the extents {}", to_string(shape)));
  Tensor t;
  t.dtype_ = dtype;
  t.shape_ = std::move(shape);
  t.memory_ = std::unique_ptr<void, FreeBlock>(allocate_block(t.bytes()), FreeBlock{t.bytes()});
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
