// TrainedTokenizer as the two files that Hugging Face's libraries read, and as a Tokenizer.
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "text/bpe_trainer.h"
#include "text/chat_template.h"
#include "text/published_split.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

TokenizerConfig config_of(const TrainedTokenizer& t) {
  return {t.added_tokens[0].content, t.added_tokens[1].content, t.added_tokens[2].content, true};
}

Json byte_level(bool add_prefix_space, bool trim_offsets, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", trim_offsets},
          {"use_regex", use_regex}};
}

Json tokenizer_json(const TrainedTokenizer& t) {
  Json added = Json::array();
  for (const AddedToken& token : t.added_tokens)
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", token.normalized},
                     {"special", token.special}});
  Json splits = Json::array();
  for (const std::string_view pattern : kPublishedPatterns)
    splits.push_back({{"type", "Split"},
                      {"pattern", {{"Regex", pattern}}},
                      {"behavior", "Isolated"},
                      {"invert", false}});
  splits.push_back(byte_level(false, true, false));
  // Appended one by one: ordered_json looks through all keys at every [].
  Json vocab = Json::object();
  auto& entries = vocab.get_ref<Json::object_t&>();
  for (std::size_t id = 0; id < t.vocab.size(); ++id)
    static_cast<std::vector<Json::object_t::value_type>&>(entries).emplace_back(t.vocab[id], id);
  Json merges = Json::array();
  for (const Merge& m : t.merges) merges.push_back(t.vocab[m.left] + " " + t.vocab[m.right]);
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", {{"type", "Sequence"}, {"normalizers", Json::array()}}},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", splits}}},
          {"post_processor", byte_level(true, false, true)},
          {"decoder", byte_level(true, true, true)},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"vocab", vocab},
            {"merges", merges}}}};
}

Json config_json(const TrainedTokenizer& t) {
  const TokenizerConfig config = config_of(t);
  return {{"add_bos_token", config.add_bos_token},
          {"add_eos_token", false},
          {"bos_token", *config.bos_token},
          {"clean_up_tokenization_spaces", false},
          {"eos_token", *config.eos_token},
          {"pad_token", *config.pad_token},
          {"tokenizer_class", "PreTrainedTokenizerFast"},
          {"unk_token", nullptr},
          {"chat_template", ChatTemplate::named("deepseek-v3").jinja()}};
}

}  // namespace

Tokenizer TrainedTokenizer::tokenizer() const {
  TokenizerParts parts;
  parts.vocab = vocab;
  parts.merges = merges;
  parts.added_tokens = added_tokens;
  return Tokenizer(std::move(parts), config_of(*this));
}

void write_tokenizer(const fs::path& dir, const TrainedTokenizer& tokenizer) {
  std::error_code error;
  fs::create_directories(dir, error);  // what fails here fails below, with a better message
  write_file_atomic(dir / "tokenizer.json", tokenizer_json(tokenizer).dump(1) + "\n");
  write_file_atomic(dir / "tokenizer_config.json", config_json(tokenizer).dump(2) + "\n");
}

}  // namespace minke
