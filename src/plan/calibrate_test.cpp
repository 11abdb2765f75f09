#include "plan/calibrate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "plan/one_device.h"
#include "plan/step_time.h"

namespace minke {
namespace {

BenchLine flop_line(const char* name, const char* form, double limit, double share) {
  return {name, "512 x 512 x 512", form, 1e-3, 0, 1e9, limit, share};
}
BenchLine byte_line(const char* name, double limit, double share) {
  return {name, "1 x 2048 x 7168", "bf16", 1e-3, 1e6, 0, limit, share};
}
BenchRun machine() {
  return {"a processor",
          "avx512",
          4,
          {flop_line("linear", "bf16", 1e12, 0.8), flop_line("linear", "bf16", 1e12, 0.4),
           flop_line("linear", "fp32", 5e11, 0.9), flop_line("linear experts", "bf16", 1e12, 0.7),
           flop_line("gradient", "bf16", 1e12, 0.6), flop_line("gradient", "fp32", 5e11, 0.1),
           byte_line("linear from memory", 5e10, 0.9), byte_line("pack", 5e10, 0.75)}};
}
std::string refusal(const std::vector<BenchRun>& runs) {
  try {
    calibrated_cluster(runs, 1e9, 0);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(Calibrate, PeaksAndShares) {
  const Cluster c = calibrated_cluster({machine()}, 32e9, 1);
  check_cluster(c, "test");
  EXPECT_EQ(c.devices, 1);
  EXPECT_EQ(c.peak_bf16_flops_per_s, 1e12);
  EXPECT_EQ(c.memory_bytes_per_s, 5e10);
  EXPECT_NEAR(c.efficiency.products, 2 / (1 / 0.8 + 1 / 0.4), 1e-12);
  EXPECT_NEAR(c.efficiency.experts, 0.7, 1e-12);
  EXPECT_NEAR(c.efficiency.gradients, 0.6, 1e-12);
  EXPECT_NEAR(c.efficiency.attention, 0.45, 1e-12);
  EXPECT_NEAR(c.efficiency.memory, 0.75, 1e-12);
  EXPECT_NEAR(c.efficiency.weights, 0.9, 1e-12);
  const PhaseSettings s = phase_settings(c);
  EXPECT_EQ(s.bf16_efficiency, c.efficiency.products);
  EXPECT_TRUE(s.elementwise);
}

TEST(Calibrate, MeasuredAttentionAndBandwidthCountMore) {
  BenchRun more = machine();
  more.lines = {flop_line("attention mini", "fp32", 5e11, 0.5),
                flop_line("attention mini  backward", "fp32", 5e11, 0.5),
                flop_line("attention decode", "bf16", 5e11, 0.1),
                byte_line("read bandwidth", 6e10, 1), byte_line("read bandwidth", 2e10, 1)};
  const Cluster c = calibrated_cluster({machine(), more}, 32e9, 1);
  EXPECT_NEAR(c.efficiency.attention, 0.25, 1e-12);
  EXPECT_EQ(c.memory_bytes_per_s, 6e10);
}

TEST(Calibrate, AttentionInBf16CountsMoreThanInFp32) {
  BenchRun more = machine();
  more.lines = {flop_line("attention mini", "fp32", 5e11, 0.5),
                flop_line("attention mini", "bf16", 1e12, 0.75)};
  EXPECT_NEAR(calibrated_cluster({machine(), more}, 32e9, 1).efficiency.attention, 0.75, 1e-12);
}

// Lines made from two rates give those rates again.
TEST(Calibrate, ExpertsTakeInWeightsAndMultiply) {
  BenchRun more = machine();
  for (const double tokens : {1.0, 8.0, 64.0, 512.0}) {
    BenchLine line = flop_line("moe mini", "e4m3", 1e12, 0.1);
    line.shape = std::to_string(static_cast<int>(tokens));
    line.bytes = 1e6 * (1 + std::log(tokens));
    line.flop = 1e7 * tokens;
    line.seconds = line.bytes / (0.25 * 5e10) + line.flop / (0.5 * 1e12);
    more.lines.push_back(line);
  }
  const Efficiency e = calibrated_cluster({more}, 32e9, 1).efficiency;
  EXPECT_NEAR(e.moe_weights, 0.25, 1e-9);
  EXPECT_NEAR(e.moe_products, 0.5, 1e-9);
  EXPECT_EQ(calibrated_cluster({machine()}, 32e9, 1).efficiency.moe_weights, 0);
}

TEST(Calibrate, FormsOfWeightsAreKeptApart) {
  BenchRun more = machine();
  BenchLine row = byte_line("linear from memory", 5e10, 0.6);
  row.form = "e4m3";
  more.lines.push_back(row);
  more.lines.push_back(flop_line("linear", "e4m3", 1e12, 0.3));
  const Efficiency e = calibrated_cluster({more}, 32e9, 1).efficiency;
  EXPECT_NEAR(e.weights, 0.9, 1e-12);
  EXPECT_NEAR(e.weights_fp8, 0.6, 1e-12);
  EXPECT_NEAR(e.products_fp8, 0.3, 1e-12);
  EXPECT_NEAR(decode_efficiency(e, {8, 16}), 0.6, 1e-12);
  EXPECT_NEAR(decode_efficiency(e, {16, 16}), 0.9, 1e-12);
  EXPECT_NEAR(prefill_efficiency(e, {8, 16}).products, 0.3, 1e-12);
}

TEST(Calibrate, TrainingLinesAreNotCopied) {
  BenchRun more = machine();
  more.lines.push_back(flop_line("train mini", "bf16", 1e12, 0.01));
  EXPECT_EQ(calibrated_cluster({more}, 1e9, 0).efficiency.products,
            calibrated_cluster({machine()}, 1e9, 0).efficiency.products);
}

TEST(Calibrate, NamesWhatIsMissing) {
  EXPECT_NE(refusal({}).find("no benchmarks"), std::string::npos);
  BenchRun other = machine();
  other.threads = 8;
  EXPECT_NE(refusal({machine(), other}).find("different machines"), std::string::npos);
  BenchRun few = machine();
  few.lines.erase(few.lines.begin(), few.lines.begin() + 2);
  EXPECT_NE(refusal({few}).find("\"linear\" in bf16"), std::string::npos);
  few = machine();
  few.lines.pop_back();
  EXPECT_NE(refusal({few}).find("\"pack\""), std::string::npos);
}

TEST(Calibrate, ReadsTheOutputOfBench) {
  const BenchRun run = parse_bench(
      R"({"machine": {"processor": "p", "isa": "avx2", "threads": 2}, "results": [
          {"name": "attention mini", "shape": "8 x 512", "form": "fp32", "seconds": 1, "bytes": 0,
           "flop": 2, "limit": 3, "share": 0.5},
          {"name": "  backward", "shape": "8 x 512", "form": "fp32", "seconds": 1, "bytes": 0,
           "flop": 2, "limit": 3, "share": 0.5}]})",
      "file");
  EXPECT_EQ(run.threads, 2);
  ASSERT_EQ(run.lines.size(), 2u);
  EXPECT_EQ(run.lines[1].name, "attention mini  backward");
  for (const char* bad :
       {"", "[]", "{}", "null", R"({"machine": 3})",
        R"({"machine": {"processor": "p", "isa": "a", "threads": 0}, "results": []})",
        R"({"machine": {"processor": "p", "isa": "a", "threads": 1}, "results": [{}]})",
        R"({"machine": {"processor": "p", "isa": "a", "threads": 1}, "results": {}})"})
    EXPECT_THROW(parse_bench(bad, "file"), FormatError) << bad;
}

// The one rank trains without exchange, messages or bubble.
TEST(Calibrate, OneRankHasNoPipeline) {
  const Cluster c = calibrated_cluster({machine()}, 32e9, 1);
  const PlanModel m = plan_model_preset("mini");
  Layout wanted;
  wanted.sequence = 512;
  wanted.micro_batch = 8;
  wanted.micro_batches = 1;
  const Layout l = complete_layout(m, c, wanted);
  EXPECT_EQ(l.schedule, "1f1b");
  const StepTime t = step_time(m, c, l, phase_settings(c));
  EXPECT_EQ(t.gradients_s, 0);
  EXPECT_NEAR(t.bubble_s, 0, 1e-12);
  EXPECT_GT(t.optimizer_s, 0);
  // At least the products at the best of the efficiencies.
  const double flop = flops_per_token(m, {.sequence = 512}).train() * l.tokens_per_step();
  EXPECT_GT(t.step_s, flop / (0.8 * c.peak_bf16_flops_per_s));
}

}  // namespace
}  // namespace minke
