#include "eval/text_acceptance.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace minke {

void TextAcceptanceSettings::check(const ModelConfig& config) const {
  if (window < 1 || window >= config.max_position_embeddings)
    throw ConfigError(
        fmt::format("window is {}; expected 1 to {} tokens (the model's max_position_embeddings, "
                    "less one for the model's own token)",
                    window, config.max_position_embeddings - 1));
  if (every < 1 || every > window)
    throw ConfigError(
        fmt::format("every is {}; expected 1 to {} (the window) positions", every, window));
  if (config.num_nextn_predict_layers < 1)
    throw ConfigError(
        "the model has no prediction module (num_nextn_predict_layers is 0): there is no "
        "acceptance to measure");
}

TextAcceptance::TextAcceptance(const Model& model, const Tokenizer& tokenizer,
                               const TextAcceptanceSettings& settings, Index batch_tokens)
    : model_(model), tokenizer_(tokenizer), settings_(settings), batch_tokens_(batch_tokens) {
  settings.check(model.config);
}

void TextAcceptance::add(std::string_view text, const std::string& source) {
  std::vector<std::int32_t> ids = tokenizer_.encode(text, SpecialTokens::Ignore);
  if (tokenizer_.add_bos_token() && tokenizer_.bos_id())
    ids.insert(ids.begin(), *tokenizer_.bos_id());
  for (const std::int32_t id : ids)
    if (id < 0 || id >= model_.config.vocab_size)
      throw ConfigError(fmt::format(
          "token {} is outside the model's vocabulary of {}; are tokenizer and model from the same "
          "directory?",
          id, model_.config.vocab_size));
  NamedAcceptance& entry =
      sources_.try_emplace(source, NamedAcceptance{source, 0, {}}).first->second;
  ++entry.documents;
  const auto window = static_cast<std::size_t>(settings_.window);
  for (std::size_t begin = 0; begin < ids.size(); begin += window) {
    const std::size_t end = std::min(begin + window, ids.size());
    if (static_cast<Index>(end - begin) < settings_.every) continue;
    if (pending_tokens_ > 0 && pending_tokens_ + static_cast<Index>(end - begin) > batch_tokens_)
      flush();
    pending_.emplace_back(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                          ids.begin() + static_cast<std::ptrdiff_t>(end));
    pending_sources_.push_back(&entry);
    pending_tokens_ += static_cast<Index>(end - begin);
  }
  bytes_ += static_cast<std::int64_t>(text.size());
}

void TextAcceptance::flush() {
  const std::vector<Acceptance> found =
      mtp_acceptance(model_, pending_, {.every = settings_.every, .form = AttentionForm::Absorbed});
  for (std::size_t i = 0; i < found.size(); ++i) pending_sources_[i]->acceptance += found[i];
  pending_.clear();
  pending_sources_.clear();
  pending_tokens_ = 0;
  if (on_progress) on_progress(bytes_);
}

std::vector<NamedAcceptance> TextAcceptance::finish() {
  flush();
  std::vector<NamedAcceptance> all;
  for (auto& [name, entry] : sources_) all.push_back(entry);
  return all;
}

}  // namespace minke
