#include "infer/expert_ranks.h"

#include <thread>

#include "infer/test_generation.h"
#include "parallel/thread_ranks.h"

namespace minke {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kBound{60'000};  // long enough for sanitized builds

std::optional<Model> load_held(const Source& s, const ExpertLoad& load) {
  return load_model(
      directory_of(s),
      {.compute = s.compute, .mtp = load.mtp, .held_experts = load.held, .experts_alone = true});
}

// work(model) on rank 0, whose model sends rows to the experts of n ranks.
void on_ranks(int n, const Source& s, FunctionRef<void(const Model&)> work,
              const ThreadRanks& options = {}) {
  run_ranks(
      n,
      [&](Communicator& ranks) {
        if (ranks.rank() > 0)
          return hold_experts(ranks, kBound, [&](const ExpertLoad& l) { return load_held(s, l); });
        ExpertCaller caller(ranks, kBound);
        const ExpertRange held = caller.call_to_load(ModelConfig::load(directory_of(s)), true);
        Model model = load_model(directory_of(s), {.compute = s.compute, .held_experts = held});
        caller.attach_to(model);
        work(model);
        caller.end();
      },
      options);
}

class ExpertRanks : public testing::TestWithParam<Source> {};

TEST_P(ExpertRanks, ThreadsGenerateTheTokensOfOneRank) {
  const std::vector<Ids> expected = continuations(whole(GetParam()));
  for (const int n : {2, 4})
    for (const bool rendezvous : {false, true})
      on_ranks(
          n, GetParam(),
          [&](const Model& model) { EXPECT_EQ(continuations(model), expected) << n << " ranks"; },
          {.rendezvous = rendezvous});
}

// On two nodes of two ranks, rows take two hops.
TEST_P(ExpertRanks, ThreadsOnTwoNodesToo) {
  const std::vector<Ids> expected = continuations(whole(GetParam()));
  on_ranks(4, GetParam(), [&](const Model& model) { EXPECT_EQ(continuations(model), expected); },
           {.ranks_per_host = 2});
}

TEST_P(ExpertRanks, ThreadsServeABatchOfManyWithAndWithoutDrafts) {
  const Model model = whole(GetParam());
  for (const Drafting drafting : {Drafting::Off, Drafting::Always}) {
    const std::vector<Ids> expected = served(model, drafting);
    for (const int n : {2, 4})
      on_ranks(n, GetParam(),
               [&](const Model& spread) { EXPECT_EQ(served(spread, drafting), expected); });
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ExpertRanks, kSources, name_of_source);

const Source kSource{"tiny-mtp", Compute::Fp32};
const ModelConfig& config() {
  static const ModelConfig c = ModelConfig::load(directory_of(kSource));
  return c;
}

// Its experts and nothing else, those of the module included; with all the others it is the model.
TEST(ExpertHolder, LoadsItsExpertsAlone) {
  const ExpertRange held{2, 4};
  Model model = load_model(directory_of(kSource),
                           {.compute = Compute::Fp32, .held_experts = held, .experts_alone = true});
  const ModelConfig& c = model.config;
  visit_parameters(c, model.weights, [&](const ParameterSpec& spec, const Weight& w) {
    const bool loaded = w.forward.n() > 0 || w.dense.defined();
    EXPECT_EQ(loaded, spec.name.find(".mlp.experts.") != std::string::npos) << spec.name;
  });
  const auto total = [](const LoadOptions& options) {
    std::uint64_t bytes = 0;
    LoadOptions counting = options;
    counting.progress = [&](std::uint64_t done, std::uint64_t all) {
      bytes = all;
      EXPECT_LE(done, all);
    };
    (void)load_model(directory_of(kSource), counting);
    return bytes;
  };
  const std::uint64_t first = total({.held_experts = ExpertRange{0, 2}});
  std::uint64_t sum = first;
  for (Index e = 2; e < c.n_routed_experts; e += 2)
    sum += total({.held_experts = ExpertRange{e, e + 2}, .experts_alone = true});
  EXPECT_EQ(sum, total({.held_experts = ExpertRange{0, c.n_routed_experts}}));
}

// work(model) with one other rank, which holds what `load` gives.
void with_holder(milliseconds bound, FunctionRef<std::optional<Model>(const ExpertLoad&)> load,
                 FunctionRef<void(const Model&)> work) {
  run_ranks(2, [&](Communicator& ranks) {
    if (ranks.rank() > 0) return hold_experts(ranks, bound, load);
    ExpertCaller caller(ranks, bound);
    const ExpertRange held = caller.call_to_load(config(), true);
    Model model =
        load_model(directory_of(kSource), {.compute = kSource.compute, .held_experts = held});
    caller.attach_to(model);
    work(model);
    caller.end();
  });
}

TEST(ExpertRanksThreads, AnIdleJobHasNoBound) {
  const milliseconds bound{1000};
  with_holder(
      bound, [](const ExpertLoad& load) { return load_held(kSource, load); },
      [&](const Model& model) {
        std::this_thread::sleep_for(bound + bound / 4);
        Sequence sequence(model);
        EXPECT_EQ(
            generate(model, sequence, Ids{1, 2, 3}, {.sampler = {}, .max_tokens = 2}).ids.size(),
            2u);
      });
}

// Rank 0 has nothing to do, cannot, or is told to stop.
TEST(ExpertRanksThreads, EndBeforeWhileAndAfterLoading) {
  const auto job = [](FunctionRef<void(ExpertCaller&)> work, bool expect_call_off) {
    run_ranks(3, [&](Communicator& ranks) {
      if (ranks.rank() > 0)
        return hold_experts(ranks, kBound, [&](const ExpertLoad& load) -> std::optional<Model> {
          if (!expect_call_off) return Model{};
          while (!load.called_off()) std::this_thread::yield();
          return std::nullopt;
        });
      ExpertCaller caller(ranks, kBound);
      work(caller);
      caller.end();
    });
  };
  ModelConfig nine = config();
  nine.n_routed_experts = 9;
  Model model;
  job([](ExpertCaller&) {}, false);
  job(
      [&](ExpertCaller& caller) {
        EXPECT_EQ(caller.call_to_load(nine, false), (ExpertRange{0, 3}));
      },
      true);
  job(
      [&](ExpertCaller& caller) {
        caller.call_to_load(nine, false);
        EXPECT_THROW(caller.attach_to(model, [] { return true; }), Interrupted);
      },
      true);
  job(
      [&](ExpertCaller& caller) {
        caller.call_to_load(nine, false);
        caller.attach_to(model);
      },
      false);
}

TEST(ExpertRanksThreads, RefuseExpertsThatCannotBeSharedOut) {
  run_ranks(3, [&](Communicator& ranks) {
    if (ranks.rank() > 0)
      return hold_experts(ranks, kBound,
                          [](const ExpertLoad&) -> std::optional<Model> { return std::nullopt; });
    ExpertCaller caller(ranks, kBound);
    const auto refusal = [&](Index n) -> std::string {
      ModelConfig c = config();
      c.n_routed_experts = n;
      try {
        (void)caller.call_to_load(c, false);
      } catch (const ConfigError& e) {
        return e.what();
      }
      return "";
    };
    EXPECT_NE(refusal(8).find("8 routed experts of a layer cannot be shared out"),
              std::string::npos);
    EXPECT_NE(refusal(0).find("no routed experts"), std::string::npos);
    caller.end();
  });
}

// With its own words, and nothing hangs: rows are not those that it expects.
TEST(ExpertRanksThreads, AFailureOfAHolderEndsAll) {
  const auto load = [](const ExpertLoad& load) {
    std::optional<Model> model = load_held(kSource, load);
    ++model->config.hidden_size;
    return model;
  };
  EXPECT_THROW(
      with_holder(kBound, load,
                  [](const Model& model) {
                    Sequence sequence(model);
                    (void)generate(model, sequence, Ids{1, 2, 3}, {.sampler = {}, .max_tokens = 2});
                  }),
      CommError);
}

// Between rows out and rows back it cannot be survived: the other ranks wait for them.
TEST(ExpertRanksThreads, AFailureOfAPassEndsAll) {
  const auto pass_that_fails = [](const Model& model) {
    const Tensor choices(DType::I32, {1, config().num_experts_per_tok});
    const std::unique_ptr<Dispatch> dispatch = model.make_dispatch(1);
    dispatch->plan(choices.view<std::int32_t, 2>(), config().n_routed_experts);
    throw ConfigError("no memory");
  };
  EXPECT_THROW(
      with_holder(
          kBound, [](const ExpertLoad& load) { return load_held(kSource, load); }, pass_that_fails),
      Error);
}

}  // namespace
}  // namespace minke
