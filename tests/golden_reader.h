// Numbers of the golden cases, for tests of layers that lie below io/.
#pragma once
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace minke::test {

// The tensors of one safetensors file of a golden case, as double.
class GoldenFile {
 public:
  // "tiny-yarn/expected.safetensors", below the folder of golden cases.
  explicit GoldenFile(const std::string& path) {
    std::ifstream file(std::string(MINKE_GOLDEN_DIR) + "/" + path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot open the golden file " + path);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    std::uint64_t length = 0;
    std::memcpy(&length, bytes_.data(), 8);
    header_ = nlohmann::json::parse(bytes_.data() + 8, bytes_.data() + 8 + length);
    header_.erase("__metadata__");
    data_ = bytes_.data() + 8 + length;
  }

  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& item : header_.items()) names.push_back(item.key());
    return names;
  }
  bool has(const std::string& name) const { return header_.contains(name); }
  std::vector<std::int64_t> shape(const std::string& name) const {
    return header_.at(name).at("shape").get<std::vector<std::int64_t>>();
  }
  template <class T = double>
  std::vector<T> numbers(const std::string& name) const {
    const auto& entry = header_.at(name);
    const std::string type = entry.at("dtype");
    const char* begin = data_ + entry.at("data_offsets")[0].get<std::size_t>();
    const char* end = data_ + entry.at("data_offsets")[1].get<std::size_t>();
    if (type == "F32") return converted<float, T>(begin, end);
    if (type == "F64") return converted<double, T>(begin, end);
    if (type == "I32") return converted<std::int32_t, T>(begin, end);
    if (type == "I64") return converted<std::int64_t, T>(begin, end);
    throw std::runtime_error(name + " has the type " + type);
  }

 private:
  template <class From, class To>
  static std::vector<To> converted(const char* begin, const char* end) {
    std::vector<To> values;
    for (const char* p = begin; p < end; p += sizeof(From)) {
      From value;
      std::memcpy(&value, p, sizeof value);
      values.push_back(static_cast<To>(value));
    }
    return values;
  }

  std::vector<char> bytes_;
  nlohmann::json header_;
  const char* data_ = nullptr;
};

// "tiny-yarn/expected.json"
inline nlohmann::json golden_json(const std::string& path) {
  std::ifstream file(std::string(MINKE_GOLDEN_DIR) + "/" + path);
  if (!file) throw std::runtime_error("cannot open the golden file " + path);
  return nlohmann::json::parse(file);
}

}  // namespace minke::test
