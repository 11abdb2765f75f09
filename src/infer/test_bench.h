// Tests only: requests to the batch engine's loop, and running it to the end.
#pragma once
#include "infer/batch_loop.h"
#include "infer/small_engine_model.h"

namespace minke {

inline GenerationRequest request_of(Ids prompt, Index max_tokens, SamplerSettings sampler = {}) {
  GenerationRequest r;
  r.prompt = std::move(prompt);
  r.max_tokens = max_tokens;
  r.sampler = sampler;
  return r;
}

// A batch engine without its thread, run until all requests have ended.
class TestBench {
 public:
  TestBench(const Model& model, const BatchSettings& settings, AcceptanceRule rule = accept_equal)
      : model_(model), settings_(resolve_settings(model, settings)), loop(model, settings_, rule) {}

  std::shared_ptr<RecordingSink> add(GenerationRequest request) {
    return add(std::move(request), std::make_shared<RecordingSink>());
  }
  template <class Sink>
  std::shared_ptr<Sink> add(GenerationRequest request, std::shared_ptr<Sink> sink) {
    auto active =
        make_active(model_.config, settings_.context, loop.n_pages(), std::move(request), sink);
    active->id = active->place = ++last_id;
    loop.add(std::move(active));
    return sink;
  }
  void run() {
    for (int i = 0; !loop.idle(); ++i) {
      ASSERT_LT(i, 100000) << "does not end";
      loop.step();
    }
    EXPECT_EQ(loop.statistics().pages_used, 0);
  }
  Ids ids_of(GenerationRequest request) {
    const auto sink = add(std::move(request));
    run();
    return sink->ids();
  }

 private:
  const Model& model_;
  BatchSettings settings_;

 public:
  BatchLoop loop;
  RequestId last_id = 0;
};

}  // namespace minke
