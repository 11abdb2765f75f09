#include "infer/prefix_store.h"

#include <algorithm>

#include "base/files.h"
#include "base/log.h"
#include "base/test_directory.h"
#include "infer/test_bench.h"

namespace minke {
namespace {

namespace fs = std::filesystem;

struct PrefixStoreTest : TestDirectory {
  const Model& model = []() -> const Model& {
    static const Model m = small_engine_model(Compute::Fp32);
    return m;
  }();
  const Ids prompt = random_prompt(200, 61, 1);
  const PageLayout layout{latent_row(model.config, DType::F32), model.config.num_hidden_layers + 1};

  BatchSettings settings() const { return {.max_batch = 4, .prefix_dir = dir.string()}; }
  // Generates after `text` and says how many of its tokens were there already.
  std::pair<Ids, Index> run(const Model& m, const Ids& text, bool save = true) {
    TestBench bench(m, settings());
    const auto sink = bench.add(request_of(text, 6));
    bench.run();
    if (save) bench.loop.save_prefixes();
    return {sink->ids(), sink->usage->cached_tokens};
  }
  std::vector<fs::path> files() const {
    std::vector<fs::path> all;
    for (const auto& entry : fs::recursive_directory_iterator(dir))
      if (entry.is_regular_file()) all.push_back(entry.path());
    std::sort(all.begin(), all.end(),
              [](const auto& a, const auto& b) { return fs::file_size(a) < fs::file_size(b); });
    return all;
  }
};

TEST_F(PrefixStoreTest, BlocksAreThereAfterARestartAndGiveTheSameTokens) {
  const auto [ids, cached] = run(model, prompt);
  EXPECT_EQ(cached, 0);
  EXPECT_EQ(files().size(), 3u);
  const auto mode = fs::status(files()[0].parent_path()).permissions();
  EXPECT_EQ(mode & (fs::perms::group_all | fs::perms::others_all), fs::perms::none);
  const auto again = run(model, prompt);
  EXPECT_EQ(again.first, ids);
  EXPECT_EQ(again.second, 192);
  Ids other = prompt;
  other[70] = (other[70] + 1) % 61;
  EXPECT_EQ(run(model, other).second, 64);
  EXPECT_EQ(files().size(), 5u);
}

TEST_F(PrefixStoreTest, TornAndDamagedFilesAreIgnoredAndRemoved) {
  set_log_level(LogLevel::Silent);
  const Ids ids = run(model, prompt).first;
  const fs::path second = files()[1];
  const std::string whole = read_file(second);
  std::string flipped = whole;
  flipped[whole.size() / 2] = static_cast<char>(flipped[whole.size() / 2] ^ 1);
  for (const std::string& content : {std::string(), whole.substr(0, whole.size() - 1),
                                     whole.substr(0, 20), flipped, whole + "x"}) {
    put(second, content);
    const auto again = run(model, prompt, false);
    EXPECT_EQ(again.first, ids);
    EXPECT_EQ(again.second, 64);  // the third block hangs on the second
    EXPECT_FALSE(fs::exists(second));
  }
  set_log_level(LogLevel::Info);
}

TEST_F(PrefixStoreTest, AnotherModelOrArithmeticFindsNothing) {
  run(model, prompt);
  const Model bf16 = small_engine_model(Compute::Bf16);
  EXPECT_EQ(run(bf16, prompt).second, 0);
  ModelConfig c = small_config(1);
  c.initializer_range = 0.31;
  EXPECT_EQ(run(small_engine_model(Compute::Fp32, 1, c), prompt).second, 0);
  EXPECT_EQ(run(model, prompt).second, 192);  // all of them side by side
}

TEST_F(PrefixStoreTest, RowsInFp8AreKeptAsTheyAreAndFoundByTheirKindAlone) {
  Model fp8 = small_engine_model(Compute::Fp32);
  fp8.cache_dtype = DType::F8_E4M3;
  const Ids ids = run(fp8, prompt).first;
  const auto again = run(fp8, prompt);
  EXPECT_EQ(again.second, 192);
  EXPECT_EQ(again.first, ids);
  EXPECT_EQ(run(model, prompt).second, 0);
}

TEST_F(PrefixStoreTest, HoldsNoMoreThanTheCacheAndTheBeginningsWhereThatIsSmall) {
  run(model, prompt);
  PagePool pool(layout, 2);
  PrefixCache cache(pool);
  const PrefixStore store(dir, model, layout);
  EXPECT_EQ(store.load(cache, pool), 2);
  EXPECT_EQ(pool.n_kept(), 2);
  EXPECT_EQ(cache.find(prompt).pages.size(), 2u);
  EXPECT_TRUE(cache.find(prompt).module_rows);
  store.save(cache, pool);
  EXPECT_EQ(files().size(), 2u);
}

TEST_F(PrefixStoreTest, ADirectoryThatCannotBeMadeIsAnError) {
  put(dir / "file", "");
  EXPECT_THROW(PrefixStore(dir / "file", model, layout), IoError);
}

}  // namespace
}  // namespace minke
