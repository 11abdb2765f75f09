// Steps that are not to be trusted: a loss or gradient that is not finite, and spikes. A spike is
//   main loss > mean + spike_deviations * deviation     of the main loss in the last `window` steps
//   norm      > spike_gradient * median                 of the gradient's norm in them
// judged from the first full window on. The deviation counts as at least 1 % of the mean, so that a
// loss that hardly moves any more does not make every flutter a spike. Steps that were skipped are
// not in the window. The window is part of a checkpoint: a resumed run judges alike.
#pragma once
#include <cstdint>
#include <deque>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "data/packing.h"
#include "model/training_pass.h"
#include "train/recipe.h"
#include "train/step_form.h"

namespace minke {

// What is wrong with a step, and where.
struct Fault {
  enum class Kind : std::uint8_t { NotFinite, Spike };
  Kind kind;
  std::string tensor;          // published name; "loss.main", "loss.mtp", "loss.balance"
  std::optional<Index> layer;  // of the tensor, where it has one
  std::string what;            // "the gradient model.norm.weight[3] is not finite"
  bool in_weights = false;     // then no other batch is better: it cannot be skipped
  // Of the faults that may be named, the first cause has the least, and of one cause the first
  // place: so ranks that each look at a part of the model agree on one (train/agreed_fault.h).
  int cause = 0;
  double place = 0;
};

class Guard {
 public:
  explicit Guard(const GuardRecipe& recipe) : recipe_(recipe) {}

  bool is_spike(double main_loss, double norm) const;
  // Of a finite step, or nothing. `state` holds its gradients, whose norm is `norm`.
  std::optional<Fault> find_spike(TrainState& state, double main_loss, double norm) const;

  // After a step that was made, or skipped.
  void record_step(double main_loss, double norm);
  void record_skip() { ++skips_in_a_row_; }
  std::int64_t skips_in_a_row() const { return skips_in_a_row_; }

  nlohmann::ordered_json to_json() const;
  // FormatError that begins with `where`.
  void set_from_json(const nlohmann::ordered_json& json, const std::string& where);

 private:
  bool loss_is_far(double loss) const;
  bool norm_is_far(double norm) const;

  GuardRecipe recipe_;
  std::deque<double> losses_, norms_;
  std::int64_t skips_in_a_row_ = 0;
};

// The first cause that can be told: a weight, else a loss, else, of the gradients, the one that B
// reached first. Nothing when weights' gradients and losses are all finite.
std::optional<Fault> find_not_finite(TrainState& state, const PassResult& result, double norm);

// The row of a batch with the largest loss (one that is not finite counts as larger), where a fault
// most likely came from, and where in it. One forward pass over the batch.
struct SuspectRow {
  DataPosition position;                  // of its first token
  std::string source;                     // of the document there
  std::optional<NonFiniteOutput> output;  // of the row's forward pass
};
// By the form, so collective.
SuspectRow find_suspect_row(StepForm& form, BatchSource& source, const DataPosition& begin,
                            Index rows, bool mask_documents);

// Of a loss that is not finite: names the layer and the output in which the row's forward pass left
// the finite numbers, where it did.
void name_output(Fault& fault, const SuspectRow& row);

// One line of metrics.jsonl. `event`: "not_finite", "spike" or "skipped".
nlohmann::ordered_json event_line(std::int64_t step, std::string_view event, const Fault& fault,
                                  const SuspectRow& row);

}  // namespace minke
