// Numbers within bounds (json_terminals.h): an automaton that reads the digits of a magnitude
// beside those of its bounds. For each number of digits before the point it knows whether the
// digits so far are those of the lower bound (then smaller digits may not follow), and of the upper
// one.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "text/json_terminals.h"

namespace minke {
namespace {

constexpr std::size_t kWholeDigits = 18;  // any such integer is one of 64 bits
constexpr std::size_t kFractionDigits = 17;
// Decimals of at most 15 digits are all different as doubles; with more, one that is above an
// exclusive bound could be read as the bound itself.
constexpr std::size_t kDistinctDigits = 15;

enum class Fraction : std::uint8_t { None, Allowed };
enum class Exponent : std::uint8_t { None, Allowed };

// Bounds of a magnitude; both are at least 0.
struct MagnitudeBounds {
  std::optional<Decimal> min, max;
};

class MagnitudeWriter {
 public:
  MagnitudeWriter(ByteNfa& nfa, MagnitudeBounds bounds, Fraction fraction, ByteNfa::State end)
      : nfa_(nfa), bounds_(std::move(bounds)), fraction_(fraction), end_(end) {}

  void write(ByteNfa::State from) {
    for (std::size_t digits = 1; digits <= kWholeDigits; ++digits) {
      if (bounds_.min && digits < bounds_.min->whole.size()) continue;
      if (bounds_.max && digits > bounds_.max->whole.size()) break;
      write_whole(from, digits);
    }
  }

 private:
  // Whether the digits so far are those of the bound.
  struct Tight {
    bool min, max;
  };
  static constexpr Tight kTights[] = {{false, false}, {false, true}, {true, false}, {true, true}};
  static std::size_t index(Tight t) { return (t.min ? 2 : 0) + (t.max ? 1 : 0); }
  using Row = std::array<ByteNfa::State, 4>;  // a state for each Tight

  Row new_row() {
    Row row;
    for (ByteNfa::State& s : row) s = nfa_.add_state();
    return row;
  }

  // Adds the digits that may follow `from` in state t, where the bounds have these digits.
  void add_digits(ByteNfa::State from, Tight t, char min_digit, char max_digit, char first,
                  const Row& to) {
    for (char c = first; c <= '9'; ++c) {
      if ((t.min && c < min_digit) || (t.max && c > max_digit)) continue;
      const Tight next{t.min && c == min_digit, t.max && c == max_digit};
      const auto byte = static_cast<std::uint8_t>(c);
      nfa_.add_bytes(from, byte, byte, to[index(next)]);
    }
  }

  void write_whole(ByteNfa::State from, std::size_t digits) {
    const Tight begin{bounds_.min && bounds_.min->whole.size() == digits,
                      bounds_.max && bounds_.max->whole.size() == digits};
    Row row{};
    for (std::size_t i = 0; i < digits; ++i) {
      const Row next = new_row();
      const char min_digit = begin.min ? bounds_.min->whole[i] : '0';
      const char max_digit = begin.max ? bounds_.max->whole[i] : '9';
      if (i == 0) {
        add_digits(from, begin, min_digit, max_digit, digits > 1 ? '1' : '0', next);
      } else {
        for (const Tight t : kTights) add_digits(row[index(t)], t, min_digit, max_digit, '0', next);
      }
      row = next;
    }
    end_number(row, 0);
    if (fraction_ == Fraction::Allowed) write_fraction(row, digits);
  }

  void write_fraction(Row row, std::size_t whole_digits) {
    const std::size_t digits = fraction_digits(whole_digits);
    if (digits == 0) return;
    const Row first = new_row();
    for (std::size_t i = 0; i < row.size(); ++i) nfa_.add_bytes(row[i], '.', '.', first[i]);
    row = first;
    for (std::size_t i = 0; i < digits; ++i) {
      Row next = new_row();
      next[index({false, false})] = any_fraction(digits - i - 1);
      for (const Tight t : kTights)
        if (i == 0 || t.min || t.max)
          add_digits(row[index(t)], t, fraction_digit(bounds_.min, i),
                     fraction_digit(bounds_.max, i), '0', next);
      row = next;
      end_number(row, i + 1);
    }
  }

  // Where up to so many more digits may follow, whatever they are: the same for every whole part.
  ByteNfa::State any_fraction(std::size_t digits) {
    while (any_fraction_.size() <= digits) {
      const ByteNfa::State added = nfa_.add_state();
      if (!any_fraction_.empty()) nfa_.add_bytes(added, '0', '9', any_fraction_.back());
      any_fraction_.push_back(added);
    }
    return any_fraction_[digits];
  }

  std::size_t fraction_digits(std::size_t whole_digits) const {
    const bool exclusive =
        (bounds_.min && bounds_.min->exclusive) || (bounds_.max && bounds_.max->exclusive);
    if (!exclusive) return kFractionDigits;
    return whole_digits < kDistinctDigits ? kDistinctDigits - whole_digits : 0;
  }

  static char fraction_digit(const std::optional<Decimal>& bound, std::size_t i) {
    return bound && i < bound->fraction.size() ? bound->fraction[i] : '0';
  }

  // The number may end after so many digits of its fraction.
  void end_number(const Row& row, std::size_t digits) {
    const auto& [min, max] = bounds_;
    for (const Tight t : kTights) {
      if ((t.min && !min) || (t.max && !max)) continue;  // cannot be reached
      // Tight means equal so far; what the bound has behind decides.
      if (t.min && (digits < min->fraction.size() || min->exclusive)) continue;
      if (t.max && digits >= max->fraction.size() && max->exclusive) continue;
      nfa_.add_step(row[index(t)], end_);
    }
  }

  ByteNfa& nfa_;
  MagnitudeBounds bounds_;
  Fraction fraction_;
  ByteNfa::State end_;
  std::vector<ByteNfa::State> any_fraction_;  // by the digits that may follow
};

std::optional<Decimal> magnitude(const std::optional<Decimal>& bound) {
  std::optional<Decimal> out = bound;
  if (out) out->negative = false;
  return out;
}

bool is_zero(const Decimal& d) {
  return d.whole == "0" && d.fraction.empty();
}

void add_exponent(ByteNfa& nfa, ByteNfa::State from, ByteNfa::State end) {
  const ByteNfa::State sign = nfa.add_state(), digit = nfa.add_state(), second = nfa.add_state();
  for (const std::uint8_t e : {'e', 'E'}) nfa.add_bytes(from, e, e, sign);
  for (const std::uint8_t s : {'+', '-'}) nfa.add_bytes(sign, s, s, digit);
  nfa.add_step(sign, digit);
  nfa.add_bytes(digit, '0', '9', second);
  nfa.add_bytes(second, '0', '9', end);
  nfa.add_step(second, end);
}

ByteDfa numbers(const NumberBounds& bounds, Fraction fraction, Exponent exponent) {
  ByteNfa nfa;
  const ByteNfa::State start = nfa.add_state(), mantissa = nfa.add_state(), end = nfa.add_state();
  const bool min_negative = bounds.min && bounds.min->negative;
  const bool max_negative = bounds.max && bounds.max->negative;
  if (!max_negative)
    MagnitudeWriter(nfa, {min_negative ? std::nullopt : bounds.min, bounds.max}, fraction, mantissa)
        .write(start);
  if (!bounds.min || min_negative) {
    const ByteNfa::State minus = nfa.add_state();
    nfa.add_bytes(start, '-', '-', minus);
    // -x <= max is x >= -max; without a negative one only -0 is kept out.
    Decimal zero;
    zero.exclusive = true;
    const std::optional<Decimal> least = max_negative ? magnitude(bounds.max) : zero;
    MagnitudeWriter(nfa, {least, magnitude(bounds.min)}, fraction, mantissa).write(minus);
  }
  nfa.add_step(mantissa, end);
  if (exponent == Exponent::Allowed) add_exponent(nfa, mantissa, end);
  std::size_t work = 4'000'000;  // a hundred times what is needed
  ByteDfa dfa = nfa.determinise(start, end, 4096, work).value();
  if (dfa.empty())
    throw ConfigError(fmt::format(
        "no number is within the bounds (numbers have at most {} digits before the point)",
        kWholeDigits));
  return dfa;
}

}  // namespace

Decimal decimal_of(const nlohmann::ordered_json& value, bool exclusive) {
  std::string text =
      value.is_number_float() ? fmt::format("{}", value.get<double>()) : value.dump();
  Decimal out;
  out.negative = text.front() == '-';
  if (out.negative) text.erase(0, 1);
  int exponent = 0;
  if (const std::size_t e = text.find('e'); e != std::string::npos) {
    exponent = std::stoi(text.substr(e + 1));
    text.erase(e);
  }
  const std::size_t point = std::min(text.find('.'), text.size());
  std::string digits = text.substr(0, point);
  if (point < text.size()) digits += text.substr(point + 1);
  int whole = static_cast<int>(point) + exponent;  // digits before the point
  if (whole < 0) digits.insert(0, static_cast<std::size_t>(-whole), '0'), whole = 0;
  if (whole > static_cast<int>(digits.size())) digits.resize(static_cast<std::size_t>(whole), '0');
  out.whole = digits.substr(0, static_cast<std::size_t>(whole));
  out.fraction = digits.substr(static_cast<std::size_t>(whole));
  out.whole.erase(0, std::min(out.whole.find_first_not_of('0'), out.whole.size()));
  if (out.whole.empty()) out.whole = "0";
  out.fraction.erase(out.fraction.find_last_not_of('0') + 1);
  if (is_zero(out)) out.negative = false;
  out.exclusive = exclusive;
  return out;
}

bool is_below(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative;
  const auto smaller = [](const Decimal& x, const Decimal& y) {
    if (x.whole.size() != y.whole.size()) return x.whole.size() < y.whole.size();
    return std::tie(x.whole, x.fraction) < std::tie(y.whole, y.fraction);
  };
  return a.negative ? smaller(b, a) : smaller(a, b);
}

ByteDfa integer_within(const NumberBounds& bounds) {
  return numbers(bounds, Fraction::None, Exponent::None);
}

ByteDfa number_within(const NumberBounds& bounds) {
  const bool bounded = bounds.min || bounds.max;
  return numbers(bounds, Fraction::Allowed, bounded ? Exponent::None : Exponent::Allowed);
}

}  // namespace minke
