// manifest.json of a directory of shards: which files belong to it, with sizes and hashes, how they
// were made, and what became of every document of the input.
//
//   documents.in = documents.train + documents.held_out - documents.cut + sum of documents.left_out
//
// where `cut` are those that were cut into one for each side.
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "data/document_record.h"
#include "data/input_files.h"
#include "data/text_encoder.h"

namespace minke {

struct ManifestParts {
  std::filesystem::path directory;    // where the shards are
  const nlohmann::ordered_json& run;  // inputs, tokenizer, settings
  const InputFiles& files;
  std::int64_t broken_files = 0;
  const std::vector<std::string>& sources;
  std::span<const DocumentRecord> records;
  std::span<const Outcome> outcomes;
  const TextEncoder& encoder;
  std::int64_t n_train = 0, n_held_out = 0;  // shards
};

// Reads the shards once, for their hashes.
nlohmann::ordered_json shard_manifest(const ManifestParts& parts);

// Its counts as lines for the user.
std::string describe_manifest(const nlohmann::ordered_json& manifest);

}  // namespace minke
