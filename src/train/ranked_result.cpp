#include "train/ranked_result.h"

#include "parallel/reduction.h"
#include "train/training_step.h"

namespace minke {
namespace {

// In one order, for the row of a micro-batch and back.
std::vector<double*> losses_of(PassResult& result) {
  std::vector<double*> losses{&result.total, &result.main, &result.mtp, &result.balance};
  for (double& loss : result.mtp_k) losses.push_back(&loss);
  return losses;
}

// Everything that is counted over micro-batches; FP8 counts of weights are those of the model.
std::vector<std::int64_t*> counts_of(PassResult& result) {
  std::vector<std::int64_t*> counts;
  for (MoeLayerRecord& layer : result.moe)
    for (std::int64_t& load : layer.load) counts.push_back(&load);
  for (Fp8LayerRecord& layer : result.fp8)
    for (Fp8Counts* c : {&layer.counts.x, &layer.counts.dy})
      for (std::int64_t* n : {&c->values, &c->nonzero, &c->clipped, &c->underflow})
        counts.push_back(n);
  return counts;
}

std::vector<double> gather(Communicator& world, const std::vector<double>& own) {
  std::vector<double> all(own.size() * static_cast<std::size_t>(world.size()));
  Request request =
      world.all_gather(std::as_bytes(std::span(own)), std::as_writable_bytes(std::span(all)));
  wait(request);
  return all;
}

}  // namespace

void RankedResult::add(PassResult part) {
  const bool first = losses_.empty();
  for (const double* loss : losses_of(part)) losses_.push_back(*loss);
  if (first)
    sum_ = std::move(part);
  else
    add_result(part, sum_);
}

PassResult RankedResult::joined(Communicator& world) && {
  const std::vector<double*> losses = losses_of(sum_);
  const std::vector<double> rows = gather(world, losses_);
  for (std::size_t i = 0; i < losses.size(); ++i) {
    *losses[i] = rows[i];
    for (std::size_t row = losses.size(); row < rows.size(); row += losses.size())
      *losses[i] += rows[row + i];
  }
  const std::vector<std::int64_t*> counts = counts_of(sum_);
  std::vector<std::int64_t> values;
  for (const std::int64_t* count : counts) values.push_back(*count);
  all_reduce(world, View1<std::int64_t>(values.data(), {static_cast<Index>(values.size())}));
  for (std::size_t i = 0; i < counts.size(); ++i) *counts[i] = values[i];
  return std::move(sum_);
}

}  // namespace minke
