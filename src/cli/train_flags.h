// The command line of minke train, which minke launch reads as well.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "train/loop.h"

namespace CLI {
class App;
}

namespace minke {

struct TrainFlags {
  std::string recipe, resume = "auto";
  std::optional<std::string> out;  // given but empty, it is refused as a recipe's would be
  std::string init_from;
  std::vector<std::string> settings;
  std::int64_t steps = 0, stop_after = 0;
  std::vector<double> at;
  bool dry_run = false, json = false;

  // The recipe with the settings of the flags; checked, but not whether a run has all it needs.
  Recipe load_recipe() const;
  RunOptions run_options() const;
};

// Registers the flags; they are filled in when the command line is parsed.
std::shared_ptr<TrainFlags> add_train_flags(CLI::App& command);

}  // namespace minke
