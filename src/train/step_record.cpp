#include "train/step_record.h"

#include <fmt/format.h>

#include <deque>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "io/safetensors.h"
#include "model/checkpoint.h"
#include "train/training_step.h"

namespace minke {
namespace {

namespace fs = std::filesystem;

// What will be written: the tensors, and the names that they get.
class Output {
 public:
  void number(std::string name, double value) {
    Tensor tensor(DType::F64, {1});
    tensor.view<double, 1>()(0) = value;
    add(std::move(name), std::move(tensor));
  }
  void counts(std::string name, const std::vector<std::int64_t>& values) {
    Tensor tensor(DType::I64, {static_cast<Index>(values.size())});
    for (Index i = 0; i < tensor.size(); ++i)
      tensor.view<std::int64_t, 1>()(i) = values[static_cast<std::size_t>(i)];
    add(std::move(name), std::move(tensor));
  }
  void add(std::string name, Tensor tensor) {
    tensors_.push_back(std::move(tensor));
    views_.push_back(NamedTensorView::of(std::move(name), tensors_.back()));
  }
  // The same elements in another shape.
  void add(std::string name, Tensor tensor, Shape shape) {
    add(std::move(name), std::move(tensor));
    views_.back().shape = std::move(shape);
  }
  void write(const fs::path& path) const { write_safetensors(path, views_); }

 private:
  std::deque<Tensor> tensors_;  // elements stay where they are
  std::vector<NamedTensorView> views_;
};

// tokens [N, B, T+1] -> I32 [N B, T+1].
Tensor read_tokens(const fs::path& path, const ModelConfig& config, std::int64_t n_steps,
                   Index& batch) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const View3<const std::int64_t> tokens = file.view<std::int64_t, 3>("tokens");
  const Shape shape = file.at("tokens").shape;
  const auto refuse = [&](const std::string& expected) {
    throw FormatError(fmt::format("{}: tokens is {}, but must be [steps, B, T+1] with {}",
                                  path.string(), to_string(shape), expected));
  };
  if (tokens.extent(0) < n_steps)
    refuse(fmt::format("at least {} steps, as --steps asks", n_steps));
  if (tokens.extent(1) < 1) refuse("B at least 1");
  const Index least = 1 + config.num_nextn_predict_layers;
  if (tokens.extent(2) < least + 1)
    refuse(fmt::format("T at least {} for {} MTP modules", least, config.num_nextn_predict_layers));

  batch = tokens.extent(1);
  Tensor ids(DType::I32, {n_steps * batch, tokens.extent(2)});
  const View2<std::int32_t> out = ids.view<std::int32_t, 2>();
  for (Index n = 0; n < n_steps; ++n)
    for (Index b = 0; b < batch; ++b)
      for (Index t = 0; t < tokens.extent(2); ++t) {
        const std::int64_t id = tokens(n, b, t);
        if (id < 0 || id >= config.vocab_size)
          throw FormatError(
              fmt::format("{}: tokens[{}, {}, {}] is {}, but must be from 0 to {} "
                          "(vocab_size of the model is {})",
                          path.string(), n, b, t, id, config.vocab_size - 1, config.vocab_size));
        out(n * batch + b, t) = static_cast<std::int32_t>(id);
      }
  file.check_intact();
  return ids;
}

void record_losses(const std::string& step, const PassResult& result, double norm, Output& out) {
  out.number(step + "loss.total", result.total);
  out.number(step + "loss.main", result.main);
  out.number(step + "loss.mtp", result.mtp);
  for (std::size_t k = 0; k < result.mtp_k.size(); ++k)
    out.number(fmt::format("{}loss.mtp.{}", step, k), result.mtp_k[k]);
  out.number(step + "loss.balance", result.balance);
  out.number(step + "grad_norm", norm);
  for (const MoeLayerRecord& layer : result.moe)
    out.counts(fmt::format("{}load.layers.{}", step, layer.layer), layer.load);
}

void record_balance(PassResult& result, Index batch, Output& out) {
  for (MoeLayerRecord& layer : result.moe) {
    const std::string prefix = fmt::format("balance.layers.{}.", layer.layer);
    const Index rows = layer.scores.extent(0), E = layer.scores.extent(1);
    out.add(prefix + "scores", std::move(layer.scores), {batch, rows / batch, E});
    out.add(prefix + "f", std::move(layer.balance.f));
    out.add(prefix + "P", std::move(layer.balance.p));
  }
}

enum class Which { All, Biases };
void record_parameters(const std::string& prefix, const ModelConfig& config,
                       ModelParameters<Tensor>& masters, Which which, Output& out) {
  for (const auto& [spec, leaf] : list_parameters(config, masters))
    if (which == Which::All || spec.role == Role::Bias) out.add(prefix + spec.name, leaf->clone());
}

void record_gradients(const ModelConfig& config, ModelGradients& gradients, Output& out) {
  for (const auto& [spec, leaf] : list_parameters(config, gradients))
    if (spec.role != Role::Bias) out.add("grad." + spec.name, leaf->clone());
}

// tokens [n_steps B, T+1].
template <class Real>
void run_steps(TrainStateOf<Real>& state, const Tensor& tokens, Index batch,
               const StepSettings& settings, Output& out) {
  BatchSettings batch_settings{.mtp_lambda = settings.mtp_lambda, .alpha = settings.alpha};
  const OptimizerSettings optimizer{.lr = settings.lr,
                                    .beta1 = settings.beta1,
                                    .beta2 = settings.beta2,
                                    .eps = settings.eps,
                                    .weight_decay = settings.weight_decay,
                                    .clip = settings.clip};
  const Index n_steps = tokens.extent(0) / batch;
  for (Index n = 1; n <= n_steps; ++n) {
    const std::string prefix = fmt::format("step{}.", n);
    batch_settings.keep_scores = n == 1;
    PassResult result;
    accumulate_gradients(
        state, tokens.view<std::int32_t, 2>().rows((n - 1) * batch, batch), batch_settings,
        [] { return false; }, result);
    const double norm = gradient_norm(state.config, state.gradients);
    record_losses(prefix, result, norm, out);
    if (n == 1) {
      record_gradients(state.config, state.gradients, out);
      record_balance(result, batch, out);
    }
    apply_gradients(state, optimizer, settings.gamma, result, norm);
    record_parameters(prefix, state.config, state.masters,
                      n == 1 || n == n_steps ? Which::All : Which::Biases, out);
  }
}

}  // namespace

StepSettings StepSettings::load(const fs::path& path) {
  const nlohmann::json json = read_json(path, std::size_t{1} << 20);
  StepSettings settings;
  const OptionList list(settings);
  options_from_json(list, json, path.string());
  for (const Option& option : list.options())
    if (option.name != "moments" && option.name != "compute" && !json.contains(option.name))
      throw ConfigError(
          fmt::format("{}: {} is missing ({}); give every one of lr, beta1, beta2, "
                      "eps, weight_decay, clip, alpha, gamma and mtp_lambda",
                      path.string(), option.name, option.description));
  return settings;
}

void record_steps(const fs::path& model, const fs::path& batch_file, std::int64_t n_steps,
                  const StepSettings& settings, const fs::path& out_file) {
  if (n_steps < 1) throw UsageError(fmt::format("--steps is {}, but must be at least 1", n_steps));
  ModelConfig config;
  ModelParameters<Tensor> masters = load_masters(model, config);
  Index batch = 0;
  const Tensor tokens = read_tokens(batch_file, config, n_steps, batch);
  const Compute compute = parse_compute(settings.compute);
  Output out;
  if (compute == Compute::Fp64) {
    auto state = begin_double_training(config, std::move(masters),
                                       parse_moment_type(settings.moments.value_or("fp64")));
    run_steps(state, tokens, batch, settings, out);
  } else {
    auto state = begin_training(config, std::move(masters),
                                parse_moment_type(settings.moments.value_or("fp32")), compute);
    run_steps(state, tokens, batch, settings, out);
  }
  out.write(out_file);
}

}  // namespace minke
