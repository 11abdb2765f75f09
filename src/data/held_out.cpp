#include "data/held_out.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "base/hash.h"
#include "base/random.h"
#include "base/threads.h"

namespace minke {
namespace {

void cut_end(Document& document, double fraction, CorpusSplit& split) {
  const std::size_t cut = held_out_cut(document.text, fraction);
  Document end = document;
  end.text.erase(0, cut);
  end.line +=
      std::count(document.text.begin(), document.text.begin() + static_cast<long>(cut), '\n');
  document.text.resize(cut);
  split.held_out.push_back(std::move(end));
  split.train.push_back(std::move(document));
}

}  // namespace

std::uint64_t held_out_hash(std::string_view text) {
  return mix_bits(hash64(as_byte_span(text)));
}

void HeldOutRule::add(std::uint64_t hash) {
  ++documents_;
  smallest_ = std::min(smallest_, hash);
  largest_ = std::max(largest_, hash);
}

std::uint64_t HeldOutRule::limit(double fraction) const {
  if (fraction == 0 || documents_ == 0 || smallest_ == largest_) return 0;
  // Hashes are evenly spread. At least the smallest one, and never the largest.
  return std::clamp(static_cast<std::uint64_t>(fraction * 0x1p64), smallest_, largest_ - 1);
}

std::size_t held_out_cut(std::string_view text, double fraction) {
  const auto size = static_cast<double>(text.size());
  const auto kept = static_cast<std::size_t>(size - std::max(fraction * size, size / 16));
  // The first line, or else code point, that begins in the last part.
  std::size_t cut = text.find('\n', kept);
  cut = cut == std::string_view::npos || cut + 1 >= text.size() ? kept : cut + 1;
  while ((static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) ++cut;
  return cut;
}

CorpusSplit split_held_out(std::vector<Document> documents, double fraction) {
  if (!(fraction >= 0 && fraction < 1))
    throw ConfigError(
        fmt::format("held_out_fraction is {}, but must be at least 0 and below 1", fraction));
  if (fraction == 0) return {std::move(documents), {}};
  std::vector<std::uint64_t> hashes(documents.size());
  parallel_for(static_cast<Index>(documents.size()), [&](Index i) {
    hashes[static_cast<std::size_t>(i)] =
        held_out_hash(documents[static_cast<std::size_t>(i)].text);
  });
  std::map<std::string, HeldOutRule> rules;
  for (std::size_t i = 0; i < documents.size(); ++i) rules[documents[i].source].add(hashes[i]);

  CorpusSplit split;
  for (std::size_t i = 0; i < documents.size(); ++i) {
    Document& document = documents[i];
    const HeldOutRule& rule = rules[document.source];
    if (rule.documents() == 1 && document.text.size() >= kSmallestDocumentToCut) {
      cut_end(document, fraction, split);
    } else {
      const std::uint64_t limit = rule.limit(fraction);
      (limit > 0 && hashes[i] <= limit ? split.held_out : split.train)
          .push_back(std::move(document));
    }
  }
  return split;
}

}  // namespace minke
