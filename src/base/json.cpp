#include "base/json.h"

#include <fmt/format.h>

#include <set>
#include <vector>

#include "base/error.h"
#include "base/files.h"

namespace minke {
namespace {

// Without the library's "[json.exception...] " in front.
std::string reason(const nlohmann::json::exception& e) {
  const std::string_view text = e.what();
  const std::size_t at = text.find("] ");
  return std::string(at == std::string_view::npos ? text : text.substr(at + 2));
}

template <class Json>
Json parse(std::string_view text, std::size_t most_keys = std::size_t(-1)) {
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto check = [&](int depth, typename Json::parse_event_t event, Json& value) {
    using Event = typename Json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) {
      if (depth >= kDeepestJson)
        throw FormatError(
            fmt::format("not usable JSON: more than {} levels of nesting", kDeepestJson));
      if (event == Event::object_start) keys.emplace_back();
    } else if (event == Event::object_end) {
      keys.pop_back();
    } else if (event == Event::key) {
      const auto [key, fresh] = keys.back().insert(value.template get<std::string>());
      if (!fresh)
        throw FormatError(fmt::format("not usable JSON: an object has the key \"{}\" twice", *key));
      if (keys.back().size() > most_keys)
        throw FormatError(
            fmt::format("not usable JSON: an object has more than {} keys", most_keys));
    }
    return true;
  };
  try {
    return Json::parse(text, check);
  } catch (const nlohmann::json::exception& e) {
    throw FormatError("not valid JSON: " + reason(e));
  }
}

template <class Json>
Json read(const std::filesystem::path& path, std::size_t limit) {
  const std::string text = read_file(path, limit);
  try {
    return parse<Json>(text);
  } catch (const FormatError& e) {
    throw FormatError(fmt::format("{}: {}", path.string(), e.what()));
  }
}

}  // namespace

nlohmann::json parse_json(std::string_view text) {
  return parse<nlohmann::json>(text);
}
nlohmann::ordered_json parse_ordered_json(std::string_view text, std::size_t most_keys) {
  return parse<nlohmann::ordered_json>(text, most_keys);
}
nlohmann::json read_json(const std::filesystem::path& path, std::size_t limit) {
  return read<nlohmann::json>(path, limit);
}
nlohmann::ordered_json read_ordered_json(const std::filesystem::path& path, std::size_t limit) {
  return read<nlohmann::ordered_json>(path, limit);
}

}  // namespace minke
