#include "bench/serving.h"

#include <fmt/format.h>

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "base/random.h"
#include "bench/models.h"
#include "infer/batch_engine.h"

namespace minke::bench {
namespace {

using Ids = std::vector<std::int32_t>;

constexpr Index kShortPrompt = 16;

Ids random_ids(Index n, Index vocabulary, std::uint64_t seed) {
  Random random(seed, 5);
  Ids ids(static_cast<std::size_t>(n));
  for (std::int32_t& id : ids)
    id = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocabulary)));
  return ids;
}

class DoneSink final : public RequestSink {
 public:
  void on_prompt(std::vector<ScoredToken>) override {}
  bool on_token(Index, ScoredToken) override { return true; }
  void on_finish(Index, FinishReason) override {}
  void on_done(const RequestUsage& usage) override {
    std::lock_guard lock(mutex_);
    usage_ = usage;
    done_ = true;
    changed_.notify_one();
  }
  RequestUsage wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_; });
    return usage_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  RequestUsage usage_;
  bool done_ = false;
};

// Prompts go in together; returns when all have their tokens.
void serve(BatchEngine& engine, const std::vector<Ids>& prompts, Index tokens) {
  std::vector<std::shared_ptr<DoneSink>> sinks;
  for (const Ids& prompt : prompts) {
    GenerationRequest request;
    request.prompt = prompt;
    request.max_tokens = tokens;
    sinks.push_back(std::make_shared<DoneSink>());
    engine.submit(std::move(request), sinks.back());
  }
  for (const auto& sink : sinks) sink->wait();
}

// The same work without the engine: one step for the prompts, then one for each token.
void call_steps(const Model& model, const std::vector<Ids>& prompts, Index tokens) {
  const std::size_t n = prompts.size();
  std::vector<SequenceCache> caches;
  std::vector<Ids> generated(n);
  Sampler sampler({});
  for (std::size_t i = 0; i < n; ++i) caches.emplace_back(model);
  for (Index t = 0; t < tokens; ++t) {
    std::vector<StepInput> inputs;
    for (std::size_t i = 0; i < n; ++i)
      if (t == 0)
        inputs.push_back({&caches[i], prompts[i], AttentionForm::Expanded});
      else
        inputs.push_back({&caches[i], std::span(generated[i]).last(1), AttentionForm::Absorbed});
    const Tensor logits = step(model, inputs);
    for (std::size_t i = 0; i < n; ++i) {
      const View2<const float> row = logits.v2().rows(static_cast<Index>(i), 1);
      generated[i].push_back(sampler.sample({&row(0, 0), static_cast<std::size_t>(row.extent(1))},
                                            {prompts[i], generated[i]}));
    }
  }
}

double seconds_of(FunctionRef<void()> work) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<Ids> short_prompts(const Model& model, Index n) {
  std::vector<Ids> prompts;
  for (Index i = 0; i < n; ++i)
    prompts.push_back(
        random_ids(kShortPrompt, model.config.vocab_size, static_cast<std::uint64_t>(i)));
  return prompts;
}

Result streams_result(const BenchModel& opened, const ServingBench& bench, Index streams) {
  const Model& model = opened.model;
  BatchEngine engine(model, {.max_batch = streams, .drafting = Drafting::Off});
  const std::vector<Ids> prompts = short_prompts(model, streams);
  Result r;
  r.name = "serve streams " + opened.name;
  r.shape = fmt::format("{} x {}", streams, bench.tokens);
  r.form = opened.form;
  r.tokens = static_cast<double>(streams * bench.tokens);
  r.flop = prefill_flop(model.config, 1) * r.tokens;
  r.note = "limit: step() called directly";
  return measured(
      r, bench.rounds, [&] { serve(engine, prompts, bench.tokens); },
      [&] { return r.flop / seconds_of([&] { call_steps(model, prompts, bench.tokens); }); });
}

std::vector<Result> prompt_results(const BenchModel& opened, const ServingBench& bench) {
  const Model& model = opened.model;
  const std::vector<Ids> prompt{random_ids(bench.prompt, model.config.vocab_size, 1000)};
  BatchEngine fresh(model, {.max_batch = 1, .prefix_cache = false, .drafting = Drafting::Off});
  BatchEngine cached(model, {.max_batch = 1, .drafting = Drafting::Off});
  Result r;
  r.name = "serve first token " + opened.name;
  r.shape = fmt::format("{}", bench.prompt);
  r.form = opened.form;
  r.flop = prefill_flop(model.config, bench.prompt);
  const Result first = measured(
      r, bench.rounds, [&] { serve(fresh, prompt, 1); },
      [&] { return product_limit(model.compute); });
  r.name = "serve cached prefix " + opened.name;
  Result again = measured(
      r, bench.rounds, [&] { serve(cached, prompt, 1); },
      [&] { return first.flop / first.seconds; });
  again.note = fmt::format("{:.1f} times sooner", first.seconds / again.seconds);
  return {first, again};
}

Result drafts_result(const BenchModel& opened, const ServingBench& bench) {
  const Model& model = opened.model;
  BatchEngine with(model, {.max_batch = 1, .drafting = Drafting::Always});
  BatchEngine without(model, {.max_batch = 1, .drafting = Drafting::Off});
  const std::vector<Ids> prompts = short_prompts(model, 1);
  Result r;
  r.name = "serve drafts " + opened.name;
  r.shape = fmt::format("1 x {}", bench.tokens);
  r.form = opened.form;
  r.tokens = static_cast<double>(bench.tokens);
  r.flop = prefill_flop(model.config, 1) * r.tokens;
  r = measured(
      r, bench.rounds, [&] { serve(with, prompts, bench.tokens); },
      [&] { return r.flop / seconds_of([&] { serve(without, prompts, bench.tokens); }); });
  const BatchStatistics s = with.statistics();
  r.note = fmt::format("limit: without drafts; {:.0f} % of {} drafts accepted",
                       100. * static_cast<double>(s.accepted) /
                           static_cast<double>(std::max<std::uint64_t>(1, s.drafted)),
                       s.drafted);
  return r;
}

}  // namespace

std::vector<Result> serving_results(const ServingBench& bench) {
  const BenchModel opened = open_served({bench.choice, 2 * bench.prompt, bench.modules});
  std::vector<Result> results;
  for (const Index streams : bench.streams)
    results.push_back(streams_result(opened, bench, streams));
  for (const Result& r : prompt_results(opened, bench)) results.push_back(r);
  if (opened.model.config.num_nextn_predict_layers > 0)
    results.push_back(drafts_result(opened, bench));
  return results;
}

}  // namespace minke::bench
