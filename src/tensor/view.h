// Views: where data lies, its extents and strides, without owning it. The last dimension is dense.
// Above ops/ a view is only made, sliced and passed on; elements are touched in ops/ and in tests.
#pragma once
#include <array>
#include <cstdint>
#include <type_traits>

#include "base/error.h"

namespace minke {

using Index = std::int64_t;

template <class T, int Rank>
class View {
 public:
  using Extents = std::array<Index, Rank>;

  View() = default;
  View(T* data, Extents extents) : data_(data), extents_(extents) {
    Index stride = 1;
    for (int d = Rank - 1; d >= 0; --d) {
      strides_[d] = stride;
      stride *= extents_[d];
    }
  }
  View(T* data, Extents extents, Extents strides)
      : data_(data), extents_(extents), strides_(strides) {}
  // A view of mutable elements is a view of constant ones.
  template <class U, class = std::enable_if_t<std::is_same_v<const U, T> && !std::is_same_v<U, T>>>
  View(const View<U, Rank>& other)  // NOLINT: implicit by design
      : data_(other.data()), extents_(other.extents()), strides_(other.strides()) {}

  T* data() const { return data_; }
  const Extents& extents() const { return extents_; }
  const Extents& strides() const { return strides_; }
  Index extent(int d) const { return extents_[d]; }
  Index stride(int d) const { return strides_[d]; }
  Index size() const {
    Index n = 1;
    for (Index e : extents_) n *= e;
    return n;
  }
  bool empty() const { return size() == 0; }
  bool dense() const {
    Index stride = 1;
    for (int d = Rank - 1; d >= 0; --d) {
      if (extents_[d] != 1 && strides_[d] != stride) return false;
      stride *= extents_[d];
    }
    return true;
  }

  template <class... I>
  T& operator()(I... index) const {
    static_assert(sizeof...(I) == Rank);
    const std::array<Index, Rank> at{static_cast<Index>(index)...};
    Index offset = 0;
    for (int d = 0; d < Rank; ++d) {
      MINKE_ASSERT(at[d] >= 0 && at[d] < extents_[d]);
      offset += at[d] * strides_[d];
    }
    return data_[offset];
  }

  // Elements [begin, begin + count) of dimension d.
  View slice(int d, Index begin, Index count) const {
    MINKE_ASSERT(begin >= 0 && count >= 0 && begin + count <= extents_[d]);
    View v = *this;
    v.extents_[d] = count;
    if (count > 0) v.data_ += begin * strides_[d];
    return v;
  }
  View rows(Index begin, Index count) const { return slice(0, begin, count); }
  View columns(Index begin, Index count) const { return slice(Rank - 1, begin, count); }

  // The i-th element of the first dimension, one rank lower.
  auto operator[](Index i) const {
    static_assert(Rank > 1);
    MINKE_ASSERT(i >= 0 && i < extents_[0]);
    std::array<Index, Rank - 1> e, s;
    for (int d = 1; d < Rank; ++d) e[d - 1] = extents_[d], s[d - 1] = strides_[d];
    return View<T, Rank - 1>(data_ + i * strides_[0], e, s);
  }

 private:
  T* data_ = nullptr;
  Extents extents_{};
  Extents strides_{};
};

template <class T> using View1 = View<T, 1>;
template <class T> using View2 = View<T, 2>;
template <class T> using View3 = View<T, 3>;

// The same dense elements with other extents (of the same product).
template <int NewRank, class T, int Rank>
View<T, NewRank> reshape(View<T, Rank> v, std::array<Index, NewRank> extents) {
  MINKE_ASSERT(v.dense());
  View<T, NewRank> r(v.data(), extents);
  MINKE_ASSERT(r.size() == v.size());
  return r;
}

}  // namespace minke
