#include "text/pre_tokenizer.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/published_split.h"

namespace minke {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMostStages = 32;
// ByteLevel's own pattern, used when `use_regex` is true.
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

[[noreturn]] void refuse(std::string_view field, std::string_view what) {
  throw FormatError(fmt::format("{}: {}", field, what));
}

std::string type_of(const Json& value, const std::string& field) {
  if (!value.is_object() || !value.contains("type") || !value["type"].is_string())
    refuse(field, "expected an object with a string \"type\"");
  return value["type"];
}

bool flag(const Json& value, const std::string& field, const char* key, bool otherwise) {
  if (!value.contains(key)) return otherwise;
  if (!value[key].is_boolean()) refuse(field + "." + key, "expected true or false");
  return value[key];
}

SplitBehavior behavior_of(const Json& value, const std::string& field) {
  const Json name = value.value("behavior", Json());
  if (name == "Removed") return SplitBehavior::Removed;
  if (name == "Isolated") return SplitBehavior::Isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::MergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::MergedWithNext;
  if (name == "Contiguous") return SplitBehavior::Contiguous;
  refuse(field + ".behavior",
         fmt::format("{} is not known; expected Removed, Isolated, MergedWithPrevious, "
                     "MergedWithNext or Contiguous",
                     name.dump()));
}

SplitRule split_rule(const Json& value, const std::string& field) {
  const Json pattern = value.value("pattern", Json());
  const bool regex = pattern.is_object() && pattern.contains("Regex");
  const char* key = regex ? "Regex" : "String";
  if (!pattern.is_object() || !pattern.contains(key) || !pattern[key].is_string())
    refuse(field + ".pattern", "expected {\"Regex\": string} or {\"String\": string}");
  const std::string text = pattern[key];
  return {regex ? text : regex_of_literal(text), behavior_of(value, field),
          flag(value, field, "invert", false)};
}

void add_rules(const Json& value, const std::string& field, std::vector<SplitRule>& rules,
               bool& byte_level) {
  const std::string type = type_of(value, field);
  if (byte_level) refuse(field, "nothing may follow ByteLevel");
  if (type == "Split") {
    rules.push_back(split_rule(value, field));
  } else if (type == "Digits") {
    rules.push_back({R"(\p{N})", flag(value, field, "individual_digits", false)
                                     ? SplitBehavior::Isolated
                                     : SplitBehavior::Contiguous});
  } else if (type == "ByteLevel") {
    if (flag(value, field, "add_prefix_space", true))
      refuse(field + ".add_prefix_space", "true is not supported; expected false");
    if (flag(value, field, "use_regex", true)) rules.push_back({std::string(kByteLevelPattern)});
    byte_level = true;
  } else {
    refuse(field, fmt::format("type '{}' is not supported; expected Sequence, Split, Digits or "
                              "ByteLevel",
                              type));
  }
}

bool is_published(const std::vector<SplitRule>& rules) {
  if (rules.size() != kPublishedPatterns.size()) return false;
  for (std::size_t i = 0; i < rules.size(); ++i)
    if (rules[i].pattern != kPublishedPatterns[i] || rules[i].invert ||
        rules[i].behavior != SplitBehavior::Isolated)
      return false;
  return true;
}

}  // namespace

PreTokenizer PreTokenizer::from_json(const Json& value) {
  std::vector<SplitRule> rules;
  bool byte_level = false;
  const std::string field = "pre_tokenizer";
  if (value.is_null()) refuse(field, "is null; expected a Sequence that ends in ByteLevel");
  if (type_of(value, field) == "Sequence") {
    const Json parts = value.value("pretokenizers", Json());
    if (!parts.is_array()) refuse(field + ".pretokenizers", "expected an array");
    if (parts.size() > kMostStages)
      refuse(field + ".pretokenizers",
             fmt::format("holds {} parts; expected at most {}", parts.size(), kMostStages));
    for (std::size_t i = 0; i < parts.size(); ++i)
      add_rules(parts[i], fmt::format("{}.pretokenizers[{}]", field, i), rules, byte_level);
  } else {
    add_rules(value, field, rules, byte_level);
  }
  if (!byte_level) refuse(field, "has no ByteLevel part; only byte-level tokenizers are supported");
  return is_published(rules) ? published() : from_rules(rules);
}

PreTokenizer PreTokenizer::published() {
  PreTokenizer out;
  out.scanner_ = true;
  return out;
}

PreTokenizer PreTokenizer::from_rules(const std::vector<SplitRule>& rules) {
  PreTokenizer out;
  for (const SplitRule& rule : rules) out.stages_.emplace_back(rule);
  return out;
}

void PreTokenizer::split(std::string_view text, FunctionRef<void(std::string_view)> piece) const {
  if (text.empty()) return;
  if (scanner_) return split_published(text, piece);
  if (stages_.empty()) return piece(text);
  SplitRegex::Scratch scratch;
  split_from(0, text, scratch, piece);
}

void PreTokenizer::split_from(std::size_t stage, std::string_view text,
                              SplitRegex::Scratch& scratch,
                              FunctionRef<void(std::string_view)> piece) const {
  if (stage == stages_.size()) return piece(text);
  stages_[stage].split(text, scratch,
                       [&](std::string_view part) { split_from(stage + 1, part, scratch, piece); });
}

}  // namespace minke
