// Memory for packed weights: blocks of all sizes stand close together on huge pages.
//
// Decoding reads weights from front to back, each once a step, several streams a thread. On pages
// of 4 KiB every page of every stream begins with a walk through the page tables, and the
// processor's own prefetching ends with the page. Most matrices of experts are smaller than what
// allocate_block puts on huge pages, and rounding each up to whole ones would cost a third of
// their memory.
//
// Each home of threads (base/threads.h) has neighbourhoods of its own, on its NUMA node. So homes
// need not be whole pages: a matrix of a few MiB can lie in parts on all nodes, and every page
// holds weights of one node alone.
#pragma once
#include <cstddef>

#include "base/threads.h"

namespace minke {

constexpr Index kNoHome = -1;  // on the node of the thread that writes first

// At least `bytes` bytes, aligned to 64, on the node of `home` while that has memory left. IoError
// when the system has no memory.
void* allocate_weights(std::size_t bytes, Index home = kNoHome);
// `bytes` as asked for. A neighbourhood goes back to the system when all its blocks are free.
void free_weights(void* block, std::size_t bytes) noexcept;

}  // namespace minke
