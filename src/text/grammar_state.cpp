#include "text/grammar_state.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace minke {
namespace {

using Phase = GrammarFrame::Phase;

// GrammarFrame::space: 0 none yet, 1 a space, then a line break with so many spaces or tabs.
constexpr std::uint16_t kLineBreak = 2, kTabs = 1024;
constexpr std::uint16_t kIndentation = 4;  // spaces a level

// Takes `byte` as whitespace if it may come here.
bool take_space(GrammarFrame& frame, std::uint8_t byte) {
  const std::uint16_t space = frame.space;
  if (space == 0 && byte == ' ') return frame.space = 1, true;
  if (space == 0 && byte == '\n') return frame.space = kLineBreak, true;
  if (byte == ' ' && space >= kLineBreak && space < kLineBreak + kIndentation * frame.level)
    return ++frame.space, true;
  if (byte == '\t' && space == kLineBreak) return frame.space = kTabs + 1, true;
  if (byte == '\t' && space > kTabs && space < kTabs + frame.level) return ++frame.space, true;
  return false;
}

// Of the sorted texts low..high, which all have the same `position` bytes in front: those with
// `byte` next.
std::pair<std::uint32_t, std::uint32_t> narrow(const std::vector<std::string>& texts,
                                               const GrammarFrame& frame, std::uint8_t byte) {
  const auto at = [&](const std::string& text) {
    return frame.position < text.size()
               ? static_cast<int>(static_cast<unsigned char>(text[frame.position]))
               : -1;
  };
  const auto begin = texts.begin() + frame.low, end = texts.begin() + frame.high;
  const auto low = std::partition_point(begin, end, [&](const auto& t) { return at(t) < byte; });
  const auto high = std::partition_point(low, end, [&](const auto& t) { return at(t) <= byte; });
  return {static_cast<std::uint32_t>(low - texts.begin()),
          static_cast<std::uint32_t>(high - texts.begin())};
}

std::uint32_t size_of(const std::vector<std::string>& texts) {
  return static_cast<std::uint32_t>(texts.size());
}

// Before the first byte of a rule's text, inside `level` containers.
GrammarFrame begin_of(const Grammar& grammar, RuleId id, std::uint32_t level,
                      std::shared_ptr<const GrammarFrame> parent) {
  GrammarFrame frame{
      .rule = id, .level = static_cast<std::uint16_t>(level), .parent = std::move(parent)};
  const auto& body = grammar.rule(id).body;
  if (const auto* literals = std::get_if<LiteralsRule>(&body))
    frame.high = size_of(literals->texts);
  if (std::holds_alternative<ObjectRule>(body) || std::holds_alternative<ArrayRule>(body))
    ++frame.level;
  return frame;
}

}  // namespace

// Moves threads over one byte. `out` are the threads afterwards.
class GrammarState::Reader {
 public:
  Reader(const Grammar& grammar, std::uint8_t byte) : grammar_(grammar), byte_(byte) {}

  void read(const Frame& frame) {
    std::visit([&](const auto& rule) { read(frame, rule); }, grammar_.rule(frame.rule).body);
  }
  // The first byte of a rule's text, inside `level` containers.
  void enter(RuleId id, std::uint32_t level, const Parent& parent) {
    if (!grammar_.fits(id, level)) return;
    read(begin_of(grammar_, id, level, parent));
  }

  std::vector<Frame> out;
  bool ended = false;

 private:
  static Parent keep(Frame frame) { return std::make_shared<const Frame>(std::move(frame)); }

  void stay(Frame frame) {
    if (out.size() == kMostThreads || std::find(out.begin(), out.end(), frame) != out.end()) return;
    if (std::holds_alternative<TerminalRule>(grammar_.rule(frame.rule).body) &&
        ++n_terminals_ > kMostTerminals)
      return;
    out.push_back(std::move(frame));
  }
  // The byte was the last one of the frame's text.
  void leave(const Frame& frame) {
    if (frame.parent)
      stay(*frame.parent);
    else
      ended = true;
  }
  // The frame's text ended before the byte.
  void pass_on(const Frame& frame) {
    if (frame.parent) read(*frame.parent);
  }

  void read(const Frame& frame, const TerminalRule& rule) {
    const auto state = static_cast<ByteDfa::State>(frame.position);
    const ByteDfa::State next = rule.dfa->next[state][byte_];
    if (next == ByteDfa::kNone) {
      if (rule.dfa->accepts[state]) pass_on(frame);
      return;
    }
    Frame moved = frame;
    moved.position = next;
    if (rule.inside == state) {
      const bool closes = rule.dfa->final[next];
      if (closes ? frame.count < rule.min : frame.count >= rule.max) return;
      if (!closes) moved.count = std::min(frame.count + 1, kUnbounded - 1);
    }
    if (rule.dfa->final[next])
      leave(moved);
    else
      stay(std::move(moved));
  }

  void read(const Frame& frame, const LiteralsRule& rule) {
    if (frame.phase == Phase::Value) return enter(rule.next[frame.low], frame.level, frame.parent);
    const auto [low, high] = narrow(rule.texts, frame, byte_);
    if (low == high) {
      if (frame.position == rule.texts[frame.low].size()) pass_on(frame);
      return;
    }
    Frame moved = frame;
    moved.low = low;
    moved.high = high;
    ++moved.position;
    const bool whole = high - low == 1 && moved.position == rule.texts[low].size();
    if (!whole) return stay(std::move(moved));
    if (rule.next.empty()) return leave(moved);
    moved.phase = Phase::Value;
    stay(std::move(moved));
  }

  void read(const Frame& frame, const AnyOfRule& rule) {
    for (const RuleId part : rule.parts) enter(part, frame.level, frame.parent);
  }

  void read(const Frame& frame, const SequenceRule& rule) {
    const RuleId part = rule.parts[frame.position];
    if (frame.position + 1 == rule.parts.size()) return enter(part, frame.level, frame.parent);
    Frame rest = frame;
    ++rest.position;
    enter(part, frame.level, keep(std::move(rest)));
  }

  // -- arrays: count is the number of items that have begun

  void read(const Frame& frame, const ArrayRule& rule) {
    switch (frame.phase) {
      case Phase::Open:
        if (byte_ == '[') move_to(frame, Phase::First);
        break;
      case Phase::First:
        if (byte_ == ']' && rule.min == 0) return leave(frame);
        read_item(frame, rule);
        break;
      case Phase::Comma:
        read_item(frame, rule);
        break;
      default:
        read_behind_item(frame, rule);
    }
  }

  std::optional<RuleId> next_item(const Frame& frame, const ArrayRule& rule) const {
    if (frame.count >= rule.max) return std::nullopt;
    const std::optional<RuleId> id =
        frame.count < rule.first.size() ? rule.first[frame.count] : rule.items;
    return id && grammar_.fits(*id, frame.level) ? id : std::nullopt;
  }

  void read_item(const Frame& frame, const ArrayRule& rule) {
    Frame moved = frame;
    if (take_space(moved, byte_)) return stay(std::move(moved));
    const std::optional<RuleId> item = next_item(frame, rule);
    if (!item) return;
    moved.phase = Phase::Next;
    moved.space = 0;
    moved.count = std::min(moved.count + 1, kUnbounded - 1);
    enter(*item, frame.level, keep(std::move(moved)));
  }

  void read_behind_item(const Frame& frame, const ArrayRule& rule) {
    const bool may_close = frame.count >= rule.min;
    if (byte_ == ',' && frame.space == 0 && next_item(frame, rule))
      return move_to(frame, Phase::Comma);
    if (may_close) close_or_space(frame, ']');
  }

  // -- objects: count is the first property that has not come

  void read(const Frame& frame, const ObjectRule& rule) {
    switch (frame.phase) {
      case Phase::Open:
        if (byte_ == '{') move_to(frame, Phase::First);
        break;
      case Phase::First:
        if (byte_ == '}' && may_close(frame, rule)) return leave(frame);
        read_key_begin(frame, rule);
        break;
      case Phase::Comma:
        read_key_begin(frame, rule);
        break;
      case Phase::Key:
        read_key(frame, rule);
        break;
      case Phase::Colon:
        if (byte_ == ':') move_to(frame, Phase::Value);
        break;
      case Phase::Value:
        read_value(frame, rule);
        break;
      case Phase::Next:
        read_behind_value(frame, rule);
        break;
    }
  }

  static bool may_close(const Frame& frame, const ObjectRule& rule) {
    return rule.next_required.empty() || rule.next_required[frame.count] == rule.properties.size();
  }
  // Property i is not behind the next required one, and its value is possible here.
  bool may_come(const Frame& frame, const ObjectRule& rule, std::uint32_t i) const {
    return i >= frame.count && i <= rule.next_required[frame.count] &&
           grammar_.fits(rule.properties[i].value, frame.level);
  }
  bool others_may_come(const Frame& frame, const ObjectRule& rule) const {
    return rule.others && may_close(frame, rule) && grammar_.fits(rule.others->value, frame.level);
  }
  bool any_may_come(const Frame& frame, const ObjectRule& rule) const {
    if (others_may_come(frame, rule)) return true;
    for (std::uint32_t i = frame.count; i < rule.properties.size(); ++i) {
      if (may_come(frame, rule, i)) return true;
      if (i == rule.next_required[frame.count]) break;
    }
    return false;
  }

  void read_key_begin(const Frame& frame, const ObjectRule& rule) {
    Frame moved = frame;
    if (take_space(moved, byte_)) return stay(std::move(moved));
    moved.space = 0;
    if (others_may_come(frame, rule)) {
      Frame behind = moved;
      behind.phase = Phase::Colon;
      behind.count = static_cast<std::uint32_t>(rule.properties.size());
      behind.low = kUnbounded;
      behind.high = 0;
      enter(rule.others->key, frame.level, keep(std::move(behind)));
    }
    moved.phase = Phase::Key;
    moved.position = 0;
    moved.low = 0;
    moved.high = size_of(rule.keys);
    if (!rule.keys.empty()) read_key(moved, rule);
  }

  void read_key(const Frame& frame, const ObjectRule& rule) {
    const auto [low, high] = narrow(rule.keys, frame, byte_);
    const auto possible = [&](std::uint32_t property) { return may_come(frame, rule, property); };
    if (std::none_of(rule.key_property.begin() + low, rule.key_property.begin() + high, possible))
      return;
    Frame moved = frame;
    moved.low = low;
    moved.high = high;
    ++moved.position;
    // Keys end in a quote, so none begins another.
    if (moved.position == rule.keys[low].size()) {
      moved.phase = Phase::Colon;
      moved.low = rule.key_property[low];
      moved.count = moved.low + 1;
      moved.position = moved.high = 0;
    }
    stay(std::move(moved));
  }

  void read_value(const Frame& frame, const ObjectRule& rule) {
    if (byte_ == ' ' && frame.space == 0) {
      Frame moved = frame;
      moved.space = 1;
      return stay(std::move(moved));
    }
    const RuleId value =
        frame.low == kUnbounded ? rule.others->value : rule.properties[frame.low].value;
    Frame behind = frame;
    behind.phase = Phase::Next;
    behind.space = 0;
    behind.low = 0;
    enter(value, frame.level, keep(std::move(behind)));
  }

  void read_behind_value(const Frame& frame, const ObjectRule& rule) {
    if (byte_ == ',' && frame.space == 0 && any_may_come(frame, rule))
      return move_to(frame, Phase::Comma);
    if (may_close(frame, rule)) close_or_space(frame, '}');
  }

  // -- both

  void move_to(const Frame& frame, Phase phase) {
    Frame moved = frame;
    moved.phase = phase;
    moved.space = 0;
    stay(std::move(moved));
  }

  // Whitespace comes only where the container may end: behind it nothing else can follow.
  void close_or_space(const Frame& frame, std::uint8_t closing) {
    if (byte_ == closing) return leave(frame);
    Frame moved = frame;
    if (take_space(moved, byte_)) stay(std::move(moved));
  }

  const Grammar& grammar_;
  std::uint8_t byte_;
  std::size_t n_terminals_ = 0;
};

GrammarState::GrammarState(std::shared_ptr<const Grammar> grammar) : grammar_(std::move(grammar)) {
  threads_.push_back(begin_of(*grammar_, grammar_->root(), grammar_->outer_levels(), nullptr));
}

bool GrammarState::step(std::uint8_t byte) {
  Reader reader(*grammar_, byte);
  for (const Frame& frame : threads_) reader.read(frame);
  threads_ = std::move(reader.out);
  ended_ = reader.ended;
  return ended_ || !threads_.empty();
}

bool GrammarState::read(std::string_view bytes) {
  const auto read_from = [&](GrammarState state) {
    for (const char c : bytes)
      if (!state.step(static_cast<std::uint8_t>(c))) return false;
    *this = std::move(state);
    return true;
  };
  if (read_from(*this)) return true;
  for (std::size_t thread = 0; thread < n_threads(); ++thread)
    if (read_from(only(thread))) return true;
  return false;
}

bool GrammarState::complete() const {
  if (ended_) return true;
  return std::any_of(threads_.begin(), threads_.end(), [&](const Frame& frame) {
    if (frame.parent) return false;
    const auto& body = grammar_->rule(frame.rule).body;
    if (const auto* terminal = std::get_if<TerminalRule>(&body))
      return static_cast<bool>(terminal->dfa->accepts[frame.position]);
    if (const auto* literals = std::get_if<LiteralsRule>(&body))
      return literals->next.empty() && frame.position == literals->texts[frame.low].size();
    return false;
  });
}

std::optional<GrammarState::Terminal> GrammarState::terminal(std::size_t thread) const {
  const Frame& frame = threads_[thread];
  const auto* rule = std::get_if<TerminalRule>(&grammar_->rule(frame.rule).body);
  if (!rule) return std::nullopt;
  return Terminal{rule, static_cast<ByteDfa::State>(frame.position), frame.count};
}

GrammarState GrammarState::only(std::size_t thread) const {
  GrammarState out = *this;
  out.threads_ = {threads_[thread]};
  out.ended_ = false;
  return out;
}

std::optional<GrammarState> GrammarState::behind_terminal(std::size_t thread) const {
  const Parent& parent = threads_[thread].parent;
  if (!parent) return std::nullopt;
  GrammarState out = *this;
  out.threads_ = {*parent};
  out.ended_ = false;
  return out;
}

}  // namespace minke
