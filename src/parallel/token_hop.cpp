#include "parallel/token_hop.h"

#include <algorithm>
#include <numeric>

namespace minke {
namespace {

std::size_t at(Index i) {
  return static_cast<std::size_t>(i);
}

Index sum(const std::vector<Index>& counts) {
  return std::accumulate(counts.begin(), counts.end(), Index{0});
}

std::span<std::byte> bytes_of(Tensor& t) {
  return {static_cast<std::byte*>(t.raw()), t.bytes()};
}

std::size_t row_bytes(const Tensor& rows) {
  return at(rows.extent(1)) * size_of(rows.dtype());
}

// Choices as rows of integers: K experts, then the source.
Tensor packed(const TokenChoices& tokens, const ExpertOrder& order) {
  const Index n = static_cast<Index>(order.token.size()), K = tokens.per_token;
  Tensor rows = Tensor::uninitialized(DType::I32, {n, K + 1});
  const View2<std::int32_t> to = rows.view<std::int32_t, 2>();
  for (Index i = 0; i < n; ++i) {
    const Index t = order.token[at(i)];
    for (Index k = 0; k < K; ++k) to(i, k) = tokens.experts[at(t * K + k)];
    to(i, K) = tokens.sources[at(t)];
  }
  return rows;
}

TokenChoices unpacked(const Tensor& rows) {
  const View2<const std::int32_t> from = rows.view<std::int32_t, 2>();
  TokenChoices tokens;
  tokens.n_tokens = from.extent(0);
  tokens.per_token = from.extent(1) - 1;
  tokens.experts.reserve(at(tokens.n_tokens * tokens.per_token));
  for (Index i = 0; i < tokens.n_tokens; ++i) {
    for (Index k = 0; k < tokens.per_token; ++k) tokens.experts.push_back(from(i, k));
    tokens.sources.push_back(from(i, tokens.per_token));
  }
  return tokens;
}

}  // namespace

HopRoute hop_route(Communicator& ranks, std::vector<int> leads_to, bool from_rank_0) {
  HopRoute route{&ranks, std::move(leads_to), {}, from_rank_0};
  for (int r = 0; r < ranks.size(); ++r)
    route.other_node.push_back(ranks.host(r) != ranks.host(ranks.rank()));
  return route;
}

// Who goes where, and where in the returning rows each choice will be.
void TokenHop::sort_outgoing(const TokenChoices& tokens) {
  const auto n_ranks = static_cast<std::size_t>(route_->ranks->size());
  const Index K = tokens.per_token;
  std::vector<std::vector<std::int32_t>> by_rank(n_ranks);
  std::vector<int> rank_of;  // of every choice that this hop leads to
  choices_.here.assign(n_ranks, 0);
  for (Index t = 0; t < tokens.n_tokens; ++t)
    for (Index k = 0; k < K; ++k) {
      const int to = route_->leads_to[at(tokens.experts[at(t * K + k)])];
      if (to < 0) continue;
      std::vector<std::int32_t>& list = by_rank[at(to)];
      if (list.empty() || list.back() != t) list.push_back(static_cast<std::int32_t>(t));
      ++choices_.here[at(to)];
      rank_of.push_back(to);
    }
  n_tokens_ = tokens.n_tokens;
  outgoing_ = {};
  tokens_.here.clear();
  for (const auto& list : by_rank) {
    outgoing_.token.insert(outgoing_.token.end(), list.begin(), list.end());
    tokens_.here.push_back(static_cast<Index>(list.size()));
  }
  std::vector<Index> next(n_ranks, 0);
  std::partial_sum(choices_.here.begin(), choices_.here.end() - 1, next.begin() + 1);
  returned_choices_ = {};
  for (const int rank : rank_of)
    returned_choices_.row.push_back(static_cast<std::int32_t>(next[at(rank)]++));
  returned_choices_.token = returned_choices_.row;
}

TokenHop::Moving TokenHop::start_counts(LinkBytes& bytes) const {
  const int n = route_->ranks->size();
  const bool says = route_->has_tokens(route_->ranks->rank());
  MINKE_ASSERT(says || outgoing_.token.empty());
  Tensor counts(DType::I64, {says ? n : 0, 1});
  std::vector<Index> said(at(n), says ? 1 : 0), heard;
  for (int r = 0; r < n; ++r) {
    if (says) counts.view<Index, 2>()(r, 0) = tokens_.here[at(r)];
    heard.push_back(route_->has_tokens(r) ? 1 : 0);
  }
  return start(std::move(counts), said, heard, bytes);
}

void TokenHop::finish_counts(Moving counts) {
  const Tensor arrived = finish(std::move(counts));
  tokens_.there.clear();
  Index row = 0;
  for (int r = 0; r < route_->ranks->size(); ++r)
    tokens_.there.push_back(route_->has_tokens(r) ? arrived.view<Index, 2>()(row++, 0) : 0);
}

// Choices leave with the counts, so that a plan takes the network's latency once.
TokenChoices TokenHop::plan(const TokenChoices& tokens, LinkBytes& bytes) {
  sort_outgoing(tokens);
  Moving counts = start_counts(bytes);
  Moving choices{packed(tokens, outgoing_), {}, {}, {}};
  send(choices, tokens_.here, bytes);
  finish_counts(std::move(counts));
  receive(choices, tokens_.here, tokens_.there);
  TokenChoices arrived = unpacked(finish(std::move(choices)));
  const int here = route_->ranks->rank();
  choices_.there.clear();
  auto expert = arrived.experts.begin();
  for (const Index n : tokens_.there) {
    const auto end = expert + n * arrived.per_token;
    choices_.there.push_back(
        std::count_if(expert, end, [&](int e) { return route_->leads_to[at(e)] == here; }));
    expert = end;
  }
  return arrived;
}

template <class Real>
RowSums<Real> TokenHop::returned_tokens() const {
  RowSums<Real> sums;
  sums.first.assign(at(n_tokens_) + 1, 0);
  for (const std::int32_t t : outgoing_.token) ++sums.first[at(t) + 1];
  std::partial_sum(sums.first.begin(), sums.first.end(), sums.first.begin());
  std::vector<Index> next(sums.first.begin(), sums.first.end() - 1);
  sums.row.resize(outgoing_.token.size());
  for (std::size_t i = 0; i < outgoing_.token.size(); ++i)
    sums.row[at(next[at(outgoing_.token[i])]++)] = static_cast<std::int32_t>(i);
  return sums;
}
template RowSums<float> TokenHop::returned_tokens() const;
template RowSums<double> TokenHop::returned_tokens() const;

TokenHop::Moving TokenHop::start(Tensor rows, const RowsOfRanks& here, const RowsOfRanks& there,
                                 LinkBytes& bytes) const {
  Moving m{std::move(rows), {}, {}, {}};
  receive(m, here, there);
  send(m, here, bytes);
  return m;
}

void TokenHop::send(Moving& m, const RowsOfRanks& rows, LinkBytes& bytes) const {
  MINKE_ASSERT(m.sent.extent(0) == sum(rows));
  Communicator& ranks = *route_->ranks;
  std::span<const std::byte> all = bytes_of(m.sent);
  for (int r = 0; r < ranks.size(); ++r) {
    const std::span<const std::byte> out = all.first(at(rows[at(r)]) * row_bytes(m.sent));
    all = all.subspan(out.size());
    if (r == ranks.rank() || out.empty()) continue;
    m.sends.push_back(ranks.send(out, r, tag_));
    (route_->other_node[at(r)] ? bytes.between_nodes : bytes.inside_node) += out.size();
  }
}

void TokenHop::receive(Moving& m, const RowsOfRanks& here, const RowsOfRanks& there) const {
  Communicator& ranks = *route_->ranks;
  m.arrived = Tensor::uninitialized(m.sent.dtype(), {sum(there), m.sent.extent(1)});
  std::span<std::byte> to = bytes_of(m.sent), from = bytes_of(m.arrived);
  for (int r = 0; r < ranks.size(); ++r) {
    const std::span<std::byte> out = to.first(at(here[at(r)]) * row_bytes(m.sent));
    const std::span<std::byte> in = from.first(at(there[at(r)]) * row_bytes(m.sent));
    to = to.subspan(out.size());
    from = from.subspan(in.size());
    if (r == ranks.rank())
      std::copy(out.begin(), out.end(), in.begin());
    else if (!in.empty())
      m.receives.push_back(ranks.receive(in, r, tag_));
  }
}

TokenHop::Moving TokenHop::start_tokens(Tensor rows, LinkBytes& bytes) const {
  return start(std::move(rows), tokens_.here, tokens_.there, bytes);
}
TokenHop::Moving TokenHop::start_tokens_back(Tensor rows, LinkBytes& bytes) const {
  return start(std::move(rows), tokens_.there, tokens_.here, bytes);
}
TokenHop::Moving TokenHop::start_choices_back(Tensor rows, LinkBytes& bytes) const {
  return start(std::move(rows), choices_.there, choices_.here, bytes);
}

Tensor TokenHop::finish(Moving moving) {
  wait_all(moving.receives);
  wait_all(moving.sends);
  return std::move(moving.arrived);
}

}  // namespace minke
