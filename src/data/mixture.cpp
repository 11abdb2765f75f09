#include "data/mixture.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/options.h"

namespace minke {
namespace {

double weight_of(const std::string& entry, std::size_t equals) {
  double weight = -1;
  const char* end = entry.data() + entry.size();
  const auto [read, error] = std::from_chars(entry.data() + equals + 1, end, weight);
  if (error != std::errc() || read != end || !std::isfinite(weight) || weight < 0)
    throw ConfigError(fmt::format(
        "data.mixture: '{}' has no weight; expected SOURCE=NUMBER with a number of at least 0",
        entry));
  return weight;
}

}  // namespace

std::vector<double> mixture_shares(const std::vector<std::string>& mixture,
                                   const std::vector<std::string>& sources) {
  if (mixture.empty()) return {};
  constexpr double kNotNamed = -1;
  std::vector<double> shares(sources.size(), kNotNamed);
  for (const std::string& entry : mixture) {
    const std::size_t equals = entry.rfind('=');  // a name may hold one
    if (equals == std::string::npos)
      throw ConfigError(
          fmt::format("data.mixture: '{}' has no weight; expected SOURCE=NUMBER", entry));
    const std::string name = entry.substr(0, equals);
    const auto found = std::find(sources.begin(), sources.end(), name);
    if (found == sources.end()) {
      const std::string near = nearest_name(name, sources);
      throw ConfigError(fmt::format("data.mixture: there is no source '{}'{}; the data has: {}",
                                    name,
                                    near.empty() ? "" : fmt::format(" (did you mean '{}'?)", near),
                                    fmt::join(sources, ", ")));
    }
    double& share = shares[static_cast<std::size_t>(found - sources.begin())];
    if (share != kNotNamed)
      throw ConfigError(fmt::format("data.mixture: the source '{}' is named twice", name));
    share = weight_of(entry, equals);
  }
  for (std::size_t i = 0; i < sources.size(); ++i)
    if (shares[i] == kNotNamed)
      throw ConfigError(fmt::format(
          "data.mixture: the source '{}' has no weight; add {}=NUMBER, 0 to leave it out",
          sources[i], sources[i]));
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  if (sum == 0) throw ConfigError("data.mixture: all weights are 0");
  for (double& share : shares) share /= sum;
  return shares;
}

}  // namespace minke
