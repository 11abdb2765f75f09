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
void hold_for_rank_0(const ModelFlags& flags, Communicator& ranks, const InferenceLayout& layout) {
  const InterruptScope interrupt;
  set_log_level(LogLevel::Silent);
  hold_model_part(
      ranks, layout, bound_of(flags), [&] { return ModelConfig::load(flags.model); },
      [&](const ModelPart& part) { return load_held_part(flags, part); });
}

}  // namespace

void over_ranks(const ModelFlags& flags, FunctionRef<void(ModelCaller*)> work) {
  std::exception_ptr failure;  // of the work, for which the job need not be aborted
  run_world([&](Communicator& ranks) {
    InferenceLayout layout;
    try {
      layout = parse_inference_layout(flags.layout, ranks.size());
    } catch (const ConfigError&) {  // of all ranks alike; rank 0 says it
      if (ranks.rank() == 0) failure = std::current_exception();
      return;
    }
    if (ranks.rank() > 0) return hold_for_rank_0(flags, ranks, layout);
    std::optional<ModelCaller> caller;
    if (ranks.size() > 1) caller.emplace(ranks, layout, bound_of(flags));
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
