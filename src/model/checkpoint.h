// Models on disk: a Hugging Face directory of a deepseek_v3 model, read and written.
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "model/weights.h"

namespace minke {

struct LoadOptions {
  Compute compute = Compute::Bf16;
  bool absorbed = true;  // pack kv_b_proj per head for the absorbed form
  bool expanded = true;  // and whole for the expanded form
  bool mtp = true;       // load MTP modules that are there
  bool allow_symlinks = false;
  // Routed experts to read (ModelConfig::held_experts); none: all.
  std::optional<ExpertRange> held_experts = {};
  // Stages to read (ModelConfig::held_stages); none: the whole model.
  std::vector<StageRange> held_stages = {};
  // Nothing of them but the routed experts; all else of the model stays empty.
  bool experts_alone = false;
  // Called while loading with bytes done and bytes in all.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress = {};
};

// ConfigError for compute Fp64. Opens, checks every tensor's name, shape and type, dequantises or
// packs. MTP modules that config.json announces but the files lack are reported with a warning and
// left out (the model's config then counts those that are there). FormatError names the tensor and
// the file.
Model load_model(const std::filesystem::path& directory, const LoadOptions& options);

// Says which part of a model a rank holds: sets held_experts and held_stages of its config.
using HoldPart = std::function<void(ModelConfig&)>;

// Weights as FP32 masters, for training. `config` is what load gave (MTP as present), with the part
// that `hold` says, when given; nothing else is read.
ModelParameters<Tensor> load_masters(const std::filesystem::path& directory, ModelConfig& config,
                                     const HoldPart& hold = {});

// Fp8: linears as published, E4M3 in 128x128 blocks with weight_scale_inv, quantised from the
// masters; the rest BF16.
enum class SaveDType : std::uint8_t { Bf16, F32, Fp8 };
// Writes config.json and model*.safetensors into an existing directory (an AtomicDirectory's path).
// Biases stay FP32. MTP modules carry copies of the shared embedding and head as published when
// `shared_copies` is set. The whole model must be held.
void save_model(const std::filesystem::path& directory, const ModelConfig& config,
                ModelParameters<Tensor>& masters, SaveDType dtype, bool shared_copies = false);

// The same of masters that are somewhere else: each is asked for when it is written, and stays
// until the next one is.
using MasterSource = std::function<const Tensor&(const ParameterSpec&)>;
void save_model(const std::filesystem::path& directory, const ModelConfig& config,
                const MasterSource& master_of, SaveDType dtype, bool shared_copies = false);

// config.json alone, as save_model writes it.
void save_config(const std::filesystem::path& directory, const ModelConfig& config,
                 SaveDType dtype);

// What a directory holds, before anything is loaded (minke info --model).
struct CheckpointSummary {
  ModelConfig config;
  ParameterCount count;
  std::size_t n_tensors = 0, n_files = 0;
  std::uint64_t weight_bytes = 0;  // on disk
  std::vector<std::pair<std::string, std::uint64_t>> bytes_by_dtype;
  Index mtp_present = 0;
};
CheckpointSummary summarize_checkpoint(const std::filesystem::path& directory);

}  // namespace minke
