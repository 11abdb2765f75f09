// Runs with the settings of the report's pre-training on: ramp, segments, switches, balance, moving
// average, guard, export.
#include <cmath>
#include <limits>
#include <map>

#include "io/tensor_store.h"
#include "model/checkpoint.h"
#include "train/small_run.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// Rows from 2 to 4 over 3 steps, the rate by segments, gamma and lambda switched, an average kept.
const std::vector<std::string> kEverything{
    "optimizer.warmup_steps=2",
    "batch_ramp.from=2",
    "batch_ramp.tokens=100",
    R"(optimizer.lr_segments=[{"until":200,"lr":0.004},{"until":400,"lr":0.001,"shape":"cosine"}])",
    R"(loss.gamma_switches=[{"at":150,"value":0}])",
    R"(loss.mtp_lambda_switches=[{"at":150,"value":0.1}])",
    "loss.gamma=0.01",
    "ema.decay=0.5",
    "export.ema=true",
    "record_loads_every=2",
    "guard.spike=skip",
    "guard.spike_deviations=0.5",
    "guard.window=2"};

std::vector<std::string> with(std::vector<std::string> settings, const std::string& more) {
  settings.push_back(more);
  return settings;
}

TEST_F(TrainingRun, ResumesBitForBitWithEverythingOnAndAnyThreads) {
  for (const char* dtype : {"ema.dtype=fp32", "ema.dtype=bf16"}) {
    const auto settings = with(kEverything, dtype);
    const std::string whole = std::string(dtype) + "-whole", parts = std::string(dtype) + "-parts";
    set_threads(1);
    run(recipe(whole, settings));
    set_threads(2);
    for (int stop : {1, 3, 4}) run(recipe(parts, settings), {.stop_after = stop});
    run(recipe(parts, settings));
    EXPECT_EQ(state(parts, 6), state(whole, 6));
    for (const char* file : {"", ".ema"})
      EXPECT_EQ(read_file((dir_ / (parts + file)) / "model.safetensors"),
                read_file((dir_ / (whole + file)) / "model.safetensors"));
    const auto checkpoint = [&](const std::string& out) {
      return dir_ / (out + ".run") / "checkpoints" / "step-6";
    };
    EXPECT_EQ(read_file(checkpoint(parts) / "ema.safetensors"),
              read_file(checkpoint(whole) / "ema.safetensors"));
    Json a = Json::parse(read_file(checkpoint(parts) / "train_state.json")),
         b = Json::parse(read_file(checkpoint(whole) / "train_state.json"));
    EXPECT_EQ(a["guard"], b["guard"]);
    EXPECT_EQ(a["skipped"], b["skipped"]);
    EXPECT_EQ(a["data"], b["data"]);
  }
}

TEST_F(TrainingRun, WritesDownWhatEachStepHad) {
  auto settings = kEverything;
  settings.push_back("guard.spike=ignore");
  run(recipe("run", settings));
  const std::vector<Json> steps = lines_with("run", "loss");
  ASSERT_EQ(steps.size(), 6u);
  // 2 rows of 16 until 50 tokens, 3 until 100, then 4.
  const std::vector<int> rows{2, 2, 3, 4, 4, 4};
  std::int64_t tokens = 0;
  for (std::size_t i = 0; i < 6; ++i) {
    const double before = static_cast<double>(tokens);
    tokens += 16 * rows[i];
    EXPECT_EQ(steps[i]["batch"], rows[i]);
    EXPECT_EQ(steps[i]["tokens"], tokens);
    EXPECT_EQ(steps[i]["gamma"], before < 150 ? 0.01 : 0);
    EXPECT_EQ(steps[i]["mtp_lambda"], before < 150 ? 0.3 : 0.1);
    EXPECT_EQ(steps[i].contains("loads"), i % 2 == 1);
    EXPECT_EQ(steps[i].contains("held_out_ema"), i % 2 == 1);
  }
  EXPECT_EQ(steps[0]["lr"], 0.002);
  EXPECT_EQ(steps[1]["lr"], 0.004);
  EXPECT_EQ(steps[4]["lr"], 0.004);  // after 176 tokens
  EXPECT_NEAR(steps[5]["lr"].get<double>(),
              0.001 + 0.003 * (1 + std::cos(std::acos(-1) * 40 / 200)) / 2, 1e-15);
  // Layer 1 and the MTP module; two experts a token, of every position that has a target.
  EXPECT_EQ(steps[1]["loads"]["1"].size(), 6u);
  std::int64_t sum = 0;
  for (const Json& load : steps[5]["loads"]["1"]) sum += load.get<std::int64_t>();
  EXPECT_EQ(sum, 2 * 4 * 16);
  EXPECT_TRUE(steps[5]["loads"].contains("2"));
}

TEST_F(TrainingRun, TheAverageIsBetweenTheWeightsOfItsSteps) {
  run(recipe("one", {"steps=1", "ema.decay=0.9", "export.ema=true"}));
  EXPECT_EQ(read_file(dir_ / "one" / "model.safetensors"),
            read_file(dir_ / "one.ema" / "model.safetensors"));
  const Json line = lines_with("one", "held_out_ema").at(0);
  EXPECT_EQ(line["held_out_ema"], line["held_out"]);
  EXPECT_NE(error_of(recipe("one", {"steps=2"})).find("ema.decay is 0"), std::string::npos);
}

// The router's biases of a finished model, all zero or not.
bool biases_moved(const fs::path& model) {
  const SafetensorsFile file = SafetensorsFile::open(model / "model.safetensors");
  const Tensor bias = file.read("model.layers.1.mlp.gate.e_score_correction_bias");
  for (Index i = 0; i < bias.size(); ++i)
    if (bias.flat()(i) != 0) return true;
  return false;
}

TEST_F(TrainingRun, BalancesAsTheRecipeSays) {
  std::map<std::string, Json> first;
  for (const char* balance : {"bias", "sequence", "batch", "none"}) {
    run(recipe(balance, {std::string("loss.balance=") + balance, "steps=1", "loss.alpha=0.5",
                         "loss.gamma=0.125"}));
    EXPECT_EQ(biases_moved(dir_ / balance), std::string(balance) == "bias") << balance;
    first[balance] = lines_with(balance, "loss").at(0);
  }
  const auto loss = [&](const char* balance) {
    return first[balance]["loss"]["balance"].get<double>();
  };
  EXPECT_EQ(loss("none"), 0);
  EXPECT_GT(loss("sequence"), 0.5);  // alpha times at least 1, two layers
  EXPECT_EQ(loss("bias"), loss("sequence"));
  EXPECT_NE(loss("batch"), loss("sequence"));
  EXPECT_EQ(first["batch"]["gamma"], 0);
}

// Sets one element of the gradient of step `step` (from 1).
RunOptions with_fault(std::int64_t step, float value) {
  RunOptions options;
  options.on_gradients = [=](std::int64_t made, const auto& gradients) {
    if (made + 1 == step)
      gradient_of(gradients, "model.layers.1.self_attn.o_proj.weight")->flat()(7) = value;
  };
  return options;
}
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST_F(TrainingRun, SkipsAStepThatIsNotFiniteAndGoesOn) {
  run(recipe("run", {"guard.not_finite=skip"}), with_fault(4, kNan));
  std::vector<std::int64_t> steps;
  for (const Json& line : lines_with("run", "loss")) steps.push_back(line["step"]);
  EXPECT_EQ(steps, (std::vector<std::int64_t>{1, 2, 3, 5, 6}));
  const std::vector<Json> events = lines_with("run", "event");
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0]["event"], "not_finite");
  EXPECT_EQ(events[1]["event"], "skipped");
  for (const Json& event : events) {
    EXPECT_EQ(event["step"], 4);
    EXPECT_EQ(event["tensor"], "model.layers.1.self_attn.o_proj.weight");
    EXPECT_EQ(event["layer"], 1);
    EXPECT_TRUE(event["data"]["source"] == "odd" || event["data"]["source"] == "even");
    for (const char* key : {"epoch", "document", "offset"})
      EXPECT_TRUE(event["data"][key].is_number_integer()) << key;
  }
  // The held-out loss of the skipped step was due.
  EXPECT_EQ(lines_with("run", "held_out").size(), 3u);
  EXPECT_EQ(lines_with("run", "held_out").at(1)["step"], 4);
}

TEST_F(TrainingRun, StopsBeforeAStepThatIsNotFinite) {
  const std::string error = error_of(recipe("run"), with_fault(4, kNan));
  EXPECT_NE(
      error.find("step 4: the gradient model.layers.1.self_attn.o_proj.weight[7] is not finite "
                 "(document "),
      std::string::npos)
      << error;
  EXPECT_EQ(CheckpointDirectory(dir_ / "run.run" / "checkpoints").newest_whole(), 3);
  EXPECT_EQ(lines_with("run", "event").size(), 1u);
  // Without the fault it goes on as if nothing had been; the event's step is made again.
  run(recipe("run"));
  run(recipe("whole"));
  EXPECT_EQ(state("run", 6), state("whole", 6));
}

TEST_F(TrainingRun, SkipsInARowAreBounded) {
  RunOptions options;
  options.on_gradients = [](std::int64_t, const auto& gradients) {
    gradient_of(gradients, "model.norm.weight")->flat()(0) = kNan;
  };
  const std::string error =
      error_of(recipe("run", {"guard.not_finite=skip", "guard.max_skips=3"}), options);
  EXPECT_NE(error.find("step 4: "), std::string::npos) << error;
  EXPECT_NE(error.find("3 steps before it were skipped"), std::string::npos) << error;
}

TEST_F(TrainingRun, AHugeGradientIsWarnedOfSkippedOrStops) {
  const std::vector<std::string> window{"guard.window=3", "guard.spike_deviations=0"};
  for (const char* action : {"warn", "skip"}) {
    run(recipe(action, with(window, std::string("guard.spike=") + action)), with_fault(5, 1e9f));
    const std::vector<Json> events = lines_with(action, "event");
    ASSERT_EQ(events.size(), std::string(action) == "skip" ? 2u : 1u);
    EXPECT_EQ(events[0]["event"], "spike");
    EXPECT_EQ(events[0]["tensor"], "model.layers.1.self_attn.o_proj.weight");
    EXPECT_EQ(lines_with(action, "loss").size(), std::string(action) == "skip" ? 5u : 6u);
  }
  const std::string error =
      error_of(recipe("stop", with(window, "guard.spike=stop")), with_fault(5, 1e9f));
  EXPECT_NE(error.find("step 5: the gradient's norm 1e+09"), std::string::npos) << error;
}

// NaN in a weight: no other batch would be better, so the step is not skipped.
TEST_F(TrainingRun, StopsAtAWeightThatIsNotFinite) {
  run(recipe("base"));
  ModelConfig config;
  ModelParameters<Tensor> masters = load_masters(dir_ / "base", config);
  masters.layers[1].moe.experts[3].down_proj.flat()(11) = kNan;
  fs::create_directories(dir_ / "bad");
  save_model(dir_ / "bad", config, masters, SaveDType::F32);
  const std::string error = error_of(started_from("bad", {"guard.not_finite=skip"}));
  EXPECT_NE(error.find("step 1: the weight model.layers.1.mlp.experts.3.down_proj.weight[11]"),
            std::string::npos)
      << error;
  EXPECT_EQ(lines_with("from-bad", "event").at(0)["layer"], 1);
}

TEST_F(TrainingRun, NamesTheLayerWhereTheForwardPassLeavesTheFiniteNumbers) {
  run(recipe("base"));
  save_with_overflow("base", 1, "bad");
  const std::string error = error_of(started_from("bad", {}));
  EXPECT_NE(error.find("step 1: the loss (main) is not finite: the forward pass is not from "
                       "layers.1.attn_out on (document"),
            std::string::npos)
      << error;
  const auto event = lines_with("from-bad", "event").at(0);
  EXPECT_EQ(event["tensor"], "layers.1.attn_out");
  EXPECT_EQ(event["layer"], 1);
  EXPECT_FALSE(event["data"]["source"].get<std::string>().empty());
}

TEST_F(TrainingRun, ExportsFp8AndStartsFromIt) {
  run(recipe("fp8", {"export.dtype=fp8", "steps=2"}));
  run(recipe("bf16", {"steps=2"}));
  const SafetensorsFile file = SafetensorsFile::open(dir_ / "fp8" / "model.safetensors");
  EXPECT_EQ(file.at("model.layers.1.self_attn.o_proj.weight").dtype, DType::F8_E4M3);
  EXPECT_EQ(file.at("model.layers.1.self_attn.o_proj.weight_scale_inv").dtype, DType::F32);
  EXPECT_EQ(file.at("model.layers.1.mlp.gate.weight").dtype, DType::BF16);
  EXPECT_EQ(file.at("lm_head.weight").dtype, DType::BF16);
  EXPECT_TRUE(ModelConfig::load(dir_ / "fp8").quantization.has_value());
  std::map<std::string, double> loss;
  for (const char* base : {"fp8", "bf16"}) {
    run(started_from(base, {"steps=1", "optimizer.lr=1e-9", "optimizer.min_lr=0"}));
    const std::string out = std::string("from-") + base;
    loss[base] = lines_with(out, "loss").at(0)["loss"]["main"];
    EXPECT_FALSE(ModelConfig::load(dir_ / out).quantization.has_value());
  }
  EXPECT_NEAR(loss["fp8"], loss["bf16"], 0.01 * loss["bf16"]);
  EXPECT_NE(loss["fp8"], loss["bf16"]);
}

TEST_F(TrainingRun, AWholeRunNeedsWhatADescriptionDoesNot) {
  Recipe r = recipe("run");
  r.out.clear();
  EXPECT_NE(error_of(r).find("out is missing"), std::string::npos);
  r = recipe("run");
  r.data.paths.clear();
  EXPECT_NE(error_of(r).find("data.paths is missing"), std::string::npos);
  EXPECT_NE(error_of(recipe("run", {"optimizer.no_decay=*.weigth"})).find("'*.weigth'"),
            std::string::npos);
}

}  // namespace
}  // namespace minke
