#include "bench/models.h"

#include "model/parameters.h"

namespace minke::bench {

double prefill_flop(const ModelConfig& c, Index tokens) {
  const ParameterCount n = count_parameters(c);
  const auto T = static_cast<double>(tokens);
  const auto of_pair = static_cast<double>(c.num_hidden_layers * c.num_attention_heads *
                                           (c.qk_head_dim() + c.v_head_dim));
  return 2 * static_cast<double>(n.active - n.head) * T + 2 * of_pair * T * (T + 1) / 2;
}

}  // namespace minke::bench
