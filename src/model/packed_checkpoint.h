// Weights on disk as products read them: starting is mapping files, however large the model.
//
// Made from a checkpoint for one --compute, and derived from it: the checkpoint stays the source.
// In safetensors files, whose metadata say which order of packed weights this is, every weight is
// some bytes, at a multiple of 64 and zero padded to one, named for the weight and its form:
//
//   NAME/f32, /bf16                      norms, biases and the embedding as they are; matrices
//   packed NAME/e4m3, /int4-32, /int4-128       packed (PackedWeights::store) NAME/head_keys/bf16,
//   /head_values/   of kv_b_proj: all heads, one after another
//
// They are used where they lie, so that several processes share the memory, and what does not fit
// into it is read again when it is used.
#pragma once
#include <memory>

#include "base/function_ref.h"
#include "io/tensor_store.h"
#include "model/checkpoint.h"

namespace minke {

struct PackOptions {
  std::filesystem::path model = {}, out = {};
  Compute compute = Compute::Bf16;
  std::uint64_t max_shard_bytes = 5'000'000'000;
  bool allow_symlinks = false;
  bool overwrite = false;  // `out` may exist, if minke wrote it
};

struct PackReport {
  std::int64_t weights = 0, files_copied = 0;
  std::uint64_t bytes_read = 0, bytes_written = 0;
};

// Writes options.out as a whole or not at all, weight by weight. `progress(done, total)` counts
// bytes read; it may throw to stop. Throws what load_model and convert_model throw.
PackReport pack_model(const PackOptions& options,
                      FunctionRef<void(std::uint64_t, std::uint64_t)> progress);

// What load_model does with a store of packed weights; `announced` is its config.json.
// ConfigError when it was packed for another compute, FormatError when in another order or damaged.
Model map_model(std::shared_ptr<const TensorStore> store, const ModelConfig& announced,
                const LoadOptions& options);

}  // namespace minke
