// The ranks that share the routed experts of a pipeline stage: rank e of E holds
// [e n / E, (e + 1) n / E) of every layer's n experts.
//
// Over several nodes a token crosses to a node once, to the rank there with the index that its own
// has here, which passes it on inside (the report, 3.2.2): two hops. Where all ranks share a node,
// each has one of its own, or nodes have unequal numbers of ranks, there is one.
#pragma once
#include <memory>
#include <vector>

#include "model/config.h"
#include "parallel/token_hop.h"
#include "parallel/token_rows.h"

namespace minke {

// How rows travel. The default gives every row the bits that one rank would give it: nothing is
// rounded, and the outputs of a token's experts come back one by one, to be added in the order of
// its choice.
struct ExchangeForm {
  RowForm inputs = RowForm::Full;     // to experts, where the model has no FP8 codes to send
  RowForm gradients = RowForm::Full;  // of outputs, to experts
  // Rows back: each rank on the way adds what it has of a token, gate weights applied, and sends
  // one row in BF16.
  bool sums = false;
  bool two_hops = true;      // where there are nodes for it
  bool from_rank_0 = false;  // the other ranks have no tokens of their own
};
// The report's: BF16, or FP8 to the experts and BF16 back.
inline constexpr ExchangeForm kBf16Exchange{RowForm::Bf16, RowForm::Bf16, true, true, false};
inline constexpr ExchangeForm kFp8Exchange{RowForm::Fp8, RowForm::Fp8, true, true, false};

// Outlives the dispatches made for it; used by the threads of one rank, one at a time.
class ExpertGroup {
 public:
  // Collective. ConfigError when the experts cannot be shared out evenly.
  ExpertGroup(Communicator& ranks, Index n_experts, const ExchangeForm& form = {});

  int rank() const { return ranks_->rank(); }
  int size() const { return ranks_->size(); }
  Index n_experts() const { return n_experts_; }
  ExpertRange held() const { return held_; }
  const ExchangeForm& form() const { return form_; }
  const std::vector<HopRoute>& hops() const { return hops_; }  // one or two
  // Of the messages of one dispatch. Dispatches are made in the same order on every rank.
  int next_tag();
  // Bytes that this rank sent, of all dispatches so far.
  ExchangeTraffic& traffic() { return traffic_; }
  const ExchangeTraffic& traffic() const { return traffic_; }

 private:
  bool split_by_node(const std::vector<int>& owner);

  std::unique_ptr<Communicator> ranks_, across_, inside_;
  Index n_experts_;
  ExpertRange held_;
  ExchangeForm form_;
  std::vector<HopRoute> hops_;
  int next_tag_ = 0;
  ExchangeTraffic traffic_;
};

}  // namespace minke
