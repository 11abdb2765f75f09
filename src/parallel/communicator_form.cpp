#include "parallel/communicator_form.h"

#include <fmt/format.h>

#include <numeric>

namespace minke {
namespace {

class Combined final : public PendingMessage {
 public:
  explicit Combined(std::vector<Request> requests) : requests_(std::move(requests)) {}

  bool test() override {
    while (!requests_.empty() && requests_.back()->test()) requests_.pop_back();
    return requests_.empty();
  }
  void wait() override {
    for (; !requests_.empty(); requests_.pop_back()) requests_.back()->wait();
  }

 private:
  std::vector<Request> requests_;
};

std::string_view name_of(Transfer::Kind kind) {
  switch (kind) {
    case Transfer::Kind::Send:
      return "send";
    case Transfer::Kind::Receive:
      return "receive";
    case Transfer::Kind::AllToAll:
      return "all_to_all";
    case Transfer::Kind::AllGather:
      return "all_gather";
    case Transfer::Kind::Broadcast:
      return "broadcast";
    case Transfer::Kind::Barrier:
      return "barrier";
    case Transfer::Kind::Split:
      return "split";
  }
  return "";
}

void check_sum(std::string_view what, std::span<const std::size_t> sizes, int n_ranks,
               std::size_t bytes) {
  if (sizes.size() != static_cast<std::size_t>(n_ranks))
    throw CommError(fmt::format("all_to_all: {} sizes to {} for {} ranks; give one for each",
                                sizes.size(), what, n_ranks));
  const std::size_t sum = std::accumulate(sizes.begin(), sizes.end(), std::size_t{0});
  if (sum != bytes)
    throw CommError(fmt::format("all_to_all: the sizes to {} are {} bytes together, the buffer {}",
                                what, sum, bytes));
}

}  // namespace

void RankState::set_progress(std::int64_t step, std::string_view operation) {
  std::lock_guard lock(mutex_);
  step_ = step;
  operation_ = operation;
}

std::string RankState::where() const {
  std::lock_guard lock(mutex_);
  std::string text =
      fmt::format("rank {} of {} on {}, step {}", world_rank_, world_size_, host_, step_);
  if (!operation_.empty()) text += ", " + operation_;
  return text;
}

std::string RankState::too_late(std::string_view what) const {
  return fmt::format(
      "{}: {} was not complete within {} ms; the other rank is stuck, or the bound is too short",
      where(), what, timeout_ms_.load());
}

std::string describe(const Transfer& t, const std::string& peer_host) {
  const std::string peer = fmt::format("rank {} on {}", t.peer, peer_host);
  switch (t.kind) {
    case Transfer::Kind::Send:
      return fmt::format("the send of {} bytes to {} (tag {})", t.bytes, peer, t.tag);
    case Transfer::Kind::Receive:
      return fmt::format("the receive of {} bytes from {} (tag {})", t.bytes, peer, t.tag);
    default:
      return fmt::format("{} with {} ({} bytes)", name_of(t.kind), peer, t.bytes);
  }
}

void check_peer(const Communicator& communicator, std::string_view operation, int peer) {
  if (peer < 0 || peer >= communicator.size())
    throw CommError(fmt::format("{}: there is no rank {}, but 0 to {}", operation, peer,
                                communicator.size() - 1));
}

void check_tag(std::string_view operation, int tag) {
  if (tag < 0 || tag > 32767)
    throw CommError(fmt::format("{}: the tag is {}, but must be 0 to 32767", operation, tag));
}

void check_all_to_all(const Communicator& communicator, std::size_t to_all,
                      std::span<const std::size_t> send_sizes, std::size_t from_all,
                      std::span<const std::size_t> receive_sizes) {
  check_sum("send", send_sizes, communicator.size(), to_all);
  check_sum("receive", receive_sizes, communicator.size(), from_all);
  const auto self = static_cast<std::size_t>(communicator.rank());
  if (send_sizes[self] != receive_sizes[self])
    throw CommError(fmt::format("all_to_all: {} bytes go to this rank itself, {} come from it",
                                send_sizes[self], receive_sizes[self]));
}

void check_color(int color) {
  if (color < 0)
    throw CommError(fmt::format("split: the color is {}, but must be 0 or more", color));
}

void check_all_gather(const Communicator& communicator, std::size_t own, std::size_t all) {
  if (all != own * static_cast<std::size_t>(communicator.size()))
    throw CommError(fmt::format("all_gather: {} bytes of each of {} ranks do not make {}", own,
                                communicator.size(), all));
}

Request combined(std::vector<Request> requests) {
  return std::make_unique<Combined>(std::move(requests));
}

}  // namespace minke
