#include "text/byte_automaton.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "base/error.h"
#include "text/utf8.h"

namespace minke {
namespace {

std::array<ByteDfa::State, 256> no_transitions() {
  std::array<ByteDfa::State, 256> row;
  row.fill(ByteDfa::kNone);
  return row;
}

// The states from which an accepting one can be reached.
std::vector<bool> live_states(const ByteDfa& dfa) {
  std::vector<std::vector<ByteDfa::State>> before(dfa.size());
  for (std::size_t s = 0; s < dfa.size(); ++s) {
    ByteDfa::State last = ByteDfa::kNone;
    for (const ByteDfa::State to : dfa.next[s]) {
      if (to == ByteDfa::kNone || to == last) continue;
      before[to].push_back(static_cast<ByteDfa::State>(s));
      last = to;
    }
  }
  std::vector<bool> live = dfa.accepts;
  std::vector<std::size_t> open;
  for (std::size_t s = 0; s < dfa.size(); ++s)
    if (live[s]) open.push_back(s);
  while (!open.empty()) {
    const std::size_t s = open.back();
    open.pop_back();
    for (const ByteDfa::State from : before[s]) {
      if (live[from]) continue;
      live[from] = true;
      open.push_back(from);
    }
  }
  return live;
}

}  // namespace

ByteDfa::State ByteDfa::add_state(bool accepting) {
  MINKE_ASSERT(size() < kNone);
  next.push_back(no_transitions());
  accepts.push_back(accepting);
  return static_cast<State>(size() - 1);
}

void ByteDfa::trim() {
  const std::vector<bool> live = live_states(*this);
  if (empty() || !live[0]) {
    *this = ByteDfa();
    return;
  }
  std::vector<State> renamed(size(), kNone);
  State n = 0;
  for (std::size_t s = 0; s < size(); ++s)
    if (live[s]) renamed[s] = n++;
  ByteDfa kept;
  for (std::size_t s = 0; s < size(); ++s) {
    if (!live[s]) continue;
    auto row = next[s];
    for (State& to : row)
      if (to != kNone) to = renamed[to];
    kept.next.push_back(row);
    kept.accepts.push_back(accepts[s]);
    kept.final.push_back(std::all_of(row.begin(), row.end(), [](State to) { return to == kNone; }));
  }
  *this = std::move(kept);
}

ByteNfa::State ByteNfa::add_state() {
  nodes_.emplace_back();
  return static_cast<State>(nodes_.size() - 1);
}

void ByteNfa::add_bytes(State from, std::uint8_t first, std::uint8_t last, State to) {
  nodes_[from].edges.push_back({first, last, to});
}

void ByteNfa::add_step(State from, State to, When when) {
  nodes_[from].steps.push_back({to, when});
}

void ByteNfa::add_code_points(State from, std::uint32_t first, std::uint32_t last, State to) {
  // Cut where the number of bytes changes, and around the surrogates.
  constexpr std::pair<std::uint32_t, std::uint32_t> kPieces[] = {
      {0, 0x7F}, {0x80, 0x7FF}, {0x800, 0xD7FF}, {0xE000, 0xFFFF}, {0x10000, 0x10FFFF}};
  for (const auto& [low, high] : kPieces)
    if (first <= high && last >= low)
      add_utf8_range(from, std::max(first, low), std::min(last, high), to);
}

// first and last have equally many bytes. Cut until all bytes behind the first differing one run
// over everything; then the range is one sequence of byte ranges.
void ByteNfa::add_utf8_range(State from, std::uint32_t first, std::uint32_t last, State to) {
  for (std::uint32_t mask = 0x3F; mask < 0x1FFFFF; mask = mask << 6 | 0x3F) {
    if ((first & ~mask) == (last & ~mask)) break;
    if ((first & mask) != 0) {
      add_utf8_range(from, first, first | mask, to);
      return add_utf8_range(from, (first | mask) + 1, last, to);
    }
    if ((last & mask) != mask) {
      add_utf8_range(from, first, (last & ~mask) - 1, to);
      return add_utf8_range(from, last & ~mask, last, to);
    }
  }
  std::string low, high;
  append_utf8(low, first);
  append_utf8(high, last);
  for (std::size_t i = 0; i < low.size(); ++i) {
    const State next = i + 1 == low.size() ? to : add_state();
    add_bytes(from, static_cast<std::uint8_t>(low[i]), static_cast<std::uint8_t>(high[i]), next);
    from = next;
  }
}

ByteNfa::Set ByteNfa::closure(Set seeds, bool at_begin, bool at_end, std::size_t& work) const {
  std::vector<State> open = seeds;
  std::vector<bool> seen(nodes_.size());
  for (const State s : seeds) seen[s] = true;
  work += nodes_.size() / 64;
  while (!open.empty()) {
    const State s = open.back();
    open.pop_back();
    for (const Step& step : nodes_[s].steps) {
      ++work;
      if (seen[step.to] || (step.when == When::AtBegin && !at_begin) ||
          (step.when == When::AtEnd && !at_end))
        continue;
      seen[step.to] = true;
      seeds.push_back(step.to);
      open.push_back(step.to);
    }
  }
  std::sort(seeds.begin(), seeds.end());
  return seeds;
}

// Bytes from one begin up to the next lead to the same states.
std::vector<int> ByteNfa::interval_begins(const Set& set) const {
  std::array<bool, 257> cut{};
  for (const State s : set)
    for (const Edge& edge : nodes_[s].edges) cut[edge.first] = cut[edge.last + 1] = true;
  std::vector<int> begins;
  for (int b = 0; b <= 256; ++b)
    if (cut[b]) begins.push_back(b);
  return begins;
}

ByteNfa::Set ByteNfa::targets(const Set& set, int byte, std::size_t& work) const {
  Set out;
  for (const State s : set) {
    work += nodes_[s].edges.size() + 1;
    for (const Edge& edge : nodes_[s].edges)
      if (edge.first <= byte && byte <= edge.last) out.push_back(edge.to);
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

// The subset construction. A state of the result is a set of states here, closed under the steps
// that are possible in the middle of a text; only the first set may also take those AtBegin.
std::optional<ByteDfa> ByteNfa::determinise(State start, State end, std::size_t most_states,
                                            std::size_t& work) const {
  ByteDfa dfa;
  std::map<Set, ByteDfa::State> names;
  std::vector<Set> sets;
  std::size_t done = 0;
  const auto add = [&](const Set& set, bool at_begin) {
    const Set at_end = closure(set, at_begin, true, done);
    sets.push_back(set);
    return dfa.add_state(std::binary_search(at_end.begin(), at_end.end(), end));
  };
  const auto name = [&](Set set) {
    set = closure(std::move(set), false, false, done);
    const auto known = names.find(set);
    if (known != names.end()) return known->second;
    const ByteDfa::State added = add(set, false);
    names.emplace(std::move(set), added);
    return added;
  };
  // Has no name: the same set later on may not end where an empty text may ($^).
  add(closure({start}, true, false, done), true);
  for (std::size_t s = 0; s < sets.size(); ++s) {
    const Set set = sets[s];
    const std::vector<int> begins = interval_begins(set);
    for (std::size_t i = 0; i + 1 < begins.size(); ++i) {
      Set reached = targets(set, begins[i], done);
      if (!reached.empty()) {
        const ByteDfa::State to = name(std::move(reached));
        std::fill(dfa.next[s].begin() + begins[i], dfa.next[s].begin() + begins[i + 1], to);
      }
      if (done > work || sets.size() > most_states) {
        work -= std::min(work, done);
        return std::nullopt;
      }
    }
  }
  work -= std::min(work, done);
  dfa.trim();
  return dfa;
}

}  // namespace minke
