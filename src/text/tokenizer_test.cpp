#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <ctime>
#include <random>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/golden_tokenizer_test.h"
#include "text/utf8.h"

namespace minke {
namespace {

using nlohmann::json;
using test::golden;
using Ids = std::vector<std::int32_t>;

TEST(TokenizerGolden, EncodesAndDecodesEveryText) {
  const auto cases = test::read_json_lines(test::golden_tokenizer() / "cases.jsonl");
  ASSERT_FALSE(cases.empty());
  for (const json& c : cases) {
    const std::string text = c["text"];
    EXPECT_EQ(golden().encode(text), c["ids"].get<Ids>()) << c["kind"] << " " << c["text"];
    EXPECT_EQ(golden().decode(c["ids"].get<Ids>()), text);
  }
}

TEST(TokenizerGolden, DecodesAnyIdsAtOnceAndInAStream) {
  const auto cases = test::read_json_lines(test::golden_tokenizer() / "decode_cases.jsonl");
  ASSERT_FALSE(cases.empty());
  for (const json& c : cases) {
    const SkipSpecial skip = c["skip_special_tokens"] ? SkipSpecial::Yes : SkipSpecial::No;
    const Ids ids = c["ids"];
    EXPECT_EQ(golden().decode(ids, skip), c["text"]);
    StreamDecoder decoder(golden(), skip);
    std::string streamed;
    for (const std::int32_t id : ids) {
      const std::string part = decoder.push(id);
      EXPECT_EQ(find_invalid_utf8(part), kValidUtf8);
      streamed += part;
    }
    EXPECT_EQ(streamed + decoder.flush(), c["text"]);
  }
}

TEST(TokenizerGolden, KnowsItsTokens) {
  const Tokenizer& t = golden();
  EXPECT_EQ(t.vocab_size(), 128815);
  EXPECT_EQ(t.bos_id(), 0);
  EXPECT_EQ(t.eos_id(), 1);
  EXPECT_TRUE(t.add_bos_token());
  EXPECT_EQ(t.token_to_id("<｜User｜>"), 128803);
  EXPECT_EQ(t.token_to_id("no such token"), std::nullopt);
  EXPECT_TRUE(t.is_special(0));
  EXPECT_TRUE(t.is_special(128805));
  EXPECT_FALSE(t.is_special(128803));
  EXPECT_FALSE(t.is_special(-1));
  EXPECT_FALSE(t.is_special(1 << 30));
  EXPECT_EQ(t.token_bytes(128803), "<｜User｜>");
  EXPECT_EQ(t.token_bytes(-5), "");
  EXPECT_EQ(t.decode(Ids{-1, 128815, 1 << 30}), "");
}

TEST(TokenizerGolden, RandomTextsComeBack) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (int i = random() % 60; i > 0; --i) {
      std::uint32_t code = random() >> (random() % 28 + 4);
      if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) code = ' ';
      append_utf8(text, code);
    }
    const Ids ids = golden().encode(text);
    EXPECT_EQ(golden().decode(ids), text);
    StreamDecoder decoder(golden());
    std::string streamed;
    for (const std::int32_t id : ids) streamed += decoder.push(id);
    EXPECT_EQ(streamed + decoder.flush(), text);
  }
}

TEST(TokenizerGolden, RandomIdsStreamAsTheyDecode) {
  std::mt19937 random(8);
  for (int round = 0; round < 300; ++round) {
    Ids ids(random() % 20);
    for (std::int32_t& id : ids) id = static_cast<std::int32_t>(random() % 400);
    StreamDecoder decoder(golden());
    std::string streamed;
    for (const std::int32_t id : ids) streamed += decoder.push(id);
    EXPECT_EQ(streamed + decoder.flush(), golden().decode(ids));
  }
}

TEST(TokenizerGolden, RecognisesAddedTokensOnlyWhereAllowed) {
  const std::string user = "<｜User｜>";
  EXPECT_EQ(golden().encode(user), Ids{128803});
  const Ids plain = golden().encode(user, SpecialTokens::Ignore);
  EXPECT_GT(plain.size(), 1u);
  EXPECT_EQ(golden().decode(plain), user);

  const std::vector<TextSegment> segments = {
      {user, SpecialTokens::Recognise},
      {"say <｜end▁of▁sentence｜> an", SpecialTokens::Ignore},
      {"d more<｜Assis", SpecialTokens::Recognise},
      {"tant｜>", SpecialTokens::Recognise}};
  Ids expected = {128803};
  for (const std::int32_t id :
       golden().encode("say <｜end▁of▁sentence｜> and more<｜Assistant｜>", SpecialTokens::Ignore))
    expected.push_back(id);
  EXPECT_EQ(golden().encode(segments), expected);
}

TEST(TokenizerGolden, RefusesWhatIsNotUtf8) {
  for (const auto& [text, offset] :
       {std::pair<std::string, std::string>{"ab\xFF", "byte 2 is 0xFF"},
        {"\xE4\xBD", "byte 0 is 0xE4"},
        {"a\xED\xA0\x80", "byte 1 is 0xED"},
        {"\xC0\x80", "byte 0 is 0xC0"},
        {"\xF4\x90\x80\x80", "byte 0 is 0xF4"}}) {
    try {
      golden().encode(text);
      FAIL() << offset;
    } catch (const FormatError& e) {
      EXPECT_NE(std::string(e.what()).find(offset), std::string::npos) << e.what();
    }
  }
}

double seconds_to_encode(const std::string& text) {
  double best = 1e9;
  for (int i = 0; i < 2; ++i) {
    const std::clock_t begin = std::clock();  // of the processor: others may be busy, too
    const Ids ids = golden().encode(text);
    best = std::min(best, static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
    EXPECT_FALSE(ids.empty());
  }
  return best;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::size_t kTimedBytes = 1 << 17;  // sanitizers make everything ten times as slow
#else
constexpr std::size_t kTimedBytes = 1 << 20;
#endif

// One long piece, or very many short ones, must cost time in proportion to their bytes.
TEST(TokenizerTimed, IsLinearWhateverTheText) {
  std::mt19937 random(3);
  std::string letters, marks;
  for (int i = 0; i < static_cast<int>(kTimedBytes); ++i) {
    letters += static_cast<char>('a' + random() % 26);
    marks += "!?.,;:-+*/"[random() % 10];
  }
  const auto repeat = [](std::string_view part, std::size_t bytes) {
    std::string out;
    while (out.size() < bytes) out += part;
    return out;
  };
  const std::size_t large = kTimedBytes;
  const std::vector<std::string> texts = {repeat("a", large),
                                          repeat(" ", large),
                                          repeat("\n", large),
                                          repeat("7", large),
                                          repeat("!", large),
                                          repeat("的", large),
                                          repeat(" \n", large),
                                          repeat("\xCC\x81", large),
                                          repeat("\x01", large),
                                          repeat("😀", large),
                                          repeat("<｜place▁holder▁no▁", large),
                                          repeat("<｜User｜>", large),
                                          repeat("<", large),
                                          repeat("ab ", large),
                                          letters,
                                          marks};
  (void)golden();
  for (const std::string& text : texts) {
    const std::string quarter = text.substr(0, text.size() / 48 * 12);  // whole code points
    const double small = seconds_to_encode(quarter);
    const double whole = seconds_to_encode(text);
    EXPECT_LT(whole, 2.0) << text.substr(0, 12);
    EXPECT_LT(whole, 12 * small + 0.2) << text.substr(0, 12);
  }
}

// A tokenizer of 256 bytes, some merges and an added token.
json small_tokenizer() {
  json vocab;
  for (int b = 0; b < 256; ++b) {
    const char c = static_cast<char>(b);
    vocab[to_stand_ins({&c, 1})] = b;
  }
  int id = 256;
  for (const char* piece : {"ab", "bc", "abc", "Ġa"}) vocab[piece] = id++;
  return {
      {"version", "1.0"},
      {"added_tokens", json::array({{{"id", 260}, {"content", "<s>"}, {"special", true}},
                                    {{"id", 261}, {"content", "<s><s>"}}})},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model",
       {{"type", "BPE"},
        {"vocab", vocab},
        {"merges", {"b c", "a b", json::array({"ab", "c"}), "Ġ a"}}}}};
}

Tokenizer load_json(const std::string& tokenizer, const std::string& config = "{}") {
  test::TemporaryDirectory dir;
  dir.write("tokenizer.json", tokenizer);
  dir.write("tokenizer_config.json", config);
  return Tokenizer::load(dir.path());
}

TEST(Tokenizer, MergesByRankNotByLength) {
  const Tokenizer t = load_json(small_tokenizer().dump());
  EXPECT_EQ(t.encode("abc"), (Ids{*t.token_to_id("a"), 257}));
  EXPECT_EQ(t.encode("ab"), Ids{256});
  EXPECT_EQ(t.encode("b ax"), (Ids{*t.token_to_id("b"), 259, *t.token_to_id("x")}));
  EXPECT_EQ(t.encode(" ab"), (Ids{*t.token_to_id("Ġ"), 256}));
  EXPECT_EQ(t.encode("<s><s><s>"), (Ids{261, 260}));
  EXPECT_EQ(t.encode(""), Ids{});
  json whole = small_tokenizer();
  whole["model"]["ignore_merges"] = true;
  EXPECT_EQ(load_json(whole.dump()).encode("abc"), Ids{258});
}

// A long piece takes the heap, a short one does not: both must agree with the definition.
TEST(Tokenizer, ShortAndLongPiecesFollowTheDefinition) {
  std::mt19937 random(5);
  json j = small_tokenizer();
  std::vector<std::string> pieces = {"a", "b", "c", "d"};
  std::vector<std::pair<std::string, std::string>> merges;
  json& vocab = j["model"]["vocab"];
  j["model"]["merges"] = json::array();
  j["added_tokens"] = json::array();
  for (int id = 260; merges.size() < 120;) {
    const std::string left = pieces[random() % pieces.size()],
                      right = pieces[random() % pieces.size()];
    if (left.size() + right.size() > 9) continue;
    if (std::find(merges.begin(), merges.end(), std::pair(left, right)) != merges.end()) continue;
    merges.emplace_back(left, right);
    j["model"]["merges"].push_back(left + " " + right);
    if (!vocab.contains(left + right)) {
      vocab[left + right] = id++;
      pieces.push_back(left + right);
    }
  }
  const Tokenizer t = load_json(j.dump());
  for (int round = 0; round < 200; ++round) {
    std::string text(random() % 100, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 4);
    std::vector<std::string> parts;
    for (const char c : text) parts.emplace_back(1, c);
    for (;;) {
      std::size_t best = merges.size(), at = 0;
      for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
        const auto m = std::find(merges.begin(), merges.end(), std::pair(parts[i], parts[i + 1]));
        const std::size_t rank = m - merges.begin();
        if (rank < best) best = rank, at = i;
      }
      if (best == merges.size()) break;
      parts[at] += parts[at + 1];
      parts.erase(parts.begin() + at + 1);
    }
    Ids expected;
    for (const std::string& part : parts) expected.push_back(*t.token_to_id(part));
    EXPECT_EQ(t.encode(text), expected) << text;
  }
}

void expect_refused(const std::string& tokenizer, const std::string& fragment,
                    const std::string& config = "{}") {
  try {
    load_json(tokenizer, config);
    FAIL() << "accepted; expected: " << fragment;
  } catch (const FormatError& e) {
    const std::string message = e.what();
    EXPECT_NE(message.find(fragment), std::string::npos) << message;
    EXPECT_NE(message.find("tokenizer"), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST(Tokenizer, IdsMayHaveHolesButNotTakeAllMemory) {
  json j = small_tokenizer();
  j["model"]["vocab"]["abc"] = 60000;
  EXPECT_EQ(load_json(j.dump()).vocab_size(), 60001);
  j["model"]["vocab"]["abc"] = 16000000;
  expect_refused(j.dump(), "id 16000000 is out of range");
  j = small_tokenizer();
  j["added_tokens"][0]["id"] = 16000000;
  expect_refused(j.dump(), "added_tokens[0].id: id 16000000 is out of range");
}

TEST(Tokenizer, RefusesBrokenFilesByField) {
  const auto with = [](const char* pointer, json value) {
    json j = small_tokenizer();
    j[json::json_pointer(pointer)] = std::move(value);
    return j.dump();
  };
  const auto without = [](const char* parent, const char* key) {
    json j = small_tokenizer();
    j[json::json_pointer(parent)].erase(key);
    return j.dump();
  };
  const std::string good = small_tokenizer().dump();
  expect_refused(good.substr(0, good.size() / 2), "is not JSON");
  expect_refused("", "is not JSON");
  expect_refused("[1]", "expected a JSON object");
  expect_refused(without("", "model"), "model: expected an object");
  expect_refused(without("/model", "merges"), "model.merges: is missing");
  expect_refused(with("/model/merges", json::array()), "model.merges: is empty");
  expect_refused(with("/model/merges", 3), "model.merges");
  expect_refused(with("/model/merges/1", "a zz"), "model.merges[1]: piece 'zz' is not in");
  expect_refused(with("/model/merges/1", "ab"), "model.merges[1]");
  expect_refused(with("/model/merges/1", json::array({"a"})), "model.merges[1]");
  expect_refused(without("/model", "vocab"), "model.vocab: expected an object");
  expect_refused(with("/model/vocab/ab", 3), "already that of");
  expect_refused(with("/model/vocab/ab", -1), "out of range");
  expect_refused(with("/model/vocab/ab", 4294967296), "out of range");
  expect_refused(with("/model/vocab/ab", "7"), "expected an integer id");
  expect_refused(with("/model/vocab/ab", 1.5), "expected an integer id");
  expect_refused(without("/model/vocab", "z"), "no piece for byte 0x7A");
  expect_refused(with("/model/type", "Unigram"), "model.type");
  expect_refused(with("/model/byte_fallback", true), "model.byte_fallback");
  expect_refused(with("/model/dropout", 0.1), "model.dropout");
  expect_refused(with("/model/continuing_subword_prefix", "##"), "model.continuing_subword_prefix");
  expect_refused(with("/model/end_of_word_suffix", "</w>"), "model.end_of_word_suffix");
  expect_refused(with("/normalizer", {{"type", "NFC"}}), "normalizer");
  expect_refused(with("/truncation", {{"max_length", 5}}), "truncation");
  expect_refused(with("/decoder", nullptr), "decoder");
  expect_refused(with("/post_processor", {{"type", "BertProcessing"}}), "post_processor");
  expect_refused(with("/pre_tokenizer", nullptr), "pre_tokenizer");
  expect_refused(with("/pre_tokenizer", {{"type", "Metaspace"}}), "'Metaspace'");
  expect_refused(with("/pre_tokenizer/add_prefix_space", true), "add_prefix_space");
  expect_refused(with("/added_tokens", 1), "added_tokens: expected an array");
  expect_refused(with("/added_tokens/0/id", 3), "is both");
  expect_refused(with("/added_tokens/0/id", "0"), "added_tokens[0].id");
  expect_refused(with("/added_tokens/0/content", ""), "added_tokens[0].content");
  expect_refused(with("/added_tokens/0/content", "ab"), "two ids");
  expect_refused(with("/added_tokens/0/lstrip", true), "added_tokens[0].lstrip");
  expect_refused(with("/added_tokens/0/single_word", 1), "added_tokens[0].single_word");
  expect_refused(good, "bos_token is '<bos>'", R"({"bos_token": "<bos>"})");
  expect_refused(good, "bos_token: expected", R"({"bos_token": 3})");
  expect_refused(good, "add_bos_token", R"({"add_bos_token": 1})");
  expect_refused(good, "not valid JSON", R"({"bos_tok)");
}

// Damaged files are refused or, where the damage makes another tokenizer, loaded; nothing else.
TEST(Tokenizer, SurvivesDamage) {
  std::mt19937 random(6);
  const std::string good = small_tokenizer().dump();
  const std::string_view parts = "{}[],:\"0-1etfn\\";
  for (int round = 0; round < 1000; ++round) {
    std::string text = good;
    for (int n = random() % 3; n >= 0; --n) {
      // Most of the file is vocabulary; half of the damage goes to the rest.
      const std::size_t at = random() % 2 ? random() % text.size() : random() % 400;
      if (random() % 2)
        text[at] = parts[random() % parts.size()];
      else
        text.erase(at, 1 + random() % 4);
    }
    try {
      const Tokenizer t = load_json(text);
      EXPECT_EQ(t.decode(t.encode("abc é 12")).empty(), false);
    } catch (const FormatError& e) {
      EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    }
  }
}

TEST(Tokenizer, LoadNamesTheMissingFile) {
  test::TemporaryDirectory dir;
  try {
    Tokenizer::load(dir.path());
    FAIL();
  } catch (const IoError& e) {
    EXPECT_NE(std::string(e.what()).find("tokenizer.json"), std::string::npos);
  }
}

TEST(Tokenizer, ConfigIsOptional) {
  test::TemporaryDirectory dir;
  dir.write("tokenizer.json", small_tokenizer().dump());
  const Tokenizer t = Tokenizer::load(dir.path());
  EXPECT_EQ(t.bos_id(), std::nullopt);
  EXPECT_FALSE(t.add_bos_token());
  EXPECT_EQ(load_json(small_tokenizer().dump(), R"({"eos_token": {"content": "<s>"}})").eos_id(),
            260);
}

}  // namespace
}  // namespace minke
