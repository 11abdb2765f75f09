#include "ops/check_extents.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"

namespace minke {

void check_extents(std::string_view operation, std::string_view operand,
                   std::initializer_list<Index> found, std::initializer_list<Index> expected) {
  if (std::equal(found.begin(), found.end(), expected.begin(), expected.end())) return;
  throw ShapeError(fmt::format("{}: {} has the extents [{}], expected [{}]", operation, operand,
                               fmt::join(found, ", "), fmt::join(expected, ", ")));
}

}  // namespace minke
