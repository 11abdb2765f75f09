#include "train/token_switch.h"

#include <fmt/format.h>

#include "base/error.h"

namespace minke {

void check_switches(const std::vector<TokenSwitch>& switches, std::string_view name) {
  for (std::size_t i = 1; i < switches.size(); ++i)
    if (switches[i].at <= switches[i - 1].at)
      throw ConfigError(fmt::format("{}[{}]: at is {}, but must be above {} of the one before",
                                    name, i, switches[i].at, switches[i - 1].at));
}

double switched_value(double first, const std::vector<TokenSwitch>& switches, Index tokens) {
  double value = first;
  for (const TokenSwitch& s : switches)
    if (tokens >= s.at) value = s.value;
  return value;
}

}  // namespace minke
