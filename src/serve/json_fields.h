// Reading a client's JSON object: every wrong value is a 400 that names the field, what was found
// and what was expected. A field that is null counts as left out; unknown fields are ignored.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace minke {

using ApiJson = nlohmann::ordered_json;  // schemas keep the order of their properties

// The body of a request. ApiError 400 when it is not UTF-8, no JSON object, nested deeper than 64,
// or has an object with a key twice or with more than 512 keys (keeping their order costs a search
// for each).
ApiJson parse_body(std::string_view body);

class JsonFields {
 public:
  // `path` names the object in errors: "" for the body, else "messages[2]".
  JsonFields(const ApiJson& object, std::string path);

  std::string name(std::string_view key) const;  // "messages[2].content"
  const ApiJson* find(const char* key) const;    // null when left out
  [[noreturn]] void fail(const char* key, std::string_view expected) const;

  std::optional<std::int64_t> integer(const char* key, std::int64_t min, std::int64_t max) const;
  std::optional<double> number(const char* key, double min, double max) const;
  std::optional<bool> boolean(const char* key) const;
  std::optional<std::string> string(const char* key) const;
  std::string required_string(const char* key) const;
  const ApiJson* object(const char* key) const;
  const ApiJson* list(const char* key, std::size_t most) const;

 private:
  const ApiJson& object_;
  std::string path_;
};

// What was found, short enough for a message and without a client's text: "a string", "1.5".
std::string shown(const ApiJson& value);

// A token id below `vocab`; ApiError naming the field otherwise.
std::int32_t token_id(const ApiJson& value, const std::string& field, std::int64_t vocab);

}  // namespace minke
