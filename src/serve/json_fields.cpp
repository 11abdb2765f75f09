#include "serve/json_fields.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "base/json.h"
#include "serve/api_error.h"
#include "text/utf8.h"

namespace minke {
namespace {

constexpr std::size_t kMostKeys = 512;

// An integer of any width as a double tells its size; the value itself is only taken when it fits.
std::optional<std::int64_t> small_integer(const ApiJson& value) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() &&
      value.get<std::uint64_t>() > std::uint64_t{std::numeric_limits<std::int64_t>::max()})
    return std::nullopt;
  return value.get<std::int64_t>();
}

}  // namespace

ApiJson parse_body(std::string_view body) {
  try {
    require_utf8(body, "the body");
    ApiJson json = parse_ordered_json(body, kMostKeys);
    if (!json.is_object())
      throw FormatError(fmt::format("expected a JSON object, found {}", shown(json)));
    return json;
  } catch (const FormatError& e) {
    throw ApiError(400, e.what());
  }
}

std::string shown(const ApiJson& value) {
  if (value.is_string()) return "a string";
  if (value.is_array()) return "a list";
  if (value.is_object()) return "an object";
  return value.dump();
}

JsonFields::JsonFields(const ApiJson& object, std::string path)
    : object_(object), path_(std::move(path)) {
  if (!object.is_object())
    throw_bad_field(path_, fmt::format("expected an object, found {}", shown(object)));
}

std::string JsonFields::name(std::string_view key) const {
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

const ApiJson* JsonFields::find(const char* key) const {
  const auto at = object_.find(key);
  return at == object_.end() || at->is_null() ? nullptr : &*at;
}

void JsonFields::fail(const char* key, std::string_view expected) const {
  const ApiJson* found = find(key);
  throw_bad_field(name(key), fmt::format("expected {}, found {}", expected,
                                         found ? shown(*found) : std::string("nothing")));
}

std::optional<std::int64_t> JsonFields::integer(const char* key, std::int64_t min,
                                                std::int64_t max) const {
  const ApiJson* value = find(key);
  if (!value) return std::nullopt;
  const auto integer = small_integer(*value);
  if (!integer || *integer < min || *integer > max) {
    const bool bounded = max < std::numeric_limits<std::int64_t>::max();
    fail(key, bounded ? fmt::format("an integer from {} to {}", min, max)
                      : fmt::format("an integer of at least {}", min));
  }
  return integer;
}

std::optional<double> JsonFields::number(const char* key, double min, double max) const {
  const ApiJson* value = find(key);
  if (!value) return std::nullopt;
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (!(number >= min && number <= max)) fail(key, fmt::format("a number from {} to {}", min, max));
  return number;
}

std::optional<bool> JsonFields::boolean(const char* key) const {
  const ApiJson* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) fail(key, "true or false");
  return value->get<bool>();
}

std::optional<std::string> JsonFields::string(const char* key) const {
  const ApiJson* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_string()) fail(key, "a string");
  return value->get<std::string>();
}

std::string JsonFields::required_string(const char* key) const {
  if (!find(key)) fail(key, "a string");
  return *string(key);
}

const ApiJson* JsonFields::object(const char* key) const {
  const ApiJson* value = find(key);
  if (value && !value->is_object()) fail(key, "an object");
  return value;
}

const ApiJson* JsonFields::list(const char* key, std::size_t most) const {
  const ApiJson* value = find(key);
  if (!value) return nullptr;
  if (!value->is_array()) fail(key, "a list");
  if (value->size() > most)
    throw_bad_field(name(key), fmt::format("has {} entries; {} may be given", value->size(), most));
  return value;
}

std::int32_t token_id(const ApiJson& value, const std::string& field, std::int64_t vocab) {
  const auto id = small_integer(value);
  if (!id || *id < 0 || *id >= vocab)
    throw_bad_field(
        field, fmt::format("expected a token id from 0 to {}, found {}", vocab - 1, shown(value)));
  return static_cast<std::int32_t>(*id);
}

}  // namespace minke
