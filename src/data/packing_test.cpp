#include "data/packing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "data/test_corpus.h"

namespace minke {
namespace {

// Without the token that consecutive rows share, the rows of an epoch are the documents, each once.
TEST(Packing, EveryTokenIsPredictedOnceAnEpoch) {
  const TokenCorpus corpus = letter_corpus(20);
  const Index n = corpus.tokens.size();
  const std::vector<std::int32_t> all = all_tokens(corpus);
  for (Index positions : {1, 2, 7, 16, 1000}) {
    BatchSource source(corpus, positions, 5);
    std::vector<std::int32_t> stream;
    std::int32_t last = -1;
    while (static_cast<Index>(stream.size()) < 2 * n) {
      const auto row = source.next(1);
      ASSERT_EQ(static_cast<Index>(row.size()), positions + 1);
      if (last >= 0) {
        ASSERT_EQ(row[0], last);
      }
      last = row.back();
      stream.insert(stream.end(), row.begin(), row.end() - 1);
    }
    for (Index epoch : {0, 1}) {
      std::multiset<std::int32_t> seen(stream.begin() + epoch * n,
                                       stream.begin() + (epoch + 1) * n);
      EXPECT_EQ(seen, std::multiset<std::int32_t>(all.begin(), all.end()));
    }
    EXPECT_FALSE(std::equal(stream.begin(), stream.begin() + n, stream.begin() + n))
        << "the second epoch has the order of the first";
  }
}

TEST(Packing, OrderDependsOnTheSeedAlone) {
  const TokenCorpus corpus = letter_corpus(20);
  EXPECT_EQ(BatchSource(corpus, 8, 1).next(20), BatchSource(corpus, 8, 1).next(20));
  EXPECT_NE(BatchSource(corpus, 8, 1).next(20), BatchSource(corpus, 8, 2).next(20));
}

TEST(Packing, ResumesExactlyAtEveryRow) {
  const TokenCorpus corpus = letter_corpus(9);
  BatchSource whole(corpus, 5, 3);
  std::vector<DataPosition> positions;
  std::vector<std::vector<std::int32_t>> batches;
  for (int i = 0; i < 60; ++i) {
    positions.push_back(whole.position());
    batches.push_back(whole.next(2));
  }
  EXPECT_GT(positions.back().epoch, 2);
  EXPECT_EQ(positions[10].rows, 20);
  for (std::size_t i = 0; i < batches.size(); ++i) {
    BatchSource resumed(corpus, 5, 3);
    const nlohmann::json json = to_json(positions[i]);
    resumed.set_position(data_position_from_json(nlohmann::json::parse(json.dump()), "x"));
    EXPECT_EQ(resumed.next(2), batches[i]) << i;
    EXPECT_EQ(resumed.position().rows, positions[i].rows + 2);
  }
}

TEST(Packing, APositionOfOtherDataIsRefused) {
  const TokenCorpus a = letter_corpus(9), b = letter_corpus(8);
  BatchSource source(a, 5, 3);
  EXPECT_THROW(source.set_position(BatchSource(b, 5, 3).position()), ConfigError);
  EXPECT_THROW(source.set_position(BatchSource(a, 5, 4).position()), ConfigError);
  source.set_position(BatchSource(a, 7, 3).position());  // another length of rows is allowed
  for (auto change :
       {+[](DataPosition& p) { p.document = 9; }, +[](DataPosition& p) { p.epoch = -1; },
        +[](DataPosition& p) { p.offset = 100; }, +[](DataPosition& p) { p.rows = INT64_MAX; },
        +[](DataPosition& p) { p.epoch = INT64_MAX; }}) {
    DataPosition position = source.position();
    change(position);
    EXPECT_THROW(source.set_position(position), ConfigError);
  }
  nlohmann::json json = to_json(source.position());
  json.erase("offset");
  EXPECT_THROW(data_position_from_json(json, "x"), ConfigError);
}

TEST(Packing, NoTextIsRefused) {
  const TokenCorpus empty;
  EXPECT_THROW(BatchSource(empty, 8, 1), ConfigError);
  EXPECT_TRUE(pack_in_order(empty, 8, 10).tokens.empty());
  const TokenCorpus corpus = letter_corpus(2);
  EXPECT_THROW(BatchSource(corpus, 0, 1), ConfigError);
}

TEST(Packing, InOrderFillsAtLeastOneRow) {
  const TokenCorpus corpus = tokenize_corpus({{"abcd", "s", "", 1}}, bytes_of, eos);
  EXPECT_EQ(pack_in_order(corpus, 2, 9).tokens,
            (std::vector<std::int32_t>{'a', 'b', 'c', 'c', 'd', eos}));
  EXPECT_EQ(pack_in_order(corpus, 2, 1).tokens, (std::vector<std::int32_t>{'a', 'b', 'c'}));
  EXPECT_EQ(pack_in_order(corpus, 6, 9).tokens,
            (std::vector<std::int32_t>{'a', 'b', 'c', 'd', eos, 'a', 'b'}));
}

// Rank r of n hands out rows r, r + n, ... of the order that one rank has.
TEST(Packing, RanksShareOneOrder) {
  const TokenCorpus corpus = letter_corpus(9);
  for (const Index ranks : {1, 2, 3}) {
    BatchSource whole(corpus, 5, 3);
    std::vector<BatchSource> sources;
    for (Index rank = 0; rank < ranks; ++rank)
      sources.emplace_back(corpus, 5, 3, BatchOptions{.shares = {}, .rank = rank, .ranks = ranks});
    for (const Index rows : {2, 1, 3, 4, 2}) {
      std::vector<std::vector<std::int32_t>> parts;
      for (BatchSource& source : sources) parts.push_back(source.next(rows));
      for (Index row = 0; row < rows * ranks; ++row) {
        const auto begin = parts[static_cast<std::size_t>(row % ranks)].begin() + row / ranks * 6;
        EXPECT_EQ(whole.next(1), std::vector<std::int32_t>(begin, begin + 6))
            << "row " << row << " of " << ranks << " ranks";
      }
      for (const BatchSource& source : sources) EXPECT_EQ(source.position(), whole.position());
    }
  }
}

TEST(Packing, AnotherNumberOfRanksGoesOn) {
  const TokenCorpus corpus = letter_corpus(9);
  BatchSource whole(corpus, 5, 3), two(corpus, 5, 3, {.shares = {}, .rank = 1, .ranks = 2});
  two.next(4);
  whole.next(8);
  ASSERT_EQ(two.position(), whole.position());
  std::vector<std::int32_t> rows[3];
  for (Index rank = 0; rank < 3; ++rank) {
    BatchSource three(corpus, 5, 3, {.shares = {}, .rank = rank, .ranks = 3});
    three.set_position(two.position());
    rows[rank] = three.next(1);
  }
  for (const auto& row : rows) EXPECT_EQ(whole.next(1), row);
  EXPECT_THROW(BatchSource(corpus, 5, 3, {.shares = {}, .rank = 3, .ranks = 3}), ConfigError);
}

// The starts are where a document's first token stands, and 0.
TEST(Packing, StartsOfDocumentsAreTold) {
  const TokenCorpus corpus = letter_corpus(12);
  BatchSource source(corpus, 7, 3);
  for (int i = 0; i < 60; ++i) {
    const RowBatch batch = source.next_rows(1);
    ASSERT_EQ(batch.starts.size(), 1u);
    std::vector<Index> expected = {0};
    for (Index at = 1; at < 7; ++at)
      if (batch.tokens[static_cast<std::size_t>(at - 1)] == eos) expected.push_back(at);
    EXPECT_EQ(batch.starts[0], expected) << i;
  }
}

// Shares hold to within a document's length at any time, and each source repeats by itself.
TEST(Packing, SharesOfTheMixtureHold) {
  const TokenCorpus corpus = letter_corpus(20);  // even: 'a', 'c', ...; odd: 'b', 'd', ...
  BatchSource source(corpus, 10, 3, {.shares = {0.9, 0.1}});
  double even = 0, odd = 0;
  for (int i = 0; i < 500; ++i) {
    const auto row = source.next(1);
    for (std::size_t at = 0; at < 10; ++at)
      if (row[at] != eos) ((row[at] - 'a') % 2 == 0 ? even : odd) += 1;
    const DataPosition& p = source.position();
    const double all = static_cast<double>(p.stream_tokens[0] + p.stream_tokens[1]);
    EXPECT_NEAR(static_cast<double>(p.stream_tokens[0]), 0.9 * all, 13);
  }
  EXPECT_NEAR(odd / (even + odd), 0.1, 0.01);
  EXPECT_GT(source.position().stream_epochs[0], source.position().stream_epochs[1] + 10);
}

TEST(Packing, AMixtureResumesExactlyAndLeavesOutAShareOfZero) {
  const TokenCorpus corpus = letter_corpus(9);
  const BatchOptions options{.shares = {0.7, 0.3}};
  BatchSource whole(corpus, 5, 3, options);
  for (int i = 0; i < 60; ++i) {
    BatchSource resumed(corpus, 5, 3, options);
    const auto json = nlohmann::json::parse(to_json(whole.position()).dump());
    resumed.set_position(data_position_from_json(json, "x"));
    ASSERT_EQ(whole.next(2), resumed.next(2)) << i;
    ASSERT_EQ(whole.position(), resumed.position());
  }
  EXPECT_THROW(whole.set_position(BatchSource(corpus, 5, 3).position()), ConfigError);
  DataPosition damaged = whole.position();
  damaged.stream_documents[0] = 99;
  EXPECT_THROW(whole.set_position(damaged), ConfigError);
  damaged = whole.position();
  damaged.stream_tokens.pop_back();
  EXPECT_THROW(whole.set_position(damaged), ConfigError);

  BatchSource one(corpus, 5, 3, {.shares = {0, 1}});
  for (const std::int32_t id : one.next(50)) EXPECT_TRUE(id == eos || (id - 'a') % 2 == 1) << id;
}

TEST(Packing, InOrderOfOneSource) {
  const TokenCorpus corpus =
      tokenize_corpus({{"ab", "s", "", 1}, {"xy", "t", "", 1}, {"cd", "s", "", 1}}, bytes_of, eos);
  EXPECT_EQ(pack_in_order(corpus, 5, 9, 0).tokens,
            (std::vector<std::int32_t>{'a', 'b', eos, 'c', 'd', eos}));
  EXPECT_EQ(pack_in_order(corpus, 1, 9, 1).starts, (std::vector<std::vector<Index>>{{0}, {0}}));
  EXPECT_EQ(pack_in_order(corpus, 5, 9, 0).starts, (std::vector<std::vector<Index>>{{0, 3}}));
  EXPECT_EQ(pack_in_order(corpus, 1, 9, 1).tokens, (std::vector<std::int32_t>{'x', 'y', 'y', eos}));
}

}  // namespace
}  // namespace minke
