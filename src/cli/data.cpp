// minke data: from files of text to shards of tokens that training maps.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/files.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "data/held_out_text.h"
#include "data/shard_build.h"
#include "data/shard_manifest.h"

namespace minke {
namespace {

struct Options {
  ShardBuild build;
  std::string verify;
  std::vector<std::string> held_out_text;
};

void verify(const std::string& directory) {
  if (const std::string defect = checkpoint_defect(directory, Verify::Hashes); !defect.empty())
    throw FormatError(defect);
  fmt::print("{}: all files have the sizes and hashes of manifest.json\n", directory);
}

void write_text(const Options& o) {
  if (o.build.tokenizer.empty() || o.build.out.empty() || !o.build.in.empty())
    throw UsageError(
        "--held-out-text reads shards and needs --tokenizer DIR and --out FILE.jsonl, no --in");
  const Tokenizer tokenizer = Tokenizer::load(o.build.tokenizer);
  const TextEncoder encoder(tokenizer, o.build.tokenizer);
  for (const HeldOutText& source :
       write_held_out_text(o.held_out_text, encoder, o.build.tokenizer, o.build.out))
    fmt::print("{:24} {:>8} documents {:>12} bytes\n", source.source, source.documents,
               source.bytes);
}

void run(const Options& o) {
  if (!o.held_out_text.empty()) return write_text(o);
  if (!o.verify.empty()) {
    if (!o.build.in.empty() || !o.build.out.empty())
      throw UsageError("--verify looks at one directory; it goes without --in and --out");
    return verify(o.verify);
  }
  if (o.build.in.empty()) throw UsageError("--in is missing: the files or folders of text");
  if (o.build.tokenizer.empty())
    throw UsageError("--tokenizer is missing: a directory with tokenizer.json");
  if (o.build.out.empty()) throw UsageError("--out is missing: the directory to make");
  const InterruptScope interrupt;
  bool told = false;
  const nlohmann::ordered_json manifest = build_shards(o.build, [&] {
    if (interrupt.requested() && !told) {
      log_info("stopping (Ctrl-C once more leaves at once)");
      told = true;
    }
    return told;
  });
  fmt::print("{}", describe_manifest(manifest));
}

}  // namespace

void add_data(CLI::App& app) {
  const auto o = std::make_shared<Options>();
  CLI::App* cmd = app.add_subcommand(
      "data",
      "Turn text into tokenised shards: cleaned, without duplicates, split, mapped by train");
  ShardBuild& build = o->build;
  cmd->add_option("--in", build.in,
                  "files or folders: .jsonl, .txt and the other --text-endings, also .gz and .zst");
  cmd->add_option("--tokenizer", build.tokenizer, "directory with tokenizer.json");
  cmd->add_option("--out", build.out, "directory to make; until it is whole, OUT.partial");
  add_flags(*cmd, OptionList(build.settings));
  cmd->add_option("--batch-bytes", build.batch_bytes, "text in memory at a time, a few times this")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 34))
      ->capture_default_str();
  cmd->add_option("--checkpoint-seconds", build.checkpoint_seconds,
                  "between two states that a killed run goes on from")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  cmd->add_flag("--restart", build.restart,
                "throw away what an unfinished run left in OUT.partial");
  cmd->add_option("--verify", o->verify, "only read this directory and compare all hashes");
  cmd->add_option("--held-out-text", o->held_out_text,
                  "write the held-out documents of these shards as text, to --out FILE.jsonl");
  cmd->footer("What is cleaned, counted and written: docs/data.md");
  cmd->callback([o] { run(*o); });
}

}  // namespace minke
