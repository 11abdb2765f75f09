#include "infer/batch_loop.h"

#include <cmath>

#include "base/log.h"
#include "base/threads.h"
#include "infer/test_bench.h"

namespace minke {
namespace {

enum class Arithmetic { Fp32, Bf16, Bf16WithFp8Cache };

const Model& model_of(Arithmetic arithmetic) {
  static const Model fp32 = small_engine_model(Compute::Fp32);
  static const Model bf16 = small_engine_model(Compute::Bf16);
  static const Model fp8_cache = [] {
    Model model = small_engine_model(Compute::Bf16);
    model.cache_dtype = DType::F8_E4M3;
    return model;
  }();
  return arithmetic == Arithmetic::Fp32 ? fp32 : arithmetic == Arithmetic::Bf16 ? bf16 : fp8_cache;
}

Index bytes_of(const Model& model, Index n_pages, Index modules = 1) {
  const ModelConfig& c = model.config;
  const PageLayout layout{latent_row(c, cache_dtype(model)), c.num_hidden_layers + modules};
  return n_pages * static_cast<Index>(layout.bytes());
}

struct Silent {
  Silent() { set_log_level(LogLevel::Silent); }
  ~Silent() { set_log_level(LogLevel::Info); }
};

// Requests of mixed lengths, greedy and sampled; what each generates alone with generate().
struct Mixed {
  std::vector<GenerationRequest> requests;
  std::vector<Ids> expected;

  explicit Mixed(const Model& model, Index n) {
    const Ids shared = random_prompt(130, model.config.vocab_size, 99);
    for (Index i = 0; i < n; ++i) {
      const auto seed = static_cast<std::uint64_t>(i);
      Ids prompt = random_prompt(1 + i * 37 % 90, model.config.vocab_size, seed);
      if (i % 3 == 0) prompt.insert(prompt.begin(), shared.begin(), shared.end());
      SamplerSettings sampler{.temperature = i % 2 ? 0.8 : 0, .seed = seed};
      if (i % 5 == 0) sampler.repetition_penalty = 1.2;
      requests.push_back(request_of(std::move(prompt), 3 + i * 7 % 30, sampler));
      const GenerationRequest& r = requests.back();
      Sequence sequence(model);
      expected.push_back(
          generate(model, sequence, r.prompt,
                   {.sampler = r.sampler, .max_tokens = r.max_tokens, .prefill_chunk = 0})
              .ids);
    }
  }
  void check(TestBench& bench) const {
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (const GenerationRequest& r : requests)
      sinks.push_back(bench.add(request_of(r.prompt, r.max_tokens, r.sampler)));
    bench.run();
    for (std::size_t i = 0; i < sinks.size(); ++i) {
      EXPECT_EQ(sinks[i]->ids(), expected[i]) << "request " << i;
      EXPECT_EQ(sinks[i]->choices[0].finished, FinishReason::Length);
      EXPECT_EQ(sinks[i]->done, 1);
    }
  }
};

class BatchLoopOf : public testing::TestWithParam<Arithmetic> {
 protected:
  const Model& model() const { return model_of(GetParam()); }
};

TEST_P(BatchLoopOf, GeneratesWhatEachRequestGeneratesAlone) {
  const Mixed mixed(model(), 32);
  const int before = n_threads();
  for (const int threads : {1, 2})
    for (const Drafting drafting : {Drafting::Off, Drafting::Always, Drafting::Auto})
      for (const Index chunk : {7, 64, 512}) {
        SCOPED_TRACE(testing::Message() << threads << " threads, drafting "
                                        << static_cast<int>(drafting) << ", chunk " << chunk);
        set_threads(threads);
        TestBench bench(model(), {.max_batch = 32, .prefill_chunk = chunk, .drafting = drafting});
        mixed.check(bench);
        if (chunk == 64) mixed.check(bench);  // again, with the prefixes of the first time
        EXPECT_GT(bench.loop.statistics().cached_prompt_tokens, 0u);
      }
  set_threads(before);
}

TEST_P(BatchLoopOf, GeneratesTheSameWhenPreempted) {
  const Mixed mixed(model(), 24);
  for (const Drafting drafting : {Drafting::Off, Drafting::Always})
    for (const bool prefix_cache : {false, true}) {
      TestBench bench(model(), {.max_batch = 16,
                                .cache_bytes = bytes_of(model(), 6, drafting != Drafting::Off),
                                .prefill_chunk = 50,
                                .prefix_cache = prefix_cache,
                                .drafting = drafting});
      mixed.check(bench);
      EXPECT_GT(bench.loop.statistics().preemptions, 0u);
    }
}

std::string name_of(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::Fp32   ? "fp32"
         : arithmetic == Arithmetic::Bf16 ? "bf16"
                                          : "bf16_with_fp8_cache";
}
INSTANTIATE_TEST_SUITE_P(Arithmetics, BatchLoopOf,
                         testing::Values(Arithmetic::Fp32, Arithmetic::Bf16,
                                         Arithmetic::Bf16WithFp8Cache),
                         [](const auto& info) { return name_of(info.param); });

struct BatchLoopTest : testing::Test {
  const Model& model = model_of(Arithmetic::Fp32);
  const Ids prompt = random_prompt(70, model.config.vocab_size, 4);
};

TEST_F(BatchLoopTest, DraftsAreMadeCheckedAndSometimesRight) {
  TestBench bench(model, {.drafting = Drafting::Always});
  for (std::uint64_t seed = 0; seed < 8; ++seed) bench.add(request_of(prompt, 40, {.seed = seed}));
  bench.run();
  const BatchStatistics s = bench.loop.statistics();
  EXPECT_GT(s.drafted, 100u);
  EXPECT_GT(s.accepted, 0u);
  EXPECT_LT(s.accepted, s.drafted);
  EXPECT_EQ(s.generated_tokens, 320u);
}

TEST_F(BatchLoopTest, DraftsOfAPerfectModuleAreAllAccepted) {
  const Model perfect = model_with_perfect_module();
  for (const double temperature : {0., 1.}) {
    TestBench bench(perfect, {.drafting = Drafting::Always});
    const auto sink = bench.add(request_of(prompt, 41, {.temperature = temperature, .seed = 2}));
    bench.run();
    const BatchStatistics s = bench.loop.statistics();
    EXPECT_EQ(sink->ids().size(), 41u);
    EXPECT_EQ(s.accepted, s.drafted);
    EXPECT_EQ(s.steps, 1u + 20u);  // the prompt, then two tokens a step
  }
  TestBench measuring(perfect, {.drafting = Drafting::Auto});
  measuring.ids_of(request_of(prompt, 60));
  EXPECT_GT(measuring.loop.statistics().draft_gain, 0);
}

// The drafts of a module whose rows in the cache were never wrong: computed over the whole text.
TEST_F(BatchLoopTest, TheModulesRowsAreThoseOfTheWholeText) {
  TestBench bench(model, {.prefill_chunk = 30, .drafting = Drafting::Always});
  Ids all = prompt;
  for (const std::int32_t id : bench.ids_of(request_of(prompt, 120, {.seed = 4})))
    all.push_back(id);

  SequenceCache cache(model.config, DType::F32);
  const Index n = static_cast<Index>(all.size()) - 1;
  cache.reserve(n);
  const Segment segment{&cache, n, AttentionForm::Expanded};
  const Tensor h =
      cached_forward(model, std::span(all).first(static_cast<std::size_t>(n)), {&segment, 1});
  const Tensor state =
      cached_mtp_forward(model, 0, std::span(all).subspan(1), h.v2(), {&segment, 1});
  const Tensor logits = output_logits(model, state.v2());
  Sampler sampler({.seed = 4});
  std::uint64_t drafted = 0, accepted = 0;
  // A step has tokens up to `last`, drafts the next one, and gains one more if that was right.
  for (std::size_t last = prompt.size(); last + 2 < all.size();) {
    const auto row = logits.v2().rows(static_cast<Index>(last) - 1, 1);
    const std::int32_t guess = sampler.sample({&row(0, 0), static_cast<std::size_t>(row.extent(1))},
                                              {std::span(all).first(last + 1), {}});
    const bool right = guess == all[last + 1];
    ++drafted;
    accepted += right;
    last += right ? 2 : 1;
  }
  EXPECT_EQ(bench.loop.statistics().drafted, drafted);
  EXPECT_EQ(bench.loop.statistics().accepted, accepted);
  EXPECT_GT(accepted, 0u);
}

TEST_F(BatchLoopTest, AModelWithTwoModulesOrNoneGenerates) {
  for (const Index modules : {0, 2}) {
    const Model other = small_engine_model(Compute::Fp32, modules);
    Sequence sequence(other);
    const Ids expected = generate(other, sequence, prompt, {.sampler = {}, .max_tokens = 20}).ids;
    TestBench bench(other, {.drafting = Drafting::Always});
    EXPECT_EQ(bench.ids_of(request_of(prompt, 20)), expected);
    EXPECT_EQ(bench.loop.statistics().drafted > 0, modules > 0);
  }
}

TEST_F(BatchLoopTest, APrefixIsFoundAgainAndItsUsageTold) {
  TestBench bench(model, {});
  const Ids first = bench.ids_of(request_of(prompt, 5));
  const auto sink = bench.add(request_of(prompt, 5));
  bench.run();
  EXPECT_EQ(sink->ids(), first);
  EXPECT_EQ(sink->usage->cached_tokens, 69);
  EXPECT_EQ(sink->usage->prompt_tokens, 70);
  EXPECT_EQ(sink->usage->generated_tokens, 5);
  EXPECT_EQ(bench.loop.statistics().pages_cached, 2);
  Ids other = prompt;
  other.back() ^= 1;
  const auto begins_alike = bench.add(request_of(other, 5));
  bench.run();
  EXPECT_EQ(begins_alike->usage->cached_tokens, 64);

  TestBench without(model, {.prefix_cache = false});
  without.ids_of(request_of(prompt, 5));
  EXPECT_EQ(without.ids_of(request_of(prompt, 5)), first);
  EXPECT_EQ(without.loop.statistics().cached_prompt_tokens, 0u);
}

// A whole prompt that was computed before needs nothing but its logits, and the log-probabilities
// are the same to the last bit; also beside others, with several choices, while the one that
// computed it still writes on in the page, and with no page left for a copy.
TEST_P(BatchLoopOf, APromptAgainGivesTheSameBits) {
  for (const Index n : {64, 65, 70, 127, 128, 129}) {
    const Ids prompt = random_prompt(n, model().config.vocab_size, 21);
    const auto request = [&] {
      GenerationRequest r = request_of(prompt, 12, {.seed = 4});
      r.top_logprobs = 2;
      r.n_choices = 2;
      return r;
    };
    for (const Index n_pages : {100, 5}) {
      TestBench bench(model(), {.cache_bytes = bytes_of(model(), n_pages),
                                .prefill_chunk = 100,
                                .drafting = Drafting::Always});
      const auto first = bench.add(request());
      while (first->ids().size() < 3) bench.loop.step();
      bench.add(request_of({1, 2, 3}, 20));
      const auto beside = bench.add(request());
      bench.run();
      const auto after = bench.add(request());
      bench.run();
      EXPECT_EQ(first->usage->cached_tokens, 0);
      if (n > kKeyTile && n_pages == 100) {
        EXPECT_EQ(beside->usage->cached_tokens, n - 1);
        EXPECT_EQ(after->usage->cached_tokens, n - 1);
      }
      for (const auto& again : {beside, after})
        for (const std::size_t choice : {0, 1}) {
          const auto& a = first->choices[choice].tokens;
          const auto& b = again->choices[choice].tokens;
          ASSERT_EQ(a.size(), b.size());
          for (std::size_t i = 0; i < a.size(); ++i) {
            EXPECT_EQ(a[i].id, b[i].id) << n << " " << i;
            EXPECT_EQ(*a[i].logprob, *b[i].logprob) << n << " " << i;
          }
        }
    }
  }
}

TEST_F(BatchLoopTest, OneOfTwoEqualPromptsWaitsForTheOthersPages) {
  const Ids prefix = random_prompt(200, model.config.vocab_size, 8);  // three blocks
  Ids other = prefix;
  other.push_back(5);
  const Ids expected = TestBench(model, {}).ids_of(request_of(other, 6));
  for (const Index chunk : {50, 512}) {
    TestBench bench(model, {.prefill_chunk = chunk});
    const auto first = bench.add(request_of(prefix, 6)), second = bench.add(request_of(other, 6));
    const auto third = bench.add(request_of({1, 2, 3}, 2));
    bench.loop.step();
    // The short one does not wait behind, unless the first one's prompt takes the whole step.
    EXPECT_EQ(bench.loop.statistics().waiting, chunk == 512 ? 1 : 2);
    bench.run();
    EXPECT_EQ(first->usage->cached_tokens, 0);
    EXPECT_EQ(second->usage->cached_tokens, 192);
    EXPECT_EQ(second->ids(), expected);
    EXPECT_EQ(third->ids().size(), 2u);
  }
}

TEST_F(BatchLoopTest, APrefixIsNotWaitedForWhereItCannotBeUsed) {
  const Ids prefix = random_prompt(200, model.config.vocab_size, 8);
  for (const bool prefix_cache : {false, true}) {
    TestBench bench(model, {.prefix_cache = prefix_cache});
    for (int i = 0; i < 2; ++i) {
      GenerationRequest r = request_of(prefix, 2);
      r.top_logprobs = 0;
      r.score_prompt = prefix_cache;  // needs the logits of all its tokens
      bench.add(std::move(r));
    }
    bench.loop.step();
    EXPECT_EQ(bench.loop.statistics().waiting, 0);
    bench.run();
  }
}

// Whoever computes it may leave.
TEST_F(BatchLoopTest, AfterACancelTheNextOneComputesThePrefix) {
  const Ids prefix = random_prompt(200, model.config.vocab_size, 8);
  TestBench bench(model, {.prefill_chunk = 70});
  bench.add(request_of(prefix, 6));
  const RequestId first = bench.last_id;
  const auto second = bench.add(request_of(prefix, 6)), third = bench.add(request_of(prefix, 6));
  bench.loop.step();
  bench.loop.cancel(first);
  bench.run();
  EXPECT_EQ(second->usage->cached_tokens, 64);
  EXPECT_EQ(third->usage->cached_tokens, 199);
  EXPECT_EQ(second->ids(), third->ids());
}

TEST_F(BatchLoopTest, ChoicesShareThePromptAndDrawDifferently) {
  for (const Index cache_pages : {100, 4}) {  // with few pages some choices are computed anew
    TestBench bench(model,
                    {.cache_bytes = bytes_of(model, cache_pages), .drafting = Drafting::Always});
    GenerationRequest r = request_of(prompt, 30, {.seed = 5});
    r.n_choices = 4;
    const auto sink = bench.add(std::move(r));
    bench.run();
    ASSERT_EQ(sink->choices.size(), 4u);
    EXPECT_EQ(sink->choices[0].ids, bench.ids_of(request_of(prompt, 30, {.seed = 5})));
    for (std::size_t k = 1; k < 4; ++k) {
      EXPECT_EQ(sink->choices[k].ids.size(), 30u);
      EXPECT_NE(sink->choices[k].ids, sink->choices[k - 1].ids);
    }
    EXPECT_EQ(sink->usage->generated_tokens, 120);

    // The same four one after another: what a choice draws depends on nothing else.
    TestBench one(model, {.max_batch = 1, .drafting = Drafting::Off});
    r = request_of(prompt, 30, {.seed = 5});
    r.n_choices = 4;
    const auto again = one.add(std::move(r));
    one.run();
    for (std::size_t k = 0; k < 4; ++k) EXPECT_EQ(again->choices[k].ids, sink->choices[k].ids);
  }
}

TEST_F(BatchLoopTest, EndsAtStopIdsAtTheContextAndWhenTheSinkSaysSo) {
  TestBench bench(model, {.context = 80, .drafting = Drafting::Always});
  auto sink = bench.add(request_of(prompt, 1000, {.temperature = 0}));
  bench.run();
  const Ids all = sink->ids();
  EXPECT_EQ(all.size(), 10u);
  EXPECT_EQ(sink->choices[0].finished, FinishReason::Length);

  for (std::size_t at = 0; at < all.size(); ++at) {
    const auto first = std::find(all.begin(), all.end(), all[at]);
    GenerationRequest r = request_of(prompt, 1000, {.temperature = 0});
    r.stop_ids = {all[at]};
    sink = bench.add(std::move(r));
    bench.run();
    EXPECT_EQ(sink->ids(), Ids(all.begin(), first));
    EXPECT_EQ(sink->choices[0].finished, FinishReason::Stop);
    EXPECT_EQ(sink->usage->generated_tokens, first - all.begin() + 1);
  }

  struct Stopping : RecordingSink {
    bool on_token(Index choice, ScoredToken token) override {
      return RecordingSink::on_token(choice, std::move(token)) && ids().size() < 3;
    }
  };
  const auto stopping =
      bench.add(request_of(prompt, 1000, {.temperature = 0}), std::make_shared<Stopping>());
  bench.run();
  EXPECT_EQ(stopping->ids().size(), 3u);
  EXPECT_EQ(stopping->choices[0].finished, FinishReason::Stop);
}

// To the last bit, also in BF16 where a router may turn by a rounding: both go through one form of
// attention.
TEST_F(BatchLoopTest, ScoresOfPromptsAndOfGeneratedTokensAgree) {
  const Model bf16 = small_engine_model(Compute::Bf16, 1);
  for (const Model* m : {&model, &bf16}) {
    TestBench bench(*m, {.prefill_chunk = 50, .drafting = Drafting::Always});
    GenerationRequest r = request_of(prompt, 60, {.seed = 8});
    r.top_logprobs = 3;
    const auto generated = bench.add(std::move(r));
    bench.run();
    Ids all = prompt;
    all.insert(all.end(), generated->ids().begin(), generated->ids().end());

    GenerationRequest score = request_of(all, 0);
    score.top_logprobs = 3;
    score.score_prompt = true;
    const auto scored = bench.add(std::move(score));
    bench.run();
    EXPECT_EQ(scored->usage->cached_tokens, 0);  // all logits are needed
    EXPECT_TRUE(scored->ids().empty());
    EXPECT_EQ(scored->choices[0].finished, FinishReason::Length);
    ASSERT_EQ(scored->prompt.size(), all.size());
    EXPECT_FALSE(scored->prompt[0].logprob);
    for (std::size_t i = 1; i < all.size(); ++i) {
      const ScoredToken& token = scored->prompt[i];
      EXPECT_EQ(token.id, all[i]);
      ASSERT_TRUE(token.logprob);
      ASSERT_EQ(token.top.size(), 3u);
      EXPECT_LE(*token.logprob, token.top[0].logprob);
      if (i < prompt.size()) continue;
      const ScoredToken& when_generated = generated->choices[0].tokens[i - prompt.size()];
      EXPECT_EQ(*token.logprob, *when_generated.logprob) << i;
    }
  }
}

TEST_F(BatchLoopTest, BiasAndConstraintDecideAndScoresStayTheModels) {
  struct OnlyEven : TokenConstraint {
    void mask(std::span<float> logits) override {
      for (std::size_t v = 1; v < logits.size(); v += 2) logits[v] = -INFINITY;
    }
    void accept(std::int32_t id) override { EXPECT_EQ(id % 2, 0); }
    std::unique_ptr<TokenConstraint> clone() const override {
      return std::make_unique<OnlyEven>(*this);
    }
  };
  TestBench bench(model, {.drafting = Drafting::Always});
  GenerationRequest r = request_of(prompt, 20, {.seed = 3});
  r.constraint = std::make_unique<OnlyEven>();
  r.top_logprobs = 61;
  auto sink = bench.add(std::move(r));
  bench.run();
  ASSERT_EQ(sink->ids().size(), 20u);
  for (const ScoredToken& token : sink->choices[0].tokens) {
    double sum = 0;
    for (const TokenAlternative& a : token.top) sum += std::exp(static_cast<double>(a.logprob));
    EXPECT_NEAR(sum, 1, 1e-4);  // odd ones included
  }
  r = request_of(prompt, 6);
  r.logit_bias = {{17, 1000.f}};
  EXPECT_EQ(bench.ids_of(std::move(r)), Ids(6, 17));
}

TEST_F(BatchLoopTest, ASinkOrConstraintThatThrowsEndsItsOwnRequestOnly) {
  const Silent silent;
  struct Throwing : RecordingSink {
    bool on_token(Index choice, ScoredToken token) override {
      RecordingSink::on_token(choice, std::move(token));
      if (ids().size() == 3) throw std::runtime_error("gone");
      return true;
    }
  };
  struct Broken : TokenConstraint {
    void mask(std::span<float>) override { throw std::runtime_error("no way on"); }
    void accept(std::int32_t) override {}
    std::unique_ptr<TokenConstraint> clone() const override {
      return std::make_unique<Broken>(*this);
    }
  };
  TestBench bench(model, {});
  const Ids expected = bench.ids_of(request_of(prompt, 12));
  const auto good = bench.add(request_of(prompt, 12));
  GenerationRequest r = request_of(prompt, 12);
  r.n_choices = 2;
  const auto throwing = bench.add(std::move(r), std::make_shared<Throwing>());
  r = request_of(prompt, 12);
  r.constraint = std::make_unique<Broken>();
  r.n_choices = 3;
  const auto broken = bench.add(std::move(r));
  bench.run();
  EXPECT_EQ(good->ids(), expected);
  EXPECT_EQ(throwing->ids().size(), 3u);
  EXPECT_EQ(throwing->done, 1);
  EXPECT_EQ(broken->done, 1);
  ASSERT_EQ(broken->choices.size(), 3u);
  for (const auto& choice : broken->choices) EXPECT_EQ(choice.finished, FinishReason::Error);
}

TEST_F(BatchLoopTest, WhatTheModelCannotComputeEndsAlone) {
  const Silent silent;
  TestBench bench(model, {.drafting = Drafting::Always});
  const Ids expected = bench.ids_of(request_of(prompt, 12));
  const auto early = bench.add(request_of(prompt, 12));
  bench.loop.step();
  bench.loop.step();
  const auto bad = std::make_shared<RecordingSink>();
  auto active = make_active(model.config, 100, 10, request_of(prompt, 12), bad);
  active->request.prompt[66] = 1000;  // past the checks of a request
  active->id = ++bench.last_id;
  bench.loop.add(active);
  const auto late = bench.add(request_of(prompt, 12));
  bench.run();
  EXPECT_EQ(early->ids(), expected);
  EXPECT_EQ(late->ids(), expected);
  EXPECT_TRUE(bad->ids().empty());
  EXPECT_EQ(bad->choices[0].finished, FinishReason::Error);
  EXPECT_EQ(bad->done, 1);
}

TEST_F(BatchLoopTest, RequestsThatCannotBeServedAreRefused) {
  const ModelConfig& c = model.config;
  const auto refusal = [&](auto change, Index context = 100, Index n_pages = 10) -> std::string {
    GenerationRequest r = request_of(prompt, 5);
    change(r);
    try {
      make_active(c, context, n_pages, std::move(r), std::make_shared<RecordingSink>());
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  };
  const auto has = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_EQ(refusal([](auto&) {}), "");
  EXPECT_TRUE(has(refusal([](auto& r) { r.prompt.clear(); }), "no tokens"));
  EXPECT_TRUE(has(refusal([](auto& r) { r.prompt[3] = 61; }), "token 3 is 61"));
  EXPECT_TRUE(has(refusal([](auto&) {}, 70), "the context is 70"));
  EXPECT_EQ(refusal([](auto& r) { r.max_tokens = 0; }, 70), "");
  EXPECT_TRUE(has(refusal([](auto&) {}, 100, 1), "latent cache of 64 tokens"));
  EXPECT_TRUE(has(refusal([](auto& r) { r.sampler.top_p = 2; }), "top_p"));
  EXPECT_TRUE(has(refusal([](auto& r) { r.n_choices = 0; }), "n is 0"));
  EXPECT_TRUE(has(refusal([](auto& r) { r.max_tokens = -1; }), "max_tokens is -1"));
  EXPECT_TRUE(has(refusal([](auto& r) { r.score_prompt = true; }), "logprobs"));
  EXPECT_TRUE(has(refusal([](auto& r) { r.logit_bias = {{-1, 0.f}}; }), "logit_bias"));
  EXPECT_THROW(resolve_settings(model, {.max_batch = 0}), ConfigError);
  EXPECT_THROW(resolve_settings(model, {.cache_bytes = 10}), ConfigError);
  EXPECT_THROW(resolve_settings(model, {.context = 257}), ConfigError);
}

TEST_F(BatchLoopTest, APoolTooSmallForOneSequenceEndsItWithLength) {
  for (const bool prefix_cache : {true, false}) {
    TestBench bench(model, {.cache_bytes = bytes_of(model, 2), .prefix_cache = prefix_cache});
    const auto a = bench.add(request_of(prompt, 200)), b = bench.add(request_of(prompt, 200));
    bench.run();
    for (const auto& sink : {a, b}) {
      EXPECT_EQ(sink->ids().size(), 128u - 70u + 1u);  // all rows, and the token after the last
      EXPECT_EQ(sink->choices[0].finished, FinishReason::Length);
    }
  }
}

TEST_F(BatchLoopTest, ALongPromptDoesNotHoldUpThoseThatDecode) {
  TestBench bench(model, {.prefill_chunk = 16});
  const auto quick = bench.add(request_of({1, 2, 3}, 50));
  bench.loop.step();
  const auto slow = bench.add(request_of(random_prompt(200, 61, 1), 5));
  for (std::size_t i = 0; i < 10; ++i) {
    const std::size_t before = quick->ids().size();
    bench.loop.step();
    EXPECT_GT(quick->ids().size(), before);
    EXPECT_TRUE(slow->ids().empty());
  }
  bench.run();
  EXPECT_EQ(slow->ids().size(), 5u);
}

TEST_F(BatchLoopTest, CancellingAtRandomMomentsLeavesNothingBehind) {
  TestBench bench(model, {.max_batch = 8,
                          .cache_bytes = bytes_of(model, 10),
                          .prefill_chunk = 40,
                          .drafting = Drafting::Always});
  Random random(6);
  TestBench quiet(model, {});
  const Ids expected = quiet.ids_of(request_of(prompt, 25, {.seed = 1}));
  std::vector<std::shared_ptr<RecordingSink>> kept;
  int n_cancelled = 0;
  for (int i = 0; i < 1000; ++i) {
    const bool keep = i % 50 == 0;
    GenerationRequest r =
        keep ? request_of(prompt, 25, {.seed = 1})
             : request_of(random_prompt(static_cast<Index>(1 + random.below(150)), 61, 3), 12);
    if (!keep) r.n_choices = static_cast<Index>(1 + random.below(3));
    const auto sink = bench.add(std::move(r));
    if (keep) kept.push_back(sink);
    for (std::uint64_t n = random.below(2); n > 0; --n) bench.loop.step();
    // Some request that was added lately, running, waiting or gone; never one that is kept.
    const RequestId id = bench.last_id - random.below(std::min<std::uint64_t>(12, bench.last_id));
    if ((id - 1) % 50 != 0) bench.loop.cancel(id), ++n_cancelled;
  }
  bench.run();
  EXPECT_GT(n_cancelled, 900);
  for (const auto& sink : kept) EXPECT_EQ(sink->ids(), expected);
  EXPECT_EQ(bench.loop.statistics().pages_used, 0);
  EXPECT_LE(bench.loop.statistics().pages_cached, 10);
}

}  // namespace
}  // namespace minke
