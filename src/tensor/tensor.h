// A tensor owns its elements: dtype, extents, 64-byte aligned dense memory, and the device it is
// on.
#pragma once
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

#include "tensor/block_cache.h"
#include "tensor/dtype.h"
#include "tensor/view.h"
#include "tensor/weight_memory.h"

namespace minke {

enum class Device : std::uint8_t { Cpu };

using Shape = BlockVector<Index>;

std::string to_string(const Shape& shape);  // "[2, 3]"
Index element_count(const Shape& shape);

enum class Memory : std::uint8_t { Block, Weights, Borrowed };

struct FreeBlock {
  std::size_t bytes = 0;
  Memory memory = Memory::Block;
  void operator()(void* block) const;
};

class Tensor {
 public:
  Tensor() = default;
  // Elements are zero. Large tensors ask for huge pages.
  Tensor(DType dtype, Shape shape, Device device = Device::Cpu);
  template <class T = float>
  static Tensor zeros(Shape shape) {
    return Tensor(dtype_of<T>, std::move(shape));
  }
  // Elements are whatever memory held: for results that are overwritten whole.
  static Tensor uninitialized(DType dtype, Shape shape);
  template <class T = float>
  static Tensor uninitialized(Shape shape) {
    return uninitialized(dtype_of<T>, std::move(shape));
  }
  // The same for what is packed once and read for long, on the node of `home`
  // (tensor/weight_memory.h).
  static Tensor for_weights(DType dtype, Shape shape, Index home = kNoHome);

  // Elements that lie elsewhere, in a mapped file say, which outlives the tensor. Only to be read.
  static Tensor borrowed(DType dtype, Shape shape, const void* memory);

  Tensor(Tensor&&) noexcept = default;
  Tensor& operator=(Tensor&&) noexcept = default;
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  Tensor clone() const;

  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  const Shape& shape() const { return shape_; }
  Index extent(int d) const { return shape_[static_cast<std::size_t>(d)]; }
  int rank() const { return static_cast<int>(shape_.size()); }
  Index size() const { return element_count(shape_); }
  std::size_t bytes() const { return static_cast<std::size_t>(size()) * size_of(dtype_); }
  bool defined() const { return !shape_.empty() || memory_; }
  void* raw() { return memory_.get(); }
  const void* raw() const { return memory_.get(); }

  // Views with this rank and element type; ShapeError when they are not the tensor's.
  template <class T, int Rank>
  View<T, Rank> view() {
    check<T, Rank>();
    return View<T, Rank>(static_cast<T*>(raw()), extents<Rank>());
  }
  template <class T, int Rank>
  View<const T, Rank> view() const {
    check<T, Rank>();
    return View<const T, Rank>(static_cast<const T*>(raw()), extents<Rank>());
  }
  // The most frequent ones, FP32 unless the element type is given.
  template <class T = float>
  View1<T> v1() {
    return view<T, 1>();
  }
  template <class T = float>
  View2<T> v2() {
    return view<T, 2>();
  }
  template <class T = float>
  View3<T> v3() {
    return view<T, 3>();
  }
  template <class T = float>
  View1<const T> v1() const {
    return view<T, 1>();
  }
  template <class T = float>
  View2<const T> v2() const {
    return view<T, 2>();
  }
  template <class T = float>
  View3<const T> v3() const {
    return view<T, 3>();
  }
  // All elements in one row, whatever the rank.
  template <class T = float>
  View1<T> flat() {
    MINKE_ASSERT(dtype_ == dtype_of<T>);
    return View1<T>(static_cast<T*>(raw()), {size()});
  }
  template <class T = float>
  View1<const T> flat() const {
    MINKE_ASSERT(dtype_ == dtype_of<T>);
    return View1<const T>(static_cast<const T*>(raw()), {size()});
  }

 private:
  static Tensor uninitialized(DType dtype, Shape shape, Memory memory, Index home);
  template <class T, int Rank>
  void check() const {
    if (dtype_ != dtype_of<T> || rank() != Rank) wrong_view(dtype_of<T>, Rank);
  }
  template <int Rank>
  std::array<Index, Rank> extents() const {
    std::array<Index, Rank> e;
    for (int d = 0; d < Rank; ++d) e[d] = extent(d);
    return e;
  }
  [[noreturn]] void wrong_view(DType dtype, int rank) const;

  DType dtype_ = DType::F32;
  Device device_ = Device::Cpu;
  Shape shape_;
  std::unique_ptr<void, FreeBlock> memory_;
};

// Bytes of all tensors that there are, without what is borrowed.
std::size_t live_tensor_bytes();

}  // namespace minke
