#include "cli/over_ranks.h"

#include <exception>

#include "base/log.h"
#include "cli/interrupt.h"
#include "parallel/mpi.h"

namespace minke {
namespace {

std::chrono::milliseconds bound_of(const ModelFlags& flags) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(1000 * flags.rank_timeout));
}

// A signal to all ranks is for rank 0, which says when the others end; rank 0 also speaks for all.
void hold_for_rank_0(const ModelFlags& flags, Communicator& ranks) {
  const InterruptScope interrupt;
  set_log_level(LogLevel::Silent);
  hold_experts(ranks, bound_of(flags),
               [&](const ExpertLoad& load) { return load_held_experts(flags, load); });
}

}  // namespace

void over_ranks(const ModelFlags& flags, FunctionRef<void(ExpertCaller*)> work) {
  std::exception_ptr failure;  // of the work, for which the job need not be aborted
  run_world([&](Communicator& ranks) {
    if (ranks.rank() > 0) return hold_for_rank_0(flags, ranks);
    std::optional<ExpertCaller> caller;
    if (ranks.size() > 1) caller.emplace(ranks, bound_of(flags));
    try {
      work(caller ? &*caller : nullptr);
    } catch (const CommError&) {
      throw;
    } catch (...) {
      failure = std::current_exception();
    }
    if (caller) caller->end();
  });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace minke
