#include "data/packing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"

namespace minke {
namespace {

constexpr std::int32_t eos = 1000;

const auto bytes_of = [](std::string_view text) {
  return std::vector<std::int32_t>(text.begin(), text.end());
};

// Documents of different lengths whose letters tell them apart.
std::vector<Document> letters(int n) {
  std::vector<Document> documents;
  for (int i = 0; i < n; ++i)
    documents.push_back(
        {std::string(static_cast<std::size_t>(1 + i * 7 % 11), static_cast<char>('a' + i)),
         i % 2 ? "odd" : "even", "x.txt", i + 1});
  return documents;
}

TokenCorpus letter_corpus(int n) {
  return tokenize_corpus(letters(n), bytes_of, eos);
}

TEST(Packing, DocumentsEndWithEndOfSentence) {
  const TokenCorpus corpus = tokenize_corpus(
      {{"ab", "s", "", 1}, {"", "s", "", 1}, {"c", "t", "", 1}, {"d", "s", "", 1}}, bytes_of, eos);
  EXPECT_EQ(corpus.tokens, (std::vector<std::int32_t>{'a', 'b', eos, 'c', eos, 'd', eos}));
  ASSERT_EQ(corpus.documents.size(), 3u);
  EXPECT_EQ(corpus.sources, (std::vector<std::string>{"s", "t"}));
  EXPECT_EQ(corpus.documents[1].begin, 3);
  EXPECT_EQ(corpus.documents[1].end, 5);
  EXPECT_EQ(corpus.documents[1].source, 1);
  EXPECT_EQ(corpus.text_bytes(), 4);
}

TEST(Packing, TokensDoNotDependOnThreads) {
  const auto one = [] {
    set_threads(1);
    return letter_corpus(26).tokens;
  }();
  const auto four = [] {
    set_threads(4);
    return letter_corpus(26).tokens;
  }();
  set_threads(available_cores());
  EXPECT_EQ(one, four);
}

TEST(Packing, AFormatErrorOfTheTokenizerGetsFileAndLine) {
  const auto fails = [](std::string_view) -> std::vector<std::int32_t> {
    throw FormatError("no piece");
  };
  try {
    tokenize_corpus({{"x", "s", "f.jsonl", 7}}, fails, eos);
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_STREQ(error.what(), "f.jsonl: line 7: no piece");
  }
}

// Without the token that consecutive rows share, the rows of an epoch are the documents, each once.
TEST(Packing, EveryTokenIsPredictedOnceAnEpoch) {
  const TokenCorpus corpus = letter_corpus(20);
  const auto n = static_cast<Index>(corpus.tokens.size());
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
      EXPECT_EQ(seen, std::multiset<std::int32_t>(corpus.tokens.begin(), corpus.tokens.end()));
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
  EXPECT_TRUE(pack_in_order(empty, 8, 10).empty());
  const TokenCorpus corpus = letter_corpus(2);
  EXPECT_THROW(BatchSource(corpus, 0, 1), ConfigError);
}

TEST(Packing, InOrderFillsAtLeastOneRow) {
  const TokenCorpus corpus = tokenize_corpus({{"abcd", "s", "", 1}}, bytes_of, eos);
  EXPECT_EQ(pack_in_order(corpus, 2, 9), (std::vector<std::int32_t>{'a', 'b', 'c', 'c', 'd', eos}));
  EXPECT_EQ(pack_in_order(corpus, 2, 1), (std::vector<std::int32_t>{'a', 'b', 'c'}));
  EXPECT_EQ(pack_in_order(corpus, 6, 9),
            (std::vector<std::int32_t>{'a', 'b', 'c', 'd', eos, 'a', 'b'}));
}

std::vector<Document> numbered(int n, const std::string& source) {
  std::vector<Document> documents;
  for (int i = 0; i < n; ++i)
    documents.push_back({"document " + std::to_string(i), source, "x", i + 1});
  return documents;
}

TEST(HeldOut, TakesTheFractionWhateverTheOrder) {
  auto documents = numbered(20000, "s");
  const auto texts = [](const std::vector<Document>& list) {
    std::set<std::string> set;
    for (const auto& document : list) set.insert(document.text);
    return set;
  };
  const CorpusSplit split = split_held_out(documents, 0.01);
  EXPECT_EQ(split.train.size() + split.held_out.size(), documents.size());
  EXPECT_NEAR(static_cast<double>(split.held_out.size()), 200, 5 * std::sqrt(200));
  std::reverse(documents.begin(), documents.end());
  documents.resize(15000);
  const auto few = texts(split_held_out(documents, 0.01).held_out);
  const auto all = texts(split.held_out);
  EXPECT_TRUE(std::includes(all.begin(), all.end(), few.begin(), few.end()));
}

TEST(HeldOut, EverySourceGivesOneAndKeepsOne) {
  auto documents = numbered(5, "a");
  for (const auto& document : numbered(3, "b")) documents.push_back(document);
  for (double fraction : {1e-9, 0.999999}) {
    const CorpusSplit split = split_held_out(documents, fraction);
    std::map<std::string, int> train, held_out;
    for (const auto& document : split.train) train[document.source]++;
    for (const auto& document : split.held_out) held_out[document.source]++;
    for (const char* source : {"a", "b"}) {
      EXPECT_GE(train[source], 1);
      EXPECT_GE(held_out[source], 1);
    }
  }
}

TEST(HeldOut, CopiesStayOnOneSide) {
  auto documents = numbered(2, "a");
  for (int copy = 0; copy < 3; ++copy) documents.push_back(documents[0]);
  const CorpusSplit split = split_held_out(documents, 0.01);
  EXPECT_FALSE(split.train.empty());
  for (const auto& a : split.train)
    for (const auto& b : split.held_out) EXPECT_NE(a.text, b.text);
  const std::vector<Document> same(4, documents[0]);
  EXPECT_EQ(split_held_out(same, 0.5).held_out.size(), 0u);
}

TEST(HeldOut, ASingleLongDocumentGivesItsEnd) {
  std::string text;
  for (int i = 0; i < 500; ++i) text += "第" + std::to_string(i) + "行\n";
  const CorpusSplit split = split_held_out({{text, "s", "x", 1}}, 0.01);
  ASSERT_EQ(split.train.size(), 1u);
  ASSERT_EQ(split.held_out.size(), 1u);
  EXPECT_EQ(split.train[0].text + split.held_out[0].text, text);
  EXPECT_EQ(split.train[0].text.back(), '\n');
  EXPECT_GT(split.held_out[0].line, 400);
  EXPECT_LT(split.held_out[0].text.size(), text.size() / 10);
  // Without lines the cut is between two code points.
  std::string one_line;
  for (int i = 0; i < 3000; ++i) one_line += "字";
  const CorpusSplit cut = split_held_out({{one_line, "s", "x", 1}}, 0.01);
  EXPECT_EQ(cut.train[0].text.size() % 3, 0u);
  EXPECT_EQ(cut.held_out.at(0).text.size() % 3, 0u);
}

TEST(HeldOut, NothingFromASmallDocumentOrAFractionOfZero) {
  EXPECT_TRUE(split_held_out(numbered(1, "s"), 0.5).held_out.empty());
  EXPECT_TRUE(split_held_out(numbered(9, "s"), 0).held_out.empty());
  EXPECT_THROW(split_held_out(numbered(9, "s"), 1), ConfigError);
  EXPECT_THROW(split_held_out(numbered(9, "s"), -0.1), ConfigError);
  EXPECT_TRUE(split_held_out({}, 0.1).train.empty());
}

}  // namespace
}  // namespace minke
