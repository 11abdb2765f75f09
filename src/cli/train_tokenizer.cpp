// minke train-tokenizer: a vocabulary of one's own from text.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "cli/commands.h"
#include "data/corpus.h"
#include "text/bpe_trainer.h"

namespace minke {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> data;
  std::string out;
  BpeTrainOptions train;
  bool overwrite = false;
};

void run(const Options& o) {
  if (o.out.empty()) throw UsageError("--out is empty, but must name a directory");
  if (!o.overwrite && fs::exists(fs::path(o.out) / "tokenizer.json"))
    throw UsageError(fmt::format(
        "{} already holds tokenizer.json; choose another --out, or replace it with --overwrite",
        o.out));
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<Document> documents = load_documents(o.data);
  std::vector<std::string_view> texts;
  std::size_t bytes = 0;
  for (const Document& document : documents) {
    texts.push_back(document.text);
    bytes += document.text.size();
  }
  const TrainedTokenizer trained = train_bpe(texts, o.train);
  write_tokenizer(o.out, trained);
  const Tokenizer tokenizer = trained.tokenizer();
  std::size_t ids = 0;
  for (const std::string_view text : texts) ids += tokenizer.encode(text).size();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  fmt::print("{}: {} ids from {} documents, {:.1f} MB; {:.2f} bytes a token on them; {:.1f} s\n",
             o.out, trained.vocab_size(), texts.size(), static_cast<double>(bytes) / 1e6,
             ids ? static_cast<double>(bytes) / static_cast<double>(ids) : 0.0, seconds.count());
  if (trained.vocab_size() < o.train.vocab_size)
    fmt::print(stderr,
               "minke: {} ids were asked for, but no other pair stands {} times in the text\n",
               o.train.vocab_size, o.train.min_count);
}

}  // namespace

void add_train_tokenizer(CLI::App& app) {
  const auto o = std::make_shared<Options>();
  CLI::App* cmd = app.add_subcommand(
      "train-tokenizer", "Train a byte-level BPE tokenizer with DeepSeek-V3's split patterns");
  cmd->add_option("--data", o->data, "text: .jsonl with \"text\", .txt, or folders of them")
      ->required();
  cmd->add_option("--vocab", o->train.vocab_size, "ids in all, bytes and added tokens included")
      ->capture_default_str();
  cmd->add_option("--min-count", o->train.min_count, "a rarer pair is not joined")
      ->capture_default_str();
  cmd->add_option("--out", o->out,
                  "directory for tokenizer.json and tokenizer_config.json, made when missing")
      ->required();
  cmd->add_flag("--overwrite", o->overwrite, "replace a tokenizer that --out holds (default: no)");
  cmd->callback([o] { run(*o); });
}

}  // namespace minke
