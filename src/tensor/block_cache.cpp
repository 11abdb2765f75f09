#include "tensor/block_cache.h"

#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cstdlib>
#include <limits>
#include <map>
#include <mutex>
#include <new>
#include <vector>

namespace minke {
namespace {

constexpr std::size_t kAlign = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kLarge = 2 * kHugePage;
// Kept from here on: what the C library gives back to the system and asks for again, over and over.
constexpr std::size_t kKeepFrom = std::size_t{256} << 10;
// More than any address space holds. Refused before the system is asked: an allocator that checks
// (a sanitizer's) ends the process over such a size.
constexpr std::size_t kImpossible = std::size_t{1} << 47;

// Sanitizers should see every allocation and every free.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kKeep = false;
#else
constexpr bool kKeep = true;
#endif

std::size_t round_up(std::size_t n, std::size_t to) {
  return (n + to - 1) / to * to;
}

// Eight sizes between two powers of two, so that blocks of similar size serve each other.
std::size_t size_class(std::size_t bytes) {
  if (bytes < kKeepFrom) return round_up(bytes ? bytes : 1, kAlign);
  const std::size_t eighth = std::bit_floor(bytes) / 8;
  return round_up(bytes, bytes < kLarge ? eighth : std::max(kHugePage, eighth));
}

void* from_system(std::size_t size) {
  void* block = std::aligned_alloc(size >= kLarge ? kHugePage : kAlign, size);
  if (block && size >= kLarge) madvise(block, size, MADV_HUGEPAGE);
  return block;
}

// Part of the allocator, as malloc's own lists are; a quarter of the machine's memory at most.
class Kept {
 public:
  void* take(std::size_t size) {
    std::lock_guard lock(mutex_);
    const auto it = blocks_.find(size);
    if (it == blocks_.end() || it->second.empty()) return nullptr;
    void* block = it->second.back();
    it->second.pop_back();
    bytes_ -= size;
    return block;
  }
  bool keep(void* block, std::size_t size) noexcept {
    std::lock_guard lock(mutex_);
    if (bytes_ + size > limit_) return false;
    try {
      blocks_[size].push_back(block);
    } catch (const std::bad_alloc&) {
      return false;
    }
    bytes_ += size;
    return true;
  }
  void release() noexcept {
    std::lock_guard lock(mutex_);
    for (auto& [size, list] : blocks_)
      for (void* block : list) std::free(block);
    blocks_.clear();
    bytes_ = 0;
  }
  std::size_t bytes() {
    std::lock_guard lock(mutex_);
    return bytes_;
  }

 private:
  std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> blocks_;
  std::size_t bytes_ = 0;
  const std::size_t limit_ = static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) *
                             static_cast<std::size_t>(sysconf(_SC_PAGESIZE)) / 4;
};

std::atomic<std::size_t> live_bytes{0};

// Never destroyed: tensors in static objects may be freed after it would be.
Kept& kept() {
  static Kept* instance = new Kept;
  return *instance;
}

}  // namespace

void* allocate_block(std::size_t bytes) {
  if (bytes >= kImpossible) throw std::bad_alloc();
  const std::size_t size = size_class(bytes);
  void* block = kKeep && size >= kKeepFrom ? kept().take(size) : nullptr;
  if (!block) block = from_system(size);
  if (!block) {
    kept().release();
    block = from_system(size);
  }
  if (!block) throw std::bad_alloc();
  live_bytes.fetch_add(bytes, std::memory_order_relaxed);
  return block;
}

void free_block(void* block, std::size_t bytes) noexcept {
  const std::size_t size = size_class(bytes);
  if (block) live_bytes.fetch_sub(bytes, std::memory_order_relaxed);
  if (!block || (kKeep && size >= kKeepFrom && kept().keep(block, size))) return;
  std::free(block);
}

void release_kept_blocks() noexcept {
  kept().release();
}
void keep_freed_memory() noexcept {
#if defined(__GLIBC__)
  // Blocks of kLarge and more are kept above; nothing smaller is worth a mapping of its own.
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_MMAP_THRESHOLD, 2 * kLarge);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
}
std::size_t kept_block_bytes() noexcept {
  return kept().bytes();
}

std::size_t live_block_bytes() noexcept {
  return live_bytes.load(std::memory_order_relaxed);
}

}  // namespace minke
