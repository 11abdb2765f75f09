#include "train/loop.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/threads.h"
#include "model/checkpoint.h"
#include "ops/isa.h"
#include "parallel/agreement.h"
#include "parallel/gathered_timeline.h"
#include "parallel/reduction.h"
#include "text/tokenizer.h"
#include "train/agreed_fault.h"
#include "train/balance.h"
#include "train/export.h"
#include "train/guard.h"
#include "train/ranked_step.h"
#include "train/run_lock.h"
#include "train/run_output.h"
#include "train/run_schedule.h"
#include "train/step_line.h"
#include "train/training_data.h"
#include "train/training_memory.h"
#include "train/training_step.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// How the recipe balances expert loads, as numbers of a step.
double alpha_of(const LossRecipe& loss) {
  return loss.balance == "none" ? 0 : loss.alpha;
}
double gamma_of(const LossRecipe& loss, double gamma) {
  return loss.balance == "bias" ? gamma : 0;
}
BalanceScope scope_of(const LossRecipe& loss) {
  return loss.balance == "batch" ? BalanceScope::MicroBatch : BalanceScope::Sequence;
}

// OUT with `ending`, whether or not OUT is written with a slash at its end.
fs::path beside(fs::path out, const char* ending) {
  while (!out.has_filename() && out.has_parent_path() && out != out.root_path())
    out = out.parent_path();
  return out.string() + ending;
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
  Run(Recipe recipe, const RunOptions& options, Communicator& ranks)
      : recipe_(std::move(recipe)),
        schedule_(recipe_),
        guard_(recipe_.guard),
        options_(options),
        ranks_(ranks),
        layout_(checked_layout()),
        output_(is_first()),
        directory_(made(run_directory(recipe_))),
        checkpoints_(open_checkpoints()),
        tokenizer_(Tokenizer::load(recipe_.data.tokenizer)),
        resumed_from_(choose_checkpoint()),
        data_(load_data()),
        source_(data_.batches(recipe_)) {
    if (resumed_from_ >= 0)
      resume();
    else
      begin();
    position_ = source_.position();
    form_ = make_form();
  }

  void train(FunctionRef<bool()> stop) {
    const Index total = schedule_.total_steps();
    const Index last = std::min(total, options_.stop_after.value_or(total));
    output_.open_metrics(directory_, state_.step, recipe_.tensorboard);
    if (state_.step < last) {
      output_.append(start_line());
      output_.begin_progress(
          {.label = "train", .unit = "steps", .total = total, .start = state_.step});
      last_saved_ = Clock::now();
      while (state_.step < last) {
        if (!step(stop)) {
          output_.finish_progress();
          throw Interrupted(
              fmt::format("stopped after step {} of {}; the same command goes on from "
                          "{}",
                          state_.step, total, save().string()));
        }
        if (state_.step < last && checkpoint_is_due()) save();
      }
      output_.finish_progress();
      save();
    }
    if (state_.step >= total) form_->with_weights([&](StateTensors& tensors) { finish(tensors); });
  }

 private:
  bool is_first() const { return ranks_.rank() == 0; }

  TrainingLayout checked_layout() const {
    TrainingLayout layout;
    first_then_others(ranks_, [&] { layout = layout_of(recipe_.parallel, ranks_.size()); });
    return layout;
  }

  // Of the model, what this rank has of it.
  HoldPart holding() const {
    return [this](ModelConfig& config) {
      hold_part(layout_, place_of(layout_.mesh, ranks_.rank()), config);
    };
  }

  // Rank 0 holds the lock, and finishes what killed processes left half done.
  CheckpointDirectory open_checkpoints() {
    std::optional<CheckpointDirectory> checkpoints;
    first_then_others(ranks_, [&] {
      if (is_first()) {
        lock_.emplace(directory_ / "lock");
        const AtomicDirectory probe(recipe_.out);  // not only at the end: can OUT be written?
      }
      checkpoints.emplace(directory_ / "checkpoints");
    });
    return *checkpoints;
  }

  // As rank 0 sees it.
  std::int64_t choose_checkpoint() const {
    std::int64_t newest = is_first() ? newest_checkpoint() : -1;
    Request request = ranks_.broadcast(std::as_writable_bytes(std::span(&newest, 1)), 0);
    wait(request);
    return newest;
  }

  std::int64_t newest_checkpoint() const {
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
    first_then_others(ranks_, [&] { check_start(); });
    return load_training_data(recipe_, tokenizer_);
  }

  void check_start() const {
    const ModelConfig config = config_of_start();
    recipe_.check_model(config, tokenizer_);
    check_no_decay(config, recipe_.optimizer.no_decay);
    if (is_ranked()) check_layout(recipe_, config, layout_);
    if (options_.trace && !is_ranked())
      throw ConfigError(
          "--trace shows what several ranks do; start them with minke launch or mpirun");
    check_memory(recipe_, config, layout_);
  }

  // Also one rank sums in the fixed order.
  bool is_ranked() const { return ranks_.size() > 1 || recipe_.parallel.reduction == "fixed"; }

  std::unique_ptr<StepForm> make_form() {
    if (!is_ranked()) return one_rank_step(state_);
    return ranked_step(ranks_, state_,
                       {.layout = layout_,
                        .order = parse_reduction_order(recipe_.parallel.reduction),
                        .exchange = parse_exchange_form(recipe_.parallel.dispatch),
                        .timeout = recipe_.timeout(),
                        .no_decay = recipe_.optimizer.no_decay});
  }

  void begin() {
    const MomentType moments = parse_moment_type(recipe_.optimizer.moments);
    const Compute compute = parse_compute(recipe_.compute);
    if (recipe_.init_from.empty()) {
      ModelConfig config = recipe_.new_model(tokenizer_);
      holding()(config);
      state_ = begin_training(config, initial_parameters(config, recipe_.seed), moments, compute,
                              recipe_.training_form());
    } else {
      ModelConfig config;
      ModelParameters<Tensor> masters = load_masters(recipe_.init_from, config, holding());
      state_ =
          begin_training(config, std::move(masters), moments, compute, recipe_.training_form());
    }
    if (recipe_.ema.decay > 0)
      state_.ema = begin_ema(state_.config, recipe_.ema.decay,
                             recipe_.ema.dtype == "bf16" ? DType::BF16 : DType::F32);
  }

  void resume() {
    const fs::path path = checkpoints_.path_of(resumed_from_);
    const Json record = read_checkpoint_record(path);
    const fs::path file = path / "train_state.json";
    if (!record.contains("recipe") || !record.contains("data"))
      throw FormatError(fmt::format("{}: 'recipe' or 'data' is missing", file.string()));
    for (const std::string& change : recipe_changes(record["recipe"], recipe_))
      output_.warning(fmt::format("going on with {}", change));
    state_ =
        load_checkpoint(path, parse_compute(recipe_.compute), recipe_.training_form(), holding());
    source_.set_position(data_position_from_json(nlohmann::json(record["data"]), file.string()));
    if (record.contains("guard")) guard_.set_from_json(record["guard"], file.string());
    if (state_.ema.has_value() != (recipe_.ema.decay > 0))
      throw ConfigError(
          fmt::format("{}: {} a moving average of the weights, but ema.decay is {}; go on with the "
                      "recipe it was made with, or give another --out",
                      path.string(), state_.ema ? "holds" : "lacks", recipe_.ema.decay));
    if (record.contains("held_out") && record["held_out"].is_number())
      held_out_ = record["held_out"].get<double>();
    output_.info(fmt::format("going on from {}", path.string()));
  }

  // One step, its metrics and progress; false when `stop` ended it.
  bool step(FunctionRef<bool()> stop) {
    const auto begin = Clock::now();
    const std::uint64_t sent_before = bytes_sent();
    ranks_.set_progress(state_.step + 1, "training step");
    StepSchedule now = schedule_.at_step(state_.step);
    now.gamma = gamma_of(recipe_.loss, now.gamma);
    const Index row = recipe_.data.sequence_length + 1;
    const RowBatch batch = source_.next_rows(now.rows);
    begin_trace();
    PassResult result;
    if (!form_->accumulate(View2<const std::int32_t>(batch.tokens.data(), {now.rows, row}),
                           {.mtp_lambda = now.mtp_lambda,
                            .alpha = alpha_of(recipe_.loss),
                            .micro_batch = recipe_.data.micro_batch,
                            .balance_scope = scope_of(recipe_.loss),
                            .starts = recipe_.data.mask_documents ? DocumentStarts(batch.starts)
                                                                  : DocumentStarts()},
                           stop, result))
      return false;
    end_trace();
    if (options_.on_gradients) options_.on_gradients(state_.step, form_->gradients());
    const double norm = form_->gradient_norm();
    const bool trusted = judge(result, norm, now.rows);
    if (trusted) {
      form_->apply(recipe_.optimizer_settings(now.lr), now.gamma, result, norm);
      guard_.record_step(result.main, norm);
    } else {
      form_->skip();
      guard_.record_skip();
    }
    position_ = source_.position();
    const double took = seconds_since(begin);

    const Index n = now.rows * recipe_.data.sequence_length, every = recipe_.record_loads_every;
    Json line = {{"step", state_.step}};
    if (trusted)
      line = step_line(now, result,
                       {.step = state_.step,
                        .norm = norm,
                        .seconds = took,
                        .loads = every > 0 && state_.step % every == 0},
                       n);
    if (ranks_.size() > 1) {
      const double sent = sent_by_all(bytes_sent() - sent_before);
      if (trusted) line["sent_bytes_per_token"] = sent / static_cast<double>(n);
    }
    add_held_out(line);
    if (line.size() > 1) output_.append(line);
    if (trusted) show(result, static_cast<double>(n) / took);
    return true;
  }

  bool is_traced() const { return options_.trace && options_.trace->step == state_.step + 1; }

  void begin_trace() {
    if (!is_traced()) return;
    form_->timeline()->begin(common_origin(ranks_));
  }
  void end_trace() {
    if (!is_traced()) return;
    const std::vector<std::vector<TimelineEvent>> events =
        gather_events(ranks_, form_->timeline()->end());
    if (is_first()) options_.trace->show(events);
  }

  std::uint64_t bytes_sent() const { return ranks_.bytes_sent() + form_->bytes_sent(); }

  double sent_by_all(std::uint64_t own) const {
    auto bytes = static_cast<std::int64_t>(own);
    all_reduce(ranks_, View1<std::int64_t>(&bytes, {1}));
    return static_cast<double>(bytes);
  }

  // Whether the step may be made. A fault is written down first, and ends the run where the recipe
  // says so: the state before the step is then saved. All ranks have the same numbers, so they
  // judge alike.
  bool judge(const PassResult& result, double norm, Index rows) {
    if (!std::isfinite(norm) || !std::isfinite(result.total) || guard_.is_spike(result.main, norm))
      form_->show_gradients();
    std::optional<Fault> fault = agreed_fault(ranks_, find_not_finite(state_, result, norm));
    const bool is_spike = !fault;
    if (is_spike) fault = agreed_fault(ranks_, guard_.find_spike(state_, result.main, norm));
    if (!fault) return true;
    const std::string& action = is_spike ? recipe_.guard.spike : recipe_.guard.not_finite;
    const SuspectRow suspect =
        find_suspect_row(*form_, source_, position_, rows, recipe_.data.mask_documents);
    name_output(*fault, suspect);
    const std::int64_t number = state_.step + 1;
    output_.append(event_line(number, is_spike ? "spike" : "not_finite", *fault, suspect));
    const std::string where = fmt::format(
        "step {}: {} (document {} of epoch {} at token {}, source {})", number, fault->what,
        suspect.position.document, suspect.position.epoch, suspect.position.offset, suspect.source);
    if (action == "warn") {
      output_.warning(where);
      return true;
    }
    if (action == "stop" || fault->in_weights)
      stop_before(where + "; lower optimizer.lr, or set guard to skip such steps");
    if (guard_.skips_in_a_row() >= recipe_.guard.max_skips)
      stop_before(fmt::format("{}; {} steps before it were skipped (guard.max_skips)", where,
                              guard_.skips_in_a_row()));
    output_.warning(where + ": skipped");
    output_.append(event_line(number, "skipped", *fault, suspect));
    return false;
  }

  [[noreturn]] void stop_before(const std::string& why) {
    output_.finish_progress();
    source_.set_position(position_);
    const fs::path saved = save();
    if (!is_first()) ranks_.barrier();  // until the error of rank 0 ends the job
    throw Error(fmt::format("{}; the state before it is in {}", why, saved.string()));
  }

  void show(const PassResult& result, double tokens_per_s) {
    tokens_per_s_ = tokens_per_s_ == 0 ? tokens_per_s : 0.9 * tokens_per_s_ + 0.1 * tokens_per_s;
    std::string suffix = fmt::format("loss {:.3f}  {:.0f} tokens/s  load {:.2f}x", result.main,
                                     tokens_per_s_, worst_load_ratio(result));
    if (held_out_) suffix += fmt::format("  held-out {:.3f}", *held_out_);
    output_.update_progress(state_.step, suffix);
  }

  Json start_line() {
    return {{"step", state_.step},
            {"start", true},
            {"isa", name_of(chosen_isa())},
            {"threads", n_threads()},
            {"ranks", ranks_.size()},
            {"layout", to_string(layout_.mesh)},
            {"parameters", count_parameters(state_.config.whole()).total},
            {"recipe", options_to_json(OptionList(recipe_))}};
  }

  // Where a held-out loss is due.
  void add_held_out(Json& line) {
    const bool due = state_.step == schedule_.total_steps() ||
                     (recipe_.eval_every > 0 && state_.step % recipe_.eval_every == 0);
    if (data_.held_out.empty() || !due) return;
    const HeldOutLoss held_out = held_out_now();
    held_out_ = held_out.loss;
    line["held_out"] = held_out.loss;
    line["held_out_bits_per_byte"] = held_out.bits_per_byte;
    for (const auto& [source, loss] : held_out.by_source) line["held_out_sources"][source] = loss;
    if (state_.config.num_nextn_predict_layers > 0)
      line["mtp_acceptance"] =
          form_->acceptance(data_.held_out, recipe_.data.sequence_length).share();
    if (state_.ema && state_.step > state_.skipped)
      form_->with_average([&] { line["held_out_ema"] = held_out_now().loss; });
  }

  HeldOutLoss held_out_now() {
    return held_out_loss(*form_, data_.held_out, recipe_.data.sequence_length,
                         recipe_.rows_at_a_time());
  }

  // By the steps, by the clock of rank 0, or because somebody asked.
  bool checkpoint_is_due() {
    const CheckpointRecipe& c = recipe_.checkpoint;
    const bool is_wanted = options_.wants_checkpoint();
    if (c.every > 0 && state_.step % c.every == 0) return true;
    return any_of_ranks(ranks_, is_wanted || (is_first() && c.minutes > 0 &&
                                              seconds_since(last_saved_) >= 60 * c.minutes));
  }

  fs::path save() {
    const fs::path target = checkpoints_.path_of(state_.step);
    ranks_.set_progress(state_.step, "checkpoint");
    form_->with_part([&](const StatePart& part) { write_checkpoint(target, part); });
    ranks_.barrier();  // whoever goes on, or ends the run, leaves a checkpoint behind
    (void)options_.wants_checkpoint();  // the same question may have come to another rank first
    last_saved_ = Clock::now();
    return target;
  }

  void write_checkpoint(const fs::path& target, const StatePart& part) {
    Json record = {{"recipe", options_to_json(OptionList(recipe_))}, {"data", to_json(position_)}};
    record["guard"] = guard_.to_json();
    record["held_out"] = held_out_ ? Json(*held_out_) : Json(nullptr);
    save_checkpoint(ranks_, target, state_, part, std::move(record),
                    tokenizer_files(recipe_.data.tokenizer));
    if (is_first()) checkpoints_.prune(recipe_.checkpoint.keep);
  }

  void finish(StateTensors& tensors) {
    export_weights(tensors, recipe_.out, StateKind::Master);
    output_.info(fmt::format("the model is in {}{}", recipe_.out,
                             held_out_ ? fmt::format(" (held-out loss {:.4f})", *held_out_) : ""));
    if (!recipe_.exported.ema) return;
    const fs::path target = beside(recipe_.out, ".ema");
    export_weights(tensors, target, StateKind::Average);
    output_.info(fmt::format("the moving average of its weights is in {}", target.string()));
  }

  void export_weights(StateTensors& tensors, const fs::path& target, StateKind kind) {
    Tensor wide;  // of an average in BF16
    const auto master_of = [&](const ParameterSpec& spec) -> const Tensor& {
      const Tensor& tensor = tensors.get(kind, spec);
      return tensor.dtype() == DType::F32 ? tensor : wide = in_fp32(tensor);
    };
    export_model(target, state_.config.whole(), master_of,
                 recipe_.exported.dtype == "fp8" ? SaveDType::Fp8 : SaveDType::Bf16,
                 recipe_.data.tokenizer);
  }

  Recipe recipe_;
  RunSchedule schedule_;
  Guard guard_;
  RunOptions options_;
  Communicator& ranks_;
  const TrainingLayout layout_;
  RunOutput output_;
  fs::path directory_;
  std::optional<RunLock> lock_;  // of rank 0
  CheckpointDirectory checkpoints_;
  Tokenizer tokenizer_;
  std::int64_t resumed_from_;  // step, or -1
  TrainingData data_;
  BatchSource source_;
  TrainState state_;
  std::unique_ptr<StepForm> form_;  // over state_
  DataPosition position_;           // behind the batch of the last whole step
  std::optional<double> held_out_;
  double tokens_per_s_ = 0;  // smoothed
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
  return beside(recipe.out, ".run");
}

void run_training(const Recipe& recipe, const RunOptions& options, FunctionRef<bool()> stop) {
  recipe.check_runnable();
  std::unique_ptr<Communicator> alone;
  if (!options.ranks) alone = one_rank();
  Communicator& ranks = options.ranks ? *options.ranks : *alone;
  ranks.set_timeout(recipe.timeout());
  Run(recipe, options, ranks).train(stop);
}

}  // namespace minke
