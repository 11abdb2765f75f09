#include "train/train_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "parallel/agreement.h"
#include "train/state_files.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
constexpr const char* kFormat = "minke-train-state-1";
constexpr const char* kStateFile = "train_state.json";
constexpr const char* kRemoving = "removing-";
constexpr std::uint64_t kMostSteps = std::uint64_t{1} << 60;  // as many as a recipe may have

// The average of a checkpoint, where its record tells of one.
std::optional<Ema> load_average(const fs::path& directory, const nlohmann::ordered_json& record,
                                const ModelConfig& config) {
  if (!record.contains("ema")) return std::nullopt;
  const nlohmann::ordered_json& about = record["ema"];
  if (!about.is_object() || !about.contains("decay") || !about["decay"].is_number() ||
      !about.contains("dtype") || !(about["dtype"] == "fp32" || about["dtype"] == "bf16"))
    throw FormatError(fmt::format("{}: 'ema' must have a decay, and a dtype that is fp32 or bf16",
                                  (directory / kStateFile).string()));
  Ema ema = begin_ema(config, about["decay"].get<double>(),
                      about["dtype"] == "bf16" ? DType::BF16 : DType::F32);
  read_average(directory, config, ema);
  return ema;
}

// N of "step-N", or -1.
std::int64_t step_of(const std::string& name) {
  constexpr std::string_view prefix = "step-";
  if (!name.starts_with(prefix) || name.size() == prefix.size() || name.size() > 23) return -1;
  std::int64_t step = 0;
  for (char c : name.substr(prefix.size())) {
    if (c < '0' || c > '9') return -1;
    step = 10 * step + (c - '0');
  }
  return step;
}

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory))
    names.push_back(entry.path().filename().string());
  return names;
}

}  // namespace

TrainState begin_training(const ModelConfig& config, ModelParameters<Tensor> masters,
                          MomentType moments, Compute compute, const TrainingForm& form) {
  if (moments == MomentType::Fp64)
    throw ConfigError("moments in fp64 need compute fp64; use bf16 or fp32");
  TrainState state;
  state.config = config;
  state.masters = std::move(masters);
  state.moments = zero_moments(config, moments);
  state.gradients = zero_parameters(config);
  state.model = make_training_model(config, state.masters, compute, form);
  return state;
}

TrainStateOf<double> begin_double_training(const ModelConfig& config,
                                           ModelParameters<Tensor> masters, MomentType moments) {
  TrainStateOf<double> state;
  state.config = config;
  state.masters = widened(config, masters);
  state.moments = zero_moments(config, moments);
  state.gradients = zero_parameters(config, DType::F64);
  state.model = make_double_model(config, state.masters);
  return state;
}

void save_checkpoint(Communicator& ranks, const fs::path& target, TrainState& state,
                     const StatePart& part, nlohmann::ordered_json record,
                     const std::vector<fs::path>& copies) {
  std::optional<AtomicDirectory> atomic;
  if (ranks.rank() == 0) atomic.emplace(target);
  const fs::path path = broadcast_text(ranks, atomic ? atomic->path().string() : "", 0);
  const nlohmann::json wrote = part.number < 0 ? nlohmann::json() : write_part(path, state, part);
  std::vector<nlohmann::json> parts;
  for (const std::string& text : gather_texts(ranks, wrote.is_null() ? "" : wrote.dump()))
    if (!text.empty()) parts.push_back(nlohmann::json::parse(text));
  if (!atomic) return;
  AtomicDirectory& directory = *atomic;
  finish_parts(directory, state, parts);
  if (state.ema)
    record["ema"] = {{"decay", state.ema->decay},
                     {"dtype", state.ema->matrices == DType::BF16 ? "bf16" : "fp32"}};
  for (const fs::path& file : copies)
    write_file_atomic(directory.path() / file.filename(), read_file(file));
  record["format"] = kFormat;
  record["step"] = state.step;
  record["skipped"] = state.skipped;
  record["moments"] = name_of(state.moments.type);
  write_file_atomic(directory.path() / kStateFile, record.dump(1) + "\n");
  directory.commit();
}

nlohmann::ordered_json read_checkpoint_record(const fs::path& directory) {
  const fs::path path = directory / kStateFile;
  nlohmann::ordered_json record = read_ordered_json(path, std::size_t{1} << 24);
  if (!record.is_object() || !record.contains("format") || record["format"] != kFormat)
    throw FormatError(
        fmt::format("{}: is not a training state of the form '{}'; is {} a training "
                    "checkpoint of this version of minke?",
                    path.string(), kFormat, directory.string()));
  if (!record.contains("step") || !record["step"].is_number_unsigned() ||
      !record.contains("moments") || !record["moments"].is_string())
    throw FormatError(
        fmt::format("{}: 'step' or 'moments' is missing or of a wrong type", path.string()));
  if (!record.contains("skipped")) record["skipped"] = 0u;  // of versions that never skipped
  if (!record["skipped"].is_number_unsigned() || record["skipped"] > record["step"])
    throw FormatError(fmt::format("{}: skipped is {}, but must be a count of at most step = {}",
                                  path.string(), record["skipped"].dump(), record["step"].dump()));
  if (record["step"].get<std::uint64_t>() > kMostSteps)
    throw FormatError(fmt::format("{}: step is {}, but must be at most {}", path.string(),
                                  record["step"].get<std::uint64_t>(), kMostSteps));
  return record;
}

TrainState load_checkpoint(const fs::path& directory, Compute compute, const TrainingForm& form,
                           const HoldPart& hold) {
  const nlohmann::ordered_json record = read_checkpoint_record(directory);
  ModelConfig config;
  ModelParameters<Tensor> masters = load_masters(directory, config, hold);
  TrainState state = begin_training(
      config, std::move(masters),
      parse_moment_type(record["moments"].get_ref<const std::string&>()), compute, form);
  read_moments(directory, config, state.moments);
  state.ema = load_average(directory, record, config);
  state.step = record["step"].get<std::int64_t>();
  state.skipped = record["skipped"].get<std::int64_t>();
  return state;
}

CheckpointDirectory::CheckpointDirectory(fs::path directory) : directory_(std::move(directory)) {
  std::error_code error;
  fs::create_directories(directory_, error);
  if (error)
    throw IoError(fmt::format("cannot create {}: {}", directory_.string(), error.message()));
  std::set<std::string> interrupted;  // checkpoints that somebody began to write
  for (const std::string& name : names_in(directory_)) {
    if (name.starts_with(kRemoving)) fs::remove_all(directory_ / name, error);
    for (const char* mark : {".partial-", ".old"})
      if (const std::size_t at = name.find(mark); at != std::string::npos)
        interrupted.insert(name.substr(0, at));
  }
  for (const std::string& name : interrupted) recover_directory(directory_ / name);
}

fs::path CheckpointDirectory::path_of(std::int64_t step) const {
  return directory_ / fmt::format("step-{}", step);
}

std::vector<std::int64_t> CheckpointDirectory::steps() const {
  std::vector<std::int64_t> steps;
  for (const std::string& name : names_in(directory_))
    if (const std::int64_t step = step_of(name); step >= 0) steps.push_back(step);
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::int64_t CheckpointDirectory::newest_whole() const {
  const std::vector<std::int64_t> all = steps();
  for (auto step = all.rbegin(); step != all.rend(); ++step) {
    const std::string defect = checkpoint_defect(path_of(*step));
    if (defect.empty()) return *step;
    set_aside(*step, defect);
  }
  return -1;
}

// Left under its name it would count as the newest when old ones are removed, and be in the way of
// the step when the run comes there again.
void CheckpointDirectory::set_aside(std::int64_t step, const std::string& defect) const {
  const fs::path path = path_of(step);
  fs::path aside;
  for (int n = 1; aside.empty() || fs::exists(aside); ++n)
    aside = path.string() + (n == 1 ? ".damaged" : fmt::format(".damaged-{}", n));
  fs::rename(path, aside);
  log_warning(
      fmt::format("{} is set aside as {}: {}", path.string(), aside.filename().string(), defect));
}

void CheckpointDirectory::prune(std::int64_t keep) const {
  std::vector<std::int64_t> all = steps();
  while (static_cast<std::int64_t>(all.size()) > keep) {
    const fs::path removing = directory_ / fmt::format("{}{}", kRemoving, all.front());
    std::error_code error;
    fs::rename(path_of(all.front()), removing, error);
    if (!error) fs::remove_all(removing, error);
    if (error)
      log_warning(
          fmt::format("cannot remove {}: {}", path_of(all.front()).string(), error.message()));
    all.erase(all.begin());
  }
}

}  // namespace minke
