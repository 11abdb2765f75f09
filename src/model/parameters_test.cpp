#include "model/parameters.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>

#include "model/small_model.h"

namespace minke {
namespace {

TEST(Parameters, NamesAreUniqueAndVectorsHaveTheirLength) {
  const ModelConfig c = small_config(2);
  ModelParameters<Tensor> p = zero_parameters(c);
  std::set<std::string> names;
  Index total = 0;
  visit_parameters(c, p, [&](const ParameterSpec& spec, Tensor& t) {
    EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
    EXPECT_EQ(t.shape(), spec.shape) << spec.name;
    total += t.size();
  });
  EXPECT_EQ(p.layers.size(), 3u);
  EXPECT_EQ(p.mtp.size(), 2u);
  EXPECT_FALSE(p.layers[0].is_moe);
  EXPECT_TRUE(p.layers[1].is_moe && p.mtp[1].block.is_moe);
  EXPECT_EQ(count_parameters(c).total, total);
  EXPECT_TRUE(names.contains("model.layers.4.shared_head.norm.weight"));
  EXPECT_TRUE(names.contains("model.layers.1.mlp.gate.e_score_correction_bias"));
}

// A tensor's values depend on seed and name alone: adding a module does not move the others.
TEST(Parameters, InitialValuesAreNormalAndIndependentOfTheRest) {
  ModelConfig c = small_config(0);
  c.hidden_size = 200;
  c.initializer_range = 0.05;
  ModelParameters<Tensor> a = initial_parameters(c, 5);
  c.num_nextn_predict_layers = 1;
  ModelParameters<Tensor> b = initial_parameters(c, 5), other = initial_parameters(c, 6);
  const Tensor& w = a.layers[0].mlp.gate_proj;
  EXPECT_EQ(0, std::memcmp(w.raw(), b.layers[0].mlp.gate_proj.raw(), w.bytes()));
  EXPECT_NE(0, std::memcmp(w.raw(), other.layers[0].mlp.gate_proj.raw(), w.bytes()));
  double sum = 0, squares = 0;
  for (Index i = 0; i < w.size(); ++i) {
    sum += w.flat()(i);
    squares += double(w.flat()(i)) * w.flat()(i);
  }
  const double n = static_cast<double>(w.size());
  EXPECT_NEAR(sum / n, 0, 5 * 0.05 / std::sqrt(n));
  EXPECT_NEAR(std::sqrt(squares / n), 0.05, 5 * 0.05 / std::sqrt(2 * n));
  EXPECT_EQ(a.norm.flat()(3), 1.0f);
  EXPECT_EQ(a.layers[1].moe.e_score_correction_bias.flat()(0), 0.0f);
}

// The first layer and the output: in the order of the model, the embedding once, with the values of
// the whole model.
TEST(Parameters, OfAPartAreThoseOfTheWholeModel) {
  const ModelConfig whole = small_config(1);
  ModelConfig part = whole;
  part.held_stages = {{0, 1, true, false}, {3, 3, false, true}};
  part.held_experts = ExpertRange{2, 4};
  EXPECT_FALSE(part.holds_all());
  EXPECT_TRUE(part.whole().holds_all());
  for (const Index layer : {0, 3}) EXPECT_TRUE(part.holds_layer(layer));  // 3: the module
  for (const Index layer : {1, 2}) EXPECT_FALSE(part.holds_layer(layer));
  ModelParameters<Tensor> all = initial_parameters(whole, 5), held = initial_parameters(part, 5);
  const auto of_all = list_parameters(whole, all), of_held = list_parameters(part, held);
  auto at = of_all.begin();
  for (const auto& [spec, leaf] : of_held) {
    EXPECT_TRUE(spec.name.find("model.layers.1.") != 0 && spec.name.find("model.layers.2.") != 0);
    while (at != of_all.end() && at->spec.name != spec.name) ++at;
    ASSERT_NE(at, of_all.end()) << spec.name;
    EXPECT_EQ(0, std::memcmp(leaf->raw(), at->leaf->raw(), leaf->bytes())) << spec.name;
  }
  EXPECT_FALSE(held.layers[1].input_layernorm.defined());
  EXPECT_EQ(held.mtp[0].block.moe.experts.size(), 2u);
}

}  // namespace
}  // namespace minke
