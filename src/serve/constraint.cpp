#include "serve/constraint.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/grammar_state.h"
#include "text/json_schema.h"
#include "text/token_trie.h"

namespace minke {
namespace {

using Vocabulary = std::shared_ptr<const TokenTrie>;
using Ids = std::vector<std::int32_t>;

Ids checked_stop_ids(std::span<const std::int32_t> stop_ids) {
  if (stop_ids.empty())
    throw ConfigError(
        "a constrained text needs a token to stop at; the model names no end of sentence");
  return {stop_ids.begin(), stop_ids.end()};
}

bool contains(const Ids& ids, std::int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// A text by a grammar, then the end.
class GrammarConstraint : public TokenConstraint {
 public:
  GrammarConstraint(Vocabulary vocabulary, std::shared_ptr<const Grammar> grammar, Ids stop_ids)
      : vocabulary_(std::move(vocabulary)),
        state_(std::move(grammar)),
        stop_ids_(std::move(stop_ids)) {}

  void mask(std::span<float> logits) override {
    TokenSet allowed(static_cast<std::int32_t>(logits.size()));
    vocabulary_->add_readable(state_, allowed);
    if (state_.complete())
      for (const std::int32_t id : stop_ids_) allowed.add(id);
    allowed.mask(logits);
  }
  void accept(std::int32_t id) override {
    if (contains(stop_ids_, id)) return;
    [[maybe_unused]] const bool read = state_.read(vocabulary_->bytes(id));
    MINKE_ASSERT(read);
  }
  std::unique_ptr<TokenConstraint> clone() const override {
    return std::make_unique<GrammarConstraint>(*this);
  }

 private:
  Vocabulary vocabulary_;
  GrammarState state_;
  Ids stop_ids_;
};

// The grammars between the tokens of the published form; shared by all clones.
struct CallGrammars {
  std::shared_ptr<const Grammar> type;       // "function"
  std::shared_ptr<const Grammar> call;       // NAME, ARGUMENTS
  std::shared_ptr<const Grammar> next_call;  // the line break before another call
};

// The published form, as in the header: grammars and tokens by turns.
class ToolCallConstraint : public TokenConstraint {
 public:
  struct Parts {
    Vocabulary vocabulary;
    CallGrammars grammars;
    ToolTokens tokens;
    bool parallel;
    Ids stop_ids;
  };
  ToolCallConstraint(std::shared_ptr<const Parts> parts, ToolUse use)
      : parts_(std::move(parts)), phase_(use == ToolUse::Auto ? Phase::AnyText : Phase::Calls) {}

  void mask(std::span<float> logits) override {
    TokenSet allowed(static_cast<std::int32_t>(logits.size()));
    if (phase_ == Phase::AnyText) {
      allow_any_text(allowed);
    } else {
      if (text_) parts_->vocabulary->add_readable(*text_, allowed);
      if (!text_ || text_->complete()) allow_token(allowed);
    }
    allowed.mask(logits);
  }

  void accept(std::int32_t id) override {
    const ToolTokens& t = parts_->tokens;
    if (id == t.calls_begin) return enter(Phase::Call);
    if (phase_ == Phase::AnyText) return;
    if (id == t.call_begin) return enter(Phase::Type, parts_->grammars.type);
    if (id == t.separator) return enter(Phase::Arguments, parts_->grammars.call);
    if (id == t.call_end) return enter(Phase::CallEnded);
    if (id == t.calls_end) return enter(Phase::Ended);
    if (phase_ == Phase::Ended) return;
    // Text behind a call begins another one.
    if (phase_ == Phase::CallEnded) enter(Phase::Call, parts_->grammars.next_call);
    [[maybe_unused]] const bool read = text_->read(parts_->vocabulary->bytes(id));
    MINKE_ASSERT(read);
  }

  std::unique_ptr<TokenConstraint> clone() const override {
    return std::make_unique<ToolCallConstraint>(*this);
  }

 private:
  enum class Phase : std::uint8_t { AnyText, Calls, Call, Type, Arguments, CallEnded, Ended };

  void enter(Phase phase, const std::shared_ptr<const Grammar>& grammar = nullptr) {
    phase_ = phase;
    text_.reset();
    if (grammar) text_.emplace(grammar);
  }

  // Everything but the marks that only stand inside calls.
  void allow_any_text(TokenSet& allowed) const {
    const ToolTokens& t = parts_->tokens;
    for (std::int32_t id = 0; id < parts_->vocabulary->n_tokens(); ++id) allowed.add(id);
    for (const std::int32_t id : {t.call_begin, t.separator, t.call_end, t.calls_end})
      allowed.remove(id);
    for (const std::int32_t id : parts_->stop_ids) allowed.add(id);
  }

  // The tokens that may stand where the text between them is complete.
  void allow_token(TokenSet& allowed) const {
    const ToolTokens& t = parts_->tokens;
    switch (phase_) {
      case Phase::AnyText:
        break;
      case Phase::Calls:
        allowed.add(t.calls_begin);
        break;
      case Phase::Call:
        allowed.add(t.call_begin);
        break;
      case Phase::Type:
        allowed.add(t.separator);
        break;
      case Phase::Arguments:
        allowed.add(t.call_end);
        break;
      case Phase::CallEnded:
        allowed.add(t.calls_end);
        if (parts_->parallel)
          parts_->vocabulary->add_readable(GrammarState(parts_->grammars.next_call), allowed);
        break;
      case Phase::Ended:
        for (const std::int32_t id : parts_->stop_ids) allowed.add(id);
    }
  }

  std::shared_ptr<const Parts> parts_;
  Phase phase_;
  std::optional<GrammarState> text_;  // read since the last token of the form
};

class ConstraintAfter : public TokenConstraint {
 public:
  ConstraintAfter(std::int32_t begin, std::unique_ptr<TokenConstraint> inner, Vocabulary vocabulary,
                  Ids stop_ids)
      : begin_(begin),
        inner_(std::move(inner)),
        vocabulary_(std::move(vocabulary)),
        stop_ids_(std::move(stop_ids)) {}

  void mask(std::span<float> logits) override {
    if (begun_) return inner_->mask(logits);
    TokenSet allowed(static_cast<std::int32_t>(logits.size()));
    for (std::int32_t id = 0; id < vocabulary_->n_tokens(); ++id) allowed.add(id);
    for (const std::int32_t id : stop_ids_) allowed.remove(id);
    allowed.add(begin_);
    allowed.mask(logits);
  }
  void accept(std::int32_t id) override {
    if (begun_)
      inner_->accept(id);
    else
      begun_ = id == begin_;
  }
  std::unique_ptr<TokenConstraint> clone() const override {
    auto out = std::make_unique<ConstraintAfter>(begin_, inner_->clone(), vocabulary_, stop_ids_);
    out->begun_ = begun_;
    return out;
  }

 private:
  std::int32_t begin_;
  std::unique_ptr<TokenConstraint> inner_;
  Vocabulary vocabulary_;
  Ids stop_ids_;
  bool begun_ = false;
};

bool is_tool_name(const std::string& name) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  };
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), good);
}

std::shared_ptr<const Grammar> literal_grammar(const std::string& text) {
  auto grammar = std::make_shared<Grammar>();
  grammar->finish(grammar->literal(text));
  return grammar;
}

// Any object where the tool's own schema is not supported or cannot be satisfied.
RuleId add_arguments(Grammar& grammar, const ToolDefinition& tool, std::uint32_t outer_levels,
                     SchemaBudget& budget) {
  nlohmann::ordered_json schema = tool.parameters;
  if (!schema.is_object()) return grammar.any_object();
  schema["type"] = "object";  // arguments are one, whatever else the schema would allow
  try {
    const RuleId arguments = add_json_schema(grammar, schema, "parameters", budget);
    grammar.finish(arguments, outer_levels);
    return arguments;
  } catch (const ConfigError&) {
    return grammar.any_object();
  }
}

// before NAME between ARGUMENTS after, for one of the tools.
std::shared_ptr<const Grammar> call_grammar(const std::vector<ToolDefinition>& tools,
                                            const std::string& before, const std::string& between,
                                            const std::string& after, std::uint32_t outer_levels) {
  if (tools.empty()) throw ConfigError("tools: expected at least one tool to call");
  std::vector<const ToolDefinition*> sorted;
  for (const ToolDefinition& tool : tools) {
    if (!is_tool_name(tool.name))
      throw ConfigError(fmt::format(
          "tools: the name \"{}\" is not 1 to 64 of the characters A-Z, a-z, 0-9, _ and -",
          tool.name));
    sorted.push_back(&tool);
  }
  std::sort(sorted.begin(), sorted.end(),
            [&](const auto* a, const auto* b) { return a->name + between < b->name + between; });
  auto grammar = std::make_shared<Grammar>();
  SchemaBudget budget;  // of all tools together
  LiteralsRule names;
  for (const ToolDefinition* tool : sorted) {
    if (!names.texts.empty() && names.texts.back() == before + tool->name + between)
      throw ConfigError(fmt::format("tools: two of them are named \"{}\"", tool->name));
    names.texts.push_back(before + tool->name + between);
    names.next.push_back(add_arguments(*grammar, *tool, outer_levels, budget));
  }
  const RuleId call = grammar->add({std::move(names)});
  const RuleId end = grammar->literal(after);
  grammar->finish(grammar->add({SequenceRule{{call, end}}}), outer_levels);
  return grammar;
}

}  // namespace

std::shared_ptr<const TokenTrie> constraint_vocabulary(const Tokenizer& tokenizer) {
  return std::make_shared<const TokenTrie>(tokenizer);
}

std::unique_ptr<TokenConstraint> json_object_constraint(std::shared_ptr<const TokenTrie> vocabulary,
                                                        std::span<const std::int32_t> stop_ids) {
  return std::make_unique<GrammarConstraint>(std::move(vocabulary), json_object_grammar(),
                                             checked_stop_ids(stop_ids));
}

std::unique_ptr<TokenConstraint> json_schema_constraint(std::shared_ptr<const TokenTrie> vocabulary,
                                                        const nlohmann::ordered_json& schema,
                                                        std::string_view where,
                                                        std::span<const std::int32_t> stop_ids) {
  return std::make_unique<GrammarConstraint>(
      std::move(vocabulary), json_schema_grammar(schema, where), checked_stop_ids(stop_ids));
}

std::optional<ToolTokens> ToolTokens::find(const Tokenizer& tokenizer) {
  const auto calls_begin = tokenizer.token_to_id("<｜tool▁calls▁begin｜>");
  const auto call_begin = tokenizer.token_to_id("<｜tool▁call▁begin｜>");
  const auto separator = tokenizer.token_to_id("<｜tool▁sep｜>");
  const auto call_end = tokenizer.token_to_id("<｜tool▁call▁end｜>");
  const auto calls_end = tokenizer.token_to_id("<｜tool▁calls▁end｜>");
  if (!calls_begin || !call_begin || !separator || !call_end || !calls_end) return std::nullopt;
  return ToolTokens{*calls_begin, *call_begin, *separator, *call_end, *calls_end};
}

std::unique_ptr<TokenConstraint> tool_call_constraint(std::shared_ptr<const TokenTrie> vocabulary,
                                                      const ToolCallForm& form,
                                                      std::span<const std::int32_t> stop_ids) {
  Ids stops = checked_stop_ids(stop_ids);
  if (!form.tokens) {
    const auto grammar =
        call_grammar(form.tools, "{\"name\": \"", "\", \"arguments\": ", "}", /*outer_levels=*/1);
    if (form.use == ToolUse::Auto) return nullptr;
    return std::make_unique<GrammarConstraint>(std::move(vocabulary), grammar, std::move(stops));
  }
  CallGrammars grammars{.type = literal_grammar("function"),
                        .call = call_grammar(form.tools, "", "\n```json\n", "\n```", 0),
                        .next_call = literal_grammar("\n")};
  auto parts = std::make_shared<const ToolCallConstraint::Parts>(ToolCallConstraint::Parts{
      std::move(vocabulary), std::move(grammars), *form.tokens, form.parallel, std::move(stops)});
  return std::make_unique<ToolCallConstraint>(std::move(parts), form.use);
}

std::unique_ptr<TokenConstraint> constraint_after(std::int32_t begin,
                                                  std::unique_ptr<TokenConstraint> inner,
                                                  std::shared_ptr<const TokenTrie> vocabulary,
                                                  std::span<const std::int32_t> stop_ids) {
  return std::make_unique<ConstraintAfter>(begin, std::move(inner), std::move(vocabulary),
                                           checked_stop_ids(stop_ids));
}

}  // namespace minke
