#include "infer/model_ranks.h"

#include <mutex>
#include <set>
#include <thread>

#include "infer/test_generation.h"
#include "model/mtp_acceptance.h"
#include "parallel/thread_ranks.h"

namespace minke {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kBound{60'000};  // long enough for sanitized builds

// work(caller) on rank 0, whose other ranks load what `load` gives.
void on_ranks(const InferenceLayout& layout, FunctionRef<ModelConfig()> config,
              FunctionRef<std::optional<Model>(const ModelPart&)> load,
              FunctionRef<void(ModelCaller&)> work, const ThreadRanks& options = {}) {
  run_ranks(
      layout.pipeline * layout.experts,
      [&](Communicator& ranks) {
        if (ranks.rank() > 0) return hold_model_part(ranks, layout, kBound, config, load);
        ModelCaller caller(ranks, layout, kBound);
        work(caller);
        caller.end();
      },
      options);
}

std::optional<Model> load_part(const Source& s, const ModelPart& part) {
  return load_model(directory_of(s), {.compute = s.compute,
                                      .mtp = part.mtp,
                                      .held_experts = part.experts,
                                      .held_stages = part.stages,
                                      .experts_alone = part.experts_alone});
}

// work(model) on rank 0, whose model sends rows to the layers and experts of others.
void on_layout(const InferenceLayout& layout, const Source& s, FunctionRef<void(const Model&)> work,
               const ThreadRanks& options = {}) {
  on_ranks(
      layout, [&] { return ModelConfig::load(directory_of(s)); },
      [&](const ModelPart& part) { return load_part(s, part); },
      [&](ModelCaller& caller) {
        const auto own = caller.call_to_load(ModelConfig::load(directory_of(s)), true);
        Model model = load_model(
            directory_of(s),
            {.compute = s.compute, .held_experts = own.experts, .held_stages = own.stages});
        caller.attach_to(model);
        work(model);
      },
      options);
}

class ModelRanks : public testing::TestWithParam<Source> {
 protected:
  std::vector<InferenceLayout> layouts() const {
    std::vector<InferenceLayout> layouts{{2, 1}, {2, 2}, {1, 2}};
    if (std::string_view(GetParam().name) == "tiny-grouped") layouts.push_back({3, 1});
    return layouts;
  }
};

TEST_P(ModelRanks, ThreadsGenerateTheTokensOfOneRank) {
  const std::vector<Ids> expected = continuations(whole(GetParam()));
  for (const InferenceLayout& layout : layouts())
    on_layout(layout, GetParam(),
              [&](const Model& model) {
                EXPECT_EQ(continuations(model), expected)
                    << layout.pipeline << "x" << layout.experts;
              },
              {.rendezvous = true});
}

TEST_P(ModelRanks, ThreadsServeABatchOfManyWithAndWithoutDrafts) {
  const Model model = whole(GetParam());
  for (const Drafting drafting : {Drafting::Off, Drafting::Always}) {
    const std::vector<Ids> expected = served(model, drafting);
    for (const InferenceLayout& layout : layouts())
      on_layout(layout, GetParam(),
                [&](const Model& spread) { EXPECT_EQ(served(spread, drafting), expected); });
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ModelRanks, kSources, name_of_source);

const Source kSource{"tiny-mtp", Compute::Fp32};
const auto config = [] { return ModelConfig::load(directory_of(kSource)); };

// Choices of one prompt part from pages that they share, later prompts begin with pages of earlier
// ones, and there are too few pages for all at once.
std::vector<Ids> choices_and_prefixes(const Model& model) {
  const ModelConfig& c = model.config;
  const auto row = static_cast<Index>(latent_row(c, DType::F32).bytes());
  const Index layers = model.layer_ranks ? c.held_stages.front().n_layers() : c.num_hidden_layers;
  TestBench bench(model, {.max_batch = 6,
                          .cache_bytes = 9 * kKeyTile * (layers + 1) * row,
                          .prefill_chunk = 40,
                          .drafting = Drafting::Always});
  const Ids prompt = random_prompt(kKeyTile + 21, c.vocab_size, 1);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (Index i = 0; i < 6; ++i) {
    GenerationRequest request = request_of(prompt, 40, {.temperature = 0.9, .seed = 4});
    request.prompt.resize(static_cast<std::size_t>(kKeyTile + 21 - (i % 3) * 10));
    request.n_choices = 1 + i % 3;
    sinks.push_back(bench.add(std::move(request)));
    if (i == 2) bench.run();
  }
  bench.run();
  EXPECT_GT(bench.loop.statistics().cached_prompt_tokens, 0u);
  std::vector<Ids> ids;
  for (const auto& sink : sinks)
    for (const RecordingSink::Choice& choice : sink->choices) ids.push_back(choice.ids);
  return ids;
}

TEST(ModelRanksThreads, SharePagesAndCopyThem) {
  const std::vector<Ids> expected = choices_and_prefixes(whole(kSource));
  on_layout({2, 1}, kSource,
            [&](const Model& model) { EXPECT_EQ(choices_and_prefixes(model), expected); });
}

TEST(ModelRanksThreads, FindTheAcceptanceOfOneRank) {
  const std::vector<Ids> texts{random_prompt(70, config().vocab_size, 1),
                               random_prompt(33, config().vocab_size, 2)};
  const auto accepted = [&](const Model& model) {
    std::vector<Index> counts;
    for (const Acceptance& one : mtp_acceptance(model, texts, {.every = 4}))
      for (const Index n : {one.positions, one.accepted}) counts.push_back(n);
    return counts;
  };
  const std::vector<Index> expected = accepted(whole(kSource));
  on_layout({2, 2}, kSource, [&](const Model& model) { EXPECT_EQ(accepted(model), expected); });
}

// Rank 0 the ends of the model and the last layer, rank 2 the first one, 1 and 3 experts of those.
TEST(ModelRanksThreads, LoadTheirLayersAlone) {
  const InferenceLayout layout{2, 2};
  const auto names = [](Model& model) {
    std::set<std::string> names;
    visit_parameters(model.config, model.weights, [&](const ParameterSpec& spec, const Weight& w) {
      if (w.forward.n() > 0 || w.dense.defined()) names.insert(spec.name);
    });
    return names;
  };
  std::mutex mutex;
  std::multiset<std::string> loaded;
  const auto note = [&](std::optional<Model> model) {
    const std::lock_guard lock(mutex);
    for (const std::string& name : names(*model)) loaded.insert(name);
    return model;
  };
  on_ranks(
      layout, config, [&](const ModelPart& part) { return note(load_part(kSource, part)); },
      [&](ModelCaller& caller) {
        const auto own = caller.call_to_load(config(), true);
        ASSERT_EQ(own.stages.size(), 1u);
        EXPECT_TRUE(own.stages.front().embedding && own.stages.front().output);
        std::optional<Model> model = note(load_model(
            directory_of(kSource), {.held_experts = own.experts, .held_stages = own.stages}));
        caller.attach_to(*model);
      });
  Model model = whole(kSource);
  for (const std::string& name : names(model)) EXPECT_EQ(loaded.count(name), 1u) << name;
}

TEST(ModelRanksThreads, RefuseLayoutsThatDoNotFit) {
  EXPECT_EQ(parse_inference_layout("", 4).experts, 4);
  EXPECT_EQ(parse_inference_layout("2x3", 6).pipeline, 2);
  const auto refusal = [](const std::string& text) -> std::string {
    try {
      (void)parse_inference_layout(text, 4);
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  };
  for (const char* text : {"2", "x2", "2x", "2x2x1", "0x4", "-1x-4", "2 x 2"})
    EXPECT_NE(refusal(text).find("expected pipeline ranks x expert ranks"), std::string::npos)
        << text;
  EXPECT_EQ(refusal("2x4"), "layout 2x4 is of 8 ranks, but 4 were started; change one of them");
  // More stages than layers: nobody is called, and all end.
  on_ranks(
      {4, 1}, config, [](const ModelPart&) -> std::optional<Model> { return std::nullopt; },
      [](ModelCaller& caller) { EXPECT_THROW(caller.call_to_load(config(), true), ConfigError); });
}

// With its own words, and nothing hangs: rows are not those that it expects.
TEST(ModelRanksThreads, AFailureOfAStageEndsAll) {
  const auto load = [](const ModelPart& part) {
    std::optional<Model> model = load_part(kSource, part);
    ++model->config.hidden_size;
    return model;
  };
  const auto pass = [](ModelCaller& caller) {
    const auto own = caller.call_to_load(config(), true);
    Model model = load_model(directory_of(kSource), {.held_stages = own.stages});
    caller.attach_to(model);
    Sequence sequence(model);
    (void)generate(model, sequence, Ids{1, 2, 3}, {.sampler = {}, .max_tokens = 2});
  };
  EXPECT_THROW(on_ranks({2, 1}, config, load, pass), CommError);
}

// Rank 0 is told to stop while others load, a stage's experts among them.
TEST(ModelRanksThreads, EndWhileLoading) {
  on_ranks(
      {2, 2}, config,
      [](const ModelPart& part) -> std::optional<Model> {
        while (!part.called_off()) std::this_thread::yield();
        return std::nullopt;
      },
      [](ModelCaller& caller) {
        (void)caller.call_to_load(config(), true);
        Model model;
        EXPECT_THROW(caller.attach_to(model, [] { return true; }), Interrupted);
      });
}

}  // namespace
}  // namespace minke
