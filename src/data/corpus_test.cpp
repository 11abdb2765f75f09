#include "data/corpus.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"

namespace minke {
namespace fs = std::filesystem;
namespace {

class Corpus : public testing::Test {
 protected:
  Corpus() : dir_(fs::path(testing::TempDir()) / ("minke_corpus_" + std::to_string(getpid()))) {
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  ~Corpus() override { fs::remove_all(dir_); }

  std::string write(const std::string& name, const std::string& content) {
    fs::create_directories((dir_ / name).parent_path());
    std::ofstream(dir_ / name, std::ios::binary) << content;
    return (dir_ / name).string();
  }
  std::string failure(const std::string& path) {
    try {
      load_documents({path});
    } catch (const FormatError& error) {
      return error.what();
    }
    return "(no error)";
  }

  fs::path dir_;
};

TEST_F(Corpus, JsonLines) {
  const auto path = write("a.jsonl",
                          "\xEF\xBB\xBF{\"text\": \"one\\n\", \"source\": \"s\", \"path\": 1}\r\n\n"
                          "{\"text\": \"二\"}");
  const auto documents = load_documents({path});
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0].text, "one\n");
  EXPECT_EQ(documents[0].source, "s");
  EXPECT_EQ(documents[0].line, 1);
  EXPECT_EQ(documents[1].text, "二");
  EXPECT_EQ(documents[1].source, "a");
  EXPECT_EQ(documents[1].line, 3);
  EXPECT_EQ(documents[1].path, path);
}

TEST_F(Corpus, TextWithFormFeeds) {
  const auto documents = load_documents({write("book.txt", "one\ntwo\n\fthree\f")});
  ASSERT_EQ(documents.size(), 2u);  // nothing follows the last form feed
  EXPECT_EQ(documents[0].text, "one\ntwo\n");
  EXPECT_EQ(documents[1].text, "three");
  EXPECT_EQ(documents[1].source, "book");
  EXPECT_EQ(documents[1].line, 3);
}

TEST_F(Corpus, FoldersAreReadInOrderWithoutWhatIsHidden) {
  write("set/b/2.txt", "b2");
  write("set/a.jsonl", "{\"text\": \"a\"}\n");
  write("set/b/10.txt", "b10");
  write("set/.git/x.txt", "hidden");
  write("set/README.md", "not read");
  std::string texts, sources;
  for (const Document& document : load_documents({(dir_ / "set").string()})) {
    texts += document.text + " ";
    sources += document.source + " ";
  }
  EXPECT_EQ(texts, "a b10 b2 ");
  EXPECT_EQ(sources, "a b b ");
}

TEST_F(Corpus, FormatErrorsNameFileAndLine) {
  const std::string good = "{\"text\": \"x\"}\n";
  const auto bad = [&](const std::string& line) { return write("bad.jsonl", good + line + "\n"); };
  const std::string at = (dir_ / "bad.jsonl").string() + ": line 2: ";
  EXPECT_EQ(failure(bad("{\"text\": ")).find(at + "not valid JSON"), 0u);
  EXPECT_EQ(failure(bad("[1]")).find(at + "not a JSON object"), 0u);
  EXPECT_EQ(failure(bad("{\"txt\": \"x\"}")), at + "has no field 'text'");
  EXPECT_EQ(failure(bad("{\"text\": 1}")), at + "field 'text' is not a string");
  EXPECT_EQ(failure(bad("{\"text\": \"x\", \"source\": 1}")),
            at + "field 'source' is not a string");
  EXPECT_EQ(failure(bad("{\"text\": \"\xC0\xAF\"}")).find(at + "byte 11 of the line (0xC0)"), 0u);
  EXPECT_EQ(failure(bad("{\"text\": \"\\ud800\"}")).find(at + "not valid JSON"), 0u);
  const auto text = write("bad.txt", "one\ntwo \xFF\n");
  EXPECT_EQ(failure(text).find(text + ": line 2: byte 5 of the line (0xFF) is not UTF-8"), 0u)
      << failure(text);
}

TEST_F(Corpus, WhatCannotBeReadIsSaid) {
  EXPECT_THROW(load_documents({(dir_ / "missing.txt").string()}), IoError);
  EXPECT_NE(failure(write("a.md", "x")).find("neither .jsonl nor .txt"), std::string::npos);
  EXPECT_NE(failure(write("empty.txt", "")).find("no text in"), std::string::npos);
  EXPECT_THROW(load_documents({}), FormatError);
  EXPECT_THROW(load_documents({(dir_).string() + "/nothing"}), IoError);
}

TEST_F(Corpus, DeeplyNestedJsonIsRefusedOrReadWithoutACrash) {
  const auto path = write("deep.jsonl", "{\"text\": \"x\", \"y\": " + std::string(200000, '[') +
                                            std::string(200000, ']') + "}\n");
  EXPECT_EQ(load_documents({path}).size(), 1u);
}

}  // namespace
}  // namespace minke
