#include "base/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "base/json.h"

namespace minke {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kLargestFile = std::size_t{1} << 24;

std::string with(std::string text, char from, char to) {
  std::replace(text.begin(), text.end(), from, to);
  return text;
}
std::string json_key(const std::string& name) {
  return with(name, '-', '_');
}
std::string flag_name(const std::string& name) {
  return with(name, '_', '-');
}

// ---- types ------------------------------------------------------------------------------------

template <class T>
struct Kind {
  using Element = T;
  static constexpr bool list = false, optional = false;
};
template <class T>
struct Kind<std::vector<T>> {
  using Element = T;
  static constexpr bool list = true, optional = false;
};
template <class T>
struct Kind<std::optional<T>> {
  using Element = T;
  static constexpr bool list = false, optional = true;
};

template <>
struct Kind<OptionRecords> {
  using Element = OptionRecords;
  static constexpr bool list = true, optional = false;
};

template <class T>
constexpr const char* element_name() {
  if constexpr (std::is_same_v<T, OptionRecords>) return "an object";
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  if constexpr (std::is_integral_v<T>) return "an integer";
  if constexpr (std::is_floating_point_v<T>) return "a number";
  return "text";
}

template <class T>
std::string type_name() {
  using Element = typename Kind<T>::Element;
  std::string name = element_name<Element>();
  if (Kind<T>::list) return "a list, each element " + name;
  if (Kind<T>::optional) return name + " or null";
  return name;
}

template <class T>
const char* help_type() {
  using Element = typename Kind<T>::Element;
  if constexpr (std::is_same_v<T, OptionRecords>) return "JSON";
  if constexpr (std::is_same_v<Element, bool>) return "BOOL";
  if constexpr (std::is_integral_v<Element>) return Kind<T>::list ? "INT,..." : "INT";
  if constexpr (std::is_floating_point_v<Element>) return Kind<T>::list ? "NUMBER,..." : "NUMBER";
  return Kind<T>::list ? "TEXT,..." : "TEXT";
}

// ---- checks -----------------------------------------------------------------------------------

struct Place {
  const Option& option;
  std::string_view where;

  [[noreturn]] void refuse(std::string_view found, std::string_view expected) const {
    throw ConfigError(fmt::format("{}{}{} is {}, but must be {}", where, where.empty() ? "" : ": ",
                                  json_key(option.name), found, expected));
  }
};

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

std::string number_text(double x) {
  return fmt::format("{:.15g}", x);
}

void check_range(const Place& place, double x, const Json& value) {
  const OptionLimits& limits = place.option.limits;
  const bool low = limits.open_min ? !(x > limits.min) : !(x >= limits.min);
  if (!low && x <= limits.max) return;
  std::string expected = limits.open_min ? "above " : "at least ";
  expected += number_text(limits.min);
  if (std::isinf(limits.min))
    expected = "at most " + number_text(limits.max);
  else if (!std::isinf(limits.max))
    expected += " and at most " + number_text(limits.max);
  place.refuse(shown(value), expected);
}

void check_choice(const Place& place, const std::string& text) {
  const auto& choices = place.option.limits.choices;
  if (choices.empty() || std::find(choices.begin(), choices.end(), text) != choices.end()) return;
  std::string list;
  for (const std::string& choice : choices) list += (list.empty() ? "" : ", ") + choice;
  place.refuse("'" + text + "'", "one of " + list);
}

// ---- assignment -------------------------------------------------------------------------------

template <class T>
T element_from(const Place& place, const Json& value, const std::string& expected) {
  if constexpr (std::is_same_v<T, bool>) {
    if (!value.is_boolean()) place.refuse(shown(value), expected);
    return value.get<bool>();
  } else if constexpr (std::is_integral_v<T>) {
    // 1e6 is a float in JSON; it is taken as an integer when it is exactly one.
    if (!value.is_number()) place.refuse(shown(value), expected);
    T result{};
    bool fits = false;
    if (value.is_number_unsigned()) {
      fits = std::in_range<T>(value.get<std::uint64_t>());
      result = static_cast<T>(value.get<std::uint64_t>());
    } else if (value.is_number_integer()) {
      fits = std::in_range<T>(value.get<std::int64_t>());
      result = static_cast<T>(value.get<std::int64_t>());
    } else {
      const double x = value.get<double>();
      if (x != std::floor(x)) place.refuse(shown(value), expected);
      fits = std::abs(x) <= 0x1p53 && (std::is_signed_v<T> || x >= 0) &&
             std::abs(x) <= static_cast<double>(std::numeric_limits<T>::max());
      if (fits) result = static_cast<T>(x);
    }
    if (!fits)
      place.refuse(shown(value),
                   fmt::format("an integer from {} to {}", std::numeric_limits<T>::min(),
                               std::numeric_limits<T>::max()));
    check_range(place, static_cast<double>(result), value);
    return result;
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!value.is_number()) place.refuse(shown(value), expected);
    const double x = value.get<double>();
    if (!std::isfinite(static_cast<T>(x))) place.refuse(shown(value), "a finite number");
    check_range(place, x, value);
    return static_cast<T>(x);
  } else {
    if (!value.is_string()) place.refuse(shown(value), expected);
    const auto& text = value.get_ref<const std::string&>();
    check_choice(place, text);
    return text;
  }
}

void assign_records(const Place& place, const Json& value, OptionRecords& records) {
  if (!value.is_array()) place.refuse(shown(value), type_name<OptionRecords>());
  records.reset(value.size());
  for (std::size_t i = 0; i < value.size(); ++i)
    options_from_json(records.at(i), value[i],
                      fmt::format("{}{}{}[{}]", place.where, place.where.empty() ? "" : ": ",
                                  json_key(place.option.name), i));
}

void assign(const Option& option, const Json& value, std::string_view where) {
  const Place place{option, where};
  std::visit(
      [&](auto* target) {
        using T = std::remove_pointer_t<decltype(target)>;
        using Element = typename Kind<T>::Element;
        const std::string expected = type_name<T>();
        if constexpr (std::is_same_v<T, OptionRecords>) {
          assign_records(place, value, *target);
        } else if constexpr (Kind<T>::list) {
          if (!value.is_array()) place.refuse(shown(value), expected);
          T list;
          for (const Json& element : value)
            list.push_back(element_from<Element>(place, element, expected));
          *target = std::move(list);
        } else if constexpr (Kind<T>::optional) {
          if (value.is_null())
            target->reset();
          else
            *target = element_from<Element>(place, value, expected);
        } else {
          *target = element_from<Element>(place, value, expected);
        }
      },
      option.value);
}

// ---- text of flags and --set ------------------------------------------------------------------

template <class Element>
Json element_from_text(const std::string& text) {
  if constexpr (std::is_same_v<Element, bool>) {
    for (const char* yes : {"true", "1", "yes", "on"})
      if (text == yes) return true;
    for (const char* no : {"false", "0", "no", "off"})
      if (text == no) return false;
    return text;  // refused by its type
  } else if constexpr (std::is_arithmetic_v<Element>) {
    const Json number = Json::parse(text, nullptr, false);
    return number.is_number() ? number : Json(text);
  } else {
    return text;
  }
}

template <class T>
Json from_text(const std::string& text) {
  using Element = typename Kind<T>::Element;
  if constexpr (std::is_same_v<T, OptionRecords>) {
    const Json list = Json::parse(text, nullptr, false);
    return list.is_discarded() ? Json(text) : list;
  } else if constexpr (Kind<T>::list) {
    Json list = Json::array();
    std::size_t begin = 0;
    while (!text.empty() && begin <= text.size()) {
      const std::size_t end = std::min(text.find(',', begin), text.size());
      list.push_back(element_from_text<Element>(text.substr(begin, end - begin)));
      begin = end + 1;
    }
    return list;
  } else {
    if (Kind<T>::optional && (text == "null" || text == "none")) return nullptr;
    return element_from_text<Element>(text);
  }
}

void assign_text(const Option& option, const std::string& text, std::string_view where) {
  const Json value = std::visit(
      [&](auto* target) { return from_text<std::remove_pointer_t<decltype(target)>>(text); },
      option.value);
  assign(option, value, where);
}

Json value_to_json(const Option& option) {
  return std::visit(
      [](auto* target) -> Json {
        using T = std::remove_pointer_t<decltype(target)>;
        if constexpr (std::is_same_v<T, OptionRecords>) {
          Json list = Json::array();
          for (std::size_t i = 0; i < target->size(); ++i)
            list.push_back(Json(options_to_json(target->at(i))));
          return list;
        } else if constexpr (Kind<T>::optional) {
          return target->has_value() ? Json(**target) : Json(nullptr);
        } else if constexpr (std::is_same_v<T, float>) {
          // The shortest decimal that gives the float back, not the digits of its double.
          char text[32];
          const auto end = std::to_chars(text, text + sizeof text, *target).ptr;
          return Json::parse(text, end, nullptr, false);
        } else {
          return Json(*target);
        }
      },
      option.value);
}

std::string value_to_text(const Option& option) {
  const Json value = value_to_json(option);
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return value.is_null() ? "" : value.dump();
  std::string text;
  for (const Json& element : value) {
    if (!text.empty()) text += ",";
    text += element.is_string() ? element.get<std::string>() : element.dump();
  }
  return text;
}

// ---- lookup -----------------------------------------------------------------------------------

const Option& find(const OptionList& list, const std::string& name, std::string_view where) {
  const std::string key = json_key(name);
  std::vector<std::string> known;
  for (const Option& option : list.options()) {
    if (json_key(option.name) == key) return option;
    known.push_back(json_key(option.name));
  }
  const std::string near = nearest_name(key, known);
  throw ConfigError(fmt::format("{}{}there is no option '{}'{}", where, where.empty() ? "" : ": ",
                                name, near.empty() ? "" : "; did you mean '" + near + "'?"));
}

// Whether some option lies below `name`.
bool is_group(const OptionList& list, const std::string& name) {
  const std::string prefix = json_key(name) + ".";
  return std::any_of(list.options().begin(), list.options().end(), [&](const Option& option) {
    return json_key(option.name).starts_with(prefix);
  });
}

void assign_object(const OptionList& list, const Json& object, const std::string& prefix,
                   std::string_view where) {
  for (const auto& [key, value] : object.items()) {
    const std::string name = prefix + key;
    if (!is_group(list, name)) {
      assign(find(list, name, where), value, where);
    } else if (value.is_object()) {
      assign_object(list, value, name + ".", where);
    } else {
      throw ConfigError(fmt::format("{}: {} is {}, but must be an object with settings", where,
                                    name, shown(value)));
    }
  }
}

}  // namespace

OptionLimits at_least(double min) {
  return {.min = min, .choices = {}};
}
OptionLimits above(double min) {
  return {.min = min, .open_min = true, .choices = {}};
}
OptionLimits between(double min, double max) {
  return {.min = min, .max = max, .choices = {}};
}
OptionLimits one_of(std::initializer_list<const char*> choices) {
  OptionLimits limits;
  limits.choices.assign(choices.begin(), choices.end());
  return limits;
}

void add_flags(CLI::App& app, const OptionList& list, const std::vector<std::string>& skip) {
  for (const Option& option : list.options()) {
    if (std::find(skip.begin(), skip.end(), option.name) != skip.end()) continue;
    const std::string flag = "--" + flag_name(option.name);
    const auto apply = [option, flag](const std::string& text) {
      try {
        assign_text(option, text, flag);
      } catch (const ConfigError& error) {
        throw UsageError(error.what());
      }
    };
    std::string description = option.description;
    if (!option.limits.choices.empty()) {
      description += ":";
      for (const std::string& choice : option.limits.choices) description += " " + choice;
    }
    const std::string type = std::visit(
        [](auto* target) { return help_type<std::remove_pointer_t<decltype(target)>>(); },
        option.value);
    const bool is_bool = std::holds_alternative<bool*>(option.value);
    if (is_bool) {
      const std::string no = "--no-" + flag_name(option.name);
      const bool on = *std::get<bool*>(option.value);
      app.add_flag_function(
             flag + ",!" + no,
             [option](std::int64_t count) { *std::get<bool*>(option.value) = count > 0; },
             fmt::format("{} [{}]", description, on ? "on" : "off"))
          ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    } else {
      app.add_option_function<std::string>(flag, apply, description)
          ->type_name(type)
          ->default_str(value_to_text(option));
    }
  }
}

nlohmann::ordered_json options_to_json(const OptionList& list) {
  nlohmann::ordered_json root = nlohmann::ordered_json::object();
  for (const Option& option : list.options()) {
    nlohmann::ordered_json* object = &root;
    const std::string key = json_key(option.name);
    std::size_t begin = 0;
    for (std::size_t dot; (dot = key.find('.', begin)) != std::string::npos; begin = dot + 1)
      object = &(*object)[key.substr(begin, dot - begin)];
    (*object)[key.substr(begin)] = value_to_json(option);
  }
  return root;
}

void options_from_json(const OptionList& list, const nlohmann::json& json, std::string_view where) {
  if (!json.is_object())
    throw ConfigError(
        fmt::format("{}: found {}, but settings must be a JSON object", where, shown(json)));
  assign_object(list, json, "", where);
}

void options_from_file(const OptionList& list, const std::string& path) {
  options_from_json(list, read_json(path, kLargestFile), path);
}

void set_option(const OptionList& list, std::string_view assignment) {
  const std::size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0)
    throw UsageError(fmt::format("--set {}: must be NAME=VALUE", assignment));
  const std::string name(assignment.substr(0, equals));
  if (is_group(list, name))
    throw ConfigError(
        fmt::format("--set: {} is a group of settings; name one of them, as {}.NAME", name, name));
  assign_text(find(list, name, "--set"), std::string(assignment.substr(equals + 1)), "--set");
}

std::string nearest_name(std::string_view name, const std::vector<std::string>& known) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : known) {
    std::vector<std::size_t> row(candidate.size() + 1);  // Levenshtein's distance, row by row
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 0; i < name.size(); ++i) {
      std::size_t diagonal = row[0];
      row[0] = i + 1;
      for (std::size_t j = 0; j < candidate.size(); ++j) {
        const std::size_t replaced = diagonal + (name[i] == candidate[j] ? 0 : 1);
        diagonal = row[j + 1];
        row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

}  // namespace minke
