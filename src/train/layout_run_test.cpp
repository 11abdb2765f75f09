// Whole runs on meshes of pipeline x expert x data, ranks as threads: files and figures of every
// layout and schedule are those of one rank.
#include <algorithm>
#include <limits>
#include <map>
#include <memory>

#include "parallel/thread_ranks.h"
#include "train/small_run.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
constexpr int kSteps = 3;

struct Layout {
  int pipeline, experts, ranks;
  const char* schedule = "dualpipe";
};
std::string name_of(const Layout& l) {
  return std::to_string(l.pipeline) + "x" + std::to_string(l.experts) + "x" +
         std::to_string(l.ranks / l.pipeline / l.experts) + "-" + l.schedule;
}

class LayoutTraining : public TrainingRun {
 protected:
  // Eight stages are possible: dualpipev on four ranks. The fixed order, FP32, MTP modules that
  // read the embedding, documents that begin within rows, an average of the weights.
  Recipe recipe_for(const std::string& out, const Layout& layout,
                    const std::vector<std::string>& more = {}) {
    std::vector<std::string> changes{"compute=fp32",
                                     "steps=3",
                                     "model.num_hidden_layers=7",
                                     "model.n_routed_experts=8",
                                     "data.batch_size=16",
                                     "data.micro_batch=1",
                                     "data.mask_documents=true",
                                     "record_loads_every=1",
                                     "ema.decay=0.9",
                                     "checkpoint.minutes=0",
                                     "checkpoint.every=1",
                                     "parallel.reduction=fixed",
                                     "parallel.pipeline=" + std::to_string(layout.pipeline),
                                     "parallel.experts=" + std::to_string(layout.experts),
                                     std::string("parallel.schedule=") + layout.schedule};
    changes.insert(changes.end(), more.begin(), more.end());
    return recipe(out, changes);
  }

  static void run_on(const Layout& layout, const Recipe& recipe, const RunOptions& options = {}) {
    run_ranks(layout.ranks,
              [&](Communicator& ranks) {
                RunOptions own = options;
                own.ranks = &ranks;
                run_training(recipe, own, [] { return false; });
              },
              {.rendezvous = true});
  }
  void run_on(const Layout& layout, const std::vector<std::string>& more = {}) {
    run_on(layout, recipe_for(name_of(layout), layout, more));
  }
  static std::string error_on(const Layout& layout, const Recipe& recipe,
                              const RunOptions& options = {}) {
    try {
      run_on(layout, recipe, options);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  void expect_same(const std::string& have, const std::string& want) const {
    EXPECT_EQ(metrics(have), metrics(want));
    const std::string checkpoint = ".run/checkpoints/step-" + std::to_string(kSteps);
    for (const char* prefix : {"model", "optimizer", "ema"}) {
      const auto of_want = tensors(dir_ / (want + checkpoint), prefix);
      EXPECT_FALSE(of_want.empty());
      EXPECT_TRUE(tensors(dir_ / (have + checkpoint), prefix) == of_want) << have << ": " << prefix;
    }
    EXPECT_TRUE(read_file(dir_ / have / "model.safetensors") ==
                read_file(dir_ / want / "model.safetensors"))
        << have;
  }
};

TEST_F(LayoutTraining, EveryLayoutAndScheduleOnThreadsMakesTheBytesOfOneRank) {
  const Layout one{1, 1, 1};
  run(recipe_for("one", one));
  std::vector<Layout> layouts{{1, 4, 4}, {1, 2, 4}, {1, 2, 4, "dualpipev"}, {1, 1, 2, "dualpipev"}};
  for (const char* schedule : {"1f1b", "zb1p", "dualpipe", "dualpipev"})
    for (Layout layout : {Layout{2, 1, 2}, Layout{4, 1, 4}, Layout{2, 2, 4}, Layout{2, 2, 8}}) {
      layout.schedule = schedule;
      layouts.push_back(layout);
    }
  for (const Layout& layout : layouts) {
    run_on(layout);
    expect_same(name_of(layout), "one");
    fs::remove_all(dir_ / (name_of(layout) + ".run"));
  }
}

TEST_F(LayoutTraining, ATraceOfThreadsHasWhatEveryRankDidInTheStep) {
  const Layout layout{2, 2, 4};
  std::vector<std::vector<TimelineEvent>> ranks;
  run_on(layout, recipe_for("traced", layout),
         {.stop_after = 3, .trace = StepTrace{2, [&](const auto& events) {
                                                EXPECT_TRUE(ranks.empty());
                                                ranks = events;
                                              }}});
  ASSERT_EQ(ranks.size(), 4u);
  for (const std::vector<TimelineEvent>& events : ranks) {
    const auto count = [&](Activity activity) {
      return std::count_if(events.begin(), events.end(),
                           [&](const TimelineEvent& e) { return e.activity == activity; });
    };
    EXPECT_EQ(count(Activity::F), 8);  // of its pipeline's micro-batches
    EXPECT_EQ(count(Activity::B) + count(Activity::BI), 8);
    EXPECT_EQ(count(Activity::W), count(Activity::BI));
    for (const TimelineEvent& e : events)
      EXPECT_EQ(e.peer_s > 0, e.message.peer >= 0)
          << "of a wait, and only of those, a peer is known";
  }
  for (const TimelineShares& shares : shares_of(ranks)) EXPECT_GT(shares.computing, 0);
}

TEST_F(LayoutTraining, ACheckpointOnThreadsGoesOnInAnotherLayout) {
  const Layout first{2, 2, 4}, layouts[] = {{1, 1, 1}, {4, 1, 4, "zb1p"}, {1, 2, 4}};
  run(recipe_for("one", {1, 1, 1}));
  for (const Layout& then : layouts) {
    const std::string out = "to" + name_of(then);
    run_on(first, recipe_for(out, first), {.stop_after = 2});
    run_on(then, recipe_for(out, then), {.resume = Resume::Must, .stop_after = {}});
    expect_same(out, "one");
  }
}

// Two stages with two shares of the experts each, all held twice: eight writers. The model is one
// of several files as published ones are, for readers that know nothing of ranks.
TEST_F(LayoutTraining, ACheckpointOnThreadsIsWrittenByTheRanksThatHoldIt) {
  const Layout layout{2, 2, 8, "1f1b"};
  run_on(layout, recipe_for("run", layout), {.stop_after = 1});
  const fs::path directory = dir_ / "run.run" / "checkpoints" / "step-1";
  for (const char* name : {"model", "optimizer", "ema"})
    for (const char* part : {"-00001-of-00008", "-00008-of-00008"})
      EXPECT_TRUE(fs::exists(directory / (std::string(name) + part + ".safetensors")))
          << name << part;
  EXPECT_FALSE(fs::exists(directory / "model.safetensors"));
  ModelConfig config;
  ModelParameters<Tensor> masters = load_masters(directory, config);
  const auto list = list_parameters(config, masters);
  EXPECT_EQ(list.size(), tensors(directory, "model").size());
  EXPECT_EQ(checkpoint_defect(directory), "");
}

TEST_F(LayoutTraining, CountsAndLossesOfFp8OnThreadsAreThoseOfOneRank) {
  const std::vector<std::string> fp8{"compute=fp8", "optimizer.moments=fp32"};
  run(recipe_for("one", {1, 1, 1}, fp8));
  run_on({1, 4, 4}, fp8);
  expect_same(name_of({1, 4, 4}), "one");
}

// Own micro-batches first, stages and shares of experts each for itself: sums rounded otherwise.
TEST_F(LayoutTraining, TheFastOrderOnThreadsDiffersByRoundingAlone) {
  const std::vector<std::string> fast{"parallel.reduction=fast", "steps=1"};
  run(recipe_for("one", {1, 1, 1}, fast));
  const Layout layout{2, 2, 4};
  run_on(layout, fast);
  const Json one = lines_with("one", "grad_norm").at(0),
             four = lines_with(name_of(layout), "grad_norm").at(0);
  const double norm = one["grad_norm"].get<double>();
  EXPECT_NEAR(four["grad_norm"].get<double>(), norm, 2e-6 * norm);
  EXPECT_EQ(four["loss"], one["loss"]);
}

// 2 % of the loss for rows in FP8, 1/32 of it in BF16 (parallel/spread_experts_test.cpp).
TEST_F(LayoutTraining, RoundedDispatchOnThreadsStaysNear) {
  run(recipe_for("one", {1, 1, 1}));
  const Layout layout{2, 2, 4};
  for (const auto& [dispatch, rounding] : {std::pair{"bf16", 1.0 / 32}, std::pair{"fp8", 1.0}}) {
    run_on(layout, recipe_for(dispatch, layout, {std::string("parallel.dispatch=") + dispatch}));
    const auto want = lines_with("one", "loss"), have = lines_with(dispatch, "loss");
    ASSERT_EQ(have.size(), want.size());
    for (std::size_t i = 0; i < want.size(); ++i) {
      const double loss = want[i]["loss"]["main"].get<double>();
      EXPECT_NEAR(have[i]["loss"]["main"].get<double>(), loss, 0.02 * rounding * loss);
      EXPECT_NE(have[i]["loss"]["main"], want[i]["loss"]["main"]);
    }
  }
}

// The gradient is on one stage alone; all judge alike, and name the tensor.
TEST_F(LayoutTraining, AFaultOfOneStageOnThreadsIsNamedByAll) {
  const Layout layout{2, 2, 4};
  const auto fault = [](std::int64_t made, const auto& gradients) {
    Tensor* o_proj = gradient_of(gradients, "model.layers.5.self_attn.o_proj.weight");
    if (made == 1 && o_proj) o_proj->flat()(7) = std::numeric_limits<float>::quiet_NaN();
  };
  run_on(layout, recipe_for("skips", layout, {"guard.not_finite=skip"}),
         {.stop_after = {}, .on_gradients = fault});
  const auto events = lines_with("skips", "event");
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0]["tensor"], "model.layers.5.self_attn.o_proj.weight");
  EXPECT_EQ(lines_with("skips", "grad_norm").size(), 2u);  // of 3 steps
  const std::string error =
      error_on(layout, recipe_for("stops", layout), {.stop_after = {}, .on_gradients = fault});
  EXPECT_NE(error.find("step 2: the gradient model.layers.5.self_attn.o_proj.weight[7]"),
            std::string::npos)
      << error;
  EXPECT_EQ(CheckpointDirectory(dir_ / "stops.run" / "checkpoints").newest_whole(), 1);
}

// Weights are finite and sums are not, on one stage: all ranks name the output of one.
TEST_F(LayoutTraining, TheOutputThatIsNotFiniteOnThreadsIsNamedByAll) {
  const Layout one{1, 1, 1};
  run(recipe_for("base", one, {"steps=1"}));
  save_with_overflow("base", 5, "bad");
  const auto error = [&](const Layout& layout) {
    const Recipe recipe = started_from(
        "bad", {"compute=fp32", "data.batch_size=16", "data.micro_batch=1",
                "parallel.reduction=fixed", "parallel.pipeline=" + std::to_string(layout.pipeline),
                "parallel.experts=" + std::to_string(layout.experts),
                std::string("parallel.schedule=") + layout.schedule});
    const std::string text = error_on(layout, recipe);
    fs::remove_all(dir_ / "from-bad.run");
    return text;
  };
  const std::string expected = error(one);
  EXPECT_NE(expected.find("the loss (main) is not finite: the forward pass is not from "
                          "layers.5.attn_out on (document"),
            std::string::npos)
      << expected;
  for (const Layout& layout :
       {Layout{2, 1, 2, "1f1b"}, Layout{2, 2, 4}, Layout{2, 1, 2, "dualpipev"}})
    EXPECT_EQ(error(layout), expected) << name_of(layout);
}

}  // namespace
}  // namespace minke
