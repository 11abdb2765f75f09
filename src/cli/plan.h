// The subcommands of minke plan, one function each.
#pragma once

namespace CLI {
class App;
}

namespace minke {

void add_plan_schedule(CLI::App& plan);
void add_plan_eplb(CLI::App& plan);
// What follows from a model, a cluster and a layout: params, memory, traffic, cost, ...
void add_plan_model_commands(CLI::App& plan);

}  // namespace minke
