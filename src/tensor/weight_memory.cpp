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
constexpr std::size_t kLargest = kNeighbourhood / 2;  // larger ones have huge pages of their own

// Sanitizers should see every allocation and every free.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kTogether = false;
#else
constexpr bool kTogether = true;
#endif

constexpr std::size_t round_up(std::size_t bytes) {
  return (std::max<std::size_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign;
}
constexpr bool stands_alone(std::size_t bytes) {
  return !kTogether || bytes > kLargest;
}

// Filled from its beginning. What is freed in the middle is used again when all the rest is free:
// weights are made together and dropped together.
struct Neighbourhood {
  ReservedMemory memory;
  std::size_t end = 0, blocks = 0;
};

class Neighbourhoods {
 public:
  void* take(std::size_t size) {
    std::lock_guard lock(mutex_);
    if (!current_ || kNeighbourhood - current_->end < size) {
      ReservedMemory memory(kNeighbourhood, "weights");
      std::byte* const begin = memory.data();
      current_ = &all_.emplace(begin, Neighbourhood{std::move(memory)}).first->second;
    }
    void* const block = current_->memory.data() + current_->end;
    current_->end += size;
    ++current_->blocks;
    return block;
  }

  void give_back(void* block, std::size_t size) noexcept {
    std::lock_guard lock(mutex_);
    const auto found = std::prev(all_.upper_bound(static_cast<std::byte*>(block)));
    Neighbourhood& around = found->second;
    if (around.memory.data() + around.end == static_cast<std::byte*>(block) + size)
      around.end -= size;
    if (--around.blocks > 0) return;
    around.end = 0;
    if (&around != current_) all_.erase(found);
  }

 private:
  std::mutex mutex_;
  std::map<std::byte*, Neighbourhood, std::less<>> all_;  // by their beginnings
  Neighbourhood* current_ = nullptr;                      // the one that is being filled
};

// Never destroyed: weights in static objects may be freed after it would be.
Neighbourhoods& neighbourhoods() {
  static Neighbourhoods* instance = new Neighbourhoods;
  return *instance;
}

}  // namespace

void* allocate_weights(std::size_t bytes) {
  if (stands_alone(bytes)) return allocate_block(bytes);
  return neighbourhoods().take(round_up(bytes));
}

void free_weights(void* block, std::size_t bytes) noexcept {
  if (stands_alone(bytes)) return free_block(block, bytes);
  if (block) neighbourhoods().give_back(block, round_up(bytes));
}

}  // namespace minke
