// The subcommands of minke plan, one function each.
#pragma once

namespace CLI {
class App;
}

namespace minke {

void add_plan_schedule(CLI::App& plan);
void add_plan_eplb(CLI::App& plan);

}  // namespace minke
