// One hop of tokens to the ranks that lead to their experts, and of rows back.
//
// A token goes once to each rank that leads to one of its experts, however many they are. What
// travels are rows of two kinds, each sorted by the other rank and then by token:
//   tokens    one for every (token, rank it goes to)     out, and back
//   choices   one for every (token, chosen expert k)     back, k rising
// Integers go first, so that every message has a known size and nothing is ever dropped.
//
// Messages go from rank to rank with one tag a micro-batch and layer: several may be under way, and
// be waited for in another order on every rank.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "ops/permute.h"
#include "parallel/communicator.h"
#include "tensor/tensor.h"

namespace minke {

// Tokens and the experts that they chose, on any rank.
struct TokenChoices {
  Index n_tokens = 0, per_token = 0;  // T, K
  std::vector<std::int32_t> experts;  // [T, K]
  std::vector<std::int32_t> sources;  // [T] the rank of the expert group that they come from
};

// Bytes sent to other ranks.
struct LinkBytes {
  std::uint64_t between_nodes = 0, inside_node = 0;
};
struct ExchangeTraffic {
  LinkBytes dispatch;  // rows to experts: inputs, and gradients of outputs
  LinkBytes combine;   // rows back: outputs, and gradients of inputs
  LinkBytes routing;   // counts, choices, gate weights and their gradients
};

// Where a hop leads to.
struct HopRoute {
  Communicator* ranks = nullptr;
  std::vector<int> leads_to;     // [E] rank for the tokens of an expert; -1: never asked for here
  std::vector<bool> other_node;  // [ranks] whether a rank is on another node than this one
  bool from_rank_0 = false;      // the others have no tokens, and need not say so
  bool has_tokens(int rank) const { return rank == 0 || !from_rank_0; }
};
// other_node from the communicator's hosts.
HopRoute hop_route(Communicator& ranks, std::vector<int> leads_to, bool from_rank_0);

class TokenHop {
 public:
  TokenHop(const HopRoute& route, int tag) : route_(&route), tag_(tag) {}

  // The tokens here -> those that arrive, sorted by rank, then by their order there. Collective.
  TokenChoices plan(const TokenChoices& tokens, LinkBytes& bytes);

  // token[i]: which of the tokens here is the i-th to go out.
  const ExpertOrder& outgoing() const { return outgoing_; }
  // Of choices that came back: row and token [i] are the place of the i-th choice, by token and k.
  const ExpertOrder& returned_choices() const { return returned_choices_; }
  // For each token here, the rows of tokens that came back: their sum.
  template <class Real>
  RowSums<Real> returned_tokens() const;

  // Rows on their way; each tensor stays until its requests are complete.
  struct Moving {
    Tensor sent, arrived;
    std::vector<Request> sends, receives;
  };
  // rows [outgoing, D] -> [arrived, D], of any type.
  Moving start_tokens(Tensor rows, LinkBytes& bytes) const;
  // rows [arrived, D] -> [outgoing, D].
  Moving start_tokens_back(Tensor rows, LinkBytes& bytes) const;
  // rows [choices of the arrived tokens, D] -> [choices of the outgoing, D].
  Moving start_choices_back(Tensor rows, LinkBytes& bytes) const;
  // Waits for both.
  static Tensor finish(Moving moving);

 private:
  using RowsOfRanks = std::vector<Index>;  // [ranks] rows of each rank
  struct RowCounts {
    RowsOfRanks here, there;  // that start here, and that arrive here
  };
  void sort_outgoing(const TokenChoices& tokens);
  Moving start_counts(LinkBytes& bytes) const;
  void finish_counts(Moving counts);
  Moving start(Tensor rows, const RowsOfRanks& here, const RowsOfRanks& there,
               LinkBytes& bytes) const;
  void send(Moving& moving, const RowsOfRanks& here, LinkBytes& bytes) const;
  void receive(Moving& moving, const RowsOfRanks& here, const RowsOfRanks& there) const;

  const HopRoute* route_;
  int tag_;
  Index n_tokens_ = 0;
  ExpertOrder outgoing_, returned_choices_;
  RowCounts tokens_, choices_;
};

}  // namespace minke
