// minke plan calibrate: a cluster file of this machine, from its benchmarks.
#include <unistd.h>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "cli/plan_inputs.h"
#include "plan/calibrate.h"

namespace minke {
namespace {

struct CalibrateInputs {
  std::vector<std::string> bench;
  std::string out;
  std::optional<double> memory_gb;
  double price = 0;

  template <class Visitor>
  void visit(Visitor& field) {
    field("memory-gb", memory_gb, "memory of the device (default: this machine's)", above(0));
    field("price", price, "US dollars a device hour", at_least(0));
  }
};

double machine_memory_bytes() {
  return static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

void calibrate(const CalibrateInputs& in) {
  std::vector<BenchRun> runs;
  for (const std::string& path : in.bench)
    runs.push_back(parse_bench(read_file(path, std::size_t{1} << 26), path));
  Cluster c = calibrated_cluster(runs, in.memory_gb ? *in.memory_gb * 1e9 : machine_memory_bytes(),
                                 in.price);
  check_cluster(c, in.out);
  write_file_atomic(in.out, options_to_json(OptionList(c)).dump(2) + "\n");
  log_info(in.out + " written");
  const Efficiency& e = c.efficiency;
  fmt::print("{}: {:.3f} TFLOP/s BF16, {:.1f} GB/s, {:.0f} GB\n", c.name,
             c.peak_bf16_flops_per_s / 1e12, c.memory_bytes_per_s / 1e9, c.memory_bytes / 1e9);
  fmt::print(
      "products {:.2f}, experts {:.2f}, weight gradients {:.2f}, attention {:.2f} of the BF16 "
      "peak; streams {:.2f}, weights {:.2f} of the bandwidth\n",
      e.products, e.experts, e.gradients, e.attention, e.memory, e.weights);
  if (e.products_fp8 > 0)
    fmt::print("from FP8 weights: products {:.2f} of the peak, weights {:.2f} of the bandwidth\n",
               e.products_fp8, e.weights_fp8);
  if (e.moe_weights > 0)
    fmt::print(
        "experts of a prompt: products {:.2f} of the peak, weights {:.2f} of the bandwidth\n",
        e.moe_products, e.moe_weights);
}

}  // namespace

void add_plan_calibrate(CLI::App& plan) {
  const auto in = std::make_shared<CalibrateInputs>();
  CLI::App* command =
      plan.add_subcommand("calibrate", "a cluster file of one device, from minke bench --json");
  command->add_option("--bench", in->bench, "outputs of minke bench gemm --json, and others")
      ->required();
  command->add_option("--out", in->out, "the cluster file to write, for --cluster")->required();
  add_flags(*command, OptionList(*in));
  command->callback([in] { calibrate(*in); });
}

}  // namespace minke
