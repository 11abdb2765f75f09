#include "parallel/model_stages.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "base/threads.h"
#include "model/small_model.h"
#include "ops/permute.h"
#include "parallel/thread_ranks.h"

namespace minke {
namespace {

constexpr int kChunks = 8;

struct Case {
  ModelConfig config = [] {
    ModelConfig c = small_config(2);
    c.num_hidden_layers = 7;  // 8 stages: dualpipev on 4 ranks
    c.check("test");
    return c;
  }();
  ModelParameters<Tensor> masters = small_parameters(config);
  Model model = make_training_model(config, masters, Compute::Fp32);
  Tensor ids = random_tokens(kChunks, 9, config.vocab_size, 3);
  ModelStagesSettings settings{.loss = {.alpha = 0.01, .share = 1.0 / kChunks},
                               .order = GradientOrder::Fixed};
};

void add(const ModelConfig& c, const StageRange& range, StageGradients& term, StageGradients& sum) {
  const auto from = list_tensors(c, range, term), to = list_tensors(c, range, sum);
  for (std::size_t i = 0; i < from.size(); ++i)
    for (Index j = 0; j < from[i]->size(); ++j) to[i]->flat()(j) += from[i]->flat()(j);
}

struct Outcome {
  std::vector<StageRange> stages;
  std::vector<StageGradients> gradients;  // of each stage, summed in the order of micro-batches
  std::vector<PassResult> results;        // of each micro-batch
};

Outcome run(const Case& s, ScheduleKind kind, int ranks, const ModelStagesSettings& settings,
            bool strands) {
  const Schedule schedule = make_schedule(kind, ranks, kChunks);
  Outcome out;
  out.stages = cut_stages(s.config, schedule.n_stages());
  std::vector<std::unique_ptr<ModelStages>> runners(static_cast<std::size_t>(ranks));
  run_ranks(ranks,
            [&](Communicator& c) {
              auto& runner = runners[static_cast<std::size_t>(c.rank())];
              runner = std::make_unique<ModelStages>(schedule, c.rank(), out.stages, s.model,
                                                     s.ids.view<std::int32_t, 2>(), settings);
              Baton baton;
              run_pipeline(schedule, c, *runner, {nullptr, strands ? &baton : nullptr});
            },
            {.rendezvous = true, .timeout = std::chrono::seconds(60)});
  std::vector<std::vector<PassResult>> parts(kChunks);
  for (int stage = 0; stage < schedule.n_stages(); ++stage) {
    StageGradients sum;
    int chunk = 0;
    for (const StageHolder& holder : holders_of(schedule, stage)) {
      ModelStages& runner = *runners[static_cast<std::size_t>(holder.rank)];
      for (StageGradients& term : runner.gradients(holder.phase)) {
        if (sum.parameters.layers.empty())
          sum = std::move(term);
        else
          add(s.config, out.stages[static_cast<std::size_t>(stage)], term, sum);
      }
      for (PassResult& part : runner.results(holder.phase))
        parts[static_cast<std::size_t>(chunk++)].push_back(std::move(part));
    }
    EXPECT_EQ(chunk, kChunks);
    out.gradients.push_back(std::move(sum));
  }
  for (std::vector<PassResult>& part : parts) out.results.push_back(joined(std::move(part)));
  return out;
}

// Largest difference of any element to the one-stage gradient `want`, over the largest of the
// tensor; exactly 0 is asked for where bits must agree.
double worst_difference(const Case& s, Outcome& have, Outcome& want) {
  double worst = 0;
  const auto compare = [&](const Tensor& a, const Tensor& b) {
    double largest = 0, difference = 0;
    for (Index i = 0; i < b.size(); ++i) {
      largest = std::max(largest, std::abs(double(b.flat()(i))));
      difference = std::max(difference, std::abs(double(a.flat()(i)) - b.flat()(i)));
    }
    if (difference > 0) worst = std::max(worst, difference / largest);
  };
  for (std::size_t i = 0; i < have.stages.size(); ++i) {
    const StageRange& range = have.stages[i];
    // The whole model's tensors of this range, in the same order.
    std::vector<Tensor*> a, b;
    const auto collect = [](std::vector<Tensor*>& list) {
      return [&list](const ParameterSpec&, Tensor& t) { list.push_back(&t); };
    };
    visit_parameters(s.config, range, have.gradients[i].parameters, collect(a));
    visit_parameters(s.config, range, want.gradients[0].parameters, collect(b));
    for (std::size_t t = 0; t < a.size(); ++t)
      if (a[t]->defined()) compare(*a[t], *b[t]);
    if (range.output)
      compare(have.gradients[i].embedding_of_mtp, want.gradients[0].embedding_of_mtp);
  }
  return worst;
}

void expect_same_losses(const Outcome& have, const Outcome& want) {
  ASSERT_EQ(have.results.size(), want.results.size());
  for (std::size_t m = 0; m < want.results.size(); ++m) {
    EXPECT_EQ(have.results[m].total, want.results[m].total);
    EXPECT_EQ(have.results[m].main, want.results[m].main);
    EXPECT_EQ(have.results[m].mtp_k, want.results[m].mtp_k);
    EXPECT_EQ(have.results[m].balance, want.results[m].balance);
    ASSERT_EQ(have.results[m].moe.size(), want.results[m].moe.size());
    for (std::size_t i = 0; i < want.results[m].moe.size(); ++i) {
      EXPECT_EQ(have.results[m].moe[i].layer, want.results[m].moe[i].layer);
      EXPECT_EQ(have.results[m].moe[i].load, want.results[m].moe[i].load);
    }
  }
}

struct Layout {
  ScheduleKind kind;
  int ranks;
};
constexpr Layout kLayouts[] = {
    {ScheduleKind::OneFOneB, 2},  {ScheduleKind::OneFOneB, 4},  {ScheduleKind::Zb1p, 1},
    {ScheduleKind::Zb1p, 2},      {ScheduleKind::Zb1p, 4},      {ScheduleKind::DualPipe, 2},
    {ScheduleKind::DualPipe, 4},  {ScheduleKind::DualPipeV, 1}, {ScheduleKind::DualPipeV, 2},
    {ScheduleKind::DualPipeV, 4},
};

TEST(ModelStagesThreads, EveryScheduleHasTheBitsOfOneStage) {
  const Case s;
  Outcome one = run(s, ScheduleKind::OneFOneB, 1, s.settings, false);
  for (const Layout& layout : kLayouts)
    for (const bool strands : {false, true}) {
      if (strands && (!has_two_phases(layout.kind) || layout.ranks > 2)) continue;
      SCOPED_TRACE(std::string(name_of(layout.kind)) + " on " + std::to_string(layout.ranks) +
                   (strands ? " with strands" : ""));
      Outcome many = run(s, layout.kind, layout.ranks, s.settings, strands);
      expect_same_losses(many, one);
      EXPECT_EQ(worst_difference(s, many, one), 0);
    }
}

// The other order of additions: 8 terms, each rounded to 2^-24 of a sum that the largest element of
// a tensor bounds within a small factor.
TEST(ModelStagesThreads, TheFastOrderDiffersByRoundingAlone) {
  const Case s;
  Outcome one = run(s, ScheduleKind::OneFOneB, 1, s.settings, false);
  ModelStagesSettings fast = s.settings;
  fast.order = GradientOrder::Fast;
  for (const Layout& layout : {Layout{ScheduleKind::Zb1p, 2}, Layout{ScheduleKind::DualPipe, 2}}) {
    Outcome many = run(s, layout.kind, layout.ranks, fast, false);
    expect_same_losses(many, one);
    EXPECT_LT(worst_difference(s, many, one), 8 * 4 * 0x1p-24);
  }
}

// BF16 between stages rounds activations to 8 bits: near, and not the same.
TEST(ModelStagesThreads, Bf16BetweenStagesIsNear) {
  const Case s;
  EXPECT_EQ(boundary_format(Compute::Fp32), BoundaryFormat::Fp32);
  EXPECT_EQ(boundary_format(Compute::Bf16), BoundaryFormat::Bf16);
  ModelStagesSettings narrow = s.settings;
  narrow.boundary = BoundaryFormat::Bf16;
  const Outcome one = run(s, ScheduleKind::OneFOneB, 1, s.settings, false);
  const Outcome many = run(s, ScheduleKind::OneFOneB, 4, narrow, false);
  for (std::size_t m = 0; m < one.results.size(); ++m) {
    EXPECT_NE(many.results[m].main, one.results[m].main);
    EXPECT_NEAR(many.results[m].main, one.results[m].main, 0.05 * one.results[m].main);
  }
}

TEST(ModelStages, RowsThatAreNotMicroBatchesAreRefused) {
  const Case s;
  const Schedule schedule = make_schedule(ScheduleKind::OneFOneB, 1, kChunks - 1);
  EXPECT_THROW(ModelStages(schedule, 0, cut_stages(s.config, 1), s.model,
                           s.ids.view<std::int32_t, 2>(), s.settings),
               ShapeError);
  EXPECT_THROW(
      ModelStages(make_schedule(ScheduleKind::OneFOneB, 1, kChunks), 0, cut_stages(s.config, 2),
                  s.model, s.ids.view<std::int32_t, 2>(), s.settings),
      ShapeError);
}

}  // namespace
}  // namespace minke
