#include "page/training_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "page/heat_map.h"
#include "page/html.h"
#include "page/plot.h"
#include "page/report_assets.h"
#include "page/report_table.h"

namespace minke::page {
namespace {

constexpr PlotSize kWide{1180, 380};
constexpr std::size_t kMostPlots = 24;       // of one kind: sources, layers
constexpr std::size_t kHeatCells = 400'000;  // of all heat maps
constexpr std::size_t kShownEvents = 50;

class Report {
 public:
  explicit Report(const std::vector<RunRecord>& runs) : runs_(runs), page_(title()) {
    page_.style(report_style(static_cast<int>(runs.size())));
    page_.script(report_script());
  }

  std::string write() {
    controls();
    page_.table(final_table(runs_));
    page_.paragraph(
        "Loss, worst load and gradient norm: mean of the last part of the run; the others as last "
        "measured.");
    losses();
    events();
    held_out();
    schedules();
    loads_by_layer();
    loads_by_expert();
    fp8();
    acceptance();
    recipes();
    bad_lines();
    return page_.finish();
  }

 private:
  std::string title() const {
    return runs_.size() == 1 ? "Training of " + runs_[0].name
                             : fmt::format("Training: {} runs", runs_.size());
  }

  void controls() {
    std::string bar = "<div class=\"bar-top\">\n";
    for (std::size_t r = 0; r < runs_.size(); ++r)
      bar += fmt::format(
          "<button type=\"button\" data-run=\"{0}\" aria-pressed=\"true\"><i "
          "class=\"r{0}\"></i>{1}</button>\n",
          r, escape(runs_[r].name));
    bar +=
        "<label><input type=\"checkbox\" data-class=\"logx\"> logarithmic tokens</label>\n"
        "<label><input type=\"checkbox\" data-class=\"noraw\" data-off checked> each step</label>\n"
        "</div>\n";
    page_.markup(bar);
  }

  // One curve of every run that has it.
  Plot plot_of(const std::string& title, const std::string& curve, bool smoothed) const {
    Plot plot;
    plot.title = title;
    for (std::size_t r = 0; r < runs_.size(); ++r) {
      const Curve* found = runs_[r].curve(curve);
      if (!found) continue;
      const int run = static_cast<int>(r);
      if (smoothed) {
        plot.lines.push_back({runs_[r].name, run, PlotLine::Kind::Raw, &found->raw});
        plot.lines.push_back({runs_[r].name, run, PlotLine::Kind::Smooth, &found->smooth});
      } else {
        plot.lines.push_back({runs_[r].name, run, PlotLine::Kind::Points, &found->raw});
      }
    }
    return plot;
  }

  static std::string card(const Plot& plot) {
    return "<div class=\"card\">" + plot_svg(plot) + "</div>\n";
  }
  // Two drawings, for a screen and for a phone; the style shows one.
  static std::string wide_card(const Plot& plot) {
    return "<div class=\"card\"><div class=\"broad\">" + plot_svg(plot, kWide) +
           "</div><div class=\"narrow\">" + plot_svg(plot) + "</div></div>\n";
  }
  void cards(const std::vector<Plot>& plots) {
    std::string markup = "<div class=\"cards\">\n";
    for (const Plot& plot : plots) markup += card(plot);
    page_.markup(markup + "</div>\n");
  }

  // The union over the runs of what follows `prefix`, in the runs' order.
  std::vector<std::string> names_below(const std::string& prefix) const {
    std::vector<std::string> names;
    std::set<std::string> seen;
    for (const RunRecord& run : runs_)
      for (const auto& [name, curve] : run.below(prefix))
        if (seen.insert(name).second) names.push_back(name);
    return names;
  }

  // A plot for each name below `prefix`, at most kMostPlots; says what is left out.
  std::vector<Plot> plots_below(const std::string& prefix, const std::string& title,
                                bool smoothed) {
    const std::vector<std::string> names = names_below(prefix);
    std::vector<Plot> plots;
    for (std::size_t i = 0; i < std::min(names.size(), kMostPlots); ++i)
      plots.push_back(
          plot_of(fmt::format(fmt::runtime(title), names[i]), prefix + names[i], smoothed));
    if (names.size() > kMostPlots)
      page_.paragraph(
          fmt::format("Plots of the first {} of {}; the numbers of all are in minke "
                      "report --json.",
                      kMostPlots, names.size()));
    return plots;
  }

  void losses() {
    page_.heading("Loss");
    Plot plot = plot_of("Main loss (nats a token)", "loss.main", true);
    if (plot.lines.empty()) return page_.paragraph("No step has been recorded yet.");
    plot.skip_start = true;
    for (std::size_t r = 0; r < runs_.size(); ++r)
      for (const RunEvent& event : runs_[r].events)
        plot.marks.push_back({event.tokens, static_cast<int>(r),
                              fmt::format("{}, step {}: {} {}", runs_[r].name, event.step,
                                          event.kind, event.message)});
    page_.markup(wide_card(plot));
    std::vector<Plot> others = plots_below("loss.mtp_k.", "Loss of MTP module {}", true);
    for (Plot& other : others) other.skip_start = true;
    add_if_varied(others, "Balance loss, with its factor", "loss.balance", true);
    if (!others.empty()) cards(others);
  }

  void events() {
    Table table{{"run", "step", "event", "what"}, {}};
    std::int64_t all = 0;
    for (const RunRecord& run : runs_) {
      for (const auto& [kind, n] : run.n_events) all += n;
      for (const RunEvent& event : run.events)
        if (table.rows.size() < kShownEvents)
          table.rows.push_back({run.name, std::to_string(event.step), event.kind, event.message});
    }
    if (all == 0) return;
    page_.heading("Events");
    if (all > static_cast<std::int64_t>(table.rows.size()))
      page_.paragraph(fmt::format("The first {} of {}.", table.rows.size(), all));
    page_.markup("<div class=\"left\">\n");
    page_.table(table);
    page_.markup("</div>\n");
  }

  void held_out() {
    page_.heading("Held-out loss");
    Plot plot = plot_of("All sources (nats a token)", "held_out", false);
    if (plot.lines.empty())
      return page_.paragraph(
          "No held-out loss was recorded: eval_every was not reached, or data.held_out_fraction "
          "left no document.");
    std::vector<Plot> plots{std::move(plot)};
    add_if_there(plots, plot_of("Of the averaged weights (EMA)", "held_out_ema", false));
    add_if_there(plots, plot_of("Bits per byte", "held_out_bits_per_byte", false));
    for (Plot& source : plots_below("held_out_sources.", "{}", false))
      plots.push_back(std::move(source));
    cards(plots);
  }

  static void add_if_there(std::vector<Plot>& plots, Plot plot) {
    if (!plot.lines.empty()) plots.push_back(std::move(plot));
  }
  // A setting that stays as it is in all runs is in the table of recipes, not worth a plot.
  void add_if_varied(std::vector<Plot>& plots, const std::string& title, const std::string& curve,
                     bool smoothed) const {
    Plot plot = plot_of(title, curve, smoothed);
    std::set<double> values;
    for (const PlotLine& line : plot.lines)
      for (const Point& p : line.series->points()) values.insert(p.y);
    if (values.size() > 1) plots.push_back(std::move(plot));
  }

  void schedules() {
    page_.heading("Schedule and speed");
    std::vector<Plot> plots;
    add_if_there(plots, plot_of("Learning rate", "lr", false));
    add_if_varied(plots, "Rows of a step", "batch", false);
    add_if_varied(plots, "gamma, step of the router's biases", "gamma", false);
    add_if_varied(plots, "lambda, factor of the MTP loss", "mtp_lambda", false);
    Plot norm = plot_of("Gradient norm, before clipping", "grad_norm", true);
    norm.skip_start = true;
    add_if_there(plots, std::move(norm));
    add_if_there(plots, plot_of("Tokens/s", "tokens_per_s", true));
    cards(plots);
  }

  void loads_by_layer() {
    page_.heading("Expert load: the worst of each layer");
    Plot worst = plot_of("Worst layer, load over mean", "worst_load_ratio", true);
    if (worst.lines.empty()) return page_.paragraph("The runs recorded no expert loads.");
    page_.paragraph(
        "Load of the most loaded expert over the mean of its layer, in each step's batch; 1 is "
        "balance.");
    std::vector<Plot> plots{std::move(worst)};
    for (Plot& layer : plots_below("load_ratios.", "Layer {}, load over mean", true))
      plots.push_back(std::move(layer));
    cards(plots);
    page_.markup("<details><summary>At the end, by layer</summary>\n");
    page_.table(layer_table(runs_, "load_ratios.", "", false));
    page_.markup("</details>\n");
  }

  void loads_by_expert() {
    page_.heading("Expert load: every expert");
    std::size_t rows = 0;
    for (const RunRecord& run : runs_)
      for (const auto& [layer, loads] : run.loads) rows += loads.n_experts();
    if (rows == 0)
      return page_.paragraph(
          "No loads by expert were recorded: the setting record_loads_every is 0 or was not "
          "reached.");
    page_.paragraph(
        "Experts from top to bottom, steps from left to right. Neighbouring records are added up "
        "where there are more than fit.");
    page_.markup(heat_legend());
    const std::size_t columns = std::clamp<std::size_t>(kHeatCells / rows, 24, 120);
    for (const RunRecord& run : runs_) {
      if (run.loads.empty()) continue;
      std::string markup = "<h3>" + escape(run.name) + "</h3>\n<div class=\"cards\">\n";
      for (const auto& [layer, loads] : run.loads)
        markup += fmt::format(
            "<figure><figcaption>layer {}: worst {:.2f}x at the end</figcaption>{}</figure>\n",
            layer, loads.columns().back().worst_ratio(), heat_map_svg(loads, columns));
      page_.markup(markup + "</div>\n");
    }
  }

  void fp8() {
    page_.heading("FP8");
    if (names_below("fp8_worst.").empty())
      return page_.paragraph(
          "No FP8 statistics were recorded: no run computes in FP8 with fp8.statistics on.");
    page_.paragraph(
        "Shares of values that were clipped to the largest code, and that became zero though they "
        "were not; the worst layer. x: inputs, dy: gradients of outputs, w: weights.");
    std::vector<Plot> plots;
    for (const std::string& name : names_below("fp8_worst.")) {
      const std::size_t dot = name.rfind('.');
      const std::string what = name.ends_with(".0") ? "clipped" : "underflow";
      Plot plot =
          plot_of(fmt::format("{} of {}", what, name.substr(0, dot)), "fp8_worst." + name, true);
      plot.percent = true;
      plots.push_back(std::move(plot));
    }
    cards(plots);
    page_.markup("<details><summary>At the end, by layer</summary>\n");
    for (const char* tensor : {"x", "dy", "w"})
      for (const auto& [index, what] : {std::pair(0, "clipped"), std::pair(1, "underflow")}) {
        const Table table = layer_table(runs_, "fp8.", fmt::format(".{}.{}", tensor, index), true);
        if (table.rows.empty()) continue;
        page_.markup(fmt::format("<h3>{} of {}</h3>\n", what, tensor));
        page_.table(table);
      }
    page_.markup("</details>\n");
  }

  void acceptance() {
    page_.heading("MTP acceptance");
    Plot plot = plot_of("Accepted drafts, held-out text", "mtp_acceptance", false);
    if (plot.lines.empty())
      return page_.paragraph(
          "No acceptance was recorded: the models have no MTP module, or there was no held-out "
          "loss.");
    plot.percent = true;
    page_.paragraph(
        "Share of positions of held-out text, continued by the model's own likeliest token, where "
        "module 0's likeliest token equals the main model's. The report has 85 to 90 %.");
    cards({plot});
  }

  void recipes() {
    page_.heading("Recipes");
    const Table differences = recipe_differences(runs_);
    if (!differences.rows.empty()) {
      page_.paragraph("Settings that differ between the runs.");
      page_.table(differences);
    } else if (runs_.size() > 1) {
      page_.paragraph("The recorded recipes do not differ.");
    }
    for (const RunRecord& run : runs_) {
      if (!run.recipe.is_object()) {
        page_.paragraph(run.name + ": no recipe in its metrics.jsonl.");
        continue;
      }
      page_.markup(fmt::format("<details><summary>{}</summary><pre>{}</pre></details>\n",
                               escape(run.name), escape(run.recipe.dump(2))));
    }
  }

  void bad_lines() {
    for (const RunRecord& run : runs_) {
      if (run.n_bad_lines == 0) continue;
      std::string text = fmt::format(
          "{}: {} of metrics.jsonl could not be used:", run.name,
          run.n_bad_lines == 1 ? std::string("1 line") : fmt::format("{} lines", run.n_bad_lines));
      for (const std::string& line : run.bad_lines) text += " " + line + ";";
      if (run.n_bad_lines > static_cast<std::int64_t>(run.bad_lines.size())) text += " and more;";
      text.back() = '.';
      page_.paragraph(text);
    }
  }

  const std::vector<RunRecord>& runs_;
  HtmlPage page_;
};

}  // namespace

std::string training_report(const std::vector<RunRecord>& runs) {
  return Report(runs).write();
}

}  // namespace minke::page
