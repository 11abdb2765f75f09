#include "serve/api_keys.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/files.h"

namespace minke {
namespace {

constexpr std::size_t kLongestFile = std::size_t{1} << 20;

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") + 1 - begin);
}

bool equal(std::string_view sent, std::string_view key) {
  // volatile: the loop must not end early.
  volatile unsigned difference = sent.size() == key.size() ? 0 : 1;
  for (std::size_t i = 0; i < sent.size(); ++i)
    difference = difference | (static_cast<unsigned char>(sent[i]) ^
                               static_cast<unsigned char>(key[i % key.size()]));
  return difference == 0;
}

bool is_bearer(std::string_view scheme) {
  constexpr std::string_view kScheme = "bearer ";
  if (scheme.size() < kScheme.size()) return false;
  for (std::size_t i = 0; i < kScheme.size(); ++i)
    if ((scheme[i] | 0x20) != kScheme[i]) return false;
  return true;
}

}  // namespace

ApiKeys ApiKeys::load(const std::string& file, const std::string& key) {
  std::vector<std::string> keys;
  if (!file.empty()) {
    const std::string text = read_file(file, kLongestFile);
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      const std::string_view line = trimmed(std::string_view(text).substr(begin, end - begin));
      if (!line.empty() && line.front() != '#') keys.emplace_back(line);
      begin = end + 1;
    }
    if (keys.empty())
      throw ConfigError(fmt::format("--api-key-file: {} holds no key; write one a line", file));
  }
  if (!trimmed(key).empty()) keys.emplace_back(trimmed(key));
  return ApiKeys(std::move(keys));
}

bool ApiKeys::accepts(std::string_view authorization) const {
  if (!required()) return true;
  if (!is_bearer(authorization)) return false;
  const std::string_view sent = trimmed(authorization.substr(7));
  bool found = false;
  for (const std::string& key : keys_) found |= equal(sent, key);
  return found && !sent.empty();
}

}  // namespace minke
