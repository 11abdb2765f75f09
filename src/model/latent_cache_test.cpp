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
    const Tensor back = read_rows(cache, 0, 7, 200);
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
  const Tensor back = read_rows(cache, 0, 7, 68);
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

}  // namespace
}  // namespace minke
