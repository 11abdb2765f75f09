// Tests only: what models generate, alone and for many requests, to be compared between one rank
// and several.
#pragma once
#include <filesystem>

#include "infer/test_bench.h"

namespace minke {

struct Source {
  const char* name;  // golden directory
  Compute compute;
};
inline std::filesystem::path directory_of(const Source& s) {
  return std::filesystem::path(MINKE_GOLDEN_DIR) / s.name;
}
inline Model whole(const Source& s) {
  return load_model(directory_of(s), {.compute = s.compute});
}

// Greedy and seeded continuations of prompts of many sizes, whole and in pieces.
inline std::vector<Ids> continuations(const Model& model) {
  std::vector<Ids> all;
  for (const Index n : {1, 2, 15, 17, 64, 131})
    for (const double temperature : {0., 0.9}) {
      Sequence sequence(model);
      const Ids prompt = random_prompt(n, model.config.vocab_size, static_cast<std::uint64_t>(n));
      all.push_back(generate(model, sequence, prompt,
                             {.sampler = {.temperature = temperature, .seed = 5},
                              .max_tokens = 7,
                              .prefill_chunk = n % 2 ? 48 : 0})
                        .ids);
    }
  return all;
}

// Many requests at once, prompts of all sizes; with drafts where the model has a module.
inline std::vector<Ids> served(const Model& model, Drafting drafting) {
  TestBench bench(model, {.max_batch = 8, .prefill_chunk = 40, .drafting = drafting});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (Index i = 0; i < 12; ++i) {
    const auto seed = static_cast<std::uint64_t>(i);
    sinks.push_back(
        bench.add(request_of(random_prompt(1 + i * 37 % 90, model.config.vocab_size, seed),
                             3 + i * 7 % 20, {.temperature = i % 2 ? 0.8 : 0, .seed = seed})));
  }
  bench.run();
  std::vector<Ids> ids;
  for (const auto& sink : sinks) ids.push_back(sink->ids());
  EXPECT_EQ(bench.loop.statistics().drafted > 0,
            drafting == Drafting::Always && model.config.num_nextn_predict_layers > 0);
  return ids;
}

inline const auto kSources =
    testing::Values(Source{"tiny-grouped", Compute::Fp32}, Source{"tiny-grouped", Compute::Bf16},
                    Source{"tiny-grouped", Compute::Fp8}, Source{"tiny-mtp", Compute::Fp32},
                    Source{"tiny-mtp", Compute::Bf16}, Source{"tiny-mtp", Compute::Fp8});
inline std::string name_of_source(const testing::TestParamInfo<Source>& info) {
  std::string name = info.param.name;
  name[4] = '_';
  return name + "_" + std::string(name_of(info.param.compute));
}

}  // namespace minke
