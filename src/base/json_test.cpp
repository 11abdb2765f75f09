#include "base/json.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/files.h"

namespace minke {
namespace {

std::string error_of(std::string_view text) {
  try {
    parse_json(text);
  } catch (const FormatError& e) {
    return e.what();
  }
  return "";
}

std::string nested(int levels) {
  return std::string(static_cast<std::size_t>(levels), '[') +
         std::string(static_cast<std::size_t>(levels), ']');
}

TEST(JsonFormat, LegalTextIsRead) {
  EXPECT_EQ(parse_json(R"({"a": [1, {"a": null}], "b": {"a": 2}})").dump(),
            R"({"a":[1,{"a":null}],"b":{"a":2}})");
  EXPECT_EQ(parse_ordered_json("\xEF\xBB\xBF{\"b\": 1,\r\n\"a\": 2}").dump(), R"({"b":1,"a":2})");
  EXPECT_EQ(parse_json("[[], [], {}, {}, \"x\"]").size(), 5u);
}

TEST(JsonFormat, DeepNestingIsRefusedBeforeItIsWalked) {
  EXPECT_EQ(error_of(nested(kDeepestJson)), "");
  EXPECT_NE(error_of(nested(kDeepestJson + 1)).find("levels of nesting"), std::string::npos);
  EXPECT_NE(error_of(nested(1 << 20)).find("levels of nesting"), std::string::npos);
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  EXPECT_NE(error_of(objects).find("levels of nesting"), std::string::npos);
}

TEST(JsonFormat, AKeyThatStandsTwiceIsNamed) {
  EXPECT_NE(error_of(R"({"a": 1, "b": {"x": 1}, "a": 1})").find("\"a\" twice"), std::string::npos);
  EXPECT_NE(error_of(R"([{"a": {"x": [], "\u0078": 2}}])").find("\"x\" twice"), std::string::npos);
}

TEST(JsonFormat, WhatIsNotJsonIsSaidWithItsPlace) {
  for (const char* text : {"", "{", "nonsense", "[NaN]", "{\"a\": 1e400}", "\"\xFF\"", "[1] 2"})
    EXPECT_EQ(error_of(text).find("not valid JSON: "), 0u) << text << " " << error_of(text);
}

TEST(JsonFormat, FilesAreNamed) {
  const auto path = std::filesystem::temp_directory_path() / "minke_json_test.json";
  write_file_atomic(path, "{\"a\": 1, \"a\": 2}");
  try {
    read_ordered_json(path, 100);
    ADD_FAILURE();
  } catch (const FormatError& e) {
    EXPECT_EQ(std::string(e.what()).find(path.string()), 0u) << e.what();
  }
  EXPECT_THROW(read_json(path, 10), FormatError);  // longer than allowed
  std::filesystem::remove(path);
  EXPECT_THROW(read_json(path, 100), IoError);
}

}  // namespace
}  // namespace minke
