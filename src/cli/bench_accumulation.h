#pragma once

namespace CLI {
class App;
}

namespace minke {

// minke bench accumulation.
void add_bench_accumulation(CLI::App& bench);

}  // namespace minke
