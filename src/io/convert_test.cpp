#include "io/convert.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "base/test_directory.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
const fs::path kGolden = MINKE_GOLDEN_DIR;

struct Convert : TestDirectory {
  ConvertReport convert(ConvertOptions o) {
    return convert_model(o, [](std::uint64_t, std::uint64_t) {});
  }
};

bool same_bytes(const TensorStore& a, const TensorStore& b, const std::string& name) {
  const auto x = a.bytes(name), y = b.bytes(name);
  return a.at(name).dtype == b.at(name).dtype && a.at(name).shape == b.at(name).shape &&
         std::equal(x.begin(), x.end(), y.begin(), y.end());
}

TEST_F(Convert, ThePublishedSetIsWhatTheGoldenModelHolds) {
  const TensorStore store = TensorStore::open(kGolden / "tiny-fp8");
  store.for_each([&](const StoredTensor& t) {
    EXPECT_EQ(is_fp8_weight(t.info->name), t.info->dtype == DType::F8_E4M3) << t.info->name;
  });
  for (const char* name :
       {"lm_head.weight", "model.layers.2.eh_proj.weight", "model.layers.2.shared_head.head.weight",
        "model.layers.1.mlp.gate.weight", "model.layers.0.self_attn.q_a_layernorm.weight",
        "model.embed_tokens.weight", "q_proj", "q_proj.bias", ".weight", ""})
    EXPECT_FALSE(is_fp8_weight(name)) << name;
  EXPECT_TRUE(is_fp8_weight("model.layers.0.self_attn.q_proj.weight"));
}

TEST_F(Convert, Fp8ToBf16IsThePublishedFormulaAndBackKeepsTheCodes) {
  const fs::path in = kGolden / "tiny-fp8";
  const ConvertReport r = convert({.model = in, .out = dir / "bf16", .to = ConvertTo::Bf16});
  EXPECT_EQ(r.dequantized, 25);
  const TensorStore fp8 = TensorStore::open(in), bf16 = TensorStore::open(dir / "bf16");
  EXPECT_EQ(bf16.size(), fp8.size() - 25);
  fp8.for_each([&](const StoredTensor& t) {
    const std::string& name = t.info->name;
    if (name.ends_with("_scale_inv")) {
      EXPECT_FALSE(bf16.contains(name));
      return;
    }
    if (t.info->dtype != DType::F8_E4M3) {
      EXPECT_TRUE(same_bytes(fp8, bf16, name)) << name;
      return;
    }
    const auto codes = fp8.view<E4M3, 2>(name);
    const auto scales = fp8.view<float, 2>(scale_name(name));
    const auto got = bf16.view<BF16, 2>(name);
    for (Index i = 0; i < codes.extent(0); ++i)
      for (Index j = 0; j < codes.extent(1); ++j)
        ASSERT_EQ(got(i, j).bits, BF16(float(codes(i, j)) * scales(i / 128, j / 128)).bits);
  });
  EXPECT_EQ(checkpoint_defect(dir / "bf16"), "");

  convert({.model = dir / "bf16", .out = dir / "fp8", .to = ConvertTo::Fp8});
  const TensorStore back = TensorStore::open(dir / "fp8");
  EXPECT_EQ(back.size(), fp8.size());
  fp8.for_each([&](const StoredTensor& t) {
    const std::string& name = t.info->name;
    if (!name.ends_with("_scale_inv")) {
      EXPECT_TRUE(same_bytes(fp8, back, name)) << name;
      return;
    }
    // The largest value of a block was rounded to BF16, and the scale is found from it.
    const Tensor a = fp8.read_f32(name), b = back.read_f32(name);
    ASSERT_EQ(a.shape(), b.shape());
    for (Index i = 0; i < a.size(); ++i)
      EXPECT_NEAR(b.flat()(i), a.flat()(i), a.flat()(i) / 256) << name;
  });

  const auto json = [](const fs::path& d) {
    return nlohmann::ordered_json::parse(read_file(d / "config.json"));
  };
  EXPECT_FALSE(json(dir / "bf16").contains("quantization_config"));
  EXPECT_EQ(json(dir / "fp8")["quantization_config"], json(in)["quantization_config"]);
}

TEST_F(Convert, FourBitsAreThePublishedLayoutAndComeBackAsBf16) {
  const fs::path in = kGolden / "tiny-bf16";
  for (const Index group : {32, 128}) {
    const fs::path out = dir / fmt::format("int4-{}", group),
                   back = dir / fmt::format("b{}", group);
    const ConvertReport r =
        convert({.model = in, .out = out, .to = ConvertTo::Int4, .group = group});
    EXPECT_GT(r.quantized, 10);
    convert({.model = out, .out = back, .to = ConvertTo::Bf16});
    const TensorStore from = TensorStore::open(in), int4 = TensorStore::open(out),
                      bf16 = TensorStore::open(back);
    EXPECT_EQ(bf16.size(), from.size());
    EXPECT_EQ(int4.size(), from.size() + 2 * static_cast<std::size_t>(r.quantized));
    from.for_each([&](const StoredTensor& t) {
      const std::string& name = t.info->name;
      if (!is_fp8_weight(name) || name.ends_with("kv_b_proj.weight")) {
        EXPECT_TRUE(same_bytes(from, int4, name)) << name;
        EXPECT_TRUE(same_bytes(from, bf16, name)) << name;
        return;
      }
      const Tensor x = from.read_f32(name), y = int4.read_f32(name);
      const Int4Matrix q = quantize_int4(x.v2(), group);
      Tensor expected = Tensor::uninitialized(x.shape());
      dequantize_int4(q.packed.view<std::int32_t, 2>(), q.scales.view<BF16, 2>(), group,
                      expected.v2());
      const auto rounded = bf16.view<BF16, 2>(name);
      for (Index i = 0; i < x.size(); ++i) {
        ASSERT_EQ(y.flat()(i), expected.flat()(i)) << name;
        ASSERT_EQ(rounded(i / x.extent(1), i % x.extent(1)).bits, BF16(y.flat()(i)).bits) << name;
      }
      EXPECT_EQ(int4.stored_bytes(name),
                q.packed.bytes() + q.scales.bytes() + 2 * sizeof(std::int64_t));
    });
    const auto config = nlohmann::json::parse(read_file(out / "config.json"));
    const auto& settings = config["quantization_config"];
    EXPECT_EQ(settings["format"], "pack-quantized");
    EXPECT_EQ(settings["config_groups"]["group_0"]["weights"]["group_size"], group);
    EXPECT_FALSE(
        nlohmann::json::parse(read_file(back / "config.json")).contains("quantization_config"));
  }
  EXPECT_THROW(convert({.model = dir / "int4-32", .out = dir / "c", .to = ConvertTo::Fp8}),
               UsageError);
  EXPECT_THROW(convert({.model = in, .out = dir / "d", .to = ConvertTo::Int4, .group = 64}),
               ConfigError);
  convert({.model = dir / "int4-32", .out = dir / "kept", .to = ConvertTo::Keep});
  const TensorStore kept = TensorStore::open(dir / "kept"),
                    first = TensorStore::open(dir / "int4-32");
  first.for_each([&](const StoredTensor& t) {
    EXPECT_TRUE(same_bytes(first, kept, t.info->name)) << t.info->name;
  });
}

TEST_F(Convert, PartsOfFourBitMatricesThatDoNotFitAreNamed) {
  convert({.model = kGolden / "tiny-bf16", .out = dir / "a", .to = ConvertTo::Int4});
  const std::string name = "model.layers.0.self_attn.o_proj.weight";
  const auto rewrite = [&](auto change) {
    fs::create_directories(dir / "bad");
    const TensorStore store = TensorStore::open(dir / "a");
    std::vector<TensorDecl> decls;
    std::vector<std::pair<std::string, std::vector<std::byte>>> data;
    store.for_each([&](const StoredTensor& t) {
      TensorDecl decl{t.info->name, t.info->dtype, t.info->shape};
      const auto bytes = store.bytes(t.info->name);
      std::vector<std::byte> copy(bytes.begin(), bytes.end());
      if (!change(decl, copy)) return;
      decls.push_back(decl);
      data.emplace_back(decl.name, std::move(copy));
    });
    ShardedWriter writer(dir / "bad", decls);
    for (const TensorDecl& decl : writer.order())
      for (const auto& [of, bytes] : data)
        if (of == decl.name) writer.write(bytes);
    writer.finish();
    return TensorStore::open(dir / "bad");
  };
  const auto expect_complaint = [&](auto change, const char* about) {
    const TensorStore store = rewrite(change);
    try {
      (void)store.int4(name);
      ADD_FAILURE() << about;
    } catch (const FormatError& e) {
      EXPECT_HOLDS(std::string(e.what()), about);
      EXPECT_HOLDS(std::string(e.what()), name);
    }
  };
  expect_complaint([&](TensorDecl& t, auto&) { return t.name != name + "_scale"; }, "is missing");
  expect_complaint([&](TensorDecl& t, auto&) { return t.name != name + "_shape"; }, "is missing");
  expect_complaint(
      [&](TensorDecl& t, auto& bytes) {
        if (t.name == name + "_scale") {
          t.shape = {t.shape[0] * t.shape[1]};
        } else if (t.name == name + "_shape") {
          bytes = std::vector<std::byte>(16, std::byte{1});
        }
        return true;
      },
      "expected");
  expect_complaint(
      [&](TensorDecl& t, auto&) {
        if (t.name == name + "_scale") t.dtype = DType::F16;
        return true;
      },
      "BF16");
}

TEST_F(Convert, PowerOfTwoScalesKeepEveryValueBothWays) {
  convert({.model = kGolden / "tiny-bf16",
           .out = dir / "a",
           .to = ConvertTo::Fp8,
           .scale = ScaleForm::PowerOfTwo});
  const TensorStore a = TensorStore::open(dir / "a");
  a.for_each([&](const StoredTensor& t) {
    if (t.info->name.ends_with("_scale_inv")) {
      EXPECT_TRUE(powers_of_two(a.view<float, 2>(t.info->name)));
    }
  });
  EXPECT_HOLDS(read_file(dir / "a" / "config.json"), "\"scale_fmt\": \"ue8m0\"");
  convert({.model = dir / "a", .out = dir / "b", .to = ConvertTo::Bf16});
  convert(
      {.model = dir / "b", .out = dir / "c", .to = ConvertTo::Fp8, .scale = ScaleForm::PowerOfTwo});
  const TensorStore c = TensorStore::open(dir / "c");
  a.for_each([&](const StoredTensor& t) {
    if (t.info->dtype != DType::F8_E4M3) return;
    const Tensor x = a.read_f32(t.info->name), y = c.read_f32(t.info->name);
    EXPECT_EQ(std::memcmp(x.raw(), y.raw(), x.bytes()), 0) << t.info->name;
  });
}

TEST_F(Convert, ShardsChangeAndNothingElse) {
  for (const char* name : {"tiny-fp8", "tiny-mtp", "tiny-yarn"}) {
    const fs::path in = kGolden / name, many = dir / name / "many", one = dir / name / "one";
    const ConvertReport r = convert({.model = in, .out = many, .max_shard_bytes = 50000});
    EXPECT_GT(TensorStore::open(many).shards().size(), 3u);
    convert({.model = many, .out = one});
    EXPECT_EQ(TensorStore::open(one).shards().size(), 1u);
    const TensorStore a = TensorStore::open(in), b = TensorStore::open(many),
                      c = TensorStore::open(one);
    EXPECT_EQ(a.size(), b.size());
    EXPECT_EQ(r.bytes_read, a.total_bytes());
    EXPECT_EQ(r.bytes_written, a.total_bytes());
    a.for_each([&](const StoredTensor& t) {
      EXPECT_TRUE(same_bytes(a, b, t.info->name));
      EXPECT_TRUE(same_bytes(a, c, t.info->name));
    });
    EXPECT_EQ(nlohmann::ordered_json::parse(read_file(in / "config.json")),
              nlohmann::ordered_json::parse(read_file(one / "config.json")));
  }
}

TEST_F(Convert, Fp32BecomesBf16ExceptTheRoutingBias) {
  convert({.model = kGolden / "tiny-noqlora", .out = dir / "a", .to = ConvertTo::Bf16});
  const TensorStore in = TensorStore::open(kGolden / "tiny-noqlora"),
                    out = TensorStore::open(dir / "a");
  in.for_each([&](const StoredTensor& t) {
    const std::string& name = t.info->name;
    if (name.ends_with("e_score_correction_bias")) {
      EXPECT_TRUE(same_bytes(in, out, name)) << name;
      return;
    }
    const Tensor x = in.read_f32(name), y = out.read_f32(name);
    EXPECT_EQ(out.at(name).dtype, DType::BF16);
    for (Index i = 0; i < x.size(); ++i) ASSERT_EQ(round_to_bf16(x.flat()(i)), y.flat()(i));
  });
  EXPECT_HOLDS(read_file(dir / "a" / "config.json"), "\"torch_dtype\": \"bfloat16\"");
}

// A small model directory with one linear and other files beside it.
struct ConvertFiles : Convert {
  ConvertFiles() : w(DType::BF16, {130, 3}) {
    fs::create_directory(in);
    put(in / "config.json",
        R"({"zebra": [1, {"b": 1e-06, "a": "é"}], "dtype": "float32", "model_type": "x"})");
    put(in / "tokenizer.json", "tok");
    put(in / "LICENSE-MODEL", "lic");
    put(in / "generation_config.json", "{}");
    put(in / "train_state.json", "no");
    write();
  }
  void write() {
    const NamedTensorView v = NamedTensorView::of("l.q_proj.weight", w);
    write_safetensors(in / "model.safetensors", {&v, 1});
  }
  std::string error(ConvertOptions o) {
    o.model = in;
    if (o.out.empty()) o.out = dir / "out";
    return error_of([&] { convert(o); });
  }
  Tensor w;
  fs::path in = dir / "in";
};

TEST_F(ConvertFiles, OtherFilesComeAlongAndUnknownKeysKeepTheirOrder) {
  EXPECT_EQ(error({.to = ConvertTo::Fp8}), "no error");
  EXPECT_EQ(read_file(dir / "out" / "tokenizer.json"), "tok");
  EXPECT_EQ(read_file(dir / "out" / "LICENSE-MODEL"), "lic");
  EXPECT_TRUE(fs::exists(dir / "out" / "generation_config.json"));
  EXPECT_FALSE(fs::exists(dir / "out" / "train_state.json"));
  const auto c = nlohmann::ordered_json::parse(read_file(dir / "out" / "config.json"));
  std::vector<std::string> keys;
  for (const auto& [key, value] : c.items()) keys.push_back(key);
  const std::vector<std::string> expected{"zebra", "dtype", "model_type", "quantization_config"};
  EXPECT_EQ(keys, expected);
  EXPECT_EQ(c["dtype"], "bfloat16");
  EXPECT_EQ(c["zebra"].dump(), R"([1,{"b":1e-06,"a":"é"}])");
}

TEST_F(ConvertFiles, TheInputAndForeignDirectoriesAreSafe) {
  fs::create_directory_symlink(in, dir / "alias");
  for (const fs::path& out : {in, dir / "alias", in / "", in / "." / "x" / "..", dir})
    EXPECT_HOLDS(error({.out = out, .overwrite = true}), "would replace the input") << out;
  fs::create_directory(dir / "other");
  put(dir / "other" / "precious", "x");
  EXPECT_HOLDS(error({.out = dir / "other"}), "exists; choose another directory");
  EXPECT_HOLDS(error({.out = dir / "other", .overwrite = true}), "minke did not write");
  EXPECT_EQ(error({}), "no error");
  EXPECT_HOLDS(error({}), "add --overwrite");
  EXPECT_EQ(error({.overwrite = true}), "no error");
}

TEST_F(ConvertFiles, AFailureLeavesNothing) {
  w.view<BF16, 2>()(129, 2) = BF16(std::numeric_limits<float>::quiet_NaN());
  write();
  EXPECT_HOLDS(error({.to = ConvertTo::Fp8}), "tensor l.q_proj.weight holds NaN or infinity");
  w.view<BF16, 2>()(129, 2) = BF16(std::numeric_limits<float>::infinity());
  write();
  EXPECT_HOLDS(error({.to = ConvertTo::Fp8}), "tensor l.q_proj.weight holds NaN or infinity");
  EXPECT_HOLDS(error_of([&] {
                 convert_model({.model = in, .out = dir / "out"},
                               [](std::uint64_t done, std::uint64_t) {
                                 if (done) throw Interrupted("stop");
                               });
               }),
               "stop");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir), {}), 1);
}

TEST_F(Convert, ADiskThatFillsUpLeavesThePreviousResult) {
  ConvertOptions o{.model = kGolden / "tiny-bf16", .out = dir / "out", .max_shard_bytes = 100000};
  convert(o);
  o.max_shard_bytes = 5'000'000'000;
  o.overwrite = true;
  struct rlimit before, small;
  getrlimit(RLIMIT_FSIZE, &before);
  small = before;
  small.rlim_cur = 150000;
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string e = error_of([&] { convert(o); });
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_HOLDS(e, "model.safetensors after 150000 bytes: File too large");
  EXPECT_EQ(checkpoint_defect(dir / "out"), "");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir), {}), 1);
}

TEST_F(ConvertFiles, BadConfigsAreNamed) {
  const auto with = [&](const char* text) {
    put(in / "config.json", text);
    return error({.to = ConvertTo::Bf16});
  };
  EXPECT_HOLDS(with(""), "config.json: ");
  EXPECT_HOLDS(with("[]"), "config.json: a JSON object is expected");
  EXPECT_HOLDS(with(R"({"quantization_config":{"quant_method":"awq"}})"),
               "quant_method is \"awq\"");
  EXPECT_HOLDS(with(R"({"quantization_config":3})"), "quant_method is 3");
  for (const char* size : {"[128]", "[0,128]", "[-1,128]", "[1e9,128]", "128", "[\"a\",1]"})
    EXPECT_HOLDS(
        with(
            (std::string(R"({"quantization_config":{"weight_block_size":)") + size + "}}").c_str()),
        "weight_block_size");
  fs::remove(in / "config.json");
  EXPECT_HOLDS(error({}), "config.json: No such file");
}

TEST_F(ConvertFiles, ScalesWithoutAnFp8WeightAreRefused) {
  const Tensor s = Tensor::zeros({2, 1});
  const std::vector<NamedTensorView> both{NamedTensorView::of("l.q_proj.weight", w),
                                          NamedTensorView::of("l.q_proj.weight_scale_inv", s)};
  write_safetensors(in / "model.safetensors", both);
  EXPECT_HOLDS(error({.to = ConvertTo::Bf16}), "its weight is not an F8_E4M3 weight");
}

}  // namespace
}  // namespace minke
