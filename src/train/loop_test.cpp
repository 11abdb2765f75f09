#include "train/loop.h"

#include <cmath>

#include "io/tensor_store.h"
#include "train/metrics.h"
#include "train/small_run.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

TEST_F(TrainingRun, ResumesBitForBitOnAnyNumberOfThreads) {
  for (const char* compute : {"fp32", "bf16", "fp8"}) {
    const std::string set = std::string("compute=") + compute, whole = set + "-whole",
                      parts = set + "-parts";
    set_threads(1);
    run(recipe(whole, {set}));
    set_threads(3);
    run(recipe(parts, {set}), {.stop_after = 3});
    EXPECT_FALSE(fs::exists(dir_ / parts));
    run(recipe(parts, {set}), {.resume = Resume::Must, .stop_after = {}});
    EXPECT_EQ(state(parts, 6), state(whole, 6)) << compute;
    EXPECT_EQ(read_file(dir_ / parts / "model.safetensors"),
              read_file(dir_ / whole / "model.safetensors"));
  }
}

TEST_F(TrainingRun, CanBeStoppedBetweenAnyTwoMicroBatches) {
  run(recipe("whole"));
  for (int polls : {0, 1, 6, 11}) {  // of 6 steps of two micro-batches
    const std::string out = "stopped" + std::to_string(polls);
    int left = polls;
    try {
      run_training(recipe(out), {}, [&] { return left-- == 0; });
      ADD_FAILURE() << "not stopped";
    } catch (const Interrupted& e) {
      EXPECT_NE(std::string(e.what()).find("stopped after step " + std::to_string(polls / 2)),
                std::string::npos)
          << e.what();
    }
    run(recipe(out));
    ASSERT_EQ(state(out, 6), state("whole", 6)) << polls;
  }
}

// What a killed process leaves: a half-written checkpoint beside whole ones, metrics of steps after
// the checkpoint, half a line.
TEST_F(TrainingRun, GoesOnFromTheNewestWholeCheckpoint) {
  run(recipe("whole"));
  run(recipe("killed", {"checkpoint.every=2"}), {.stop_after = 5});
  const fs::path run_dir = dir_ / "killed.run";
  fs::remove(run_dir / "checkpoints" / "step-5" / "optimizer.safetensors");
  fs::create_directories(run_dir / "checkpoints" / "step-6.partial-1-0");
  std::ofstream(run_dir / "checkpoints" / "step-6.partial-1-0" / "model.safetensors") << "half";
  fs::create_directories(run_dir / "checkpoints" / "removing-1");
  std::ofstream(run_dir / "metrics.jsonl", std::ios::app) << "{\"step\": 6, \"lo";
  run(recipe("killed"));
  EXPECT_EQ(state("killed", 6), state("whole", 6));
  EXPECT_FALSE(fs::exists(run_dir / "checkpoints" / "removing-1"));
  EXPECT_FALSE(fs::exists(run_dir / "checkpoints" / "step-6.partial-1-0"));
}

TEST_F(TrainingRun, KeepsTheNewestCheckpoints) {
  run(recipe("kept", {"checkpoint.every=1", "checkpoint.keep=3"}));
  EXPECT_EQ(CheckpointDirectory(dir_ / "kept.run" / "checkpoints").steps(),
            (std::vector<std::int64_t>{4, 5, 6}));
}

// A damaged checkpoint of a later step neither counts as a kept one nor is in the way.
TEST_F(TrainingRun, ADamagedCheckpointDoesNotPushOutAWholeOne) {
  run(recipe("whole"));
  run(recipe("damaged", {"checkpoint.every=2", "checkpoint.keep=1"}), {.stop_after = 2});
  const fs::path checkpoints = dir_ / "damaged.run" / "checkpoints";
  fs::create_directories(checkpoints / "step-4");
  std::ofstream(checkpoints / "step-4" / "model.safetensors") << "half";
  run(recipe("damaged", {"checkpoint.every=1", "checkpoint.keep=1"}), {.stop_after = 3});
  EXPECT_EQ(CheckpointDirectory(checkpoints).steps(), std::vector<std::int64_t>{3});
  EXPECT_TRUE(fs::exists(checkpoints / "step-4.damaged" / "model.safetensors"));
  run(recipe("damaged", {"checkpoint.every=1", "checkpoint.keep=1"}));
  EXPECT_EQ(state("damaged", 6), state("whole", 6));
}

TEST_F(TrainingRun, FormatAStepThatCannotBeIsRefused) {
  const fs::path file = dir_ / "train_state.json";
  const auto record = [&](const std::string& step) {
    write_file_atomic(file,
                      "{\"format\": \"minke-train-state-1\", \"moments\": \"BF16\", "
                      "\"step\": " +
                          step + "}");
    read_checkpoint_record(dir_);
  };
  EXPECT_NO_THROW(record("7"));
  for (const char* step : {"9223372036854775808", "9223372036854775807", "-1", "1.5", "null"})
    EXPECT_THROW(record(step), FormatError) << step;
}

TEST_F(TrainingRun, MicroBatchesAddUpToTheBatch) {
  run(recipe("two", {"compute=fp32", "steps=1"}));
  run(recipe("one", {"compute=fp32", "steps=1", "data.micro_batch=0"}));
  const auto first = [&](const char* out) {
    const std::string lines = metrics(out);
    return Json::parse(lines.substr(0, lines.find('\n')));
  };
  const Json two = first("two"), one = first("one");
  for (const char* key : {"total", "main", "mtp", "balance"})
    EXPECT_NEAR(two["loss"][key].get<double>(), one["loss"][key].get<double>(),
                2e-6 * one["loss"][key].get<double>())
        << key;
  EXPECT_NEAR(two["grad_norm"].get<double>(), one["grad_norm"].get<double>(),
              2e-6 * one["grad_norm"].get<double>());
}

TEST_F(TrainingRun, LearnsAndExportsAModel) {
  run(recipe("model", {"steps=60", "optimizer.lr=0.01"}));
  std::istringstream lines(metrics("model"));
  std::string line, last;
  std::getline(lines, line);
  for (std::string l; std::getline(lines, l);) last = l;
  const double before = Json::parse(line)["loss"]["main"], after = Json::parse(last)["held_out"];
  EXPECT_NEAR(before, std::log(257.0), 0.5);
  EXPECT_LT(after, before - 1.5);
  for (const char* file : {"config.json", "model.safetensors", "tokenizer.json",
                           "tokenizer_config.json", "generation_config.json", "manifest.json"})
    EXPECT_TRUE(fs::exists(dir_ / "model" / file)) << file;
  EXPECT_EQ(SafetensorsFile::open(dir_ / "model" / "model.safetensors").at("lm_head.weight").dtype,
            DType::BF16);
  // A second run has nothing to do; a further one starts from the model.
  run(recipe("model", {"steps=60", "optimizer.lr=0.01"}));
}

TEST_F(TrainingRun, ALossThatIsNotFiniteLeavesTheStateBefore) {
  // BF16 products of weights that one step of this size makes overflow.
  const std::string error =
      error_of(recipe("bad", {"optimizer.lr=1e30", "optimizer.warmup_steps=0"}));
  EXPECT_NE(error.find("is not finite"), std::string::npos) << error;
  EXPECT_NE(error.find("step 2: "), std::string::npos) << error;
  const CheckpointDirectory checkpoints(dir_ / "bad.run" / "checkpoints");
  EXPECT_EQ(checkpoints.newest_whole(), 1);
}

TEST_F(TrainingRun, ACheckpointIsWrittenWhenSomebodyAsks) {
  RunOptions options;
  int asked = 0;
  options.wants_checkpoint = [&] { return ++asked == 3; };
  run(recipe("asked", {"steps=6"}), options);
  const CheckpointDirectory checkpoints(dir_ / "asked.run" / "checkpoints");
  EXPECT_EQ(checkpoints.steps(), (std::vector<std::int64_t>{3, 6}));
}

TEST_F(TrainingRun, TheNewestCompleteCheckpointIsSeenFromOutside) {
  const fs::path checkpoints = dir_ / "seen.run" / "checkpoints";
  EXPECT_EQ(newest_complete_step(checkpoints), -1);
  run(recipe("seen", {"steps=4", "checkpoint.every=2"}));
  EXPECT_EQ(newest_complete_step(checkpoints), 4);
  fs::resize_file(checkpoints / "step-4" / "optimizer.safetensors", 10);
  fs::create_directory(checkpoints / "step-9");  // without a manifest
  EXPECT_EQ(newest_complete_step(checkpoints), 2);
  EXPECT_TRUE(fs::exists(checkpoints / "step-4"));
}

TEST_F(TrainingRun, MaskedDocumentsAreAnotherRunThanWholeRows) {
  run(recipe("whole"));
  run(recipe("masked", {"data.mask_documents=true"}));
  EXPECT_NE(read_file(dir_ / "whole" / "model.safetensors"),
            read_file(dir_ / "masked" / "model.safetensors"));
}

TEST_F(TrainingRun, StartsFromAModelDirectory) {
  run(recipe("base"));
  Json json = Json::parse(read_file(dir_ / "recipe.json"));
  json.erase("model");
  json["init_from"] = (dir_ / "base").string();
  json["out"] = (dir_ / "further").string();
  std::ofstream(dir_ / "further.json") << json;
  run(Recipe::load(dir_ / "further.json", {}));
  EXPECT_EQ(SafetensorsFile::open(dir_ / "further" / "model.safetensors").tensors().size(),
            SafetensorsFile::open(dir_ / "base" / "model.safetensors").tensors().size());
  EXPECT_THROW(Recipe::load(dir_ / "further.json", {"model.hidden_size=32"}), ConfigError);
}

TEST_F(TrainingRun, RefusesToMixRuns) {
  run(recipe("run"), {.stop_after = 2});
  EXPECT_NE(error_of(recipe("run"), {.resume = Resume::Never, .stop_after = {}})
                .find("holds a checkpoint already"),
            std::string::npos);
  EXPECT_NE(error_of(recipe("none"), {.resume = Resume::Must, .stop_after = {}})
                .find("no whole checkpoint"),
            std::string::npos);
  EXPECT_NE(error_of(recipe("run", {"model.hidden_size=32"})).find("model.hidden_size is 32"),
            std::string::npos);
  EXPECT_NE(error_of(recipe("run", {"seed=2"})).find("seed is 2"), std::string::npos);
  EXPECT_EQ(error_of(recipe("run", {"optimizer.lr=0.001"})), "");  // allowed, with a warning
  std::ofstream(dir_ / "text.jsonl", std::ios::app)
      << "{\"text\": \"more\", \"source\": \"odd\"}\n";
  EXPECT_NE(error_of(recipe("run")), "");  // the data position is of other text
  fs::create_directories(dir_ / "mine");
  std::ofstream(dir_ / "mine" / "notes.txt") << "not a model";
  EXPECT_NE(error_of(recipe("mine")).find("mine"), std::string::npos);
  EXPECT_TRUE(fs::exists(dir_ / "mine" / "notes.txt"));
}

TEST_F(TrainingRun, RefusesBadRecipesByName) {
  const auto refused = [&](const std::string& setting, const std::string& part) {
    try {
      run(recipe("bad", {setting}));
      ADD_FAILURE() << setting;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  refused("steps=0", "steps is 0");
  refused("tokens=5", "exactly one");
  refused("optimizer.min_lr=1", "optimizer.min_lr");
  refused("data.micro_batch=5", "data.micro_batch");
  refused("data.sequence_length=5000", "max_position_embeddings");
  refused("model.vocab_size=100", "vocab_size");
  refused("model.qk_rope_head_dim=3", "qk_rope_head_dim");
  refused("model.num_experts_per_tok=7", "num_experts_per_tok");
  refused("compute=int4", "compute");
  refused("model.hiden_size=8", "model.hidden_size");
  refused("data.tokenizer=/nowhere", "/nowhere");
  refused("data.paths=/nowhere", "/nowhere");
  refused("checkpoint.minutes=0", "checkpoint.every");
  refused("steps=9223372036854775807", "steps is 9223372036854775807");
  refused("model.n_routed_experts=4611686018427387904", "n_routed_experts");
  refused("model.topk_group=4611686018427387904", "topk_group");
  refused("model.moe_intermediate_size=4000000", "memory");
}

TEST(MetricsLog, EachStepStandsOnce) {
  const fs::path path = fs::temp_directory_path() / ("minke-metrics-" + std::to_string(getpid()));
  {
    MetricsLog log(path, 0);
    for (int step = 1; step <= 5; ++step) log.append({{"step", step}});
  }
  { MetricsLog(path, 3).append({{"step", 4}, {"again", true}}); }
  EXPECT_EQ(read_file(path),
            "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":4,\"again\":true}\n");
  fs::remove(path);
}

}  // namespace
}  // namespace minke
