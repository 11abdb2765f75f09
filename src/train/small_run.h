// Tests only: a small run on a small text, with a tokenizer of 256 bytes.
#pragma once
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/threads.h"
#include "io/safetensors.h"
#include "model/checkpoint.h"
#include "train/loop.h"

namespace minke {

// A byte-level tokenizer without merges: 256 bytes and the end of a sentence.
inline void write_byte_tokenizer(const std::filesystem::path& dir) {
  using Json = nlohmann::ordered_json;
  namespace fs = std::filesystem;
  fs::create_directories(dir);
  Json vocab = Json::object();
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    // The stand-ins of byte-level BPE: printable bytes stand for themselves.
    const bool printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int code = printable ? byte : next++;
    std::string text;
    if (code < 0x80) {
      text = static_cast<char>(code);
    } else {
      text = static_cast<char>(0xC0 | (code >> 6));
      text += static_cast<char>(0x80 | (code & 0x3F));
    }
    vocab[text] = byte;
  }
  vocab["<eos>"] = 256;
  const Json tokenizer = {{"version", "1.0"},
                          {"added_tokens",
                           {{{"id", 256},
                             {"content", "<eos>"},
                             {"single_word", false},
                             {"lstrip", false},
                             {"rstrip", false},
                             {"normalized", false},
                             {"special", true}}}},
                          {"normalizer", nullptr},
                          {"pre_tokenizer",
                           {{"type", "ByteLevel"},
                            {"add_prefix_space", false},
                            {"trim_offsets", true},
                            {"use_regex", true}}},
                          {"post_processor", nullptr},
                          {"decoder",
                           {{"type", "ByteLevel"},
                            {"add_prefix_space", true},
                            {"trim_offsets", true},
                            {"use_regex", true}}},
                          {"model",
                           {{"type", "BPE"},
                            {"dropout", nullptr},
                            {"unk_token", nullptr},
                            {"continuing_subword_prefix", nullptr},
                            {"end_of_word_suffix", nullptr},
                            {"fuse_unk", false},
                            {"vocab", vocab},
                            {"merges", Json::array()}}}};
  std::ofstream(dir / "tokenizer.json") << tokenizer;
  std::ofstream(dir / "tokenizer_config.json") << Json{{"eos_token", "<eos>"}};
}

// Of StepForm::gradients, by its published name; null where this rank does not hold it.
inline Tensor* gradient_of(const std::vector<NamedParameter<Tensor>>& gradients,
                           const std::string& name) {
  for (const auto& [spec, leaf] : gradients)
    if (spec.name == name) return leaf;
  return nullptr;
}

class TrainingRun : public testing::Test {
 protected:
  using Json = nlohmann::ordered_json;
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "minke-run-XXXXXX").string();
    dir_ = mkdtemp(pattern.data());
    set_log_level(LogLevel::Silent);
    write_byte_tokenizer(dir_ / "tokenizer");
    std::ofstream text(dir_ / "text.jsonl");
    for (int i = 0; i < 40; ++i) {
      std::string words;
      for (int k = 0; k < 30; ++k) words += "word" + std::to_string((i * 7 + k * k) % 23) + " ";
      text << Json{{"text", words}, {"source", i % 2 ? "odd" : "even"}} << "\n";
    }
  }
  void TearDown() override {
    set_threads(available_cores());
    set_log_level(LogLevel::Info);
    std::filesystem::remove_all(dir_);
  }

  Recipe recipe(const std::string& out, const std::vector<std::string>& changes = {}) {
    const Json json = {{"steps", 6},
                       {"eval_every", 2},
                       {"model",
                        {{"hidden_size", 24},
                         {"intermediate_size", 32},
                         {"moe_intermediate_size", 8},
                         {"num_hidden_layers", 2},
                         {"num_attention_heads", 2},
                         {"q_lora_rank", 12},
                         {"kv_lora_rank", 8},
                         {"qk_nope_head_dim", 8},
                         {"qk_rope_head_dim", 4},
                         {"v_head_dim", 8},
                         {"n_routed_experts", 6},
                         {"num_experts_per_tok", 2}}},
                       {"data",
                        {{"paths", {(dir_ / "text.jsonl").string()}},
                         {"tokenizer", (dir_ / "tokenizer").string()},
                         {"sequence_length", 16},
                         {"batch_size", 4},
                         {"micro_batch", 2},
                         {"held_out_fraction", 0.1},
                         {"held_out_rows", 4}}},
                       {"optimizer", {{"warmup_steps", 2}}}};
    std::ofstream(dir_ / "recipe.json") << json;
    std::vector<std::string> settings{"out=" + (dir_ / out).string()};
    settings.insert(settings.end(), changes.begin(), changes.end());
    return Recipe::load(dir_ / "recipe.json", settings);
  }

  // A recipe that starts from the model directory `base`, to "from-BASE".
  Recipe started_from(const std::string& base, std::vector<std::string> changes = {}) {
    recipe("unused");
    Json json = Json::parse(read_file(dir_ / "recipe.json"));
    json.erase("model");
    json["init_from"] = (dir_ / base).string();
    std::ofstream(dir_ / "further.json") << json;
    changes.push_back("out=" + (dir_ / ("from-" + base)).string());
    return Recipe::load(dir_ / "further.json", changes);
  }

  static void run(const Recipe& recipe, const RunOptions& options = {}) {
    run_training(recipe, options, [] { return false; });
  }
  static std::string error_of(const Recipe& recipe, const RunOptions& options = {}) {
    try {
      run(recipe, options);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  // `to`: the model of `from`, with attention in `layer` whose weights are finite and sums are not.
  void save_with_overflow(const std::string& from, std::size_t layer, const std::string& to) const {
    ModelConfig config;
    ModelParameters<Tensor> masters = load_masters(dir_ / from, config);
    auto& attention = masters.layers[layer].self_attn;
    for (Index i = 0; i < attention.kv_b_proj.size(); ++i) attention.kv_b_proj.flat()(i) *= 1e10f;
    for (Index i = 0; i < attention.o_proj.size(); ++i) attention.o_proj.flat()(i) = 1e38f;
    std::filesystem::create_directories(dir_ / to);
    save_model(dir_ / to, config, masters, SaveDType::F32);
  }

  // Bytes by the names of tensors, in however many files.
  static std::map<std::string, std::string> tensors(const std::filesystem::path& directory,
                                                    const std::string& prefix) {
    std::map<std::string, std::string> tensors;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      const std::string name = entry.path().filename().string();
      if (!name.starts_with(prefix) || !name.ends_with(".safetensors")) continue;
      const SafetensorsFile file = SafetensorsFile::open(entry.path());
      for (const TensorInfo& info : file.tensors()) {
        const std::span<const std::byte> bytes = file.bytes(info);
        const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        EXPECT_TRUE(tensors.emplace(info.name, text).second) << info.name << " twice";
      }
    }
    return tensors;
  }

  // Every tensor of a checkpoint but for averages, and metrics without times and traffic.
  std::string state(const std::string& out, int step) const {
    const std::filesystem::path run = dir_ / (out + ".run");
    const std::filesystem::path checkpoint = run / "checkpoints" / ("step-" + std::to_string(step));
    std::string text;
    for (const char* prefix : {"model", "optimizer"})
      for (const auto& [name, bytes] : tensors(checkpoint, prefix)) text += name + bytes;
    return text + metrics(out);
  }
  std::string metrics(const std::string& out) const {
    std::ifstream lines(dir_ / (out + ".run") / "metrics.jsonl");
    std::string text;
    for (std::string line; std::getline(lines, line);) {
      Json json = Json::parse(line);
      if (json.contains("start")) continue;
      json.erase("tokens_per_s");
      json.erase("sent_bytes_per_token");  // of several ranks alone
      text += json.dump() + "\n";
    }
    return text;
  }

  // The lines of metrics.jsonl that have `key`.
  std::vector<Json> lines_with(const std::string& out, const std::string& key) const {
    std::istringstream text(metrics(out));
    std::vector<Json> lines;
    for (std::string line; std::getline(text, line);)
      if (Json json = Json::parse(line); json.contains(key)) lines.push_back(std::move(json));
    return lines;
  }

  std::filesystem::path dir_;
};

}  // namespace minke
