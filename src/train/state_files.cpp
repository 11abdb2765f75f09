#include "train/state_files.h"

#include <fmt/format.h>

#include <deque>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/safetensors.h"
#include "model/checkpoint.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// A tensor of a file: its name there, and what it is.
struct StateEntry {
  std::string name;
  StateKind kind;
  ParameterSpec spec;
};

std::vector<StateEntry> list_entries(const ModelConfig& config, StateKind kind,
                                     const std::string& prefix = "") {
  const bool moments = kind == StateKind::FirstMoment || kind == StateKind::SecondMoment;
  std::vector<StateEntry> list;
  ModelParameters<int> unused;
  visit_parameters(config, unused, [&](const ParameterSpec& spec, int&) {
    if (!moments || spec.role != Role::Bias) list.push_back({prefix + spec.name, kind, spec});
  });
  return list;
}

// m.NAME and v.NAME of every tensor that has moments.
std::vector<StateEntry> list_moments(const ModelConfig& config) {
  std::vector<StateEntry> list = list_entries(config, StateKind::FirstMoment, "m.");
  for (StateEntry& entry : list_entries(config, StateKind::SecondMoment, "v."))
    list.push_back(std::move(entry));
  return list;
}

std::string file_name(const char* name, const StatePart& part) {
  return part.n_parts == 1
             ? fmt::format("{}.safetensors", name)
             : fmt::format("{}-{:05}-of-{:05}.safetensors", name, part.number + 1, part.n_parts);
}

// Writes the part's tensors of the list, and notes the file's digest in `wrote`.
void write_file(const fs::path& directory, const char* name, TrainState& state,
                const StatePart& part, const std::vector<StateEntry>& list, Json& wrote) {
  LocalTensors tensors(state);
  std::map<std::string, const StateEntry*> by_name;
  std::vector<TensorDecl> decls;
  for (const StateEntry& entry : list) {
    if (part.names && !part.names->contains(entry.spec.name)) continue;
    by_name[entry.name] = &entry;
    decls.push_back({entry.name, dtype_in(state, entry.kind, entry.spec), entry.spec.shape});
  }
  const std::string file = file_name(name, part);
  SafetensorsWriter writer(directory / file, std::move(decls));
  const std::vector<TensorDecl> order = writer.order();
  for (const TensorDecl& decl : order) {
    const StateEntry& entry = *by_name.at(decl.name);
    const Tensor& tensor = tensors.get(entry.kind, entry.spec);
    writer.write({static_cast<const std::byte*>(tensor.raw()), tensor.bytes()});
  }
  const FileDigest digest = writer.finish();
  wrote["files"].push_back({{"name", file}, {"bytes", digest.bytes}, {"hash", digest.hash}});
  if (name == std::string_view("model"))
    for (const TensorDecl& decl : order) {
      wrote["weights"][decl.name] = file;
      wrote["weight_bytes"] = wrote.value("weight_bytes", std::uint64_t{0}) + decl.bytes();
    }
}

// NAME.safetensors, or all of NAME-K-of-N.safetensors.
class StateFiles {
 public:
  StateFiles(const fs::path& directory, const std::string& name)
      : path_(directory / (name + ".safetensors")) {
    for (const auto& entry : fs::directory_iterator(directory)) {
      const std::string file = entry.path().filename().string();
      if (file.starts_with(name + "-") && file.ends_with(".safetensors"))
        files_.push_back(SafetensorsFile::open(entry.path()));
    }
    if (files_.empty()) files_.push_back(SafetensorsFile::open(path_));
    for (const SafetensorsFile& file : files_)
      for (const TensorInfo& info : file.tensors()) file_of_[info.name] = &file;
  }

  // Those of the list, out of `n_in_all`, to the tensors in its order.
  void read(const std::vector<StateEntry>& list, std::size_t n_in_all,
            const std::vector<Tensor*>& to) const {
    if (file_of_.size() != n_in_all)
      throw FormatError(fmt::format("{}: holds {} tensors, but config.json beside it calls for {}",
                                    path_.string(), file_of_.size(), n_in_all));
    for (std::size_t i = 0; i < list.size(); ++i) read(list[i].name, *to[i]);
    for (const SafetensorsFile& file : files_) file.check_intact();
  }

 private:
  void read(const std::string& name, Tensor& to) const {
    const auto file = file_of_.find(name);
    Tensor read = (file == file_of_.end() ? files_.front() : *file->second).read(name);
    if (read.dtype() != to.dtype() || read.shape() != to.shape())
      throw FormatError(fmt::format("{}: {} is {} {}, but must be {} {}", path_.string(), name,
                                    name_of(read.dtype()), to_string(read.shape()),
                                    name_of(to.dtype()), to_string(to.shape())));
    to = std::move(read);
  }

  const fs::path path_;
  std::deque<SafetensorsFile> files_;
  std::map<std::string, const SafetensorsFile*> file_of_;
};

void add_tensors(const ModelConfig& config, ModelParameters<Tensor>& parameters, bool biases,
                 std::vector<Tensor*>& list) {
  for (const auto& [spec, leaf] : list_parameters(config, parameters))
    if (biases || spec.role != Role::Bias) list.push_back(leaf);
}

}  // namespace

Json write_part(const fs::path& directory, TrainState& state, const StatePart& part) {
  const ModelConfig& config = state.config;
  Json wrote = {{"files", Json::array()}, {"weights", Json::object()}};
  if (part.n_parts == 1)
    save_model(directory, config.whole(), state.masters, SaveDType::F32);
  else
    write_file(directory, "model", state, part, list_entries(config, StateKind::Master), wrote);
  write_file(directory, "optimizer", state, part, list_moments(config), wrote);
  if (state.ema)
    write_file(directory, "ema", state, part, list_entries(config, StateKind::Average), wrote);
  return wrote;
}

void finish_parts(AtomicDirectory& directory, const TrainState& state,
                  const std::vector<Json>& parts) {
  Json weights = Json::object();
  std::uint64_t bytes = 0;
  for (const Json& part : parts) {
    for (const Json& file : part["files"])
      directory.record(
          file["name"].get<std::string>(),
          {.bytes = file["bytes"].get<std::uint64_t>(), .hash = file["hash"].get<std::uint64_t>()});
    weights.update(part["weights"]);
    bytes += part.value("weight_bytes", std::uint64_t{0});
  }
  if (weights.empty()) return;
  save_config(directory.path(), state.config.whole(), SaveDType::F32);
  const Json index = {{"metadata", {{"total_size", bytes}}}, {"weight_map", std::move(weights)}};
  write_file_atomic(directory.path() / "model.safetensors.index.json", index.dump(2) + "\n");
}

void read_moments(const fs::path& directory, const ModelConfig& config, Moments& moments) {
  std::vector<Tensor*> to;
  for (ModelParameters<Tensor>* parameters : {&moments.first, &moments.second})
    add_tensors(config, *parameters, false, to);
  StateFiles(directory, "optimizer")
      .read(list_moments(config), list_moments(config.whole()).size(), to);
}

void read_average(const fs::path& directory, const ModelConfig& config, Ema& ema) {
  std::vector<Tensor*> to;
  add_tensors(config, ema.weights, true, to);
  StateFiles(directory, "ema")
      .read(list_entries(config, StateKind::Average),
            list_entries(config.whole(), StateKind::Average).size(), to);
}

}  // namespace minke
