// Tests only: small random models in the form that generation needs, requests to them, and a sink
// that keeps what it hears.
#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <optional>

#include "infer/request.h"
#include "model/checkpoint.h"
#include "model/small_model.h"

namespace minke {

using Ids = std::vector<std::int32_t>;

// Written as a model directory and read again.
inline Model engine_model(Compute compute, const ModelConfig& c,
                          ModelParameters<Tensor> parameters) {
  const auto dir = std::filesystem::temp_directory_path() /
                   ("minke_small_engine_model_" + std::to_string(getpid()));
  std::filesystem::create_directories(dir);
  save_model(dir, c, parameters, SaveDType::F32);
  Model model = load_model(dir, {.compute = compute});
  std::filesystem::remove_all(dir);
  return model;
}

// Both forms of attention, groups, compressed queries, shared experts, and `mtp` modules.
inline Model small_engine_model(Compute compute, Index mtp = 1,
                                std::optional<ModelConfig> config = std::nullopt) {
  const ModelConfig c = config.value_or(small_config(mtp));
  return engine_model(compute, c, small_parameters(c));
}

// A model whose module is always right. Blocks add nothing, so that the main model's next token
// depends on the last one alone; and the module takes the embedding of its token for the state.
inline Model model_with_perfect_module() {
  const ModelConfig c = small_config(1);
  ModelParameters<Tensor> p = small_parameters(c);
  visit_parameters(c, p, [&](const ParameterSpec& spec, Tensor& t) {
    const auto set = [&](float value) {
      for (Index i = 0; i < t.size(); ++i) t.flat()(i) = value;
    };
    if (spec.role == Role::Norm) set(1);
    if (spec.name.ends_with("o_proj.weight") || spec.name.ends_with("down_proj.weight")) set(0);
    if (spec.role != Role::EhProj) return;
    set(0);
    for (Index i = 0; i < c.hidden_size; ++i) t.v2()(i, i) = 1;
  });
  return engine_model(Compute::Fp32, c, std::move(p));
}

inline Ids random_prompt(Index n, Index vocabulary, std::uint64_t seed) {
  Ids ids;
  Random random(seed, 77);
  for (Index i = 0; i < n; ++i)
    ids.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocabulary))));
  return ids;
}

class RecordingSink : public RequestSink {
 public:
  struct Choice {
    Ids ids;
    std::vector<ScoredToken> tokens;
    std::optional<FinishReason> finished;
  };
  std::vector<Choice> choices{1};
  std::vector<ScoredToken> prompt;
  std::optional<RequestUsage> usage;  // after on_done
  int done = 0;

  void on_prompt(std::vector<ScoredToken> scored) override { prompt = std::move(scored); }
  bool on_token(Index choice, ScoredToken token) override {
    Choice& c = at(choice);
    EXPECT_FALSE(c.finished) << "a token after the end";
    c.ids.push_back(token.id);
    c.tokens.push_back(std::move(token));
    return true;
  }
  void on_finish(Index choice, FinishReason reason) override {
    EXPECT_FALSE(at(choice).finished) << "two ends";
    at(choice).finished = reason;
  }
  void on_done(const RequestUsage& u) override {
    usage = u;
    ++done;
  }
  const Ids& ids() const { return choices.front().ids; }

 private:
  Choice& at(Index choice) {
    if (choice >= static_cast<Index>(choices.size()))
      choices.resize(static_cast<std::size_t>(choice) + 1);
    return choices[static_cast<std::size_t>(choice)];
  }
};

}  // namespace minke
