#include "data/minhash.h"

#include <algorithm>
#include <limits>
#include <span>

#include "base/hash.h"
#include "base/random.h"
#include "text/unicode_class.h"
#include "text/utf8.h"

namespace minke {
namespace {

constexpr int kRows = kMinHashes / kMinHashBands;
using Minima = std::array<std::uint32_t, kMinHashes>;

struct Permutations {
  std::array<std::uint32_t, kMinHashes> factor, flip;
};

const Permutations& permutations() {
  static const Permutations all = [] {
    Permutations p;
    for (std::size_t i = 0; i < kMinHashes; ++i) {
      const std::uint64_t bits = mix_bits(0x6D696E68617368 + i);  // any fixed number
      p.factor[i] = static_cast<std::uint32_t>(bits) | 1;
      p.flip[i] = static_cast<std::uint32_t>(bits >> 32);
    }
    return p;
  }();
  return all;
}

bool is_word_class(UnicodeClass c) {
  return c == UnicodeClass::Letter || c == UnicodeClass::Mark || c == UnicodeClass::Number;
}

// Scripts written without spaces between words: kana, and Han with its extensions.
bool stands_alone(std::uint32_t code) {
  return (code >= 0x3040 && code <= 0x30FF) || (code >= 0x3400 && code <= 0x9FFF) ||
         (code >= 0xF900 && code <= 0xFAFF) || (code >= 0x20000 && code <= 0x3FFFF);
}

// Calls take(hash) for every word in order.
template <class Take>
void each_word(std::string_view text, Take take) {
  std::uint64_t hash = 0;
  bool inside = false;
  const auto end_word = [&] {
    if (inside) take(hash);
    inside = false, hash = 0;
  };
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint point = code_point_at(text, at);
    at += point.bytes;
    std::uint32_t code = point.code;
    if (code >= 'A' && code <= 'Z') code += 'a' - 'A';
    if (!is_word_class(unicode_class(code))) {
      end_word();
    } else if (stands_alone(code)) {
      end_word();
      take(mix_bits(code));
    } else {
      hash = mix_bits(hash + code + 1);
      inside = true;
    }
  }
  end_word();
}

void lower(Minima& minima, std::uint64_t shingle) {
  const Permutations& p = permutations();
  const auto h = static_cast<std::uint32_t>(shingle >> 32);
  for (std::size_t i = 0; i < kMinHashes; ++i)
    minima[i] = std::min(minima[i], (h ^ p.flip[i]) * p.factor[i]);
}

// The last kShingleWords words as a ring.
class Shingles {
 public:
  explicit Shingles(Minima& minima) : minima_(minima) {}
  void add(std::uint64_t word) {
    words_[n_++ % kShingleWords] = word;
    if (n_ >= kShingleWords) lower(minima_, joined(kShingleWords));
  }
  // A short text is one shingle. Returns whether there was any word.
  bool finish() {
    if (n_ > 0 && n_ < kShingleWords) lower(minima_, joined(n_));
    return n_ > 0;
  }

 private:
  std::uint64_t joined(std::size_t count) const {
    std::uint64_t hash = 0;
    for (std::size_t i = n_ - count; i < n_; ++i) hash = mix_bits(hash ^ words_[i % kShingleWords]);
    return hash;
  }

  Minima& minima_;
  std::array<std::uint64_t, kShingleWords> words_{};
  std::size_t n_ = 0;
};

}  // namespace

MinHash minhash(std::string_view text) {
  Minima minima;
  minima.fill(std::numeric_limits<std::uint32_t>::max());
  Shingles shingles(minima);
  each_word(text, [&](std::uint64_t word) { shingles.add(word); });
  MinHash result;
  result.empty = !shingles.finish();
  for (std::size_t band = 0; band < kMinHashBands; ++band)
    result.bands[band] = hash64(std::as_bytes(std::span(minima).subspan(band * kRows, kRows)));
  // The minimum's high bits are nearly always 0; the low ones are evenly spread.
  for (std::size_t i = 0; i < kMinHashes; ++i)
    result.sketch[i] = static_cast<std::uint8_t>(mix_bits(minima[i]));
  return result;
}

double estimated_similarity(const std::array<std::uint8_t, kMinHashes>& a,
                            const std::array<std::uint8_t, kMinHashes>& b) {
  int same = 0;
  for (std::size_t i = 0; i < kMinHashes; ++i) same += a[i] == b[i];
  const double agreement = static_cast<double>(same) / kMinHashes;
  return std::max(0.0, (agreement - 1.0 / 256) * 256 / 255);
}

}  // namespace minke
