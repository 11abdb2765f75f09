#include "parallel/agreement.h"

#include <numeric>
#include <span>

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

std::string broadcast_text(Communicator& ranks, std::string text, int from) {
  std::uint64_t size = text.size();
  Request request = ranks.broadcast(std::as_writable_bytes(std::span(&size, 1)), from);
  wait(request);
  text.resize(size);
  request = ranks.broadcast(std::as_writable_bytes(std::span(text)), from);
  wait(request);
  return text;
}

std::vector<std::string> gather_texts(Communicator& ranks, const std::string& own) {
  const auto n = static_cast<std::size_t>(ranks.size());
  const std::size_t size = own.size();
  std::vector<std::size_t> sizes(n), to(n), from(n);
  Request request = ranks.all_gather(std::as_bytes(std::span(&size, 1)),
                                     std::as_writable_bytes(std::span(sizes)));
  wait(request);
  to[0] = size;
  if (ranks.rank() == 0) from = sizes;
  std::string all(std::accumulate(from.begin(), from.end(), std::size_t{0}), ' ');
  request = ranks.all_to_all(std::as_bytes(std::span(own)), to,
                             std::as_writable_bytes(std::span(all)), from);
  wait(request);
  std::vector<std::string> texts;
  if (ranks.rank() > 0) return texts;
  std::size_t at = 0;
  for (const std::size_t length : from) {
    texts.push_back(all.substr(at, length));
    at += length;
  }
  return texts;
}

}  // namespace minke
