#include "infer/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/random.h"

namespace minke {
namespace {

constexpr double kForbidden = -std::numeric_limits<double>::infinity();

bool more_likely(const Sampler::Candidate& a, const Sampler::Candidate& b) {
  return a.probability != b.probability ? a.probability > b.probability : a.id < b.id;
}

// Sorts so much of the front that its probabilities reach `mass`; returns how many are needed. Most
// nuclei are small, so sorting grows from a small front.
std::size_t sort_until(std::vector<Sampler::Candidate>& candidates, double mass) {
  std::size_t sorted = 0;
  double sum = 0;
  for (std::size_t front = 64; sorted < candidates.size(); front *= 4) {
    const std::size_t end = std::min(front, candidates.size());
    std::partial_sort(candidates.begin() + static_cast<std::ptrdiff_t>(sorted),
                      candidates.begin() + static_cast<std::ptrdiff_t>(end), candidates.end(),
                      more_likely);
    for (; sorted < end; ++sorted) {
      sum += candidates[sorted].probability;
      if (sum >= mass) return sorted + 1;
    }
  }
  return sorted;
}

double sum_of(const std::vector<Sampler::Candidate>& candidates) {
  double sum = 0;
  for (const Sampler::Candidate& c : candidates) sum += c.probability;
  return sum;
}

// Sums of up to 2^17 rounded probabilities may miss their exact value by a little; a bound that is
// met exactly must count as met.
constexpr double kSumSlack = 1e-12;

}  // namespace

void SamplerSettings::check(std::string_view where) const {
  const auto require = [&](bool good, std::string_view name, double value,
                           std::string_view expected) {
    if (!good)
      throw ConfigError(fmt::format("{}: {} is {}; expected {}", where, name, value, expected));
  };
  const auto within = [](double x, double min, double max) { return x >= min && x <= max; };
  require(within(temperature, 0, 100), "temperature", temperature, "a number from 0 to 100");
  require(top_k >= 0, "top_k", static_cast<double>(top_k), "0 (all) or more");
  require(within(top_p, 0, 1), "top_p", top_p, "a number from 0 to 1");
  require(within(min_p, 0, 1), "min_p", min_p, "a number from 0 to 1");
  require(within(repetition_penalty, 1e-3, 1e3), "repetition_penalty", repetition_penalty,
          "a number from 0.001 to 1000 (1: none)");
  require(within(presence_penalty, -2, 2), "presence_penalty", presence_penalty,
          "a number from -2 to 2");
  require(within(frequency_penalty, -2, 2), "frequency_penalty", frequency_penalty,
          "a number from -2 to 2");
}

Sampler::Sampler(const SamplerSettings& settings) : settings_(settings) {
  settings.check("sampling");
}

void Sampler::penalise(std::span<const float> logits, const TokenHistory& history) {
  logits_.assign(logits.begin(), logits.end());
  bool any = false;
  for (std::size_t v = 0; v < logits_.size(); ++v) {
    if (!(logits_[v] < std::numeric_limits<double>::infinity()))
      throw Error(fmt::format(
          "the logit of token {} is {}: the weights or the arithmetic are damaged; compare with "
          "--compute fp32 and check the model's files",
          v, logits[v]));
    any |= logits_[v] != kForbidden;
  }
  if (!any) throw Error("every token is forbidden (all logits are minus infinity)");

  const double repetition = settings_.repetition_penalty;
  const double presence = settings_.presence_penalty, frequency = settings_.frequency_penalty;
  if (repetition == 1 && presence == 0 && frequency == 0) return;
  constexpr std::int32_t in_prompt = -1;  // seen, but not generated
  counts_.assign(logits_.size(), 0);
  const auto known = [&](std::int32_t id) {
    return id >= 0 && static_cast<std::size_t>(id) < counts_.size();
  };
  for (const std::int32_t id : history.prompt)
    if (known(id)) counts_[static_cast<std::size_t>(id)] = in_prompt;
  for (const std::int32_t id : history.generated)
    if (known(id)) {
      std::int32_t& count = counts_[static_cast<std::size_t>(id)];
      count = std::max(count, 0) + 1;
    }
  for (std::size_t v = 0; v < logits_.size(); ++v) {
    if (counts_[v] == 0) continue;
    double& z = logits_[v];
    z = z > 0 ? z / repetition : z * repetition;
    if (counts_[v] > 0) z -= counts_[v] * frequency + presence;
  }
}

void Sampler::filter() {
  candidates_.clear();
  const auto best = std::max_element(logits_.begin(), logits_.end());  // the first of equals
  if (settings_.temperature == 0) {
    candidates_.push_back({static_cast<std::int32_t>(best - logits_.begin()), 1});
    return;
  }
  candidates_.reserve(logits_.size());
  // Relative to the largest, so that neither large logits nor a small temperature overflow.
  for (std::size_t v = 0; v < logits_.size(); ++v) {
    const double p = std::exp((logits_[v] - *best) / settings_.temperature);
    if (p > 0) candidates_.push_back({static_cast<std::int32_t>(v), p});
  }
  const auto top_k = static_cast<std::size_t>(settings_.top_k);
  if (top_k > 0 && top_k < candidates_.size()) {
    // By logit, not by probability: two logits may have one rounded exponential.
    std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(top_k),
                     candidates_.end(), [&](const Candidate& a, const Candidate& b) {
                       const double za = logits_[static_cast<std::size_t>(a.id)];
                       const double zb = logits_[static_cast<std::size_t>(b.id)];
                       return za != zb ? za > zb : a.id < b.id;
                     });
    candidates_.resize(top_k);
    std::sort(candidates_.begin(), candidates_.end(),
              [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  }
  if (settings_.top_p < 1) {
    const double mass = settings_.top_p * sum_of(candidates_);
    candidates_.resize(sort_until(candidates_, mass * (1 - kSumSlack)));
  }
  if (settings_.min_p > 0)
    std::erase_if(candidates_, [&](const Candidate& c) {
      return c.probability < settings_.min_p;  // the largest is 1
    });
}

std::int32_t Sampler::sample(std::span<const float> logits, const TokenHistory& history) {
  penalise(logits, history);
  filter();
  if (candidates_.size() == 1) return candidates_.front().id;
  const std::uint64_t position = history.prompt.size() + history.generated.size();
  double left = Random(RandomState{settings_.seed, 0, position}).uniform() * sum_of(candidates_);
  for (const Candidate& c : candidates_) {
    if (left < c.probability) return c.id;
    left -= c.probability;
  }
  return candidates_.back().id;  // rounding: the sum was not quite reached
}

std::vector<Sampler::Candidate> Sampler::distribution(std::span<const float> logits,
                                                      const TokenHistory& history) {
  penalise(logits, history);
  filter();
  std::vector<Candidate> result = candidates_;
  const double sum = sum_of(result);
  for (Candidate& c : result) c.probability /= sum;
  std::sort(result.begin(), result.end(), more_likely);
  return result;
}

}  // namespace minke
