// What is changed at random in the documents of training (report, section 4.1).
//
//   fill in the middle   at a rate, a document is cut at two places into prefix, middle and suffix
//                        and trained on as  <fim_begin> prefix <fim_hole> suffix <fim_end> middle
//                        (PSM), before documents are packed into rows
//   split punctuation    the published tokenizer has tokens that join punctuation with the line
//                        breaks behind it; at a rate such a token becomes two, so that a prompt
//                        that ends before its line break is nothing new to the model
//
// The places of the two cuts are characters (code points), not borders of tokens: in use the cursor
// stands anywhere, also in the middle of what would be a token, and a model that has only seen
// whole tokens before the hole continues such a text badly (Bavarian et al. 2022, arXiv 2207.14255,
// section 4.4). The three parts are therefore tokenised anew. The middle has at least one
// character.
#pragma once
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "base/random.h"
#include "data/text_encoder.h"

namespace minke {

struct TransformRates {
  double fim = 0, split = 0;
};

class DocumentTransform {
 public:
  // ConfigError when `rates.fim` is above 0 and the tokenizer lacks one of the three FIM tokens,
  // or `rates.split` is above 0 and no token joins punctuation with line breaks.
  DocumentTransform(const TextEncoder& encoder, TransformRates rates);

  // A document's tokens, end-of-sentence included, as they are trained on: a function of them, the
  // seed, the epoch and the document's number alone. Reads and returns `tokens`. In a dialogue no
  // middle is filled.
  std::vector<std::int32_t> apply(std::vector<std::int32_t> tokens, std::uint64_t seed,
                                  std::int64_t epoch, std::int64_t document) const;

  const TransformRates& rates() const { return rates_; }

 private:
  bool is_dialogue(const std::vector<std::int32_t>& tokens) const;
  void find_fim_tokens();
  void find_joined_tokens();
  std::vector<std::int32_t> fill_in_the_middle(const std::vector<std::int32_t>& tokens,
                                               Random& random) const;
  std::vector<std::int32_t> split_joined(const std::vector<std::int32_t>& tokens,
                                         Random& random) const;

  TextEncoder encoder_;
  TransformRates rates_;
  std::vector<bool> is_added_;  // by id: names no text
  std::int32_t begin_ = -1, hole_ = -1, end_ = -1;
  std::unordered_map<std::int32_t, std::vector<std::int32_t>>
      joined_;  // token -> what it splits into
};

}  // namespace minke
