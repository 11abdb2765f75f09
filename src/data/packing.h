// From documents to rows of tokens (report, section 4.1): documents follow each other in one
// stream, each closed by an end-of-sentence token, and the stream is cut into rows. Attention is
// not masked between the documents of a row, as in the report's pre-training; RowBatch::starts is
// there for later stages, which mask.
//
// A row of T positions is T+1 tokens: the last one is only predicted, and is the first of the next
// row, so that every token of the stream is predicted once. In each epoch the documents come in
// another order, which depends on seed and epoch alone. The stream runs on from one epoch into the
// next: no token is dropped.
//
// With shares (data/mixture.h) every source has an order and epochs of its own, and begins again in
// a new order when it runs out. The next document is taken from the source that is farthest behind
// its share of the tokens so far, so that shares hold to within a document at any time.
//
// Memory is 8 bytes a document, for the order, and one document where it is transformed.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "data/document_transform.h"
#include "data/token_corpus.h"

namespace minke {

// Where a BatchSource is: what comes next begins with token `offset` of the `document`-th document
// in the order of `epoch` of `stream`. `corpus` identifies tokens, seed and options; it is the same
// for every rank and number of ranks.
struct DataPosition {
  std::int64_t epoch = 0;
  std::int64_t document = 0;
  std::int64_t offset = 0;
  std::int64_t rows = 0;  // handed out so far, to all ranks
  std::uint64_t corpus = 0;
  // With shares, of every stream (a source with a share); else empty.
  std::int64_t stream = 0;
  std::vector<std::int64_t> stream_epochs, stream_documents, stream_tokens;

  template <class Visitor>
  void visit(Visitor& field) {
    field("epoch", epoch, "passes over the data that are complete");
    field("document", document, "in the order of the epoch");
    field("offset", offset, "token of the document");
    field("rows", rows, "rows handed out so far");
    field("corpus", corpus, "identifies the tokens, the seed and the options");
    field("stream", stream, "source of the mixture that is being read");
    field("stream_epochs", stream_epochs, "of each source of the mixture");
    field("stream_documents", stream_documents, "of each source of the mixture");
    field("stream_tokens", stream_tokens, "of each source of the mixture, in whole documents");
  }
  bool operator==(const DataPosition&) const = default;
};
nlohmann::ordered_json to_json(const DataPosition& position);
DataPosition data_position_from_json(const nlohmann::json& json, std::string_view where);

struct RowBatch {
  std::vector<std::int32_t> tokens;  // [n, positions + 1]
  // Of each row the positions at which a document begins, ascending, the first one 0 also where the
  // row begins within a document: with a mask, position i sees those from the last start up to i.
  std::vector<std::vector<Index>> starts;
};

struct BatchOptions {
  std::vector<double> shares;                    // of the corpus' sources; empty: one stream
  const DocumentTransform* transform = nullptr;  // must outlive the source
  // Rank r of n gets rows r, r + n, r + 2n, ... of the same order. All ranks ask for the same
  // numbers of rows; their positions are then equal, and another number of ranks may go on there.
  Index rank = 0, ranks = 1;
};

class BatchSource {
 public:
  // `corpus` must outlive the source. Throws ConfigError when it holds no token, or a source with a
  // share holds none.
  BatchSource(const TokenCorpus& corpus, Index positions, std::uint64_t seed,
              BatchOptions options = {});

  // The next n rows of this rank: [n, positions + 1], one after the other.
  std::vector<std::int32_t> next(Index n) { return next_rows(n).tokens; }
  RowBatch next_rows(Index n);

  const DataPosition& position() const { return position_; }
  // Goes on exactly where `position` was taken. ConfigError when it is of other data, another seed,
  // or out of range.
  void set_position(const DataPosition& position);

  // Source of the document that the next row begins in.
  const std::string& next_source() const;

 private:
  struct Stream {
    int source = -1;  // -1: all
    double share = 1;
    std::vector<std::int64_t> order;  // documents, of the epoch
  };

  bool is_mixture() const { return !options_.shares.empty(); }
  std::uint64_t identify() const;
  void make_streams();
  void order_documents(std::size_t stream, std::int64_t epoch);
  Stream& current() { return streams_[static_cast<std::size_t>(position_.stream)]; }
  void enter_document();
  void leave_document();
  void choose_stream();
  void copy_tokens(Index count, std::vector<std::int32_t>& out) const;
  void walk_row(RowBatch* batch);

  const TokenCorpus* corpus_;
  Index row_;  // T + 1
  std::uint64_t seed_;
  BatchOptions options_;
  DataPosition position_;
  std::vector<Stream> streams_;
  TokenDocument place_{};                  // of the document that is being read
  std::vector<std::int32_t> transformed_;  // it, where there is a transform
  Index length_ = 0;                       // of it, in tokens
};

// The documents in their own order as rows [n, positions + 1], at most `max_rows`; what does not
// fill the last row is left out, but one row is always filled, by repetition if need be. For
// held-out loss. Of `source` alone, or of all (-1).
RowBatch pack_in_order(const TokenCorpus& corpus, Index positions, Index max_rows, int source = -1);

}  // namespace minke
