#include "model/training_pass.h"

#include <algorithm>
#include <cmath>

#include "ops/cross_entropy.h"
#include "ops/embedding.h"
#include "ops/permute.h"
#include "ops/rmsnorm.h"
#include "tensor/block_cache.h"

namespace minke {
namespace {

using Tokens = std::vector<std::int32_t>;

constexpr Index kHeadRows = 1024;  // rows whose logits are in memory at a time

// Columns [first, first + length) of every row, one after another.
Tokens window(View2<const std::int32_t> tokens, Index first, Index length) {
  Tokens ids;
  ids.reserve(static_cast<std::size_t>(tokens.extent(0) * length));
  for (Index b = 0; b < tokens.extent(0); ++b)
    for (Index i = 0; i < length; ++i) ids.push_back(tokens(b, first + i));
  return ids;
}

// SequenceBatch::documents of the first `length` positions of every row.
std::vector<Index> document_offsets(DocumentStarts starts, Index length) {
  std::vector<Index> offsets;
  for (std::size_t row = 0; row < starts.size(); ++row)
    for (const Index start : starts[row])
      if (start < length) offsets.push_back(static_cast<Index>(row) * length + start);
  if (!starts.empty()) offsets.push_back(std::ssize(starts) * length);
  return offsets;
}

bool all_finite(const Tensor& tensor) {
  const View1<const float> values = tensor.flat();
  for (Index i = 0; i < values.size(); ++i)
    if (!std::isfinite(values(i))) return false;
  return true;
}

template <class Real>
Tensor embed(const ModelOf<Real>& model, const Tokens& ids) {
  Tensor x =
      Tensor::uninitialized<Real>({static_cast<Index>(ids.size()), model.config.hidden_size});
  embedding_forward(model.weights.embed_tokens.table(), ids, x.v2<Real>());
  return x;
}

// The first `length` positions of every sequence.
template <class Real>
Tensor leading_positions(const Tensor& x, SequenceBatch from, Index length) {
  const Index D = x.extent(1);
  Tensor y = Tensor::uninitialized<Real>({from.n_sequences * length, D});
  for (Index b = 0; b < from.n_sequences; ++b)
    copy(x.v2<Real>().rows(b * from.length, length), y.v2<Real>().rows(b * length, length));
  return y;
}

template <class Real>
void add_leading_positions(const Tensor& dy, Index length, SequenceBatch to, Tensor& dx) {
  for (Index b = 0; b < to.n_sequences; ++b)
    add_to(dy.v2<Real>().rows(b * length, length), dx.v2<Real>().rows(b * to.length, length));
}

// Cross-entropy behind the output head, forward, B and W at once, so that logits live only for
// kHeadRows rows. Returns the sum of nll; dh is overwritten with weight * d nll / d h.
template <class Real>
double head_loss(const ModelOf<Real>& model, const Tensor& h, const Tokens& targets, double weight,
                 Tensor& dh, Tensor& dlm_head) {
  const Index T = h.extent(0), V = model.config.vocab_size;
  dh = Tensor::uninitialized<Real>(h.shape());
  Tensor logits = Tensor::uninitialized<Real>({std::min(T, kHeadRows), V});
  Tensor nll = Tensor::uninitialized<Real>({T});
  for (Index begin = 0; begin < T; begin += kHeadRows) {
    const Index n = std::min(kHeadRows, T - begin);
    const View2<Real> z = logits.v2<Real>().rows(0, n);
    const View2<const Real> rows = h.v2<Real>().rows(begin, n);
    apply(model.weights.lm_head, rows, z);
    cross_entropy_forward_backward(
        z, std::span(targets).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(n)),
        weight, nll.v1<Real>().slice(0, begin, n));
    apply_transposed(model.weights.lm_head, z, dh.v2<Real>().rows(begin, n));
    linear_weight_gradient(z, rows, dlm_head.v2<Real>(), model.precision());
  }
  double sum = 0;
  for (Index t = 0; t < T; ++t) sum += nll.v1<Real>()(t);
  return sum;
}

struct MainForward {
  std::vector<BlockSaved> blocks;
  Tensor hidden, rstd;  // before the final norm
  Tensor final_norm;
};

std::span<std::int64_t> start_record(PassResult& result, const ModelConfig& c, Index layer,
                                     bool is_moe) {
  if (!is_moe) return {};
  result.moe.push_back(
      {layer, std::vector<std::int64_t>(static_cast<std::size_t>(c.n_routed_experts)), {}, {}});
  return result.moe.back().load;
}

enum class Keep { Nothing, ForBackward, AndScores };

// One record a layer, MTP modules after the others; the weights' counts are known.
std::vector<Fp8LayerRecord> start_fp8_records(const std::vector<Fp8Counts>& weights) {
  std::vector<Fp8LayerRecord> records;
  records.reserve(weights.size());
  for (const Fp8Counts& w : weights)
    records.push_back({static_cast<Index>(records.size()), {{}, {}, w}});
  return records;
}

Fp8LayerCounts* counts_of(PassResult& result, Index layer) {
  return result.fp8.empty() ? nullptr : &result.fp8[static_cast<std::size_t>(layer)].counts;
}

template <class Real>
MainForward forward_main(const ModelOf<Real>& model, SequenceBatch batch, Tensor x,
                         PassResult& result, Keep keep) {
  const ModelConfig& c = model.config;
  MainForward f;
  for (std::size_t i = 0; i < model.weights.layers.size(); ++i) {
    const BlockWeightsOf<Real>& w = model.weights.layers[i];
    const auto load = start_record(result, c, static_cast<Index>(i), w.is_moe);
    Tensor y;
    BlockSaved saved = block_forward(model, w, batch, std::move(x), y, load,
                                     counts_of(result, static_cast<Index>(i)));
    if (w.is_moe && keep == Keep::AndScores)
      result.moe.back().scores = saved.moe.gate.scores.clone();
    if (keep != Keep::Nothing) f.blocks.push_back(std::move(saved));
    x = std::move(y);
  }
  f.rstd = Tensor::uninitialized<Real>({batch.rows()});
  f.final_norm = Tensor::uninitialized<Real>(x.shape());
  rmsnorm_forward(x.v2<Real>(), model.weights.norm.vector(), c.rms_norm_eps,
                  f.final_norm.v2<Real>(), f.rstd.v1<Real>());
  f.hidden = std::move(x);
  return f;
}

}  // namespace

template <class Real>
PassResult forward_backward(const ModelOf<Real>& model, View2<const std::int32_t> tokens,
                            const LossSettings& settings, ModelGradients& gradients,
                            bool keep_scores) {
  const ModelConfig& c = model.config;
  const Index B = tokens.extent(0), T = tokens.extent(1) - 1;
  const auto n_mtp = static_cast<Index>(model.weights.mtp.size());
  if (T < 1 + n_mtp)
    throw ShapeError(
        fmt::format("a row of {} tokens is too short to train on; {} MTP modules need "
                    "at least {}",
                    T + 1, n_mtp, n_mtp + 2));
  const std::vector<Index> documents = document_offsets(settings.starts, T);
  const SequenceBatch batch{B, T, documents};
  const double per_position = settings.share / static_cast<double>(B * T);
  PassResult result;
  result.fp8 = start_fp8_records(model.fp8_weights);
  const std::size_t bytes_before = live_block_bytes();

  const Tokens inputs = window(tokens, 0, T);
  MainForward main = forward_main(model, batch, embed(model, inputs), result,
                                  keep_scores ? Keep::AndScores : Keep::ForBackward);
  Tensor dfinal;
  result.main = per_position * head_loss(model, main.final_norm, window(tokens, 1, T), per_position,
                                         dfinal, gradients.lm_head);

  // MTP modules, each on the state of the one before.
  const double mtp_factor = n_mtp > 0 ? settings.mtp_lambda / static_cast<double>(n_mtp) : 0;
  std::vector<MtpSaved> mtp(static_cast<std::size_t>(n_mtp));
  std::vector<Tensor> states(mtp.size()), dstates(mtp.size());
  std::vector<std::vector<Index>> mtp_documents;
  for (Index k = 0; k < n_mtp; ++k)
    mtp_documents.push_back(document_offsets(settings.starts, T - k - 1));
  const auto batch_of = [&](Index k) {
    return SequenceBatch{B, T - k - 1, mtp_documents[static_cast<std::size_t>(k)]};
  };
  for (Index k = 0; k < n_mtp; ++k) {
    const auto i = static_cast<std::size_t>(k);
    const MtpWeightsOf<Real>& w = model.weights.mtp[i];
    const Index length = batch_of(k).length;
    Tensor h = k == 0 ? leading_positions<Real>(main.final_norm, batch, length)
                      : leading_positions<Real>(states[i - 1], batch_of(k - 1), length);
    const auto load = start_record(result, c, c.num_hidden_layers + k, w.block.is_moe);
    mtp[i] = mtp_forward(model, w, batch_of(k), embed(model, window(tokens, k + 1, length)),
                         std::move(h), states[i], load, counts_of(result, c.num_hidden_layers + k));
    if (w.block.is_moe && keep_scores)
      result.moe.back().scores = mtp[i].block.moe.gate.scores.clone();
    const double sum = head_loss(model, states[i], window(tokens, k + 2, length),
                                 mtp_factor * per_position, dstates[i], gradients.lm_head);
    result.mtp_k.push_back(per_position * sum);
    result.mtp += mtp_factor * per_position * sum;
  }

  main.final_norm = Tensor();  // read by the head and the first module alone
  states.clear();
  result.saved_bytes = static_cast<double>(live_block_bytes() - bytes_before);

  // Backward, last module first. Records were made in forward order, so they are taken from the
  // end.
  std::size_t record = result.moe.size();
  BalanceTerm none;  // of dense layers
  const auto balance_of = [&](bool is_moe, Index length) -> BalanceTerm& {
    if (!is_moe) return none;
    BalanceTerm& term = result.moe[--record].balance;
    term.alpha = settings.alpha * settings.share;
    term.length = settings.balance_scope == BalanceScope::MicroBatch ? B * length : length;
    return term;
  };
  for (Index k = n_mtp - 1; k >= 0; --k) {
    const auto i = static_cast<std::size_t>(k);
    const Index length = batch_of(k).length;
    Tensor dembedding, dh;
    mtp_backward<Real>(model, model.weights.mtp[i], batch_of(k), dstates[i].v2<Real>(),
                       std::move(mtp[i]), balance_of(model.weights.mtp[i].block.is_moe, length),
                       dembedding, dh, gradients.mtp[i],
                       counts_of(result, c.num_hidden_layers + k));
    embedding_backward_weight(dembedding.v2<Real>(), window(tokens, k + 1, length),
                              gradients.embed_tokens.v2<Real>());
    if (k == 0)
      add_leading_positions<Real>(dh, length, batch, dfinal);
    else
      add_leading_positions<Real>(dh, length, batch_of(k - 1), dstates[i - 1]);
  }

  Tensor dx = Tensor::uninitialized<Real>(dfinal.shape());
  rmsnorm_backward_input(dfinal.v2<Real>(), main.hidden.v2<Real>(), model.weights.norm.vector(),
                         main.rstd.v1<Real>(), dx.v2<Real>());
  rmsnorm_backward_weight(dfinal.v2<Real>(), main.hidden.v2<Real>(), main.rstd.v1<Real>(),
                          gradients.norm.v1<Real>());
  for (std::size_t i = model.weights.layers.size(); i-- > 0;) {
    const BlockWeightsOf<Real>& w = model.weights.layers[i];
    Tensor below;
    BlockWeightWork work = block_backward_input(model, w, batch, std::move(dx),
                                                std::move(main.blocks[i]), balance_of(w.is_moe, T),
                                                below, counts_of(result, static_cast<Index>(i)));
    block_backward_weight(model, w, std::move(work), gradients.layers[i]);
    dx = std::move(below);
  }
  embedding_backward_weight(dx.v2<Real>(), inputs, gradients.embed_tokens.v2<Real>());

  for (const MoeLayerRecord& layer : result.moe) result.balance += layer.balance.loss;
  result.total = result.main + result.mtp + result.balance;
  return result;
}

template decltype(forward_backward<float>) forward_backward<float>;
template decltype(forward_backward<double>) forward_backward<double>;

double evaluate_loss(const Model& model, View2<const std::int32_t> tokens, DocumentStarts starts) {
  const Index B = tokens.extent(0), T = tokens.extent(1) - 1;
  const std::vector<Index> documents = document_offsets(starts, T);
  PassResult unused;
  const MainForward main = forward_main(model, {B, T, documents},
                                        embed(model, window(tokens, 0, T)), unused, Keep::Nothing);
  const Tokens targets = window(tokens, 1, T);
  Tensor logits = Tensor::uninitialized({std::min(B * T, kHeadRows), model.config.vocab_size});
  Tensor nll = Tensor::uninitialized({B * T});
  for (Index begin = 0; begin < B * T; begin += kHeadRows) {
    const Index n = std::min(kHeadRows, B * T - begin);
    const View2<float> z = logits.v2().rows(0, n);
    apply(model.weights.lm_head, main.final_norm.v2().rows(begin, n), z);
    cross_entropy_forward(
        z, std::span(targets).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(n)),
        nll.v1().slice(0, begin, n));
  }
  double sum = 0;
  for (Index t = 0; t < B * T; ++t) sum += nll.v1()(t);
  return sum / static_cast<double>(B * T);
}

std::optional<NonFiniteOutput> find_non_finite_output(const Model& model,
                                                      View2<const std::int32_t> tokens,
                                                      DocumentStarts starts) {
  const Index T = tokens.extent(1) - 1;
  const std::vector<Index> documents = document_offsets(starts, T);
  const SequenceBatch batch{tokens.extent(0), T, documents};
  Tensor x = embed(model, window(tokens, 0, batch.length));
  if (!all_finite(x)) return NonFiniteOutput{"embedding", std::nullopt};
  for (std::size_t i = 0; i < model.weights.layers.size(); ++i) {
    const auto layer = static_cast<Index>(i);
    Tensor y;
    const BlockSaved saved = block_forward(model, model.weights.layers[i], batch, std::move(x), y);
    if (!all_finite(saved.u)) return NonFiniteOutput{fmt::format("layers.{}.attn_out", i), layer};
    if (!all_finite(y)) return NonFiniteOutput{fmt::format("layers.{}.ffn_out", i), layer};
    x = std::move(y);
  }
  Tensor rstd = Tensor::uninitialized({batch.rows()}), h = Tensor::uninitialized(x.shape());
  rmsnorm_forward(x.v2(), model.weights.norm.vector(), model.config.rms_norm_eps, h.v2(),
                  rstd.v1());
  if (!all_finite(h)) return NonFiniteOutput{"final_norm", std::nullopt};
  for (Index begin = 0; begin < batch.rows(); begin += kHeadRows) {
    const Index n = std::min(kHeadRows, batch.rows() - begin);
    Tensor logits = Tensor::uninitialized({n, model.config.vocab_size});
    apply(model.weights.lm_head, h.v2().rows(begin, n), logits.v2());
    if (!all_finite(logits)) return NonFiniteOutput{"logits", std::nullopt};
  }
  return std::nullopt;
}

}  // namespace minke
