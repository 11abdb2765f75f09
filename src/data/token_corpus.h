// Tokenised documents behind one interface, whether they lie in memory or in mapped shards
// (data/shard_reader.h).
//
// Each document is followed by an end-of-sentence token and, where the tokenizer asks for it,
// begins with begin-of-sentence.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/function_ref.h"
#include "base/threads.h"
#include "data/corpus.h"
#include "data/shard_format.h"

namespace minke {

// All tokens, numbered through.
class TokenStore {
 public:
  // Pieces of one shard each: ids of `id_bytes` 2 or 4 bytes.
  struct Mapped {
    MappedFile file;
    Index id_bytes = 4;
  };

  TokenStore() = default;
  explicit TokenStore(std::vector<std::int32_t> tokens);
  // Ids must be below `vocab_size`.
  TokenStore(std::vector<Mapped> shards, std::int32_t vocab_size);

  Index size() const { return begins_.back(); }
  // Tokens [begin, begin + out.size()). FormatError when a shard holds an id that the vocabulary
  // has not, IoError when its file was truncated while in use.
  void copy(Index begin, std::span<std::int32_t> out) const;

 private:
  void copy_from_shard(std::size_t shard, Index at, std::span<std::int32_t> out) const;

  std::vector<std::int32_t> tokens_;
  std::vector<Mapped> shards_;
  std::int32_t vocab_size_ = 0;
  std::vector<Index> begins_{0};  // of each shard, and the end
};

struct TokenDocument {
  Index begin, end;  // in the TokenStore; the last one is the end-of-sentence token
  int source;        // in TokenCorpus::sources
  Index text_bytes;
};

class DocumentList {
 public:
  // The index of one shard, whose tokens begin at `first_token`; `sources` renumbers its sources.
  struct Mapped {
    MappedFile file;
    Index first_token = 0, tokens = 0;
    std::shared_ptr<const std::vector<int>> sources;
  };

  DocumentList() = default;
  explicit DocumentList(std::vector<TokenDocument> documents);
  explicit DocumentList(std::vector<Mapped> shards);

  Index size() const { return begins_.back(); }
  // FormatError when the index of a shard is damaged.
  TokenDocument operator[](Index document) const;

 private:
  std::vector<TokenDocument> documents_;
  std::vector<Mapped> shards_;
  std::vector<Index> begins_{0};
};

struct TokenCorpus {
  TokenStore tokens;
  DocumentList documents;
  std::vector<std::string> sources;  // in order of appearance
  std::uint64_t identity = 0;        // of all tokens; equal for equal corpora of the same form

  Index text_bytes() const;
  std::vector<std::int32_t> document_tokens(Index document) const;
};

// Called from several threads at once.
using EncodeText = FunctionRef<std::vector<std::int32_t>(std::string_view)>;

// Tokenises in parallel; the result does not depend on the number of threads. Shows progress when
// there is much to do. What `encode` throws becomes a FormatError with the document's file and
// line.
TokenCorpus tokenize_corpus(const std::vector<Document>& documents, EncodeText encode,
                            std::int32_t end_of_sentence);

}  // namespace minke
