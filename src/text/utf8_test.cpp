#include "text/utf8.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace minke {
namespace {

std::string lossy(std::string bytes) {
  std::string text;
  finish_utf8(bytes, text);
  return text;
}

TEST(Utf8, EveryCodePointComesBack) {
  for (std::uint32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    append_utf8(text, code);
    const CodePoint back = code_point_at(text, 0);
    ASSERT_EQ(back.code, code);
    ASSERT_EQ(back.bytes, text.size());
    ASSERT_EQ(find_invalid_utf8(text), kValidUtf8);
    if (text.size() > 1) {
      ASSERT_EQ(find_invalid_utf8("0123456789" + text.substr(0, text.size() - 1)), 10u);
    }
  }
}

TEST(Utf8, OneReplacementForEveryMaximalInvalidPart) {
  const std::string r = "\uFFFD";
  EXPECT_EQ(lossy("a\x80"
                  "b"),
            "a" + r + "b");
  EXPECT_EQ(lossy("\x80\x81"), r + r);
  EXPECT_EQ(lossy("\xC0\x80"), r + r);  // overlong
  EXPECT_EQ(lossy("\xE4\xBD"), r);      // a whole sequence's beginning
  EXPECT_EQ(lossy("\xE4\xBD"
                  "x"),
            r + "x");
  EXPECT_EQ(lossy("\xF0\x9F\x98"), r);
  EXPECT_EQ(lossy("\xF0\x9F\xE4\xBD\xA0"), r + "你");
  EXPECT_EQ(lossy("\xED\xA0\x80"), r + r + r);  // surrogate
  EXPECT_EQ(lossy("\xF4\x90\x80\x80"), r + r + r + r);
  EXPECT_EQ(lossy("\xF5\xFF"), r + r);
}

TEST(Utf8, HoldsBackOnlyWhatMayStillBecomeASequence) {
  std::string pending = "ab\xE4\xBD", out;
  take_utf8(pending, out);
  EXPECT_EQ(out, "ab");
  EXPECT_EQ(pending, "\xE4\xBD");
  pending += "\xA0";
  take_utf8(pending, out);
  EXPECT_EQ(out, "ab你");
  EXPECT_TRUE(pending.empty());
  pending = "\xE4\xE4";
  take_utf8(pending, out);
  EXPECT_EQ(out, "ab你\uFFFD");
  EXPECT_EQ(pending, "\xE4");
}

TEST(Utf8, NamesTheByte) {
  EXPECT_NO_THROW(require_utf8("fine", "x"));
  try {
    require_utf8("abc\xFE", "line 3");
    FAIL();
  } catch (const FormatError& e) {
    EXPECT_EQ(std::string(e.what()).find("line 3 is not UTF-8: byte 3 is 0xFE"), 0u) << e.what();
  }
}

}  // namespace
}  // namespace minke
