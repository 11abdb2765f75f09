#include "train/loop.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/threads.h"
#include "model/checkpoint.h"
#include "ops/isa.h"
#include "text/tokenizer.h"
#include "train/balance.h"
#include "train/export.h"
#include "train/held_out_acceptance.h"
#include "train/metrics.h"
#include "train/training_data.h"
#include "train/training_step.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Two runs that write the same files would spoil both. The kernel frees the lock with its process.
class RunLock {
 public:
  explicit RunLock(const fs::path& path) {
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd_ < 0) throw_io_error(fmt::format("cannot open {}", path.string()), errno);
    if (flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
    ::close(fd_);
    throw ConfigError(
        fmt::format("{} is locked: another process trains into this directory; wait for it or give "
                    "another --out",
                    path.string()));
  }
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;
  ~RunLock() { ::close(fd_); }

 private:
  int fd_;
};

// Bytes, swap included; 0 where the system does not say.
double machine_memory() {
  struct sysinfo info {};
  if (sysinfo(&info) != 0) return 0;
  return (static_cast<double>(info.totalram) + static_cast<double>(info.totalswap)) *
         static_cast<double>(info.mem_unit);
}

fs::path made(fs::path directory) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error)
    throw IoError(fmt::format("cannot create {}: {}", directory.string(), error.message()));
  return directory;
}

class Run {
 public:
  Run(Recipe recipe, const RunOptions& options)
      : recipe_(std::move(recipe)),
        options_(options),
        directory_(made(run_directory(recipe_))),
        lock_(directory_ / "lock"),
        tokenizer_(Tokenizer::load(recipe_.data.tokenizer)),
        checkpoints_(directory_ / "checkpoints"),
        resumed_from_(choose_checkpoint()),
        data_(load_data()),
        source_(data_.batches(recipe_)) {
    { const AtomicDirectory probe(recipe_.out); }  // not only at the end: can OUT be written?
    if (resumed_from_ >= 0)
      resume();
    else
      begin();
    position_ = source_.position();
  }

  void train(FunctionRef<bool()> stop) {
    const Index total = recipe_.total_steps();
    const Index last = std::min(total, options_.stop_after.value_or(total));
    MetricsLog metrics(directory_ / "metrics.jsonl", state_.step,
                       recipe_.tensorboard ? directory_ / "tensorboard" : fs::path());
    if (state_.step < last) {
      metrics.append(start_line());
      Progress progress({.label = "train", .unit = "steps", .total = total, .start = state_.step});
      last_saved_ = Clock::now();
      while (state_.step < last) {
        if (!step(stop, metrics, progress)) {
          progress.finish();
          throw Interrupted(
              fmt::format("stopped after step {} of {}; the same command goes on from "
                          "{}",
                          state_.step, total, save().string()));
        }
        if (state_.step < last && checkpoint_is_due()) save();
      }
      progress.finish();
      save();
    }
    if (state_.step >= total) finish();
  }

 private:
  std::int64_t choose_checkpoint() const {
    const std::int64_t newest = checkpoints_.newest_whole();
    if (newest < 0 && options_.resume == Resume::Must)
      throw ConfigError(
          fmt::format("there is no whole checkpoint in {} to go on from; train "
                      "without --resume must",
                      (directory_ / "checkpoints").string()));
    if (newest >= 0 && options_.resume == Resume::Never)
      throw ConfigError(
          fmt::format("{} holds a checkpoint already; go on from it with --resume "
                      "auto, remove {}, or give another --out",
                      checkpoints_.path_of(newest).string(), directory_.string()));
    return newest;
  }

  ModelConfig config_of_start() const {
    if (resumed_from_ >= 0) return ModelConfig::load(checkpoints_.path_of(resumed_from_));
    return recipe_.init_from.empty() ? recipe_.new_model(tokenizer_)
                                     : ModelConfig::load(recipe_.init_from);
  }

  // What cannot work is refused before text and weights are read.
  TrainingData load_data() const {
    const ModelConfig config = config_of_start();
    recipe_.check_model(config, tokenizer_);
    const double needed = training_memory(recipe_, config).total(), here = machine_memory();
    if (here > 0 && needed > here)
      throw ConfigError(
          fmt::format("this training needs about {:.1f} GB of memory, the machine has {:.1f} GB; "
                      "take a smaller model or data.micro_batch (--dry-run says what needs how "
                      "much)",
                      needed * 1e-9, here * 1e-9));
    return load_training_data(recipe_, tokenizer_);
  }

  void begin() {
    const MomentType moments = parse_moment_type(recipe_.optimizer.moments);
    const Compute compute = parse_compute(recipe_.compute);
    if (recipe_.init_from.empty()) {
      const ModelConfig config = recipe_.new_model(tokenizer_);
      state_ = begin_training(config, initial_parameters(config, recipe_.seed), moments, compute,
                              recipe_.training_form());
    } else {
      ModelConfig config;
      ModelParameters<Tensor> masters = load_masters(recipe_.init_from, config);
      state_ =
          begin_training(config, std::move(masters), moments, compute, recipe_.training_form());
    }
  }

  void resume() {
    const fs::path path = checkpoints_.path_of(resumed_from_);
    const Json record = read_checkpoint_record(path);
    const fs::path file = path / "train_state.json";
    if (!record.contains("recipe") || !record.contains("data"))
      throw FormatError(fmt::format("{}: 'recipe' or 'data' is missing", file.string()));
    for (const std::string& change : recipe_changes(record["recipe"], recipe_))
      log_warning(fmt::format("going on with {}", change));
    state_ = load_checkpoint(path, parse_compute(recipe_.compute), recipe_.training_form());
    source_.set_position(data_position_from_json(nlohmann::json(record["data"]), file.string()));
    if (record.contains("held_out") && record["held_out"].is_number())
      held_out_ = record["held_out"].get<double>();
    log_info(fmt::format("going on from {}", path.string()));
  }

  // One optimiser step, its metrics and progress; false when `stop` ended it.
  bool step(FunctionRef<bool()> stop, MetricsLog& metrics, Progress& progress) {
    const auto begin = Clock::now();
    const Index B = recipe_.data.batch_size, row = recipe_.data.sequence_length + 1;
    const std::vector<std::int32_t> tokens = source_.next(B);
    PassResult result;
    if (!accumulate_gradients(state_, View2<const std::int32_t>(tokens.data(), {B, row}),
                              {.mtp_lambda = recipe_.loss.mtp_lambda,
                               .alpha = recipe_.loss.alpha,
                               .micro_batch = recipe_.data.micro_batch},
                              stop, result))
      return false;
    const double norm = gradient_norm(state_.config, state_.gradients);
    if (!std::isfinite(norm) || !std::isfinite(result.total)) fail_not_finite(progress);
    const OptimizerSettings optimizer = recipe_.optimizer_settings(state_.step);
    apply_gradients(state_, optimizer, recipe_.loss.gamma, result, norm);
    position_ = source_.position();
    const double took = seconds_since(begin);

    Json line = step_line(result, norm, optimizer.lr, took);
    if (!data_.held_out.empty() &&
        (state_.step == recipe_.total_steps() ||
         (recipe_.eval_every > 0 && state_.step % recipe_.eval_every == 0)))
      add_held_out(line);
    metrics.append(line);
    smooth_step_s_ = smooth_step_s_ == 0 ? took : 0.9 * smooth_step_s_ + 0.1 * took;
    std::string suffix = fmt::format(
        "loss {:.3f}  {:.0f} tokens/s  load {:.2f}x", result.main,
        static_cast<double>(recipe_.tokens_per_step()) / smooth_step_s_, worst_load_ratio(result));
    if (held_out_) suffix += fmt::format("  held-out {:.3f}", *held_out_);
    progress.update(state_.step, suffix);
    return true;
  }

  Json start_line() {
    return {{"step", state_.step},
            {"start", true},
            {"isa", name_of(chosen_isa())},
            {"threads", n_threads()},
            {"parameters", count_parameters(state_.config).total},
            {"recipe", options_to_json(OptionList(recipe_))}};
  }

  Json step_line(const PassResult& result, double norm, double lr, double took) const {
    Json load_ratios = Json::object();
    for (const MoeLayerRecord& layer : result.moe)
      load_ratios[std::to_string(layer.layer)] = worst_load_ratio(layer.load);
    return {{"step", state_.step},
            {"tokens", state_.step * recipe_.tokens_per_step()},
            {"loss",
             {{"total", result.total},
              {"main", result.main},
              {"mtp", result.mtp},
              {"mtp_k", result.mtp_k},
              {"balance", result.balance}}},
            {"lr", lr},
            {"grad_norm", norm},
            {"worst_load_ratio", worst_load_ratio(result)},
            {"load_ratios", load_ratios},
            {"tokens_per_s", static_cast<double>(recipe_.tokens_per_step()) / took}};
  }

  void add_held_out(Json& line) {
    const Index at_once =
        recipe_.data.micro_batch > 0 ? recipe_.data.micro_batch : recipe_.data.batch_size;
    const HeldOutLoss held_out =
        held_out_loss(state_.model, data_.held_out, recipe_.data.sequence_length, at_once);
    held_out_ = held_out.loss;
    line["held_out"] = held_out.loss;
    line["held_out_bits_per_byte"] = held_out.bits_per_byte;
    for (const auto& [source, loss] : held_out.by_source) line["held_out_sources"][source] = loss;
    if (state_.config.num_nextn_predict_layers > 0)
      line["mtp_acceptance"] =
          held_out_acceptance(state_.model, data_.held_out, recipe_.data.sequence_length).share();
  }

  [[noreturn]] void fail_not_finite(Progress& progress) {
    const std::string tensor = first_non_finite(state_.config, state_.gradients);
    progress.finish();
    source_.set_position(position_);
    const fs::path saved = save();
    throw Error(fmt::format(
        "step {}: {} is not finite; the state before it is in {}. Lower optimizer.lr or "
        "optimizer.clip, and run again",
        state_.step + 1, tensor.empty() ? "the loss" : "the gradient " + tensor, saved.string()));
  }

  bool checkpoint_is_due() const {
    const CheckpointRecipe& c = recipe_.checkpoint;
    return (c.every > 0 && state_.step % c.every == 0) ||
           (c.minutes > 0 && seconds_since(last_saved_) >= 60 * c.minutes);
  }

  fs::path save() {
    const fs::path target = checkpoints_.path_of(state_.step);
    Json record = {{"recipe", options_to_json(OptionList(recipe_))}, {"data", to_json(position_)}};
    record["held_out"] = held_out_ ? Json(*held_out_) : Json(nullptr);
    save_checkpoint(target, state_, std::move(record), tokenizer_files(recipe_.data.tokenizer));
    checkpoints_.prune(recipe_.checkpoint.keep);
    last_saved_ = Clock::now();
    return target;
  }

  void finish() {
    export_model(recipe_.out, state_.config, state_.masters, recipe_.data.tokenizer);
    log_info(fmt::format("the model is in {}{}", recipe_.out,
                         held_out_ ? fmt::format(" (held-out loss {:.4f})", *held_out_) : ""));
  }

  Recipe recipe_;
  RunOptions options_;
  fs::path directory_;
  RunLock lock_;
  Tokenizer tokenizer_;
  CheckpointDirectory checkpoints_;
  std::int64_t resumed_from_;  // step, or -1
  TrainingData data_;
  BatchSource source_;
  TrainState state_;
  DataPosition position_;  // behind the batch of the last whole step
  std::optional<double> held_out_;
  double smooth_step_s_ = 0;
  Clock::time_point last_saved_;
};

}  // namespace

Resume parse_resume(std::string_view name) {
  if (name == "auto") return Resume::Auto;
  if (name == "never") return Resume::Never;
  if (name == "must") return Resume::Must;
  throw UsageError(fmt::format("--resume is '{}', but must be auto, never or must", name));
}

fs::path run_directory(const Recipe& recipe) {
  fs::path out(recipe.out);
  while (!out.has_filename() && out.has_parent_path() && out != out.root_path())
    out = out.parent_path();
  return out.string() + ".run";
}

void run_training(const Recipe& recipe, const RunOptions& options, FunctionRef<bool()> stop) {
  Run(recipe, options).train(stop);
}

}  // namespace minke
