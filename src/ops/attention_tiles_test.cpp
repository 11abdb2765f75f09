// Products of pairs in attention on a model of the tile unit, and on the unit where there is one.
#include "ops/attention_tiles.h"

#include "ops/gemm.h"
#include "ops/test_values.h"
#include "ops/tile_model.h"

namespace minke {
namespace {

using Multiply = void (*)(const SmallProduct&);

void on_model(const SmallProduct& p) {
  PairProduct<TileModel>(p).multiply(scalar::attention_kernels.transpose);
}

// Pairs of BF16 numbers, with rows that lie apart.
struct Pairs {
  Index rows, columns, stride;
  std::vector<float> data;
  Pairs(Index rows_, Index columns_, unsigned seed)
      : rows(rows_), columns(columns_), stride(columns_ + 3), data(rows_ * stride, std::nanf("")) {
    const std::vector<float> numbers = test::random_values(2 * rows * columns, seed);
    for (Index i = 0; i < rows * columns; ++i) {
      const BF16 pair[2] = {BF16(numbers[2 * i]), BF16(numbers[2 * i + 1])};
      std::memcpy(&data[i / columns * stride + i % columns], pair, sizeof pair);
    }
  }
  double number(Index row, Index column, int which) const {
    BF16 pair[2];
    std::memcpy(static_cast<void*>(pair), &data[row * stride + column], sizeof pair);
    return static_cast<double>(static_cast<float>(pair[which]));
  }
};

struct Shape {
  Index rows, columns, k;
  bool turned, add;  // turned: the rows of a lie in columns
};

struct Operands {
  Shape shape;
  Pairs a, b;
  explicit Operands(const Shape& s, unsigned seed)
      : shape(s),
        a(s.turned ? Pairs(s.k, s.rows, seed) : Pairs(s.rows, s.k, seed)),
        b(s.k, s.columns, seed + 1) {}
  double a_number(Index row, Index k, int which) const {
    return shape.turned ? a.number(k, row, which) : a.number(row, k, which);
  }
};

test::Matrix<float> product(Multiply multiply, const Operands& o, Index first_row, Index rows) {
  const Shape& s = o.shape;
  test::Matrix<float> c(rows, s.columns, 5);
  c.fill(0.5f);
  const char* some = reinterpret_cast<const char*>(o.b.data.data());
  multiply({o.a.data.data() + first_row * (s.turned ? 1 : o.a.stride), s.turned ? 1 : o.a.stride,
            s.turned ? o.a.stride : 1, o.b.data.data(), o.b.stride, c.data.data(), c.stride, rows,
            s.columns, s.k, s.add, some, some + 100});
  return c;
}

void expect_right(Multiply multiply) {
  unsigned seed = 0;
  for (const bool turned : {false, true})
    for (const Index rows : {1, 8, 16, 17, 32, 50})
      for (const Index columns : {16, 32, 80})
        for (const Index k : {0, 1, 12, 16, 17, 31, 32, 100, 255, 256}) {
          if (turned && k > kKeyTile / 2) continue;
          const Shape s{rows, columns, k, turned, seed % 2 == 0};
          SCOPED_TRACE(testing::Message() << rows << " x " << columns << ", k " << k
                                          << (turned ? ", turned" : "") << (s.add ? ", add" : ""));
          const Operands o(s, ++seed);
          const test::Matrix<float> c = product(multiply, o, 0, rows);
          // 2 k products and their sums, each rounded, in any order.
          const double rounding = 2 * (2 * static_cast<double>(k) + 2) * 0x1p-24;
          for (Index i = 0; i < rows; ++i)
            for (Index j = 0; j < columns; ++j) {
              double sum = s.add ? 0.5 : 0, size = 1;
              for (Index p = 0; p < k; ++p)
                for (int which : {0, 1}) {
                  const double product = o.a_number(i, p, which) * o.b.number(p, j, which);
                  sum += product;
                  size += std::fabs(product);
                }
              ASSERT_NEAR(static_cast<double>(c(i, j)), sum, rounding * size) << i << ", " << j;
            }
          // What a row gets does not depend on the rows beside it.
          const Index half = rows / 2;
          if (half == 0) continue;
          const test::Matrix<float> lower = product(multiply, o, half, rows - half);
          for (Index i = half; i < rows; ++i)
            for (Index j = 0; j < columns; ++j) ASSERT_EQ(lower(i - half, j), c(i, j));
        }
}

TEST(AttentionTiles, ProductsOfPairsOnAModelOfTheUnit) {
  expect_right(on_model);
}

TEST(AttentionTiles, ProductsOfPairsOnTheUnit) {
  if (!gemm::tiles_agree()) GTEST_SKIP() << "no AMX here; the model stands for it";
  static const PairKernels kernels = amx::pair_kernels();
  expect_right(kernels.multiply);
}

TEST(AttentionTiles, ProductsOfPairsOnVectors) {
  if (!cpu_features().avx512_bf16) GTEST_SKIP() << "no AVX512_BF16 here";
  expect_right(avx512_bf16::pair_kernels.multiply);
}

TEST(AttentionTiles, DotsOfRowsOnVectors) {
  if (!cpu_features().avx512_bf16) GTEST_SKIP() << "no AVX512_BF16 here";
  unsigned seed = 100;
  for (const Index rows : {1, 2, 4, 7, 16, 35})
    for (const Index columns : {4, 16, 48})
      for (const Index k : {0, 1, 12, 16, 17, 100, 288}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << columns << ", k " << k);
        const Pairs a(rows, k, ++seed), b(columns, k, ++seed);
        const auto dots = [&](Index first_row, Index n, Index first_column, Index m) {
          test::Matrix<float> c(n, m, 3);
          const char* some = reinterpret_cast<const char*>(b.data.data());
          avx512_bf16::pair_kernels.dots({a.data.data() + first_row * a.stride, a.stride, 1,
                                          b.data.data() + first_column * b.stride, b.stride,
                                          c.data.data(), c.stride, n, m, k, false, some,
                                          some + 100});
          return c;
        };
        const test::Matrix<float> c = dots(0, rows, 0, columns);
        const double rounding = 2 * (2 * static_cast<double>(k) + 2) * 0x1p-24;
        for (Index i = 0; i < rows; ++i)
          for (Index j = 0; j < columns; ++j) {
            double sum = 0, size = 1;
            for (Index p = 0; p < k; ++p)
              for (int which : {0, 1}) {
                const double product = a.number(i, p, which) * b.number(j, p, which);
                sum += product;
                size += std::fabs(product);
              }
            ASSERT_NEAR(static_cast<double>(c(i, j)), sum, rounding * size) << i << ", " << j;
          }
        // An element depends neither on the rows nor on the columns beside it.
        const Index from = rows / 2;
        const test::Matrix<float> part = dots(from, rows - from, columns - 4, 4);
        for (Index i = from; i < rows; ++i)
          for (Index j = 0; j < 4; ++j) ASSERT_EQ(part(i - from, j), c(i, columns - 4 + j));
      }
}

// Zeros in place of what is beyond the last number change nothing.
TEST(AttentionTiles, ZerosBehindTheLastPairChangeNoBit) {
  for (const bool turned : {false, true}) {
    const Operands o({20, 32, 21, turned, false}, 7), all({20, 32, 32, turned, false}, 8);
    Operands padded = all;
    for (auto* part : {&padded.a, &padded.b}) std::fill(part->data.begin(), part->data.end(), 0.0f);
    for (Index k = 0; k < 21; ++k) {
      for (Index i = 0; i < 20; ++i)
        padded.a.data[turned ? k * padded.a.stride + i : i * padded.a.stride + k] =
            o.a.data[turned ? k * o.a.stride + i : i * o.a.stride + k];
      for (Index j = 0; j < 32; ++j)
        padded.b.data[k * padded.b.stride + j] = o.b.data[k * o.b.stride + j];
    }
    const test::Matrix<float> a = product(on_model, o, 0, 20), b = product(on_model, padded, 0, 20);
    for (Index i = 0; i < 20; ++i)
      for (Index j = 0; j < 32; ++j) ASSERT_EQ(a(i, j), b(i, j));
  }
}

}  // namespace
}  // namespace minke
