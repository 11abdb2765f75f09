// Which documents are held out: never trained on, and what losses are measured on.
//
// About a given fraction of each source's documents, by the hash of their text: the choice depends
// neither on order nor on other documents, and copies of a text within a source never fall on both
// sides. With a fraction above 0, a source gives at least one document if it has two different
// ones; of a single document of at least 4 KiB the end is held out, from a line's beginning.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "data/corpus.h"

namespace minke {

inline constexpr std::size_t kSmallestDocumentToCut = 4096;  // bytes

std::uint64_t held_out_hash(std::string_view text);

// The rule for one source, from the hashes of its documents.
class HeldOutRule {
 public:
  void add(std::uint64_t hash);
  std::int64_t documents() const { return documents_; }
  // Documents whose hash is at most this are held out; 0: none.
  std::uint64_t limit(double fraction) const;

 private:
  std::int64_t documents_ = 0;
  std::uint64_t smallest_ = ~std::uint64_t{0}, largest_ = 0;
};

// Where a source's single document is cut: the byte at which its held-out end begins.
std::size_t held_out_cut(std::string_view text, double fraction);

struct CorpusSplit {
  std::vector<Document> train, held_out;
};

// Throws ConfigError unless 0 <= fraction < 1.
CorpusSplit split_held_out(std::vector<Document> documents, double fraction);

}  // namespace minke
