#include "ops/attention.h"

#include "ops/attention_cases.h"
#include "ops/attention_kernels.h"

namespace minke {
namespace {

using test::Case;
using test::Inputs;
using test::Matrix;
using test::Result;

const Case kCases[] = {
    {{1, 1, 1, 1}, 1, 0},      {{3, 3, 5, 7}, 2, 0},       {{2, 2, 16, 16}, 17, 0},
    {{2, 2, 96, 64}, 65, 0},   {{1, 1, 24, 12}, 130, 0},   {{3, 3, 20, 12}, 5, 61},
    {{5, 1, 40, 32}, 3, 64},   {{16, 1, 72, 64}, 9, 127},  {{130, 1, 20, 16}, 2, 30},
    {{2, 1, 24, 16}, 1, 1100}, {{2, 2, 18, 10}, 70, 1000}, {{4, 1, 33, 31}, 64, 500},
};

TEST(Attention, EveryFormAgreesWithTheDefinition) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << "H " << c.shape.n_heads << " qk " << c.shape.qk << " T "
                                    << c.T << " first " << c.first);
    const Inputs in(c);
    const Matrix<double> q = in.q.as<double>(), k = in.k.as<double>(), v = in.v.as<double>();
    Matrix<double> out(c.T, c.shape.n_heads * c.shape.value), lse(c.T, c.shape.n_heads);
    reference::attention_forward<double>(c.shape, q.view(), k.view(), v.view(), c.first,
                                         static_cast<double>(scale_of(c)), out.view(), lse.view());
    test::on_every_isa([&] {
      const Result r = forward(c, in);
      // Scores of some units carry the rounding of a sum of qk products: 1e-6 relative in e^s.
      test::expect_near(r.out, out, 4e-6, 0, "out");
      test::expect_near(r.lse, lse, 4e-6, 1e-6, "lse");
    });
  }
}

TEST(Attention, ARowsBitsDependOnItsKeysAloneOnAnyThreads) {
  const Case c{{4, 1, 40, 32}, 150, 450};
  const Case separate{{3, 3, 24, 20}, 150, 450};
  for (const Case& whole : {c, separate}) {
    const Inputs in(whole);
    test::on_every_isa([&] {
      const Result all = forward(whole, in);
      const auto part = [&](Index begin, Index n) {
        Result r(Case{whole.shape, n, 0});
        attention_forward(whole.shape, in.q.view().rows(begin, n),
                          KeyRows<float>::of(in.k.view().rows(0, whole.first + begin + n)),
                          KeyRows<float>::of(in.v.view().rows(0, whole.first + begin + n)),
                          whole.first + begin, scale_of(whole), r.out.view(), r.lse.view());
        return r;
      };
      for (const int threads : {1, 2, 3}) {
        set_threads(threads);
        for (const Index chunk : {Index{1}, Index{37}, Index{64}, Index{149}})
          for (Index begin = 0; begin < whole.T; begin += chunk) {
            const Index n = std::min(chunk, whole.T - begin);
            const Result r = part(begin, n);
            for (Index t = 0; t < n; ++t) {
              for (Index i = 0; i < r.out.columns; ++i)
                ASSERT_EQ(r.out(t, i), all.out(begin + t, i))
                    << begin + t << " in chunks of " << chunk;
              for (Index h = 0; h < r.lse.columns; ++h)
                ASSERT_EQ(r.lse(t, h), all.lse(begin + t, h));
            }
          }
      }
      set_threads(available_cores());
    });
  }
}

// Latent rows in BF16, the value the beginning of the key, in pages that lie in falling order and
// as one block.
struct LatentRows {
  Index width;
  std::vector<BF16> memory, in_order;
  std::vector<const BF16*> pages;
  Matrix<double> keys, values;

  LatentRows(Index S, const AttentionShape& shape, Index width_)
      : width(width_), keys(S, shape.qk), values(S, shape.value) {
    const Index n_pages = (S + kKeyTile - 1) / kKeyTile;
    memory.resize(static_cast<std::size_t>(n_pages * kKeyTile * width));
    in_order.resize(static_cast<std::size_t>(S * width));
    for (Index p = 0; p < n_pages; ++p)
      pages.push_back(memory.data() + (n_pages - 1 - p) * kKeyTile * width);
    const std::vector<float> random = test::random_values(S * shape.qk, 2);
    for (Index s = 0; s < S; ++s)
      for (Index d = 0; d < shape.qk; ++d) {
        const BF16 x(random[static_cast<std::size_t>(s * shape.qk + d)]);
        const Index page = n_pages - 1 - s / kKeyTile;
        memory[static_cast<std::size_t>((page * kKeyTile + s % kKeyTile) * width + d)] = x;
        in_order[static_cast<std::size_t>(s * width + d)] = x;
        keys(s, d) = static_cast<float>(x);
        if (d < shape.value) values(s, d) = static_cast<float>(x);
      }
  }
  KeyRows<BF16> paged(Index n) const {
    return KeyRows<BF16>::of(std::span<const BF16* const>(pages), width, n);
  }
  KeyRows<BF16> block(Index n) const {
    return KeyRows<BF16>::of(View2<const BF16>(in_order.data(), {n, width}));
  }
};

const Case kLatentCases[] = {
    {{5, 1, 40, 32}, 3, 700}, {{1, 1, 2, 2}, 1, 0},      {{16, 1, 72, 64}, 9, 127},
    {{8, 1, 48, 40}, 2, 63},  {{130, 1, 20, 16}, 2, 30}, {{16, 1, 576, 512}, 1, 1100},
};

TEST(Attention, PagesGiveTheBitsOfOneBlock) {
  for (const Case& c : kLatentCases) {
    const LatentRows rows(c.S(), c.shape, c.shape.qk + 4);
    const Matrix<float> q = Matrix<float>::random(c.T, c.shape.n_heads * c.shape.qk, 1);
    test::on_every_isa([&] {
      Result paged(c), block(c);
      attention_forward(c.shape, q.view(), rows.paged(c.S()), rows.paged(c.S()), c.first, 0.2f,
                        paged.out.view(), paged.lse.view());
      attention_forward(c.shape, q.view(), rows.block(c.S()), rows.block(c.S()), c.first, 0.2f,
                        block.out.view(), block.lse.view());
      test::expect_same_bits(paged.out, block.out);
      test::expect_same_bits(paged.lse, block.lse);
    });
  }
}

TEST(Attention, LatentRowsAgreeWithTheDefinitionOnEveryForm) {
  for (const Case& c : kLatentCases) {
    SCOPED_TRACE(testing::Message() << "H " << c.shape.n_heads << " qk " << c.shape.qk);
    const LatentRows rows(c.S(), c.shape, c.shape.qk + 4);
    const Matrix<float> q = Matrix<float>::random(c.T, c.shape.n_heads * c.shape.qk, 1);
    const Matrix<double> q64 = q.as<double>();
    Matrix<double> out(c.T, c.shape.n_heads * c.shape.value), lse(c.T, c.shape.n_heads);
    const double scale = static_cast<double>(scale_of(c));
    reference::attention_forward<double>(c.shape, q64.view(), rows.keys.view(), rows.values.view(),
                                         c.first, scale, out.view(), lse.view());
    test::on_every_isa([&] {
      Result r(c);
      attention_forward(c.shape, q.view(), rows.paged(c.S()), rows.paged(c.S()), c.first, scale,
                        r.out.view(), r.lse.view());
      // Queries and probabilities may be rounded to BF16, 2^-9 each: a score of qk terms moves by
      // 2^-9 of about one, and so does e^s.
      test::expect_near(r.out, out, 0x1p-7, 0x1p-8, "out");
      test::expect_near(r.lse, lse, 0x1p-7, 0x1p-8, "lse");
    });
  }
}

TEST(Attention, ALatentRowsBitsDependOnItsKeysAlone) {
  const Case c{{4, 1, 40, 32}, 150, 451};
  const LatentRows rows(c.S(), c.shape, 40);
  const Matrix<float> q = Matrix<float>::random(c.T, 4 * 40, 1);
  test::on_every_isa([&] {
    Result all(c);
    attention_forward(c.shape, q.view(), rows.paged(c.S()), rows.paged(c.S()), c.first, 0.2f,
                      all.out.view(), all.lse.view());
    for (const int threads : {1, 3}) {
      set_threads(threads);
      for (const Index chunk : {Index{1}, Index{37}, Index{64}})
        for (Index begin = 0; begin < c.T; begin += chunk) {
          const Index n = std::min(chunk, c.T - begin), seen = c.first + begin + n;
          Result part(Case{c.shape, n, 0});
          attention_forward(c.shape, q.view().rows(begin, n), rows.paged(seen), rows.paged(seen),
                            c.first + begin, 0.2f, part.out.view(), part.lse.view());
          for (Index t = 0; t < n; ++t)
            for (Index i = 0; i < part.out.columns; ++i)
              ASSERT_EQ(part.out(t, i), all.out(begin + t, i)) << begin + t << " by " << chunk;
        }
    }
    set_threads(available_cores());
  });
}

// Keys and values of their own for every head, in BF16: the expanded form of a prompt.
struct RoundedInputs {
  Inputs in;
  Matrix<BF16> k, v;
  explicit RoundedInputs(const Case& c) : in(c), k(in.k.as<BF16>()), v(in.v.as<BF16>()) {}
  Result forward(const Case& c, Index begin, Index n) const {
    Result r(Case{c.shape, n, 0});
    const Index seen = c.first + begin + n;
    attention_forward(c.shape, in.q.view().rows(begin, n),
                      KeyRows<BF16>::of(k.view().rows(0, seen)),
                      KeyRows<BF16>::of(v.view().rows(0, seen)), c.first + begin, scale_of(c),
                      r.out.view(), r.lse.view());
    return r;
  }
};

TEST(Attention, RowsOfEveryHeadInBf16AgreeWithTheDefinitionOnEveryForm) {
  for (const Case& c : {Case{{3, 3, 6, 7}, 2, 0}, Case{{2, 2, 96, 64}, 65, 0},
                        Case{{2, 2, 5, 3}, 70, 1}, Case{{4, 4, 192, 128}, 140, 500},
                        Case{{1, 1, 24, 12}, 130, 0}, Case{{2, 2, 20, 18}, 1, 1100}}) {
    SCOPED_TRACE(testing::Message() << "H " << c.shape.n_heads << " qk " << c.shape.qk << " T "
                                    << c.T << " first " << c.first);
    const RoundedInputs rounded(c);
    const Matrix<double> q = rounded.in.q.as<double>();
    const Matrix<double> k = rounded.k.as<float>().as<double>();
    const Matrix<double> v = rounded.v.as<float>().as<double>();
    Matrix<double> out(c.T, c.shape.n_heads * c.shape.value), lse(c.T, c.shape.n_heads);
    reference::attention_forward<double>(c.shape, q.view(), k.view(), v.view(), c.first,
                                         static_cast<double>(scale_of(c)), out.view(), lse.view());
    test::on_every_isa([&] {
      const Result r = rounded.forward(c, 0, c.T);
      test::expect_near(r.out, out, 0x1p-7, 0x1p-8, "out");
      test::expect_near(r.lse, lse, 0x1p-7, 0x1p-8, "lse");
    });
  }
}

TEST(Attention, BitsOfARowOfAHeadInBf16DependOnItsKeysAloneOnAnyThreads) {
  const Case c{{3, 3, 24, 20}, 150, 450};
  const RoundedInputs rounded(c);
  test::on_every_isa([&] {
    const Result all = rounded.forward(c, 0, c.T);
    for (const int threads : {1, 3}) {
      set_threads(threads);
      for (const Index chunk : {Index{1}, Index{37}, Index{64}})
        for (Index begin = 0; begin < c.T; begin += chunk) {
          const Index n = std::min(chunk, c.T - begin);
          const Result part = rounded.forward(c, begin, n);
          for (Index t = 0; t < n; ++t)
            for (Index i = 0; i < part.out.columns; ++i)
              ASSERT_EQ(part.out(t, i), all.out(begin + t, i)) << begin + t << " by " << chunk;
        }
    }
    set_threads(available_cores());
  });
}

// Rows in FP8 in pages that lie in falling order; what they hold, as numbers.
struct CodedRows {
  LatentRow row;
  std::vector<float> memory;  // of 4 bytes each, so that scales are aligned
  std::vector<const void*> pages;
  Matrix<double> keys, values;

  CodedRows(Index S, Index latent, Index rope)
      : row{DType::F8_E4M3, latent, rope}, keys(S, row.width()), values(S, latent) {
    // Whole tiles of small numbers, so that every kind of code occurs, subnormals too.
    Matrix<float> random = Matrix<float>::random(S, row.width(), 2);
    for (Index s = 0; s < S; ++s)
      for (Index c = 0; c < latent; c += 3) random(s, c) *= 0x1p-12f;
    const Index n_pages = (S + kKeyTile - 1) / kKeyTile;
    const std::size_t page_floats = static_cast<std::size_t>(kKeyTile) * row.bytes() / 4;
    memory.resize(static_cast<std::size_t>(n_pages) * page_floats);
    Matrix<float> stored(S, row.width());
    for (Index p = 0; p < n_pages; ++p) {
      auto* page = reinterpret_cast<std::byte*>(
          memory.data() + static_cast<std::size_t>(n_pages - 1 - p) * page_floats);
      const Index begin = p * kKeyTile, n = std::min(kKeyTile, S - begin);
      store_latent_rows(row, random.view().rows(begin, n), page);
      load_latent_rows(row, page, stored.view().rows(begin, n));
      pages.push_back(page);
    }
    for (Index s = 0; s < S; ++s)
      for (Index d = 0; d < row.width(); ++d) {
        keys(s, d) = stored(s, d);
        if (d < latent) values(s, d) = stored(s, d);
      }
  }
  Fp8LatentRows first(Index n) const { return {row, pages, n}; }
};

// value = C and qk = C + R: ragged last tiles, one number, an odd latent, the report's sizes.
const Case kCodedCases[] = {
    {{5, 1, 40, 32}, 3, 700},     {{1, 1, 3, 1}, 1, 0},      {{16, 1, 140, 129}, 9, 127},
    {{8, 1, 49, 33}, 2, 63},      {{130, 1, 20, 16}, 2, 30}, {{3, 1, 300, 290}, 65, 1},
    {{16, 1, 576, 512}, 1, 1100},
};

TEST(Attention, RowsInFp8AgreeWithTheDefinitionOnEveryForm) {
  for (const Case& c : kCodedCases) {
    SCOPED_TRACE(testing::Message() << "H " << c.shape.n_heads << " C " << c.shape.value);
    const CodedRows rows(c.S(), c.shape.value, c.shape.qk - c.shape.value);
    const Matrix<float> q = Matrix<float>::random(c.T, c.shape.n_heads * c.shape.qk, 1);
    const Matrix<double> q64 = q.as<double>();
    Matrix<double> out(c.T, c.shape.n_heads * c.shape.value), lse(c.T, c.shape.n_heads);
    const double scale = static_cast<double>(scale_of(c));
    reference::attention_forward<double>(c.shape, q64.view(), rows.keys.view(), rows.values.view(),
                                         c.first, scale, out.view(), lse.view());
    test::on_every_isa([&] {
      Result r(c);
      attention_forward(c.shape, q.view(), rows.first(c.S()), c.first, scale, r.out.view(),
                        r.lse.view());
      // In FP32 the codes are exact; with BF16 products queries, probabilities, and rows are
      // rounded, 2^-9 each.
      const bool rounded = attention_kernels().pairs != nullptr && c.shape.qk % 2 == 0;
      test::expect_near(r.out, out, rounded ? 0x1p-6 : 4e-6, rounded ? 0x1p-7 : 1e-6, "out");
      test::expect_near(r.lse, lse, rounded ? 0x1p-6 : 4e-6, rounded ? 0x1p-7 : 1e-6, "lse");
    });
  }
}

TEST(Attention, TheBitsOfARowInFp8DependOnItsKeysAloneOnAnyThreads) {
  const Case c{{4, 1, 140, 130}, 150, 451};
  const CodedRows rows(c.S(), 130, 10);
  const Matrix<float> q = Matrix<float>::random(c.T, 4 * 140, 1);
  test::on_every_isa([&] {
    Result all(c);
    attention_forward(c.shape, q.view(), rows.first(c.S()), c.first, 0.2f, all.out.view(),
                      all.lse.view());
    for (const int threads : {1, 3}) {
      set_threads(threads);
      for (const Index chunk : {Index{1}, Index{37}, Index{64}})
        for (Index begin = 0; begin < c.T; begin += chunk) {
          const Index n = std::min(chunk, c.T - begin);
          Result part(Case{c.shape, n, 0});
          attention_forward(c.shape, q.view().rows(begin, n), rows.first(c.first + begin + n),
                            c.first + begin, 0.2f, part.out.view(), part.lse.view());
          for (Index t = 0; t < n; ++t)
            for (Index i = 0; i < part.out.columns; ++i)
              ASSERT_EQ(part.out(t, i), all.out(begin + t, i)) << begin + t << " by " << chunk;
        }
    }
    set_threads(available_cores());
  });
}

// Rows in FP8 are multiplied as rows in BF16 that hold the same numbers: nothing but the rounding
// of code * scale, once, stands between them.
TEST(Attention, RowsInFp8GiveTheBitsOfTheSameNumbersInOtherRows) {
  const Case c{{6, 1, 96, 80}, 2, 200};
  const CodedRows rows(c.S(), 80, 16);
  Matrix<float> same(c.S(), 96);
  for (Index s = 0; s < c.S(); ++s)
    for (Index d = 0; d < 96; ++d) same(s, d) = static_cast<float>(rows.keys(s, d));
  std::vector<BF16> rounded(same.data.begin(), same.data.end());
  const Matrix<float> q = Matrix<float>::random(c.T, 6 * 96, 1);
  test::on_every_isa([&] {
    Result coded(c), other(c);
    attention_forward(c.shape, q.view(), rows.first(c.S()), c.first, 0.2f, coded.out.view(),
                      coded.lse.view());
    if (attention_kernels().pairs) {
      const auto keys = KeyRows<BF16>::of(View2<const BF16>(rounded.data(), {c.S(), 96}));
      attention_forward(c.shape, q.view(), keys, keys, c.first, 0.2f, other.out.view(),
                        other.lse.view());
    } else {
      const auto keys = KeyRows<float>::of(same.view());
      attention_forward(c.shape, q.view(), keys, keys, c.first, 0.2f, other.out.view(),
                        other.lse.view());
    }
    test::expect_same_bits(coded.out, other.out);
    test::expect_same_bits(coded.lse, other.lse);
  });
}

TEST(Attention, MissingRowsAndOtherHeadCountsAreRefused) {
  const Case c{{4, 4, 8, 8}, 3, 2};
  Inputs in(c);
  Result r(c);
  EXPECT_THROW(attention_forward(c.shape, in.q.view(), KeyRows<float>::of(in.k.view().rows(0, 4)),
                                 KeyRows<float>::of(in.v.view()), 2, 1, r.out.view()),
               ShapeError);
  EXPECT_THROW(attention_forward({4, 2, 8, 8}, in.q.view(), KeyRows<float>::of(in.k.view()),
                                 KeyRows<float>::of(in.v.view()), 2, 1, r.out.view()),
               ShapeError);
  const CodedRows rows(5, 6, 2);
  Result one({{4, 1, 8, 6}, 3, 2});
  EXPECT_THROW(attention_forward({4, 1, 8, 5}, in.q.view(), rows.first(5), 2, 1, one.out.view()),
               ShapeError);
  EXPECT_THROW(attention_forward({4, 1, 8, 6}, in.q.view(), rows.first(4), 2, 1, one.out.view()),
               ShapeError);
}

}  // namespace
}  // namespace minke
