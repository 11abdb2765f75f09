// From documents to rows of tokens (report, section 4.1): documents follow each other in one
// stream, each closed by an end-of-sentence token, and the stream is cut into rows. Attention is
// not masked between the documents of a row, as in the report's pre-training.
//
// A row of T positions is T+1 tokens: the last one is only predicted, and is the first of the next
// row, so that every token of the stream is predicted once. In each epoch the documents come in
// another order, which depends on seed and epoch alone. The stream runs on from one epoch into the
// next: no token is dropped.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/function_ref.h"
#include "base/threads.h"
#include "data/corpus.h"

namespace minke {

struct CorpusSplit {
  std::vector<Document> train, held_out;
};

// Takes about `held_out_fraction` of each source's documents out of training, by the hash of their
// text: the choice depends neither on order nor on other documents, and copies of a text never fall
// on both sides. With a fraction above 0, a source gives at least one document if it has two
// different ones; of a single document of at least 4 KiB the end is held out, from a line's
// beginning. Throws ConfigError unless 0 <= held_out_fraction < 1.
CorpusSplit split_held_out(std::vector<Document> documents, double held_out_fraction);

struct TokenDocument {
  Index begin, end;  // in TokenCorpus::tokens; the last one is the end-of-sentence token
  int source;        // in TokenCorpus::sources
  Index text_bytes;
};

struct TokenCorpus {
  std::vector<std::int32_t> tokens;
  std::vector<TokenDocument> documents;
  std::vector<std::string> sources;  // in order of appearance

  Index text_bytes() const;
};

// Called from several threads at once.
using EncodeText = FunctionRef<std::vector<std::int32_t>(std::string_view)>;

// Tokenises in parallel; the result does not depend on the number of threads. Shows progress when
// there is much to do. What `encode` throws becomes a FormatError with the document's file and
// line.
TokenCorpus tokenize_corpus(const std::vector<Document>& documents, EncodeText encode,
                            std::int32_t end_of_sentence);

// Where a BatchSource is: what comes next begins with token `offset` of the `document`-th document
// in the order of `epoch`. `corpus` identifies tokens and seed.
struct DataPosition {
  std::int64_t epoch = 0;
  std::int64_t document = 0;
  std::int64_t offset = 0;
  std::int64_t rows = 0;  // handed out so far
  std::uint64_t corpus = 0;

  template <class Visitor>
  void visit(Visitor& field) {
    field("epoch", epoch, "passes over the data that are complete");
    field("document", document, "in the order of the epoch");
    field("offset", offset, "token of the document");
    field("rows", rows, "rows handed out so far");
    field("corpus", corpus, "identifies the tokens and the seed");
  }
  bool operator==(const DataPosition&) const = default;
};
nlohmann::ordered_json to_json(const DataPosition& position);
DataPosition data_position_from_json(const nlohmann::json& json, std::string_view where);

class BatchSource {
 public:
  // `corpus` must outlive the source. Throws ConfigError when it holds no token.
  BatchSource(const TokenCorpus& corpus, Index positions, std::uint64_t seed);

  // The next n rows: [n, positions + 1], one after the other.
  std::vector<std::int32_t> next(Index n);

  const DataPosition& position() const { return position_; }
  // Goes on exactly where `position` was taken. ConfigError when it is of other data, another seed,
  // or out of range.
  void set_position(const DataPosition& position);

  // Source of the document that the next row begins in.
  const std::string& next_source() const;

 private:
  void order_documents();

  const TokenCorpus* corpus_;
  Index row_;  // T + 1
  std::uint64_t seed_;
  DataPosition position_;
  std::vector<std::int64_t> order_;  // of position_.epoch
};

// The documents in their own order as rows [n, positions + 1], at most `max_rows`; what does not
// fill the last row is left out, but one row is always filled, by repetition if need be. For
// held-out loss.
std::vector<std::int32_t> pack_in_order(const TokenCorpus& corpus, Index positions, Index max_rows);

}  // namespace minke
