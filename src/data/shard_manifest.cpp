#include "data/shard_manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/files.h"
#include "base/hash.h"
#include "data/shard_format.h"
#include "data/skipped_log.h"

namespace minke {
namespace {

using Json = nlohmann::ordered_json;

struct SplitCounts {
  std::int64_t documents = 0, tokens = 0;
  std::uint64_t text_bytes = 0;

  void add(const ShardDocument& document) {
    ++documents;
    tokens += document.tokens;
    text_bytes += document.text_bytes;
  }
  Json to_json() const {
    return {{"documents", documents}, {"tokens", tokens}, {"text_bytes", text_bytes}};
  }
};

// Lists a file under its name with size and hash, and returns it mapped.
MappedFile list_file(Json& files, const std::filesystem::path& directory, const std::string& name) {
  MappedFile file = MappedFile::open(directory / name);
  const std::uint64_t hash = hash64(file.bytes());
  file.check_intact();
  files[name] = {{"bytes", file.bytes().size()}, {"xxh64", to_hex(hash)}};
  return file;
}

// Lists the shards of a split and counts what is in them, in all and by source.
SplitCounts list_shards(Json& files, const ManifestParts& parts, Split split, std::int64_t n,
                        std::vector<SplitCounts>& by_source) {
  SplitCounts all;
  by_source.resize(parts.sources.size());
  for (std::int64_t shard = 0; shard < n; ++shard) {
    const std::string name = shard_name(split, shard);
    list_file(files, parts.directory, name + ".tokens");
    const MappedFile index = list_file(files, parts.directory, name + ".index");
    for (std::size_t at = 0; at < index.bytes().size(); at += sizeof(ShardDocument)) {
      ShardDocument document;
      std::memcpy(&document, index.bytes().data() + at, sizeof document);
      all.add(document);
      by_source.at(document.source).add(document);
    }
  }
  return all;
}

Json documents_of(const ManifestParts& parts, const SplitCounts& train,
                  const SplitCounts& held_out) {
  std::array<std::int64_t, kOutcomes> count{};
  std::array<std::uint64_t, kOutcomes> bytes{};
  for (std::size_t i = 0; i < parts.outcomes.size(); ++i) {
    const auto outcome = static_cast<std::size_t>(parts.outcomes[i]);
    ++count[outcome];
    bytes[outcome] += parts.records[i].text_bytes;
  }
  Json left_out = Json::object(), left_out_bytes = Json::object();
  for (std::size_t i = 0; i < kOutcomes; ++i) {
    if (is_kept(static_cast<Outcome>(i))) continue;
    left_out[name_of(static_cast<Outcome>(i))] = count[i];
    left_out_bytes[name_of(static_cast<Outcome>(i))] = bytes[i];
  }
  return {{"in", parts.outcomes.size()},    {"train", train.documents},
          {"held_out", held_out.documents}, {"cut", count[static_cast<std::size_t>(Outcome::Cut)]},
          {"left_out", left_out},           {"left_out_bytes", left_out_bytes}};
}

Json changes_of(std::span<const DocumentRecord> records) {
  std::int64_t line_ends = 0, control = 0, utf8 = 0;
  for (const DocumentRecord& record : records) {
    line_ends += (record.changes & DocumentRecord::LineEnds) != 0;
    control += (record.changes & DocumentRecord::ControlCharacters) != 0;
    utf8 += (record.changes & DocumentRecord::ReplacedUtf8) != 0;
  }
  return {{"line_ends", line_ends}, {"control_characters", control}, {"broken_utf8", utf8}};
}

Json inputs_of(const ManifestParts& parts) {
  Json left_out = Json::object();
  for (const auto kind : {FileProblem::Kind::Unreadable, FileProblem::Kind::UnknownEnding,
                          FileProblem::Kind::EmptyFile, FileProblem::Kind::DirectoryLoop})
    left_out[name_of(kind)] =
        std::count_if(parts.files.problems.begin(), parts.files.problems.end(),
                      [kind](const FileProblem& problem) { return problem.kind == kind; });
  return {{"files", parts.files.files.size()},
          {"bytes", parts.files.bytes()},
          {"broken_off", parts.broken_files},
          {"hidden", parts.files.hidden},
          {"left_out", left_out}};
}

std::string percent(std::int64_t part, std::int64_t all) {
  return fmt::format("{:.2f} %",
                     all == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(all));
}

// "name 3, other 1": what is not 0.
std::string list_counts(const Json& counts) {
  std::string text;
  for (const auto& [name, count] : counts.items())
    if (count != 0)
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, count.get<std::int64_t>());
  return text.empty() ? "none" : text;
}

}  // namespace

Json shard_manifest(const ManifestParts& parts) {
  Json files = Json::object();
  std::vector<SplitCounts> train_sources, held_out_sources;
  const SplitCounts train = list_shards(files, parts, Split::Train, parts.n_train, train_sources);
  const SplitCounts held_out =
      list_shards(files, parts, Split::HeldOut, parts.n_held_out, held_out_sources);
  list_file(files, parts.directory, "skipped.jsonl");

  Json sources = Json::array();
  for (std::size_t i = 0; i < parts.sources.size(); ++i)
    sources.push_back({{"name", parts.sources[i]},
                       {"train", train_sources[i].to_json()},
                       {"held_out", held_out_sources[i].to_json()}});
  const TextEncoder& encoder = parts.encoder;
  const auto bos = encoder.begin_of_sentence();
  return {{"format", "minke-manifest-1"},
          {"shards", kShardFormat},
          {"tokenizer",
           {{"xxh64", parts.run.at("tokenizer")},
            {"vocab_size", encoder.tokenizer().vocab_size()},
            {"begin_of_sentence", bos ? Json(*bos) : Json(nullptr)},
            {"end_of_sentence", encoder.end_of_sentence()}}},
          {"id_bytes", id_bytes_of(encoder.tokenizer().vocab_size())},
          {"train_shards", parts.n_train},
          {"held_out_shards", parts.n_held_out},
          {"train", train.to_json()},
          {"held_out", held_out.to_json()},
          {"documents", documents_of(parts, train, held_out)},
          {"changed", changes_of(parts.records)},
          {"inputs", inputs_of(parts)},
          {"sources", sources},
          {"run", parts.run},
          {"files", files}};
}

std::string describe_manifest(const Json& manifest) {
  const Json& documents = manifest.at("documents");
  const auto n = documents.at("in").get<std::int64_t>();
  const auto split = [&](const char* name) {
    const Json& counts = manifest.at(name);
    const auto tokens = counts.at("tokens").get<std::int64_t>();
    const auto bytes = counts.at("text_bytes").get<std::uint64_t>();
    return fmt::format(
        "{:<12}{} documents, {} tokens, {} bytes of text ({:.2f} bytes a token)\n", name,
        counts.at("documents").get<std::int64_t>(), tokens, bytes,
        tokens == 0 ? 0.0 : static_cast<double>(bytes) / static_cast<double>(tokens));
  };
  std::int64_t left_out = 0;
  for (const auto& [name, count] : documents.at("left_out").items())
    left_out += count.get<std::int64_t>();
  const Json& inputs = manifest.at("inputs");
  std::string text =
      fmt::format("files       {} of {} bytes; left out: {}; broken off: {}\n",
                  inputs.at("files").get<int>(), inputs.at("bytes").get<std::uint64_t>(),
                  list_counts(inputs.at("left_out")), inputs.at("broken_off").get<int>());
  text += fmt::format("documents   {}; left out {} ({}): {}\n", n, left_out, percent(left_out, n),
                      list_counts(documents.at("left_out")));
  text += fmt::format("changed     {}\n", list_counts(manifest.at("changed")));
  text += split("train") + split("held_out");
  for (const Json& source : manifest.at("sources"))
    text += fmt::format(
        "  {:<24} train {:>8} documents {:>12} tokens   held out {:>6} documents "
        "{:>9} tokens\n",
        source.at("name").get<std::string>(),
        source.at("train").at("documents").get<std::int64_t>(),
        source.at("train").at("tokens").get<std::int64_t>(),
        source.at("held_out").at("documents").get<std::int64_t>(),
        source.at("held_out").at("tokens").get<std::int64_t>());
  return text;
}

}  // namespace minke
