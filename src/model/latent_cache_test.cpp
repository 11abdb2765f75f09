#include "model/latent_cache.h"

#include <gtest/gtest.h>

#include "tensor/dtype.h"

namespace minke {
namespace {

ModelConfig two_layers() {
  ModelConfig c;
  c.num_hidden_layers = 2;
  c.kv_lora_rank = 5;
  c.qk_rope_head_dim = 2;
  return c;
}

Tensor counting(Index n, Index width, float first) {
  Tensor t = Tensor::zeros({n, width});
  for (Index i = 0; i < t.size(); ++i) t.flat()(i) = first + static_cast<float>(i) / 3;
  return t;
}

TEST(SequenceCache, RowsComeBackAcrossPagesHoweverTheyWereAppended) {
  for (DType dtype : {DType::F32, DType::BF16}) {
    SequenceCache cache(two_layers(), dtype);
    cache.reserve(200);
    const Tensor rows = counting(200, 7, 1);
    for (Index at = 0, n = 1; at < 200; at += n, n = std::min<Index>(n + 13, 200 - at))
      cache.append(0, rows.v2().rows(at, n));
    EXPECT_EQ(cache.length(0), 200);
    EXPECT_EQ(cache.length(1), 0);
    const Tensor back = read_rows(cache, 0, 200);
    for (Index i = 0; i < back.size(); ++i) {
      const float want = rows.flat()(i);
      EXPECT_EQ(back.flat()(i), dtype == DType::F32 ? want : round_to_bf16(want));
    }
  }
}

TEST(SequenceCache, TruncateForgetsTheEndAndPagesStay) {
  SequenceCache cache(two_layers(), DType::F32);
  cache.reserve(130);
  cache.append(0, counting(130, 7, 0).v2());
  const std::size_t bytes = cache.bytes();
  cache.truncate(65);
  EXPECT_EQ(cache.length(0), 65);
  cache.append(0, counting(3, 7, 1000).v2());
  const Tensor back = read_rows(cache, 0, 68);
  EXPECT_EQ(back.v2()(64, 0), counting(130, 7, 0).v2()(64, 0));
  EXPECT_EQ(back.v2()(65, 0), 1000);
  EXPECT_EQ(cache.bytes(), bytes);
}

TEST(SequenceCache, OnlyTheLatentAndTheRotaryPartAreKept) {
  ModelConfig c = two_layers();
  c.num_hidden_layers = 61;
  c.kv_lora_rank = 512;
  c.qk_rope_head_dim = 64;
  EXPECT_EQ(cache_bytes_per_token(c, DType::BF16), 70272u);  // the report: 61 x 576 x 2
}

TEST(SequenceCache, RowsInFp8AreTheSameHoweverTheyWereAppended) {
  ModelConfig c = two_layers();
  c.kv_lora_rank = 130;  // a whole tile and a ragged one
  SequenceCache whole(c, DType::F8_E4M3), pieces(c, DType::F8_E4M3);
  const Tensor rows = counting(200, 132, -40);
  for (SequenceCache* cache : {&whole, &pieces}) cache->reserve(200);
  whole.append(0, rows.v2());
  for (Index at = 0, n = 1; at < 200; at += n, n = std::min<Index>(n + 13, 200 - at))
    pieces.append(0, rows.v2().rows(at, n));
  const Tensor a = read_rows(whole, 0, 200), b = read_rows(pieces, 0, 200);
  for (Index i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a.flat()(i), b.flat()(i));
    const float x = rows.flat()(i);
    ASSERT_NEAR(a.flat()(i), x, std::abs(x) / 14 + 0.3) << i;  // of codes; BF16 is nearer
  }
}

TEST(SequenceCache, ARowInFp8Takes656BytesInEachLayer) {
  ModelConfig c = two_layers();
  c.num_hidden_layers = 61;
  c.kv_lora_rank = 512;
  c.qk_rope_head_dim = 64;
  EXPECT_EQ(cache_bytes_per_token(c, DType::F8_E4M3), 61u * 656);
}

TEST(CacheDtype, AutoFollowsTheArithmeticAndOtherNamesAreRefused) {
  Model model;
  model.compute = Compute::Bf16;
  EXPECT_EQ(cache_dtype(model), DType::BF16);
  model.cache_dtype = parse_cache_dtype("fp8");
  EXPECT_EQ(cache_dtype(model), DType::F8_E4M3);
  model.cache_dtype = parse_cache_dtype("auto");
  EXPECT_EQ(cache_dtype(model), DType::BF16);
  EXPECT_THROW(parse_cache_dtype("int8"), ConfigError);
}

}  // namespace
}  // namespace minke
