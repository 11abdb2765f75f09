// Whole runs on ranks as threads: files and figures of any number of ranks are those of one.
#include <atomic>
#include <limits>
#include <memory>

#include "parallel/thread_ranks.h"
#include "train/small_run.h"

namespace minke {
namespace {

namespace fs = std::filesystem;

// The fixed order, FP32, an average of the weights; every step is a checkpoint.
const std::vector<std::string> kFixed = {"compute=fp32",
                                         "steps=4",
                                         "data.batch_size=8",
                                         "data.micro_batch=2",
                                         "parallel.reduction=fixed",
                                         "ema.decay=0.9",
                                         "checkpoint.minutes=0",
                                         "checkpoint.every=1"};

class ThreadsTraining : public TrainingRun {
 protected:
  static std::vector<std::string> with(std::vector<std::string> changes,
                                       const std::vector<std::string>& more) {
    changes.insert(changes.end(), more.begin(), more.end());
    return changes;
  }

  static void run_on(
      int n, const Recipe& recipe, const RunOptions& options = {},
      FunctionRef<bool(int)> stop = [](int) { return false; }) {
    run_ranks(n, [&](Communicator& ranks) {
      RunOptions own = options;
      own.ranks = &ranks;
      run_training(recipe, own, [&] { return stop(ranks.rank()); });
    });
  }
  static std::string error_on(int n, const Recipe& recipe, const RunOptions& options = {}) {
    try {
      run_on(n, recipe, options);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  // The whole of a run: the last state, the average, the finished model, figures of each step.
  std::string outcome(const std::string& out, int step) const {
    const std::filesystem::path checkpoint =
        dir_ / (out + ".run") / "checkpoints" / ("step-" + std::to_string(step));
    std::string text = state(out, step) + read_file(dir_ / out / "model.safetensors");
    for (const auto& [name, bytes] : tensors(checkpoint, "ema")) text += name + bytes;
    return text;
  }
};

TEST_F(ThreadsTraining, AnyNumberOfRanksMakesTheSameBytes) {
  run(recipe("one", kFixed));
  for (const int n : {1, 2, 4}) {
    const std::string out = "ranks" + std::to_string(n);
    run_on(n, recipe(out, kFixed));
    EXPECT_TRUE(outcome(out, 4) == outcome("one", 4)) << n << " ranks";
    EXPECT_EQ(metrics(out), metrics("one")) << n << " ranks";
  }
}

// Half of the bytes each.
TEST_F(ThreadsTraining, ACheckpointIsWrittenByAllRanks) {
  run_on(2, recipe("two", kFixed), {.stop_after = 1});
  const std::filesystem::path checkpoint = dir_ / "two.run" / "checkpoints" / "step-1";
  for (const char* name : {"model", "optimizer", "ema"}) {
    const auto size = [&](int part) {
      return static_cast<double>(std::filesystem::file_size(
          checkpoint /
          (std::string(name) + "-0000" + std::to_string(part) + "-of-00002.safetensors")));
    };
    EXPECT_NEAR(size(1) / size(2), 1, 0.1) << name;
  }
}

TEST_F(ThreadsTraining, CountsAndLossesOfFp8AreThoseOfOneRank) {
  const auto fp8 = with(kFixed, {"compute=fp8", "steps=2", "record_loads_every=1",
                                 "data.mask_documents=true", "optimizer.moments=fp32"});
  run(recipe("one", fp8));
  run_on(4, recipe("four", fp8));
  EXPECT_EQ(metrics("four"), metrics("one"));
  EXPECT_TRUE(outcome("four", 2) == outcome("one", 2));
}

TEST_F(ThreadsTraining, AnyRankMayBeAskedForACheckpoint) {
  const Recipe asked_for = recipe("asked", {"steps=4", "data.batch_size=6", "data.micro_batch=2"});
  run_ranks(3, [&](Communicator& ranks) {
    RunOptions options;
    options.ranks = &ranks;
    int asked = 0;
    options.wants_checkpoint = [&] { return ++asked == 2 && ranks.rank() == 2; };
    run_training(asked_for, options, [] { return false; });
  });
  EXPECT_EQ(CheckpointDirectory(dir_ / "asked.run" / "checkpoints").steps(),
            (std::vector<std::int64_t>{2, 4}));
}

TEST_F(ThreadsTraining, ACheckpointGoesOnOnAnotherNumberOfRanks) {
  run(recipe("one", kFixed));
  for (const int n : {1, 4}) {
    const std::string out = "from2to" + std::to_string(n);
    run_on(2, recipe(out, kFixed), {.stop_after = 2});
    run_on(n, recipe(out, kFixed), {.resume = Resume::Must, .stop_after = {}});
    EXPECT_TRUE(outcome(out, 4) == outcome("one", 4)) << n << " ranks";
  }
}

// Of each element, 4 bytes of gradient to its owner and 4 of weight from there, for each other
// rank. What comes on top (losses, loads, squares of pieces) does not depend on the elements, but
// for 16 bytes of each piece that gets another owner.
TEST_F(ThreadsTraining, BytesSentAreThoseOfGradientsAndWeights) {
  const auto fast = with(kFixed, {"parallel.reduction=fast", "steps=1"});
  const auto sent = [&](int n, const char* width) {
    const std::string out = "sent" + std::to_string(n) + width;
    run_on(n, recipe(out, with(fast, {std::string("model.intermediate_size=") + width})));
    const std::string lines = read_file(dir_ / (out + ".run") / "metrics.jsonl");
    const std::size_t last = lines.rfind('\n', lines.size() - 2) + 1;
    return Json::parse(lines.substr(last))["sent_bytes_per_token"].get<double>();
  };
  constexpr double kTokens = 8 * 16, kMore = 3 * 24 * 32;  // elements, of one dense layer
  for (const int n : {2, 4}) {
    const double expected = 8 * (n - 1) * kMore / kTokens;
    EXPECT_NEAR(sent(n, "64") - sent(n, "32"), expected, 0.02 * expected) << n << " ranks";
  }
}

// Ranks add their own micro-batches first: other sums, rounded otherwise.
TEST_F(ThreadsTraining, TheFastOrderDiffersByRoundingAlone) {
  const auto fast = with(kFixed, {"parallel.reduction=fast", "steps=1"});
  run(recipe("one", fast));
  run_on(2, recipe("two", fast));
  const Json one = lines_with("one", "grad_norm").at(0), two = lines_with("two", "grad_norm").at(0);
  const double norm = one["grad_norm"].get<double>();
  EXPECT_NEAR(two["grad_norm"].get<double>(), norm, 2e-6 * norm);
  EXPECT_NE(outcome("two", 1), outcome("one", 1));
  EXPECT_EQ(two["loss"], one["loss"]);  // of the same weights, summed in the same order
}

TEST_F(ThreadsTraining, AStopOfOneRankStopsAllAfterTheSameStep) {
  run(recipe("one", kFixed));
  std::atomic<int> polls{0};
  const auto stop = [&](int rank) { return rank == 1 && ++polls > 2; };
  try {
    run_on(2, recipe("stopped", kFixed), {}, stop);
    ADD_FAILURE() << "not stopped";
  } catch (const Interrupted& e) {
    EXPECT_NE(std::string(e.what()).find("stopped after step 2 of 4"), std::string::npos)
        << e.what();
  }
  run_on(2, recipe("stopped", kFixed));
  EXPECT_TRUE(outcome("stopped", 4) == outcome("one", 4));
}

// The gradient of one rank alone has it; all judge alike, and name the tensor.
TEST_F(ThreadsTraining, AGradientThatIsNotFiniteIsSkippedByAllOrStopsAll) {
  const auto fault = [](bool second) {
    return [second, seen = std::make_shared<std::atomic<int>>(0)](std::int64_t made,
                                                                  const auto& gradients) {
      Tensor* norm = gradient_of(gradients, "model.norm.weight");
      if (made == 1 && norm && (*seen)++ == (second ? 1 : 0))
        norm->flat()(3) = std::numeric_limits<float>::quiet_NaN();
    };
  };
  run_on(2, recipe("skips", with(kFixed, {"guard.not_finite=skip"})),
         {.stop_after = {}, .on_gradients = fault(true)});
  const auto events = lines_with("skips", "event");
  ASSERT_EQ(events.size(), 2u);  // of rank 0 alone: the fault, and that it was skipped
  EXPECT_EQ(events[0]["tensor"], "model.norm.weight");
  EXPECT_EQ(lines_with("skips", "grad_norm").size(), 3u);  // of 4 steps
  const std::string error =
      error_on(2, recipe("stops", kFixed), {.stop_after = {}, .on_gradients = fault(false)});
  EXPECT_NE(error.find("step 2: the gradient model.norm.weight[3] is not finite"),
            std::string::npos)
      << error;
  EXPECT_EQ(CheckpointDirectory(dir_ / "stops.run" / "checkpoints").newest_whole(), 1);
}

TEST_F(ThreadsTraining, RefusesBatchesThatCannotBeSharedOut) {
  const auto refused = [&](int n, const std::vector<std::string>& changes, const char* part) {
    const std::string error = error_on(n, recipe("bad", with(kFixed, changes)));
    EXPECT_NE(error.find(part), std::string::npos) << error;
  };
  refused(2, {"data.micro_batch=0"}, "data.micro_batch is 0, but 2 ranks");
  refused(4, {"data.batch_size=12"}, "data.micro_batch times ranks = 2 x 4");
  refused(4, {"data.batch_size=12"}, ": 8 or 16");
  refused(4, {"data.batch_size=6"}, ": 8");
  refused(1, {"data.micro_batch=3"}, ": 6 or 9");
  refused(2, {"batch_ramp.from=2", "batch_ramp.tokens=64", "batch_ramp.multiple=2"},
          "batch_ramp.from is 2");
}

}  // namespace
}  // namespace minke
