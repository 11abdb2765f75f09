#include "train/spread_tensors.h"

#include <algorithm>

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

// The ranks that hold each tensor, rising.
std::map<std::string, std::vector<int>> holders(const TrainingLayout& layout,
                                                const ModelConfig& whole) {
  std::map<std::string, std::vector<int>> ranks;
  for (int rank = 0; rank < layout.mesh.n_ranks(); ++rank) {
    ModelConfig part = whole;
    hold_part(layout, place_of(layout.mesh, rank), part);
    for (const ParameterSpec& spec : tensors_of(part)) ranks[spec.name].push_back(rank);
  }
  return ranks;
}

}  // namespace

std::map<std::string, int> writers(const TrainingLayout& layout, const ModelConfig& whole) {
  const std::map<std::string, std::vector<int>> ranks = holders(layout, whole);
  std::vector<Index> elements(static_cast<std::size_t>(layout.mesh.n_ranks()));
  std::map<std::string, int> writers;
  for (const ParameterSpec& spec : tensors_of(whole)) {
    const auto written = [&](int rank) -> Index& {
      return elements[static_cast<std::size_t>(rank)];
    };
    const std::vector<int>& of_tensor = ranks.at(spec.name);
    const int writer = *std::min_element(of_tensor.begin(), of_tensor.end(),
                                         [&](int a, int b) { return written(a) < written(b); });
    written(writer) += element_count(spec.shape);
    writers.emplace(spec.name, writer);
  }
  return writers;
}

StatePart own_part(const std::map<std::string, int>& writers, int rank) {
  StatePart part{.number = -1, .n_parts = 0, .names = std::set<std::string>()};
  std::set<int> ranks;
  for (const auto& [name, writer] : writers) {
    ranks.insert(writer);
    if (writer == rank) part.names->insert(name);
  }
  part.n_parts = static_cast<int>(ranks.size());
  if (const auto own = ranks.find(rank); own != ranks.end())
    part.number = static_cast<int>(std::distance(ranks.begin(), own));
  return part;
}

namespace {

// On rank 0.
class AskedTensors final : public StateTensors {
 public:
  AskedTensors(Communicator& world, const TrainingLayout& layout, TrainState& state)
      : world_(world), state_(state), own_(state) {
    const ModelConfig whole = state.config.whole();
    for (const auto& [name, ranks] : holders(layout, whole)) first_ranks_[name] = ranks.front();
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
