#include "train/ranked_result.h"

#include <array>

#include "parallel/reduction.h"
#include "train/training_step.h"

namespace minke {
namespace {

constexpr std::array kFp8Counts{&Fp8Counts::values, &Fp8Counts::nonzero, &Fp8Counts::clipped,
                                &Fp8Counts::underflow};

std::vector<std::int64_t*> counts_of(PassResult& result) {
  std::vector<std::int64_t*> counts;
  for (MoeLayerRecord& layer : result.moe)
    for (std::int64_t& load : layer.load) counts.push_back(&load);
  for (Fp8LayerRecord& layer : result.fp8)
    for (Fp8Counts* c : {&layer.counts.x, &layer.counts.dy, &layer.counts.w})
      for (const auto count : kFp8Counts) counts.push_back(&(c->*count));
  return counts;
}

template <class T>
View1<T> row_of(std::vector<T>& values) {
  return {values.data(), {static_cast<Index>(values.size())}};
}

}  // namespace

RankedResult::RankedResult(PassResult empty, Index n_micro_batches, bool counts_weights)
    : sum_(std::move(empty)), losses_(static_cast<std::size_t>(n_micro_batches) * row_size()) {
  if (!counts_weights)
    for (Fp8LayerRecord& layer : sum_.fp8) layer.counts.w = {};
}

std::size_t RankedResult::row_size() const {
  return 2 + sum_.mtp_k.size() + sum_.moe.size();
}

void RankedResult::add(Index m, const PassResult& part) {
  double* const row = losses_.data() + static_cast<std::size_t>(m) * row_size();
  row[0] += part.main;
  row[1] += part.mtp;
  for (std::size_t k = 0; k < part.mtp_k.size(); ++k) row[2 + k] += part.mtp_k[k];
  for (const MoeLayerRecord& layer : part.moe) {
    MoeLayerRecord& sum = *moe_record(sum_, layer.layer);
    for (std::size_t e = 0; e < layer.load.size(); ++e) sum.load[e] += layer.load[e];
    const auto i = static_cast<std::size_t>(&sum - sum_.moe.data());
    row[2 + sum_.mtp_k.size() + i] += layer.balance.loss;
  }
  for (const Fp8LayerRecord& layer : part.fp8) {
    Fp8LayerCounts& sum = *fp8_counts(sum_, layer.layer);
    sum.x += layer.counts.x;
    sum.dy += layer.counts.dy;
  }
}

PassResult RankedResult::joined(Communicator& world) && {
  // Every loss is of one rank, and 0 of the others.
  all_reduce(world, row_of(losses_));
  for (std::size_t at = 0; at < losses_.size(); at += row_size()) {
    const double* value = losses_.data() + at;
    PassResult one;  // micro-batch
    one.moe.resize(sum_.moe.size());
    one.fp8.resize(sum_.fp8.size());
    one.main = *value++;
    one.mtp = *value++;
    for (std::size_t k = 0; k < sum_.mtp_k.size(); ++k) one.mtp_k.push_back(*value++);
    for (MoeLayerRecord& layer : one.moe) {
      layer.load.resize(sum_.moe.front().load.size());
      layer.balance.loss = *value++;
    }
    add_up(one);
    add_result(one, sum_);
  }
  const std::vector<std::int64_t*> counts = counts_of(sum_);
  std::vector<std::int64_t> values;
  for (const std::int64_t* count : counts) values.push_back(*count);
  all_reduce(world, row_of(values));
  for (std::size_t i = 0; i < counts.size(); ++i) *counts[i] = values[i];
  return std::move(sum_);
}

}  // namespace minke
