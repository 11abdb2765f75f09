#include "text/grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/json_terminals.h"

namespace minke {
namespace {

template <class... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};

// The rules that a rule names.
std::vector<RuleId> parts_of(const Rule& rule) {
  return std::visit(Overloaded{[](const TerminalRule&) { return std::vector<RuleId>(); },
                               [](const LiteralsRule& r) { return r.next; },
                               [](const ObjectRule& r) {
                                 std::vector<RuleId> out;
                                 for (const auto& p : r.properties) out.push_back(p.value);
                                 if (r.others)
                                   out.insert(out.end(), {r.others->key, r.others->value});
                                 return out;
                               },
                               [](const ArrayRule& r) {
                                 std::vector<RuleId> out = r.first;
                                 if (r.items) out.push_back(*r.items);
                                 return out;
                               },
                               [](const AnyOfRule& r) { return r.parts; },
                               [](const SequenceRule& r) { return r.parts; }},
                    rule.body);
}

// How many rules are entered together with one. Alternatives are entered without reading a byte, so
// no rule may come back to itself that way.
class AlternativesCount {
 public:
  explicit AlternativesCount(const std::vector<Rule>& rules)
      : rules_(rules), count_(rules.size()) {}

  std::size_t of(RuleId id) {
    const auto* any_of = std::get_if<AnyOfRule>(&rules_[id].body);
    if (!any_of) return 1;
    if (count_[id] == kOpen)
      throw ConfigError("a schema is its own alternative; put an array or an object between");
    if (count_[id] > 0) return count_[id];
    count_[id] = kOpen;
    std::size_t sum = 0;
    for (const RuleId part : any_of->parts) sum += of(part);
    if (sum > kMostThreads)
      throw ConfigError(
          fmt::format("{} alternatives at one place; at most {} are supported", sum, kMostThreads));
    return count_[id] = sum;
  }

 private:
  static constexpr std::size_t kOpen = ~std::size_t{0};

  const std::vector<Rule>& rules_;
  std::vector<std::size_t> count_;  // 0: not known yet, or none
};

}  // namespace

RuleId Grammar::add(Rule rule) {
  rules_.push_back(std::move(rule));
  return static_cast<RuleId>(rules_.size() - 1);
}

void Grammar::set(RuleId id, Rule rule) {
  rules_[id] = std::move(rule);
}

RuleId Grammar::any_string() {
  if (!any_string_) {
    const StringDfa& dfa = minke::any_string();
    // Shared with all grammars: it lives as long as the program.
    const std::shared_ptr<const ByteDfa> shared(std::shared_ptr<void>(), &dfa.dfa);
    any_string_ = add({TerminalRule{.dfa = shared, .inside = dfa.inside}});
  }
  return *any_string_;
}

RuleId Grammar::any_value() {
  if (!any_value_) {
    static const auto number = std::make_shared<const ByteDfa>(number_within({}));
    any_value_ = reserve();
    const RuleId any_array = add({ArrayRule{.first = {}, .items = *any_value_}});
    const RuleId words = add({LiteralsRule{{"false", "null", "true"}, {}}});
    const RuleId any_number = add({TerminalRule{.dfa = number, .inside = std::nullopt}});
    set(*any_value_, {AnyOfRule{{any_string(), any_object(), any_array, any_number, words}}});
  }
  return *any_value_;
}

RuleId Grammar::any_object() {
  if (!any_object_) {
    any_object_ = reserve();
    ObjectRule object;
    object.others = ObjectRule::Others{any_string(), any_value()};
    set(*any_object_, {std::move(object)});
  }
  return *any_object_;
}

std::uint32_t Grammar::levels_of(const Rule& rule) const {
  const auto of = [&](RuleId id) { return rules_[id].levels; };
  const auto inside = [](std::uint32_t levels) { return std::min(levels + 1, kNeverFits); };
  return std::visit(Overloaded{[&](const TerminalRule&) { return 0U; },
                               [&](const LiteralsRule& r) {
                                 std::uint32_t least = r.next.empty() ? 0 : kNeverFits;
                                 for (const RuleId id : r.next) least = std::min(least, of(id));
                                 return least;
                               },
                               [&](const ObjectRule& r) {
                                 std::uint32_t most = 0;
                                 for (const auto& p : r.properties)
                                   if (p.required) most = std::max(most, of(p.value));
                                 return inside(most);
                               },
                               [&](const ArrayRule& r) {
                                 std::uint32_t most = 0;
                                 const std::size_t named =
                                     std::min<std::size_t>(r.min, r.first.size());
                                 for (std::size_t i = 0; i < named; ++i)
                                   most = std::max(most, of(r.first[i]));
                                 if (r.min > r.first.size())
                                   most = std::max(most, r.items ? of(*r.items) : kNeverFits);
                                 return inside(most);
                               },
                               [&](const AnyOfRule& r) {
                                 std::uint32_t least = kNeverFits;
                                 for (const RuleId id : r.parts) least = std::min(least, of(id));
                                 return least;
                               },
                               [&](const SequenceRule& r) {
                                 std::uint32_t most = 0;
                                 for (const RuleId id : r.parts) most = std::max(most, of(id));
                                 return most;
                               }},
                    rule.body);
}

std::vector<RuleId> Grammar::reachable() const {
  std::vector<bool> seen(rules_.size());
  std::vector<RuleId> out = {root_};
  seen[root_] = true;
  for (std::size_t i = 0; i < out.size(); ++i) {
    for (const RuleId part : parts_of(rules_[out[i]])) {
      if (seen[part]) continue;
      seen[part] = true;
      out.push_back(part);
    }
  }
  return out;
}

void Grammar::check_alternatives() const {
  AlternativesCount count(rules_);
  for (const RuleId id : reachable()) count.of(id);
}

void Grammar::finish(RuleId root, std::uint32_t outer_levels) {
  root_ = root;
  outer_levels_ = outer_levels;
  check_alternatives();
  // From below: after n rounds all rules that have a text of n levels know it.
  for (bool changed = true; changed;) {
    changed = false;
    for (auto rule = rules_.rbegin(); rule != rules_.rend(); ++rule) {
      const std::uint32_t levels = levels_of(*rule);
      if (levels >= rule->levels) continue;
      rule->levels = levels;
      changed = true;
    }
  }
  if (!fits(root_, outer_levels_))
    throw ConfigError(
        fmt::format("no text with at most {} levels of nesting matches", kDeepestNesting));
}

std::shared_ptr<const Grammar> json_object_grammar() {
  auto grammar = std::make_shared<Grammar>();
  const RuleId root = grammar->any_object();
  grammar->finish(root);
  return grammar;
}

}  // namespace minke
