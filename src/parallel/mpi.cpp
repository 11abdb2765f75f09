#include "parallel/mpi.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "parallel/mpi_session.h"
#include "parallel/waited_time.h"

namespace minke {
namespace {

constexpr int kSpins = 1000;  // looks of a wait before it sleeps between them
constexpr std::chrono::microseconds kNap{50};
constexpr std::chrono::seconds kCancelled{1};  // for a cancelled receive to be complete

std::string first_line(std::string text) {
  return text.substr(0, std::min(text.find('\n'), text.find(',')));
}

// The MPI requests of one message, in pieces.
class MpiMessage final : public PendingMessage {
 public:
  MpiMessage(std::shared_ptr<MpiSession> session, Transfer transfer,
             std::vector<MPI_Request> requests)
      : session_(std::move(session)), transfer_(transfer), requests_(std::move(requests)) {
    session_->message_begins();
  }

  ~MpiMessage() override {
    if (state_ == State::Waiting && std::uncaught_exceptions() == exceptions_) {
      try {
        wait();
      } catch (const std::exception& error) {
        session_->abort(error.what());
      }
    }
    if (state_ == State::Waiting) give_up();
  }

  bool test() override {
    if (state_ == State::Complete) return true;
    if (state_ == State::Failed)
      throw session_->rank_failure(fmt::format("{}: {} has failed before", where(), words()));
    int complete = 0;
    MPI_Status fine{};
    fine.MPI_ERROR = MPI_SUCCESS;
    std::vector<MPI_Status> statuses(requests_.size(), fine);
    const int code = MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &complete,
                                 statuses.data());
    if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS)
      session_->check(code, fmt::format("{}: {}", where(), words()));
    check_statuses(statuses);
    if (!complete) return false;
    end(State::Complete);
    if (transfer_.kind == Transfer::Kind::Receive) check_size(statuses);
    return true;
  }

  void wait() override {
    const std::chrono::milliseconds bound = session_->state().timeout();
    WaitedTime waited;
    for (int look = 0; !test(); ++look) {
      if (bound.count() > 0 && waited.look() > bound) {
        const std::string reason = session_->state().too_late(words());
        give_up();
        throw session_->rank_failure(reason);
      }
      look < kSpins ? std::this_thread::yield() : std::this_thread::sleep_for(kNap);
    }
  }

  // The progress thread may sleep as well, as far as this message is concerned: it would look every
  // 100 us, for hours.
  void wait_idle() override {
    if (state_ != State::Waiting) return wait();
    const struct Idle {
      MpiSession& session;
      explicit Idle(MpiSession& s) : session(s) { session.message_ends(); }
      ~Idle() { session.message_begins(); }
    } idle(*session_);
    PendingMessage::wait_idle();
  }

 private:
  enum class State : std::uint8_t { Waiting, Complete, Failed };

  std::string where() const { return session_->state().where(); }
  std::string words() const { return describe(transfer_, session_->host(transfer_.peer)); }

  void end(State state) {
    state_ = state;
    session_->message_ends();
  }

  // A message longer than its receive is an error of MPI, a shorter one is not.
  void check_size(const std::vector<MPI_Status>& statuses) const {
    std::size_t came = 0;
    for (const MPI_Status& status : statuses) {
      int bytes = 0;
      MPI_Get_count(&status, MPI_BYTE, &bytes);
      came += static_cast<std::size_t>(bytes);
    }
    if (came != transfer_.bytes)
      throw CommError(fmt::format("{}: {} got {} bytes", where(), words(), came));
  }

  // Open MPI 4.1 says MPI_SUCCESS of requests that are complete, with an error in a status.
  void check_statuses(const std::vector<MPI_Status>& statuses) {
    for (const MPI_Status& status : statuses) {
      if (status.MPI_ERROR == MPI_SUCCESS || status.MPI_ERROR == MPI_ERR_PENDING) continue;
      int kind = MPI_SUCCESS;
      MPI_Error_class(status.MPI_ERROR, &kind);
      if (kind == MPI_ERR_TRUNCATE) {
        end(State::Complete);
        throw CommError(fmt::format("{}: {} got more bytes", where(), words()));
      }
      give_up();
      session_->check(status.MPI_ERROR, fmt::format("{}: {}", where(), words()));
    }
  }

  // Receives are taken back. MPI has no way to take back a send or a collective operation: they
  // stay under way, and the job is about to end.
  void give_up() noexcept {
    if (transfer_.kind == Transfer::Kind::Receive) {
      for (MPI_Request& request : requests_)
        if (request != MPI_REQUEST_NULL) MPI_Cancel(&request);
      const auto until = std::chrono::steady_clock::now() + kCancelled;
      int complete = 0;
      while (!complete && std::chrono::steady_clock::now() < until)
        MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &complete,
                    MPI_STATUSES_IGNORE);
    }
    end(State::Failed);
  }

  const std::shared_ptr<MpiSession> session_;
  const Transfer transfer_;
  std::vector<MPI_Request> requests_;
  const int exceptions_ = std::uncaught_exceptions();
  State state_ = State::Waiting;
};

class MpiCommunicator final : public Communicator {
 public:
  // Owns `communicator`. Collective.
  MpiCommunicator(std::shared_ptr<MpiSession> session, MPI_Comm communicator)
      : session_(std::move(session)), communicator_(communicator) {
    const BoundedCall call = session_->bounded("MPI_Comm_dup");
    session_->check(MPI_Comm_dup(communicator_, &exchanges_), "MPI_Comm_dup");
    for (MPI_Comm comm : {communicator_, exchanges_})
      MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    MPI_Comm_rank(communicator_, &rank_);
    world_ranks_ = ranks_in_world(communicator_);
  }
  ~MpiCommunicator() override {
    MPI_Comm_free(&exchanges_);
    MPI_Comm_free(&communicator_);
  }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(world_ranks_.size()); }
  int world_rank(int rank) const override { return world_ranks_[static_cast<std::size_t>(rank)]; }
  std::string host(int rank) const override { return session_->host(world_rank(rank)); }

  Request send(std::span<const std::byte> bytes, int to, int tag) override {
    check_peer(*this, "send", to);
    check_tag("send", tag);
    count(bytes.size(), to);
    return start_send(communicator_, bytes, to, tag, Transfer::Kind::Send);
  }

  Request receive(std::span<std::byte> bytes, int from, int tag) override {
    check_peer(*this, "receive", from);
    check_tag("receive", tag);
    return start_receive(communicator_, bytes, from, tag);
  }

  // Pair by pair, as Open MPI's own MPI_Ialltoallv does it, since that one's offsets have 31 bits.
  Request all_to_all(std::span<const std::byte> to_all, std::span<const std::size_t> send_sizes,
                     std::span<std::byte> from_all,
                     std::span<const std::size_t> receive_sizes) override {
    check_all_to_all(*this, to_all.size(), send_sizes, from_all.size(), receive_sizes);
    const int tag = static_cast<int>(next_exchange_++ % 32768);
    std::vector<Request> requests;
    for (int r = 0; r < size(); ++r) {
      const std::size_t n = receive_sizes[static_cast<std::size_t>(r)];
      if (n > 0) requests.push_back(start_receive(exchanges_, from_all.first(n), r, tag));
      from_all = from_all.subspan(n);
    }
    for (int r = 0; r < size(); ++r) {
      const std::size_t n = send_sizes[static_cast<std::size_t>(r)];
      count(n, r);
      if (n > 0)
        requests.push_back(
            start_send(exchanges_, to_all.first(n), r, tag, Transfer::Kind::AllToAll));
      to_all = to_all.subspan(n);
    }
    return combined(std::move(requests));
  }

  Request all_gather(std::span<const std::byte> own, std::span<std::byte> all) override {
    check_all_gather(*this, own.size(), all.size());
    count_for_others(own.size());
    std::vector<MPI_Request> requests;
    for_pieces(own.size(), [&](std::size_t begin, int n) {
      const MPI_Datatype apart = bytes_apart(n, own.size());
      session_->check(MPI_Iallgather(own.data() + begin, n, MPI_BYTE, all.data() + begin, 1, apart,
                                     communicator_, &requests.emplace_back()),
                      "MPI_Iallgather");
      MPI_Datatype freed = apart;  // lives on until the operation is complete
      MPI_Type_free(&freed);
    });
    return message({Transfer::Kind::AllGather, world_rank(rank_), 0, own.size()},
                   std::move(requests));
  }

  Request broadcast(std::span<std::byte> bytes, int from) override {
    check_peer(*this, "broadcast", from);
    if (rank_ == from) count_for_others(bytes.size());
    std::vector<MPI_Request> requests;
    for_pieces(bytes.size(), [&](std::size_t begin, int n) {
      session_->check(MPI_Ibcast(bytes.data() + begin, n, MPI_BYTE, from, communicator_,
                                 &requests.emplace_back()),
                      "MPI_Ibcast");
    });
    return message({Transfer::Kind::Broadcast, world_rank(from), 0, bytes.size()},
                   std::move(requests));
  }

  void barrier() override { barrier_of(Transfer::Kind::Barrier); }

  std::unique_ptr<Communicator> split(int color, int key) override {
    check_color(color);
    barrier_of(Transfer::Kind::Split);  // within the bound, and as a failure that can be thrown
    MPI_Comm part = MPI_COMM_NULL;
    {
      const BoundedCall call = session_->bounded("MPI_Comm_split");
      session_->check(MPI_Comm_split(communicator_, color, key, &part), "MPI_Comm_split");
    }
    return std::make_unique<MpiCommunicator>(session_, part);
  }

  void abort(std::string_view reason) noexcept override { session_->abort(reason); }
  void set_progress(std::int64_t step, std::string_view operation) override {
    session_->state().set_progress(step, operation);
  }
  void set_timeout(std::chrono::milliseconds bound) override {
    session_->state().set_timeout(bound);
  }
  std::uint64_t bytes_sent() const override { return bytes_sent_; }

 private:
  static std::vector<int> ranks_in_world(MPI_Comm communicator) {
    MPI_Group group, world_group;
    MPI_Comm_group(communicator, &group);
    MPI_Comm_group(MPI_COMM_WORLD, &world_group);
    int n = 0;
    MPI_Group_size(group, &n);
    std::vector<int> own(static_cast<std::size_t>(n)), in_world(own.size());
    for (int r = 0; r < n; ++r) own[static_cast<std::size_t>(r)] = r;
    MPI_Group_translate_ranks(group, n, own.data(), world_group, in_world.data());
    MPI_Group_free(&group);
    MPI_Group_free(&world_group);
    return in_world;
  }

  void count(std::size_t bytes, int to) {
    if (to != rank_) bytes_sent_ += bytes;
  }
  void count_for_others(std::size_t bytes) { bytes_sent_ += bytes * (world_ranks_.size() - 1); }

  // f(begin, count) for the pieces of n bytes; none of 0 bytes.
  template <class F>
  void for_pieces(std::size_t n, F f) const {
    const std::size_t most = session_->settings().piece_bytes;
    for (std::size_t begin = 0; begin < n; begin += most)
      f(begin, static_cast<int>(std::min(most, n - begin)));
  }

  // n bytes, whose next n of the same piece lie `distance` further.
  MPI_Datatype bytes_apart(int n, std::size_t distance) {
    MPI_Datatype dense, apart;
    session_->check(MPI_Type_contiguous(n, MPI_BYTE, &dense), "MPI_Type_contiguous");
    session_->check(MPI_Type_create_resized(dense, 0, static_cast<MPI_Aint>(distance), &apart),
                    "MPI_Type_create_resized");
    MPI_Type_free(&dense);
    session_->check(MPI_Type_commit(&apart), "MPI_Type_commit");
    return apart;
  }

  // An empty message is a message too.
  Request start_send(MPI_Comm comm, std::span<const std::byte> bytes, int to, int tag,
                     Transfer::Kind kind) {
    std::vector<MPI_Request> requests;
    const auto start = [&](std::size_t begin, int n) {
      session_->check(
          MPI_Isend(bytes.data() + begin, n, MPI_BYTE, to, tag, comm, &requests.emplace_back()),
          "MPI_Isend");
    };
    bytes.empty() ? start(0, 0) : for_pieces(bytes.size(), start);
    return message({kind, world_rank(to), tag, bytes.size()}, std::move(requests));
  }

  Request start_receive(MPI_Comm comm, std::span<std::byte> bytes, int from, int tag) {
    std::vector<MPI_Request> requests;
    const auto start = [&](std::size_t begin, int n) {
      session_->check(
          MPI_Irecv(bytes.data() + begin, n, MPI_BYTE, from, tag, comm, &requests.emplace_back()),
          "MPI_Irecv");
    };
    bytes.empty() ? start(0, 0) : for_pieces(bytes.size(), start);
    return message({Transfer::Kind::Receive, world_rank(from), tag, bytes.size()},
                   std::move(requests));
  }

  void barrier_of(Transfer::Kind kind) {
    std::vector<MPI_Request> requests(1);
    session_->check(MPI_Ibarrier(communicator_, requests.data()), "MPI_Ibarrier");
    message({kind, world_rank(rank_), 0, 0}, std::move(requests))->wait();
  }

  Request message(const Transfer& transfer, std::vector<MPI_Request> requests) {
    return std::make_unique<MpiMessage>(session_, transfer, std::move(requests));
  }

  const std::shared_ptr<MpiSession> session_;
  MPI_Comm communicator_;
  MPI_Comm exchanges_ = MPI_COMM_NULL;  // messages of all_to_all, apart from those of callers
  int rank_ = 0;
  std::vector<int> world_ranks_;
  std::atomic<std::int64_t> next_exchange_{0};
  std::atomic<std::uint64_t> bytes_sent_{0};
};

// As mpirun, and srun with PMIx, tell the processes that they start.
bool started_by_launcher() {
  return std::getenv("OMPI_COMM_WORLD_SIZE") || std::getenv("PMIX_RANK");
}

}  // namespace

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  return first_line(std::string(text, static_cast<std::size_t>(length)));
}

std::unique_ptr<Communicator> world(const MpiSettings& settings) {
  if (!started_by_launcher()) return one_rank();
  auto session = std::make_shared<MpiSession>(settings);
  MPI_Comm all = MPI_COMM_NULL;
  const BoundedCall call = session->bounded("MPI_Comm_dup");
  session->check(MPI_Comm_dup(MPI_COMM_WORLD, &all), "MPI_Comm_dup");
  return std::make_unique<MpiCommunicator>(std::move(session), all);
}

void run_world(FunctionRef<void(Communicator&)> body, const MpiSettings& settings) {
  const std::unique_ptr<Communicator> communicator = world(settings);
  try {
    body(*communicator);
  } catch (const std::exception& error) {
    if (communicator->size() > 1) communicator->abort(error.what());
    throw;
  }
}

}  // namespace minke
