#include "base/files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <thread>
#include <vector>

#include "base/error.h"

namespace minke {
namespace {

namespace fs = std::filesystem;

struct Files : testing::Test {
  Files() {
    std::string pattern = (fs::temp_directory_path() / "minke-files-XXXXXX").string();
    dir = mkdtemp(pattern.data());
  }
  ~Files() override { fs::remove_all(dir); }
  void put(const fs::path& path, std::string_view content) {
    std::ofstream(path, std::ios::binary) << content;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& e : fs::directory_iterator(dir)) all.push_back(e.path().filename());
    std::sort(all.begin(), all.end());
    return all;
  }
  fs::path dir;
};

template <class F>
std::string message_of(F f) {
  try {
    f();
  } catch (const IoError& e) {
    return e.what();
  }
  return "no IoError";
}

TEST(AtomicFile, DevicesAreWrittenAndNotReplaced) {
  EXPECT_THROW(write_file_atomic("/dev/full", "text"), IoError);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
  EXPECT_NO_THROW(write_file_atomic("/dev/null", "text"));
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
  EXPECT_THROW(write_file_atomic(std::filesystem::temp_directory_path(), "text"), IoError);
}

TEST_F(Files, ReadsWhatIsThereAndNamesWhatIsNot) {
  put(dir / "a", "hello");
  EXPECT_EQ(read_file(dir / "a"), "hello");
  EXPECT_THROW(read_file(dir / "a", 4), FormatError);
  EXPECT_NE(message_of([&] { read_file(dir / "none"); }).find("none: No such file"),
            std::string::npos);
  EXPECT_NE(message_of([&] { read_file(dir); }).find("not a regular file"), std::string::npos);
  const FileReader reader(dir / "a");
  std::vector<std::byte> six(6);
  EXPECT_NE(message_of([&] { reader.pread_exact(0, six); }).find("ends after 5 bytes"),
            std::string::npos);
}

TEST_F(Files, AFifoDoesNotBlock) {
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  EXPECT_THROW(read_file(dir / "fifo"), IoError);
  EXPECT_THROW(MappedFile::open(dir / "fifo"), IoError);
}

TEST_F(Files, MapsAlsoEmptyFilesAndMoves) {
  put(dir / "a", "hello");
  put(dir / "empty", "");
  MappedFile a = MappedFile::open(dir / "a");
  EXPECT_EQ(a.bytes().size(), 5u);
  EXPECT_EQ(static_cast<char>(a.bytes()[1]), 'e');
  EXPECT_TRUE(MappedFile::open(dir / "empty").bytes().empty());
  MappedFile b = std::move(a);
  a = MappedFile::open(dir / "a");
  a = std::move(b);
  EXPECT_EQ(static_cast<char>(a.bytes()[4]), 'o');
  a.check_intact();
  a.prefetch(0, 5);
  a.drop(0, 5);
}

TEST_F(Files, TruncationWhileMappedIsAnErrorNotASignal) {
  const std::size_t size = std::size_t{1} << 20;
  put(dir / "w", std::string(size, 'x'));
  put(dir / "other", std::string(size, 'y'));
  const MappedFile other = MappedFile::open(dir / "other");
  for (int round = 0; round < 3; ++round) {  // slots are used again
    put(dir / "w", std::string(size, 'x'));
    const MappedFile file = MappedFile::open(dir / "w");
    fs::resize_file(dir / "w", 5000);
    std::vector<std::thread> readers;
    std::vector<std::size_t> seen(4);
    for (std::size_t t = 0; t < seen.size(); ++t)
      readers.emplace_back([&, t] {
        for (std::byte b : file.bytes()) seen[t] += b == std::byte{'x'};
      });
    for (auto& r : readers) r.join();
    for (std::size_t n : seen) EXPECT_GE(n, 5000u);
    EXPECT_NE(message_of([&] { file.check_intact(); }).find((dir / "w").string()),
              std::string::npos);
    other.check_intact();
  }
  EXPECT_EQ(other.bytes()[size - 1], std::byte{'y'});
}

TEST_F(Files, CopyingATruncatedFileBlamesTheSource) {
  put(dir / "from", std::string(100000, 'x'));
  const MappedFile from = MappedFile::open(dir / "from");
  fs::resize_file(dir / "from", 5000);
  FileWriter to(dir / "to");
  to.write(from.bytes());
  EXPECT_NE(message_of([&] { from.check_intact(); }).find("from: the file became shorter"),
            std::string::npos);
}

TEST_F(Files, AForeignSigbusStillKills) {
  EXPECT_EXIT(
      {
        put(dir / "w", std::string(10000, 'x'));
        const MappedFile ours = MappedFile::open(dir / "w");
        const int fd = ::open((dir / "w").c_str(), O_RDONLY);
        const char* p =
            static_cast<const char*>(mmap(nullptr, 10000, PROT_READ, MAP_SHARED, fd, 0));
        fs::resize_file(dir / "w", 0);
        std::_Exit(p[9000]);
      },
      [](int status) {  // by the signal, or by the sanitizer's report of it
        return WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) != 0);
      },
      "");
}

TEST_F(Files, AWriterThatDoesNotFinishLeavesNothing) {
  {
    FileWriter w(dir / "a");
    w.write("abc");
  }
  EXPECT_TRUE(names().empty());
  FileWriter w(dir / "a");
  w.write("abc");
  const FileDigest digest = w.finish();
  EXPECT_EQ(digest.bytes, 3u);
  EXPECT_EQ(to_hex(digest.hash), "44bc2cf5ad770999");
}

TEST_F(Files, AFullDiskIsReportedByName) {
  FileWriter w("/dev/full");
  EXPECT_NE(message_of([&] { w.write("x"); }).find("/dev/full after 0 bytes: No space left"),
            std::string::npos);
  EXPECT_TRUE(fs::exists("/dev/full"));
}

TEST_F(Files, AFileSizeLimitIsAnErrorAndTheOldFileStays) {
  put(dir / "a", "old");
  struct rlimit before, small;
  getrlimit(RLIMIT_FSIZE, &before);
  small = before;
  small.rlim_cur = 1000;
  { FileWriter ignore_the_signal(dir / "b"); }
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string what =
      message_of([&] { write_file_atomic(dir / "a", std::string(5000, 'x')); });
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_NE(what.find("File too large"), std::string::npos) << what;
  EXPECT_EQ(read_file(dir / "a"), "old");
  EXPECT_EQ(names(), std::vector<std::string>{"a"});
  write_file_atomic(dir / "a", "new");
  EXPECT_EQ(read_file(dir / "a"), "new");
  EXPECT_EQ(names(), std::vector<std::string>{"a"});
}

void save(const fs::path& target, const std::string& content) {
  AtomicDirectory d(target);
  fs::create_directory(d.path() / "sub");
  std::ofstream(d.path() / "a") << content;
  std::ofstream(d.path() / "sub" / "b") << content << content;
  FileWriter w(d.path() / "c");
  w.write(content);
  d.record("c", w.finish());
  d.commit();
}

TEST_F(Files, ADirectoryAppearsWholeAndIsReplacedWhole) {
  const fs::path target = dir / "out";
  EXPECT_FALSE(is_complete_checkpoint(target));
  for (const char* content : {"one", "two", "three"}) {
    save(target.string() + "/", content);
    EXPECT_EQ(checkpoint_defect(target), "");
    EXPECT_EQ(read_file(target / "a"), content);
    EXPECT_EQ(names(), std::vector<std::string>{"out"});
  }
  {
    AtomicDirectory d(target);
    std::ofstream(d.path() / "a") << "four";
  }
  EXPECT_EQ(read_file(target / "a"), "three");
  EXPECT_EQ(names(), std::vector<std::string>{"out"});
}

TEST_F(Files, DefectsOfACheckpointAreNamed) {
  const fs::path target = dir / "out";
  const auto defect = [&] { return checkpoint_defect(target); };
  save(target, "one");
  put(target / "a", "onE");
  EXPECT_NE(defect().find("out/a has the hash"), std::string::npos) << defect();
  EXPECT_EQ(checkpoint_defect(target, Verify::Sizes), "");
  put(target / "a", "ones");
  EXPECT_NE(defect().find("out/a has 4 bytes, 3 expected"), std::string::npos) << defect();
  fs::remove(target / "a");
  EXPECT_NE(defect().find("out/a is missing"), std::string::npos) << defect();
  for (const char* manifest : {"", "{", "[]", "{\"format\":1}", "{\"format\":\"minke-manifest-1\"}",
                               "{\"format\":\"minke-manifest-1\",\"files\":{\"a\":3}}"}) {
    put(target / "a", "one");
    put(target / "manifest.json", manifest);
    EXPECT_NE(defect().find("manifest.json"), std::string::npos) << manifest;
  }
  fs::remove(target / "manifest.json");
  EXPECT_NE(defect().find("has no manifest.json"), std::string::npos) << defect();
}

TEST_F(Files, ForeignDirectoriesAreNotReplaced) {
  const fs::path target = dir / "home";
  fs::create_directory(target);
  save(target, "into an empty one");
  fs::remove_all(target);
  fs::create_directory(target);
  put(target / "thesis.txt", "years of work");
  EXPECT_NE(message_of([&] { AtomicDirectory d(target); }).find("did not write"),
            std::string::npos);
  put(dir / "file", "x");
  EXPECT_NE(message_of([&] { AtomicDirectory d(dir / "file"); }).find("not a directory"),
            std::string::npos);
  EXPECT_EQ(read_file(target / "thesis.txt"), "years of work");
}

TEST_F(Files, AKilledSaveLosesNothingAndIsCleanedByTheNext) {
  const fs::path target = dir / "out";
  save(target, "one");
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    AtomicDirectory d(target);
    std::ofstream(d.path() / "a") << "two";
    (void)!write(ready[1], "r", 1);
    for (;;) pause();
  }
  char c;
  ASSERT_EQ(read(ready[0], &c, 1), 1);
  {  // the writer lives: its directory is left alone
    AtomicDirectory d(target);
    EXPECT_EQ(names().size(), 3u);
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  close(ready[0]), close(ready[1]);
  EXPECT_EQ(names().size(), 2u);
  EXPECT_EQ(checkpoint_defect(target), "");
  EXPECT_EQ(read_file(target / "a"), "one");
  save(target, "three");
  EXPECT_EQ(read_file(target / "a"), "three");
  EXPECT_EQ(names(), std::vector<std::string>{"out"});
}

// A child saves again and again and is killed at many different moments.
TEST_F(Files, WheneverASaveIsKilledOneWholeCheckpointIsThere) {
  const fs::path target = dir / "out";
  save(target, "first");
  for (int round = 0; round < 25; ++round) {
    const pid_t child = fork();
    if (child == 0)
      for (int i = 0;; ++i) save(target, "round " + std::to_string(i));
    usleep(static_cast<useconds_t>(500 + round * 937));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    ASSERT_EQ(checkpoint_defect(target), "") << "after round " << round;
  }
  save(target, "last");
  EXPECT_EQ(names(), std::vector<std::string>{"out"});
}

TEST_F(Files, WhatWasMovedAsideIsPutBack) {
  const fs::path target = dir / "out";
  save(target, "one");
  fs::rename(target, dir / "out.old");
  recover_directory(target);
  EXPECT_EQ(checkpoint_defect(target), "");
  EXPECT_EQ(names(), std::vector<std::string>{"out"});
}

}  // namespace
}  // namespace minke
