#include "text/json_schema.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "text/grammar_walk_test.h"
#include "text/utf8.h"

namespace minke {
namespace {

using Json = nlohmann::ordered_json;
using test::matches;

std::shared_ptr<const Grammar> compile(const std::string& schema) {
  return json_schema_grammar(Json::parse(schema), "schema");
}

struct Case {
  std::string schema;
  std::vector<std::string> yes, no;
};

TEST(JsonSchema, KeywordsMeanWhatTheySay) {
  const std::vector<Case> cases = {
      {R"({})", {"1", "\"x\"", "null", "[{}]", "true"}, {"tru", ""}},
      {R"(true)", {"{}"}, {}},
      {R"({"type":"boolean"})", {"true", "false"}, {"null"}},
      {R"({"type":["string","null"]})", {"\"a\"", "null"}, {"1"}},
      {R"({"type":"integer","minimum":3,"exclusiveMaximum":12})",
       {"3", "11"},
       {"2", "12", "3.5", "-3"}},
      {R"({"exclusiveMinimum":0,"maximum":0.5})", {"0.5", "0.001"}, {"0", "0.0", "0.51", "1"}},
      {R"({"type":"string","minLength":2,"maxLength":3})",
       {"\"ab\"", "\"中文字\"", R"("\u0041\n")", R"("\ud83d\ude00x")"},
       {"\"a\"", "\"abcd\"", R"("\ud83d\ude00")"}},
      {R"({"type":"string","pattern":"^[a-c]+$"})", {"\"abc\""}, {"\"\"", "\"d\"", R"("\u0061")"}},
      {R"({"pattern":"^\"\\n\\u0001$"})", {R"("\"\n\u0001")"}, {R"("\"\n\u0002")"}},
      {R"({"pattern":"^x*$","minLength":2,"maxLength":3})",
       {"\"xx\"", "\"xxx\""},
       {"\"x\"", "\"xxxx\""}},
      {R"({"enum":["a",1,12,null,{"b":[1]}]})",
       {"\"a\"", "1", "12", "null", R"({"b":[1]})"},
       {"2", "\"b\"", "123"}},
      {R"({"type":"string","enum":["a",1]})", {"\"a\""}, {"1"}},
      {R"({"const":"ü\""})", {R"("ü\"")"}, {"\"u\""}},
      {R"({"type":"array","items":{"type":"integer"},"minItems":1,"maxItems":2})",
       {"[1]", "[1, 2]", "[\n  1\n]"},
       {"[]", "[1,2,3]", "[\"a\"]", "[1 ]x"}},
      {R"({"prefixItems":[{"type":"integer"},{"type":"string"}],"items":false})",
       {"[]", "[1]", "[1,\"a\"]"},
       {"[\"a\"]", "[1,\"a\",2]"}},
      {R"({"type":"object"})", {"{}", R"({"x":[1]})"}, {"[]"}},
      {R"({"properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["b"]})",
       {R"({"a":1,"b":""})", R"({"b":""})"},
       {R"({})", R"({"a":1})", R"({"b":"","a":1})", R"({"a":1,"c":1,"b":""})"}},
      {R"({"properties":{"ab":{"type":"integer"}},"additionalProperties":{"type":"string"}})",
       {R"({"ab":1})", R"({"a":"x"})", R"({"ab":1, "abc":"x", "":"y"})", "{}"},
       {R"({"ab":"x"})", R"({"a":1})"}},
      {R"({"required":["q"]})", {R"({"q":[]})", R"({"q":1,"r":2})"}, {"{}", R"({"r":2})"}},
      {R"({"type":"object","additionalProperties":false})", {"{}", "{ }"}, {R"({"a":1})"}},
      {R"({"anyOf":[{"type":"object","properties":{"k":{"const":"a"},"x":{"type":"integer"}},
           "required":["k","x"]},{"type":"object","properties":{"k":{"const":"b"}},
           "required":["k"]}]})",
       {R"({"k":"a","x":1})", R"({"k":"b"})"},
       {R"({"k":"a"})", R"({"k":"b","x":1})"}},
      {R"({"$ref":"#/$defs/t","$defs":{"t":{"type":"object","properties":{"v":{"type":"integer"},
           "l":{"type":"array","items":{"$ref":"#/$defs/t"}}},"required":["v"]}}})",
       {R"({"v":1})", R"({"v":1,"l":[{"v":2,"l":[]}]})"},
       {R"({"l":[]})", R"({"v":1,"l":[{}]})"}},
  };
  for (const Case& c : cases) {
    const auto grammar = compile(c.schema);
    for (const std::string& text : c.yes) EXPECT_TRUE(matches(grammar, text)) << c.schema << text;
    for (const std::string& text : c.no) EXPECT_FALSE(matches(grammar, text)) << c.schema << text;
  }
}

// A mask looks at every alternative: strings that are read side by side are few.
TEST(JsonSchema, StringsSideBySideAreFew) {
  Json schema;
  for (int i = 0; i < 20; ++i)
    schema["anyOf"].push_back({{"type", "string"}, {"pattern", "a"}, {"maxLength", 20 + i}});
  const auto grammar = json_schema_grammar(schema, "schema");
  GrammarState state(grammar);
  ASSERT_TRUE(test::reads(state, "\"xyz"));
  EXPECT_EQ(state.n_threads(), kMostTerminals);
  ASSERT_TRUE(test::reads(state, "a\""));
  EXPECT_TRUE(state.complete());
}

// The ninth string is given up where all are read together, but a token may still be read by it.
TEST(JsonSchema, ATokenIsReadByAnyOfTheAlternatives) {
  Json schema;
  for (int i = 0; i < 9; ++i) {
    const std::string letter(1, static_cast<char>('a' + i));
    schema["anyOf"].push_back({{"type", "array"},
                               {"prefixItems", {{{"type", "string"}, {"pattern", "^x" + letter}}}},
                               {"items", false},
                               {"minItems", 1}});
  }
  GrammarState state(json_schema_grammar(schema, "schema"));
  ASSERT_TRUE(state.read("["));
  ASSERT_EQ(state.n_threads(), 9u);
  EXPECT_FALSE(state.read("\"xj"));
  ASSERT_TRUE(state.read("\"xi"));
  EXPECT_TRUE(state.read("\"]"));
  EXPECT_TRUE(state.complete());
}

TEST(JsonSchema, ErrorsNameThePlace) {
  std::string chain = R"({"$ref":"#/$defs/d0","$defs":{)";
  for (int i = 0; i < 20; ++i)
    chain += fmt::format(R"("d{}":{{"type":"array","items":{{"$ref":"#/$defs/d{}"}}}},)", i, i + 1);
  chain += R"("d20":{"type":"null"}}})";
  std::string wide = R"({"anyOf":[)";
  for (int i = 0; i < 65; ++i) wide += R"({"type":"null"},)";
  wide.back() = ']';
  wide += '}';
  for (
      const auto& [schema, named] : std::vector<std::pair<std::string, std::string>>{
          {R"({"properties":{"x":{"type":"string","format":"date"}}})",
           "schema.properties.x: keyword \"format\" is not supported"},
          {R"({"type":"integer","multipleOf":3})", "\"multipleOf\""},
          {R"({"items":{"oneOf":[]}})", "schema.items: keyword \"oneOf\""},
          {R"({"type":"string","minLength":3,"maxLength":2})", "minLength is above maxLength"},
          {R"({"type":"array","minItems":3,"maxItems":2})", "minItems is above maxItems"},
          {R"({"type":"integer","minimum":3,"maximum":2})", "no number"},
          {R"({"enum":[]})", "no value"},
          {R"({"type":"null","enum":["a"]})", "no value"},
          {R"({"type":"text"})", "type \"text\""},
          {R"({"type":"string","minLength":-1})", "minLength: expected"},
          {R"#({"type":"string","pattern":"(?=a)"})#", "schema.pattern: look-around"},
          {R"({"pattern":"^a{9}$","maxLength":8})", "no string matches"},
          {R"({"$ref":"#/$defs/none"})", "leads nowhere"},
          {R"({"$ref":"https://example.org/s"})", "$ref: expected"},
          {R"({"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/a"}}})", "own alternative"},
          {R"({"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"},{"type":"null"}]}},"$ref":"#/$defs/a"})",
           "own alternative"},
          {R"({"$defs":{"a":{"type":"array","minItems":1,"items":{"$ref":"#/$defs/a"}}},
                "$ref":"#/$defs/a"})",
           "no text"},
          {R"({"properties":{"a":{"type":"null"}},"required":["b"]})", "\"b\""},
          {R"({"anyOf":[{}],"type":"string"})", "\"type\" beside \"anyOf\""},
          {R"({"properties":[]})", "properties: expected"},
          {R"([1])", "expected a schema"},
          {R"(false)", "no text"},
          {chain, "more than 16 references deep"},
          {wide, "65 alternatives"}}) {
    try {
      compile(schema);
      ADD_FAILURE() << schema;
    } catch (const ConfigError& e) {
      EXPECT_NE(std::string(e.what()).find(named), std::string::npos) << schema << "\n" << e.what();
    }
  }
}

TEST(JsonSchemaTimed, TrapsAreRefusedOrCompiledSoon) {
  Json many_values, many_items, many_properties, many_patterns, many_bounds;
  for (int i = 0; i < 100'000; ++i) many_values["enum"].push_back(fmt::format("value {}", i));
  for (int i = 0; i < 20'000; ++i) many_items["prefixItems"].push_back(Json::object());
  for (int i = 0; i < 2'000; ++i)
    many_properties["properties"][fmt::format("p{}", i)] = Json::object();
  many_properties["additionalProperties"] = true;
  for (int i = 0; i < 500; ++i)
    many_patterns["properties"][fmt::format("p{}", i)] = {
        {"type", "string"},
        {"pattern", fmt::format("(.*a{}){{1,9}}.{{9}}$", i)},
        {"minLength", 99}};
  for (int i = 0; i < 1'000; ++i)
    many_bounds["properties"][fmt::format("p{}", i)] = {{"minimum", i + 0.25},
                                                        {"maximum", i * 9.5e9 + 1}};
  Json deep = {{"type", "null"}};
  for (int i = 0; i < 60; ++i) deep = {{"type", "array"}, {"items", deep}};
  const std::vector<Json> traps = {
      many_values,
      many_items,
      many_properties,
      many_patterns,
      many_bounds,
      deep,
      Json::parse(R"({"type":"string","minLength":1000000000})"),
      Json::parse(R"({"type":"array","maxItems":1000000000,"minItems":999999999})"),
      Json::parse(R"({"pattern":"^.{1000}$","minLength":1000,"maxLength":1000000})"),
      Json::parse(R"({"pattern":"(a{1000}){1000}"})")};
  for (const Json& trap : traps) {
    const auto begin = std::chrono::steady_clock::now();
    try {
      json_schema_grammar(trap, "schema");
    } catch (const ConfigError&) {
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    RecordProperty("ms", static_cast<int>(took.count() * 1000));
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    EXPECT_LT(took.count(), 10) << trap.dump().substr(0, 80);
#else
    EXPECT_LT(took.count(), 1) << trap.dump().substr(0, 80);  // on a busy machine
#endif
  }
}

// -- random schemas, and a validator that knows nothing of grammars

class RandomSchema {
 public:
  explicit RandomSchema(std::mt19937& random) : random_(random) {}

  Json any(int depth) {
    switch (below(depth > 0 ? 11 : 8)) {
      case 0:
        return {{"type", "null"}};
      case 1:
        return {{"type", "boolean"}};
      case 2:
        return number("integer");
      case 3:
        return number("number");
      case 4:
        return string();
      case 5:
        return {{"enum", {1, 12, "a", "ab", nullptr, Json::array({1})}}};
      case 6:
        return {{"const", "constant"}};
      case 7:
        return {{"type", {"string", "null", "integer"}}, {"maxLength", below(5)}};
      case 8:
        return array(depth);
      case 9:
        return {{"anyOf", {any(depth - 1), any(depth - 1)}}};
      default:
        return object(depth);
    }
  }

 private:
  int below(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }
  bool chance() { return random_() % 2 != 0; }

  Json number(const std::string& type) {
    Json out = {{"type", type}};
    const int low = below(2000) - 1000;
    if (chance()) out["minimum"] = low;
    if (chance()) out["exclusiveMaximum"] = low + 2 + below(100);
    if (type == "number" && chance()) out["maximum"] = low + 1.5;
    return out;
  }
  Json string() {
    Json out = {{"type", "string"}};
    if (chance()) out["minLength"] = below(4);
    if (chance()) out["maxLength"] = 4 + below(4);
    if (below(3) == 0) out["pattern"] = chance() ? "[a-f]" : "^([A-Z]|\\d)+$";
    if (below(3) == 0 && out.contains("pattern")) out["minLength"] = 1;
    return out;
  }
  Json array(int depth) {
    Json out = {{"type", "array"}, {"items", any(depth - 1)}, {"maxItems", 2 + below(2)}};
    if (chance()) out["minItems"] = below(3);
    if (below(3) == 0) out["prefixItems"] = {any(depth - 1)};
    return out;
  }
  Json object(int depth) {
    Json out = {{"type", "object"}};
    for (int i = below(4); i > 0; --i) {
      const std::string name =
          std::string(1, static_cast<char>('a' + below(3))) + std::string(below(3), 'x');
      out["properties"][name] = any(depth - 1);
      if (chance()) out["required"].push_back(name);
    }
    if (chance()) out["additionalProperties"] = chance() ? Json(false) : any(depth - 1);
    return out;
  }

  std::mt19937& random_;
};

bool valid(const Json& schema, const Json& value);

bool valid_object(const Json& schema, const Json& value) {
  for (const Json& name : schema.value("required", Json::array()))
    if (!value.contains(name.get<std::string>())) return false;
  for (const auto& [name, member] : value.items()) {
    const Json properties = schema.value("properties", Json::object());
    const Json& rule = properties.contains(name) ? properties[name]
                                                 : schema.value("additionalProperties", Json(true));
    if (!valid(rule, member)) return false;
  }
  return true;
}

bool valid_array(const Json& schema, const Json& value) {
  if (value.size() < schema.value("minItems", 0u) || value.size() > schema.value("maxItems", ~0u))
    return false;
  const Json first = schema.value("prefixItems", Json::array());
  for (std::size_t i = 0; i < value.size(); ++i)
    if (!valid(i < first.size() ? first[i] : schema.value("items", Json(true)), value[i]))
      return false;
  return true;
}

// The two patterns of RandomSchema.
bool matches_pattern(const std::string& pattern, const std::string& value) {
  if (pattern == "[a-f]")
    return std::any_of(value.begin(), value.end(), [](char c) { return c >= 'a' && c <= 'f'; });
  return !value.empty() && std::all_of(value.begin(), value.end(), [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  });
}

bool valid_string(const Json& schema, const std::string& value) {
  std::size_t length = 0;
  for (const char c : value) length += (c & 0xC0) != 0x80;
  if (length < schema.value("minLength", 0u) || length > schema.value("maxLength", ~0u))
    return false;
  return !schema.contains("pattern") || matches_pattern(schema["pattern"], value);
}

bool valid(const Json& schema, const Json& value) {
  if (schema.is_boolean()) return schema.get<bool>();
  if (schema.contains("anyOf"))
    return std::any_of(schema["anyOf"].begin(), schema["anyOf"].end(),
                       [&](const Json& part) { return valid(part, value); });
  if (schema.contains("const")) return schema["const"] == value;
  if (schema.contains("enum"))
    return std::find(schema["enum"].begin(), schema["enum"].end(), value) != schema["enum"].end();
  const Json types = schema["type"].is_array() ? schema["type"] : Json::array({schema["type"]});
  const std::string type = value.is_number_integer() ? "integer" : value.type_name();
  if (std::find(types.begin(), types.end(), type) == types.end() &&
      !(type == "integer" && std::find(types.begin(), types.end(), "number") != types.end()))
    return false;
  if (value.is_object()) return valid_object(schema, value);
  if (value.is_array()) return valid_array(schema, value);
  if (value.is_string()) return valid_string(schema, value.get<std::string>());
  if (!value.is_number()) return true;
  const double x = value;
  return x >= schema.value("minimum", -1e300) && x <= schema.value("maximum", 1e300) &&
         x < schema.value("exclusiveMaximum", 1e300);
}

TEST(JsonSchema, RandomTextsOfRandomSchemasAreValid) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr int kSchemas = 1'000;
#else
  constexpr int kSchemas = 10'000;
#endif
  std::mt19937 random(11);
  int ended = 0, refused = 0;
  for (int i = 0; i < kSchemas; ++i) {
    const Json schema = RandomSchema(random).any(3);
    std::shared_ptr<const Grammar> grammar;
    try {
      grammar = json_schema_grammar(schema, "schema");
    } catch (const ConfigError&) {
      ++refused;  // it cannot be satisfied
      continue;
    }
    const auto text = test::random_text(grammar, random, 300, [](const GrammarState&) {});
    if (!text) continue;
    ++ended;
    const Json value = Json::parse(*text, nullptr, false);
    ASSERT_FALSE(value.is_discarded()) << schema << "\n" << *text;
    EXPECT_TRUE(valid(schema, value)) << schema << "\n" << *text;
  }
  EXPECT_GT(ended, kSchemas / 2);
  EXPECT_LT(refused, kSchemas / 4);
}

}  // namespace
}  // namespace minke
