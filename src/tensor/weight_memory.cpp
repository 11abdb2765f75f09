#include "tensor/weight_memory.h"

#include <algorithm>
#include <functional>
#include <map>
#include <mutex>

#include "tensor/block_cache.h"
#include "tensor/reserved_memory.h"

namespace minke {
namespace {

constexpr std::size_t kAlign = 64;
// Addresses, not memory: only what is written becomes real.
constexpr std::size_t kNeighbourhood = std::size_t{64} << 20;
constexpr std::size_t kLargest = kNeighbourhood / 2;  // larger ones have pages of their own

// Sanitizers should see every allocation and every free.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kTogether = false;
#else
constexpr bool kTogether = true;
#endif

constexpr std::size_t round_up(std::size_t bytes) {
  return (std::max<std::size_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign;
}

// Filled from its beginning. What is freed in the middle is used again when all the rest is free:
// weights are made together and dropped together.
struct Neighbourhood {
  ReservedMemory memory;
  std::size_t end = 0, blocks = 0;
};

class Neighbourhoods {
 public:
  void* take(std::size_t size, Index home) {
    std::lock_guard lock(mutex_);
    if (size > kLargest) return block_of(open(size, home), size);
    Neighbourhood*& current = current_[home];
    if (!current || current->memory.bytes() - current->end < size)
      current = &open(kNeighbourhood, home);
    return block_of(*current, size);
  }

  // False when the block is in none of them.
  bool give_back(void* block, std::size_t size) noexcept {
    std::lock_guard lock(mutex_);
    const auto after = all_.upper_bound(static_cast<std::byte*>(block));
    if (after == all_.begin()) return false;
    const auto found = std::prev(after);
    Neighbourhood& around = found->second;
    if (static_cast<std::byte*>(block) >= found->first + around.memory.bytes()) return false;
    if (found->first + around.end == static_cast<std::byte*>(block) + size) around.end -= size;
    if (--around.blocks > 0) return true;
    around.end = 0;
    if (!is_current(around)) all_.erase(found);
    return true;
  }

 private:
  Neighbourhood& open(std::size_t bytes, Index home) {
    ReservedMemory memory(bytes, "weights");
    if (home != kNoHome) topology().place_memory(memory.data(), memory.bytes(), home);
    std::byte* const begin = memory.data();
    return all_.emplace(begin, Neighbourhood{std::move(memory)}).first->second;
  }
  static void* block_of(Neighbourhood& around, std::size_t size) {
    void* const block = around.memory.data() + around.end;
    around.end += size;
    ++around.blocks;
    return block;
  }
  bool is_current(const Neighbourhood& n) const {
    return std::any_of(current_.begin(), current_.end(),
                       [&](const auto& of_home) { return of_home.second == &n; });
  }

  std::mutex mutex_;
  std::map<std::byte*, Neighbourhood, std::less<>> all_;  // by their beginnings
  std::map<Index, Neighbourhood*> current_;               // of each home the one being filled
};

// Never destroyed: weights in static objects may be freed after it would be.
Neighbourhoods& neighbourhoods() {
  static Neighbourhoods* instance = new Neighbourhoods;
  return *instance;
}

}  // namespace

void* allocate_weights(std::size_t bytes, Index home) {
  // Kept blocks may lie on any node, so a home's large ones are fresh memory.
  if (!kTogether || (bytes > kLargest && home == kNoHome)) return allocate_block(bytes);
  return neighbourhoods().take(round_up(bytes), home);
}

void free_weights(void* block, std::size_t bytes) noexcept {
  if (!kTogether || !block || !neighbourhoods().give_back(block, round_up(bytes)))
    free_block(block, bytes);
}

}  // namespace minke
