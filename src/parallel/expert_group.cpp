#include "parallel/expert_group.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>

namespace minke {
namespace {

constexpr int kTags = 32768;  // of a communicator

std::size_t at(Index i) {
  return static_cast<std::size_t>(i);
}

}  // namespace

ExpertGroup::ExpertGroup(Communicator& ranks, Index n_experts, const ExchangeForm& form)
    : ranks_(ranks.split(0, ranks.rank())), n_experts_(n_experts), form_(form) {
  const Index n = ranks_->size();
  if (n_experts % n != 0)
    throw ConfigError(fmt::format(
        "{} routed experts cannot be shared out evenly over {} expert ranks; use a divisor of {}",
        n_experts, n, n_experts));
  const Index each = n_experts / n;
  held_ = {ranks_->rank() * each, (ranks_->rank() + 1) * each};
  std::vector<int> owner;
  for (Index e = 0; e < n_experts; ++e) owner.push_back(static_cast<int>(e / each));
  if (!form.two_hops || !split_by_node(owner))
    hops_.push_back(hop_route(*ranks_, owner, form.from_rank_0));
}

// Two hops where there are several nodes with the same number, more than one, of ranks.
bool ExpertGroup::split_by_node(const std::vector<int>& owner) {
  std::map<std::string, int> nodes;
  std::vector<int> node_of, index_of, n_ranks;
  for (int r = 0; r < ranks_->size(); ++r) {
    const int node =
        nodes.try_emplace(ranks_->host(r), static_cast<int>(nodes.size())).first->second;
    if (node == static_cast<int>(n_ranks.size())) n_ranks.push_back(0);
    node_of.push_back(node);
    index_of.push_back(n_ranks[at(node)]++);
  }
  const bool even = std::all_of(n_ranks.begin(), n_ranks.end(),
                                [&](int count) { return count == n_ranks.front(); });
  if (nodes.size() < 2 || !even || n_ranks.front() < 2) return false;
  const int here = node_of[at(ranks_->rank())], index = index_of[at(ranks_->rank())];
  across_ = ranks_->split(index, here);
  inside_ = ranks_->split(here, index);
  std::vector<int> to_node, to_index;
  for (const int rank : owner) {
    to_node.push_back(node_of[at(rank)]);
    to_index.push_back(node_of[at(rank)] == here ? index_of[at(rank)] : -1);
  }
  hops_.push_back(hop_route(*across_, std::move(to_node), form_.from_rank_0));
  hops_.push_back(hop_route(*inside_, std::move(to_index), form_.from_rank_0));
  return true;
}

int ExpertGroup::next_tag() {
  const int tag = next_tag_;
  next_tag_ = (next_tag_ + 1) % kTags;
  return tag;
}

}  // namespace minke
