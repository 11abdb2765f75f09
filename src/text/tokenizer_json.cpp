// Tokenizer::load: tokenizer.json (7.8 MB for DeepSeek-V3, hence simdjson) and
// tokenizer_config.json.
#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "text/tokenizer.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Element = simdjson::dom::element;

constexpr std::int64_t kMostIds = 1 << 24;

// One above the largest id. Ids may have holes, but memory is taken for each of them.
std::int64_t id_limit(std::size_t n_pieces) {
  return std::min(kMostIds, static_cast<std::int64_t>(4 * n_pieces) + 65536);
}

[[noreturn]] void fail(const std::string& field, const std::string& what) {
  throw FormatError(field + ": " + what);
}

// `object[key]`, or nothing when it is absent or null.
std::optional<Element> field_of(simdjson::dom::object object, const char* key) {
  Element value;
  if (object.at_key(key).get(value) || value.is_null()) return std::nullopt;
  return value;
}

std::string_view string_of(Element value, const std::string& field) {
  std::string_view text;
  if (value.get(text)) fail(field, "expected a string");
  return text;
}

bool bool_of(simdjson::dom::object object, const char* key, const std::string& field) {
  const auto value = field_of(object, key);
  bool flag = false;
  if (value && value->get(flag)) fail(field + "." + key, "expected true or false");
  return flag;
}

std::int32_t id_of(Element value, const std::string& field, std::int64_t limit) {
  std::int64_t id;
  if (value.get(id)) fail(field, "expected an integer id");
  if (id < 0 || id >= limit)
    fail(field, fmt::format("id {} is out of range; expected 0 to {}", id, limit - 1));
  return static_cast<std::int32_t>(id);
}

void refuse_unless(bool supported, const std::string& field, const std::string& expected) {
  if (!supported) fail(field, "is not supported; expected " + expected);
}

// Settings that change ids or text and are not implemented.
void check_pipeline(const Json& root) {
  for (const char* key : {"truncation", "padding"})
    refuse_unless(root.value(key, Json()).is_null(), key, "null");
  const Json normalizer = root.value("normalizer", Json());
  refuse_unless(normalizer.is_null() ||
                    (normalizer.is_object() && normalizer.value("type", Json()) == "Sequence" &&
                     normalizer.value("normalizers", Json()) == Json::array()),
                "normalizer", "null or an empty Sequence");
  const Json decoder = root.value("decoder", Json());
  refuse_unless(decoder.is_object() && decoder.value("type", Json()) == "ByteLevel", "decoder",
                "type ByteLevel");
  const Json post = root.value("post_processor", Json());
  const Json type = post.is_object() ? post.value("type", Json()) : Json();
  // Neither changes the ids of text to which nothing is added.
  refuse_unless(post.is_null() || type == "ByteLevel" || type == "TemplateProcessing",
                "post_processor", "null, ByteLevel or TemplateProcessing");
}

void check_model(simdjson::dom::object model) {
  if (const auto type = field_of(model, "type"))
    refuse_unless(string_of(*type, "model.type") == "BPE", "model.type", "\"BPE\"");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (const auto text = field_of(model, key))
      refuse_unless(string_of(*text, fmt::format("model.{}", key)).empty(),
                    fmt::format("model.{}", key), "null or \"\"");
  if (const auto dropout = field_of(model, "dropout")) {
    double rate = 1;
    refuse_unless(!dropout->get(rate) && rate == 0, "model.dropout", "null");
  }
  refuse_unless(!bool_of(model, "byte_fallback", "model"), "model.byte_fallback", "false");
  // unk_token and fuse_unk never take part: every byte has a piece.
}

std::vector<std::string> read_vocab(simdjson::dom::object model,
                                    std::unordered_map<std::string_view, std::int32_t>& ids) {
  const auto value = field_of(model, "vocab");
  simdjson::dom::object vocab;
  if (!value || value->get(vocab)) fail("model.vocab", "expected an object of piece to id");
  std::vector<std::string> out;
  const std::int64_t limit = id_limit(vocab.size());
  for (const auto [content, value] : vocab) {
    const std::string field = fmt::format("model.vocab[\"{}\"]", content);
    const std::int32_t id = id_of(value, field, limit);
    if (content.empty()) fail(field, "an empty piece; expected at least one letter");
    if (static_cast<std::size_t>(id) >= out.size()) out.resize(id + 1);
    if (!out[id].empty())
      fail(field, fmt::format("id {} is already that of '{}'; expected each id once", id, out[id]));
    out[id] = content;
    if (!ids.emplace(content, id).second) fail(field, "the piece stands twice; expected it once");
  }
  return out;
}

std::vector<Merge> read_merges(simdjson::dom::object model,
                               const std::unordered_map<std::string_view, std::int32_t>& ids) {
  const auto value = field_of(model, "merges");
  simdjson::dom::array list;
  if (!value || value->get(list))
    fail("model.merges",
         "is missing or not an array; expected \"left right\" strings: without "
         "them text cannot be encoded");
  std::vector<Merge> out;
  std::string joined;
  for (const Element entry : list) {
    const auto field = [&] { return fmt::format("model.merges[{}]", out.size()); };
    std::string_view left, right;
    if (std::string_view text; !entry.get(text)) {
      const std::size_t space = text.find(' ');
      if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos)
        fail(field(), fmt::format("'{}': expected two pieces separated by a space", text));
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else {
      simdjson::dom::array pair;
      if (entry.get(pair) || pair.size() != 2 || pair.at(0).get(left) || pair.at(1).get(right))
        fail(field(), "expected \"left right\" or [\"left\", \"right\"]");
    }
    joined.assign(left).append(right);
    Merge merge;
    for (const auto& [piece, id] : {std::pair<std::string_view, std::int32_t*>{left, &merge.left},
                                    {right, &merge.right},
                                    {joined, &merge.joined}}) {
      const auto found = ids.find(piece);
      if (found == ids.end()) fail(field(), fmt::format("piece '{}' is not in model.vocab", piece));
      *id = found->second;
    }
    out.push_back(merge);
  }
  return out;
}

std::vector<AddedToken> read_added_tokens(simdjson::dom::object root, std::size_t n_pieces) {
  std::vector<AddedToken> out;
  const auto value = field_of(root, "added_tokens");
  if (!value) return out;
  simdjson::dom::array list;
  if (value->get(list)) fail("added_tokens", "expected an array");
  const std::int64_t limit = id_limit(n_pieces + list.size());
  for (const Element entry : list) {
    const std::string field = fmt::format("added_tokens[{}]", out.size());
    simdjson::dom::object object;
    if (entry.get(object)) fail(field, "expected an object");
    const auto id = field_of(object, "id");
    const auto content = field_of(object, "content");
    if (!id || !content) fail(field, "expected an id and a content");
    for (const char* key : {"lstrip", "rstrip", "single_word"})
      refuse_unless(!bool_of(object, key, field), field + "." + key, "false");
    out.push_back({id_of(*id, field + ".id", limit),
                   std::string(string_of(*content, field + ".content")),
                   bool_of(object, "special", field), bool_of(object, "normalized", field)});
    if (out.back().content.empty()) fail(field + ".content", "is empty");
  }
  return out;
}

TokenizerParts read_tokenizer(const std::string& text) {
  simdjson::dom::parser parser;
  Element document;
  if (const auto error = parser.parse(text).get(document))
    throw FormatError(
        fmt::format("is not JSON ({}); is the file whole?", simdjson::error_message(error)));
  simdjson::dom::object root, model;
  if (document.get(root)) throw FormatError("expected a JSON object");
  Json small = Json::object();  // all but the two long parts
  for (const auto [key, value] : root)
    if (key != "model" && key != "added_tokens")
      small[std::string(key)] = parse_json(simdjson::minify(value));
  check_pipeline(small);
  const auto value = field_of(root, "model");
  if (!value || value->get(model)) fail("model", "expected an object");
  check_model(model);

  TokenizerParts parts;
  std::unordered_map<std::string_view, std::int32_t> ids;
  parts.vocab = read_vocab(model, ids);
  parts.merges = read_merges(model, ids);
  parts.added_tokens = read_added_tokens(root, ids.size());
  parts.pre_tokenizer = PreTokenizer::from_json(small.value("pre_tokenizer", Json()));
  parts.ignore_merges = bool_of(model, "ignore_merges", "model");
  if (parts.merges.empty() && ids.size() > 256 + parts.added_tokens.size())
    fail("model.merges",
         "is empty though model.vocab holds pieces of several bytes; expected the "
         "merges that make them");
  return parts;
}

std::optional<std::string> configured_token(const Json& config, const char* key) {
  const Json value = config.value(key, Json());
  if (value.is_null()) return std::nullopt;
  const Json content = value.is_object() ? value.value("content", Json()) : value;
  if (!content.is_string())
    fail(key, "expected a string, null or an object with a string \"content\"");
  return content.get<std::string>();
}

TokenizerConfig read_config(const std::string& text) {
  const Json root = parse_json(text);
  if (!root.is_object()) throw FormatError("expected a JSON object");
  TokenizerConfig config;
  config.bos_token = configured_token(root, "bos_token");
  config.eos_token = configured_token(root, "eos_token");
  config.pad_token = configured_token(root, "pad_token");
  const Json add_bos = root.value("add_bos_token", Json(false));
  if (!add_bos.is_boolean() && !add_bos.is_null()) fail("add_bos_token", "expected true or false");
  config.add_bos_token = add_bos == true;
  return config;
}

// What `read` throws about the text gets the file's name in front.
template <class Read>
auto named(const fs::path& path, Read read) {
  try {
    return read();
  } catch (const FormatError& e) {
    throw FormatError(path.string() + ": " + e.what());
  } catch (const Json::exception& e) {
    throw FormatError(path.string() + ": " + e.what());
  }
}

}  // namespace

Tokenizer Tokenizer::load(const fs::path& dir) {
  const fs::path path = dir / "tokenizer.json";
  TokenizerParts parts = named(path, [&] { return read_tokenizer(read_file(path)); });
  TokenizerConfig config;
  const fs::path config_path = dir / "tokenizer_config.json";
  if (fs::exists(config_path))
    config = named(config_path, [&] { return read_config(read_file(config_path)); });
  return named(path, [&] { return Tokenizer(std::move(parts), std::move(config)); });
}

}  // namespace minke
