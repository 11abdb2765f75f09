#include "infer/prefix_cache.h"

#include <gtest/gtest.h>

#include <map>

#include "base/random.h"

namespace minke {
namespace {

using Ids = std::vector<std::int32_t>;
constexpr PageLayout kLayout{{DType::F32, 1, 1}, 1};

Ids blocks(const std::string& letters, Index extra = 1) {
  Ids ids;
  for (const char c : letters)
    for (Index i = 0; i < kKeyTile; ++i) ids.push_back(c * 100 + static_cast<std::int32_t>(i));
  for (Index i = 0; i < extra; ++i) ids.push_back(7);
  return ids;
}

struct Prefixes : testing::Test {
  PagePool pool{kLayout, 6};
  PrefixCache cache{pool};

  // As a sequence does: uses what is there, computes the rest, remembers it.
  PagedCache run(const Ids& prompt, bool module_rows = true) {
    PagedCache sequence(pool);
    sequence.adopt(cache.find(prompt).pages);
    const Index need = pages_for(static_cast<Index>(prompt.size()));
    cache.make_room(need - static_cast<Index>(sequence.table().size()));
    sequence.reserve(static_cast<Index>(prompt.size()));
    cache.insert(prompt, sequence.table(), module_rows);
    return sequence;
  }
  std::size_t found(const Ids& prompt) { return cache.find(prompt).pages.size(); }
};

TEST_F(Prefixes, AreFoundBlockByBlock) {
  const PagedCache sequence = run(blocks("abc"));
  EXPECT_EQ(found(blocks("abc")), 3u);
  EXPECT_EQ(found(blocks("abx")), 2u);
  EXPECT_EQ(found(blocks("bc")), 0u);  // the same tokens after another beginning
  EXPECT_EQ(found(blocks("abcd")), 3u);
  EXPECT_EQ(found({}), 0u);
  const auto pages = cache.find(blocks("abc")).pages;
  EXPECT_TRUE(std::equal(pages.begin(), pages.end(), sequence.table().begin()));
}

TEST_F(Prefixes, LeaveTheLastTokenToBeComputed) {
  run(blocks("ab", 0));
  EXPECT_EQ(found(blocks("ab", 0)), 1u);
  EXPECT_EQ(found(blocks("ab", 1)), 2u);
}

TEST_F(Prefixes, HoldOnlyWholeBlocks) {
  run(blocks("a", 63));
  EXPECT_EQ(cache.n_blocks(), 1);
  EXPECT_EQ(pool.n_kept(), 1);
  EXPECT_EQ(pool.n_free(), 5);
}

TEST_F(Prefixes, SayWhetherTheModulesRowsAreThere) {
  run(blocks("a"), false);
  run(blocks("b"), true);
  EXPECT_FALSE(cache.find(blocks("a")).module_rows);
  EXPECT_TRUE(cache.find(blocks("b")).module_rows);
}

PromptState state_of(float value) {
  Tensor state = Tensor::zeros({1, 1});
  state.v2()(0, 0) = value;
  return std::make_shared<const Tensor>(std::move(state));
}

TEST_F(Prefixes, EndWithTheWholePromptOnly) {
  for (const Index extra : {1, 5, 64}) {
    const Ids prompt = blocks("a", extra);
    const PagedCache sequence = run(prompt);
    cache.insert_end(prompt, {sequence.table()[1], state_of(static_cast<float>(extra)), true});
    const auto match = cache.find(prompt);
    ASSERT_TRUE(match.end) << extra;
    EXPECT_EQ(match.end->page, sequence.table()[1]);
    EXPECT_EQ(match.end->state->v2()(0, 0), static_cast<float>(extra));
    EXPECT_EQ(match.pages.size(), 1u);
    EXPECT_FALSE(cache.find(blocks("a", extra + 1)).end);
    EXPECT_FALSE(cache.find(blocks("b", extra)).end);
    Ids other = prompt;
    other.back() = 9;
    EXPECT_FALSE(cache.find(other).end);
  }
  EXPECT_TRUE(cache.find(blocks("a", 5)).end);  // each has its own
}

TEST_F(Prefixes, ABlockOfTheSameTokensIsNotAnEnd) {
  const Ids prompt = blocks("ab", 0);
  const PagedCache sequence = run(prompt);
  EXPECT_FALSE(cache.find(prompt).end);
  cache.insert_end(prompt, {sequence.table()[1], state_of(1), true});  // its page is kept twice
  EXPECT_TRUE(cache.find(prompt).end);
  EXPECT_EQ(found(blocks("ab")), 2u);
  for (const PrefixCache::Entry& entry : cache.entries())
    EXPECT_EQ(entry.prefix.size() % static_cast<std::size_t>(kKeyTile), 0u);
  EXPECT_EQ(cache.entries().size(), 2u);
}

TEST_F(Prefixes, EndsNeedTheirBlocksAndGoBeforeThem) {
  const Ids prompt = blocks("a", 5);
  {
    const PagedCache sequence = run(prompt);
    cache.insert_end(prompt, {sequence.table()[1], state_of(1), true});
  }
  EXPECT_EQ(pool.n_kept(), 2);
  cache.make_room(5);
  EXPECT_FALSE(cache.find(prompt).end);
  EXPECT_EQ(found(prompt), 1u);
  cache.make_room(6);
  const PagedCache sequence = run(blocks("b", 5));
  cache.insert_end(prompt, {sequence.table()[1], state_of(1), true});  // "a" is not there
  EXPECT_FALSE(cache.find(prompt).end);
  EXPECT_EQ(cache.n_blocks(), 1);
}

TEST_F(Prefixes, GoFromTheEndsOfChainsTheLongestUnusedFirst) {
  run(blocks("abc"));
  run(blocks("d"));
  EXPECT_EQ(pool.n_kept(), 4);
  found(blocks("abc"));  // used again: d is the oldest now
  cache.make_room(3);
  EXPECT_EQ(found(blocks("d")), 0u);
  cache.make_room(4);
  EXPECT_EQ(found(blocks("abc")), 2u);
  cache.make_room(6);
  EXPECT_EQ(cache.n_blocks(), 0);
  EXPECT_EQ(pool.n_free(), 6);
}

TEST_F(Prefixes, InUseAreNotFreed) {
  const PagedCache sequence = run(blocks("ab", 0));
  run(blocks("cd", 0));
  cache.make_room(6);
  EXPECT_EQ(pool.n_free(), 4);
  EXPECT_EQ(pool.n_used(), 2);
  EXPECT_EQ(found(blocks("ab")), 2u);
}

TEST_F(Prefixes, AboveALeafInUseAreFreedToo) {
  // Both compute "a" at the same time; the second one's page is not remembered, its "b" is.
  PagedCache first(pool), second(pool);
  first.reserve(kKeyTile);
  second.reserve(2 * kKeyTile);
  cache.insert(blocks("a"), first.table(), true);
  cache.insert(blocks("ab"), second.table(), true);
  first.clear();
  EXPECT_EQ(pool.n_kept(), 1);
  cache.make_room(4);
  EXPECT_EQ(pool.n_free(), 4);
  EXPECT_EQ(pool.n_kept(), 0);
}

// Against a table of all whole prefixes ever inserted: whatever is found must be right, and with
// room for everything all of it must be found.
TEST_F(Prefixes, RandomPromptsFindExactlyWhatWasInserted) {
  PagePool large(kLayout, 4000);
  PrefixCache prefixes(large);
  std::map<std::string, PageId> all;
  Random random(5);
  for (int round = 0; round < 300; ++round) {
    std::string letters;
    for (std::uint64_t n = 1 + random.below(6); n > 0; --n)
      letters += static_cast<char>('a' + random.below(3));
    const Ids prompt = blocks(letters);
    const auto match = prefixes.find(prompt);
    std::size_t expected = 0;
    while (expected < letters.size() && all.count(letters.substr(0, expected + 1))) ++expected;
    ASSERT_EQ(match.pages.size(), expected) << letters;
    for (std::size_t i = 0; i < expected; ++i)
      ASSERT_EQ(match.pages[i], all.at(letters.substr(0, i + 1)));
    PagedCache sequence(large);
    sequence.adopt(match.pages);
    sequence.reserve(static_cast<Index>(prompt.size()));
    prefixes.insert(prompt, sequence.table(), true);
    for (std::size_t i = 0; i < letters.size(); ++i)
      all.emplace(letters.substr(0, i + 1), sequence.table()[i]);
  }
  EXPECT_EQ(large.n_kept(), static_cast<Index>(all.size()));
}

TEST(SharedBlocks, AreWholeAndLeaveTheLastToken) {
  std::vector<std::int32_t> a(200, 1), b(200, 1);
  EXPECT_EQ(shared_blocks(a, b), 3);
  b[64] = 2;
  EXPECT_EQ(shared_blocks(a, b), 1);
  b[63] = 2;
  EXPECT_EQ(shared_blocks(a, b), 0);
  const std::span<const std::int32_t> all(a);
  EXPECT_EQ(shared_blocks(all, all.first(128)), 1);  // the second must compute its last token
  EXPECT_EQ(shared_blocks(all, all.first(129)), 2);
  EXPECT_EQ(shared_blocks(all.first(128), all), 2);
  EXPECT_EQ(shared_blocks(all, {}), 0);
  EXPECT_EQ(shared_blocks({}, all), 0);
}

}  // namespace
}  // namespace minke
