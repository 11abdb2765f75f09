#include "infer/batch_engine.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/random.h"
#include "infer/engine.h"
#include "infer/small_engine_model.h"

namespace minke {
namespace {

const Model& model() {
  static const Model m = small_engine_model(Compute::Fp32);
  return m;
}

// What a client's thread waits for.
class WaitingSink : public RecordingSink {
 public:
  bool on_token(Index choice, ScoredToken token) override {
    std::lock_guard lock(mutex_);
    const bool go_on = RecordingSink::on_token(choice, std::move(token));
    changed_.notify_all();
    return go_on;
  }
  void on_done(const RequestUsage& usage) override {
    std::lock_guard lock(mutex_);
    RecordingSink::on_done(usage);
    changed_.notify_all();
  }
  void wait_for_tokens(std::size_t n) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ids().size() >= n || done > 0; });
  }
  Ids wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done > 0; });
    return ids();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

GenerationRequest request_of(Ids prompt, Index max_tokens, std::uint64_t seed = 0) {
  GenerationRequest r;
  r.prompt = std::move(prompt);
  r.max_tokens = max_tokens;
  r.sampler.seed = seed;
  return r;
}

std::shared_ptr<WaitingSink> submit(BatchEngine& engine, GenerationRequest request) {
  auto sink = std::make_shared<WaitingSink>();
  engine.submit(std::move(request), sink);
  return sink;
}

TEST(BatchEngineThreads, ServesClientsAtTheSameTimeWithTheirOwnTokens) {
  BatchEngine engine(model(), {.max_batch = 4, .prefill_chunk = 32});
  std::atomic<int> wrong = 0;
  std::vector<std::thread> clients;
  for (std::uint64_t c = 0; c < 6; ++c)
    clients.emplace_back([&, c] {
      for (std::uint64_t i = 0; i < 4; ++i) {
        const Ids prompt = random_prompt(static_cast<Index>(5 + 20 * i + c), 61, 10 * c + i);
        const auto sink = submit(engine, request_of(prompt, 12, c));
        if (sink->wait().size() != 12) ++wrong;
        engine.statistics();
      }
    });
  for (std::thread& t : clients) t.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_TRUE(engine.drain(10));
  const BatchStatistics s = engine.statistics();
  EXPECT_EQ(s.generated_tokens, 6u * 4 * 12);
  EXPECT_EQ(s.running + s.waiting + s.pages_used, 0);
}

TEST(BatchEngineThreads, CancelledRequestsDisturbNobody) {
  BatchEngine engine(model(), {.max_batch = 8, .max_waiting = 4000, .drafting = Drafting::Always});
  const Ids prompt = random_prompt(30, 61, 1);
  const auto kept = submit(engine, request_of(prompt, 60, 3));
  std::vector<std::thread> clients;
  for (std::uint64_t c = 0; c < 3; ++c)
    clients.emplace_back([&, c] {
      Random random(c);
      for (int i = 0; i < 300; ++i) {
        auto sink = std::make_shared<WaitingSink>();
        const RequestId id = engine.submit(request_of(random_prompt(1 + i % 70, 61, c), 100), sink);
        if (random.below(8) == 0) sink->wait_for_tokens(1 + random.below(3));
        engine.cancel(id);
        engine.cancel(id + 1000000);
      }
    });
  for (std::thread& t : clients) t.join();
  const Ids ids = kept->wait();
  EXPECT_TRUE(engine.drain(30));
  EXPECT_EQ(engine.statistics().pages_used, 0);
  EXPECT_EQ(engine.statistics().running, 0);

  BatchEngine quiet(model(), {});
  EXPECT_EQ(submit(quiet, request_of(prompt, 60, 3))->wait(), ids);
}

TEST(BatchEngineThreads, AFullQueueIsRefusedAtOnceAndMovesOnLater) {
  BatchEngine engine(model(), {.max_batch = 1, .max_waiting = 2});
  // The first one waits in its sink, and the engine with it, until the queue is full.
  struct Gate : WaitingSink {
    std::mutex mutex;
    std::condition_variable opened;
    bool open = false;
    bool on_token(Index choice, ScoredToken token) override {
      WaitingSink::on_token(choice, std::move(token));
      std::unique_lock lock(mutex);
      opened.wait(lock, [&] { return open; });
      return true;
    }
  };
  auto gate = std::make_shared<Gate>();
  engine.submit(request_of({1, 2}, 3), gate);
  gate->wait_for_tokens(1);
  std::vector<std::shared_ptr<WaitingSink>> accepted;
  try {
    for (int i = 0; i < 10; ++i) accepted.push_back(submit(engine, request_of({3, 4}, 3)));
    FAIL() << "no limit";
  } catch (const QueueFull& e) {
    EXPECT_GE(e.retry_after_s, 1);
    EXPECT_LE(e.retry_after_s, 60);
  }
  EXPECT_LE(accepted.size(), 2u);
  EXPECT_GE(accepted.size(), 1u);  // the statistics may still count the first one as waiting
  {
    std::lock_guard lock(gate->mutex);
    gate->open = true;
  }
  gate->opened.notify_all();
  for (const auto& sink : accepted) EXPECT_EQ(sink->wait().size(), 3u);
  EXPECT_EQ(submit(engine, request_of({3, 4}, 3))->wait().size(), 3u);
}

TEST(BatchEngineThreads, RequestsThatComeTogetherHaveOnePlaceInTheQueue) {
  BatchEngine engine(model(), {.max_batch = 2, .max_waiting = 2});
  const auto together = [&](std::size_t n, Index max_tokens) {
    std::vector<Submission> submissions;
    std::vector<std::shared_ptr<WaitingSink>> sinks;
    for (std::size_t i = 0; i < n; ++i) {
      sinks.push_back(std::make_shared<WaitingSink>());
      submissions.push_back({request_of({static_cast<std::int32_t>(i), 2}, max_tokens), sinks[i]});
    }
    EXPECT_EQ(engine.submit_together(std::move(submissions)).size(), n);
    return sinks;
  };
  for (const auto& sink : together(20, 5)) EXPECT_EQ(sink->wait().size(), 5u);
  EXPECT_THROW(together(2, -1), ConfigError);  // all or none
  for (const auto& sink : together(3, 4)) EXPECT_EQ(sink->wait().size(), 4u);
  EXPECT_TRUE(engine.drain(10));
  EXPECT_EQ(engine.statistics().waiting, 0);
  EXPECT_EQ(engine.statistics().ended, 23u);
}

TEST(BatchEngineThreads, DrainsWhatRunsOrCancelsItInTime) {
  BatchEngine engine(model(), {});
  EXPECT_TRUE(engine.drain(0));
  EXPECT_THROW(submit(engine, request_of({1}, 1)), Draining);

  BatchEngine patient(model(), {});
  const auto whole = submit(patient, request_of({1, 2, 3}, 20));
  EXPECT_TRUE(patient.drain(60));
  EXPECT_EQ(whole->wait().size(), 20u);

  BatchEngine hurried(model(), {.max_batch = 1});
  std::vector<std::shared_ptr<WaitingSink>> many;
  for (int i = 0; i < 50; ++i) many.push_back(submit(hurried, request_of({1, 2, 3}, 250)));
  EXPECT_FALSE(hurried.drain(0));
  for (const auto& sink : many) {
    sink->wait();
    EXPECT_TRUE(sink->choices[0].finished);
  }
  EXPECT_EQ(many.back()->choices[0].finished, FinishReason::Cancelled);
  EXPECT_EQ(hurried.statistics().pages_used, 0);
}

TEST(BatchEngineThreads, DestroyedWhileRequestsRunTheyAreCancelled) {
  std::vector<std::shared_ptr<WaitingSink>> sinks;
  {
    BatchEngine engine(model(), {.max_batch = 2});
    for (int i = 0; i < 8; ++i) sinks.push_back(submit(engine, request_of({5, 6, 7}, 200)));
    sinks[0]->wait_for_tokens(2);
  }
  for (const auto& sink : sinks) EXPECT_EQ(sink->done, 1);
  EXPECT_EQ(sinks.back()->choices[0].finished, FinishReason::Cancelled);
}

TEST(BatchEngineThreads, ASinkMayCancelAndSubmitFromWithin) {
  BatchEngine engine(model(), {});
  struct Next : WaitingSink {
    BatchEngine* engine = nullptr;
    std::atomic<RequestId> id{0};
    std::shared_ptr<WaitingSink> other = std::make_shared<WaitingSink>();
    bool on_token(Index choice, ScoredToken token) override {
      if (ids().empty()) engine->submit(request_of({9}, 4), other);
      engine->cancel(id);
      return WaitingSink::on_token(choice, std::move(token));
    }
  };
  auto sink = std::make_shared<Next>();
  sink->engine = &engine;
  sink->id = engine.submit(request_of({1, 2}, 200), sink);
  EXPECT_LT(sink->wait().size(), 200u);
  EXPECT_EQ(sink->other->wait().size(), 4u);
}

TEST(BatchEngine, TellsItsSettings) {
  BatchEngine engine(model(), {.max_batch = 3, .context = 100});
  EXPECT_EQ(engine.context(), 100);
  EXPECT_GT(engine.settings().cache_bytes, 0);
  EXPECT_EQ(engine.statistics().pages_total, 3 * 2);  // of 64 tokens each
  EXPECT_THROW(BatchEngine(model(), {.context = 1000}), ConfigError);
}

}  // namespace
}  // namespace minke
