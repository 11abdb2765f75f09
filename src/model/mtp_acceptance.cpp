#include "model/mtp_acceptance.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "base/error.h"
#include "ops/permute.h"

namespace minke {
namespace {

using Ids = std::vector<std::int32_t>;

// The likeliest token of each row of h [T, D].
Ids likeliest(const Model& model, View2<const float> h) {
  const Tensor logits = output_logits(model, h);
  Ids ids;
  for (Index t = 0; t < h.extent(0); ++t) {
    Index best = 0;
    for (Index v = 1; v < logits.extent(1); ++v)
      if (logits.v2()(t, v) > logits.v2()(t, best)) best = v;
    ids.push_back(static_cast<std::int32_t>(best));
  }
  return ids;
}

struct Text {
  const Ids* tokens;
  Index first_row;  // of its states in `hidden`
  std::unique_ptr<SequenceCache> cache;

  Index length() const { return static_cast<Index>(tokens->size()); }
};

class AcceptanceRun {
 public:
  AcceptanceRun(const Model& model, std::span<const Ids> texts, const AcceptanceSettings& settings)
      : model_(model), settings_(settings), results_(texts.size()) {
    read_main(texts);
    read_module();
  }

  // The last sampled position of every text first, so that a cache only ever forgets its end.
  std::vector<Acceptance> run() {
    Index most = 0;
    for (const Text& text : texts_) most = std::max(most, text.length() / settings_.every);
    for (Index sample = most; sample >= 1; --sample) look_at(sample * settings_.every - 1);
    return std::move(results_);
  }

 private:
  void read_main(std::span<const Ids> texts) {
    Ids inputs;
    std::vector<Segment> segments;
    for (const Ids& tokens : texts) {
      Text text{&tokens, static_cast<Index>(inputs.size()),
                std::make_unique<SequenceCache>(model_)};
      text.cache->reserve(text.length() + 1);
      segments.push_back({text.cache.get(), text.length(), AttentionForm::Expanded});
      inputs.insert(inputs.end(), tokens.begin(), tokens.end());
      texts_.push_back(std::move(text));
    }
    hidden_ = cached_forward(model_, inputs, segments);
  }

  // Module 0 over the states of all positions but the last, with the token behind each.
  void read_module() {
    Ids inputs;
    std::vector<Segment> segments;
    for (const Text& text : texts_) {
      if (text.length() < 2) continue;
      segments.push_back({text.cache.get(), text.length() - 1, AttentionForm::Expanded});
      inputs.insert(inputs.end(), text.tokens->begin() + 1, text.tokens->end());
    }
    if (inputs.empty()) return;
    Tensor h =
        Tensor::uninitialized({static_cast<Index>(inputs.size()), model_.config.hidden_size});
    Index row = 0;
    for (const Text& text : texts_) {
      const Index n = text.length() - 1;
      if (n > 0) copy(hidden_.v2().rows(text.first_row, n), h.v2().rows(row, n));
      row += n;
    }
    cached_mtp_forward(model_, 0, inputs, h.v2(), segments);
  }

  // Position i of every text that has it.
  void look_at(Index i) {
    std::vector<std::size_t> chosen;
    for (std::size_t s = 0; s < texts_.size(); ++s)
      if (i < texts_[s].length()) chosen.push_back(s);
    const auto n = static_cast<Index>(chosen.size());
    Tensor h = Tensor::uninitialized({n, model_.config.hidden_size});
    std::vector<Segment> segments;
    for (Index r = 0; r < n; ++r) {
      const Text& text = texts_[chosen[static_cast<std::size_t>(r)]];
      copy(hidden_.v2().rows(text.first_row + i, 1), h.v2().rows(r, 1));
      segments.push_back({text.cache.get(), 1, settings_.form});
    }
    const Ids next = likeliest(model_, h.v2());

    for (const std::size_t s : chosen) texts_[s].cache->truncate(i + 1);
    const Ids target = likeliest(model_, cached_forward(model_, next, segments).v2());
    // The module's row i belongs to the token behind position i, which is now `next`.
    for (const std::size_t s : chosen) texts_[s].cache->truncate(i);
    const Ids draft = likeliest(model_, cached_mtp_forward(model_, 0, next, h.v2(), segments).v2());
    for (std::size_t r = 0; r < chosen.size(); ++r)
      results_[chosen[r]] += {1, draft[r] == target[r] ? 1 : 0};
  }

  const Model& model_;
  AcceptanceSettings settings_;
  std::vector<Text> texts_;
  Tensor hidden_;  // [all tokens, D] after the final norm
  std::vector<Acceptance> results_;
};

}  // namespace

double Acceptance::share() const {
  return positions > 0 ? static_cast<double>(accepted) / static_cast<double>(positions)
                       : std::numeric_limits<double>::quiet_NaN();
}

// E. B. Wilson, 1927: the shares p with |p - p^| <= z sqrt(p (1 - p) / n).
Acceptance::Interval Acceptance::interval() const {
  if (positions == 0) return {0, 1};
  constexpr double z = 1.959963984540054;
  const auto n = static_cast<double>(positions);
  const double p = share(), divisor = 1 + z * z / n;
  const double centre = (p + z * z / (2 * n)) / divisor;
  const double reach = z / divisor * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {std::max(0., centre - reach), std::min(1., centre + reach)};
}

std::vector<Acceptance> mtp_acceptance(const Model& model, std::span<const Ids> texts,
                                       const AcceptanceSettings& settings) {
  if (model.weights.mtp.empty())
    throw ConfigError(
        "the model has no prediction module (num_nextn_predict_layers is 0), so nothing of it can "
        "be accepted");
  if (texts.empty()) return {};
  return AcceptanceRun(model, texts, settings).run();
}

}  // namespace minke
