#include "train/held_out_acceptance.h"

#include <gtest/gtest.h>

#include "model/small_model.h"

namespace minke {
namespace {

HeldOutRows rows_of(const std::string& source, Index rows, Index sequence_length) {
  const Tensor tokens = random_tokens(rows, sequence_length + 1, 61, 5);
  const auto* ids = static_cast<const std::int32_t*>(tokens.raw());
  return {.source = source, .tokens = {ids, ids + tokens.size()}, .rows = rows};
}

TEST(HeldOutAcceptance, LooksAtAboutSoManyPositionsOfEverySource) {
  const ModelConfig c = small_config(1);
  ModelParameters<Tensor> masters = small_parameters(c);
  const Model model = make_training_model(c, masters, Compute::Fp32);
  const std::vector<HeldOutRows> held_out = {rows_of("a", 3, 16), rows_of("b", 1, 16)};
  // Every eighth position: two of a row.
  EXPECT_EQ(held_out_acceptance(model, held_out, 16, 4).positions, 4);  // a row of each
  EXPECT_EQ(held_out_acceptance(model, held_out, 16, 1000).positions, 8);
  EXPECT_EQ(held_out_acceptance(model, {}, 16).positions, 0);
  EXPECT_EQ(held_out_acceptance(model, {rows_of("short", 2, 5)}, 5).positions, 2);

  // Those of the texts themselves.
  const std::vector<std::vector<std::int32_t>> text = {
      {held_out[1].tokens.begin(), held_out[1].tokens.end() - 1}};
  const AcceptanceSettings settings{.every = 8, .form = AttentionForm::Expanded};
  EXPECT_EQ(held_out_acceptance(model, {held_out[1]}, 16).accepted,
            mtp_acceptance(model, text, settings).at(0).accepted);
}

}  // namespace
}  // namespace minke
