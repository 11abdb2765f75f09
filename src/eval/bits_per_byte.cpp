#include "eval/bits_per_byte.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace minke {

double TextScore::perplexity() const {
  return std::exp(loss());
}

double TextScore::bits_per_byte() const {
  return nats / (std::numbers::ln2 * static_cast<double>(bytes));
}

TextScore& TextScore::operator+=(const TextScore& other) {
  documents += other.documents;
  bytes += other.bytes;
  tokens += other.tokens;
  nats += other.nats;
  return *this;
}

TextScorer::TextScorer(const Model& model, const Tokenizer& tokenizer,
                       const WindowSettings& settings, Index batch_tokens)
    : tokenizer_(tokenizer), scorer_(model, settings, batch_tokens) {
  scorer_.on_batch = [this](Index scored) { report(scored); };
}

// A document's bytes count as done in proportion to its tokens.
void TextScorer::report(Index scored) {
  if (!on_progress) return;
  const double part = document_tokens_ > 0 ? static_cast<double>(scored - tokens_before_) /
                                                 static_cast<double>(document_tokens_)
                                           : 1;
  on_progress(bytes_before_ + static_cast<std::int64_t>(std::clamp(part, 0., 1.) *
                                                        static_cast<double>(document_bytes_)));
}

void TextScorer::add(std::string_view text, const std::string& source) {
  std::vector<std::int32_t> ids = tokenizer_.encode(text, SpecialTokens::Ignore);
  std::int64_t bytes = static_cast<std::int64_t>(text.size());
  if (tokenizer_.add_bos_token() && tokenizer_.bos_id())
    ids.insert(ids.begin(), *tokenizer_.bos_id());
  else if (!ids.empty())
    bytes -= static_cast<std::int64_t>(tokenizer_.token_bytes(ids.front()).size());

  Source& entry = sources_.try_emplace(source, Source{sources_.size(), {}}).first->second;
  ++entry.score.documents;
  entry.score.bytes += bytes;
  document_bytes_ = static_cast<std::int64_t>(text.size());
  document_tokens_ = std::max<Index>(static_cast<Index>(ids.size()) - 1, 0);
  scorer_.add(ids, entry.group);
  bytes_before_ += document_bytes_;
  tokens_before_ += document_tokens_;
  document_bytes_ = document_tokens_ = 0;
}

TextScores TextScorer::finish() {
  scorer_.flush();
  TextScores result;
  for (const auto& [name, source] : sources_) {
    TextScore score = source.score;
    const ScoreSum sum = scorer_.sum(source.group);
    score.nats = sum.nats;
    score.tokens = sum.tokens;
    result.overall += score;
    result.sources.push_back({name, score});
  }
  return result;
}

}  // namespace minke
