#include "model/checkpoint.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/files.h"
#include "io/convert.h"
#include "io/safetensors.h"
#include "model/training_pass.h"
#include "model/weight_bytes.h"

namespace minke {
namespace {

namespace fs = std::filesystem;

fs::path golden(const std::string& name) {
  return fs::path(MINKE_GOLDEN_DIR) / name;
}

class Checkpoint : public testing::Test {
 protected:
  Checkpoint() {
    dir_ =
        fs::temp_directory_path() / ("minke_checkpoint_" + std::to_string(getpid()) + "_" +
                                     testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  ~Checkpoint() override { fs::remove_all(dir_); }

  // A golden model with one tensor left out, or replaced by another of that type and shape.
  void damaged(const std::string& name, const std::string& tensor, const Tensor* replacement) {
    fs::copy_file(golden(name) / "config.json", dir_ / "config.json",
                  fs::copy_options::overwrite_existing);
    const SafetensorsFile file = SafetensorsFile::open(golden(name) / "model.safetensors");
    std::vector<NamedTensorView> views;
    for (const TensorInfo& info : file.tensors()) {
      if (info.name != tensor)
        views.push_back({info.name, info.dtype, info.shape, file.bytes(info)});
      else if (replacement)
        views.push_back(NamedTensorView::of(info.name, *replacement));
    }
    write_safetensors(dir_ / "model.safetensors", views);
  }
  std::string complaint() {
    try {
      load_model(dir_, {.compute = Compute::Fp32});
    } catch (const FormatError& e) {
      return e.what();
    }
    return "";
  }
  fs::path dir_;
};

// Every tensor, biases included, comes back as it was: a copy that writes zero biases must fail
// here.
TEST_F(Checkpoint, SavedMastersLoadBackBitForBit) {
  for (const char* name : {"train-step-mtp2", "tiny-grouped", "tiny-noqlora", "tiny-mtp"}) {
    ModelConfig config, again;
    ModelParameters<Tensor> masters = load_masters(golden(name), config);
    save_model(dir_, config, masters, SaveDType::F32, true);
    ModelParameters<Tensor> read = load_masters(dir_, again);
    const auto a = list_parameters(config, masters), b = list_parameters(again, read);
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].spec.name, b[i].spec.name);
      EXPECT_EQ(0, std::memcmp(a[i].leaf->raw(), b[i].leaf->raw(), a[i].leaf->bytes()))
          << a[i].spec.name;
    }
    EXPECT_EQ(again.torch_dtype, "float32");
  }
}

TEST_F(Checkpoint, Bf16ExportOfBf16WeightsKeepsEveryByte) {
  ModelConfig config;
  ModelParameters<Tensor> masters = load_masters(golden("tiny-mtp"), config);
  save_model(dir_, config, masters, SaveDType::Bf16, true);
  const SafetensorsFile want = SafetensorsFile::open(golden("tiny-mtp") / "model.safetensors");
  const SafetensorsFile got = SafetensorsFile::open(dir_ / "model.safetensors");
  EXPECT_EQ(got.tensors().size(), want.tensors().size());
  for (const TensorInfo& info : want.tensors()) {
    const auto a = want.bytes(info), b = got.bytes(got.at(info.name));
    EXPECT_EQ(got.at(info.name).dtype, info.dtype) << info.name;
    EXPECT_TRUE(a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0)
        << info.name;
  }
}

// A model that computes without part of its weights is seldom meant.
TEST_F(Checkpoint, FormatTensorsThatAreNotReadAreReportedOnce) {
  const auto warnings = [&](const char* name, const char* key, bool mtp) {
    fs::copy_file(golden(name) / "model.safetensors", dir_ / "model.safetensors",
                  fs::copy_options::overwrite_existing);
    std::string text = read_file(golden(name) / "config.json");
    if (*key) {
      const std::size_t at = text.find(key);
      text.replace(at, text.find(',', at) - at, std::string(key) + ": 0");
    }
    write_file_atomic(dir_ / "config.json", text);
    testing::internal::CaptureStderr();
    load_model(dir_, {.compute = Compute::Fp32, .mtp = mtp});
    return testing::internal::GetCapturedStderr();
  };
  for (const bool mtp : {true, false}) {
    EXPECT_EQ(warnings("tiny-mtp", "", mtp), "");
    const std::string warning = warnings("tiny-mtp", "\"n_shared_experts\"", mtp);
    EXPECT_NE(warning.find("shared_experts"), std::string::npos) << warning;
    EXPECT_EQ(std::count(warning.begin(), warning.end(), '\n'), 1) << warning;
  }
}

TEST_F(Checkpoint, FormatMissingTensorsAndWrongShapesAreNamed) {
  damaged("tiny-bf16", "model.layers.1.mlp.experts.3.up_proj.weight", nullptr);
  EXPECT_NE(complaint().find("model.layers.1.mlp.experts.3.up_proj.weight"), std::string::npos);
  const Tensor small = Tensor::zeros({3, 4});
  damaged("tiny-bf16", "model.layers.0.self_attn.o_proj.weight", &small);
  EXPECT_NE(complaint().find("model.layers.0.self_attn.o_proj.weight is [3, 4]"), std::string::npos)
      << complaint();
}

TEST_F(Checkpoint, FormatWrongTypesAreNamed) {
  const Tensor integers(DType::I64, {64});
  damaged("tiny-bf16", "model.norm.weight", &integers);
  EXPECT_NE(complaint().find("model.norm.weight"), std::string::npos);
  const Tensor codes(DType::F8_E4M3, {64, 192});
  damaged("tiny-fp8", "lm_head.weight", &codes);
  EXPECT_NE(complaint().find("lm_head.weight"), std::string::npos);
}

TEST_F(Checkpoint, FormatFp8ScalesMustBeThereAndFit) {
  const std::string scale = "model.layers.0.mlp.down_proj.weight_scale_inv";
  damaged("tiny-fp8", scale, nullptr);
  EXPECT_NE(complaint().find("model.layers.0.mlp.down_proj.weight"), std::string::npos);
  EXPECT_THROW(summarize_checkpoint(dir_), FormatError);
  const Tensor wrong = Tensor::zeros({2, 2});
  damaged("tiny-fp8", scale, &wrong);
  EXPECT_NE(complaint().find("model.layers.0.mlp.down_proj.weight"), std::string::npos);
}

TEST_F(Checkpoint, AnnouncedMtpModulesThatAreAbsentAreLeftOut) {
  damaged("tiny-bf16", "", nullptr);
  std::string config = read_file(dir_ / "config.json");
  const std::string key = "\"num_nextn_predict_layers\": ";
  config.replace(config.find(key) + key.size(), 1, "1");
  write_file_atomic(dir_ / "config.json", config);
  const Model model = load_model(dir_, {.compute = Compute::Fp32});
  EXPECT_EQ(model.config.num_nextn_predict_layers, 0);
  EXPECT_TRUE(model.weights.mtp.empty());
  const CheckpointSummary s = summarize_checkpoint(dir_);
  EXPECT_EQ(s.mtp_present, 0);
  EXPECT_EQ(s.config.num_nextn_predict_layers, 1);
}

TEST_F(Checkpoint, FormatHalfAnMtpModuleIsRefused) {
  damaged("tiny-mtp", "model.layers.2.shared_head.norm.weight", nullptr);
  EXPECT_NE(complaint().find("model.layers.2.shared_head.norm.weight"), std::string::npos);
}

// In FP32 a model of 4 bits computes what the model of its values computes; in BF16 it keeps the
// codes (ops/int4_weights_test.cpp has their products).
TEST_F(Checkpoint, FourBitsComputeAsTheirValuesDo) {
  const auto convert = [](const fs::path& from, const fs::path& to, ConvertTo form) {
    convert_model({.model = from, .out = to, .to = form}, [](std::uint64_t, std::uint64_t) {});
  };
  convert(golden("tiny-bf16"), dir_ / "int4", ConvertTo::Int4);
  convert(dir_ / "int4", dir_ / "values", ConvertTo::Bf16);
  EXPECT_EQ(ModelConfig::load(dir_ / "int4").int4->group, 32);
  std::vector<std::int32_t> tokens(48);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i * 7 % 60);
  const View2<const std::int32_t> rows(tokens.data(), {2, 24});
  const auto loss = [&](const char* model, Compute compute) {
    return evaluate_loss(load_model(dir_ / model, {.compute = compute, .absorbed = false}), rows);
  };
  const double exact = loss("values", Compute::Fp32);
  // The values were rounded to BF16 on the way, the codes' products are not.
  EXPECT_NEAR(loss("int4", Compute::Fp32), exact, 2e-3 * exact);
  const Model bf16 = load_model(dir_ / "int4", {.compute = Compute::Bf16});
  EXPECT_EQ(bf16.weights.layers[0].self_attn.o_proj.forward.form(), WeightForm::Int4);
  EXPECT_EQ(bf16.weights.layers[0].self_attn.kv_b_proj.forward.form(), WeightForm::Bf16);
  EXPECT_EQ(bf16.weights.lm_head.forward.form(), WeightForm::Bf16);
  const CheckpointSummary summary = summarize_checkpoint(dir_ / "int4");
  EXPECT_EQ(storage_of(summary.config), LinearStorage::Int4);
  ModelConfig config;
  const ModelParameters<Tensor> masters = load_masters(dir_ / "int4", config);
  EXPECT_EQ(masters.layers[0].self_attn.o_proj.dtype(), DType::F32);
}

}  // namespace
}  // namespace minke
