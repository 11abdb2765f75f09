#include "model/mla_decode.h"

#include "base/threads.h"
#include "ops/mla_heads.h"
#include "ops/permute.h"
#include "ops/rmsnorm.h"
#include "ops/rope.h"

namespace minke {
namespace {

View3<float> heads(View2<float> x, Index n_heads) {
  const Index width = x.extent(1) / n_heads;
  return View3<float>(x.data(), {x.extent(0), n_heads, width}, {x.stride(0), width, 1});
}

// Positions of the new tokens, segment after segment.
BlockVector<Index> new_positions(Index layer, std::span<const Segment> segments) {
  BlockVector<Index> positions;
  for (const Segment& s : segments)
    for (Index i = 0; i < s.n_tokens; ++i) positions.push_back(s.cache->length(layer) + i);
  return positions;
}

// q [t, H (N+R)] rotated, of the last t of n_rows positions -> out [t, H V].
void absorbed(const Model& model, const MlaWeights& w, Index layer, const LatentCache& cache,
              Index n_rows, View2<const float> q, View2<float> out) {
  const ModelConfig& c = model.config;
  const Index t = q.extent(0), H = c.num_attention_heads, N = c.qk_nope_head_dim;
  const Index R = c.qk_rope_head_dim, C = c.kv_lora_rank, V = c.v_head_dim, row = c.cache_row();
  Tensor q_lat = Tensor::uninitialized({t, H * row});
  parallel_for(H, [&](Index h) {
    const View2<const float> head = q.columns(h * (N + R), N + R);
    const View2<float> to = q_lat.v2().columns(h * row, row);
    linear(head.columns(0, N), w.kv_b_proj.head_keys[static_cast<std::size_t>(h)],
           to.columns(0, C));
    copy(head.columns(N, R), to.columns(C, R));
  });
  Tensor out_lat = Tensor::uninitialized({t, H * C});
  attend_rows(cache, c.absorbed_attention(), layer, n_rows, q_lat.v2(), n_rows - t,
              model.softmax_scale, out_lat.v2());
  parallel_for(H, [&](Index h) {
    linear(out_lat.v2().columns(h * C, C), w.kv_b_proj.head_values[static_cast<std::size_t>(h)],
           out.columns(h * V, V));
  });
}

void expanded(const Model& model, const MlaWeights& w, Index layer, const LatentCache& cache,
              Index n_rows, View2<const float> q, View2<float> out) {
  const ModelConfig& c = model.config;
  const Index H = c.num_attention_heads, C = c.kv_lora_rank, R = c.qk_rope_head_dim;
  const Tensor rows = read_rows(cache, layer, n_rows);
  Tensor k = Tensor::uninitialized({n_rows, H * c.qk_head_dim()});
  Tensor v = Tensor::uninitialized({n_rows, H * c.v_head_dim});
  {
    Tensor kv = Tensor::uninitialized({n_rows, H * (c.qk_nope_head_dim + c.v_head_dim)});
    apply(w.kv_b_proj, rows.v2().columns(0, C), kv.v2());
    mla_split_heads({H, c.qk_nope_head_dim, R, c.v_head_dim}, kv.v2(), rows.v2().columns(C, R),
                    k.v2(), v.v2());
  }
  attention_forward(c.expanded_attention(), q, KeyRows<float>::of(k.v2()),
                    KeyRows<float>::of(v.v2()), n_rows - q.extent(0), model.softmax_scale, out);
}

}  // namespace

void mla_cached_forward(const Model& model, const MlaWeights& w, Index layer,
                        std::span<const Segment> segments, View2<const float> x, View2<float> y) {
  const ModelConfig& c = model.config;
  const Index T = x.extent(0), H = c.num_attention_heads, C = c.kv_lora_rank;
  const Index N = c.qk_nope_head_dim, R = c.qk_rope_head_dim;
  Tensor cos = Tensor::uninitialized({T, R / 2}), sin = Tensor::uninitialized({T, R / 2});
  rope_angles(new_positions(layer, segments), model.inv_freq, model.rotation_mscale, cos.v2(),
              sin.v2());

  Tensor q = Tensor::uninitialized({T, H * (N + R)});
  if (c.q_lora_rank) {
    Tensor c_q = Tensor::uninitialized({T, *c.q_lora_rank});
    apply(w.q_a_proj, x, c_q.v2());
    rmsnorm_forward(c_q.v2(), w.q_a_layernorm.dense.v1(), kLatentNormEps, c_q.v2());
    apply(w.q_b_proj, c_q.v2(), q.v2());
  } else {
    apply(w.q_proj, x, q.v2());
  }
  rope_apply(heads(q.v2(), H).columns(N, R), cos.v2(), sin.v2());

  Tensor rows = Tensor::uninitialized({T, C + R});  // of the cache: [c_kv; k_rope]
  apply(w.kv_a_proj_with_mqa, x, rows.v2());
  const View2<float> c_kv = rows.v2().columns(0, C);
  rmsnorm_forward(c_kv, w.kv_a_layernorm.dense.v1(), kLatentNormEps, c_kv);
  rope_apply(heads(rows.v2().columns(C, R), 1), cos.v2(), sin.v2());

  Tensor out = Tensor::uninitialized({T, H * c.v_head_dim});
  Index begin = 0;
  for (const Segment& s : segments) {
    s.cache->append(layer, rows.v2().rows(begin, s.n_tokens));
    const Index n_rows = s.cache->length(layer);
    const View2<const float> queries = q.v2().rows(begin, s.n_tokens);
    const View2<float> to = out.v2().rows(begin, s.n_tokens);
    if (s.form == AttentionForm::Absorbed)
      absorbed(model, w, layer, *s.cache, n_rows, queries, to);
    else
      expanded(model, w, layer, *s.cache, n_rows, queries, to);
    begin += s.n_tokens;
  }
  apply(w.o_proj, out.v2(), y);
}

}  // namespace minke
