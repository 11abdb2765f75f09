// minke convert: a model directory in another element type or in shards of another size.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>

#include "base/log.h"
#include "base/progress.h"
#include "base/threads.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "io/convert.h"
#include "model/packed_checkpoint.h"

namespace minke {
namespace {

// "5GB", "500MB", "1.5GiB", "4096".
std::uint64_t parse_bytes(const std::string& text) {
  std::size_t used = 0;
  double value = -1;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  std::string unit = text.substr(used);
  for (char& c : unit) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  double factor = 0;
  constexpr std::string_view kPrefixes = "KMGT";
  if (unit.empty() || unit == "B") {
    factor = 1;
  } else if (const auto p = kPrefixes.find(unit[0]); p != std::string_view::npos) {
    if (unit.substr(1) == "B" || unit.size() == 1) factor = std::pow(1000.0, double(p + 1));
    if (unit.substr(1) == "IB") factor = std::pow(1024.0, double(p + 1));
  }
  const double bytes = value * factor;
  if (used == 0 || !(bytes >= 1) || bytes > 9e18)
    throw UsageError(fmt::format(
        "--max-shard-size: \"{}\" is not a size; 5GB, 500MB, 2GiB or a number of bytes is expected",
        text));
  return static_cast<std::uint64_t>(bytes);
}

struct Arguments {
  std::string model, out, dtype, scale = "fp32", compute = "bf16", max_shard_size = "5GB";
  Index group = 32;
  bool allow_symlinks = false, overwrite = false;
  int threads = available_cores();
};

// The line on stderr. Looked at between tensors for an interrupt, so that what was written is
// removed.
class ConvertProgress {
 public:
  explicit ConvertProgress(std::string out) : out_(std::move(out)) {}
  void operator()(std::uint64_t done, std::uint64_t total) {
    if (interrupt_.requested()) throw Interrupted("stopped; nothing was written to " + out_);
    if (!line_)
      line_ = std::make_unique<Progress>(ProgressOptions{
          .label = "convert", .unit = "bytes", .total = static_cast<std::int64_t>(total)});
    line_->update(static_cast<std::int64_t>(done));
  }
  void finish() { line_->finish(); }

 private:
  const InterruptScope interrupt_;
  std::string out_;
  std::unique_ptr<Progress> line_;
};

double gigabytes(std::uint64_t bytes) {
  return static_cast<double>(bytes) * 1e-9;
}

void pack(const Arguments& a) {
  ConvertProgress progress(a.out);
  const PackReport r = pack_model({.model = a.model,
                                   .out = a.out,
                                   .compute = parse_compute(a.compute),
                                   .max_shard_bytes = parse_bytes(a.max_shard_size),
                                   .allow_symlinks = a.allow_symlinks,
                                   .overwrite = a.overwrite},
                                  progress);
  progress.finish();
  log_info(fmt::format(
      "{}: {} weights packed for --compute {}, {:.3f} GB (from {:.3f} GB); {} other files copied",
      a.out, r.weights, a.compute, gigabytes(r.bytes_written), gigabytes(r.bytes_read),
      r.files_copied));
}

void convert(const Arguments& a) {
  ConvertOptions options;
  options.model = a.model;
  options.out = a.out;
  options.to = a.dtype == "bf16"   ? ConvertTo::Bf16
               : a.dtype == "fp8"  ? ConvertTo::Fp8
               : a.dtype == "int4" ? ConvertTo::Int4
                                   : ConvertTo::Keep;
  options.scale = a.scale == "ue8m0" ? ScaleForm::PowerOfTwo : ScaleForm::Float;
  options.group = a.group;
  options.max_shard_bytes = parse_bytes(a.max_shard_size);
  options.allow_symlinks = a.allow_symlinks;
  options.overwrite = a.overwrite;
  ConvertProgress progress(a.out);
  const ConvertReport r = convert_model(options, progress);
  progress.finish();
  log_info(
      fmt::format("{}: {} tensors, {:.3f} GB (from {:.3f} GB); {} dequantised to BF16, {} "
                  "quantised, {} rounded to BF16, {} other files copied",
                  a.out, r.tensors, gigabytes(r.bytes_written), gigabytes(r.bytes_read),
                  r.dequantized, r.quantized, r.rounded, r.files_copied));
}

void run(const Arguments& a) {
  if (a.scale == "ue8m0" && a.dtype != "fp8")
    throw UsageError("--scale is about weights that become FP8; it needs --dtype fp8");
  set_threads(a.threads);
  a.dtype == "packed" ? pack(a) : convert(a);
}

}  // namespace

void add_convert(CLI::App& app) {
  CLI::App* cmd = app.add_subcommand(
      "convert", "Convert a model between BF16, FP8 and 4 bits, between shard sizes, or pack it");
  const auto a = std::make_shared<Arguments>();
  cmd->add_option("--model", a->model, "model directory to read")->required();
  cmd->add_option("--out", a->out, "directory to write; it appears whole or not at all")
      ->required();
  cmd->add_option("--dtype", a->dtype,
                  "bf16: dequantised, as published; fp8: the published set of weights in 128x128 "
                  "blocks, the rest BF16; int4: 4 bits in groups (compressed-tensors, "
                  "pack-quantized); keep: only the shards change; packed: in the order in which "
                  "this program multiplies them, mapped by generate, chat, serve and eval")
      ->required()
      ->check(CLI::IsMember({"bf16", "fp8", "int4", "keep", "packed"}));
  cmd->add_option("--compute", a->compute, "arithmetic that --dtype packed packs for")
      ->check(CLI::IsMember({"fp32", "bf16", "fp8"}))
      ->capture_default_str();
  cmd->add_option(
         "--scale", a->scale,
         "scales of weights that become FP8: fp32, or ue8m0 (powers of two, stored as F32)")
      ->check(CLI::IsMember({"fp32", "ue8m0"}))
      ->capture_default_str();
  cmd->add_option("--group", a->group, "numbers under one scale of weights that become 4 bits")
      ->check(CLI::IsMember({32, 128}))
      ->capture_default_str();
  cmd->add_option("--max-shard-size", a->max_shard_size, "largest file of weights")
      ->capture_default_str();
  cmd->add_option("--threads", a->threads, "threads")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  cmd->add_flag("--allow-symlinks", a->allow_symlinks,
                "accept files that are symlinks out of --model, as in Hugging Face's cache");
  cmd->add_flag("--overwrite", a->overwrite, "replace --out if minke wrote it");
  cmd->callback([a] { run(*a); });
}

}  // namespace minke
