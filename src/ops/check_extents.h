// The extents of operands agree, or ShapeError says which do not.
#pragma once
#include <initializer_list>
#include <string_view>

#include "tensor/view.h"

namespace minke {

// "rmsnorm_forward: gain has the extents [3], expected [4]".
void check_extents(std::string_view operation, std::string_view operand,
                   std::initializer_list<Index> found, std::initializer_list<Index> expected);

template <class T, int Rank>
void check_extents(std::string_view operation, std::string_view operand, const View<T, Rank>& found,
                   std::initializer_list<Index> expected) {
  if constexpr (Rank == 1)
    check_extents(operation, operand, {found.extent(0)}, expected);
  else if constexpr (Rank == 2)
    check_extents(operation, operand, {found.extent(0), found.extent(1)}, expected);
  else
    check_extents(operation, operand, {found.extent(0), found.extent(1), found.extent(2)},
                  expected);
}

}  // namespace minke
