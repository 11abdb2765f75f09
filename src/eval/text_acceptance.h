// The acceptance of MTP drafts (model/mtp_acceptance.h) on documents, per source and overall.
//
// A document is cut into pieces of `window` tokens, each read by itself; begin-of-sentence comes
// first where the tokenizer says add_bos_token. A piece shorter than `every` has no position that
// is looked at.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "model/mtp_acceptance.h"
#include "text/tokenizer.h"

namespace minke {

struct TextAcceptanceSettings {
  Index window = 512;
  Index every = 16;  // positions every - 1, 2 every - 1, ... of a window

  // ConfigError naming the setting; a position behind the window must be within the model's
  // context.
  void check(const ModelConfig& config) const;
};

struct NamedAcceptance {
  std::string source;
  Index documents = 0;
  Acceptance acceptance;
};

class TextAcceptance {
 public:
  // Windows are put together until they hold `batch_tokens`; that does not change the result.
  TextAcceptance(const Model& model, const Tokenizer& tokenizer,
                 const TextAcceptanceSettings& settings, Index batch_tokens);

  // Called with the bytes of text done so far; it may throw to end the work.
  std::function<void(std::int64_t)> on_progress;

  // FormatError when the text is not UTF-8.
  void add(std::string_view text, const std::string& source);
  // Looks at what is waiting. Sources by name.
  std::vector<NamedAcceptance> finish();

 private:
  void flush();

  const Model& model_;
  const Tokenizer& tokenizer_;
  TextAcceptanceSettings settings_;
  Index batch_tokens_;
  std::map<std::string, NamedAcceptance> sources_;
  std::vector<std::vector<std::int32_t>> pending_;
  std::vector<NamedAcceptance*> pending_sources_;  // of `pending_`
  Index pending_tokens_ = 0;
  std::int64_t bytes_ = 0;
};

}  // namespace minke
