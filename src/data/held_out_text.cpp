#include "data/held_out_text.h"

#include <nlohmann/json.hpp>
#include <span>

#include "base/files.h"
#include "data/shard_reader.h"

namespace minke {
namespace {

std::string text_of(const TextEncoder& encoder, std::span<const std::int32_t> ids) {
  const auto bos = encoder.begin_of_sentence();
  if (!ids.empty() && ids.back() == encoder.end_of_sentence()) ids = ids.first(ids.size() - 1);
  if (bos && !ids.empty() && ids.front() == *bos) ids = ids.subspan(1);
  return encoder.tokenizer().decode(ids);
}

}  // namespace

std::vector<HeldOutText> write_held_out_text(const std::vector<std::string>& directories,
                                             const TextEncoder& encoder,
                                             const std::string& tokenizer,
                                             const std::filesystem::path& file) {
  const TokenCorpus corpus = open_shards(directories, encoder, tokenizer).held_out;
  std::vector<HeldOutText> sources;
  for (const std::string& name : corpus.sources) sources.push_back({.source = name});
  FileWriter out(file);
  for (Index i = 0; i < corpus.documents.size(); ++i) {
    HeldOutText& source = sources[static_cast<std::size_t>(corpus.documents[i].source)];
    const std::string text = text_of(encoder, corpus.document_tokens(i));
    out.write(nlohmann::ordered_json{{"text", text}, {"source", source.source}}.dump() + "\n");
    ++source.documents;
    source.bytes += static_cast<Index>(text.size());
  }
  out.finish();
  return sources;
}

}  // namespace minke
