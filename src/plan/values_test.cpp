// The published figures: every entry of tests/golden/planner.json.
#include "plan/values.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "plan/cache_bytes.h"
#include "plan/decode_bound.h"
#include "plan/flops.h"
#include "plan/memory.h"

namespace minke {
namespace {

using Json = nlohmann::ordered_json;

const Json& golden() {
  static const Json json = [] {
    std::ifstream file(std::string(MINKE_GOLDEN_DIR) + "/planner.json");
    return Json::parse(file);
  }();
  return json;
}

// Golden name of a model -> preset.
const std::map<std::string, std::string> kPresetOf = {
    {"DeepSeek-V3", "deepseek-v3"},           {"DeepSeek-V2", "deepseek-v2"},
    {"DeepSeek-V2-Lite", "deepseek-v2-lite"}, {"LLaMA-3.1-405B", "llama-3.1-405b"},
    {"LLaMA-3.1-70B", "llama-3.1-70b"},       {"Qwen2.5-72B", "qwen2.5-72b"},
    {"DeepSeek-67B", "deepseek-67b"}};

PlanModel preset(const std::string& golden_name) {
  return plan_model_preset(kPresetOf.at(golden_name));
}

NamedValues report_values() {
  return published_values(plan_model_preset("deepseek-v3"), cluster_preset("h800x2048"),
                          report_layout());
}

TEST(Values, GoldenEveryKeyWithinItsTolerance) {
  std::map<std::string, double> values;
  for (const auto& [key, value] : report_values())
    EXPECT_TRUE(values.emplace(key, value).second) << key << " twice";
  for (const Json& entry : golden().at("values")) {
    const auto key = entry.at("key").get<std::string>();
    ASSERT_TRUE(values.contains(key)) << key;
    const auto expected = entry.at("value").get<double>();
    const double allowed = entry.value("rel_tol", 0.0) * std::abs(expected);
    EXPECT_LE(std::abs(values[key] - expected), allowed)
        << key << ": " << values[key] << " instead of " << expected;
  }
  EXPECT_EQ(values.size(), golden().at("values").size());
}

TEST(Values, FollowTheClusterAndTheModel) {
  std::map<std::string, double> values;
  PlanModel model = plan_model_preset("deepseek-v3");
  model.num_hidden_layers = 30;
  Cluster c = cluster_preset("h800x2048");
  c.price_per_device_hour = 3;
  c.link_between_bytes_per_s = 100e9;
  for (const auto& [key, value] : published_values(model, c, report_layout())) values[key] = value;
  EXPECT_EQ(values["kv.v3.bytes_per_token_bf16"], 30 * 576 * 2);
  EXPECT_EQ(values["train.total_usd"], 3 * 2788e3);
  EXPECT_DOUBLE_EQ(values["inference.tps_ib"], 1 / (2 * 30 * 120.96e-6 / 2));
  EXPECT_DOUBLE_EQ(values["hw.nvlink_over_ib"], 1.6);
}

TEST(Values, RefuseModelsWithoutLatentAttention) {
  EXPECT_THROW(published_values(plan_model_preset("qwen2.5-72b"), cluster_preset("h800x2048"),
                                report_layout()),
               ConfigError);
}

TEST(ParameterTable, GoldenCountsToTheLastParameter) {
  const std::map<std::string, std::string> published = {{"wq", "q_proj"},
                                                        {"wq_a", "q_a_proj"},
                                                        {"q_norm", "q_a_layernorm"},
                                                        {"wq_b", "q_b_proj"},
                                                        {"wkv_a", "kv_a_proj_with_mqa"},
                                                        {"kv_norm", "kv_a_layernorm"},
                                                        {"wkv_b", "kv_b_proj"},
                                                        {"wo", "o_proj"}};
  for (const auto& [name, counts] : golden().at("parameter_counts").items()) {
    const ParameterTable t = parameter_table(preset(name));
    std::map<std::string, Index> tensors;
    for (const TensorCount& tensor : t.attention_tensors) tensors[tensor.name] = tensor.count;
    EXPECT_EQ(tensors.size(), counts.at("attn_tensors").size());
    for (const auto& [tensor, count] : counts.at("attn_tensors").items())
      EXPECT_EQ(tensors[published.at(tensor)], count) << name << " " << tensor;
    const std::map<std::string, Index> mine = {
        {"attn", t.attention},
        {"dense_mlp", t.dense_ffn},
        {"expert", t.expert},
        {"shared", t.shared},
        {"gate", t.gate},
        {"gate_bias", t.gate_bias},
        {"block_norms", t.block_norms},
        {"embedding", t.embedding},
        {"head", t.head},
        {"final_norm", t.final_norm},
        {"dense_layer", t.dense_layer},
        {"moe_layer", t.moe_layer},
        {"moe_layer_active", t.moe_layer_active},
        {"total", t.total},
        {"activated_incl_embedding_and_head", t.active_with_embedding_and_head},
        {"activated_excl_embedding", t.active_without_embedding},
        {"activated_excl_embedding_and_head", t.active_without_embedding_and_head},
        {"routed_experts_total", t.routed_experts_total},
        {"mtp_unique", t.mtp_unique},
        {"mtp_incl_shared_embedding_head", t.mtp_with_copies},
        {"mtp_active_unique", t.mtp_active_unique},
        {"mtp_active_incl_shared", t.mtp_active_with_shared}};
    for (const auto& [key, count] : counts.items())
      if (key != "attn_tensors") {
        ASSERT_TRUE(mine.contains(key)) << key;
        EXPECT_EQ(mine.at(key), count) << name << " " << key;
      }
  }
}

TEST(CacheBytes, GoldenSchemes) {
  const std::map<std::string, std::string> alternatives = {
      {"V3 as MHA, head 128", "MHA"},
      {"V3 as GQA-8, head 128", "GQA-8"},
      {"V3 as MQA, head 128", "MQA"},
      {"V3 MLA expanded (no absorption)", "MLA expanded"}};
  const auto expect = [](const CacheRow& row, const Json& expected, const std::string& name) {
    EXPECT_EQ(row.layers, expected.at("layers")) << name;
    EXPECT_EQ(row.elements_per_layer, expected.at("elements_per_layer")) << name;
    EXPECT_EQ(row.bytes(16), expected.at("bytes_per_token_bf16")) << name;
  };
  for (const auto& [name, expected] : golden().at("kv_cache").items()) {
    if (!alternatives.contains(name)) {
      expect(cache_row(preset(name)), expected, name);
      continue;
    }
    int found = 0;
    for (const CacheRow& row : cache_alternatives(preset("DeepSeek-V3")))
      if (row.scheme == alternatives.at(name)) {
        expect(row, expected, name);
        ++found;
      }
    EXPECT_EQ(found, 1) << name;
  }
}

TEST(Flops, GoldenPerToken) {
  for (const auto& [name, expected] : golden().at("flops_per_token").items()) {
    const std::string model = name.substr(0, name.find(' '));
    FlopsOptions options;
    options.sequence = std::stol(name.substr(name.find("s=") + 2));
    options.mask = name.find("non-causal") != std::string::npos ? Mask::Full : Mask::Causal;
    options.mtp = name.find("with MTP") != std::string::npos;
    const TokenFlops f = flops_per_token(preset(model), options);
    EXPECT_EQ(f.matmul_params, expected.at("matmul_params")) << name;
    EXPECT_EQ(f.forward_matmul, expected.at("forward_matmul")) << name;
    EXPECT_EQ(f.forward_attention, expected.at("forward_attention")) << name;
    EXPECT_EQ(f.forward(), expected.at("forward")) << name;
    EXPECT_EQ(f.train(), expected.at("train")) << name;
  }
}

TEST(Memory, GoldenStatesOfEveryRank) {
  const Json& expected = golden().at("memory_per_gpu");
  const PlanModel model = preset("DeepSeek-V3");
  Layout layout = report_layout();
  layout.mtp = false;
  std::vector<Index> layers;
  for (const StageContent& stage : stage_contents(model, layout)) layers.push_back(stage.layers());
  EXPECT_EQ(layers, expected.at("assumed_layers_per_stage").get<std::vector<Index>>());
  EXPECT_EQ(layout.pipeline, expected.at("pp"));
  EXPECT_EQ(layout.expert, expected.at("ep"));
  EXPECT_EQ(layout.devices(), expected.at("gpus"));
  const auto usual = rank_memory(model, layout, {});
  const auto all_fp8 = rank_memory(model, layout, {.other_weight_bytes = 1});
  const auto alone = rank_memory(model, layout, {.mirror_shares_optimizer = false});
  std::size_t rows = 0;
  for (const Json& row : expected.at("rows"))
    for (const Json& rank : row.at("pp_ranks")) {
      const auto r = rank.get<std::size_t>();
      EXPECT_EQ(usual[r].other_params, row.at("non_expert_params"));
      EXPECT_EQ(usual[r].expert_params, row.at("expert_params_per_gpu"));
      EXPECT_EQ(all_fp8[r].weights, row.at("weights_bytes_fp8_all"));
      EXPECT_EQ(usual[r].weights, row.at("weights_bytes_fp8_experts_bf16_rest"));
      EXPECT_EQ(usual[r].gradients, row.at("grad_bytes_fp32"));
      EXPECT_EQ(usual[r].optimizer, row.at("optimizer_bytes_zero1"));
      EXPECT_EQ(alone[r].optimizer, row.at("optimizer_bytes_zero1_without_mirror"));
      EXPECT_EQ(usual[r].states_bytes(), row.at("total_bytes_bf16_rest"));
      ++rows;
    }
  EXPECT_EQ(rows, usual.size());
}

TEST(Memory, GoldenActivationEstimate) {
  const Json& memory = golden().at("memory_per_gpu");
  const auto parts = activation_parts(preset("DeepSeek-V3"), true, Recompute::Selective, true);
  double sum = 0;
  std::multiset<double> mine, expected;
  for (const ActivationPart& part : parts) mine.insert(part.bytes), sum += part.bytes;
  for (const auto& item : memory.at("activation_bytes_per_token_per_moe_layer_estimate").items())
    expected.insert(item.value().get<double>());
  EXPECT_EQ(mine, expected);
  EXPECT_EQ(sum, memory.at("activation_bytes_total_estimate"));
}

TEST(DecodeBound, GoldenRoofline) {
  const Json& g = golden().at("decode_roofline");
  const PlanModel model = preset("DeepSeek-V3");
  const AttentionIntensity attention = decode_attention(model);
  EXPECT_EQ(attention.flops, g.at("mla_absorbed_flop_per_cached_token_per_layer"));
  EXPECT_EQ(attention.bytes, g.at("mla_cache_bytes_per_cached_token_per_layer"));
  EXPECT_DOUBLE_EQ(attention.flops_per_byte(), g.at("mla_absorbed_flop_per_byte"));
  EXPECT_DOUBLE_EQ(ridge_flops_per_byte(cluster_preset("h800")),
                   g.at("h800_bf16_ridge_flop_per_byte"));
  EXPECT_EQ(parameter_table(model).active_without_embedding, g.at("active_bytes_per_token_fp8"));
  for (const auto& [bandwidth, row] : g.at("single_stream_tokens_per_s").items())
    for (const auto& [bits, expected] : row.items())
      EXPECT_DOUBLE_EQ(
          single_stream_tokens_per_s(model, std::stod(bandwidth) * 1e9, std::stod(bits)),
          expected.get<double>())
          << bandwidth << " " << bits;
}

}  // namespace
}  // namespace minke
