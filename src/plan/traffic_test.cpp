#include "plan/traffic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <set>

#include "plan/parameter_table.h"

namespace minke {
namespace {

// Mean number of nodes that uniform choices reach: groups first, then experts of them.
double drawn_nodes(const PlanModel& m, Index nodes, int draws) {
  std::mt19937 random(1);
  std::vector<Index> groups(static_cast<std::size_t>(m.n_group));
  std::iota(groups.begin(), groups.end(), 0);
  const Index e = m.n_routed_experts / m.n_group, of_node = m.n_routed_experts / nodes;
  std::size_t reached = 0;
  for (int i = 0; i < draws; ++i) {
    std::shuffle(groups.begin(), groups.end(), random);
    std::vector<Index> experts;
    for (Index g = 0; g < m.topk_group; ++g)
      for (Index k = 0; k < e; ++k) experts.push_back(groups[static_cast<std::size_t>(g)] * e + k);
    std::shuffle(experts.begin(), experts.end(), random);
    std::set<Index> hit;
    for (Index k = 0; k < m.num_experts_per_tok; ++k)
      hit.insert(experts[static_cast<std::size_t>(k)] / of_node);
    reached += hit.size();
  }
  return static_cast<double>(reached) / draws;
}

TEST(Traffic, ExpectedNodesAreThoseOfDraws) {
  const PlanModel v3 = plan_model_preset("deepseek-v3");
  for (Index nodes : {1, 2, 4, 8, 16, 32})
    EXPECT_NEAR(node_spread(v3, nodes).expected, drawn_nodes(v3, nodes, 20000), 0.02) << nodes;
  const PlanModel lite = plan_model_preset("deepseek-v2-lite");  // without groups
  for (Index nodes : {2, 8})
    EXPECT_NEAR(node_spread(lite, nodes).expected, drawn_nodes(lite, nodes, 20000), 0.02) << nodes;
}

TEST(Traffic, NodeLimitHoldsForWholeGroups) {
  const PlanModel v3 = plan_model_preset("deepseek-v3");
  EXPECT_EQ(node_spread(v3, 8).most, 4);
  EXPECT_EQ(node_spread(v3, 4).most, 4);
  EXPECT_EQ(node_spread(v3, 16).most, 8);
  EXPECT_EQ(node_spread(v3, 1).most, 1);
  EXPECT_EQ(node_spread(v3, 1).remote_expected, 0);
}

TEST(Traffic, StepSumsWhatTokensSend) {
  const PlanModel v3 = plan_model_preset("deepseek-v3");
  const Cluster c = cluster_preset("h800x2048");
  Layout l = report_layout();
  l.mtp = false;
  const auto rows = step_traffic(v3, c, l);
  ASSERT_EQ(rows.size(), 8u);
  const double tokens = 15360.0 * 4096 / 2048;
  const double nodes = node_spread(v3, 8).remote_expected;
  EXPECT_DOUBLE_EQ(rows[0].bytes_per_step, tokens * nodes * 58 * 2 * (7168 + 224));
  EXPECT_DOUBLE_EQ(rows[1].bytes_per_step, tokens * nodes * 58 * 2 * (7168 * 2));
  // In a node a row goes from the rank where it arrives to the others that hold chosen experts.
  const double ranks = node_spread(v3, 64).expected * 7 / 8;
  EXPECT_LT(ranks, 7);
  EXPECT_DOUBLE_EQ(rows[3].bytes_per_step, tokens * ranks * 58 * 2 * (7168 + 224));
  EXPECT_EQ(rows[6].what, "pipeline");
  EXPECT_DOUBLE_EQ(rows[6].bytes_per_token, 2 * 15 * 7168 * 2);
  EXPECT_DOUBLE_EQ(rows[6].seconds_per_step, rows[6].bytes_per_step / 50e9);
}

// Two ranks of one node, every chosen expert's output on its own; of 3 of 8 experts 1.93 ranks are
// reached, half of them the token's own.
TEST(Traffic, FullRowsComeBackForEachChoice) {
  PlanModel m = plan_model_preset("deepseek-v2-lite");
  m.n_routed_experts = 8;
  m.num_experts_per_tok = 3;
  Layout l;
  l.pipeline = 1;
  l.expert = l.data = 2;
  l.micro_batches = 4;
  l.schedule = "1f1b";
  l.dispatch = "full";
  l.fp8 = false;
  const auto rows = step_traffic(m, cluster_preset("h100x8"), l);
  ASSERT_EQ(rows.size(), 4u);
  const double layers = 26, D = 2048, tokens = (2 - 2 * 4.0 / 56) / 2, choices = 1.5;
  // Operands of BF16 products go as they are, the gradients of outputs in FP32.
  EXPECT_DOUBLE_EQ(rows[0].bytes_per_token, layers * tokens * (2 + 4) * D);
  EXPECT_DOUBLE_EQ(rows[1].bytes_per_token, layers * 2 * choices * 4 * D);
  EXPECT_DOUBLE_EQ(rows[2].bytes_per_token,
                   layers * (8.0 / 4096 + tokens * (16 + 12) + choices * 4));
}

// The last stage has a copy of the embedding where MTP modules read it, so that its gradient and
// weights go round twice as many ranks; of dualpipev the first rank has both uses.
TEST(Traffic, TheEmbeddingOfModulesIsAnotherReplica) {
  PlanModel m = plan_model_preset("deepseek-v2-lite");
  const double embedding = static_cast<double>(parameter_table(m).embedding);
  Layout l;
  l.pipeline = 2;
  l.expert = l.data = 1;
  l.micro_batches = 8;
  l.gather = "fp32";
  const auto sent = [&](const char* schedule, Index modules) {
    m.num_nextn_predict_layers = modules;
    l.schedule = schedule;
    double bytes = 0;
    for (const TrafficRow& row : step_traffic(m, cluster_preset("h100x8"), l))
      if (row.what == "gradients and weights") bytes += row.bytes_per_step;
    return bytes;
  };
  EXPECT_EQ(sent("1f1b", 0), 0);
  EXPECT_DOUBLE_EQ(sent("1f1b", 1), 8 * embedding / 2);
  EXPECT_EQ(sent("dualpipev", 1), 0);
}

TEST(Traffic, DataRanksSendGradientsAndTheWeightsThatCompute) {
  const PlanModel lite = plan_model_preset("deepseek-v2-lite");
  const ParameterTable t = parameter_table(lite);
  Layout l;
  l.pipeline = l.expert = 1;
  l.data = 8;
  l.micro_batches = 4;
  l.schedule = "1f1b";
  const auto sent = [&](const char* gather, bool fp8) {
    l.gather = gather;
    l.fp8 = fp8;
    const auto rows = step_traffic(lite, cluster_preset("h100x8"), l);
    EXPECT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0].what, "gradients and weights");
    EXPECT_DOUBLE_EQ(rows[0].bytes_per_token, rows[0].bytes_per_step / (4 * 4096));
    return rows[0].bytes_per_step;
  };
  const double share = 7.0 / 8, all = static_cast<double>(t.total),
               experts = static_cast<double>(t.routed_experts_total);
  EXPECT_DOUBLE_EQ(sent("compute", false), 6 * share * all);
  EXPECT_DOUBLE_EQ(sent("compute", true), share * (6 * all - experts));
  EXPECT_DOUBLE_EQ(sent("fp32", false), 8 * share * all);
  EXPECT_DOUBLE_EQ(sent("fp32", true), 8 * share * all);
}

TEST(Traffic, NothingIsSentByOneDevice) {
  Layout l;
  l.pipeline = l.expert = l.data = 1;
  l.micro_batches = 8;
  l.schedule = "1f1b";
  EXPECT_TRUE(
      step_traffic(plan_model_preset("deepseek-v2-lite"), cluster_preset("h100x1"), l).empty());
}

}  // namespace
}  // namespace minke
