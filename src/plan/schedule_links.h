// Which operations of other ranks each operation of a schedule list needs, found by matching the
// messages: the k-th receive of a rank from another one is that one's k-th send to it.
#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "parallel/schedule.h"

namespace minke {

struct OpRef {  // operation `op` of the list of `rank`
  int rank = -1;
  int op = -1;
};

class ScheduleLinks {
 public:
  // ConfigError when the list cannot be executed: messages that do not match between two ranks, or
  // an operation whose input no COMM before it received.
  explicit ScheduleLinks(const Schedule& schedule);

  // Of a computing operation: those that produce its inputs on other ranks. Of a COMM: the COMMs at
  // the other ends of its messages.
  std::span<const OpRef> of(OpRef op) const {
    const std::size_t at = index(op);
    return std::span(refs_).subspan(first_ref_[at], first_ref_[at + 1] - first_ref_[at]);
  }
  // Operations are numbered through all lists.
  std::size_t index(OpRef op) const {
    return first_op_[static_cast<std::size_t>(op.rank)] + static_cast<std::size_t>(op.op);
  }
  const std::vector<std::size_t>& first_op() const { return first_op_; }  // [N + 1]
  std::size_t n_ops() const { return first_op_.back(); }

 private:
  std::vector<std::size_t> first_op_;   // [N + 1] number of each list's first operation
  std::vector<std::size_t> first_ref_;  // [operations + 1]
  std::vector<OpRef> refs_;
};

}  // namespace minke
