// Shares of the sources in training, as a list of "source=weight".
#pragma once
#include <string>
#include <vector>

namespace minke {

// The share of each source's tokens in all tokens trained on, in the order of `sources`; they sum
// to one. Empty when `mixture` is: documents then come as they are, in one order. A weight of 0
// leaves a source out. ConfigError for a source that is not there, one that is not named (nothing
// is left out in silence) or named twice, a weight that is no number of at least 0, and when all
// weights are 0.
std::vector<double> mixture_shares(const std::vector<std::string>& mixture,
                                   const std::vector<std::string>& sources);

}  // namespace minke
