#include "model/mla_decode.h"

#include <algorithm>

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

// The segments from the first on that are done in one go: those in absorbed form before any other,
// or one.
std::span<const Segment> alike(std::span<const Segment> segments) {
  std::size_t n = 0;
  while (n < segments.size() && segments[n].form == AttentionForm::Absorbed) ++n;
  return segments.first(std::max<std::size_t>(n, 1));
}

// q [t, H (N+R)] rotated, rows [t, C+R] for the caches; t of all segments -> out [t, H V]. The
// heads' own matrices are read once for all segments, by threads of their homes.
void absorbed(const Model& model, const MlaWeights& w, Index layer,
              std::span<const Segment> segments, View2<const float> rows, View2<const float> q,
              View2<float> out) {
  const ModelConfig& c = model.config;
  const Index t = q.extent(0), H = c.num_attention_heads, N = c.qk_nope_head_dim;
  const Index R = c.qk_rope_head_dim, C = c.kv_lora_rank, V = c.v_head_dim, row = c.cache_row();
  Tensor q_lat = Tensor::uninitialized({t, H * row});
  parallel_for_at_home(H, [&](Index h) {
    const View2<const float> head = q.columns(h * (N + R), N + R);
    const View2<float> to = q_lat.v2().columns(h * row, row);
    linear(head.columns(0, N), w.kv_b_proj.head_keys[static_cast<std::size_t>(h)],
           to.columns(0, C));
    copy(head.columns(N, R), to.columns(C, R));
  });
  Tensor out_lat = Tensor::uninitialized({t, H * C});
  Index begin = 0;
  for (const Segment& s : segments) {
    s.cache->append(layer, rows.rows(begin, s.n_tokens));
    const Index n_rows = s.cache->length(layer);
    attend_rows(*s.cache, c.absorbed_attention(), layer, n_rows, q_lat.v2().rows(begin, s.n_tokens),
                n_rows - s.n_tokens, model.softmax_scale, out_lat.v2().rows(begin, s.n_tokens));
    begin += s.n_tokens;
  }
  parallel_for_at_home(H, [&](Index h) {
    linear(out_lat.v2().columns(h * C, C), w.kv_b_proj.head_values[static_cast<std::size_t>(h)],
           out.columns(h * V, V));
  });
}

// Keys and values of every head from the cached rows, and attention over them.
template <class Real>
void attend_expanded(const Model& model, const MlaWeights& w, View2<const float> rows,
                     View2<const float> q, View2<float> out) {
  const ModelConfig& c = model.config;
  const Index H = c.num_attention_heads, C = c.kv_lora_rank, R = c.qk_rope_head_dim;
  const Index n_rows = rows.extent(0);
  Tensor k = Tensor::uninitialized<Real>({n_rows, H * c.qk_head_dim()});
  Tensor v = Tensor::uninitialized<Real>({n_rows, H * c.v_head_dim});
  {
    Tensor kv = Tensor::uninitialized({n_rows, H * (c.qk_nope_head_dim + c.v_head_dim)});
    apply(w.kv_b_proj, rows.columns(0, C), kv.v2());
    mla_split_heads({H, c.qk_nope_head_dim, R, c.v_head_dim}, kv.v2(), rows.columns(C, R),
                    k.v2<Real>(), v.v2<Real>());
  }
  attention_forward(c.expanded_attention(), q, KeyRows<Real>::of(k.v2<Real>()),
                    KeyRows<Real>::of(v.v2<Real>()), n_rows - q.extent(0), model.softmax_scale,
                    out);
}

// The same for one segment; its keys and values are expanded from the whole cache. They are as
// exact as the cache's rows: FP32, or else BF16.
void expanded(const Model& model, const MlaWeights& w, Index layer, const Segment& segment,
              View2<const float> new_rows, View2<const float> q, View2<float> out) {
  segment.cache->append(layer, new_rows);
  const Tensor rows = read_rows(*segment.cache, layer, segment.cache->length(layer));
  if (segment.cache->row().dtype == DType::F32)
    attend_expanded<float>(model, w, rows.v2(), q, out);
  else
    attend_expanded<BF16>(model, w, rows.v2(), q, out);
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
  for (std::size_t i = 0; i < segments.size();) {
    const std::span<const Segment> run = alike(segments.subspan(i));
    Index n = 0;
    for (const Segment& s : run) n += s.n_tokens;
    const View2<const float> new_rows = rows.v2().rows(begin, n), queries = q.v2().rows(begin, n);
    const View2<float> to = out.v2().rows(begin, n);
    if (run.front().form == AttentionForm::Absorbed)
      absorbed(model, w, layer, run, new_rows, queries, to);
    else
      expanded(model, w, layer, run.front(), new_rows, queries, to);
    begin += n;
    i += run.size();
  }
  apply(w.o_proj, out.v2(), y);
}

}  // namespace minke
