#include "train/held_out_acceptance.h"

#include <algorithm>

namespace minke {
namespace {

// Reading a row costs as much as looking at some positions of it: few rows, often looked at.
constexpr Index kEvery = 8;

}  // namespace

Acceptance held_out_acceptance(const Model& model, const std::vector<HeldOutRows>& held_out,
                               Index sequence_length, Index positions) {
  const Index of_row = std::max<Index>(1, sequence_length / kEvery);
  const Index wanted = std::max<Index>(1, (positions + of_row - 1) / of_row);
  const auto n_sources = std::max<Index>(1, static_cast<Index>(held_out.size()));
  const Index of_source = (wanted + n_sources - 1) / n_sources;
  std::vector<std::vector<std::int32_t>> texts;
  for (const HeldOutRows& source : held_out)
    for (Index row = 0; row < std::min(of_source, source.rows); ++row) {
      const auto begin = source.tokens.begin() + row * (sequence_length + 1);
      texts.emplace_back(begin, begin + sequence_length);
    }
  Acceptance sum;
  const AcceptanceSettings settings{.every = std::min(kEvery, sequence_length),
                                    .form = AttentionForm::Expanded};
  for (const Acceptance& one : mtp_acceptance(model, texts, settings)) sum += one;
  return sum;
}

}  // namespace minke
