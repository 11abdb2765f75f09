#include "text/token_trie.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "text/byte_level.h"
#include "text/golden_tokenizer_test.h"
#include "text/grammar_walk_test.h"
#include "text/json_schema.h"

namespace minke {
namespace {

// All bytes, and pieces that begin, end, cross and split the parts of JSON.
const Tokenizer& small() {
  static const Tokenizer tokenizer = [] {
    TokenizerParts parts;
    for (int b = 0; b < 256; ++b) {
      const char c = static_cast<char>(b);
      parts.vocab.push_back(to_stand_ins({&c, 1}));
    }
    for (const char* piece :
         {"{\"",  "\":",   "\": ", "\",",      "\", \"", "\"}",   "}}",   "]}",
          "true", "12",    "é",    "\xE4\xB8", "\\n",    "\\u00", "ab",   "abc",
          "a\"",  "aé\"}", "{}",   "[[",       "1,",     "0}",    "\n  ", "0.5e"})
      parts.vocab.push_back(to_stand_ins(piece));
    const auto added = static_cast<std::int32_t>(parts.vocab.size());
    parts.vocab.push_back("<end>");
    parts.added_tokens.push_back({.id = added, .content = "<end>", .special = true});
    return Tokenizer(std::move(parts));
  }();
  return tokenizer;
}

// By the definition: reads every token from the state.
void expect_readable(const TokenTrie& trie, const GrammarState& state) {
  TokenSet found(trie.n_tokens());
  trie.add_readable(state, found);
  for (std::int32_t id = 0; id < trie.n_tokens(); ++id) {
    GrammarState copy = state;
    const bool readable = !trie.bytes(id).empty() && test::reads(copy, trie.bytes(id));
    ASSERT_EQ(found.contains(id), readable) << id << " \"" << trie.bytes(id) << "\"";
  }
}

std::vector<std::shared_ptr<const Grammar>> grammars() {
  std::vector<std::shared_ptr<const Grammar>> out = {json_object_grammar()};
  for (const char* schema :
       {R"({"properties":{"a":{"type":"string","maxLength":4},"ab":{"pattern":"^a*b?$"},
            "n":{"minimum":0.5,"maximum":120}},"additionalProperties":{"enum":[1,12,"ab"]}})",
        R"({"type":"array","items":{"anyOf":[{"type":"string","minLength":2},{"type":"string",
            "maxLength":3},{"type":"integer"},{"type":"array"}]},"minItems":2})",
        R"({"type":["number","null"]})", R"({"type":"string"})"})
    out.push_back(json_schema_grammar(nlohmann::ordered_json::parse(schema), "schema"));
  return out;
}

TEST(TokenTrie, FindsWhatReadingEveryTokenFinds) {
  const TokenTrie trie(small());
  std::mt19937 random(2);
  for (const auto& grammar : grammars())
    for (int i = 0; i < 12; ++i)
      test::random_text(grammar, random, 60,
                        [&](const GrammarState& state) { expect_readable(trie, state); });
}

TEST(TokenTrieGolden, FindsWhatReadingEveryTokenFinds) {
  const TokenTrie trie(test::golden());
  std::mt19937 random(4);
  int visited = 0;
  for (const auto& grammar : grammars())
    test::random_text(grammar, random, 40, [&](const GrammarState& state) {
      if (++visited % 8 == 1) expect_readable(trie, state);
    });
}

// Requests of several connections are built and masked beside each other.
TEST(TokenTrieThreads, ShareOneTree) {
  const TokenTrie trie(small());
  const auto grammar = json_object_grammar();
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 4; ++seed)
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      for (const auto& own : {grammar, json_object_grammar()})
        test::random_text(own, random, 80, [&](const GrammarState& state) {
          TokenSet allowed(trie.n_tokens());
          trie.add_readable(state, allowed);
        });
    });
  for (std::thread& thread : threads) thread.join();
}

TEST(TokenTrie, AddedTokensAndPaddingAreMasked) {
  const TokenTrie trie(small());
  const std::int32_t end = *small().token_to_id("<end>");
  EXPECT_EQ(trie.bytes(end), "");
  EXPECT_EQ(trie.bytes(-1), "");
  EXPECT_EQ(trie.bytes(trie.n_tokens()), "");
  GrammarState state(json_object_grammar());
  ASSERT_TRUE(test::reads(state, "{\""));
  TokenSet allowed(trie.n_tokens() + 70);
  trie.add_readable(state, allowed);
  std::vector<float> logits(static_cast<std::size_t>(trie.n_tokens()) + 100, 1.0f);
  allowed.mask(logits);
  EXPECT_EQ(logits['a'], 1.0f);
  EXPECT_LT(logits['\n'], 0.0f);
  EXPECT_LT(logits[static_cast<std::size_t>(end)], 0.0f);
  for (std::size_t i = static_cast<std::size_t>(trie.n_tokens()); i < logits.size(); ++i)
    EXPECT_LT(logits[i], 0.0f);
}

TEST(TokenSet, HoldsItsRangeOnly) {
  TokenSet set(65);
  for (const std::int32_t id : {-1, 0, 64, 65, 1000}) set.add(id);
  EXPECT_TRUE(set.contains(0) && set.contains(64));
  EXPECT_FALSE(set.contains(-1) || set.contains(65) || set.contains(1));
  TokenSet smaller(3);
  smaller.add(1);
  set.add_all(smaller);
  smaller.add_all(set);
  EXPECT_TRUE(set.contains(1) && smaller.contains(0));
  set.remove(0);
  EXPECT_FALSE(set.contains(0));
}

// Tokens drawn from those that may come, as a sampler at high temperature does.
TEST(TokenTrieGolden, RandomTokensGiveWholeTexts) {
  const TokenTrie trie(test::golden());
  const auto closing = [&](const char* text) { return *test::golden().token_to_id(text); };
  const std::vector<std::int32_t> closers = {closing("\""), closing("}"), closing("]")};
  std::mt19937 random(8);
  int ended = 0;
  for (int round = 0; round < 40; ++round) {
    GrammarState state(json_object_grammar());
    std::string text;
    for (int n = 0; n < 400 && !state.complete(); ++n) {
      TokenSet allowed(trie.n_tokens());
      trie.add_readable(state, allowed);
      std::vector<std::int32_t> ids;
      for (std::int32_t id = 0; id < trie.n_tokens(); ++id)
        if (allowed.contains(id)) ids.push_back(id);
      ASSERT_FALSE(ids.empty()) << text;
      std::int32_t next = ids[random() % ids.size()];
      for (const std::int32_t closer : closers)
        if (n > 10 && allowed.contains(closer) && random() % 2) next = closer;
      text += trie.bytes(next);
      ASSERT_TRUE(test::reads(state, trie.bytes(next))) << text;
    }
    if (!state.complete()) continue;
    ++ended;
    EXPECT_TRUE(nlohmann::json::accept(text)) << text;
  }
  EXPECT_GT(ended, 30);
}

// The published vocabulary: a mask must cost little beside a step of the model. Prints the figures.
TEST(TokenTrieTimed, MasksAreQuick) {
  const auto now = [] { return std::chrono::steady_clock::now(); };
  const auto begin = now();
  const TokenTrie trie(test::golden());
  const std::chrono::duration<double, std::milli> built = now() - begin;
  std::printf("tree of %d tokens: %.0f ms\n", trie.n_tokens(), built.count());
  const auto patterns = json_schema_grammar(
      nlohmann::ordered_json::parse(
          R"({"properties":{"p":{"pattern":"a"},"s":{"type":"string","maxLength":9},
              "c":{"anyOf":[{"type":"string","minLength":2},{"type":"string","maxLength":3}]}}})"),
      "schema");
  std::vector<float> logits(129'280);
  for (const auto& [grammar, text] :
       std::vector<std::pair<std::shared_ptr<const Grammar>, std::string>>{
           {json_object_grammar(), ""},
           {json_object_grammar(), "{"},
           {json_object_grammar(), "{\"name"},
           {json_object_grammar(), "{\"name\":"},
           {json_object_grammar(), "{\"name\": [{\"x\": \"some text"},
           {json_object_grammar(), "{\"name\": 12"},
           {json_object_grammar(), "{\"name\": true"},
           {patterns, "{\"p\":\"x"},
           {patterns, "{\"s\":\"x"},
           {patterns, "{\"c\":\"x"}}) {
    GrammarState state(grammar);
    ASSERT_TRUE(test::reads(state, text));
    std::vector<double> took;
    for (int i = 0; i < 9; ++i) {
      const auto start = now();
      TokenSet allowed(static_cast<std::int32_t>(logits.size()));
      trie.add_readable(state, allowed);
      allowed.mask(logits);
      took.push_back(std::chrono::duration<double, std::milli>(now() - start).count());
    }
    std::sort(took.begin(), took.end());
    std::printf("%-32s %.3f ms\n", text.c_str(), took[4]);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    EXPECT_LT(took[0], 10) << text;  // ten times what was measured: the machine may be busy
#endif
  }
}

}  // namespace
}  // namespace minke
