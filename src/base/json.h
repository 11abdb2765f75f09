// JSON text from outside, parsed with what the library lets pass refused: nesting so deep that
// copying or printing the value would overflow the stack, and a key that an object has twice (which
// of the two is meant, nobody knows).
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace minke {

inline constexpr int kDeepestJson = 64;

// FormatError without a name: "not valid JSON: ...", "line 3: ...".
nlohmann::json parse_json(std::string_view text);
// Keys keep their order. Each one is searched among those before it: text of a stranger should have
// at most so many in one object (FormatError).
nlohmann::ordered_json parse_ordered_json(std::string_view text,
                                          std::size_t most_keys = std::size_t(-1));

// The same of a file of at most `limit` bytes, whose name is then in the message. IoError when it
// cannot be read.
nlohmann::json read_json(const std::filesystem::path& path, std::size_t limit);
nlohmann::ordered_json read_ordered_json(const std::filesystem::path& path, std::size_t limit);

}  // namespace minke
