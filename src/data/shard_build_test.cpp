#include "data/shard_build.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "base/threads.h"
#include "data/build_directory.h"
#include "data/corpus.h"
#include "data/document_transform.h"
#include "data/held_out_text.h"
#include "data/shard_reader.h"
#include "data/test_corpus.h"
#include "data/test_files.h"
#include "text/bpe_trainer.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::string paragraph(int number) {
  std::string text;
  for (int i = 0; i < 30; ++i) text += "word" + std::to_string(number * 1000 + i) + " ";
  return text + "\n";
}

std::string json_line(const std::string& text, const std::string& source) {
  return nlohmann::json{{"text", text}, {"source", source}}.dump() + "\n";
}

struct Shards : DataFiles {
  Shards() {
    const std::string text = paragraph(1) + paragraph(2);
    const std::string_view texts[] = {text};
    write_tokenizer(dir / "tokenizer", train_bpe(texts, {.vocab_size = least_vocab_size() + 20}));
  }

  // Every kind of document, good and bad.
  void put_mixed_input() const {
    std::string lines = "\xEF\xBB\xBF";
    for (int i = 0; i < 40; ++i) lines += json_line(paragraph(i), i % 4 ? "many" : "few");
    lines += json_line(paragraph(3), "copies");
    lines += json_line(paragraph(5) + "and a little more\n", "copies");
    lines +=
        "\n{\"text\": \n[1]\n{\"other\": 1}\n{\"text\": 7}\n{\"text\": \"x\", \"source\": 1}\n";
    lines += "{\"text\": \"\xC0\xAF\"}\n";
    lines += json_line("", "empty");
    lines += json_line(std::string(3000, 'x'), "long line");
    lines += json_line("same again\nsame again\nsame again\n", "lines");
    lines += json_line("CR\r\nLF \x01 and words of its own\n", "cleaned");
    put("in/a.jsonl", lines);
    put("in/b/one.txt", "first text of b\n\fsecond text of b\n");
    put("in/b/two.md", "third\xFF text of b\n");
    put("in/c.pdf", "x");
    put("in/empty.txt", "");
  }

  ShardBuild build(const std::string& out) const {
    ShardBuild b;
    b.in = {(dir / "in").string()};
    b.tokenizer = (dir / "tokenizer").string();
    b.out = (dir / out).string();
    b.settings.on_error = "skip";
    b.settings.max_item_bytes = 2000;
    b.settings.held_out_fraction = 0.1;
    b.settings.shard_tokens = 500;
    b.batch_bytes = 1000;
    return b;
  }

  static Json run(const ShardBuild& build) {
    return build_shards(build, [] { return false; });
  }

  // Name -> content of all files of a directory.
  std::map<std::string, std::string> files(const std::string& out) const {
    std::map<std::string, std::string> all;
    for (const auto& entry : fs::directory_iterator(dir / out))
      all[entry.path().filename().string()] = read_file(entry.path());
    return all;
  }

  ShardedText open(const std::string& out) const {
    static std::vector<std::unique_ptr<Tokenizer>> kept;  // the corpus does not own it
    kept.push_back(std::make_unique<Tokenizer>(Tokenizer::load(dir / "tokenizer")));
    return open_shards({(dir / out).string()}, TextEncoder(*kept.back(), "test"),
                       (dir / "tokenizer").string());
  }
};

TEST_F(Shards, EveryDocumentIsCountedOnce) {
  put_mixed_input();
  const Json manifest = run(build("out"));
  const Json& documents = manifest["documents"];
  std::int64_t left_out = 0;
  for (const auto& [reason, count] : documents["left_out"].items())
    left_out += count.get<std::int64_t>();
  EXPECT_EQ(documents["in"].get<std::int64_t>(),
            documents["train"].get<std::int64_t>() + documents["held_out"].get<std::int64_t>() -
                documents["cut"].get<std::int64_t>() + left_out);
  EXPECT_EQ(documents["in"], 40 + 2 + 6 + 4 + 3);
  const Json& reasons = documents["left_out"];
  EXPECT_EQ(reasons["not_json"], 2);
  EXPECT_EQ(reasons["no_text_field"], 1);
  EXPECT_EQ(reasons["wrong_type"], 2);
  EXPECT_EQ(reasons["not_utf8"], 2);
  EXPECT_EQ(reasons["too_short"], 1);
  EXPECT_EQ(reasons["item_too_long"], 1);
  EXPECT_EQ(reasons["repeated_lines"], 1);
  EXPECT_EQ(reasons["exact_duplicate"], 1);
  EXPECT_EQ(reasons["near_duplicate"].get<int>() + reasons["near_held_out"].get<int>(), 1);
  EXPECT_EQ(manifest["inputs"]["left_out"]["unknown_ending"], 1);
  EXPECT_EQ(manifest["inputs"]["left_out"]["empty_file"], 1);
  EXPECT_EQ(manifest["changed"]["line_ends"], 1);
  EXPECT_EQ(manifest["changed"]["control_characters"], 1);
  // Each bad one is named.
  const std::string skipped = files("out")["skipped.jsonl"];
  EXPECT_EQ(std::count(skipped.begin(), skipped.end(), '\n'), 2 + 2 + 1 + 2 + 2 + 1);
  EXPECT_HOLDS(skipped, "\"line\":44");
}

TEST_F(Shards, TheTokensAreThoseOfTheTexts) {
  put("in/a.jsonl", json_line("one text\r\n", "s") + json_line("another text", "t"));
  ShardBuild b = build("out");
  b.settings.held_out_fraction = 0;
  run(b);
  const ShardedText text = open("out");
  const Tokenizer tokenizer = Tokenizer::load(dir / "tokenizer");
  const TextEncoder encoder(tokenizer, "test");
  ASSERT_EQ(text.train.documents.size(), 2);
  EXPECT_EQ(text.train.document_tokens(0), encoder.document("one text\n"));
  EXPECT_EQ(text.train.document_tokens(1), encoder.document("another text"));
  EXPECT_EQ(text.train.sources, (std::vector<std::string>{"s", "t"}));
  EXPECT_EQ(text.train.documents[1].source, 1);
  EXPECT_EQ(text.train.text_bytes(), 9 + 12);
  EXPECT_EQ(text.held_out.documents.size(), 0);
}

TEST_F(Shards, BytesDoNotDependOnThreadsOrBatches) {
  put_mixed_input();
  set_threads(1);
  run(build("one"));
  set_threads(4);
  ShardBuild other = build("two");
  other.batch_bytes = 100000;
  run(other);
  set_threads(available_cores());
  EXPECT_EQ(files("one"), files("two"));
  EXPECT_GT(files("one").size(), 8u) << "several shards";
}

// Ended at every batch in turn: in order, with a state, or as by a kill, without one.
TEST_F(Shards, GoesOnFromAnyInterruption) {
  put_mixed_input();
  run(build("whole"));
  const auto expected = files("whole");
  for (const bool killed : {false, true}) {
    for (const int step : {1, 3}) {
      ShardBuild b = build("cut");
      b.batch_bytes = 3000;
      b.checkpoint_seconds = killed && step % 2 ? 1e9 : 0;
      int ends = 0;
      for (bool done = false; !done; ++ends) {
        int batches = 0;
        try {
          build_shards(b, [&] {
            // Without a state nothing is gained by a kill: let it come further each time.
            if (++batches < step + (killed ? 5 * ends : 0)) return false;
            if (killed) throw std::runtime_error("killed");
            return true;
          });
          done = true;
        } catch (const Interrupted&) {
        } catch (const std::runtime_error& error) {
          ASSERT_STREQ(error.what(), "killed");
        }
      }
      EXPECT_EQ(files("cut"), expected) << step;
      EXPECT_FALSE(fs::exists(dir / "cut.partial"));
      fs::remove_all(dir / "cut");
    }
  }
}

TEST_F(Shards, BadDataIsRefusedWithFileAndLine) {
  put_mixed_input();
  ShardBuild b = build("out");
  b.settings.on_error = "refuse";
  EXPECT_HOLDS(error_of([&] { run(b); }), "c.pdf: the ending");
  fs::remove(dir / "in/c.pdf");
  fs::remove(dir / "in/empty.txt");
  EXPECT_HOLDS(error_of([&] { run(b); }), "a.jsonl: line 44: not valid JSON");
  EXPECT_HOLDS(error_of([&] { run(b); }), "--on-error skip");
  EXPECT_FALSE(fs::exists(dir / "out"));
  b.settings.on_error = "skip";
  b.settings.broken_utf8 = "refuse";
  EXPECT_HOLDS(error_of([&] { run(b); }), "(0xC0) is not UTF-8");
  b.settings.broken_utf8 = "replace";
  const Json manifest = run(b);
  EXPECT_EQ(manifest["documents"]["left_out"]["not_utf8"], 0);
  EXPECT_EQ(manifest["changed"]["broken_utf8"], 2);
}

TEST_F(Shards, AnotherRunsDirectoryIsNotTouched) {
  put_mixed_input();
  run(build("out"));
  const auto before = files("out");
  EXPECT_EQ(run(build("out"))["documents"], Json::parse(before.at("manifest.json"))["documents"]);
  ShardBuild other = build("out");
  other.settings.near_duplicates = 0.9;
  EXPECT_HOLDS(error_of([&] { run(other); }), "settings.near_duplicates is 0.9, but was 0.8");
  put("in/b/one.txt", "changed\n");
  EXPECT_HOLDS(error_of([&] { run(build("out")); }), "inputs is");
  EXPECT_EQ(files("out"), before);
  put("mine/letter.txt", "x");
  EXPECT_HOLDS(error_of([&] { run(build("mine")); }), "exists and holds no shards");
  // An unfinished one: refused, unless it is thrown away.
  EXPECT_THROW(build_shards(build("new"), [] { return true; }), Interrupted);
  other = build("new");
  other.settings.shard_tokens = 7;
  EXPECT_HOLDS(error_of([&] { run(other); }), "--restart");
  other.restart = true;
  run(other);
}

// A kill between the last file and the rename.
TEST_F(Shards, AWholeButUnnamedDirectoryIsPutInPlace) {
  put_mixed_input();
  run(build("out"));
  const auto expected = files("out");
  fs::rename(dir / "out", dir / "out.partial");
  put("out.partial/state.json", "left over");
  put("out.partial/documents", "left over");
  put("out.partial/state.json.partial-1-0", "left over");
  run(build("out"));
  EXPECT_EQ(files("out"), expected);
}

TEST_F(Shards, TwoProcessesDoNotWorkInOneDirectory) {
  put_mixed_input();
  fs::create_directories(dir / "out.partial");
  {
    const DirectoryLock other(dir / "out.partial");
    EXPECT_HOLDS(error_of([&] { run(build("out")); }), "another process makes shards there");
  }
  run(build("out"));
}

TEST_F(Shards, TheResultMustNotLieInTheInput) {
  put_mixed_input();
  EXPECT_HOLDS(error_of([&] { run(build("in/out")); }), "lies in the input");
  run(build("in-out"));  // only begins like it
}

TEST_F(Shards, NoTextIsAnError) {
  fs::create_directories(dir / "in");
  EXPECT_HOLDS(error_of([&] { run(build("out")); }), "no text in");
  EXPECT_HOLDS(error_of([&] {
                 ShardBuild b = build("out");
                 b.in = {(dir / "missing").string()};
                 run(b);
               }),
               "cannot open");
}

TEST_F(Shards, DamageIsNoticedWhenReading) {
  put_mixed_input();
  run(build("out"));
  const auto sources = open("out").train.sources;
  EXPECT_TRUE(is_shard_directory((dir / "out").string()));
  EXPECT_FALSE(is_shard_directory((dir / "in").string()));
  const std::string tokens = read_file(dir / "out/train-00000.tokens");
  const std::string index = read_file(dir / "out/train-00000.index");
  put("out/train-00000.tokens", std::string(tokens.size(), '\xFF'));
  const std::string id = error_of([&] { open("out").train.document_tokens(0); });
  EXPECT_HOLDS(id, "holds the token id 65535");
  put("out/train-00000.tokens", tokens.substr(2));
  EXPECT_HOLDS(error_of([&] { open("out"); }), "bytes, ");
  put("out/train-00000.tokens", tokens);
  put("out/train-00000.index", std::string(index.size(), '\x7F'));
  EXPECT_HOLDS(error_of([&] { open("out").train.documents[0]; }), "damaged");
  put("out/train-00000.index", index);
  EXPECT_EQ(open("out").train.sources, sources);

  std::string tokenizer = read_file(dir / "tokenizer/tokenizer.json");
  put("tokenizer/tokenizer.json", tokenizer + "\n");
  EXPECT_HOLDS(error_of([&] { open("out"); }), "was made with another tokenizer");
}

TEST_F(Shards, DialoguesAreWrittenInTheirTemplateAndStayWhole) {
  const auto dialogue = [](int i, const std::string& answer) {
    return nlohmann::json{
               {"messages",
                {{{"role", "user"}, {"content", fmt::format("say {} <\uff5cUser\uff5c>", i)}},
                 {{"role", "assistant"}, {"content", answer}}}},
               {"source", "talk"}}
               .dump() +
           "\n";
  };
  put("in/a.jsonl", dialogue(1, "one") + dialogue(2, "two") + dialogue(1, "one") +
                        R"({"messages": [{"role": 5}], "source": "talk"})"
                        "\n" +
                        R"({"messages": [], "source": "talk"})"
                        "\n");
  put("in/b.jsonl", dialogue(3, std::string(5000, 'x')));
  ShardBuild b = build("out");
  b.settings.held_out_fraction = 0;
  b.settings.on_error = "skip";
  b.settings.max_item_bytes = 10000;
  run(b);
  const Tokenizer tokenizer = Tokenizer::load(dir / "tokenizer");
  const TextEncoder encoder(tokenizer, "test");
  const ShardedText text = open("out");
  // One is an exact duplicate, two are no dialogues.
  ASSERT_EQ(text.train.documents.size(), 3);
  const auto ids = text.train.document_tokens(0);
  const auto added = std::count_if(ids.begin(), ids.end(), [&](std::int32_t id) {
    return std::any_of(tokenizer.added_tokens().begin(), tokenizer.added_tokens().end(),
                       [&](const AddedToken& token) { return token.id == id; });
  });
  EXPECT_EQ(added, 4);  // begin, User, Assistant, end: that of the message is text
  EXPECT_EQ(ids.front(), tokenizer.bos_id());
  EXPECT_EQ(ids.back(), tokenizer.eos_id());
  EXPECT_HOLDS(tokenizer.decode(ids), "<\uff5cAssistant\uff5c>one");
  const DocumentTransform transform(encoder, {.fim = 1, .split = 0});
  EXPECT_EQ(transform.apply(ids, 1, 0, 0), ids);
}

TEST_F(Shards, HeldOutTextComesBackAsItWas) {
  std::string lines;
  for (int i = 0; i < 60; ++i) lines += json_line(paragraph(i), i % 2 == 0 ? "even" : "odd");
  put("in/a.jsonl", lines);
  ShardBuild b = build("out");
  b.settings.held_out_fraction = 0.2;
  b.settings.near_duplicates = 0;
  run(b);
  const Tokenizer tokenizer = Tokenizer::load(dir / "tokenizer");
  const TextEncoder encoder(tokenizer, "test");
  const auto sources = write_held_out_text({(dir / "out").string()}, encoder,
                                           (dir / "tokenizer").string(), dir / "text.jsonl");
  ASSERT_EQ(sources.size(), 2u);
  Index documents = 0;
  for (const Document& document : load_documents({(dir / "text.jsonl").string()})) {
    EXPECT_HOLDS(lines, nlohmann::json(document.text).dump());
    ++documents;
  }
  EXPECT_EQ(documents, sources[0].documents + sources[1].documents);
  EXPECT_EQ(documents, open("out").held_out.documents.size());
  EXPECT_GT(documents, 2);
}

// What training sees: the same rows from shards as from text, cleaning and duplicates aside.
TEST_F(Shards, SeveralDirectoriesAreOneCorpus) {
  put("in/a.jsonl", json_line(paragraph(1), "s") + json_line(paragraph(2), "t"));
  ShardBuild b = build("one");
  b.settings.held_out_fraction = 0;
  run(b);
  put("in2/a.jsonl", json_line(paragraph(3), "t") + json_line(paragraph(4), "u"));
  b.in = {(dir / "in2").string()};
  b.out = (dir / "two").string();
  run(b);
  const Tokenizer tokenizer = Tokenizer::load(dir / "tokenizer");
  const TextEncoder encoder(tokenizer, "test");
  const ShardedText text = open_shards({(dir / "one").string(), (dir / "two").string()}, encoder,
                                       (dir / "tokenizer").string());
  EXPECT_EQ(text.train.sources, (std::vector<std::string>{"s", "t", "u"}));
  std::vector<std::int32_t> all;
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(text.train.documents[i].source, std::vector<int>({0, 1, 1, 2})[i]);
    const auto ids = encoder.document(paragraph(i + 1));
    all.insert(all.end(), ids.begin(), ids.end());
  }
  EXPECT_EQ(all_tokens(text.train), all);
}

}  // namespace
}  // namespace minke
