#include "text/json_terminals.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"

namespace minke {
namespace {

bool accepts(const ByteDfa& dfa, std::string_view text) {
  ByteDfa::State state = 0;
  for (const char c : text) {
    state = dfa.next[state][static_cast<unsigned char>(c)];
    if (state == ByteDfa::kNone) return false;
  }
  return dfa.accepts[state];
}

NumberBounds bounds_of(const std::string& min, const std::string& max, bool exclusive) {
  NumberBounds out;
  if (!min.empty()) out.min = decimal_of(nlohmann::ordered_json::parse(min), exclusive);
  if (!max.empty()) out.max = decimal_of(nlohmann::ordered_json::parse(max), exclusive);
  return out;
}

// Every small decimal against every pair of bounds, compared as numbers.
TEST(JsonTerminals, NumbersAreWithinTheirBounds) {
  std::vector<std::string> texts;
  for (int i = -1250; i <= 1250; ++i) texts.push_back(fmt::format("{:.2f}", i / 100.0));
  for (int i = -120; i <= 120; ++i) texts.push_back(std::to_string(i));
  for (const char* min : {"", "-12", "-1.25", "-1", "0", "0.07", "1", "9.5", "10"}) {
    for (const char* max : {"", "-11.99", "-0.5", "0", "0.1", "3", "9", "10.0", "100"}) {
      for (const bool exclusive : {false, true}) {
        const double low = *min ? std::stod(min) : -1e9, high = *max ? std::stod(max) : 1e9;
        if (low > high || (low == high && exclusive)) continue;
        const NumberBounds bounds = bounds_of(min, max, exclusive);
        const ByteDfa any = number_within(bounds);
        for (const std::string& text : texts) {
          const double value = std::stod(text);
          const bool within = exclusive ? (!*min || value > low) && (!*max || value < high)
                                        : value >= low && value <= high;
          const bool negative_zero = value == 0 && text[0] == '-';
          EXPECT_EQ(accepts(any, text), within && !negative_zero)
              << min << ".." << max << " " << text << " " << exclusive;
        }
      }
    }
  }
}

TEST(JsonTerminals, IntegersAreExact) {
  const ByteDfa dfa = integer_within(bounds_of("-9007199254740993", "9007199254740993", false));
  EXPECT_TRUE(accepts(dfa, "9007199254740993"));
  EXPECT_FALSE(accepts(dfa, "9007199254740994"));
  EXPECT_TRUE(accepts(dfa, "-9007199254740993"));
  EXPECT_FALSE(accepts(dfa, "-9007199254740994"));
  EXPECT_FALSE(accepts(dfa, "1.0"));
  EXPECT_FALSE(accepts(dfa, "-0"));
  EXPECT_THROW(integer_within(bounds_of("1.2", "1.8", false)), ConfigError);
  EXPECT_THROW(integer_within(bounds_of("3", "2", false)), ConfigError);
  EXPECT_THROW(number_within(bounds_of("1e300", "", false)), ConfigError);
  EXPECT_NO_THROW(number_within(bounds_of("", "1e300", true)));
}

TEST(JsonTerminals, DecimalsKeepWhatIsWritten) {
  for (const auto& [text, whole, fraction] :
       std::vector<std::array<std::string, 3>>{{"12.50", "12", "5"},
                                               {"1e-7", "0", "0000001"},
                                               {"2.5e20", "250000000000000000000", ""},
                                               {"-0.0", "0", ""},
                                               {"0.1", "0", "1"}}) {
    const Decimal d = decimal_of(nlohmann::ordered_json::parse(text), false);
    EXPECT_EQ(d.whole, whole) << text;
    EXPECT_EQ(d.fraction, fraction) << text;
    EXPECT_FALSE(d.negative);
  }
}

TEST(JsonTerminals, OtherNamesAreOther) {
  const ByteDfa dfa = string_other_than({"a", "ab", "", "中"});
  for (const char* text : {"\"b\"", "\"abc\"", "\"aa\"", "\"丰\"", "\"中中\""})
    EXPECT_TRUE(accepts(dfa, text)) << text;
  for (const char* text : {"\"a\"", "\"ab\"", "\"\"", "\"中\"", "\"\\u0061\""})
    EXPECT_FALSE(accepts(dfa, text)) << text;
}

}  // namespace
}  // namespace minke
