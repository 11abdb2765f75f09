// minke report: what training runs measured, as a table and as one HTML page.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/log.h"
#include "cli/commands.h"
#include "page/report_table.h"
#include "page/training_report.h"

namespace minke {
namespace {

constexpr std::size_t kMostRuns = 64;

struct ReportOptions {
  std::vector<std::string> runs;
  std::string out;
  bool json = false;
};

void run_report(const ReportOptions& o) {
  if (o.runs.size() > kMostRuns)
    throw UsageError(fmt::format("{} runs are too many for one page; give at most {}",
                                 o.runs.size(), kMostRuns));
  const std::vector<page::RunRecord> runs = page::read_runs(o.runs);
  for (const page::RunRecord& run : runs)
    if (run.n_bad_lines > 0)
      log_warning(fmt::format("{}: {} lines could not be used; the first: {}",
                              (run.directory / "metrics.jsonl").string(), run.n_bad_lines,
                              run.bad_lines.front()));
  if (!o.out.empty()) {
    write_file_atomic(o.out, page::training_report(runs));
    log_info(o.out + " written");
  }
  if (o.json)
    fmt::print("{}\n", page::final_json(runs).dump(2));
  else
    fmt::print("{}", page::table_text(page::final_table(runs)));
}

}  // namespace

void add_report(CLI::App& app) {
  const auto o = std::make_shared<ReportOptions>();
  CLI::App* cmd = app.add_subcommand(
      "report", "Compare training runs: a table, and an HTML page with their curves");
  cmd->add_option("runs", o->runs, "RUN: the --out of a `minke train`, or its .run directory")
      ->type_name("RUN")
      ->required();
  cmd->add_option("--out", o->out, "HTML file to write: everything in it, for any browser")
      ->type_name("FILE");
  cmd->add_flag("--json", o->json, "print the table as JSON");
  cmd->callback([o] { run_report(*o); });
}

}  // namespace minke
