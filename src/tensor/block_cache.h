// Memory for tensors. Large blocks are kept when freed and given out again: a training step asks
// for the same sizes over and over, and fresh pages from the kernel cost a fifth of it (they are
// cleared one by one). Small blocks go to the C library.
#pragma once
#include <cstddef>

namespace minke {

// At least `bytes` bytes, aligned to 64, on huge pages where large. std::bad_alloc when there is
// no memory, after everything kept has been given back.
void* allocate_block(std::size_t bytes);
// `bytes` as asked for.
void free_block(void* block, std::size_t bytes) noexcept;

// Gives kept blocks back to the system: after loading, when the sizes to come are others.
void release_kept_blocks() noexcept;
// For a program that runs for weeks: the C library, too, keeps what is freed, in one place for all
// threads. Resident memory then reaches what the work needs at most and stays there, instead of
// swinging by a fifth as heaps of many threads are trimmed and grown again. Call it at the start.
void keep_freed_memory() noexcept;
// Bytes kept for later.
std::size_t kept_block_bytes() noexcept;

// Bytes given out and not yet freed, as asked for.
std::size_t live_block_bytes() noexcept;

}  // namespace minke
