#include "infer/engine.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/threads.h"
#include "io/safetensors.h"
#include "model/checkpoint.h"

namespace minke {
namespace {

using Ids = std::vector<std::int32_t>;

std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(MINKE_GOLDEN_DIR) / name;
}

struct GoldenCase {
  std::vector<Ids> prompts, greedy;

  explicit GoldenCase(const std::string& name) {
    const auto file = SafetensorsFile::open(golden(name) / "expected.safetensors");
    std::ifstream in(golden(name) / "expected.json");
    const Index n = nlohmann::json::parse(in).at("greedy_prompt_len").get<Index>();
    prompts = rows(file, "tokens", n);
    greedy = rows(file, "greedy.tokens", file.at("greedy.tokens").shape[1]);
  }
  static std::vector<Ids> rows(const SafetensorsFile& file, const char* name, Index n) {
    const auto view = file.view<std::int64_t, 2>(name);
    std::vector<Ids> all;
    for (Index b = 0; b < view.extent(0); ++b) {
      all.emplace_back();
      for (Index t = 0; t < n; ++t) all.back().push_back(static_cast<std::int32_t>(view(b, t)));
    }
    return all;
  }
};

Model load(const std::string& name, Compute compute) {
  return load_model(golden(name), {.compute = compute});
}

Ids continue_greedily(const Model& model, const Ids& prompt, Index n, Index chunk = 0,
                      AttentionForms forms = {}) {
  Sequence sequence(model);
  return generate(model, sequence, prompt,
                  {.sampler = {.temperature = 0},
                   .max_tokens = n,
                   .prefill_chunk = chunk,
                   .attention = forms})
      .ids;
}

struct Threads {
  explicit Threads(int n) : before(n_threads()) { set_threads(n); }
  ~Threads() { set_threads(before); }
  int before;
};

class GreedyGolden : public testing::TestWithParam<const char*> {};

TEST_P(GreedyGolden, Fp32FollowsTheGoldenTokensInEveryForm) {
  const Model model = load(GetParam(), Compute::Fp32);
  const GoldenCase expected(GetParam());
  for (const char* form : {"expanded", "absorbed", "auto"})
    for (std::size_t b = 0; b < expected.prompts.size(); ++b)
      EXPECT_EQ(continue_greedily(model, expected.prompts[b],
                                  static_cast<Index>(expected.greedy[b].size()), 0,
                                  parse_attention_forms(form)),
                expected.greedy[b])
          << form << ", row " << b;
}

TEST_P(GreedyGolden, ChunksAndThreadsDoNotChangeTokensOrLogits) {
  const GoldenCase golden_case(GetParam());
  const Ids& prompt = golden_case.prompts.front();
  const std::pair<Compute, const char*> arithmetics[] = {{Compute::Fp32, "auto"},
                                                         {Compute::Bf16, "auto"},
                                                         {Compute::Fp8, "auto"},
                                                         {Compute::Bf16, "fp8"}};
  for (const auto& [compute, cache] : arithmetics) {
    SCOPED_TRACE(testing::Message() << "cache " << cache);
    Model model = load(GetParam(), compute);
    model.cache_dtype = parse_cache_dtype(cache);
    struct Run {
      Ids ids;
      std::vector<float> logits;
    };
    const auto run = [&](int threads, Index chunk) {
      const Threads scope(threads);
      Sequence sequence(model);
      Run result;
      result.ids = generate(model, sequence, prompt,
                            {.sampler = {.seed = 3}, .max_tokens = 12, .prefill_chunk = chunk})
                       .ids;
      const std::int32_t last = result.ids.back();
      const Tensor logits = sequence.extend(model, {&last, 1}, AttentionForm::Absorbed, true);
      for (Index v = 0; v < logits.size(); ++v) result.logits.push_back(logits.flat()(v));
      return result;
    };
    const Run whole = run(1, 0);
    for (const int threads : {1, 2})
      for (const Index chunk : {0, 1, 3}) {
        const Run other = run(threads, chunk);
        EXPECT_EQ(other.ids, whole.ids)
            << name_of(compute) << ", " << threads << " threads, chunk " << chunk;
        EXPECT_EQ(other.logits, whole.logits)
            << name_of(compute) << ", " << threads << " threads, chunk " << chunk;
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, GreedyGolden,
                         testing::Values("tiny-bf16", "tiny-yarn", "tiny-grouped", "tiny-fp8",
                                         "tiny-noqlora", "tiny-mtp"),
                         [](const auto& info) {
                           std::string name = info.param;
                           name[4] = '_';
                           return name;
                         });

class Engine : public testing::Test {
 protected:
  static const Model& model() {
    static const Model m = load("tiny-bf16", Compute::Fp32);
    return m;
  }
  Ids prompt_ = GoldenCase("tiny-bf16").prompts.front();
};

TEST_F(Engine, SequencesInOneStepDoNotChangeEachOther) {
  const Ids a = prompt_, b{5, 3, 9};
  const auto row_of = [](const Tensor& t, Index i) {
    std::vector<float> row;
    for (Index v = 0; v < t.extent(1); ++v) row.push_back(t.v2()(i, v));
    return row;
  };
  const auto alone = [&](const Ids& ids) {
    SequenceCache cache(model().config, DType::F32);
    const StepInput input{&cache, ids, AttentionForm::Absorbed};
    return row_of(step(model(), {&input, 1}), 0);
  };
  SequenceCache cache_a(model().config, DType::F32), cache_b(model().config, DType::F32),
      cache_c(model().config, DType::F32);
  const StepInput inputs[] = {{&cache_a, a, AttentionForm::Absorbed},
                              {&cache_c, a, AttentionForm::Expanded, false},
                              {&cache_b, b, AttentionForm::Absorbed}};
  const Tensor both = step(model(), inputs);
  ASSERT_EQ(both.extent(0), 2);
  EXPECT_EQ(row_of(both, 0), alone(a));
  EXPECT_EQ(row_of(both, 1), alone(b));
}

TEST_F(Engine, StopsAtAnyStopId) {
  const Ids free = continue_greedily(model(), prompt_, 8);
  Sequence sequence(model());
  Ids seen;
  const GenerationResult result =
      generate(model(), sequence, prompt_,
               {.sampler = {.temperature = 0}, .max_tokens = 8, .stop_ids = {-1, free[2]}},
               {.on_token = [&](std::int32_t id) {
                 seen.push_back(id);
                 return true;
               }});
  const auto at = std::find(free.begin(), free.end(), free[2]);
  EXPECT_EQ(result.ids, Ids(free.begin(), at + 1));
  EXPECT_EQ(seen, Ids(free.begin(), at));
  EXPECT_EQ(result.finish_reason, FinishReason::Stop);
  EXPECT_EQ(result.prompt_tokens, static_cast<Index>(prompt_.size()));
}

TEST_F(Engine, EndsAtTheEndOfTheContext) {
  const Index context = model().config.max_position_embeddings;
  Ids prompt(static_cast<std::size_t>(context) - 3, 4);
  EXPECT_EQ(continue_greedily(model(), prompt, 10).size(), 3u);
  prompt.resize(static_cast<std::size_t>(context), 4);
  try {
    continue_greedily(model(), prompt, 1);
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_NE(std::string(e.what()).find("max_position_embeddings"), std::string::npos);
  }
}

TEST_F(Engine, RefusesBadPrompts) {
  const auto message = [&](const Ids& prompt) -> std::string {
    try {
      check_prompt(model().config, prompt, "--prompt-ids");
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message({0, 1}), "");
  EXPECT_NE(message({}).find("--prompt-ids"), std::string::npos);
  EXPECT_NE(message({1, -4}).find("token 1 is -4"), std::string::npos);
  EXPECT_NE(message({static_cast<std::int32_t>(model().config.vocab_size)}).find("token 0"),
            std::string::npos);
}

TEST_F(Engine, CancelsBetweenPiecesAndBetweenTokens) {
  Sequence sequence(model());
  int asked = 0, pieces = 0;
  GenerationHooks hooks;
  hooks.cancelled = [&] { return ++asked > 2; };
  hooks.on_prefill = [&](Index done, Index total) {
    ++pieces;
    EXPECT_EQ(done, 2 * pieces);
    EXPECT_EQ(total, static_cast<Index>(prompt_.size()));
  };
  GenerationSettings settings{.sampler = {.temperature = 0}, .max_tokens = 9, .prefill_chunk = 2};
  GenerationResult result = generate(model(), sequence, prompt_, settings, hooks);
  EXPECT_EQ(result.finish_reason, FinishReason::Cancelled);
  EXPECT_TRUE(result.ids.empty());
  EXPECT_EQ(sequence.cached_ids().size(), 4u);

  // What was computed is used when the same prompt comes again.
  int tokens = 0;
  result = generate(model(), sequence, prompt_, settings,
                    {.on_token = [&](std::int32_t) { return ++tokens < 3; }});
  EXPECT_EQ(result.finish_reason, FinishReason::Cancelled);
  EXPECT_EQ(result.reused_tokens, 4);
  EXPECT_EQ(result.ids.size(), 3u);
  const Ids all = continue_greedily(model(), prompt_, 3);
  EXPECT_EQ(result.ids, all);
}

TEST_F(Engine, KeepsTheRowsThatBeginTheNextPrompt) {
  Sequence sequence(model());
  const GenerationSettings settings{.sampler = {.temperature = 0}, .max_tokens = 5};
  const GenerationResult first = generate(model(), sequence, prompt_, settings);
  Ids next = prompt_;
  next.insert(next.end(), first.ids.begin(), first.ids.end());
  EXPECT_EQ(sequence.cached_ids(), Ids(next.begin(), next.end() - 1));
  next.push_back(2);
  const GenerationResult second = generate(model(), sequence, next, settings);
  EXPECT_EQ(second.reused_tokens, static_cast<Index>(next.size()) - 2);

  // Another branch, and the same prompt again: its last token is computed once more.
  Ids branch(prompt_.begin(), prompt_.end() - 1);
  branch.push_back(prompt_.back() == 1 ? 2 : 1);
  EXPECT_EQ(generate(model(), sequence, branch, settings).reused_tokens,
            static_cast<Index>(branch.size()) - 1);
  const GenerationResult again = generate(model(), sequence, branch, settings);
  EXPECT_EQ(again.reused_tokens, static_cast<Index>(branch.size()) - 1);
  EXPECT_EQ(again.ids, continue_greedily(model(), branch, 5));
}

TEST_F(Engine, AttentionFormsAreNamed) {
  EXPECT_EQ(parse_attention_forms("auto").prompt, AttentionForm::Expanded);
  EXPECT_EQ(parse_attention_forms("auto").generated, AttentionForm::Absorbed);
  EXPECT_EQ(parse_attention_forms("absorbed").prompt, AttentionForm::Absorbed);
  EXPECT_EQ(parse_attention_forms("expanded").generated, AttentionForm::Expanded);
  EXPECT_THROW(parse_attention_forms("flash"), ConfigError);
}

}  // namespace
}  // namespace minke
