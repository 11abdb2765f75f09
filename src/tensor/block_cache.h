// Memory for tensors and for the lists of a step. Blocks are kept when freed and given out again: a
// step asks for the same sizes over and over. Of training, fresh pages from the kernel cost a fifth
// (they are cleared one by one); a decode step takes hundreds of small blocks, and once each size
// has been seen it asks neither the system nor the C library for any.
//
// Large blocks are kept for all threads, small ones by the thread that frees them, without a lock.
#pragma once
#include <cstddef>
#include <vector>

namespace minke {

// At least `bytes` bytes, aligned to 64, on huge pages where large. std::bad_alloc when there is
// no memory, after everything kept has been given back.
void* allocate_block(std::size_t bytes);
// `bytes` as asked for.
void free_block(void* block, std::size_t bytes) noexcept;

// Gives kept blocks back to the system, large ones and the small ones of this thread: after
// loading, when the sizes to come are others.
void release_kept_blocks() noexcept;
// For a program that runs for weeks: the C library, too, keeps what is freed, in one place for all
// threads. Resident memory then reaches what the work needs at most and stays there, instead of
// swinging by a fifth as heaps of many threads are trimmed and grown again. Call it at the start.
void keep_freed_memory() noexcept;
// Bytes of large blocks kept for later. A thread keeps at most a few MiB of small ones.
std::size_t kept_block_bytes() noexcept;

template <class T>
struct BlockAllocator {
  using value_type = T;
  BlockAllocator() = default;
  template <class U>
  BlockAllocator(const BlockAllocator<U>&) {}  // NOLINT: implicit by design
  T* allocate(std::size_t n) { return static_cast<T*>(allocate_block(n * sizeof(T))); }
  void deallocate(T* block, std::size_t n) noexcept { free_block(block, n * sizeof(T)); }
  bool operator==(const BlockAllocator&) const = default;
};

// The std::vector for what a step makes and drops again.
template <class T>
using BlockVector = std::vector<T, BlockAllocator<T>>;

// Base of objects that a step makes by `new`.
struct InBlock {
  static void* operator new(std::size_t bytes) { return allocate_block(bytes); }
  static void operator delete(void* block, std::size_t bytes) noexcept { free_block(block, bytes); }
};

}  // namespace minke
