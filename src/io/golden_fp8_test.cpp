// The published FP8 arithmetic, code for code. See tests/golden/README.md, "FP8 cases".
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "io/tensor_store.h"

namespace minke {
namespace {

SafetensorsFile golden() {
  return SafetensorsFile::open(std::filesystem::path(MINKE_GOLDEN_DIR) /
                               "fp8-quant/expected.safetensors");
}

template <class T>
void expect_same(const Tensor& got, View2<const T> expected) {
  ASSERT_EQ(got.bytes(), static_cast<std::size_t>(expected.size()) * sizeof(T));
  const T* bits = static_cast<const T*>(got.raw());
  for (Index i = 0; i < expected.size(); ++i)
    ASSERT_EQ(std::memcmp(&bits[i], &expected.data()[i], sizeof(T)), 0) << "element " << i;
}

void check(const std::string& x, const std::string& suffix, Fp8Block block, ScaleForm form) {
  const SafetensorsFile file = golden();
  const auto in = file.view<float, 2>(x + ".x");
  const Index n = in.extent(0), k = in.extent(1);
  Tensor codes(DType::F8_E4M3, {n, k});
  Tensor scales = Tensor::zeros({block_count(n, block.rows), block_count(k, block.columns)});
  quantize_blocks(in, block, form, codes.view<E4M3, 2>(), scales.v2());
  expect_same(codes, file.view<std::uint8_t, 2>(x + ".codes" + suffix));
  expect_same(scales, file.view<float, 2>(x + ".scales" + suffix));
  if (form == ScaleForm::PowerOfTwo) return;
  Tensor y = Tensor::zeros({n, k});
  const Tensor &c = codes, &s = scales;
  dequantize_blocks(c.view<E4M3, 2>(), s.v2(), block, y.v2());
  expect_same(y, file.view<float, 2>(x + ".dequant"));
}

TEST(GoldenFp8, Activations) {
  check("act", "", kActivationBlock, ScaleForm::Float);
}
TEST(GoldenFp8, ActivationsWithPowerOfTwoScales) {
  check("act", "_ue8m0", kActivationBlock, ScaleForm::PowerOfTwo);
}
TEST(GoldenFp8, Weights) {
  check("weight", "", kWeightBlock, ScaleForm::Float);
}

TEST(GoldenFp8, SingleValues) {
  const SafetensorsFile file = golden();
  const auto x = file.view<float, 1>("cast.x");
  const auto codes = file.view<std::uint8_t, 1>("cast.codes");
  for (Index i = 0; i < x.size(); ++i) {
    if (std::isnan(x(i)))
      EXPECT_EQ(E4M3(x(i)).code & 0x7F, codes(i) & 0x7F);
    else
      EXPECT_EQ(E4M3(x(i)).code, codes(i)) << x(i);
  }
}

TEST(GoldenFp8, EveryCode) {
  const SafetensorsFile file = golden();
  const auto values = file.view<float, 1>("decode.values");
  for (Index i = 0; i < 256; ++i) {
    E4M3 e;
    e.code = static_cast<std::uint8_t>(i);
    if (std::isnan(values(i)))
      EXPECT_TRUE(std::isnan(float(e)));
    else
      EXPECT_EQ(std::bit_cast<std::uint32_t>(float(e)), std::bit_cast<std::uint32_t>(values(i)));
  }
}

TEST(GoldenFp8, ADequantisedWeight) {
  const std::filesystem::path dir = std::filesystem::path(MINKE_GOLDEN_DIR) / "tiny-fp8";
  const TensorStore store = TensorStore::open(dir);
  const SafetensorsFile expected = SafetensorsFile::open(dir / "expected.safetensors");
  expect_same(store.read_f32("model.layers.1.mlp.experts.0.down_proj.weight"),
              expected.view<float, 2>("dequant.layers.1.mlp.experts.0.down_proj"));
}

}  // namespace
}  // namespace minke
