#include "io/tensor_store.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "base/test_directory.h"

namespace minke {
namespace {

namespace fs = std::filesystem;

struct StoreFormat : TestDirectory {
  // Writes `names` as F32 [2] tensors.
  void shard(const std::string& file, const std::vector<std::string>& names) {
    const Tensor t = Tensor::zeros({2});
    std::vector<NamedTensorView> views;
    for (const std::string& n : names) views.push_back(NamedTensorView::of(n, t));
    write_safetensors(dir / file, views);
  }
  void index(const std::string& map) {
    put(dir / "model.safetensors.index.json",
        "{\"metadata\":{\"total_size\":0},\"weight_map\":{" + map + "}}");
  }
  std::string error() const {
    return error_of([&] { TensorStore::open(dir); });
  }
};

TEST_F(StoreFormat, OpensASingleFileAndShards) {
  shard("model.safetensors", {"a", "b"});
  const TensorStore one = TensorStore::open(dir);
  EXPECT_EQ(one.size(), 2u);
  EXPECT_EQ(one.total_bytes(), 16u);
  EXPECT_EQ((one.view<float, 1>("a").extent(0)), 2);
  fs::remove(dir / "model.safetensors");
  shard("x-1.safetensors", {"a"});
  shard("x-2.safetensors", {"b", "c"});
  index(R"("a":"x-1.safetensors","c":"x-2.safetensors","b":"x-2.safetensors")");
  const TensorStore two = TensorStore::open(dir);
  EXPECT_EQ(two.size(), 3u);
  EXPECT_TRUE(two.contains("c"));
  EXPECT_EQ(two.find("d"), nullptr);
  EXPECT_HOLDS(error_of([&] { two.at("d"); }), "there is no tensor d among its 3 tensors");
}

TEST_F(StoreFormat, WhatIsMissingIsNamed) {
  EXPECT_HOLDS(error_of([&] { TensorStore::open(dir / "none"); }), "is not a directory");
  EXPECT_HOLDS(error(), "neither model.safetensors nor model.safetensors.index.json");
  shard("model-00001-of-00002.safetensors", {"a"});
  EXPECT_HOLDS(error(), "no model.safetensors.index.json that names all shards");
  index(R"("a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors")");
  EXPECT_HOLDS(error(), "missing: model-00002-of-00002.safetensors");
  shard("model-00002-of-00002.safetensors", {"c"});
  EXPECT_HOLDS(error(), "holds tensor c, which model.safetensors.index.json does not name");
  shard("model-00002-of-00002.safetensors", {});
  EXPECT_HOLDS(error(), "names tensor b in model-00002-of-00002.safetensors, where it is not");
  shard("model-00002-of-00002.safetensors", {"a"});
  EXPECT_HOLDS(error(), "tensor a is both in");
  shard("model-00002-of-00002.safetensors", {"b"});
  EXPECT_EQ(error(), "no error");
  shard("model.safetensors", {"a", "b"});
  EXPECT_HOLDS(error(), "holds both");
}

TEST_F(StoreFormat, ATensorInTheWrongShardIsRefused) {
  shard("1.safetensors", {"a"});
  shard("2.safetensors", {"b"});
  index(R"("a":"2.safetensors","b":"1.safetensors")");
  EXPECT_HOLDS(error(), "2.safetensors, but model.safetensors.index.json says 1.safetensors");
}

TEST_F(StoreFormat, DamagedIndicesAreRefused) {
  shard("1.safetensors", {"a"});
  for (const char* text :
       {"", "{", "[]", "{}", R"({"weight_map":[]})", R"({"weight_map":{}})",
        R"({"weight_map":{"a":1}})", R"({"weight_map":{"a":"1.safetensors"},"weight_map":{}})",
        R"({"weight_map":{"a":"1.safetensors","a":"1.safetensors"}})",
        R"({"weight_map":{"a":"1.safetensors"}} x)"}) {
    put(dir / "model.safetensors.index.json", text);
    EXPECT_HOLDS(error(), "model.safetensors.index.json") << text;
  }
  index(R"("a":"1.safetensors")");
  EXPECT_EQ(error(), "no error");
}

TEST_F(StoreFormat, ShardsOutsideTheDirectoryAreRefused) {
  fs::create_directory(dir / "m");
  shard("out.safetensors", {"a"});
  const fs::path out = dir / "out.safetensors", m = dir / "m";
  const auto with = [&](const std::string& name) {
    put(m / "model.safetensors.index.json", "{\"weight_map\":{\"a\":\"" + name + "\"}}");
    return error_of([&] { TensorStore::open(m); });
  };
  EXPECT_HOLDS(with("../out.safetensors"), "\"../out.safetensors\" is not the plain name");
  EXPECT_HOLDS(with(out.string()), "is not the plain name");
  EXPECT_HOLDS(with(".."), "is not the plain name");
  EXPECT_HOLDS(with("a\\\\b"), "is not the plain name");
  EXPECT_HOLDS(with("a\\u0000b"), "is not the plain name");
  EXPECT_HOLDS(with(""), "is not the plain name");
  fs::create_symlink("../out.safetensors", m / "link.safetensors");
  EXPECT_HOLDS(with("link.safetensors"), "symlink that leads out of its directory");
  EXPECT_EQ(TensorStore::open(m, {.allow_symlinks = true}).size(), 1u);
  fs::copy(out, m / "in.safetensors");
  fs::remove(m / "link.safetensors");
  fs::create_symlink("in.safetensors", m / "link.safetensors");
  EXPECT_EQ(with("link.safetensors"), "no error");
  fs::remove(m / "model.safetensors.index.json");
  fs::create_symlink("../out.safetensors", m / "model.safetensors");
  EXPECT_HOLDS(error_of([&] { TensorStore::open(m); }), "symlink that leads out");
}

TEST_F(StoreFormat, Fp8WeightsNeedTheirScales) {
  Tensor codes(DType::F8_E4M3, {130, 5});
  for (Index i = 0; i < codes.size(); ++i)
    static_cast<std::uint8_t*>(codes.raw())[i] = static_cast<std::uint8_t>(i % 0x7F);
  Tensor scales = Tensor::zeros({2, 1});
  scales.v2()(0, 0) = 0.5f, scales.v2()(1, 0) = 4.0f;
  const auto write = [&](const NamedTensorView& s) {
    const std::vector<NamedTensorView> both{NamedTensorView::of("l.weight", codes), s};
    write_safetensors(dir / "model.safetensors", both);
    return error_of([&] { TensorStore::open(dir).read_f32("l.weight"); });
  };
  const auto scale = [&](const Tensor& t) { return NamedTensorView::of("l.weight_scale_inv", t); };
  EXPECT_EQ(write(scale(scales)), "no error");
  const Tensor w = TensorStore::open(dir).read_f32("l.weight");
  const Tensor& c = codes;
  EXPECT_EQ(w.v2()(127, 3), float(c.view<E4M3, 2>()(127, 3)) * 0.5f);
  EXPECT_EQ(w.v2()(128, 3), float(c.view<E4M3, 2>()(128, 3)) * 4.0f);

  EXPECT_HOLDS(write(NamedTensorView::of("l.weight_scale", scales)),
               "the F8_E4M3 tensor l.weight [130, 5] needs its scales l.weight_scale_inv");
  EXPECT_HOLDS(write(scale(Tensor::zeros({1, 2}))), "of shape [1, 2], [2, 1] expected");
  EXPECT_HOLDS(write(scale(Tensor::zeros({2}))), "of shape [2], [2, 1] expected");
  EXPECT_HOLDS(write(scale(Tensor(DType::F16, {2, 1}))), "scales l.weight_scale_inv of type F16");
  scales.v2()(1, 0) = std::numeric_limits<float>::infinity();
  EXPECT_HOLDS(write(scale(scales)), "a scale that is not finite");

  Tensor e8(DType::F8_E8M0, {2, 1}), b16(DType::BF16, {2, 1});
  for (Index i : {0, 1}) {
    e8.view<UE8M0, 2>()(i, 0) = UE8M0::round_up(i ? 4.0f : 0.5f);
    b16.view<BF16, 2>()(i, 0) = BF16(i ? 4.0f : 0.5f);
  }
  for (const Tensor* t : {&e8, &b16}) {
    EXPECT_EQ(write(scale(*t)), "no error");
    const Tensor same = TensorStore::open(dir).read_f32("l.weight");
    EXPECT_EQ(std::memcmp(same.raw(), w.raw(), w.bytes()), 0);
  }
}

TEST_F(StoreFormat, OtherTypesAreReadAsFp32AndWholeNumbers) {
  Tensor d(DType::F64, {2}), i32(DType::I32, {2}), u8(DType::U8, {2});
  d.view<double, 1>()(1) = 0.1;
  i32.view<std::int32_t, 1>()(1) = -5;
  u8.view<std::uint8_t, 1>()(1) = 200;
  const std::vector<NamedTensorView> all{NamedTensorView::of("d", d), NamedTensorView::of("i", i32),
                                         NamedTensorView::of("u", u8)};
  write_safetensors(dir / "model.safetensors", all);
  const TensorStore store = TensorStore::open(dir);
  EXPECT_EQ(store.read_f32("d").v1()(1), 0.1f);
  EXPECT_EQ((store.read_bf16("d").view<BF16, 1>()(1).bits), BF16(0.1f).bits);
  EXPECT_EQ((store.read_i64("i").view<std::int64_t, 1>()(1)), -5);
  EXPECT_EQ((store.read_i64("u").view<std::int64_t, 1>()(1)), 200);
  EXPECT_HOLDS(error_of([&] { store.read_f32("i"); }), "tensor i has the element type I32");
  EXPECT_HOLDS(error_of([&] { store.read_i64("d"); }), "whole numbers expected");
}

struct ShardedWriterFiles : TestDirectory {};

TEST_F(ShardedWriterFiles, PacksShardsInOrderAndReadsBack) {
  std::vector<TensorDecl> decls;
  std::uint64_t total = 0;
  for (int i = 0; i < 10; ++i) {
    decls.push_back({"t" + std::to_string(i), i % 2 ? DType::BF16 : DType::F32, {i + 1, 3}});
    total += decls.back().bytes();
  }
  for (std::uint64_t max : {1u, 50u, 100u, 100000u}) {
    const fs::path out = dir / std::to_string(max);
    fs::create_directory(out);
    ShardedWriter writer(out, decls, {.max_shard_bytes = max});
    for (const TensorDecl& t : writer.order())
      writer.write(std::vector<std::byte>(t.bytes(), static_cast<std::byte>(t.name[1])));
    std::size_t files = 0;
    for (const auto& [name, digest] : writer.finish()) {
      EXPECT_EQ(fs::file_size(out / name), digest.bytes);
      files += name.ends_with(".safetensors");
    }
    if (max == 1) {
      EXPECT_EQ(files, 10u);
    }
    if (max == 100000) {
      EXPECT_TRUE(files == 1 && fs::exists(out / "model.safetensors"));
    }
    const TensorStore store = TensorStore::open(out);
    EXPECT_EQ(store.shards().size(), files);
    EXPECT_EQ(store.total_bytes(), total);
    for (const TensorDecl& t : decls) {
      EXPECT_EQ(store.at(t.name).shape, t.shape);
      for (std::byte b : store.bytes(t.name)) EXPECT_EQ(b, static_cast<std::byte>(t.name[1]));
    }
    if (files > 1) {
      EXPECT_HOLDS(read_file(out / "model.safetensors.index.json"),
                   "\"total_size\": " + std::to_string(total));
    }
  }
}

TEST_F(ShardedWriterFiles, NothingAtAllIsAnEmptyModel) {
  ShardedWriter writer(dir, {});
  EXPECT_EQ(writer.finish().size(), 1u);
  EXPECT_EQ(TensorStore::open(dir).size(), 0u);
}

}  // namespace
}  // namespace minke
