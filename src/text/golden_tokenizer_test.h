// The published tokenizer of tests/golden/tokenizer, unpacked into a temporary directory.
#pragma once
#include <unistd.h>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace minke::test {

namespace fs = std::filesystem;

inline fs::path golden_tokenizer() {
  return fs::path(MINKE_GOLDEN_DIR) / "tokenizer";
}

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (fs::temp_directory_path() / "minke-text-XXXXXX").string();
    if (!mkdtemp(name.data())) throw std::runtime_error("no temporary directory");
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  const fs::path& path() const { return path_; }
  void write(const std::string& name, std::string_view text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
  }

 private:
  fs::path path_;
};

inline std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot open " + path.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::vector<nlohmann::json> read_json_lines(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot open " + path.string());
  std::vector<nlohmann::json> out;
  for (std::string line; std::getline(in, line);)
    if (!line.empty()) out.push_back(nlohmann::json::parse(line));
  return out;
}

inline std::string golden_tokenizer_json() {
  const std::string command =
      "gzip -dc '" + (golden_tokenizer() / "tokenizer.json.gz").string() + "'";
  std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::string text;
  std::vector<char> buffer(1 << 16);
  for (std::size_t n; pipe && (n = fread(buffer.data(), 1, buffer.size(), pipe.get())) > 0;)
    text.append(buffer.data(), n);
  if (text.empty()) throw std::runtime_error("gzip gave nothing: " + command);
  return text;
}

// As R1 has it when `r1`: its template, and two place holders renamed to the think tags.
inline void write_golden_model(const TemporaryDirectory& dir, bool r1) {
  std::string tokenizer = golden_tokenizer_json();
  std::string config = read_text(golden_tokenizer() / "tokenizer_config.json");
  if (r1) {
    for (const auto& [old_name, name] :
         {std::pair<std::string, std::string>{"<｜place▁holder▁no▁798｜>", "<think>"},
          {"<｜place▁holder▁no▁799｜>", "</think>"}})
      tokenizer.replace(tokenizer.find(old_name), old_name.size(), name);
    nlohmann::json json = nlohmann::json::parse(config);
    json["chat_template"] = read_text(golden_tokenizer() / "chat_template_r1.jinja");
    config = json.dump();
  }
  dir.write("tokenizer.json", tokenizer);
  dir.write("tokenizer_config.json", config);
}

// Loaded once a program.
inline const Tokenizer& golden() {
  static const Tokenizer tokenizer = [] {
    TemporaryDirectory dir;
    write_golden_model(dir, false);
    return Tokenizer::load(dir.path());
  }();
  return tokenizer;
}

}  // namespace minke::test
