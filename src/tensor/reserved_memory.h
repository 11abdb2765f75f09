// Memory by its addresses: it becomes real where it is first written, and reads as zeros before. On
// huge pages where the system grants them.
#pragma once
#include <cstddef>
#include <string_view>

namespace minke {

class ReservedMemory {
 public:
  ReservedMemory() = default;
  // IoError, which names `purpose`, when the system refuses.
  ReservedMemory(std::size_t bytes, std::string_view purpose);
  ReservedMemory(ReservedMemory&& other) noexcept;
  ReservedMemory& operator=(ReservedMemory&& other) noexcept;
  ~ReservedMemory();

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace minke
