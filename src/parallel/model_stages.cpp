#include "parallel/model_stages.h"

#include <fmt/format.h>

#include <cstring>

#include "ops/permute.h"

namespace minke {
namespace {

// Micro-batches whose W is not done: one that BI works on, and enough parts for waits where it has
// left none yet. Each costs the memory of a BI whose W has not come.
constexpr std::size_t kMostInParts = 3;

}  // namespace

BoundaryFormat boundary_format(Compute compute) {
  return compute == Compute::Fp32 ? BoundaryFormat::Fp32 : BoundaryFormat::Bf16;
}

ModelStages::ModelStages(const Schedule& schedule, int rank, const std::vector<StageRange>& stages,
                         const Model& model, View2<const std::int32_t> tokens,
                         const ModelStagesSettings& settings)
    : schedule_(schedule), model_(model), tokens_(tokens), settings_(settings) {
  if (static_cast<int>(stages.size()) != schedule.n_stages())
    throw ShapeError(fmt::format("a schedule of {} stages cannot run a model in {}",
                                 schedule.n_stages(), stages.size()));
  if (tokens.extent(0) != schedule.n_chunks * settings.micro_batch_rows)
    throw ShapeError(fmt::format("{} rows are not {} micro-batches of {}", tokens.extent(0),
                                 schedule.n_chunks, settings.micro_batch_rows));
  const auto n_chunks = static_cast<std::size_t>(schedule.chunks_per_phase());
  for (int p = 0; p < schedule.n_phases(); ++p) {
    Phase& here = phases_[p];
    here.range = stages[static_cast<std::size_t>(schedule.stage(rank, p))];
    here.results.resize(n_chunks);
    here.gradients.resize(settings.order == GradientOrder::Fixed ? n_chunks : 1);
    if (settings.order == GradientOrder::Fast) here.gradients.front() = zero_buffer(here.range);
  }
}

StageGradients ModelStages::zero_buffer(const StageRange& range) const {
  return zero_gradients(model_.config, range, DType::F32, settings_.n_sources);
}

StagePass ModelStages::pass(MicroBatch m) const {
  StagePass pass{phases_[m.phase].range, settings_.loss, settings_.keep_scores};
  DocumentStarts& starts = pass.settings.starts;
  const auto rows = static_cast<std::size_t>(settings_.micro_batch_rows);
  if (!starts.empty())
    starts = starts.subspan(static_cast<std::size_t>(index_of(schedule_, m)) * rows, rows);
  return pass;
}

View2<const std::int32_t> ModelStages::tokens(MicroBatch m) const {
  const Index rows = settings_.micro_batch_rows;
  return tokens_.rows(index_of(schedule_, m) * rows, rows);
}

GradientTargets ModelStages::targets(MicroBatch m) {
  Phase& here = phase(m);
  const bool fixed = settings_.order == GradientOrder::Fixed;
  return here.gradients[fixed ? static_cast<std::size_t>(m.chunk) : 0].targets();
}

PassResult& ModelStages::result(MicroBatch m) {
  return phase(m).results[static_cast<std::size_t>(m.chunk)];
}

std::size_t ModelStages::message_bytes(MicroBatch) const {
  const Index elements =
      settings_.micro_batch_rows * (tokens_.extent(1) - 1) * model_.config.hidden_size;
  return static_cast<std::size_t>(elements) *
         size_of(settings_.boundary == BoundaryFormat::Fp32 ? DType::F32 : DType::BF16);
}

MessageBytes ModelStages::forward(MicroBatch m, MessageBytes input) {
  Phase& here = phase(m);
  if (settings_.order == GradientOrder::Fixed)
    here.gradients[static_cast<std::size_t>(m.chunk)] = zero_buffer(here.range);
  result(m) = start_result(model_, here.range);
  Tensor y;
  StageSaved saved =
      stage_forward(model_, pass(m), tokens(m), unpack(std::move(input)), y, targets(m), result(m));
  here.saved.emplace(m.chunk, std::move(saved));
  return pack(y);
}

StageSaved ModelStages::take_saved(MicroBatch m) {
  auto found = phase(m).saved.extract(m.chunk);
  MINKE_ASSERT(!found.empty());
  return std::move(found.mapped());
}

MessageBytes ModelStages::backward_input(MicroBatch m, MessageBytes dy) {
  Tensor dx;
  StageWeightWork work =
      stage_backward_input(model_, pass(m), unpack(std::move(dy)), take_saved(m), dx, result(m));
  phase(m).work.emplace(m.chunk, std::move(work));
  return pack(dx);
}

MessageBytes ModelStages::backward(MicroBatch m, MessageBytes dy) {
  Tensor dx;
  stage_backward(model_, pass(m), unpack(std::move(dy)), take_saved(m), dx, targets(m), result(m));
  return pack(dx);
}

void ModelStages::backward_weight(MicroBatch m) {
  auto work = phase(m).work.extract(m.chunk);
  MINKE_ASSERT(!work.empty());
  stage_backward_weight(model_, std::move(work.mapped()), targets(m));
}

MessageBytes ModelStages::backward_in_parts(MicroBatch m, MessageBytes dy) {
  while (parts_.size() >= kMostInParts && backward_weight_part()) {
  }
  parts_.push_back({m, {}});  // other elements of a deque stay where they are
  Tensor dx;
  stage_backward_input(model_, pass(m), unpack(std::move(dy)), take_saved(m), dx, result(m),
                       parts_.back().work);
  return pack(dx);
}

// Of the oldest, which is done when it has no part left and a younger one has begun: B's come one
// by one.
std::optional<MicroBatch> ModelStages::backward_weight_part() {
  while (!parts_.empty()) {
    WeightParts& oldest = parts_.front();
    const MicroBatch m = oldest.micro_batch;
    if (stage_backward_weight_part(model_, oldest.work, targets(m))) return m;
    if (parts_.size() == 1) break;
    parts_.pop_front();
  }
  return std::nullopt;
}

// An empty message is no tensor: a pipeline's end.
Tensor ModelStages::unpack(MessageBytes bytes) const {
  if (bytes.empty()) return {};
  const Index D = model_.config.hidden_size;
  const bool fp32 = settings_.boundary == BoundaryFormat::Fp32;
  const Index T = settings_.micro_batch_rows * (tokens_.extent(1) - 1);
  Tensor rows = Tensor::uninitialized({T, D});
  if (fp32) {
    std::memcpy(rows.raw(), bytes.data(), bytes.size());
  } else {
    Tensor narrow = Tensor::uninitialized(DType::BF16, {T, D});
    std::memcpy(narrow.raw(), bytes.data(), bytes.size());
    copy(std::as_const(narrow).v2<BF16>(), rows.v2());
  }
  return rows;
}

MessageBytes ModelStages::pack(const Tensor& rows) const {
  if (!rows.defined()) return {};
  const auto bytes_of = [](const Tensor& t) {
    const auto* begin = static_cast<const std::byte*>(t.raw());
    return MessageBytes(begin, begin + t.bytes());
  };
  if (settings_.boundary == BoundaryFormat::Fp32) return bytes_of(rows);
  Tensor narrow = Tensor::uninitialized(DType::BF16, rows.shape());
  copy(rows.v2(), narrow.v2<BF16>());
  return bytes_of(narrow);
}

}  // namespace minke
