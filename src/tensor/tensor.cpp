#include "tensor/tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace minke {
namespace {

constexpr std::size_t kAlign = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

void* allocate(std::size_t bytes) {
  const std::size_t align = bytes >= 2 * kHugePage ? kHugePage : kAlign;
  const std::size_t rounded = (bytes + align - 1) / align * align;
  void* p = std::aligned_alloc(align, rounded ? rounded : align);
  if (!p) throw std::bad_alloc();
  if (align == kHugePage) madvise(p, rounded, MADV_HUGEPAGE);
  return p;
}

}  // namespace

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

Index element_count(const Shape& shape) {
  Index n = 1;
  for (Index e : shape) n *= e;
  return n;
}

void Tensor::Free::operator()(void* p) const { std::free(p); }

Tensor Tensor::uninitialized(DType dtype, Shape shape) {
  for (Index e : shape)
    if (e < 0) throw ShapeError(fmt::format("a tensor cannot have the extents {}", to_string(shape)));
  Tensor t;
  t.dtype_ = dtype;
  t.shape_ = std::move(shape);
  t.memory_.reset(allocate(t.bytes()));
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
