// What a measurement says, and how it is taken: the work and the limit that bounds it in turn, so
// that both see the same machine, and medians of the rounds.
#pragma once
#include <string>
#include <vector>

#include "base/function_ref.h"
#include "base/threads.h"

namespace minke::bench {

enum class Bound { Flop, Bytes };

struct Result {
  std::string name;   // "linear", "linear experts", ...
  std::string shape;  // "T x N x K"
  std::string form;   // "bf16", ...
  int threads = 1;
  double seconds = 0;          // median of one call
  double spread = 0;           // (third quartile - first quartile) / median
  double bytes = 0, flop = 0;  // moved and done by one call
  double tokens = 0;           // of a step
  Bound bound = Bound::Flop;
  double limit = 0;  // flop/s or bytes/s of this machine, median
  double share = 0;  // of the limit, median of the rounds
  std::string note;  // what else a reader should know: "12.0 of 448 experts a step"

  double rate() const { return (bound == Bound::Flop ? flop : bytes) / seconds; }
};

// Fills seconds, spread, limit and share. `limit` measures once and gives flop/s or bytes/s.
Result measured(Result work, int rounds, FunctionRef<void()> call, FunctionRef<double()> limit);

// The same for work with both bytes and flop, against the limit that asks for more time.
Result measured_nearer(Result work, int rounds, FunctionRef<void()> call,
                       FunctionRef<double()> flop_per_s, FunctionRef<double()> bytes_per_s);

}  // namespace minke::bench
