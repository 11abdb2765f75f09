// A value that changes at token counts: the report's gamma (0.001, then 0 after 14.3T tokens) and
// lambda (0.3, then 0.1 after 10T).
#pragma once
#include <string_view>
#include <vector>

#include "base/options.h"
#include "tensor/view.h"

namespace minke {

struct TokenSwitch {
  Index at = 0;
  double value = 0;

  template <class Visitor>
  void visit(Visitor& field) {
    field("at", at, "tokens seen from which the value holds", at_least(1));
    field("value", value, "the value", at_least(0));
  }
};

// ConfigError that names the element ("loss.gamma_switches[1]") when `at` does not rise.
void check_switches(const std::vector<TokenSwitch>& switches, std::string_view name);

// Of a step that begins when `tokens` have been seen.
double switched_value(double first, const std::vector<TokenSwitch>& switches, Index tokens);

}  // namespace minke
