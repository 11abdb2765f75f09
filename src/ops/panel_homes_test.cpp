#include "ops/panel_homes.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <functional>
#include <mutex>

#include "base/test_topology.h"
#include "ops/test_values.h"
#include "tensor/fp8_blocks.h"
#include "tensor/int4_groups.h"

namespace minke {
namespace {

using test::Matrix;

constexpr Index kK = 700;  // with 16 rows or more, all threads take part from N = 370 on
constexpr Index kOutputs[] = {1, 65, 128, 397};
constexpr Index kRows[] = {1, 17, 200};

struct Form {
  const char* name;
  std::function<PackedWeights(const Matrix<float>&)> pack;
  std::function<void(View2<const float>, const PackedWeights&, View2<float>)> multiply;
};

PackedWeights pack_codes(const Matrix<float>& w) {
  const auto n = w.rows, k = w.columns;
  Tensor codes = Tensor::uninitialized<E4M3>({n, k});
  Tensor scales = Tensor::uninitialized({block_count(n, 128), block_count(k, 128)});
  quantize_blocks<float>(w.view(), kWeightBlock, ScaleForm::Float, codes.view<E4M3, 2>(),
                         scales.v2());
  return PackedWeights::pack(std::as_const(codes).view<E4M3, 2>(), std::as_const(scales).v2());
}

PackedWeights pack_groups(const Matrix<float>& w) {
  const Int4Matrix codes = quantize_int4(w.view(), 128);
  return PackedWeights::pack_int4(codes.packed.view<std::int32_t, 2>(),
                                  codes.scales.view<BF16, 2>(), w.columns, 128);
}

std::vector<Form> forms() {
  const auto of_form = [](auto x, const auto& w, auto y) { linear(x, w, y); };
  return {
      {"F32", [](const auto& w) { return PackedWeights::pack(w.view(), WeightForm::F32); },
       of_form},
      {"BF16", [](const auto& w) { return PackedWeights::pack(w.view(), WeightForm::Bf16); },
       of_form},
      {"E4M3", pack_codes, of_form},
      {"E4M3, x as well", pack_codes, [](auto x, const auto& w, auto y) { linear_fp8(x, w, y); }},
      {"4 bits", pack_groups, of_form},
  };
}

std::vector<std::byte> stored(const PackedWeights& w) {
  std::vector<std::byte> bytes(PackedWeights::stored_bytes(w.shape()));
  w.store(bytes);
  return bytes;
}

std::vector<float> product(const Form& form, Index rows, const PackedWeights& w) {
  const Matrix<float> x = Matrix<float>::random(rows, kK, 3);
  Matrix<float> y(rows, w.n());
  form.multiply(x.view(), w, y.view());
  return y.data;
}

TEST(PanelHomes, HaveEveryPanelOnce) {
  const TwoNodes two_nodes;
  for (const Index n : kOutputs) {
    const PanelRange first = panels_at(n, 0), second = panels_at(n, 1);
    EXPECT_EQ(first.first, 0);
    EXPECT_EQ(first.last, second.first);
    EXPECT_EQ(second.last, (n + 15) / 16);
    std::vector<int> times(static_cast<std::size_t>(second.last));
    std::mutex mutex;
    for_panels_at_home(n, 5, [&](Index begin, Index end) {
      std::lock_guard lock(mutex);
      EXPECT_LE(end - begin, 5);
      EXPECT_EQ(begin < first.last, end <= first.last) << "of two homes";
      for (Index p = begin; p < end; ++p) ++times[static_cast<std::size_t>(p)];
    });
    EXPECT_EQ(times, std::vector<int>(times.size(), 1));
  }
}

// One behind the other in each home's part, and the bytes of a file do not depend on homes.
TEST(PanelHomes, AreWhereThePanelsLie) {
  for (const Form& form : forms())
    for (const Index n : kOutputs) {
      const Matrix<float> values = Matrix<float>::random(n, kK, 7);
      const PackedWeights together = form.pack(values);
      const TwoNodes two_nodes;
      const PackedWeights apart = form.pack(values);
      EXPECT_EQ(apart.bytes(), together.bytes());
      EXPECT_EQ(stored(apart), stored(together)) << form.name << ", " << n << " outputs";
      const Index second = panels_at(n, 1).first, panels = panels_at(n, 1).last;
      for (Index p = 1; p < panels; ++p) {
        const auto* before = static_cast<const char*>(apart.panel(p - 1));
        if (p == second) continue;
        EXPECT_EQ(apart.panel(p), before + apart.panel_bytes()) << form.name << ", panel " << p;
      }
    }
}

TEST(PanelHomes, DoNotChangeABitOfAProduct) {
  for (const Form& form : forms())
    for (const Index n : kOutputs) {
      const Matrix<float> values = Matrix<float>::random(n, kK, 7);
      const PackedWeights together = form.pack(values);
      PackedWeights apart;
      for (const Index rows : kRows) {
        const std::vector<float> want = product(form, rows, together);
        const auto same = [&](const PackedWeights& w, const char* how) {
          EXPECT_EQ(product(form, rows, w), want)
              << form.name << ", [" << rows << ", " << n << "], " << how;
        };
        {
          const TwoNodes two_nodes;
          if (!apart.defined()) apart = form.pack(values);
          same(apart, "of two homes");
          same(together, "packed with one home, multiplied with two");
        }
        same(apart, "packed with two homes, multiplied with one");
      }
    }
}

TEST(PanelHomes, DoNotChangeABitOfAGroupedProduct) {
  const Index offsets[] = {0, 1, 1, 18, 60};  // the second expert has no rows
  const Matrix<float> x = Matrix<float>::random(60, kK, 3);
  for (const Form& form : forms()) {
    const auto grouped = [&] {
      std::vector<PackedWeights> experts;
      for (unsigned e = 0; e < 4; ++e)
        experts.push_back(form.pack(Matrix<float>::random(200, kK, 10 + e)));
      std::vector<const PackedWeights*> w;
      for (const PackedWeights& expert : experts) w.push_back(&expert);
      Matrix<float> y(60, 200);
      linear_grouped(x.view(), offsets, w, y.view());
      return y.data;
    };
    const std::vector<float> want = grouped();
    const TwoNodes two_nodes;
    EXPECT_EQ(grouped(), want) << form.name;
  }
}

TEST(PanelHomes, AMatrixMayBeAtOneHome) {
  const Matrix<float> values = Matrix<float>::random(397, kK, 7);
  const Form form = forms()[1];
  const PackedWeights together = form.pack(values);
  const TwoNodes two_nodes;
  for (const Index home : {0, 1}) {
    const PackedWeights whole = PackedWeights::pack(values.view(), WeightForm::Bf16, home);
    for (Index p = 1; p < panels_at(397, 1).last; ++p)
      EXPECT_EQ(whole.panel(p), static_cast<const char*>(whole.panel(p - 1)) + whole.panel_bytes());
    EXPECT_EQ(product(form, 40, whole), product(form, 40, together));
  }
}

}  // namespace
}  // namespace minke
