#include "data/minhash.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

namespace minke {
namespace {

// n words w<first>, w<first + 1>, ...
std::string words(int first, int n) {
  std::string text;
  for (int i = first; i < first + n; ++i) text += "w" + std::to_string(i) + " ";
  return text;
}

double similarity(const std::string& a, const std::string& b) {
  return estimated_similarity(minhash(a).sketch, minhash(b).sketch);
}

int shared_bands(const std::string& a, const std::string& b) {
  const MinHash x = minhash(a), y = minhash(b);
  int shared = 0;
  for (std::size_t i = 0; i < kMinHashBands; ++i) shared += x.bands[i] == y.bands[i];
  return shared;
}

// Shingles of [0, n) and [k, n + k): n - 4 each, n - k - 4 in common.
TEST(MinHash, EstimatesTheSimilarity) {
  const int n = 2004;
  for (const int k : {0, 100, 222, 667, 2004}) {
    const double common = std::max(0, n - k - 4), jaccard = common / (2 * (n - 4) - common);
    const double error = std::sqrt(jaccard * (1 - jaccard) / kMinHashes + 1e-4);
    EXPECT_NEAR(similarity(words(0, n), words(k, n)), jaccard, 4 * error) << jaccard;
  }
  EXPECT_EQ(similarity(words(0, n), words(0, n)), 1);
}

TEST(MinHash, SimilarTextsShareABand) {
  EXPECT_EQ(shared_bands(words(0, 500), words(0, 500)), kMinHashBands);
  EXPECT_GT(shared_bands(words(0, 1000), words(20, 1000)), 0);
  EXPECT_EQ(shared_bands(words(0, 1000), words(5000, 1000)), 0);
}

TEST(MinHash, CaseSpaceAndPunctuationDoNotCount) {
  EXPECT_EQ(
      similarity("The quick, brown fox jumps over it.", "the quick\nbrown fox jumps OVER it!"), 1);
  EXPECT_EQ(similarity("白日依山盡，黃河入海流", "白日依山盡黃河入海流。"), 1);
  EXPECT_LT(similarity("白日依山盡，黃河入海流", "床前明月光疑是地上霜"), 0.2);
}

TEST(MinHash, ShortTexts) {
  EXPECT_EQ(similarity("one two", "one, two"), 1);
  EXPECT_LT(similarity("one two", "two one"), 0.2) << "order counts";
  EXPECT_FALSE(minhash("x").empty);
  EXPECT_TRUE(minhash("").empty);
  EXPECT_TRUE(minhash("... --- !!!\n").empty);
}

}  // namespace
}  // namespace minke
