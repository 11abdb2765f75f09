// One item of the input as a document: parsed, cleaned, judged by itself. A pure function, called
// from several threads at once.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/options.h"
#include "data/clean_text.h"
#include "data/document_record.h"
#include "data/input_files.h"
#include "data/item_reader.h"
#include "text/chat_template.h"

namespace minke {

// The settings on which the shards depend; they are recorded in the manifest.
struct DataSettings {
  std::vector<std::string> text_endings = {"txt", "md"};
  std::string text_field = "text", source_field = "source";
  std::string on_error = "refuse", broken_utf8 = "on_error";
  std::int64_t max_item_bytes = std::int64_t{64} << 20;
  CleanOptions clean;
  bool exact_duplicates = true;
  double near_duplicates = 0.8;
  double held_out_fraction = 0.005;
  std::int64_t shard_tokens = std::int64_t{1} << 26;

  template <class Visitor>
  void visit(Visitor& field) {
    field("text_endings", text_endings,
          "endings of plain text, with commas; .gz and .zst may follow");
    field("text_field", text_field, "of a JSON line: the document");
    field("source_field", source_field, "of a JSON line: the name of its source");
    field("on_error", on_error, "bad files and documents", one_of({"refuse", "skip"}));
    field("broken_utf8", broken_utf8, "bytes that are not UTF-8, replaced by U+FFFD or",
          one_of({"on_error", "refuse", "skip", "replace"}));
    field("max_item_bytes", max_item_bytes,
          "a longer line, or text between form feeds, is bad data, and is not held in memory",
          between(1, 1 << 30));
    clean.visit(field);
    field("exact_duplicates", exact_duplicates, "keep one copy of equal documents");
    field("near_duplicates", near_duplicates,
          "keep one of documents that share this part of their 5-word runs; 0: keep all",
          between(0, 1));
    field("held_out_fraction", held_out_fraction, "part of each source that is never trained on",
          between(0, 0.5));
    field("shard_tokens", shard_tokens, "tokens of a shard", at_least(1));
  }

  // Whether documents with this fault end the run.
  bool refuses(Outcome outcome) const;
};

struct CheckedDocument {
  DocumentRecord record;
  std::string text, source;       // empty when it has a fault
  std::vector<Message> messages;  // of a dialogue, which is then what is encoded
  std::string problem;            // of bad data: one line without file and line
};

// Takes the bytes out of `item`. `with_minhash`: whether bands and sketch are wanted, which takes
// most of the time.
CheckedDocument check_document(Item& item, const InputFile& file, const DataSettings& settings,
                               bool with_minhash);

}  // namespace minke
