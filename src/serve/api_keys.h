// The keys that clients must know. How long a comparison takes depends on the length of what was
// sent and on nothing else: every byte of it is compared with a byte of every key.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace minke {

class ApiKeys {
 public:
  ApiKeys() = default;
  // Lines of `file` ("": none) and `key` ("": none). In the file, lines that begin with # and empty
  // ones are left out. ConfigError when the file holds no key; IoError when it cannot be read.
  static ApiKeys load(const std::string& file, const std::string& key);
  explicit ApiKeys(std::vector<std::string> keys) : keys_(std::move(keys)) {}

  bool required() const { return !keys_.empty(); }
  // `authorization`: the header. True when no key is required.
  bool accepts(std::string_view authorization) const;

 private:
  std::vector<std::string> keys_;
};

}  // namespace minke
