#include "text/json_schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/json_terminals.h"
#include "text/pattern.h"

namespace minke {
namespace {

using Json = nlohmann::ordered_json;
using Keywords = std::vector<std::string_view>;

constexpr int kDeepestReference = 16;
constexpr int kDeepestSchema = 128;
constexpr std::uint64_t kLargestCount = 1u << 30;  // of lengths and items

const Keywords kAnnotations = {"title",      "description", "default",    "examples",
                               "deprecated", "readOnly",    "writeOnly",  "$comment",
                               "$schema",    "$defs",       "definitions"};
const Keywords kObject = {"properties", "required", "additionalProperties"};
const Keywords kArray = {"items", "prefixItems", "minItems", "maxItems"};
const Keywords kString = {"minLength", "maxLength", "pattern"};
const Keywords kNumber = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"};
const Keywords kChoice = {"type", "enum", "const", "anyOf", "$ref"};

bool contains(const Keywords& keywords, std::string_view name) {
  return std::find(keywords.begin(), keywords.end(), name) != keywords.end();
}

bool has_any(const Json& schema, const Keywords& keywords) {
  return std::any_of(keywords.begin(), keywords.end(),
                     [&](std::string_view k) { return schema.contains(k); });
}

bool has_type(const Json& value, const std::string& type) {
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  return type == value.type_name();
}

[[noreturn]] void fail(const std::string& place, const std::string& what) {
  throw ConfigError(fmt::format("{}: {}", place, what));
}

class SchemaCompiler {
 public:
  SchemaCompiler(Grammar& grammar, const Json& root, std::string where, SchemaBudget& budget)
      : grammar_(grammar), root_(root), where_(std::move(where)), budget_(budget) {}

  RuleId compile() { return add(root_, where_); }

 private:
  // -- limits

  static void charge(std::size_t& budget, std::size_t amount, const std::string& place,
                     std::string_view what) {
    if (amount > budget) fail(place, fmt::format("the schema {}; make it smaller", what));
    budget -= amount;
  }
  void charge_part(const std::string& place) {
    charge(budget_.parts, 1, place, "has too many parts (schemas and values)");
  }
  void charge_text(std::size_t bytes, const std::string& place) {
    charge(budget_.text, bytes, place, "has too long names and values");
  }
  // An automaton with its place in errors; equal ones are made once.
  RuleId add_automaton(const std::string& key, const std::string& place,
                       const std::function<ByteDfa()>& make) {
    const auto found = automata_.find(key);
    if (found != automata_.end()) return found->second;
    ByteDfa dfa;
    try {
      dfa = make();
    } catch (const ConfigError& e) {
      fail(place, e.what());
    }
    charge(budget_.states, dfa.size(), place, "has too complex patterns and bounds");
    auto shared = std::make_shared<const ByteDfa>(std::move(dfa));
    const RuleId id = grammar_.add({TerminalRule{.dfa = std::move(shared), .inside = {}}});
    return automata_[key] = id;
  }

  // -- any schema

  RuleId add(const Json& schema, const std::string& place) {
    charge_part(place);
    if (schema.is_boolean())
      return schema.get<bool>() ? grammar_.any_value() : grammar_.add({AnyOfRule{}});
    if (!schema.is_object()) fail(place, "expected a schema: an object, true or false");
    if (++depth_ > kDeepestSchema) fail(place, "the schema is nested too deep");
    const RuleId id = add_object_schema(schema, place);
    --depth_;
    return id;
  }

  RuleId add_object_schema(const Json& schema, const std::string& place) {
    for (const auto& [name, value] : schema.items()) {
      const bool known = contains(kAnnotations, name) || contains(kObject, name) ||
                         contains(kArray, name) || contains(kString, name) ||
                         contains(kNumber, name) || contains(kChoice, name);
      if (!known) fail(place, fmt::format("keyword \"{}\" is not supported", name));
    }
    if (schema.contains("$ref")) return add_reference(alone(schema, "$ref", {}, place), place);
    if (schema.contains("anyOf")) return add_any_of(alone(schema, "anyOf", {}, place), place);
    if (schema.contains("const"))
      return add_values(schema, Json::array({alone(schema, "const", {"type"}, place)}), place);
    if (schema.contains("enum"))
      return add_values(schema, alone(schema, "enum", {"type"}, place), place);
    return add_types(schema, place);
  }

  // schema[keyword], beside which only annotations and `others` may stand.
  static const Json& alone(const Json& schema, std::string_view keyword, const Keywords& others,
                           const std::string& place) {
    for (const auto& [name, value] : schema.items())
      if (name != keyword && !contains(kAnnotations, name) && !contains(others, name))
        fail(place, fmt::format("keyword \"{}\" beside \"{}\" is not supported", name, keyword));
    return schema.at(std::string(keyword));
  }

  RuleId add_reference(const Json& reference, const std::string& place) {
    const std::string text = reference.is_string() ? reference.get<std::string>() : "";
    if (text.empty() || text[0] != '#')
      fail(place, "$ref: expected \"#\" or \"#/...\", a place in this schema");
    if (const auto known = references_.find(text); known != references_.end()) return known->second;
    if (reference_depth_ == kDeepestReference)
      fail(place,
           fmt::format("$ref \"{}\" is more than {} references deep", text, kDeepestReference));
    const Json& target = resolve(text, place);
    const RuleId id = grammar_.reserve();
    references_[text] = id;
    ++reference_depth_;
    std::string target_place = where_ + text.substr(1);
    std::replace(target_place.begin() + static_cast<std::ptrdiff_t>(where_.size()),
                 target_place.end(), '/', '.');
    const RuleId meant = add(target, target_place);
    grammar_.set(id, {AnyOfRule{{meant}}});
    --reference_depth_;
    return id;
  }

  const Json& resolve(const std::string& text, const std::string& place) const {
    try {
      const Json::json_pointer pointer(text.substr(1));
      if (root_.contains(pointer)) return root_.at(pointer);
    } catch (const Json::exception&) {  // not a pointer: reported as what it does not find
    }
    fail(place, fmt::format("$ref \"{}\" leads nowhere in this schema", text));
  }

  RuleId add_any_of(const Json& list, const std::string& place) {
    if (!list.is_array() || list.empty()) fail(place, "anyOf: expected a list of schemas");
    AnyOfRule rule;
    for (std::size_t i = 0; i < list.size(); ++i)
      rule.parts.push_back(add(list[i], fmt::format("{}.anyOf[{}]", place, i)));
    return grammar_.add({std::move(rule)});
  }

  RuleId add_values(const Json& schema, const Json& values, const std::string& place) {
    if (!values.is_array()) fail(place, "enum: expected a list of values");
    const std::vector<std::string> types =
        schema.contains("type") ? types_of(schema, place) : std::vector<std::string>();
    LiteralsRule rule;
    for (const Json& value : values) {
      charge_part(place);
      const auto is = [&](const std::string& type) { return has_type(value, type); };
      if (!types.empty() && std::none_of(types.begin(), types.end(), is)) continue;
      rule.texts.push_back(value.dump());
      charge_text(rule.texts.back().size(), place);
    }
    if (rule.texts.empty()) fail(place, "no value is left by enum, const and type");
    std::sort(rule.texts.begin(), rule.texts.end());
    rule.texts.erase(std::unique(rule.texts.begin(), rule.texts.end()), rule.texts.end());
    return grammar_.add({std::move(rule)});
  }

  // -- types

  static std::vector<std::string> types_of(const Json& schema, const std::string& place) {
    const Json& type = schema.at("type");
    const Json list = type.is_array() ? type : Json::array({type});
    std::vector<std::string> out;
    for (const Json& name : list) {
      if (!name.is_string()) fail(place, "type: expected a name or a list of names");
      out.push_back(name);
    }
    if (out.empty()) fail(place, "type: the list is empty");
    return out;
  }

  RuleId add_types(const Json& schema, const std::string& place) {
    std::vector<std::string> types;
    if (schema.contains("type")) {
      types = types_of(schema, place);
    } else {
      if (has_any(schema, kObject)) types.push_back("object");
      if (has_any(schema, kArray)) types.push_back("array");
      if (has_any(schema, kString)) types.push_back("string");
      if (has_any(schema, kNumber)) types.push_back("number");
      if (types.empty()) return grammar_.any_value();
    }
    if (types.size() == 1) return add_type(schema, types[0], place);
    AnyOfRule rule;
    for (const std::string& type : types) rule.parts.push_back(add_type(schema, type, place));
    return grammar_.add({std::move(rule)});
  }

  RuleId add_type(const Json& schema, const std::string& type, const std::string& place) {
    if (type == "object") return add_object(schema, place);
    if (type == "array") return add_array(schema, place);
    if (type == "string") return add_string(schema, place);
    if (type == "number" || type == "integer") return add_number(schema, type, place);
    if (type == "boolean") return grammar_.add({LiteralsRule{{"false", "true"}, {}}});
    if (type == "null") return grammar_.literal("null");
    fail(place, fmt::format("type \"{}\" is not one of JSON Schema", type));
  }

  static std::optional<std::uint32_t> count_of(const Json& schema, const char* keyword,
                                               const std::string& place) {
    if (!schema.contains(keyword)) return std::nullopt;
    const Json& value = schema.at(keyword);
    const bool is_count =
        value.is_number_unsigned() || (value.is_number_integer() && value.get<std::int64_t>() >= 0);
    if (!is_count || value.get<std::uint64_t>() > kLargestCount)
      fail(place, fmt::format("{}: expected an integer from 0 to {}", keyword, kLargestCount));
    return value.get<std::uint32_t>();
  }

  RuleId add_string(const Json& schema, const std::string& place) {
    const std::optional<std::uint32_t> min = count_of(schema, "minLength", place);
    const std::optional<std::uint32_t> max = count_of(schema, "maxLength", place);
    if (max && min.value_or(0) > *max) fail(place, "minLength is above maxLength");
    if (schema.contains("pattern")) {
      const Json& pattern = schema.at("pattern");
      if (!pattern.is_string()) fail(place, "pattern: expected a string");
      const std::string text = pattern;
      const LengthBounds length{min.value_or(0), max};
      return add_automaton(
          fmt::format("pattern {} {} {}", length.min, max.value_or(kUnbounded), text),
          place + ".pattern", [&] {
            std::size_t& work = budget_.pattern_work;
            return string_matching(compile_pattern(text, work), length, work);
          });
    }
    if (!min && !max) return grammar_.any_string();
    TerminalRule rule = std::get<TerminalRule>(grammar_.rule(grammar_.any_string()).body);
    rule.min = min.value_or(0);
    rule.max = max.value_or(kUnbounded);
    return grammar_.add({std::move(rule)});
  }

  static std::optional<Decimal> bound_of(const Json& schema, const char* keyword, bool exclusive,
                                         const std::string& place) {
    if (!schema.contains(keyword)) return std::nullopt;
    if (!schema.at(keyword).is_number()) fail(place, fmt::format("{}: expected a number", keyword));
    return decimal_of(schema.at(keyword), exclusive);
  }

  RuleId add_number(const Json& schema, const std::string& type, const std::string& place) {
    const auto above = bound_of(schema, "exclusiveMinimum", true, place);
    const auto below = bound_of(schema, "exclusiveMaximum", true, place);
    NumberBounds bounds{bound_of(schema, "minimum", false, place),
                        bound_of(schema, "maximum", false, place)};
    if (above && (!bounds.min || !is_below(*above, *bounds.min))) bounds.min = above;
    if (below && (!bounds.max || !is_below(*bounds.max, *below))) bounds.max = below;
    const auto text = [](const std::optional<Decimal>& d) {
      if (!d) return std::string();
      return fmt::format("{}{}.{}{}", d->negative ? "-" : "", d->whole, d->fraction,
                         d->exclusive ? "!" : "");
    };
    return add_automaton(
        fmt::format("{} {} {}", type, text(bounds.min), text(bounds.max)), place,
        [&] { return type == "integer" ? integer_within(bounds) : number_within(bounds); });
  }

  RuleId add_array(const Json& schema, const std::string& place) {
    ArrayRule rule;
    rule.min = count_of(schema, "minItems", place).value_or(0);
    rule.max = count_of(schema, "maxItems", place).value_or(kUnbounded);
    if (rule.min > rule.max) fail(place, "minItems is above maxItems");
    if (schema.contains("prefixItems")) {
      const Json& first = schema.at("prefixItems");
      if (!first.is_array()) fail(place, "prefixItems: expected a list of schemas");
      for (std::size_t i = 0; i < first.size(); ++i)
        rule.first.push_back(add(first[i], fmt::format("{}.prefixItems[{}]", place, i)));
    }
    rule.items =
        schema.contains("items") ? add(schema.at("items"), place + ".items") : grammar_.any_value();
    return grammar_.add({std::move(rule)});
  }

  // -- objects

  using Named = std::vector<std::pair<std::string, ObjectRule::Property>>;

  RuleId add_object(const Json& schema, const std::string& place) {
    ObjectRule rule;
    const bool open = !schema.contains("properties") || schema.contains("additionalProperties");
    std::optional<RuleId> other_value;
    if (open)
      other_value = schema.contains("additionalProperties")
                        ? add(schema.at("additionalProperties"), place + ".additionalProperties")
                        : grammar_.any_value();
    const Named named = named_properties(schema, other_value, place);
    std::vector<std::string> names;
    for (const auto& [name, property] : named) {
      names.push_back(name);
      rule.properties.push_back(property);
    }
    sort_keys(rule, names);
    find_required(rule);
    // Additional ones whose value cannot exist (false) are found to fit nowhere.
    if (other_value) rule.others = ObjectRule::Others{add_other_keys(names, place), *other_value};
    return grammar_.add({std::move(rule)});
  }

  // Those of `properties`, then those that are only `required`.
  Named named_properties(const Json& schema, std::optional<RuleId> other_value,
                         const std::string& place) {
    const std::vector<std::string> required = required_names(schema, place);
    std::set<std::string> missing(required.begin(), required.end());
    Named out;
    if (schema.contains("properties")) {
      const Json& properties = schema.at("properties");
      if (!properties.is_object()) fail(place, "properties: expected an object of schemas");
      for (const auto& [name, value] : properties.items()) {
        charge_text(name.size(), place);
        const RuleId id = add(value, fmt::format("{}.properties.{}", place, name));
        out.emplace_back(name, ObjectRule::Property{id, missing.erase(name) > 0});
      }
    }
    for (const std::string& name : required) {
      if (missing.erase(name) == 0) continue;
      if (!other_value)
        fail(place, fmt::format("required names \"{}\", which is not in properties", name));
      charge_text(name.size(), place);
      out.emplace_back(name, ObjectRule::Property{*other_value, true});
    }
    return out;
  }

  std::vector<std::string> required_names(const Json& schema, const std::string& place) {
    std::vector<std::string> out;
    if (!schema.contains("required")) return out;
    const Json& list = schema.at("required");
    if (!list.is_array()) fail(place, "required: expected a list of names");
    for (const Json& name : list) {
      charge_part(place);
      if (!name.is_string()) fail(place, "required: expected a list of names");
      out.push_back(name);
    }
    return out;
  }

  static void sort_keys(ObjectRule& rule, const std::vector<std::string>& names) {
    std::vector<std::pair<std::string, std::uint32_t>> keys;
    for (const std::string& name : names)
      keys.emplace_back(json_quoted(name), static_cast<std::uint32_t>(keys.size()));
    std::sort(keys.begin(), keys.end());
    for (auto& [key, property] : keys) {
      rule.keys.push_back(std::move(key));
      rule.key_property.push_back(property);
    }
  }

  static void find_required(ObjectRule& rule) {
    const auto n = static_cast<std::uint32_t>(rule.properties.size());
    rule.next_required.assign(n + 1, n);
    for (std::uint32_t i = n; i-- > 0;)
      rule.next_required[i] = rule.properties[i].required ? i : rule.next_required[i + 1];
  }

  RuleId add_other_keys(const std::vector<std::string>& names, const std::string& place) {
    if (names.empty()) return grammar_.any_string();
    std::size_t bytes = 0;
    for (const std::string& name : names) bytes += name.size();
    if (bytes > budget_.states)
      fail(place, "too many names beside additionalProperties; set it to false");
    return add_automaton("other than " + Json(names).dump(), place,
                         [&] { return string_other_than(names); });
  }

  Grammar& grammar_;
  const Json& root_;
  std::string where_;
  SchemaBudget& budget_;
  std::map<std::string, RuleId> references_, automata_;
  int depth_ = 0, reference_depth_ = 0;
};

}  // namespace

RuleId add_json_schema(Grammar& grammar, const nlohmann::ordered_json& schema,
                       std::string_view where, SchemaBudget& budget) {
  return SchemaCompiler(grammar, schema, std::string(where), budget).compile();
}

std::shared_ptr<const Grammar> json_schema_grammar(const nlohmann::ordered_json& schema,
                                                   std::string_view where) {
  auto grammar = std::make_shared<Grammar>();
  SchemaBudget budget;
  const RuleId root = add_json_schema(*grammar, schema, where, budget);
  try {
    grammar->finish(root);
  } catch (const ConfigError& e) {
    throw ConfigError(fmt::format("{}: {}", where, e.what()));
  }
  return grammar;
}

}  // namespace minke
