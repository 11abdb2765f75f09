// By the same list as the Saved structs of model/.
#include "train/training_memory.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/machine_memory.h"
#include "model/parameters.h"
#include "model/stage_range.h"

namespace minke {
namespace {

// Bytes that a block keeps of a token for its backward pass.
struct BlockBytes {
  // Of a value that linears read, of what is kept beside them, and of one never rounded.
  double operand, kept, full = 4;
  double head;    // of queries, keys and values
  double output;  // of attention
  Recompute recompute;

  explicit BlockBytes(const Recipe& recipe) : recompute(recipe.training_form().recompute) {
    const bool fp8 = recipe.compute == "fp8";
    kept = fp8 ? 1 + 4.0 / 128 : 4;
    operand = recipe.compute == "bf16" ? 2 : kept;
    head = recipe.compute == "fp32" ? 4 : 2;
    output = fp8 ? 1.5 + 1.0 / 128 : 4;
  }
  double norm_output() const { return recompute.rmsnorm ? 0 : operand; }

  double attention(const ModelConfig& c) const {
    const auto H = static_cast<double>(c.num_attention_heads);
    const auto Q = static_cast<double>(c.q_lora_rank.value_or(0));
    const double heads = H * static_cast<double>(2 * c.qk_head_dim() + c.v_head_dim);  // q, k, v
    double bytes = full * (Q + static_cast<double>(c.cache_row()));  // before the latents' norms
    bytes += norm_output() * static_cast<double>(c.hidden_size) +
             norm_output() * (Q + static_cast<double>(c.kv_lora_rank));
    if (!recompute.mla_up) bytes += head * heads;
    bytes += output * H * static_cast<double>(c.v_head_dim);
    // log-sum-exp of each head, reciprocal deviations, sines and cosines
    return bytes + full * (H + 2 + static_cast<double>(c.qk_rope_head_dim));
  }

  double ffn(double width) const { return (2 * kept + (recompute.swiglu ? 0 : operand)) * width; }

  double moe(const ModelConfig& c) const {
    const auto D = static_cast<double>(c.hidden_size);
    const auto K = static_cast<double>(c.num_experts_per_tok);
    // Scores, weights and choice of the gate; where each choice went (token, slot, row).
    double bytes = 4 * static_cast<double>(c.n_routed_experts) + 4 * 2 * K + 4 * 3 * K;
    bytes += K * (ffn(static_cast<double>(c.moe_intermediate_size)) + kept * D);
    bytes += ffn(static_cast<double>(c.n_shared_experts > 0 ? c.shared_width() : 0));
    // The gate reads its input in full: where linears do not, a second copy of it.
    return bytes + (operand < full && !recompute.rmsnorm ? full * D : 0);
  }

  double block(const ModelConfig& c, Index layer) const {
    const auto D = static_cast<double>(c.hidden_size);
    const double inputs = 2 * full * (D + 1);  // of both norms
    return inputs + attention(c) + norm_output() * D +
           (c.is_moe(layer) ? moe(c) : ffn(static_cast<double>(c.intermediate_size)));
  }
  // Embedding and state before their norms, both after, and what the block gives.
  double module(const ModelConfig& c, Index layer) const {
    const auto D = static_cast<double>(c.hidden_size);
    return block(c, layer) + full * (2 * D + D + 3) + (recompute.rmsnorm ? 0 : full * 2 * D);
  }
};

Index of_routed_experts(const ModelConfig& config) {
  Index n = 0;
  ModelParameters<int> unused;
  visit_parameters(config, unused, [&](const ParameterSpec& spec, int&) {
    if (is_routed_expert(spec)) n += element_count(spec.shape);
  });
  return n;
}

// Gradients in the memory of a rank (train/ranked_step.h): elements in its buffers for those of
// `rest` and `experts`, the part that it holds.
double gradient_elements(const Recipe& recipe, const TrainingLayout& layout, double rest,
                         double experts) {
  const bool fixed = recipe.parallel.reduction == "fixed";
  const MeshShape& mesh = layout.mesh;
  if (!fixed) return rest + experts;
  const double own = static_cast<double>(recipe.data.batch_size) /
                     static_cast<double>(recipe.rows_at_a_time() * mesh.n_data_ranks());
  // Either phase of dualpipe has half of the micro-batches, in one of the two stages.
  const double terms = layout.schedule == ScheduleKind::DualPipe ? own / 2 : own;
  const bool folds = mesh.pipeline == 1 && mesh.expert == 1;
  const double at_once = !folds || own <= 1 ? terms : mesh.n_ranks() == 1 ? 2 : std::max(own, 2.0);
  return at_once * (rest + experts * mesh.expert);
}

// Bytes that a micro-batch keeps of a token in a stage.
double stage_bytes_per_token(const Recipe& recipe, const ModelConfig& c, const StageRange& stage) {
  const BlockBytes bytes(recipe);
  const auto D = static_cast<double>(c.hidden_size);
  double sum = 0;
  for (Index i = stage.first; i < stage.last; ++i) sum += bytes.block(c, i);
  if (!stage.output) return sum;
  sum += bytes.full * (D + 1);  // before the final norm
  // A module also keeps the gradient that the head gave, as the main model does.
  sum += bytes.full * D;
  for (Index k = 0; k < c.num_nextn_predict_layers; ++k)
    sum += bytes.module(c, c.num_hidden_layers + k) + bytes.full * D;
  return sum;
}

// Of a token of each micro-batch under way, when they are most.
double live_bytes_per_token(const Recipe& recipe, const ModelConfig& c,
                            const TrainingLayout& layout, int pipeline_rank) {
  if (layout.mesh.pipeline == 1 && !has_two_phases(layout.schedule))
    return saved_bytes_per_token(recipe, c);
  const Schedule schedule = make_schedule(
      layout.schedule, layout.mesh.pipeline,
      recipe.data.batch_size / (recipe.rows_at_a_time() * layout.mesh.n_data_ranks()));
  const std::vector<StageRange> stages = stages_of(layout, c);
  ActivationSize size;
  for (int phase = 0; phase < schedule.n_phases(); ++phase) {
    const auto stage = static_cast<std::size_t>(schedule.stage(pipeline_rank, phase));
    size.saved[phase] = size.weight_work[phase] = stage_bytes_per_token(recipe, c, stages[stage]);
  }
  return peak_activations(schedule.ranks[static_cast<std::size_t>(pipeline_rank)], size);
}

TrainingMemory memory_of_rank(const Recipe& recipe, const ModelConfig& whole,
                              const TrainingLayout& layout, int pipeline_rank) {
  const MeshShape& mesh = layout.mesh;
  ModelConfig c = whole;
  hold_part(layout, {.pipeline = pipeline_rank}, c);
  const ParameterCount count = count_parameters(c);
  const auto n = static_cast<double>(count.total);
  const auto embedding = static_cast<double>(count.embedding);
  const auto head = static_cast<double>(count.head);
  const auto experts = static_cast<double>(of_routed_experts(c));
  // Elements whose states the rank keeps: those of all over the replicas.
  const int holders = layout.schedule == ScheduleKind::DualPipe ? 2 : 1;
  const double own = ((n - experts) / mesh.n_data_ranks() + experts / mesh.data) / holders;
  // Matrices are packed twice, for y = x W^T and for dx = dy W; the embedding is copied. FP8 with
  // FP32 scales packs the codes of linears.
  const double wide = recipe.compute == "fp32" ? 4 : 2;
  const double packed = recipe.compute == "fp8" && recipe.fp8.scales == "float" ? 1 : wide;
  TrainingMemory m;
  m.masters = 4 * n;
  m.gradients = 4 * gradient_elements(recipe, layout, n - experts, experts);
  if (mesh.n_ranks() > 1 || recipe.parallel.reduction == "fixed") m.gradients += 4 * own;
  m.moments = 2 * (recipe.optimizer.moments == "bf16" ? 2 : 4) * own;
  m.products = 4 * embedding + 2 * wide * head + 2 * packed * (n - embedding - head);
  if (recipe.ema.decay > 0) m.ema = (recipe.ema.dtype == "bf16" ? 2 : 4) * own;
  const auto tokens = static_cast<double>(recipe.tokens_at_a_time());
  m.activations = tokens * live_bytes_per_token(recipe, whole, layout, pipeline_rank) +
                  4 * static_cast<double>(recipe.tokens_per_step());  // the ids of the whole batch
  if (head > 0) m.activations += 4 * std::min(tokens, 1024.0) * static_cast<double>(c.vocab_size);
  return m;
}

double saving(const Recipe& recipe, const ModelConfig& config, bool RecomputeRecipe::*setting) {
  Recipe with = recipe, without = recipe;
  with.recompute.*setting = true;
  without.recompute.*setting = false;
  return saved_bytes_per_token(without, config) - saved_bytes_per_token(with, config);
}

}  // namespace

double saved_bytes_per_token(const Recipe& recipe, const ModelConfig& c) {
  return stage_bytes_per_token(recipe, c, whole_model(c));
}

RecomputeSavings recompute_savings(const Recipe& recipe, const ModelConfig& config) {
  return {saving(recipe, config, &RecomputeRecipe::rmsnorm),
          saving(recipe, config, &RecomputeRecipe::mla_up),
          saving(recipe, config, &RecomputeRecipe::swiglu)};
}

TrainingMemory training_memory(const Recipe& recipe, const ModelConfig& config,
                               const TrainingLayout& layout) {
  TrainingMemory most;
  for (int rank = 0; rank < layout.mesh.pipeline; ++rank)
    if (const TrainingMemory m = memory_of_rank(recipe, config, layout, rank);
        m.total() > most.total())
      most = m;
  return most;
}

void check_memory(const Recipe& recipe, const ModelConfig& config, const TrainingLayout& layout) {
  const double needed = training_memory(recipe, config, layout).total();
  const MachineMemory machine = read_machine_memory();
  const auto here = static_cast<double>(machine.total_bytes + machine.swap_bytes);
  if (here > 0 && needed > here)
    throw ConfigError(
        fmt::format("this training needs about {} of memory, the machine has {}; take a smaller "
                    "model or data.micro_batch (--dry-run says what needs how much)",
                    bytes_text(needed), bytes_text(here)));
}

}  // namespace minke
