// What the tasks of `minke eval` have in common: options, documents, the file of results.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/function_ref.h"
#include "cli/model_flags.h"
#include "data/corpus.h"

namespace minke {

struct EvalOptions {
  ModelFlags model;
  std::string task = "bpb";
  std::vector<std::string> data;
  std::optional<std::string> out;
  std::optional<std::int64_t> window, stride, every, max_bytes;
  std::int64_t batch_tokens = 4096;

  template <class Visitor>
  void visit(Visitor& field) {
    model.visit(field);
    field("task", task, "what to measure", one_of({"bpb", "mtp_acceptance"}));
    field("data", data, "text files (.txt, .jsonl) or folders of them");
    field("out", out, "JSON file to write");
    field(
        "window", window,
        "tokens in one pass (default: bpb 2048, mtp_acceptance 512, or the model's context if that "
        "is less)",
        at_least(1));
    field("stride", stride,
          "bpb: tokens from one window's end to the next (default: half the window)", at_least(1));
    field("every", every, "mtp_acceptance: of so many positions one is looked at (default: 16)",
          at_least(1));
    field("max-bytes", max_bytes,
          "of each source only so many bytes, from its beginning (default: all)", at_least(1));
    field("batch-tokens", batch_tokens, "windows computed together; does not change the result",
          at_least(1));
  }
};

// Calls f with every document, cut where its source has given `max_bytes`.
void for_each_document(const EvalOptions& o, FunctionRef<void(Document)> f);

// Reads everything once: a bad line is found before the long part begins. ConfigError when there is
// no text, UsageError when --data is missing.
std::int64_t count_bytes(const EvalOptions& o);

// The file of --out, if there is one. Made before the work: a path that cannot be written is found
// early; without write() nothing is left.
class ResultFile {
 public:
  explicit ResultFile(const std::optional<std::string>& path);
  void write(const nlohmann::ordered_json& results);

 private:
  std::optional<AtomicFile> file_;
};

// What every file of results says of its run: model, data, arithmetic, machine, version.
nlohmann::ordered_json settings_of(const EvalOptions& o, bool begin_of_sentence);

// Code points; names are mostly narrow, and a wide one only moves its own row.
std::size_t width_of(std::string_view text);

// `ranks` as load_for_use takes it.
void eval_bits_per_byte(const EvalOptions& o, ModelCaller* ranks);
void eval_mtp_acceptance(const EvalOptions& o, ModelCaller* ranks);

}  // namespace minke
