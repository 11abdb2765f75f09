#include "model/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "model/parameters.h"

namespace minke {
namespace {

using Json = nlohmann::ordered_json;

Json published() {
  return Json::parse(R"({
    "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"},
    "aux_loss_alpha": 0.001, "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1,
    "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168,
    "initializer_range": 0.02, "intermediate_size": 18432, "kv_lora_rank": 512,
    "max_position_embeddings": 163840, "model_type": "deepseek_v3", "moe_intermediate_size": 2048,
    "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1,
    "norm_topk_prob": true, "num_attention_heads": 128, "num_experts_per_tok": 8,
    "num_hidden_layers": 61, "num_key_value_heads": 128, "num_nextn_predict_layers": 1,
    "pretraining_tp": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                            "weight_block_size": [128, 128]},
    "rms_norm_eps": 1e-06,
    "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0,
                     "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096, "type": "yarn"},
    "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "seq_aux": true,
    "tie_word_embeddings": false, "topk_group": 4, "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16", "transformers_version": "4.33.1", "use_cache": true,
    "v_head_dim": 128, "vocab_size": 129280})");
}

TEST(ModelConfig, PublishedFileGivesThePublishedSizes) {
  const ModelConfig c = ModelConfig::from_json(published(), "config.json");
  EXPECT_EQ(c.hidden_size, 7168);
  EXPECT_EQ(c.cache_row(), 576);
  EXPECT_EQ(*c.q_lora_rank, 1536);
  EXPECT_TRUE(c.quantization.has_value());
  EXPECT_FALSE(c.is_moe(2));
  EXPECT_TRUE(c.is_moe(3));
  // The softmax scale under YaRN carries mscale squared: 1.8739 (the report's 4.3).
  EXPECT_NEAR(c.softmax_scale() * std::sqrt(192.0), 1.8739, 1e-4);
}

// The report's section 1 and the weights documentation; derived exactly in the planner's facts.
TEST(ModelConfig, ParameterCountsToTheLastOne) {
  const ParameterCount n = count_parameters(ModelConfig::from_json(published(), "config.json"));
  EXPECT_EQ(n.main, 671026419200);
  EXPECT_EQ(n.active, 36625618432);
  EXPECT_EQ(n.active + n.embedding, 37552297472);
  EXPECT_EQ(n.mtp, 11610068224);
}

TEST(ModelConfig, NewerSpellingMeansTheSame) {
  Json newer = published();
  newer["dtype"] = newer["torch_dtype"];
  newer.erase("torch_dtype");
  newer["rope_parameters"] = newer["rope_scaling"];
  newer["rope_parameters"]["rope_type"] = "yarn";
  newer["rope_parameters"]["rope_theta"] = 50000.0;
  newer["rope_parameters"].erase("type");
  newer.erase("rope_scaling");
  newer.erase("rope_theta");
  const ModelConfig c = ModelConfig::from_json(newer, "config.json");
  EXPECT_EQ(c.rope_theta, 50000);
  ASSERT_TRUE(c.rope_scaling);
  EXPECT_EQ(c.rope_scaling->original_length, 4096);
  const Json again = c.to_json();
  EXPECT_EQ(again, newer);  // written in the spelling that was read

  newer["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 10000}};
  EXPECT_FALSE(ModelConfig::from_json(newer, "x").rope_scaling);
}

TEST(ModelConfig, RewriteKeepsUnknownKeysAndTheirOrder) {
  Json j = published();
  j["my_own_key"] = {{"nested", {1, 2, 3}}};
  EXPECT_EQ(ModelConfig::from_json(j, "x").to_json().dump(), j.dump());
}

TEST(ModelConfig, FreshFileReadsBackTheSame) {
  ModelConfig c = ModelConfig::from_json(published(), "x");
  ModelConfig fresh;
  fresh.vocab_size = c.vocab_size, fresh.hidden_size = 64, fresh.intermediate_size = 128;
  fresh.num_hidden_layers = 2, fresh.num_attention_heads = 2, fresh.kv_lora_rank = 16;
  fresh.qk_nope_head_dim = 8, fresh.qk_rope_head_dim = 4, fresh.v_head_dim = 8;
  fresh.max_position_embeddings = 128, fresh.rope_scaling = c.rope_scaling;
  const ModelConfig read = ModelConfig::from_json(fresh.to_json(), "x");
  EXPECT_EQ(read.to_json(), fresh.to_json());
  EXPECT_EQ(read.n_routed_experts, 0);
  EXPECT_FALSE(read.q_lora_rank);
}

// Each change makes one complaint that names the file and the key.
TEST(ModelConfigFormat, WrongValuesAreRefusedByName) {
  const struct {
    const char* key;
    Json value;
  } cases[] = {{"hidden_size", -1},
               {"hidden_size", 0},
               {"hidden_size", 1e30},
               {"hidden_size", "64"},
               {"hidden_size", 1.5},
               {"hidden_size", nullptr},
               {"hidden_size", 9223372036854775807},
               {"hidden_size", 18446744073709551615ull},
               {"vocab_size", Json::array({1})},
               {"num_hidden_layers", 1000000},
               {"num_attention_heads", 0},
               {"kv_lora_rank", -512},
               {"q_lora_rank", 0},
               {"qk_rope_head_dim", 63},
               {"num_key_value_heads", 8},
               {"num_experts_per_tok", 257},
               {"n_group", 7},
               {"topk_group", 9},
               {"topk_group", 0},
               {"n_routed_experts", -1},
               {"first_k_dense_replace", 62},
               {"moe_layer_freq", 0},
               {"rms_norm_eps", -1},
               {"rms_norm_eps", "small"},
               {"rope_theta", 0},
               {"eos_token_id", 129280},
               {"eos_token_id", Json::array({1, -1})},
               {"bos_token_id", 200000},
               {"norm_topk_prob", 1},
               {"num_nextn_predict_layers", 1000},
               {"max_position_embeddings", 0},
               {"routed_scaling_factor", -2.5},
               {"scoring_func", "softmax"},
               {"topk_method", "greedy"},
               {"attention_bias", true},
               {"tie_word_embeddings", true},
               {"hidden_act", "gelu"},
               {"rope_interleave", false},
               {"model_type", "llama"},
               {"rope_scaling", 3},
               {"rope_scaling", {{"type", "linear"}, {"factor", 2}}},
               {"n_routed_experts", 65537},
               {"n_routed_experts", 65536},  // of 62 layers
               {"n_shared_experts", 1 << 30},
               {"quantization_config", "fp8"},
               {"quantization_config", {{"quant_method", "awq"}}}};
  for (const auto& [key, value] : cases) {
    Json j = published();
    j[key] = value;
    try {
      ModelConfig::from_json(j, "DIR/config.json");
      ADD_FAILURE() << key << " = " << value << " was accepted";
    } catch (const ConfigError& e) {
      const std::string message = e.what();
      EXPECT_NE(message.find("DIR/config.json"), std::string::npos) << message;
      EXPECT_NE(message.find(key), std::string::npos) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    }
  }
  for (const char* key : {"hidden_size", "vocab_size", "kv_lora_rank", "num_hidden_layers",
                          "max_position_embeddings", "model_type", "moe_intermediate_size"}) {
    Json j = published();
    j.erase(key);
    EXPECT_THROW(ModelConfig::from_json(j, "x"), ConfigError) << key;
  }
  EXPECT_THROW(ModelConfig::from_json(Json::array(), "x"), ConfigError);
}

// Two spellings, or two settings, of which nobody knows which one is meant.
TEST(ModelConfigFormat, ContradictionsAreRefused) {
  const auto error = [](const std::function<void(Json&)>& edit) -> std::string {
    Json j = published();
    edit(j);
    try {
      ModelConfig::from_json(j, "x");
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  };
  const auto holds = [](const std::string& text, const char* part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  EXPECT_EQ(error([](Json& j) { j["rope_scaling"]["rope_type"] = "yarn"; }), "");
  EXPECT_EQ(error([](Json& j) { j["rope_parameters"] = j["rope_scaling"]; }), "");
  holds(error([](Json& j) { j["rope_scaling"]["rope_type"] = "default"; }), "rope_type");
  holds(error([](Json& j) {
          j["rope_parameters"] = j["rope_scaling"];
          j["rope_parameters"]["rope_theta"] = 500;
        }),
        "rope_parameters.rope_theta is 500");
  holds(error([](Json& j) {
          j["rope_parameters"] = {{"rope_type", "default"}};
        }),
        "rope_parameters and rope_scaling differ");
  holds(error([](Json& j) { j["rope_scaling"]["beta_fast"] = 0.5; }), "beta_fast is 0.5");
  holds(error([](Json& j) { j["quantization_config"]["scale_fmt"] = "e5m3"; }), "scale_fmt");
  EXPECT_EQ(error([](Json& j) { j["quantization_config"]["scale_fmt"] = "ue8m0"; }), "");
}

// A struct that a recipe filled is held to the same ranges as a file.
TEST(ModelConfigFormat, FilledStructsAreCheckedAsFilesAre) {
  const ModelConfig good = ModelConfig::from_json(published(), "x");
  const auto refused = [&](Index ModelConfig::*field, Index value) {
    ModelConfig c = good;
    c.*field = value;
    EXPECT_THROW(c.check("x"), ConfigError) << value;
  };
  for (const Index value : {Index{-1}, Index{1} << 62, std::numeric_limits<Index>::max()}) {
    refused(&ModelConfig::vocab_size, value);
    refused(&ModelConfig::num_hidden_layers, value);
    refused(&ModelConfig::n_routed_experts, value);
    refused(&ModelConfig::moe_intermediate_size, value);
    refused(&ModelConfig::topk_group, value);
    refused(&ModelConfig::kv_lora_rank, value);
    ModelConfig c = good;
    c.q_lora_rank = value;
    EXPECT_THROW(c.check("x"), ConfigError) << value;
  }
  ModelConfig c = good;
  c.rms_norm_eps = 1e300;
  EXPECT_THROW(c.check("x"), ConfigError);
}

TEST(ModelConfigFormat, MissingAndBrokenFiles) {
  const auto dir = std::filesystem::temp_directory_path() / "minke_config_test";
  std::filesystem::create_directories(dir);
  std::filesystem::remove(dir / "config.json");
  EXPECT_THROW(ModelConfig::load(dir), IoError);
  write_file_atomic(dir / "config.json", "{\"model_type\": ");
  EXPECT_THROW(ModelConfig::load(dir), FormatError);
  write_file_atomic(dir / "config.json", std::string(1 << 20, '['));
  EXPECT_THROW(ModelConfig::load(dir), FormatError);
  std::string text = published().dump();
  text.back() = ',';
  write_file_atomic(dir / "config.json", text + "\"hidden_size\": 64}");
  EXPECT_THROW(ModelConfig::load(dir), FormatError);  // twice
  write_file_atomic(dir / "config.json",
                    text + "\"x\": " + std::string(100000, '[') + std::string(100000, ']') + "}");
  EXPECT_THROW(ModelConfig::load(dir), FormatError);
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace minke
