#include "model/packed_checkpoint.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/files.h"
#include "base/test_directory.h"
#include "io/convert.h"
#include "model/cached_forward.h"
#include "model/small_model.h"
#include "ops/isa.h"

namespace minke {
namespace {

namespace fs = std::filesystem;

const auto no_progress = [](std::uint64_t, std::uint64_t) {};

struct PackedCheckpoint : TestDirectory {
  // A small model with every feature, in one of the forms of weights on disk.
  fs::path model(SaveDType dtype, bool int4 = false) {
    const ModelConfig c = small_config(1);
    ModelParameters<Tensor> p = small_parameters(c);
    fs::create_directory(dir / "model");
    save_model(dir / "model", c, p, dtype);
    put(dir / "model" / "tokenizer.json", "{}");
    if (!int4) return dir / "model";
    convert_model({.model = dir / "model", .out = dir / "int4", .to = ConvertTo::Int4},
                  no_progress);
    return dir / "int4";
  }
  PackReport pack(const fs::path& from, Compute compute, std::uint64_t max_shard = 1 << 30) {
    return pack_model({.model = from,
                       .out = dir / "packed",
                       .compute = compute,
                       .max_shard_bytes = max_shard,
                       .overwrite = true},
                      no_progress);
  }
  std::string complaint(Compute compute = Compute::Bf16) {
    return error_of([&] { load_model(dir / "packed", {.compute = compute}); });
  }
};

Tensor logits_of(const Model& model, AttentionForm form) {
  SequenceCache cache(model);
  cache.reserve(9);
  const std::vector<std::int32_t> tokens{5, 3, 60, 0, 17, 17, 8, 2, 44};
  const Segment segment{&cache, 9, form};
  const Tensor h = cached_forward(model, tokens, {&segment, 1});
  const Tensor of_module = cached_mtp_forward(model, 0, tokens, h.v2(), {&segment, 1});
  Tensor both = Tensor::uninitialized({18, model.config.vocab_size});
  std::memcpy(both.raw(), output_logits(model, h.v2()).raw(), both.bytes() / 2);
  std::memcpy(both.v2().rows(9, 9).data(), output_logits(model, of_module.v2()).raw(),
              both.bytes() / 2);
  return both;
}

struct Source {
  SaveDType saved;
  bool int4;
  Compute compute;
};

TEST_F(PackedCheckpoint, GivesTheBitsThatPackingAtLoadGives) {
  for (const Source& s :
       {Source{SaveDType::F32, false, Compute::Fp32}, Source{SaveDType::Fp8, false, Compute::Fp32},
        Source{SaveDType::Bf16, false, Compute::Bf16}, Source{SaveDType::Fp8, false, Compute::Bf16},
        Source{SaveDType::Bf16, true, Compute::Bf16}, Source{SaveDType::Fp8, false, Compute::Fp8},
        Source{SaveDType::Bf16, false, Compute::Fp8}}) {
    fs::remove_all(dir / "model");
    fs::remove_all(dir / "int4");
    const fs::path from = model(s.saved, s.int4);
    const PackReport report = pack(from, s.compute, 20000);  // several files
    EXPECT_EQ(report.files_copied, 1);
    EXPECT_TRUE(fs::exists(dir / "packed" / "model.safetensors.index.json"));
    const Model loaded = load_model(from, {.compute = s.compute});
    const Model mapped = load_model(dir / "packed", {.compute = s.compute});
    EXPECT_TRUE(mapped.mapped);
    for (const AttentionForm form : {AttentionForm::Absorbed, AttentionForm::Expanded}) {
      const Tensor want = logits_of(loaded, form), got = logits_of(mapped, form);
      EXPECT_EQ(0, std::memcmp(want.raw(), got.raw(), want.bytes())) << name_of(s.compute);
    }
  }
}

TEST_F(PackedCheckpoint, WeightsLieInTheFiles) {
  pack(model(SaveDType::Fp8), Compute::Bf16);
  const std::size_t before = live_tensor_bytes();
  const Model mapped = load_model(dir / "packed", {.compute = Compute::Bf16});
  EXPECT_EQ(live_tensor_bytes(), before);
  const auto at = reinterpret_cast<std::uintptr_t>(mapped.weights.lm_head.forward.panel(0));
  EXPECT_EQ(at % PackedWeights::kAlign, 0u);
}

// The order is no matter of the instruction set: what one machine packed another one may use.
TEST_F(PackedCheckpoint, EveryInstructionSetWritesTheSameFile) {
  const fs::path from = model(SaveDType::Bf16);
  const Isa best = chosen_isa();
  std::string first;
  for (const Compute compute : {Compute::Fp32, Compute::Bf16}) {
    first.clear();
    for (const Isa isa : available_isas()) {
      choose_isa(isa);
      pack(from, compute);
      const std::string file = read_file(dir / "packed" / "model.safetensors");
      if (first.empty()) first = file;
      EXPECT_TRUE(file == first) << name_of(isa);
    }
  }
  choose_isa(best);
}

TEST_F(PackedCheckpoint, ModulesAndHeldExpertsAreMappedAsWanted) {
  pack(model(SaveDType::Bf16), Compute::Bf16);
  const Model without = load_model(dir / "packed", {.mtp = false});
  EXPECT_EQ(without.config.num_nextn_predict_layers, 0);
  const Model half = load_model(dir / "packed", {.held_experts = ExpertRange{2, 6}});
  EXPECT_EQ(half.weights.layers.back().moe.experts.size(), 4u);
}

TEST_F(PackedCheckpoint, AnotherComputeIsRefused) {
  pack(model(SaveDType::Fp8), Compute::Bf16);
  EXPECT_HOLDS(complaint(Compute::Fp8), "is packed for --compute bf16, not fp8");
}

TEST_F(PackedCheckpoint, AnotherOrderIsRefused) {
  pack(model(SaveDType::Bf16), Compute::Bf16);
  const fs::path file = dir / "packed" / "model.safetensors";
  std::string bytes = read_file(file);
  const std::size_t at = bytes.find("panels of 16, 1");
  ASSERT_NE(at, std::string::npos);
  bytes[at + 14] = '9';
  put(file, bytes);
  EXPECT_HOLDS(complaint(),
               "is packed as \"panels of 16, 9\", this minke reads \"panels of 16, 1\"");
}

TEST_F(PackedCheckpoint, DamagedFilesAreRefused) {
  pack(model(SaveDType::Bf16), Compute::Bf16);
  const fs::path file = dir / "packed" / "model.safetensors";
  const std::string bytes = read_file(file);
  put(file, bytes.substr(0, bytes.size() - 64));
  EXPECT_HOLDS(complaint(), "may be truncated");
  std::string renamed = bytes;
  renamed.replace(renamed.find("lm_head.weight/bf16"), 7, "lm_hEAd");
  put(file, renamed);
  EXPECT_HOLDS(complaint(), "packed weight lm_head.weight is missing");
  fs::copy_file(dir / "model" / "config.json", dir / "packed" / "config.json",
                fs::copy_options::overwrite_existing);
  std::string config = read_file(dir / "packed" / "config.json");
  config.replace(config.find("\"vocab_size\": 61"), 16, "\"vocab_size\": 99");
  put(dir / "packed" / "config.json", config);
  put(file, bytes);
  EXPECT_HOLDS(complaint(), "model.embed_tokens.weight/bf16 is U8");
}

TEST_F(PackedCheckpoint, IsNoSource) {
  pack(model(SaveDType::Bf16), Compute::Bf16);
  ModelConfig config;
  EXPECT_HOLDS(error_of([&] { load_masters(dir / "packed", config); }), "holds packed weights");
  EXPECT_HOLDS(
      error_of([&] { convert_model({.model = dir / "packed", .out = dir / "out"}, no_progress); }),
      "holds packed weights");
  EXPECT_HOLDS(
      error_of([&] { pack_model({.model = dir / "packed", .out = dir / "out"}, no_progress); }),
      "holds packed weights");
}

}  // namespace
}  // namespace minke
