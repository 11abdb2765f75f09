// JSON Schema as a grammar: what a generator that follows the grammar writes is valid.
//
// Supported: type (one or a list), properties, required, additionalProperties, items, prefixItems,
// minItems, maxItems, enum, const, anyOf, $ref into the schema itself (also recursive; at most 16
// deep) with $defs or definitions, minLength, maxLength, pattern (text/pattern.h), minimum,
// maximum, exclusiveMinimum, exclusiveMaximum; true and false. Ignored, as they ask nothing of a
// text: title, description, default, examples, deprecated, readOnly, writeOnly, $comment, $schema.
// Any other keyword is refused by name.
//
// The grammar is narrower than the schema where a model needs no choice:
//   properties come in the order of the schema, then additional ones; with `properties` there are
//   additional ones only where additionalProperties allows them expressly;
//   keywords of one type without `type` mean that type; numbers as in text/json_terminals.h.
#pragma once
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>

#include "text/grammar.h"

namespace minke {

// What schemas may still take, counted down: some 100 ms and 64 MiB in all.
struct SchemaBudget {
  std::size_t parts = 10'000;            // schemas and values
  std::size_t text = 64 * 1024;          // bytes of names and values
  std::size_t states = 32 * 1024;        // of automata, 512 bytes each
  std::size_t pattern_work = 8'000'000;  // as ByteNfa::determinise counts it
};

// Adds the rules of `schema`, whose place in errors is `where`. Throws ConfigError, as
//   response_format.json_schema.schema.properties.x: keyword "format" is not supported
// for what is not supported, is malformed, cannot be satisfied, or takes more than the budget; the
// rules added until then stay and do no harm.
RuleId add_json_schema(Grammar& grammar, const nlohmann::ordered_json& schema,
                       std::string_view where, SchemaBudget& budget);

// The whole grammar of texts that match the schema; throws as above.
std::shared_ptr<const Grammar> json_schema_grammar(const nlohmann::ordered_json& schema,
                                                   std::string_view where);

}  // namespace minke
