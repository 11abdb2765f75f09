#include "train/guard.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "ops/adamw.h"

namespace minke {
namespace {

using Json = nlohmann::ordered_json;
constexpr double kLeastDeviation = 0.01;  // of the mean

double mean_of(const std::deque<double>& values) {
  double sum = 0;
  for (double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

double deviation_of(const std::deque<double>& values, double mean) {
  double sum = 0;
  for (double v : values) sum += (v - mean) * (v - mean);
  return std::sqrt(sum / static_cast<double>(values.size()));
}

double median_of(const std::deque<double>& values) {
  std::vector<double> sorted(values.begin(), values.end());
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

// N of "model.layers.N.", MTP modules included.
std::optional<Index> layer_of(std::string_view name) {
  constexpr std::string_view prefix = "model.layers.";
  if (!name.starts_with(prefix)) return std::nullopt;
  Index layer = 0;
  std::from_chars(name.data() + prefix.size(), name.data() + name.size(), layer);
  return layer;
}

// The number of the first element that is NaN or infinite, or -1.
Index non_finite_element(const Tensor& tensor) {
  const View1<const float> values = tensor.flat();
  if (std::isfinite(sum_of_squares(values))) return -1;
  for (Index i = 0; i < values.size(); ++i)
    if (!std::isfinite(values(i))) return i;
  return -1;
}

Fault not_finite(const ParameterSpec& spec, Index element, const char* kind) {
  return {.kind = Fault::Kind::NotFinite,
          .tensor = spec.name,
          .layer = layer_of(spec.name),
          .what = fmt::format("the {} {}[{}] is not finite", kind, spec.name, element)};
}

// Where a tensor stands among all of the model's.
double place_of(const ModelConfig& config, const std::string& name) {
  double place = 0, found = -1;
  ModelParameters<int> unused;
  visit_parameters(config.whole(), unused, [&](const ParameterSpec& spec, int&) {
    if (spec.name == name) found = place;
    ++place;
  });
  return found;
}

View2<const std::int32_t> one_row(const std::vector<std::int32_t>& tokens) {
  return {tokens.data(), {1, static_cast<Index>(tokens.size())}};
}

// The tensor whose gradient is largest, for the name of a spike.
struct LargestGradient {
  ParameterSpec spec;
  double squares = -1;
};
LargestGradient largest_gradient(TrainState& state) {
  LargestGradient largest;
  for (const auto& [spec, leaf] : list_parameters(state.config, state.gradients))
    if (const double squares = sum_of_squares(std::as_const(*leaf).flat());
        squares > largest.squares)
      largest = {spec, squares};
  return largest;
}

std::deque<double> numbers_from(const Json& json, const char* key, const std::string& where) {
  const auto bad = [](const Json& element) { return !element.is_number(); };
  if (!json.is_object() || !json.contains(key) || !json[key].is_array() ||
      std::any_of(json[key].begin(), json[key].end(), bad))
    throw FormatError(fmt::format("{}: guard.{} is missing or no list of numbers", where, key));
  return json[key].get<std::deque<double>>();
}

}  // namespace

bool Guard::loss_is_far(double loss) const {
  if (recipe_.spike_deviations == 0) return false;
  const double mean = mean_of(losses_);
  const double deviation = std::max(deviation_of(losses_, mean), kLeastDeviation * mean);
  return loss > mean + recipe_.spike_deviations * deviation;
}

bool Guard::norm_is_far(double norm) const {
  return recipe_.spike_gradient > 0 && norm > recipe_.spike_gradient * median_of(norms_);
}

bool Guard::is_spike(double loss, double norm) const {
  if (recipe_.spike == "ignore" || std::ssize(losses_) < recipe_.window) return false;
  return loss_is_far(loss) || norm_is_far(norm);
}

std::optional<Fault> Guard::find_spike(TrainState& state, double loss, double norm) const {
  if (!is_spike(loss, norm)) return std::nullopt;
  if (loss_is_far(loss))
    return Fault{
        .kind = Fault::Kind::Spike,
        .tensor = "loss.main",
        .layer = std::nullopt,
        .what = fmt::format("the main loss {:.4g} is far above its mean {:.4g} over {} steps", loss,
                            mean_of(losses_), losses_.size())};
  const LargestGradient largest = largest_gradient(state);
  const std::string& name = largest.spec.name;
  return Fault{
      .kind = Fault::Kind::Spike,
      .tensor = name,
      .layer = layer_of(name),
      .what = fmt::format("the gradient's norm {:.4g} is far above its median {:.4g} over {} "
                          "steps, most of it in {}",
                          norm, median_of(norms_), norms_.size(), name),
      .place = -largest.squares};
}

void Guard::record_step(double main_loss, double norm) {
  losses_.push_back(main_loss);
  norms_.push_back(norm);
  for (std::deque<double>* window : {&losses_, &norms_})
    while (std::ssize(*window) > recipe_.window) window->pop_front();
  skips_in_a_row_ = 0;
}

Json Guard::to_json() const {
  return {{"losses", losses_}, {"norms", norms_}, {"skips_in_a_row", skips_in_a_row_}};
}

void Guard::set_from_json(const Json& json, const std::string& where) {
  losses_ = numbers_from(json, "losses", where);
  norms_ = numbers_from(json, "norms", where);
  if (losses_.size() != norms_.size())
    throw FormatError(
        fmt::format("{}: guard has {} losses but {} norms", where, losses_.size(), norms_.size()));
  if (!json.contains("skips_in_a_row") || !json["skips_in_a_row"].is_number_unsigned())
    throw FormatError(fmt::format("{}: guard.skips_in_a_row is missing or no count", where));
  skips_in_a_row_ = json["skips_in_a_row"].get<std::int64_t>();
}

std::optional<Fault> find_not_finite(TrainState& state, const PassResult& result, double norm) {
  if (std::isfinite(norm) && std::isfinite(result.total)) return std::nullopt;
  for (const auto& [spec, leaf] : list_parameters(state.config, state.masters))
    if (const Index element = non_finite_element(*leaf); element >= 0) {
      Fault fault = not_finite(spec, element, "weight");
      fault.in_weights = true;
      fault.place = place_of(state.config, spec.name);
      return fault;
    }
  for (const auto& [name, value] : {std::pair{"main", result.main}, std::pair{"mtp", result.mtp},
                                    std::pair{"balance", result.balance}})
    if (!std::isfinite(value))
      return Fault{.kind = Fault::Kind::NotFinite,
                   .tensor = fmt::format("loss.{}", name),
                   .layer = std::nullopt,
                   .what = fmt::format("the loss ({}) is not finite", name),
                   .cause = 1};
  // B goes through the list from its end: what it reached first made the others.
  const auto gradients = list_parameters(state.config, state.gradients);
  for (auto g = gradients.rbegin(); g != gradients.rend(); ++g)
    if (const Index element = non_finite_element(*g->leaf); element >= 0) {
      Fault fault = not_finite(g->spec, element, "gradient");
      fault.cause = 2;
      fault.place = -place_of(state.config, g->spec.name);
      return fault;
    }
  return Fault{.kind = Fault::Kind::NotFinite,
               .tensor = "",
               .layer = std::nullopt,
               .what = "the norm of all gradients together is not finite",
               .cause = 3};
}

SuspectRow find_suspect_row(StepForm& form, BatchSource& source, const DataPosition& begin,
                            Index rows, bool mask_documents) {
  const DataPosition end = source.position();
  source.set_position(begin);
  std::vector<SuspectRow> suspects;
  std::vector<RowBatch> batches;
  for (Index r = 0; r < rows; ++r) {
    suspects.push_back({source.position(), source.next_source(), std::nullopt});
    batches.push_back(source.next_rows(1));
    if (!mask_documents) batches.back().starts.clear();
  }
  source.set_position(end);
  std::vector<LossRows> groups;
  for (const RowBatch& batch : batches) groups.push_back({one_row(batch.tokens), batch.starts});
  std::vector<double> losses = form.losses(groups);
  for (double& loss : losses)
    if (!std::isfinite(loss)) loss = std::numeric_limits<double>::infinity();
  const auto worst = std::max_element(losses.begin(), losses.end()) - losses.begin();
  SuspectRow& suspect = suspects[static_cast<std::size_t>(worst)];
  if (std::isinf(losses[static_cast<std::size_t>(worst)]))
    suspect.output = form.non_finite_output(groups[static_cast<std::size_t>(worst)]);
  return suspect;
}

void name_output(Fault& fault, const SuspectRow& row) {
  if (!row.output || !fault.tensor.starts_with("loss.")) return;
  fault.what += fmt::format(": the forward pass is not from {} on", row.output->tensor);
  fault.tensor = row.output->tensor;
  fault.layer = row.output->layer;
}

Json event_line(std::int64_t step, std::string_view event, const Fault& fault,
                const SuspectRow& row) {
  return {{"step", step},
          {"event", event},
          {"tensor", fault.tensor},
          {"layer", fault.layer ? Json(*fault.layer) : Json(nullptr)},
          {"data",
           {{"epoch", row.position.epoch},
            {"document", row.position.document},
            {"offset", row.position.offset},
            {"source", row.source}}},
          {"message", fault.what}};
}

}  // namespace minke
