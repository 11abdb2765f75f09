#include "data/item_reader.h"

#include <zlib.h>
#include <zstd.h>

#include "data/test_files.h"

namespace minke {
namespace {

std::string gzipped(std::string_view text) {
  z_stream z{};
  deflateInit2(&z, 9, Z_DEFLATED, MAX_WBITS + 16, 9, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&z, text.size()) + 64, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  deflate(&z, Z_FINISH);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

std::string zstd_frame(std::string_view text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

// Text that does not compress to nothing, so that there is a middle to break off in.
std::string numbered_lines(int n) {
  std::string text;
  for (int i = 0; i < n; ++i) text += "line " + std::to_string(i * 7919 % 104729) + "\n";
  return text;
}

struct Items : DataFiles {
  std::vector<Item> read(const std::string& path, TextForm form, std::size_t longest = 1 << 20) {
    ItemReader reader(path, form, longest);
    std::vector<Item> items;
    for (Item item; reader.next(item);) items.push_back(item);
    failure = reader.failure();
    return items;
  }
  std::string joined(const std::vector<Item>& items) {
    std::string all;
    for (const Item& item : items) all += item.bytes + "\n";
    return all;
  }
  std::string failure;
};

TEST_F(Items, LinesWithTheirNumbers) {
  const auto items =
      read(put("a.jsonl", "\xEF\xBB\xBFone\r\n\n \t\ntwo\nthree"), TextForm::JsonLines);
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(items[0].bytes, "one\r");
  EXPECT_EQ(items[1].line, 4);
  EXPECT_EQ(items[2].bytes, "three");
  EXPECT_TRUE(read(put("empty.jsonl", "\n\n"), TextForm::JsonLines).empty());
}

TEST_F(Items, TextIsCutAtFormFeeds) {
  const auto items = read(put("a.txt", "\fone\ntwo\n\fthree\f"), TextForm::Text);
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0].bytes, "one\ntwo\n");
  EXPECT_EQ(items[1].bytes, "three");
  EXPECT_EQ(items[1].line, 3);
}

TEST_F(Items, CompressedFilesAreTheSame) {
  const std::string text = numbered_lines(60000);
  for (const auto& [name, content] :
       {std::pair<std::string, std::string>{"a.txt", text},
        {"b.txt.gz", gzipped(text)},
        {"c.txt.zst", zstd_frame(text)},
        {"d.txt.gz", gzipped(text.substr(0, 99)) + gzipped(text.substr(99))},
        {"e.txt.zst", zstd_frame(text.substr(0, 99)) + zstd_frame(text.substr(99))}}) {
    EXPECT_EQ(joined(read(put(name, content), TextForm::JsonLines)), text) << name;
    EXPECT_EQ(failure, "") << name;
  }
}

TEST_F(Items, ABrokenCompressedFileGivesWhatIsBeforeTheBreak) {
  const std::string text = numbered_lines(60000);
  for (const auto& [name, content] :
       {std::pair<std::string, std::string>{"a.gz", gzipped(text)}, {"b.zst", zstd_frame(text)}}) {
    for (const double part : {0.0001, 0.3, 0.9, 0.99999}) {
      const auto size = static_cast<std::size_t>(part * static_cast<double>(content.size()));
      const auto items = read(put(name, content.substr(0, size)), TextForm::JsonLines);
      EXPECT_HOLDS(failure, "in the middle of its compressed data");
      EXPECT_HOLDS(failure, name);
      for (std::size_t i = 0; i + 1 < items.size(); ++i)
        EXPECT_EQ(items[i].defect, Item::Defect::None);
      std::string whole = joined(items);
      if (!whole.empty()) whole.pop_back();  // the last item may have no line end
      EXPECT_TRUE(text.starts_with(whole)) << name << " " << part;
    }
    std::string damaged = content;
    for (std::size_t i = damaged.size() / 2; i < damaged.size() / 2 + 64; ++i) damaged[i] ^= 0x5A;
    read(put(name, damaged), TextForm::JsonLines);
    EXPECT_NE(failure, "") << name;
    read(put(name, content + "garbage"), TextForm::JsonLines);
    EXPECT_HOLDS(failure, "damaged compressed data");
    read(put(name, "not compressed at all"), TextForm::JsonLines);
    EXPECT_HOLDS(failure, "damaged compressed data");
  }
}

TEST_F(Items, WhatIsTooLongIsStreamedPast) {
  const std::string path =
      put("a.jsonl.gz", gzipped("first\n" + std::string(5'000'000, 'x') + "\nlast\n"));
  const auto items = read(path, TextForm::JsonLines, 100);
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(items[1].defect, Item::Defect::TooLong);
  EXPECT_EQ(items[1].size, 5'000'000u);
  EXPECT_LT(items[1].bytes.capacity(), 1000u);
  EXPECT_EQ(items[1].line, 2);
  EXPECT_EQ(items[2].bytes, "last");
  // Exactly as long as allowed.
  EXPECT_EQ(read(put("b.jsonl", std::string(100, 'y')), TextForm::JsonLines, 100)[0].defect,
            Item::Defect::None);
}

TEST_F(Items, GoesOnFromEveryPosition) {
  const std::string text = "\xEF\xBB\xBFone\n\nlonger line\nx\nlast";
  for (const std::string& path : {put("a.jsonl", text), put("a.jsonl.gz", gzipped(text)),
                                  put("a.jsonl.zst", zstd_frame(text))}) {
    ItemReader whole(path, TextForm::JsonLines, 100);
    for (Item item; true;) {
      const ItemPosition position = whole.position();
      const bool more = whole.next(item);
      Item again;
      ItemReader reader(path, TextForm::JsonLines, 100, position);
      ASSERT_EQ(reader.next(again), more);
      if (!more) break;
      EXPECT_EQ(again.bytes, item.bytes);
      EXPECT_EQ(again.line, item.line);
      EXPECT_EQ(reader.position(), whole.position());
    }
  }
}

TEST_F(Items, WhatCannotBeOpenedIsSaid) {
  EXPECT_HOLDS(error_of([&] { read((dir / "none.txt").string(), TextForm::Text); }), "cannot open");
  EXPECT_HOLDS(error_of([&] { read(dir.string(), TextForm::Text); }), "not a regular file");
}

}  // namespace
}  // namespace minke
