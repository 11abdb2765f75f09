#include "parallel/agreement.h"

#include "parallel/reduction.h"

namespace minke {

bool any_of_ranks(Communicator& ranks, bool own) {
  std::int64_t yes = own ? 1 : 0;
  all_reduce(ranks, View1<std::int64_t>(&yes, {1}));
  return yes > 0;
}

void first_then_others(Communicator& ranks, FunctionRef<void()> f) {
  if (ranks.rank() > 0) ranks.barrier();
  f();
  if (ranks.rank() == 0) ranks.barrier();
}

}  // namespace minke
