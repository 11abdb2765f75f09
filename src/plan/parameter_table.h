// Parameters of a model by part, to the last one, total and per token.
//
//   MLA       D Q + Q + Q H (N+R) + D (C+R) + C + C H (N+V) + H V D      (arXiv 2412.19437, eq.
//   1-11)
//             without query compression D H (N+R) instead of the three query terms
//   GQA       D H A + 2 D G A + H A D for heads of A and G of keys and values, and biases
//   FFN       3 D I          expert 3 D F          gate E D, + E biases in V3
//   layer     attention + 2 D norms + FFN, or + gate + shared + E experts
//   model     2 vocabulary D (embedding and head) + layers + D
//   MTP       one layer + 2 D D projection + 3 D norms; embedding and head are the main model's
//
// Scales of FP8 weights are not counted.
#pragma once
#include <string>
#include <vector>

#include "plan/plan_model.h"

namespace minke {

struct TensorCount {
  std::string name;  // the published one
  Index count;
};

struct ParameterTable {
  std::vector<TensorCount> attention_tensors;  // of one layer
  Index attention = 0;                         // their sum
  Index attention_norms = 0;                   // of it, gains of the latent norms
  Index attention_biases = 0;                  // of it, biases of q, k and v
  Index block_norms = 0;                       // 2 D
  Index dense_ffn = 0;
  Index gate = 0, gate_bias = 0;  // of one MoE layer, like the next two
  Index shared = 0;               // all shared experts
  Index expert = 0;               // one routed expert
  Index embedding = 0, head = 0, final_norm = 0;

  Index n_dense_layers = 0, n_moe_layers = 0;
  Index dense_layer = 0;
  Index moe_layer = 0;         // with all experts
  Index moe_layer_active = 0;  // with those that a token uses
  Index routed_experts_total = 0;

  Index total = 0;  // main model
  // Per token. "37B" of V3 covers the first two.
  Index active_with_embedding_and_head = 0;
  Index active_without_embedding = 0;
  Index active_without_embedding_and_head = 0;

  // One MTP module, whether or not the model has any. Its layer is an MoE layer if the model has
  // experts.
  Index mtp_projection = 0;   // eh_proj
  Index mtp_norms = 0;        // enorm, hnorm, shared_head.norm
  Index mtp_unique = 0;       // what the module has of its own
  Index mtp_with_copies = 0;  // with the copies of embedding and head that checkpoints store
  Index mtp_active_unique = 0;
  Index mtp_active_with_shared = 0;
  Index n_mtp = 0;
  Index checkpoint_total = 0;  // main model and the modules with their copies

  // Parameters of a layer outside its routed experts.
  Index layer_without_experts(bool is_moe) const;
};

ParameterTable parameter_table(const PlanModel& model);

}  // namespace minke
