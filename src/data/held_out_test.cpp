#include "data/held_out.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/error.h"

namespace minke {
namespace {

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
