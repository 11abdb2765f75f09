#include "parallel/mpi_session.h"

#include <fmt/format.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>

#include "base/log.h"
#include "parallel/job_status.h"

namespace minke {
namespace {

std::string error_text(int code) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  return std::string(text, static_cast<std::size_t>(length));
}

// Before MPI knows: as the launcher told the process.
std::string rank_to_be() {
  char host[HOST_NAME_MAX + 1] = {};
  gethostname(host, sizeof host - 1);
  for (const auto& [name, size_name] : {std::pair{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                                        std::pair{"PMIX_RANK", "SLURM_NTASKS"}})
    if (const char* rank = std::getenv(name)) {
      const char* size = std::getenv(size_name);
      return fmt::format("rank {} of {} on {}", rank, size ? size : "?", host);
    }
  return fmt::format("a rank on {}", host);
}

}  // namespace

MpiSession::MpiSession(const MpiSettings& settings) : settings_(settings) {
  int initialized = 0, threads = MPI_THREAD_SINGLE;
  MPI_Initialized(&initialized);
  if (initialized) throw CommError("the world of this process was opened before; open it once");
  const BoundedCall bounded(rank_to_be(), "MPI_Init", settings.timeout);
  check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &threads), "MPI_Init_thread");
  if (threads < MPI_THREAD_MULTIPLE)
    throw ConfigError(
        "this MPI library was built without MPI_THREAD_MULTIPLE, which minke needs; use one that "
        "has it, as Debian's libopenmpi does");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  int rank = 0, size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  gather_hosts(size);
  state_ = std::make_unique<RankState>(rank, size, host(rank));
  state_->set_timeout(settings.timeout);
  check(MPI_Comm_dup(MPI_COMM_WORLD, &probed_), "MPI_Comm_dup");
  progress_ = std::thread([this] { keep_moving(); });
}

void MpiSession::gather_hosts(int n_ranks) {
  constexpr int kLength = MPI_MAX_PROCESSOR_NAME;
  char own[kLength] = {};
  int length = 0;
  check(MPI_Get_processor_name(own, &length), "MPI_Get_processor_name");
  std::vector<char> all(static_cast<std::size_t>(n_ranks) * kLength);
  check(MPI_Allgather(own, kLength, MPI_CHAR, all.data(), kLength, MPI_CHAR, MPI_COMM_WORLD),
        "MPI_Allgather");
  for (int r = 0; r < n_ranks; ++r)
    hosts_.emplace_back(all.data() + static_cast<std::size_t>(r) * kLength);
}

MpiSession::~MpiSession() {
  if (std::uncaught_exceptions() > exceptions_) abort("ended by an error");
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  progress_.join();
  MPI_Comm_free(&probed_);
  const BoundedCall call = bounded("MPI_Finalize");
  MPI_Finalize();
}

RankFailure MpiSession::rank_failure(const std::string& reason) {
  lost_rank_ = true;
  return RankFailure(reason);
}

void MpiSession::check(int code, std::string_view operation) {
  if (code != MPI_SUCCESS) throw rank_failure(fmt::format("{}: {}", operation, error_text(code)));
}

BoundedCall MpiSession::bounded(std::string call) const {
  return {state_->where(), std::move(call), state_->timeout()};
}

void MpiSession::abort(std::string_view reason) noexcept {
  try {
    const std::string where = state_->where();
    std::string text(reason);
    if (!reason.starts_with(where)) text = where + ": " + text;  // a RankFailure says it itself
    std::fprintf(stderr, "minke: %s\n", readable_line(text).c_str());
  } catch (...) {
    std::fputs("minke: the job is ended; no memory is left to say why\n", stderr);
  }
  std::fflush(nullptr);
  MPI_Abort(MPI_COMM_WORLD, lost_rank_ ? kRankFailureStatus : 1);
  std::abort();
}

void MpiSession::message_begins() {
  {
    std::lock_guard lock(mutex_);
    if (++under_way_ > 1) return;
  }
  wake_.notify_all();
}

void MpiSession::message_ends() {
  std::lock_guard lock(mutex_);
  --under_way_;
}

void MpiSession::keep_moving() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stop_ || under_way_ > 0; });
    if (stop_) return;
    lock.unlock();
    int found = 0;
    MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, probed_, &found, MPI_STATUS_IGNORE);
    std::this_thread::sleep_for(settings_.poll);
    lock.lock();
  }
}

}  // namespace minke
