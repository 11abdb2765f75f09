// Constraints on a generated text: one JSON object, a JSON schema, a tool call. Built for a
// request, used by the engine (infer/token_constraint.h): which tokens may come next follows from
// the text so far, so nothing is generated twice, and the text may stop only when it is complete.
//
// The published form of tool calls, where <..> are tokens and the text stands between them:
//   <calls begin> <call begin> function <sep> NAME \n```json\n ARGUMENTS \n``` <call end>
//                ( \n <call begin> .. <call end> )*  <calls end>  end of sentence
// A vocabulary without these tokens writes one object: {"name": "NAME", "arguments": ARGUMENTS}.
// ARGUMENTS match the tool's `parameters`.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "infer/token_constraint.h"
#include "text/tokenizer.h"

namespace minke {

// What all constraints of a tokenizer share; built once (some 50 ms for 128 Ki tokens), any number
// of threads may use it. Padding of the logits beyond the vocabulary is never allowed.
class TokenTrie;
std::shared_ptr<const TokenTrie> constraint_vocabulary(const Tokenizer& tokenizer);

// In all of these `stop_ids` are allowed when the text is complete and never before. Throws
// ConfigError when there are none.
std::unique_ptr<TokenConstraint> json_object_constraint(std::shared_ptr<const TokenTrie> vocabulary,
                                                        std::span<const std::int32_t> stop_ids);

// `where` names the schema in errors, as "response_format.json_schema.schema". Properties are
// written in the order of the schema, therefore it keeps its order (parse_ordered_json). Throws
// ConfigError naming the place for what is not supported (text/json_schema.h).
std::unique_ptr<TokenConstraint> json_schema_constraint(std::shared_ptr<const TokenTrie> vocabulary,
                                                        const nlohmann::ordered_json& schema,
                                                        std::string_view where,
                                                        std::span<const std::int32_t> stop_ids);

struct ToolDefinition {
  std::string name;  // [A-Za-z0-9_-]{1,64}
  std::string description;
  nlohmann::ordered_json parameters;  // a schema; null: any object
};

// The tokens of the published form; none unless the vocabulary has all of them.
struct ToolTokens {
  std::int32_t calls_begin, call_begin, separator, call_end, calls_end;
  static std::optional<ToolTokens> find(const Tokenizer& tokenizer);
};

enum class ToolUse : std::uint8_t {
  Auto,      // any text; a call that is begun is finished in its form
  Required,  // nothing but calls
};

struct ToolCallForm {
  std::vector<ToolDefinition> tools;  // those that may be called; for a named choice just that one
  std::optional<ToolTokens> tokens;   // none: the JSON form, one call
  ToolUse use = ToolUse::Required;
  bool parallel = true;  // several calls
};

// Parameters with keywords that are not supported are taken as "any object". Null for Auto in the
// JSON form: there is no mark at which a call begins, so nothing can be asked of the text. Throws
// ConfigError when there is no tool or a name is not as above.
std::unique_ptr<TokenConstraint> tool_call_constraint(std::shared_ptr<const TokenTrie> vocabulary,
                                                      const ToolCallForm& form,
                                                      std::span<const std::int32_t> stop_ids);

// Any text up to the token `begin` (the end of thinking), `inner` after it. Until then the text
// may not stop.
std::unique_ptr<TokenConstraint> constraint_after(std::int32_t begin,
                                                  std::unique_ptr<TokenConstraint> inner,
                                                  std::shared_ptr<const TokenTrie> vocabulary,
                                                  std::span<const std::int32_t> stop_ids);

}  // namespace minke
