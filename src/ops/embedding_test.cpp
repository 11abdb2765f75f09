#include "ops/embedding.h"

#include "ops/test_values.h"

namespace minke {
namespace {

using test::Matrix;

TEST(Embedding, TakesRowsFromEitherTable) {
  const auto table = Matrix<float>::random(7, 5, 1, 1, 2);
  const std::vector<std::int32_t> tokens{6, 0, 6, 3};
  Matrix<float> y(4, 5), z(4, 5);
  embedding_forward(table.view(), tokens, y.view());
  std::vector<BF16> narrow(35);
  for (Index i = 0; i < 35; ++i) narrow[static_cast<std::size_t>(i)] = BF16(table(i / 5, i % 5));
  embedding_forward(View2<const BF16>(narrow.data(), {7, 5}), tokens, z.view());
  for (Index t = 0; t < 4; ++t)
    for (Index d = 0; d < 5; ++d) {
      EXPECT_EQ(y(t, d), table(tokens[static_cast<std::size_t>(t)], d));
      EXPECT_EQ(z(t, d), round_to_bf16(y(t, d)));
    }
}

TEST(Embedding, GradientIsTheTransposeAndAddsInOrderOnAnyThreads) {
  const Index T = 300, V = 40, D = 9;
  const auto dy = Matrix<float>::random(T, D, 1);
  std::vector<std::int32_t> tokens;
  for (Index t = 0; t < T; ++t) tokens.push_back(static_cast<std::int32_t>(t * t % V));
  Matrix<float> expected(V, D);
  expected.fill(1);
  for (Index t = 0; t < T; ++t)
    for (Index d = 0; d < D; ++d) expected(tokens[static_cast<std::size_t>(t)], d) += dy(t, d);
  for (const int threads : {1, 2, 3}) {
    set_threads(threads);
    Matrix<float> dtable(V, D, 3);
    dtable.fill(1);
    embedding_backward_weight(dy.view(), tokens, dtable.view());
    test::expect_same_bits(dtable, expected);
  }
  set_threads(available_cores());
}

TEST(Embedding, TokensOutsideTheVocabularyAreRefused) {
  Matrix<float> table(4, 2), y(1, 2);
  for (const std::int32_t token : {-1, 4})
    EXPECT_THROW(embedding_forward(View2<const float>(table.view()), std::vector{token}, y.view()),
                 ShapeError);
}

}  // namespace
}  // namespace minke
