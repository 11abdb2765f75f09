#include "infer/generation_config.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"

namespace minke {
namespace {

using Json = nlohmann::json;

class Reader {
 public:
  Reader(std::string file, const Json& object) : file_(std::move(file)), object_(object) {}

  [[noreturn]] void fail(const char* key, const Json& found, std::string_view expected) const {
    throw FormatError(fmt::format("{}: {} is {}; expected {}", file_, key,
                                  found.dump(-1, ' ', false, Json::error_handler_t::replace),
                                  expected));
  }
  const Json* find(const char* key) const {
    const auto at = object_.find(key);
    return at == object_.end() || at->is_null() ? nullptr : &*at;
  }
  void read(const char* key, std::optional<double>& to) const {
    const Json* value = find(key);
    if (!value) return;
    if (!value->is_number()) fail(key, *value, "a number");
    to = value->get<double>();
  }
  void read(const char* key, std::optional<std::int64_t>& to) const {
    const Json* value = find(key);
    if (!value) return;
    if (!value->is_number_integer()) fail(key, *value, "an integer");
    to = value->get<std::int64_t>();
  }
  void read(const char* key, std::optional<bool>& to) const {
    const Json* value = find(key);
    if (!value) return;
    if (!value->is_boolean()) fail(key, *value, "true or false");
    to = value->get<bool>();
  }
  void read_ids(const char* key, std::vector<std::int32_t>& to) const {
    const Json* value = find(key);
    if (!value) return;
    const Json list = value->is_array() ? *value : Json::array({*value});
    for (const Json& id : list) {
      if (!id.is_number_integer() || id.get<std::int64_t>() < 0 ||
          id.get<std::int64_t>() > std::numeric_limits<std::int32_t>::max())
        fail(key, *value, "a token id or a list of token ids");
      to.push_back(id.get<std::int32_t>());
    }
  }

 private:
  std::string file_;
  const Json& object_;
};

}  // namespace

GenerationConfig GenerationConfig::load(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "generation_config.json";
  GenerationConfig config;
  if (!std::filesystem::exists(path)) return config;
  const Json json = read_json(path, std::size_t{1} << 20);
  if (!json.is_object())
    throw FormatError(fmt::format("{}: not a JSON object; mend or remove it", path.string()));
  const Reader reader(path.string(), json);
  reader.read("do_sample", config.do_sample);
  reader.read("temperature", config.temperature);
  reader.read("top_k", config.top_k);
  reader.read("top_p", config.top_p);
  reader.read("min_p", config.min_p);
  reader.read("repetition_penalty", config.repetition_penalty);
  reader.read_ids("eos_token_id", config.eos_token_ids);
  config.sampler_defaults().check(path.string());
  return config;
}

SamplerSettings GenerationConfig::sampler_defaults() const {
  SamplerSettings s;
  s.temperature = do_sample == false ? 0 : temperature.value_or(s.temperature);
  s.top_k = top_k.value_or(s.top_k);
  s.top_p = top_p.value_or(s.top_p);
  s.min_p = min_p.value_or(s.min_p);
  s.repetition_penalty = repetition_penalty.value_or(s.repetition_penalty);
  return s;
}

}  // namespace minke
