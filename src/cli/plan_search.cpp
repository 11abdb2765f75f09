// minke plan search: the best layouts of a model on a cluster.
#include "cli/plan_inputs.h"
#include "plan/search.h"

namespace minke {
namespace {

using Json = nlohmann::ordered_json;

struct SearchInputs : PlanInputs {
  SearchSettings search;
  PhaseFlags phases;
  template <class Visitor>
  void visit(Visitor& field) {
    search.visit(field);
    phases.visit(field);
  }
};

void search(const SearchInputs& in) {
  const PlanModel m = plan_model(in.model);
  const Cluster c = cluster(in.cluster);
  const SearchResult result = search_layouts(m, c, in.search, in.phases.settings(c));
  if (in.json) {
    Json j = {{"looked_at", result.looked_at},
              {"tried", result.tried},
              {"fit", result.fit},
              {"dropped", result.dropped},
              {"layouts", Json::array()}};
    for (const RankedLayout& r : result.best)
      j["layouts"].push_back(
          {{"layout", layout_json(r.layout)},
           {"step_s", r.step.step_s},
           {"simulated_step_s", r.simulated_s > 0 ? Json(r.simulated_s) : Json()},
           {"bubble_s", r.step.bubble_s},
           {"gradients_s", r.step.gradients_s},
           {"optimizer_s", r.step.optimizer_s},
           {"tokens_per_s_per_device", r.step.tokens_per_s_per_device},
           {"mfu", r.step.mfu},
           {"memory_share", r.memory_share},
           {"bound", r.bound}});
    return print_json(j);
  }
  fmt::print("{} on {}: {} layouts looked at, {} fit; batch {} of {} tokens\n", m.name, c.name,
             result.looked_at, result.fit, in.search.batch, in.search.sequence);
  for (const auto& [why, n] : result.dropped) fmt::print("  {:>7} {}\n", n, why);
  fmt::print("\n");
  fmt::print("{:>4} {:>4} {:>6} {:>7} {:>6} {:<10}{:<10}{:>8} {:>9} {:>6} {:>7}  {}\n", "pipe",
             "exp", "data", "micro", "batch", "schedule", "recompute", "step s", "simul.", "MFU",
             "memory", "bound");
  for (const RankedLayout& r : result.best)
    fmt::print(
        "{:>4} {:>4} {:>6} {:>7} {:>6} {:<10}{:<10}{:>8.3f} {:>9} {:>4.1f} % {:>5.0f} %  {}\n",
        r.layout.pipeline, r.layout.expert, r.layout.data, r.layout.micro_batches,
        r.layout.micro_batch, r.layout.schedule, r.layout.recompute, r.step.step_s,
        r.simulated_s > 0 ? fmt::format("{:.3f}", r.simulated_s) : "-",
        (r.simulated_s > 0 ? r.simulated_mfu : r.step.mfu) * 100, r.memory_share * 100, r.bound);
  fmt::print(
      "\nstep: closed form of the schedule; simul.: simulated (--simulate N). Efficiencies are "
      "assumed unless the cluster file has measured ones; layers of each stage with --json\n");
}

}  // namespace

void add_plan_search(CLI::App& plan) {
  const auto in = std::make_shared<SearchInputs>();
  CLI::App* command =
      plan.add_subcommand("search", "the best layouts under memory, with what bounds each");
  add_plan_flags(*command, *in, PlanFlags::Cluster);
  add_flags(*command, OptionList(*in));
  command->callback([in] { search(*in); });
}

}  // namespace minke
