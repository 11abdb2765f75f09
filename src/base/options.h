// Options of a command, listed once. A struct with
//
//   template <class Visitor> void visit(Visitor& field) {
//     field("max-batch", max_batch, "sequences decoded together", at_least(1));
//     field("compute", compute, "arithmetic", one_of({"fp32", "bf16", "fp8"}));
//     field("model", model, "the model's config.json");       // a struct with visit of its own
//   }
//
// gives flags (--max-batch, with --help), JSON both ways ({"max_batch": 64, "model": {...}}),
// overrides (model.hidden_size=64) and the record of a run.
//
// '-' and '_' are the same letter in a name; flags are shown with '-', JSON keys with '_'. Types:
// bool, int, std::int64_t, std::uint64_t, float, double, std::string, std::vector of std::int64_t,
// double or std::string, and std::optional of bool, std::int64_t, double or std::string (null: not
// given).
//
// Errors are ConfigErrors that name where the value came from, the option, what was found and what
// was expected; an unknown name comes with the nearest known one. Flags give UsageError instead.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

namespace CLI {
class App;
}

namespace minke {

// What a value must satisfy besides its type; checked when a value is assigned.
struct OptionLimits {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool open_min = false;             // min itself is not allowed
  std::vector<std::string> choices;  // of a string; empty: any
};
OptionLimits at_least(double min);
OptionLimits above(double min);
OptionLimits between(double min, double max);  // both allowed
OptionLimits one_of(std::initializer_list<const char*> choices);

using OptionPointer =
    std::variant<bool*, int*, std::int64_t*, std::uint64_t*, float*, double*, std::string*,
                 std::vector<std::int64_t>*, std::vector<double>*, std::vector<std::string>*,
                 std::optional<bool>*, std::optional<std::int64_t>*, std::optional<double>*,
                 std::optional<std::string>*>;

struct Option {
  std::string name;  // dotted: "model.hidden_size"
  OptionPointer value;
  std::string description;
  OptionLimits limits;
};

// The options of one or more structs, which must outlive the list and stay where they are.
class OptionList {
 public:
  template <class Struct>
  explicit OptionList(Struct& options) {
    options.visit(*this);
  }

  // The visitor's side.
  template <class T>
  void operator()(std::string_view name, T& value, std::string_view description,
                  OptionLimits limits = {}) {
    if constexpr (std::is_constructible_v<OptionPointer, T*>) {
      options_.push_back(
          {prefix_ + std::string(name), &value, std::string(description), std::move(limits)});
    } else {
      const std::string outer = prefix_;
      prefix_ += std::string(name) + ".";
      value.visit(*this);
      prefix_ = outer;
    }
  }

  const std::vector<Option>& options() const { return options_; }

 private:
  std::vector<Option> options_;
  std::string prefix_;
};

// One flag for each option, which assigns when the command line is parsed. A bool `x` gets --x and
// --no-x. `skip`: names that get none (positional arguments, for example).
void add_flags(CLI::App& app, const OptionList& list, const std::vector<std::string>& skip = {});

// All values, in the order of the list, nested by the dots of the names; absent optionals are null.
nlohmann::ordered_json options_to_json(const OptionList& list);

// Assigns what `json` (an object) names; what it does not name keeps its value. `where` names the
// file.
void options_from_json(const OptionList& list, const nlohmann::json& json, std::string_view where);

// options_from_json of a file.
void options_from_file(const OptionList& list, const std::string& path);

// Assigns "name=value", as given with --set. The value is written as for the flag: true/false,
// numbers, text as it is, lists with commas, `null` for an absent optional.
void set_option(const OptionList& list, std::string_view assignment);

// The known name with the fewest letters to change, or "" when none is near. For error messages.
std::string nearest_name(std::string_view name, const std::vector<std::string>& known);

}  // namespace minke
