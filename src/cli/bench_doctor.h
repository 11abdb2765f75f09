#pragma once

namespace CLI {
class App;
}

namespace minke {

// minke bench doctor.
void add_bench_doctor(CLI::App& bench);

}  // namespace minke
