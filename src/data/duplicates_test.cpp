#include "data/duplicates.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "data/held_out.h"

namespace minke {
namespace {

struct Text {
  std::string text;
  std::uint32_t source = 0;
};

DocumentRecord record_of(const Text& text) {
  DocumentRecord record;
  const MinHash found = minhash(text.text);
  record.hash = held_out_hash(text.text);
  record.text_bytes = text.text.size();
  record.bands = found.bands;
  record.sketch = found.sketch;
  record.has_words = found.empty ? 0 : 1;
  record.source = text.source;
  return record;
}

std::vector<Outcome> decide(const std::vector<Text>& texts, DuplicateOptions options = {}) {
  std::vector<DocumentRecord> records;
  for (const Text& text : texts) records.push_back(record_of(text));
  return decide_outcomes(records, options);
}

std::string paragraph(int number, int changed = -1) {
  std::string text;
  for (int i = 0; i < 200; ++i)
    text += "word" + std::to_string(i == changed ? 9999 : number * 1000 + i) + " ";
  return text;
}

TEST(Duplicates, TheFirstCopyIsKept) {
  using enum Outcome;
  const std::vector<Text> texts = {{"a b"}, {"c d"}, {"a b"}, {"a b"}, {"e f"}};
  EXPECT_EQ(decide(texts), (std::vector{Train, Train, ExactDuplicate, ExactDuplicate, Train}));
  EXPECT_EQ(decide(texts, {.exact = false, .near = 0}), std::vector(5, Train));
  EXPECT_TRUE(decide({}).empty());
}

TEST(Duplicates, NearDuplicatesOfTheFirstAreLeftOut) {
  using enum Outcome;
  EXPECT_EQ(decide({{paragraph(1)}, {paragraph(2)}, {paragraph(1, 50)}, {paragraph(1, 150)}}),
            (std::vector{Train, Train, NearDuplicate, NearDuplicate}));
  EXPECT_EQ(decide({{paragraph(1)}, {paragraph(1, 50)}}, {.near = 0}), std::vector(2, Train));
  EXPECT_EQ(decide({{"!!!"}, {"???"}, {"..."}}), std::vector(3, Train)) << "no words, not near";
}

// What is near to a held-out text must not be trained on, wherever it stands.
TEST(Duplicates, HeldOutTextsWin) {
  std::vector<Text> texts;
  for (int i = 0; i < 20; ++i) texts.push_back({paragraph(i)});
  const DuplicateOptions options{.held_out_fraction = 0.1};
  const auto alone = decide(texts, options);
  std::size_t held_out = 0;
  while (alone[held_out] != Outcome::HeldOut) ++held_out;
  const std::string copy = texts[held_out].text;
  texts.insert(texts.begin(), {copy, 1});  // of another source, where it is for training
  texts.insert(texts.begin() + 1, {paragraph(static_cast<int>(held_out), 77), 1});
  texts.push_back({paragraph(static_cast<int>(held_out), 33), 1});
  const auto outcomes = decide(texts, options);
  // All four are of one group; the held-out one of source 0, or one that source 1 holds out, stays.
  const auto kept_of_group = is_kept(outcomes[0]) + is_kept(outcomes[1]) +
                             is_kept(outcomes[held_out + 2]) + is_kept(outcomes.back());
  EXPECT_EQ(kept_of_group, 1);
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}, held_out + 2, outcomes.size() - 1})
    EXPECT_NE(outcomes[i], Outcome::Train) << i;
}

TEST(Duplicates, TheSplitIsThatOfTexts) {
  std::vector<Text> texts;
  std::vector<Document> documents;
  for (int i = 0; i < 300; ++i) {
    texts.push_back({paragraph(i), static_cast<std::uint32_t>(i % 3)});
    documents.push_back({texts.back().text, std::to_string(i % 3), "x", i});
  }
  const auto outcomes = decide(texts, {.held_out_fraction = 0.05});
  for (const Document& document : split_held_out(documents, 0.05).held_out)
    EXPECT_EQ(outcomes[static_cast<std::size_t>(document.line)], Outcome::HeldOut);
  EXPECT_EQ(
      static_cast<std::size_t>(std::count(outcomes.begin(), outcomes.end(), Outcome::HeldOut)),
      split_held_out(documents, 0.05).held_out.size());
}

TEST(Duplicates, ASingleLongDocumentIsCut) {
  const std::string text = paragraph(1) + paragraph(2) + paragraph(3);
  ASSERT_GE(text.size(), kSmallestDocumentToCut);
  EXPECT_EQ(decide({{text}}, {.held_out_fraction = 0.01}), std::vector{Outcome::Cut});
  EXPECT_EQ(decide({{text}}), std::vector{Outcome::Train});
}

TEST(Duplicates, FaultsStay) {
  std::vector<DocumentRecord> records = {record_of({"a b"}), record_of({"a b"}),
                                         record_of({"a b"})};
  records[0].outcome = Outcome::NotJson;
  EXPECT_EQ(decide_outcomes(records, {}),
            (std::vector{Outcome::NotJson, Outcome::Train, Outcome::ExactDuplicate}));
}

}  // namespace
}  // namespace minke
