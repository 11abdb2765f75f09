// Choosing the next token from logits.
//
// In this order, each step on what the one before left:
//   1. penalties on the logits z (see below)
//   2. temperature 0: the largest z, ties to the lowest id; otherwise z / temperature
//   3. top_k: the k largest, ties to the lower id
//   4. p = softmax of what is left
//   5. top_p: the most likely tokens, until their probabilities add up to at least top_p; the token
//      that reaches it is kept
//   6. min_p: those with p >= min_p * (largest p)
//   7. one token drawn by p
// Penalties, for a token v that occurred c times among the generated tokens:
//   repetition_penalty r (v occurred in the prompt or since):  z > 0 ? z / r : z * r
//   then z - c * frequency_penalty - (c > 0) * presence_penalty
//
// Probabilities are double. The draw is a function of the seed and of how many tokens come before
// the new one: the result depends neither on how a prompt was cut into pieces nor on other
// sequences.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/options.h"

namespace minke {

struct SamplerSettings {
  double temperature = 1;
  std::int64_t top_k = 0;  // 0: all
  double top_p = 1;
  double min_p = 0;
  double repetition_penalty = 1;
  double presence_penalty = 0;
  double frequency_penalty = 0;
  std::uint64_t seed = 0;

  template <class Visitor>
  void visit(Visitor& field) {
    field("temperature", temperature, "0: always the most likely token", between(0, 100));
    field("top-k", top_k, "keep the k most likely tokens (0: all)", at_least(0));
    field("top-p", top_p, "keep the most likely tokens that together reach this probability",
          between(0, 1));
    field("min-p", min_p, "keep tokens at least this likely, relative to the most likely one",
          between(0, 1));
    field(
        "repetition-penalty", repetition_penalty,
        "divides positive and multiplies negative logits of tokens that occurred before (1: none)",
        between(1e-3, 1e3));
    field("presence-penalty", presence_penalty,
          "taken off the logits of tokens that were generated before", between(-2, 2));
    field("frequency-penalty", frequency_penalty,
          "taken off the logits for each time that a token was generated", between(-2, 2));
    field("seed", seed, "of the random draws");
  }

  // ConfigError naming the setting, its range and `where`.
  void check(std::string_view where) const;
};

// What came before the token to be chosen.
struct TokenHistory {
  std::span<const std::int32_t> prompt;
  std::span<const std::int32_t> generated;
};

class Sampler {
 public:
  explicit Sampler(const SamplerSettings& settings);
  const SamplerSettings& settings() const { return settings_; }

  // logits [V]; minus infinity forbids a token. Error when one is NaN or plus infinity, or when all
  // tokens are forbidden. Ids of the history that are no index of logits are left out of account.
  std::int32_t sample(std::span<const float> logits, const TokenHistory& history);

  struct Candidate {
    std::int32_t id;
    double probability;
  };
  // The distribution that sample draws from: most likely first (ties: lower id first), adding up to
  // 1. One candidate at temperature 0.
  std::vector<Candidate> distribution(std::span<const float> logits, const TokenHistory& history);

 private:
  void penalise(std::span<const float> logits, const TokenHistory& history);
  void filter();  // logits_ to candidates_, not normalised

  SamplerSettings settings_;
  std::vector<double> logits_;
  std::vector<std::int32_t> counts_;
  std::vector<Candidate> candidates_;
};

}  // namespace minke
