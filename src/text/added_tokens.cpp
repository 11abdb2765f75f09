#include "text/added_tokens.h"

namespace minke {
namespace {

std::uint64_t edge(std::uint32_t node, char byte) {
  return std::uint64_t{node} << 8 | static_cast<unsigned char>(byte);
}

}  // namespace

void AddedTokens::add(std::string_view content, std::int32_t id) {
  std::uint32_t node = 0;
  for (const char byte : content) {
    const auto [child, is_new] =
        children_.try_emplace(edge(node, byte), static_cast<std::uint32_t>(ids_.size()));
    if (is_new) ids_.push_back(-1);
    node = child->second;
  }
  if (ids_[node] < 0) ids_[node] = id;
  begins_[static_cast<unsigned char>(content.front())] = true;
}

AddedTokens::Found AddedTokens::find(std::string_view text, std::size_t from) const {
  Found found;
  for (std::size_t begin = from; begin < text.size(); ++begin) {
    if (!begins_[static_cast<unsigned char>(text[begin])]) continue;
    std::uint32_t node = 0;
    for (std::size_t at = begin; at < text.size(); ++at) {
      const auto child = children_.find(edge(node, text[at]));
      if (child == children_.end()) break;
      node = child->second;
      if (ids_[node] >= 0) found = {begin, at + 1, ids_[node]};
    }
    if (found.id >= 0) return found;
  }
  return found;
}

}  // namespace minke
