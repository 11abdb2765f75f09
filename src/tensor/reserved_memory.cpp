#include "tensor/reserved_memory.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "base/error.h"

namespace minke {

ReservedMemory::ReservedMemory(std::size_t bytes, std::string_view purpose) : bytes_(bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    throw_io_error(fmt::format("cannot reserve {} bytes for {}", bytes, purpose), errno);
  madvise(p, bytes, MADV_HUGEPAGE);  // a wish: without it memory is slower, not wrong
  data_ = static_cast<std::byte*>(p);
}

ReservedMemory::ReservedMemory(ReservedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

ReservedMemory& ReservedMemory::operator=(ReservedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

ReservedMemory::~ReservedMemory() {
  if (data_) munmap(data_, bytes_);
}

}  // namespace minke
