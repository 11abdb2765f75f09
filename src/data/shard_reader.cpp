#include "data/shard_reader.h"

#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/hash.h"
#include "base/json.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
constexpr std::size_t kLargestManifest = std::size_t{1} << 28;

Json read_manifest(const fs::path& directory) {
  if (const std::string defect = checkpoint_defect(directory, Verify::Sizes); !defect.empty())
    throw FormatError(defect + "; make the shards again with minke data");
  Json manifest = read_ordered_json(directory / "manifest.json", kLargestManifest);
  const Json format = manifest.value("shards", Json());
  if (format != kShardFormat)
    throw FormatError(
        fmt::format("{}: \"shards\" is {}, \"{}\" expected; make them again with this "
                    "version's minke data",
                    (directory / "manifest.json").string(), format.dump(), kShardFormat));
  return manifest;
}

void check_tokenizer(const Json& recorded, const fs::path& directory, const TextEncoder& encoder,
                     const std::string& tokenizer) {
  const auto bos = encoder.begin_of_sentence();
  const bool same = recorded.at("xxh64") == to_hex(tokenizer_hash(tokenizer)) &&
                    recorded.at("begin_of_sentence") == (bos ? Json(*bos) : Json(nullptr)) &&
                    recorded.at("end_of_sentence") == encoder.end_of_sentence();
  if (!same)
    throw ConfigError(fmt::format(
        "{} was made with another tokenizer than {} (its tokenizer.json had the hash {}, or its "
        "begin- or end-of-sentence differ); give the same one, or make the shards again with it",
        directory.string(), tokenizer, recorded.at("xxh64").get<std::string>()));
}

// The parts of a corpus, while directories are added to it.
struct CorpusParts {
  std::vector<TokenStore::Mapped> tokens;
  std::vector<DocumentList::Mapped> documents;
  Index n_tokens = 0;
  Hash64 identity;

  void add(const fs::path& directory, const Json& manifest, Split split,
           const std::shared_ptr<const std::vector<int>>& sources) {
    const Index id_bytes = manifest.at("id_bytes");
    const std::int64_t n = manifest.at(split == Split::Train ? "train_shards" : "held_out_shards");
    for (std::int64_t shard = 0; shard < n; ++shard) {
      const std::string name = shard_name(split, shard);
      MappedFile ids = MappedFile::open(directory / (name + ".tokens"));
      const Index count = static_cast<Index>(ids.bytes().size()) / id_bytes;
      tokens.push_back({std::move(ids), id_bytes});
      documents.push_back(
          {MappedFile::open(directory / (name + ".index")), n_tokens, count, sources});
      n_tokens += count;
      for (const char* ending : {".tokens", ".index"})
        identity.add(
            as_byte_span(manifest.at("files").at(name + ending).at("xxh64").get<std::string>()));
    }
  }

  TokenCorpus finish(const std::vector<std::string>& sources, std::int32_t vocab_size) {
    TokenCorpus corpus;
    corpus.tokens = TokenStore(std::move(tokens), vocab_size);
    corpus.documents = DocumentList(std::move(documents));
    corpus.sources = sources;
    corpus.identity = identity.value();
    return corpus;
  }
};

}  // namespace

bool is_shard_directory(std::string_view path) {
  const fs::path manifest = fs::path(path) / "manifest.json";
  std::error_code error;
  if (!fs::is_regular_file(manifest, error)) return false;
  const Json json = read_ordered_json(manifest, kLargestManifest);
  return json.is_object() && json.contains("shards");
}

ShardedText open_shards(const std::vector<std::string>& directories, const TextEncoder& encoder,
                        const std::string& tokenizer) {
  CorpusParts train, held_out;
  std::vector<std::string> sources;
  std::map<std::string, int> numbers;
  ShardedText text;
  for (const std::string& path : directories) {
    const fs::path directory(path);
    const Json manifest = read_manifest(directory);
    try {
      check_tokenizer(manifest.at("tokenizer"), directory, encoder, tokenizer);
      std::vector<int> renumbered;
      for (const Json& source : manifest.at("sources")) {
        const std::string name = source.at("name");
        const auto [place, is_new] = numbers.try_emplace(name, static_cast<int>(sources.size()));
        if (is_new) sources.push_back(name);
        renumbered.push_back(place->second);
      }
      const auto shared = std::make_shared<const std::vector<int>>(std::move(renumbered));
      train.add(directory, manifest, Split::Train, shared);
      held_out.add(directory, manifest, Split::HeldOut, shared);
      text.held_out_fractions.push_back(manifest.at("run").at("settings").at("held_out_fraction"));
    } catch (const nlohmann::json::exception& error) {
      throw FormatError(
          fmt::format("{}: {}", (directory / "manifest.json").string(), error.what()));
    }
  }
  const std::int32_t vocab_size = encoder.tokenizer().vocab_size();
  text.train = train.finish(sources, vocab_size);
  text.held_out = held_out.finish(sources, vocab_size);
  return text;
}

}  // namespace minke
