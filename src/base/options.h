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
// double or std::string, std::optional of bool, std::int64_t, double or std::string (null: not
// given), and std::vector of structs with visit of their own: in JSON an array of objects, in a
// flag or override that array as text.
//
// Errors are ConfigErrors that name where the value came from, the option, what was found and what
// was expected; an unknown name comes with the nearest known one. Flags give UsageError instead.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
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

class OptionList;

// A std::vector of structs with visit of their own, whatever the struct.
class OptionRecords {
 public:
  virtual ~OptionRecords() = default;
  virtual std::size_t size() const = 0;
  virtual void reset(std::size_t n) = 0;         // n records with their defaults
  virtual OptionList at(std::size_t index) = 0;  // the options of one record
};

using OptionPointer =
    std::variant<bool*, int*, std::int64_t*, std::uint64_t*, float*, double*, std::string*,
                 std::vector<std::int64_t>*, std::vector<double>*, std::vector<std::string>*,
                 std::optional<bool>*, std::optional<std::int64_t>*, std::optional<double>*,
                 std::optional<std::string>*, OptionRecords*>;

struct Option {
  std::string name;  // dotted: "model.hidden_size"
  OptionPointer value;
  std::string description;
  OptionLimits limits;
  std::shared_ptr<OptionRecords> records = nullptr;  // owns what `value` points to, of records
};

template <class T>
inline constexpr bool is_vector = false;
template <class T>
inline constexpr bool is_vector<std::vector<T>> = true;

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
    } else if constexpr (is_vector<T>) {
      const auto records = std::make_shared<Records<typename T::value_type>>(value);
      options_.push_back({prefix_ + std::string(name), records.get(), std::string(description),
                          std::move(limits), records});
    } else {
      const std::string outer = prefix_;
      prefix_ += std::string(name) + ".";
      value.visit(*this);
      prefix_ = outer;
    }
  }

  const std::vector<Option>& options() const { return options_; }

 private:
  template <class Struct>
  class Records : public OptionRecords {
   public:
    explicit Records(std::vector<Struct>& list) : list_(list) {}
    std::size_t size() const override { return list_.size(); }
    void reset(std::size_t n) override { list_.assign(n, Struct{}); }
    OptionList at(std::size_t index) override { return OptionList(list_[index]); }

   private:
    std::vector<Struct>& list_;
  };

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
