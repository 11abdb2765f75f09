#include "infer/latent_pages.h"

#include <gtest/gtest.h>

#include <cstring>

namespace minke {
namespace {

constexpr PageLayout kLayout{{DType::F32, 5, 2}, 3};

Tensor counting(Index n, float first) {
  Tensor t = Tensor::zeros({n, kLayout.row.width()});
  for (Index i = 0; i < t.size(); ++i) t.flat()(i) = first + static_cast<float>(i) / 3;
  return t;
}

void append_all(PagedCache& cache, const Tensor& rows) {
  cache.reserve(cache.length(0) + rows.extent(0));
  for (Index layer = 0; layer < kLayout.n_layers; ++layer) cache.append(layer, rows.v2());
}

void expect_rows(const PagedCache& cache, Index layer, const Tensor& rows, Index n) {
  const Tensor back = read_rows(cache, layer, n);
  EXPECT_EQ(0, std::memcmp(back.raw(), rows.raw(), back.bytes()));
}

TEST(PagePool, CountsUsersAndWhatIsKept) {
  PagePool pool(kLayout, 3);
  const PageId a = pool.take(), b = pool.take();
  pool.use(a);
  pool.keep(b);
  EXPECT_EQ(pool.n_free(), 1);
  EXPECT_EQ(pool.n_used(), 2);
  pool.drop(a);
  EXPECT_EQ(pool.users(a), 1);
  pool.drop(a);
  EXPECT_EQ(pool.n_free(), 2);
  pool.drop(b);
  EXPECT_EQ(pool.n_kept(), 1);  // without users, and not free
  pool.use(b);
  EXPECT_EQ(pool.n_kept(), 0);
  pool.unkeep(b);
  EXPECT_EQ(pool.n_free(), 2);  // still used
  pool.drop(b);
  EXPECT_EQ(pool.n_free(), 3);
}

TEST(PagePool, KeepsAPageUntilAllForgetIt) {
  PagePool pool(kLayout, 1);
  const PageId page = pool.take();
  pool.keep(page);
  pool.keep(page);
  pool.drop(page);
  pool.unkeep(page);
  EXPECT_EQ(pool.n_kept(), 1);
  pool.unkeep(page);
  EXPECT_EQ(pool.n_free(), 1);
}

TEST(PagePool, TouchesFreePagesOnly) {
  PagePool pool(kLayout, 3);
  const PageId used = pool.take();
  const std::size_t n = pool.bytes(used).size();
  for (const PageId page : {0, 1, 2}) std::memset(pool.bytes(page).data(), 1, n);
  pool.touch(n + n / 2);  // one page, and with the next it would be more
  std::size_t n_touched = 0;
  for (const PageId page : {0, 1, 2}) n_touched += pool.bytes(page)[0] == std::byte{0};
  EXPECT_EQ(n_touched, 1u);
  pool.touch(100 * n);
  EXPECT_EQ(pool.bytes(used)[0], std::byte{1});
  EXPECT_EQ(pool.take() + pool.take() + used, 0 + 1 + 2);
}

TEST(PagePool, SaysWhenNoPageIsFreeAndUsesThemAgain) {
  PagePool pool(kLayout, 1);
  const PageId a = pool.take();
  EXPECT_THROW(pool.take(), PagesExhausted);
  pool.drop(a);
  EXPECT_EQ(pool.take(), a);
  EXPECT_THROW(PagePool(kLayout, 0), ConfigError);
}

TEST(PagedCache, CopiesAPageThatAnotherOneWritesOnIn) {
  PagePool pool(kLayout, 4);
  PagedCache first(pool), second(pool);
  const Tensor rows = counting(70, 1), more = counting(3, 500);
  append_all(first, rows);
  second.adopt(first.table().first(1));
  second.adopt_copy(first.table()[1], 69);
  append_all(first, more);
  EXPECT_EQ(second.length(0), 69);
  for (const Index layer : {0, 1}) second.count_rows(layer, 1);
  EXPECT_EQ(second.length(1), 70);
  EXPECT_EQ(second.length(2), 69);
  for (const Index layer : {0, 1}) {
    second.append(layer, counting(1, -7).v2());
    expect_rows(second, layer, rows, 70);
    expect_rows(first, layer, rows, 70);
  }
  EXPECT_EQ(pool.n_used(), 3);
  EXPECT_EQ(second.n_own(), 1);
  PagedCache third(pool);
  third.adopt(first.table().first(1));
  const PageId last = pool.take();
  EXPECT_THROW(third.adopt_copy(first.table()[1], 69), PagesExhausted);
  EXPECT_EQ(third.length(0), kKeyTile);
  pool.drop(last);
}

TEST(PagePool, LayersAndPagesDoNotOverlap) {
  PagePool pool(kLayout, 2);
  for (const PageId page : {0, 1})
    for (Index layer = 0; layer < kLayout.n_layers; ++layer) {
      auto* rows = static_cast<float*>(pool.rows(page, layer));
      std::fill_n(rows, kKeyTile * kLayout.row.width(), static_cast<float>(10 * page + layer));
    }
  for (const PageId page : {0, 1})
    for (Index layer = 0; layer < kLayout.n_layers; ++layer) {
      const auto* rows = static_cast<const float*>(pool.rows(page, layer));
      EXPECT_EQ(rows[0], static_cast<float>(10 * page + layer));
      EXPECT_EQ(rows[kKeyTile * kLayout.row.width() - 1], static_cast<float>(10 * page + layer));
    }
}

TEST(PagedCache, HoldsTheRowsOfASequenceCache) {
  for (const DType dtype : {DType::F32, DType::BF16, DType::F8_E4M3}) {
    ModelConfig config;
    config.num_hidden_layers = kLayout.n_layers;
    config.kv_lora_rank = kLayout.row.latent;
    config.qk_rope_head_dim = 2;
    PagePool pool({latent_row(config, dtype), kLayout.n_layers}, 4);
    PagedCache cache(pool);
    SequenceCache plain(config, dtype);
    const Tensor rows = counting(200, 1);
    for (Index at = 0, n = 1; at < 200; at += n, n = std::min<Index>(n + 13, 200 - at))
      for (LatentCache* c : std::initializer_list<LatentCache*>{&cache, &plain}) {
        c->reserve(at + n);
        c->append(1, rows.v2().rows(at, n));
      }
    EXPECT_EQ(cache.length(1), 200);
    EXPECT_EQ(cache.length(0), 0);
    const Tensor a = read_rows(cache, 1, 200);
    const Tensor b = read_rows(plain, 1, 200);
    EXPECT_EQ(0, std::memcmp(a.raw(), b.raw(), a.bytes()));
  }
}

TEST(PagedCache, TruncatesAndGoesOnInTheSamePages) {
  PagePool pool(kLayout, 3);
  PagedCache cache(pool);
  append_all(cache, counting(130, 0));
  cache.truncate(65);
  EXPECT_EQ(cache.table().size(), 3u);
  append_all(cache, counting(2, 1000));
  const Tensor back = read_rows(cache, 2, 67);
  EXPECT_EQ(back.v2()(64, 0), counting(130, 0).v2()(64, 0));
  EXPECT_EQ(back.v2()(65, 0), 1000);
}

TEST(PagedCache, ARestartedLayerHasItsOwnFirstRow) {
  PagePool pool(kLayout, 8);
  PagedCache cache(pool);
  const Tensor rows = counting(150, 3);
  append_all(cache, rows);
  cache.restart(2, 150);
  EXPECT_EQ(cache.length(2), 0);
  EXPECT_EQ(cache.end(2), 150);
  const Tensor more = counting(60, 900);
  append_all(cache, more);
  EXPECT_EQ(cache.length(0), 210);
  EXPECT_EQ(cache.length(2), 60);
  expect_rows(cache, 0, rows, 150);
  expect_rows(cache, 2, more, 60);
  cache.truncate(170);
  EXPECT_EQ(cache.length(2), 20);
  EXPECT_EQ(cache.end(2), 170);
  EXPECT_EQ(cache.fork(160).length(2), 0);
  cache.truncate(10);
  EXPECT_EQ(cache.length(2), 0);
  cache.clear();
  EXPECT_EQ(cache.origin(2), 0);
}

TEST(PagedCache, AForkSharesWholePagesAndCopiesTheRest) {
  PagePool pool(kLayout, 5);
  PagedCache parent(pool);
  const Tensor rows = counting(150, 3);
  append_all(parent, rows);
  PagedCache child = parent.fork(140);
  EXPECT_EQ(pool.n_used(), 4);  // two shared, two last ones
  EXPECT_EQ(parent.n_own(), 1);
  EXPECT_EQ(child.length(0), 140);
  append_all(child, counting(20, 900));
  expect_rows(parent, 0, rows, 150);
  expect_rows(child, 1, rows, 140);
  EXPECT_EQ(read_rows(child, 1, 141).v2()(140, 0), 900);
  parent.clear();
  expect_rows(child, 1, rows, 140);
  EXPECT_EQ(parent.length(0), 0);

  PagedCache whole = child.fork(128);  // nothing to copy
  EXPECT_EQ(whole.n_own(), 0);
}

TEST(PagedCache, GivesItsPagesBackWhateverHappens) {
  PagePool pool(kLayout, 3);
  {
    PagedCache a(pool);
    append_all(a, counting(100, 0));
    PagedCache b(pool);
    EXPECT_THROW(b.reserve(65), PagesExhausted);
    EXPECT_EQ(b.table().size(), 1u);
    EXPECT_THROW(a.fork(70), PagesExhausted);
    PagedCache moved(std::move(a));
    expect_rows(moved, 0, counting(100, 0), 100);
  }
  EXPECT_EQ(pool.n_free(), 3);
}

}  // namespace
}  // namespace minke
