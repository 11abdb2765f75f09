#include "tensor/block_cache.h"

#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cstdlib>
#include <limits>
#include <map>
#include <mutex>
#include <new>
#include <utility>

namespace minke {
namespace {

constexpr std::size_t kAlign = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kLarge = 2 * kHugePage;
// Kept for all threads from here on: what the C library gives back to the system and asks for
// again, over and over.
constexpr std::size_t kShareFrom = std::size_t{256} << 10;
// Bytes of smaller ones that a thread keeps.
constexpr std::size_t kOfThread = std::size_t{8} << 20;
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
  if (bytes <= 8 * kAlign) return round_up(bytes ? bytes : 1, kAlign);
  const std::size_t eighth = std::bit_floor(bytes) / 8;
  return round_up(bytes, bytes < kLarge ? eighth : std::max(kHugePage, eighth));
}

void* from_system(std::size_t size) {
  void* block = std::aligned_alloc(size >= kLarge ? kHugePage : kAlign, size);
  if (block && size >= kLarge) madvise(block, size, MADV_HUGEPAGE);
  return block;
}

// The number of a size of size_class: 0 to 7 in steps of kAlign, then eight to a power of two.
constexpr std::size_t class_index(std::size_t size) {
  if (size <= 8 * kAlign) return size / kAlign - 1;
  const std::size_t log = static_cast<std::size_t>(std::bit_width(size)) - 1;
  return 8 * (log - 9) + (size >> (log - 3)) - 1;
}

// Small blocks that this thread has freed, linked through themselves. Trivial, so that it outlives
// whatever else the thread destroys at its end.
class SmallBlocks {
 public:
  void* take(std::size_t size) noexcept {
    Free*& first = lists_[class_index(size)];
    if (!first) return nullptr;
    Free* const block = first;
    first = block->next;
    bytes_ -= size;
    return block;
  }
  bool keep(void* block, std::size_t size) noexcept {
    if (ended_ || bytes_ + size > kOfThread) return false;
    struct AtEnd {
      ~AtEnd() { of_thread.end(); }
    };
    static thread_local const AtEnd at_end;
    (void)&at_end;
    Free*& first = lists_[class_index(size)];
    first = new (block) Free{first};
    bytes_ += size;
    return true;
  }
  void release() noexcept {
    for (Free*& first : lists_)
      while (first) std::free(std::exchange(first, first->next));
    bytes_ = 0;
  }

  static thread_local constinit SmallBlocks of_thread;

 private:
  struct Free {
    Free* next;
  };
  void end() noexcept {
    release();
    ended_ = true;
  }

  std::array<Free*, class_index(kShareFrom)> lists_{};
  std::size_t bytes_ = 0;
  bool ended_ = false;
};
thread_local constinit SmallBlocks SmallBlocks::of_thread;

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

// Never destroyed: tensors in static objects may be freed after it would be.
Kept& kept() {
  static Kept* instance = new Kept;
  return *instance;
}

void* take_kept(std::size_t size) {
  if (!kKeep) return nullptr;
  return size < kShareFrom ? SmallBlocks::of_thread.take(size) : kept().take(size);
}
bool keep(void* block, std::size_t size) noexcept {
  if (!kKeep) return false;
  return size < kShareFrom ? SmallBlocks::of_thread.keep(block, size) : kept().keep(block, size);
}

}  // namespace

void* allocate_block(std::size_t bytes) {
  if (bytes >= kImpossible) throw std::bad_alloc();
  const std::size_t size = size_class(bytes);
  void* block = take_kept(size);
  if (!block) block = from_system(size);
  if (!block) {
    release_kept_blocks();
    block = from_system(size);
  }
  if (!block) throw std::bad_alloc();
  return block;
}

void free_block(void* block, std::size_t bytes) noexcept {
  if (block && !keep(block, size_class(bytes))) std::free(block);
}

void release_kept_blocks() noexcept {
  kept().release();
  SmallBlocks::of_thread.release();
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

}  // namespace minke
