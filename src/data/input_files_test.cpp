#include "data/input_files.h"

#include <sys/stat.h>

#include "data/test_files.h"

namespace minke {
namespace {

struct Inputs : DataFiles {
  InputFiles find(const std::string& below = "") {
    return find_input_files({(dir / below).string()}, {"txt", "md"});
  }
  // "name:source " of each file.
  static std::string list(const InputFiles& found) {
    std::string text;
    for (const InputFile& file : found.files)
      text += file.path.filename().string() + ":" + file.default_source + " ";
    return text;
  }
};

TEST_F(Inputs, FilesInOrderWithTheirSources) {
  put("set/b/2.txt", "x");
  put("set/a.jsonl.zst", "x");
  put("set/b/10.md.gz", "x");
  put("set/.git/x.txt", "x");
  const InputFiles found = find("set");
  EXPECT_EQ(list(found), "a.jsonl.zst:a 10.md.gz:b 2.txt:b ");
  EXPECT_EQ(found.hidden, 1);
  EXPECT_EQ(found.bytes(), 3u);
  EXPECT_TRUE(found.problems.empty());
  EXPECT_EQ(found.files[0].form, TextForm::JsonLines);
  EXPECT_EQ(list(find_input_files({(dir / "set/b/2.txt").string()}, {"txt"})), "2.txt:2 ");
  EXPECT_EQ(list(find("set/b/")), "10.md.gz:b 2.txt:b ");
}

TEST_F(Inputs, ProblemsAreNamed) {
  put("a.pdf", "x");
  put("empty.txt", "");
  put("noending", "x");
  std::filesystem::create_directory_symlink(dir, dir / "loop");
  std::filesystem::create_symlink("self", dir / "self");
  std::filesystem::create_symlink("nowhere", dir / "dangling");
  ASSERT_EQ(mkfifo((dir / "pipe.txt").c_str(), 0600), 0);
  const InputFiles found = find();
  std::string kinds;
  for (const FileProblem& problem : found.problems)
    kinds += std::filesystem::path(problem.path).filename().string() + "=" +
             std::to_string(static_cast<int>(problem.kind)) + " ";
  EXPECT_EQ(kinds, "a.pdf=1 dangling=0 empty.txt=2 loop=3 noending=1 pipe.txt=0 self=3 ");
  EXPECT_TRUE(found.files.empty());
  EXPECT_HOLDS(error_of([&] { find("missing"); }), "cannot open");
}

// A folder that is linked to twice is no loop.
TEST_F(Inputs, LinkedFoldersAreFollowed) {
  put("real/a.txt", "x");
  std::filesystem::create_directories(dir / "set");
  std::filesystem::create_directory_symlink(dir / "real", dir / "set/one");
  std::filesystem::create_directory_symlink(dir / "real", dir / "set/two");
  EXPECT_EQ(list(find("set")), "a.txt:one a.txt:two ");
}

TEST_F(Inputs, TheFingerprintTellsChangesApart) {
  put("a.txt", "one");
  const std::uint64_t before = find().fingerprint();
  EXPECT_EQ(find().fingerprint(), before);
  put("a.txt", "longer");
  EXPECT_NE(find().fingerprint(), before);
}

}  // namespace
}  // namespace minke
