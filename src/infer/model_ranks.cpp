#include "infer/model_ranks.h"

#include <fmt/format.h>

#include <charconv>

#include "base/error.h"
#include "model/stage_range.h"

namespace minke {
namespace {

// Stage s is on rank s + 1 of the pipeline, the last one on rank 0, which has both ends.
LayerPlacement placement_of(const InferenceLayout& layout, const ModelConfig& config) {
  LayerPlacement placement{cut_stages(config, layout.pipeline), {}};
  for (int s = 0; s < layout.pipeline; ++s) placement.ranks.push_back((s + 1) % layout.pipeline);
  for (StageRange& stage : placement.stages) stage.embedding = stage.output;
  return placement;
}

// What a rank of the pipeline holds; nothing, which stands for all, where there is none.
std::vector<StageRange> held_stages(const InferenceLayout& layout, const ModelConfig& config,
                                    int pipeline_rank) {
  if (layout.pipeline == 1) return {};
  const int last = layout.pipeline - 1;
  const int stage = pipeline_rank == 0 ? last : pipeline_rank - 1;
  return {placement_of(layout, config).stages[static_cast<std::size_t>(stage)]};
}

std::unique_ptr<Communicator> stage_of(Communicator& world, const InferenceLayout& layout) {
  return world.split(world.rank() / layout.experts, world.rank());
}
// Of the ranks that have more than experts.
std::unique_ptr<Communicator> pipeline_of(Communicator& world, const InferenceLayout& layout) {
  return world.split(world.rank() % layout.experts == 0 ? 0 : 1, world.rank());
}

}  // namespace

InferenceLayout parse_inference_layout(const std::string& text, int n_ranks) {
  InferenceLayout layout{1, n_ranks};
  if (text.empty()) return layout;
  const char* const end = text.data() + text.size();
  const auto pipeline = std::from_chars(text.data(), end, layout.pipeline);
  const bool has_x = pipeline.ec == std::errc{} && pipeline.ptr != end && *pipeline.ptr == 'x';
  const auto experts = std::from_chars(has_x ? pipeline.ptr + 1 : end, end, layout.experts);
  if (!has_x || experts.ec != std::errc{} || experts.ptr != end || layout.pipeline < 1 ||
      layout.experts < 1)
    throw ConfigError(
        fmt::format("layout is {}; expected pipeline ranks x expert ranks, as in 2x4", text));
  if (std::int64_t{layout.pipeline} * layout.experts != n_ranks)
    throw ConfigError(fmt::format("layout {} is of {} ranks, but {} started; change one of them",
                                  text, std::int64_t{layout.pipeline} * layout.experts,
                                  n_ranks == 1 ? "one was" : fmt::format("{} were", n_ranks)));
  return layout;
}

ModelCaller::ModelCaller(Communicator& world, const InferenceLayout& layout,
                         std::chrono::milliseconds bound)
    : layout_(layout),
      n_ranks_(world.size()),
      stage_(stage_of(world, layout)),
      pipeline_(pipeline_of(world, layout)) {
  if (layout.experts > 1) experts_.emplace(*stage_, bound);
  if (layout.pipeline > 1) layers_.emplace(*pipeline_, bound);
}

ModelCaller::OwnPart ModelCaller::call_to_load(const ModelConfig& config, bool mtp) {
  OwnPart part{held_stages(layout_, config, 0), {}};
  if (experts_) part.experts = experts_->call_to_load(config, mtp);
  if (layers_) layers_->call_to_load(placement_of(layout_, config));
  return part;
}

void ModelCaller::attach_to(Model& model, const std::function<bool()>& cancelled) {
  if (layers_) {
    layers_->wait_until_loaded(cancelled);
    model.layer_ranks = &*layers_;
  }
  if (experts_) experts_->attach_to(model, cancelled);
}

void ModelCaller::end() {
  if (layers_) layers_->end();
  if (experts_) experts_->end();
}

// ---- the others

namespace {

// The rank of a stage that has all of it but the experts of others, which it calls.
void hold_stage(Communicator& pipeline, Communicator& stage, const InferenceLayout& layout,
                std::chrono::milliseconds bound, FunctionRef<ModelConfig()> config_of,
                FunctionRef<std::optional<Model>(const ModelPart&)> load) {
  std::optional<ExpertCaller> experts;
  if (layout.experts > 1) experts.emplace(stage, bound);
  std::optional<Model> model;
  const auto load_stage = [&](FunctionRef<bool()> called_off) -> std::optional<HeldLayers> {
    const ModelConfig config = config_of();
    ModelPart part{.stages = held_stages(layout, config, pipeline.rank()),
                   .called_off = called_off};
    try {
      if (experts) part.experts = experts->call_to_load(config, false);
      model = load(part);
      if (!model) return std::nullopt;
      if (experts) experts->attach_to(*model, [&] { return called_off(); });
    } catch (const Interrupted&) {
      return std::nullopt;
    }
    return HeldLayers{&*model, placement_of(layout, config)};
  };
  hold_layers(pipeline, 0, bound, load_stage);
  if (experts) experts->end();
}

}  // namespace

void hold_model_part(Communicator& world, const InferenceLayout& layout,
                     std::chrono::milliseconds bound, FunctionRef<ModelConfig()> config_of,
                     FunctionRef<std::optional<Model>(const ModelPart&)> load) {
  const std::unique_ptr<Communicator> stage = stage_of(world, layout);
  const std::unique_ptr<Communicator> pipeline = pipeline_of(world, layout);
  if (stage->rank() == 0) return hold_stage(*pipeline, *stage, layout, bound, config_of, load);
  hold_experts(*stage, bound, [&](const ExpertLoad& wanted) {
    return load({.stages = held_stages(layout, config_of(), world.rank() / layout.experts),
                 .experts = wanted.held,
                 .experts_alone = true,
                 .mtp = wanted.mtp,
                 .called_off = wanted.called_off});
  });
}

}  // namespace minke
