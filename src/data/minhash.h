// MinHash of a text: a short sketch from which the similarity of two texts is estimated, and keys
// by which likely pairs are found without comparing all (Broder 1997, "On the resemblance and
// containment of documents"; Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3).
//
//   shingles   all runs of 5 words. A word is a run of letters, marks and numbers, ASCII capitals
//              made small; a Chinese character or kana is a word of its own. What else there is
//              does not count. A text of fewer words is one shingle.
//   J(A, B)    |A n B| / |A u B| of the two sets of shingles
//   minima     128 values min over s in A of (h(s) ^ b_i) a_i mod 2^32, a_i odd: each minimum of A
//              and B agrees with probability J
//   bands      16 keys, each the hash of 8 minima: two texts share at least one with probability
//              1 - (1 - J^8)^16, that is 0.61 at J = 0.7, 0.95 at 0.8, 0.9999 at 0.9
//   sketch     8 bits of each minimum (b-bit minwise hashing, Li and Koenig 2010): those of
//              unrelated texts agree in 1/256 of all places, so J ~ (agreement - 1/256) 256/255,
//              with a standard error of 0.035 at J = 0.8
#pragma once
#include <array>
#include <cstdint>
#include <string_view>

namespace minke {

inline constexpr int kShingleWords = 5;
inline constexpr int kMinHashes = 128;
inline constexpr int kMinHashBands = 16;

struct MinHash {
  std::array<std::uint64_t, kMinHashBands> bands{};
  std::array<std::uint8_t, kMinHashes> sketch{};
  bool empty = true;  // the text has no word: it resembles nothing
};

// `text` must be UTF-8.
MinHash minhash(std::string_view text);

double estimated_similarity(const std::array<std::uint8_t, kMinHashes>& a,
                            const std::array<std::uint8_t, kMinHashes>& b);

}  // namespace minke
