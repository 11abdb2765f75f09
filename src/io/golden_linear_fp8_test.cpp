// Products in the official FP8 arithmetic. See tests/golden/README.md, "FP8 cases" and tiny-fp8.
#include <gtest/gtest.h>

#include <cmath>

#include "io/tensor_store.h"
#include "ops/isa.h"
#include "ops/linear.h"
#include "ops/quantize.h"

namespace minke {
namespace {

using std::filesystem::path;

template <class T>
View2<const E4M3> as_codes(View2<const T> v) {
  return {reinterpret_cast<const E4M3*>(v.data()), v.extents()};
}

void expect_product(View2<const float> x, const PackedWeights& w, View2<const std::uint8_t> codes,
                    View2<const float> scales, View2<const float> y) {
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(name_of(isa));
    choose_isa(isa);
    Tensor got_codes(DType::F8_E4M3, {codes.extent(0), codes.extent(1)});
    Tensor got_scales = Tensor::zeros({scales.extent(0), scales.extent(1)});
    quantize_rows(x, got_codes.view<E4M3, 2>(), got_scales.v2());
    const auto* got = static_cast<const std::uint8_t*>(got_codes.raw());
    for (Index i = 0; i < codes.size(); ++i) ASSERT_EQ(got[i], codes.data()[i]) << "code " << i;
    for (Index i = 0; i < scales.size(); ++i)
      ASSERT_EQ(got_scales.flat().data()[i], scales.data()[i]) << "scale " << i;
    if (y.empty()) continue;
    Tensor product = Tensor::zeros({y.extent(0), y.extent(1)});
    linear_fp8(x, w, product.v2());
    for (Index i = 0; i < y.size(); ++i)
      ASSERT_NEAR(product.flat().data()[i], y.data()[i], 5e-6) << "element " << i;
  }
  choose_isa(available_isas().back());
}

TEST(GoldenLinearFp8, Products) {
  const auto file =
      SafetensorsFile::open(path(MINKE_GOLDEN_DIR) / "e4m3-gemm/expected.safetensors");
  for (const std::string name : {"ragged", "aligned"}) {
    SCOPED_TRACE(name);
    const auto w = PackedWeights::pack(as_codes(file.view<std::uint8_t, 2>(name + ".B_codes")),
                                       file.view<float, 2>(name + ".B_scales"));
    expect_product(file.view<float, 2>(name + ".A"), w,
                   file.view<std::uint8_t, 2>(name + ".A_codes"),
                   file.view<float, 2>(name + ".A_scales"), file.view<float, 2>(name + ".C"));
  }
}

TEST(GoldenLinearFp8, ActivationCodes) {
  const auto file =
      SafetensorsFile::open(path(MINKE_GOLDEN_DIR) / "fp8-quant/expected.safetensors");
  expect_product(file.view<float, 2>("act.x"), {}, file.view<std::uint8_t, 2>("act.codes"),
                 file.view<float, 2>("act.scales"), {});
}

TEST(GoldenLinearFp8, SingleLinearsOfAModel) {
  const path dir = path(MINKE_GOLDEN_DIR) / "tiny-fp8";
  const auto file = SafetensorsFile::open(dir / "expected.safetensors");
  const auto model = SafetensorsFile::open(dir / "model.safetensors");
  int found = 0;
  for (const auto& entry : file.tensors()) {
    const std::string& tensor = entry.name;
    if (!tensor.starts_with("linear.") || !tensor.ends_with(".x")) continue;
    ++found;
    const std::string name = tensor.substr(0, tensor.size() - 2);
    SCOPED_TRACE(name);
    const std::string weight = name.substr(7) + ".weight";
    const auto w = PackedWeights::pack(model.view<E4M3, 2>(weight),
                                       model.view<float, 2>(weight + "_scale_inv"));
    expect_product(file.view<float, 3>(tensor)[0], w,
                   file.view<std::uint8_t, 3>(name + ".codes")[0],
                   file.view<float, 3>(name + ".scales")[0], file.view<float, 3>(name + ".y")[0]);
  }
  EXPECT_EQ(found, 5);
}

}  // namespace
}  // namespace minke
