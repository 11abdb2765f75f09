#include "data/clean_text.h"

#include <gtest/gtest.h>

namespace minke {
namespace {

std::string cleaned(std::string text, CleanOptions options = {}) {
  clean_text(text, options);
  return text;
}

TEST(CleanText, LineEndsAndControlCharacters) {
  EXPECT_EQ(cleaned("a\r\nb\rc\r\r\nd\n"), "a\nb\nc\n\nd\n");
  EXPECT_EQ(cleaned(std::string("a\0b\x07\x1B[0m\tc\x7F", 12)), "ab[0m\tc");
  EXPECT_EQ(cleaned("\xEF\xBB\xBFx\xEF\xBB\xBF"), "x");
  EXPECT_EQ(cleaned("字\xEF\xBC\x8C字"), "字\xEF\xBC\x8C字");  // U+FF0C begins with the same byte
  EXPECT_EQ(cleaned("\r"), "\n");
  EXPECT_EQ(cleaned(""), "");
  EXPECT_EQ(cleaned("a\r\n\x01", {.line_ends = false}), "a\r\n");
  EXPECT_EQ(cleaned("a\r\n\x01", {.control_characters = false}), "a\n\x01");
}

TEST(CleanText, SaysWhatItChanged) {
  std::string text = "a\r\nb";
  Cleaned what = clean_text(text, {});
  EXPECT_TRUE(what.line_ends);
  EXPECT_FALSE(what.control_characters);
  text = "a\nb\x01";
  what = clean_text(text, {});
  EXPECT_FALSE(what.line_ends);
  EXPECT_TRUE(what.control_characters);
}

TEST(CleanText, Sizes) {
  const auto fault = [](std::string text, CleanOptions options) {
    return clean_text(text, options).fault;
  };
  EXPECT_EQ(fault("", {}), TextFault::TooShort);
  EXPECT_EQ(fault("\x01", {}), TextFault::TooShort);  // after cleaning
  EXPECT_EQ(fault("abc", {.min_document_bytes = 3}), TextFault::None);
  EXPECT_EQ(fault("ab", {.min_document_bytes = 3}), TextFault::TooShort);
  EXPECT_EQ(fault("abc", {.max_document_bytes = 3}), TextFault::None);
  EXPECT_EQ(fault("abcd", {.max_document_bytes = 3}), TextFault::TooLong);
}

TEST(CleanText, RepeatedLines) {
  EXPECT_EQ(repeated_line_share(""), 0);
  EXPECT_EQ(repeated_line_share("one one\ntwo two\n"), 0);
  EXPECT_DOUBLE_EQ(repeated_line_share("same line\nsame line\nsame line\nother one"), 0.5);
  EXPECT_EQ(repeated_line_share("}\n}\n}\n    \n    \nline"), 0) << "braces and blank lines";
  std::string text = "buy now\nbuy now\nbuy now\n";
  EXPECT_EQ(clean_text(text, {}).fault, TextFault::RepeatedLines);
  EXPECT_EQ(clean_text(text, {.max_repeated_lines = 1}).fault, TextFault::None);
}

}  // namespace
}  // namespace minke
