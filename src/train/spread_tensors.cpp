#include "train/spread_tensors.h"

namespace minke {
namespace {

constexpr int kAsk = 1, kAnswer = 2;  // tags

struct Question {
  std::int64_t tensor = -1;  // of the whole model, in visiting order; -1: no more questions
  StateKind kind = StateKind::Master;
};

std::span<std::byte> bytes_of(Question& question) {
  return std::as_writable_bytes(std::span(&question, 1));
}

std::vector<ParameterSpec> tensors_of(const ModelConfig& config) {
  std::vector<ParameterSpec> specs;
  ModelParameters<int> unused;
  visit_parameters(config, unused, [&](const ParameterSpec& spec, int&) { specs.push_back(spec); });
  return specs;
}

// The first rank that holds each tensor; data rank 0 of a stage holds what the others do.
std::map<std::string, int> first_ranks(const TrainingLayout& layout, const ModelConfig& whole) {
  std::map<std::string, int> ranks;
  for (int rank = 0; rank < layout.mesh.n_ranks(); ++rank) {
    const MeshPlace place = place_of(layout.mesh, rank);
    if (place.data > 0) continue;
    ModelConfig part = whole;
    hold_part(layout, place, part);
    for (const ParameterSpec& spec : tensors_of(part)) ranks.try_emplace(spec.name, rank);
  }
  return ranks;
}

}  // namespace

StatePart own_part(const TrainingLayout& layout, const ModelConfig& whole, int rank) {
  StatePart part{.number = -1, .n_parts = 0, .names = std::set<std::string>()};
  std::set<int> writers;
  for (const auto& [name, first] : first_ranks(layout, whole)) {
    writers.insert(first);
    if (first == rank) part.names->insert(name);
  }
  part.n_parts = static_cast<int>(writers.size());
  if (const auto own = writers.find(rank); own != writers.end())
    part.number = static_cast<int>(std::distance(writers.begin(), own));
  return part;
}

namespace {

// On rank 0.
class AskedTensors final : public StateTensors {
 public:
  AskedTensors(Communicator& world, const TrainingLayout& layout, TrainState& state)
      : world_(world), state_(state), own_(state) {
    const ModelConfig whole = state.config.whole();
    first_ranks_ = first_ranks(layout, whole);
    for (const ParameterSpec& spec : tensors_of(whole))
      number_.emplace(spec.name, static_cast<std::int64_t>(number_.size()));
  }

  const Tensor& get(StateKind kind, const ParameterSpec& spec) override {
    const int rank = first_ranks_.at(spec.name);
    if (rank == 0) return own_.get(kind, spec);
    ask({number_.at(spec.name), kind}, rank);
    answer_ = Tensor::uninitialized(dtype_in(state_, kind, spec), spec.shape);
    Request request =
        world_.receive({static_cast<std::byte*>(answer_.raw()), answer_.bytes()}, rank, kAnswer);
    wait(request);
    return answer_;
  }

  void end() {
    for (int rank = 1; rank < world_.size(); ++rank) ask({}, rank);
  }

 private:
  void ask(Question question, int rank) {
    Request request = world_.send(bytes_of(question), rank, kAsk);
    wait(request);
  }

  Communicator& world_;
  TrainState& state_;
  LocalTensors own_;
  std::map<std::string, int> first_ranks_;
  std::map<std::string, std::int64_t> number_;
  Tensor answer_;
};

void answer_questions(Communicator& world, TrainState& state) {
  LocalTensors own(state);
  const std::vector<ParameterSpec> specs = tensors_of(state.config.whole());
  while (true) {
    Question question;
    Request request = world.receive(bytes_of(question), 0, kAsk);
    wait(request);
    if (question.tensor < 0) return;
    const Tensor& tensor = own.get(question.kind, specs[static_cast<std::size_t>(question.tensor)]);
    request = world.send({static_cast<const std::byte*>(tensor.raw()), tensor.bytes()}, 0, kAnswer);
    wait(request);
  }
}

}  // namespace

void with_spread_tensors(Communicator& world, const TrainingLayout& layout, TrainState& state,
                         FunctionRef<void(StateTensors&)> f) {
  if (world.rank() > 0) return answer_questions(world, state);
  AskedTensors tensors(world, layout, state);
  f(tensors);
  tensors.end();
}

}  // namespace minke
