#include "model/predictions.h"

#include <algorithm>

#include "ops/cross_entropy.h"
#include "ops/embedding.h"
#include "ops/rmsnorm.h"

namespace minke {
namespace {

constexpr Index kHeadRows = 1024;  // rows whose logits are in memory at a time

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
double head_loss(const ModelOf<Real>& model, const Tensor& h, std::span<const std::int32_t> targets,
                 double weight, Tensor& dh, Tensor& dlm_head) {
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
        z, targets.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(n)), weight,
        nll.v1<Real>().slice(0, begin, n));
    apply_transposed(model.weights.lm_head, z, dh.v2<Real>().rows(begin, n));
    linear_weight_gradient(z, rows, dlm_head.v2<Real>(), model.precision());
  }
  double sum = 0;
  for (Index t = 0; t < T; ++t) sum += nll.v1<Real>()(t);
  return sum;
}

SequenceBatch module_batch(SequenceBatch batch, Index k) {
  return {batch.n_sequences, batch.length - k - 1, batch.starts};
}

// Module k on the state h of the one before, or of the final norm -> its own state, head_norm.
template <class Real>
ModuleSaved module_forward(const ModelOf<Real>& model, View2<const std::int32_t> tokens,
                           SequenceBatch batch, Index k, bool keep_scores, Tensor h,
                           Tensor& head_norm, PassResult& result) {
  const Index layer = model.config.num_hidden_layers + k;
  MoeLayerRecord* record = moe_record(result, layer);
  ModuleSaved s;
  s.ids = token_window(tokens, k + 1, batch.length);
  s.mtp = mtp_forward(model, model.weights.mtp[static_cast<std::size_t>(k)], batch,
                      embed(model, s.ids), std::move(h), head_norm,
                      record ? std::span(record->load) : std::span<std::int64_t>{},
                      fp8_counts(result, layer));
  if (record && keep_scores) record->scores = s.mtp.block.moe.gate.scores.clone();
  return s;
}

template <class Real>
void add_module_gradients(const ModelOf<Real>& model, std::size_t k, ModuleWeightWork work,
                          const GradientTargets& gradients) {
  embedding_backward_weight(std::as_const(work.mtp.dembedding).v2<Real>(), work.ids,
                            gradients.embedding_of_mtp.v2<Real>());
  mtp_backward_weight(model, model.weights.mtp[k], std::move(work.mtp),
                      gradients.parameters.mtp[k]);
}

template <class Real>
void add_norm_gradient(const PredictionsWeightWork& work, ModelGradients& gradients) {
  rmsnorm_backward_weight(work.dnorm.v2<Real>(), work.x.v2<Real>(), work.rstd.v1<Real>(),
                          gradients.norm.v1<Real>());
}

}  // namespace

std::vector<std::int32_t> token_window(View2<const std::int32_t> tokens, Index first,
                                       Index length) {
  std::vector<std::int32_t> ids;
  ids.reserve(static_cast<std::size_t>(tokens.extent(0) * length));
  for (Index b = 0; b < tokens.extent(0); ++b)
    for (Index i = 0; i < length; ++i) ids.push_back(tokens(b, first + i));
  return ids;
}

template <class Real>
Tensor embed(const ModelOf<Real>& model, std::span<const std::int32_t> ids) {
  Tensor x =
      Tensor::uninitialized<Real>({static_cast<Index>(ids.size()), model.config.hidden_size});
  embedding_forward(model.weights.embed_tokens.table(), ids, x.v2<Real>());
  return x;
}

template <class Real>
Tensor final_norm(const ModelOf<Real>& model, const Tensor& x, Tensor& rstd) {
  rstd = Tensor::uninitialized<Real>({x.extent(0)});
  Tensor y = Tensor::uninitialized<Real>(x.shape());
  rmsnorm_forward(x.v2<Real>(), model.weights.norm.vector(), model.config.rms_norm_eps,
                  y.v2<Real>(), rstd.v1<Real>());
  return y;
}

BalanceTerm& balance_term(PassResult& result, Index layer, const LossSettings& settings,
                          SequenceBatch batch, BalanceTerm& none) {
  MoeLayerRecord* record = moe_record(result, layer);
  if (!record) return none;
  record->balance.alpha = settings.alpha * settings.share;
  record->balance.length =
      settings.balance_scope == BalanceScope::MicroBatch ? batch.rows() : batch.length;
  return record->balance;
}

template <class Real>
PredictionsSaved predictions_forward(const ModelOf<Real>& model, View2<const std::int32_t> tokens,
                                     const LossSettings& settings, bool keep_scores, Tensor x,
                                     ModelGradients& gradients, PassResult& result) {
  const SequenceBatch batch{tokens.extent(0), tokens.extent(1) - 1, settings.starts};
  const auto n_modules = static_cast<Index>(model.weights.mtp.size());
  const double per_position = settings.share / static_cast<double>(batch.rows());
  const double factor = n_modules > 0 ? settings.mtp_lambda / static_cast<double>(n_modules) : 0;
  PredictionsSaved s;
  s.x = std::move(x);
  Tensor state = final_norm(model, s.x, s.rstd);
  result.main = per_position * head_loss(model, state, token_window(tokens, 1, batch.length),
                                         per_position, s.dnorm, gradients.lm_head);
  SequenceBatch before = batch;
  for (Index k = 0; k < n_modules; ++k) {
    const SequenceBatch here = module_batch(batch, k);
    Tensor h = leading_positions<Real>(state, before, here.length);
    ModuleSaved m =
        module_forward(model, tokens, here, k, keep_scores, std::move(h), state, result);
    const double sum = head_loss(model, state, token_window(tokens, k + 2, here.length),
                                 factor * per_position, m.dhead_norm, gradients.lm_head);
    result.mtp_k.push_back(per_position * sum);
    result.mtp += factor * per_position * sum;
    s.modules.push_back(std::move(m));
    before = here;
  }
  return s;
}

template <class Real>
PredictionsWeightWork predictions_backward_input(const ModelOf<Real>& model, SequenceBatch batch,
                                                 const LossSettings& settings, PredictionsSaved s,
                                                 Tensor& dx, PassResult& result,
                                                 const GradientTargets* add_now) {
  PredictionsWeightWork work;
  work.modules.resize(s.modules.size());
  BalanceTerm none;
  for (std::size_t i = s.modules.size(); i-- > 0;) {
    ModuleSaved& m = s.modules[i];
    const auto k = static_cast<Index>(i);
    const SequenceBatch here = module_batch(batch, k);
    const Index layer = model.config.num_hidden_layers + k;
    Tensor dh;
    ModuleWeightWork module{
        std::move(m.ids),
        mtp_backward_input(model, model.weights.mtp[i], here, std::move(m.dhead_norm),
                           std::move(m.mtp), balance_term(result, layer, settings, here, none), dh,
                           fp8_counts(result, layer))};
    if (i == 0)
      add_leading_positions<Real>(dh, here.length, batch, s.dnorm);
    else
      add_leading_positions<Real>(dh, here.length, module_batch(batch, k - 1),
                                  s.modules[i - 1].dhead_norm);
    if (add_now)
      add_module_gradients(model, i, std::move(module), *add_now);
    else
      work.modules[i] = std::move(module);
  }
  dx = Tensor::uninitialized<Real>(s.dnorm.shape());
  rmsnorm_backward_input(std::as_const(s.dnorm).v2<Real>(), std::as_const(s.x).v2<Real>(),
                         model.weights.norm.vector(), std::as_const(s.rstd).v1<Real>(),
                         dx.v2<Real>());
  work.x = std::move(s.x);
  work.rstd = std::move(s.rstd);
  work.dnorm = std::move(s.dnorm);
  if (!add_now) return work;
  add_norm_gradient<Real>(work, add_now->parameters);
  return {};
}

template <class Real>
void predictions_backward_weight(const ModelOf<Real>& model, PredictionsWeightWork work,
                                 const GradientTargets& gradients) {
  for (std::size_t i = work.modules.size(); i-- > 0;)
    add_module_gradients(model, i, std::move(work.modules[i]), gradients);
  add_norm_gradient<Real>(work, gradients.parameters);
}

template decltype(embed<float>) embed<float>;
template decltype(embed<double>) embed<double>;
template decltype(final_norm<float>) final_norm<float>;
template decltype(final_norm<double>) final_norm<double>;
template decltype(predictions_forward<float>) predictions_forward<float>;
template decltype(predictions_forward<double>) predictions_forward<double>;
template decltype(predictions_backward_input<float>) predictions_backward_input<float>;
template decltype(predictions_backward_input<double>) predictions_backward_input<double>;
template decltype(predictions_backward_weight<float>) predictions_backward_weight<float>;
template decltype(predictions_backward_weight<double>) predictions_backward_weight<double>;

}  // namespace minke
