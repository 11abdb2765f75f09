// How a training run lies on a cluster: pipeline x data ranks, experts spread over groups of data
// ranks, ZeRO-1 over the replicas, no tensor parallelism (arXiv 2412.19437, section 3.2).
//
//   devices = pipeline x data      replicas of an expert = data / expert
//   batch   = data x micro_batches x micro_batch sequences
//
// Assumed where the report gives nothing: the layers of each stage (evenly, the first stages one
// more), which is a setting.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/options.h"
#include "parallel/expert_group.h"
#include "parallel/schedule.h"
#include "plan/cluster.h"
#include "plan/plan_model.h"

namespace minke {

// What a backward pass computes again instead of finding it in memory.
enum class Recompute : std::uint8_t {
  None,
  Selective,  // RMSNorm, MLA up-projections, SwiGLU output (arXiv 2412.19437, section 3.2.3)
  Full,       // everything inside a layer; only its input is kept
};

struct Layout {
  Index pipeline = 0;             // ranks of a pipeline; 0: chosen
  Index expert = 0;               // ranks that hold the experts of a layer together; 0: chosen
  Index data = 0;                 // ranks that hold the same stages; 0: devices / pipeline
  Index micro_batches = 0;        // of a pipeline and step; 0: chosen
  Index micro_batch = 1;          // sequences
  Index sequence = 4096;          // tokens
  std::string schedule = "auto";  // dualpipe; one rank: 1f1b
  std::string recompute = "selective";
  bool fp8 = true;
  bool mtp = true;
  std::string gather = "compute";
  std::string dispatch = "compute";
  std::vector<std::int64_t> layers_per_stage = {};  // empty: evenly

  template <class Visitor>
  void visit(Visitor& field) {
    const Index most = Index{1} << 24;
    field("pipeline", pipeline, "ranks of a pipeline; 0: chosen", between(0, most));
    field("expert", expert, "ranks that share the experts of a layer; 0: chosen", between(0, most));
    field("data", data, "ranks with the same stages; 0: devices / pipeline", between(0, most));
    field("micro-batches", micro_batches, "micro-batches of a pipeline and step; 0: chosen",
          between(0, most));
    field("micro-batch", micro_batch, "sequences of a micro-batch", between(1, most));
    field("sequence", sequence, "tokens of a sequence", between(1, most));
    field("schedule", schedule, "of the pipeline; auto: dualpipe, on one rank 1f1b",
          one_of({"auto", "1f1b", "zb1p", "dualpipe", "dualpipev"}));
    field("recompute", recompute, "in the backward pass", one_of({"none", "selective", "full"}));
    field("fp8", fp8, "products, exchange and kept activations in FP8");
    field("mtp", mtp, "with the model's MTP modules");
    field("gather", gather,
          "weights that ZeRO-1 sends back: compute, as products read them (BF16; experts FP8 with "
          "fp8), or fp32, as minke train",
          one_of({"compute", "fp32"}));
    field("dispatch", dispatch,
          "rows to experts and back: bf16, fp8 (back BF16), compute (fp8 with fp8, else bf16), or "
          "full (FP32), as parallel.dispatch of minke train",
          one_of({"compute", "full", "bf16", "fp8"}));
    field("layers-per-stage", layers_per_stage,
          "layers of each stage, with commas; default: evenly, the first ones one more");
  }

  ScheduleKind kind() const { return parse_schedule_kind(schedule); }  // once it is chosen
  Recompute recomputed() const;
  // Stages that a micro-batch passes: two a rank for dualpipev.
  Index stages() const { return stages_of(kind(), pipeline); }
  Index devices() const { return pipeline * data; }
  Index expert_replicas() const { return data / expert; }
  Index batch_sequences() const { return data * micro_batches * micro_batch; }
  double tokens_per_step() const {
    return static_cast<double>(batch_sequences()) * static_cast<double>(sequence);
  }
  // Bytes of a parameter that ZeRO-1 moves once a step: its gradient in FP32, and its weight back.
  double synchronised_bytes(bool routed_expert) const;
  ExchangeForm exchange_form() const;  // of `dispatch`
  Index micro_batch_tokens() const { return micro_batch * sequence; }
  // The flags that ask for this layout.
  std::string flags() const;
};

// What one stage holds.
struct StageContent {
  Index dense_layers = 0, moe_layers = 0;
  bool embedding = false, head = false;  // head: with the final norm
  Index mtp_modules = 0;                 // the last stage's
  Index layers() const { return dense_layers + moe_layers; }
};
std::vector<StageContent> stage_contents(const PlanModel& model, const Layout& layout);

// The stages on rank r: two for dualpipe (r, P-1-r) and dualpipev (r, 2P-1-r).
std::vector<Index> hosted_stages(const Layout& layout, Index rank);

// The report's layout of DeepSeek-V3 on 2048 devices: 16 x 128, experts over 64, batch 15360.
Layout report_layout();

// What is wrong with a layout in which nothing is left to be chosen: its shape (structure), or that
// it does not fit into memory. "" when it works.
std::string structure_problem(const PlanModel& model, const Cluster& cluster, const Layout& layout);
std::string layout_problem(const PlanModel& model, const Cluster& cluster, const Layout& layout);

// Fills in what is to be chosen, and checks the rest. ConfigError naming what is wrong and the
// nearest layout that works.
Layout complete_layout(const PlanModel& model, const Cluster& cluster, const Layout& wanted);

}  // namespace minke
