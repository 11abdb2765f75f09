#include "train/training_data.h"

#include <nlohmann/json.hpp>

#include "base/test_directory.h"
#include "data/shard_build.h"
#include "text/bpe_trainer.h"
#include "text/tokenizer.h"

namespace minke {
namespace {

std::string line_of(const std::string& source, int number) {
  std::string text;
  for (int i = 0; i < 40; ++i) text += "word" + std::to_string(100 * number + i) + " ";
  return nlohmann::json{{"text", text}, {"source", source}}.dump() + "\n";
}

// Text that needs no cleaning, as it is and as shards.
struct TrainingText : TestDirectory {
  TrainingText() {
    std::string lines;
    for (int i = 0; i < 30; ++i) lines += line_of(i % 3 ? "long" : "short", i);
    put(dir / "text.jsonl", lines);
    const std::string_view texts[] = {lines};
    write_tokenizer(dir / "tokenizer", train_bpe(texts, {.vocab_size = least_vocab_size() + 50}));
    ShardBuild build;
    build.in = {(dir / "text.jsonl").string()};
    build.tokenizer = (dir / "tokenizer").string();
    build.out = (dir / "shards").string();
    build.settings.held_out_fraction = 0.1;
    build_shards(build, [] { return false; });
    tokenizer = Tokenizer::load(dir / "tokenizer");
  }

  Recipe recipe(const std::string& paths) const {
    Recipe r;
    r.data.paths = {(dir / paths).string()};
    r.data.tokenizer = (dir / "tokenizer").string();
    r.data.held_out_fraction = 0.1;
    r.data.sequence_length = 16;
    return r;
  }

  std::optional<Tokenizer> tokenizer;
};

TEST_F(TrainingText, ShardsGiveTheRowsOfTheText) {
  Recipe text = recipe("text.jsonl"), shards = recipe("shards");
  for (const bool changed : {false, true}) {
    if (changed) {
      for (Recipe* r : {&text, &shards}) {
        r->data.mixture = {"long=1", "short=1"};
        r->data.fim_rate = 0.5;
      }
    }
    const TrainingData a = load_training_data(text, *tokenizer);
    const TrainingData b = load_training_data(shards, *tokenizer);
    BatchSource rows_a = a.batches(text), rows_b = b.batches(shards);
    for (int i = 0; i < 40; ++i) ASSERT_EQ(rows_a.next(3), rows_b.next(3)) << i;
    EXPECT_EQ(a.held_out_tokens, b.held_out_tokens);
    ASSERT_EQ(a.held_out.size(), 2u);
    ASSERT_EQ(b.held_out.size(), 2u);
    for (const HeldOutRows& rows : a.held_out) {  // sources may come in another order
      const HeldOutRows& same = b.held_out[rows.source == b.held_out[0].source ? 0 : 1];
      EXPECT_EQ(rows.source, same.source);
      EXPECT_EQ(rows.tokens, same.tokens);
      EXPECT_EQ(rows.bytes_per_token, same.bytes_per_token);
    }
  }
}

TEST_F(TrainingText, WhatDoesNotFitIsRefused) {
  Recipe both = recipe("text.jsonl");
  both.data.paths.push_back((dir / "shards").string());
  EXPECT_HOLDS(error_of([&] { load_training_data(both, *tokenizer); }), "of all of them");
  Recipe mixture = recipe("shards");
  mixture.data.mixture = {"long=1"};
  EXPECT_HOLDS(error_of([&] { load_training_data(mixture, *tokenizer); }), "'short' has no weight");
}

}  // namespace
}  // namespace minke
