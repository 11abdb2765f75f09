// Finds added tokens in text: leftmost, and of those that begin at the same place the longest.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace minke {

class AddedTokens {
 public:
  struct Found {
    std::size_t begin = std::string_view::npos;  // npos: none
    std::size_t end = 0;
    std::int32_t id = -1;
  };

  // `content` must not be empty; of equal contents the first one holds.
  void add(std::string_view content, std::int32_t id);
  bool empty() const { return ids_.size() == 1; }

  // The first one that begins at or after `from`.
  Found find(std::string_view text, std::size_t from) const;

 private:
  // A trie; node 0 is the root.
  std::vector<std::int32_t> ids_ = {-1};
  std::unordered_map<std::uint64_t, std::uint32_t> children_;  // node and byte -> node
  std::array<bool, 256> begins_{};
};

}  // namespace minke
