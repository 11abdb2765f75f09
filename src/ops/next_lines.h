// Memory that is read soon, brought to the second level of cache a few lines at a time while
// something else is computed.
#pragma once
#include "tensor/view.h"

namespace minke {

// Its functions are always inlined: they serve every instruction set.
class NextLines {
 public:
  NextLines() = default;
  // `stretches` of so many bytes each, one every `stride` bytes.
  NextLines(const void* first, Index bytes, Index stretches, Index stride)
      : stretch_(static_cast<const char*>(first)),
        bytes_(bytes),
        stretches_(bytes > 0 ? stretches : 0),
        stride_(stride) {}

  // How many lines a step has to fetch to be through after so many steps.
  [[gnu::always_inline]] Index share(Index steps) const {
    return steps > 0 ? (left() + steps - 1) / steps : 0;
  }
  // Lines that have not been fetched.
  [[gnu::always_inline]] Index left() const {
    return (bytes_ + kLine - 1) / kLine * stretches_ - at_ / kLine;
  }

  [[gnu::always_inline]] void fetch(Index lines) {
    for (; lines > 0 && stretches_ > 0; --lines) {
      __builtin_prefetch(stretch_ + at_, 0, 2);
      at_ += kLine;
      if (at_ < bytes_) continue;
      at_ = 0;
      stretch_ += stride_;
      --stretches_;
    }
  }

 private:
  static constexpr Index kLine = 64;
  const char* stretch_ = nullptr;
  Index bytes_ = 0, at_ = 0, stretches_ = 0, stride_ = 0;
};

}  // namespace minke
