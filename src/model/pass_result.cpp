#include "model/pass_result.h"

#include <algorithm>
#include <iterator>

namespace minke {
namespace {

template <class Record>
Record* find_layer(std::vector<Record>& records, Index layer) {
  const auto at = std::find_if(records.begin(), records.end(),
                               [&](const Record& record) { return record.layer == layer; });
  return at == records.end() ? nullptr : &*at;
}

template <class Record>
void append(std::vector<Record>& from, std::vector<Record>& to) {
  std::move(from.begin(), from.end(), std::back_inserter(to));
}

}  // namespace

template <class Real>
PassResult start_result(const ModelOf<Real>& model, const StageRange& range) {
  const ModelConfig& c = model.config;
  PassResult result;
  const auto start_layer = [&](Index layer) {
    if (c.is_moe(layer))
      result.moe.push_back(
          {layer, std::vector<std::int64_t>(static_cast<std::size_t>(c.n_routed_experts)), {}, {}});
    if (!model.fp8_weights.empty())
      result.fp8.push_back({layer, {{}, {}, model.fp8_weights[static_cast<std::size_t>(layer)]}});
  };
  for (Index layer = range.first; layer < range.last; ++layer) start_layer(layer);
  if (range.output)
    for (Index k = 0; k < c.num_nextn_predict_layers; ++k) start_layer(c.num_hidden_layers + k);
  return result;
}

MoeLayerRecord* moe_record(PassResult& result, Index layer) {
  return find_layer(result.moe, layer);
}

Fp8LayerCounts* fp8_counts(PassResult& result, Index layer) {
  Fp8LayerRecord* record = find_layer(result.fp8, layer);
  return record ? &record->counts : nullptr;
}

PassResult joined(std::vector<PassResult> stages) {
  PassResult whole;
  for (PassResult& stage : stages) {
    whole.main += stage.main;
    whole.mtp += stage.mtp;
    append(stage.mtp_k, whole.mtp_k);
    append(stage.moe, whole.moe);
    append(stage.fp8, whole.fp8);
    whole.saved_bytes += stage.saved_bytes;
  }
  add_up(whole);
  return whole;
}

void add_up(PassResult& result) {
  result.balance = 0;
  for (const MoeLayerRecord& layer : result.moe) result.balance += layer.balance.loss;
  result.total = result.main + result.mtp + result.balance;
}

template decltype(start_result<float>) start_result<float>;
template decltype(start_result<double>) start_result<double>;

}  // namespace minke
