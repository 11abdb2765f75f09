// The mesh of ranks: pipeline x expert x data, written PxExD (the report, section 3.2). There is no
// tensor parallelism.
//
//   world rank = (p D + d) E + e          ranks of an expert group are neighbours, mostly on one
//   host data rank  q = d E + e                among the E D ranks of a stage
//
// The parameters of a stage that belong to no routed expert are replicated on its E D ranks, each
// of which has micro-batches of its own. The routed experts of a stage are spread over the E ranks
// of an expert group, and each share of them is replicated on D ranks.
#pragma once
#include <memory>
#include <string>

#include "parallel/communicator.h"
#include "tensor/view.h"

namespace minke {

struct MeshShape {
  int pipeline = 1, expert = 1, data = 1;

  std::int64_t n_ranks() const { return std::int64_t{pipeline} * expert * data; }
  int n_data_ranks() const { return expert * data; }
  bool operator==(const MeshShape&) const = default;
};
// "2x1x4". ConfigError for another text, or a size below 1.
MeshShape parse_mesh(const std::string& text);
std::string to_string(const MeshShape& shape);

struct MeshPlace {
  int pipeline = 0, expert = 0, data = 0;
  bool operator==(const MeshPlace&) const = default;
};
MeshPlace place_of(const MeshShape& shape, int world_rank);
int world_rank_of(const MeshShape& shape, const MeshPlace& place);
inline int data_rank_of(const MeshShape& shape, const MeshPlace& place) {
  return place.data * shape.expert + place.expert;
}

// [begin, end)
struct IndexRange {
  Index begin = 0, end = 0;
  Index size() const { return end - begin; }
  bool operator==(const IndexRange&) const = default;
};
// Part `part` of n things in n_parts contiguous parts: [part n / n_parts, (part + 1) n / n_parts).
// Micro-batches over data ranks and experts over an expert group are shared out so.
IndexRange share_of(Index n, int n_parts, int part);

// A rank's place and the communicators that it is in; their ranks are the coordinate that varies.
class Mesh {
 public:
  // Collective over `world`, which must outlive the mesh. ConfigError, on every rank, when the
  // shape does not have as many ranks as the world.
  Mesh(Communicator& world, const MeshShape& shape);

  const MeshShape& shape() const { return shape_; }
  const MeshPlace& place() const { return place_; }
  int data_rank() const { return data_rank_of(shape_, place_); }

  Communicator& world() const { return world_; }
  Communicator& pipeline() const { return *pipeline_; }          // rank p: same d and e
  Communicator& expert_group() const { return *expert_group_; }  // rank e: same p and d
  // Rank d: same p and e; replicas of a share of the routed experts.
  Communicator& expert_data_group() const { return *expert_data_group_; }
  // Rank q: same p; replicas of all other parameters of the stage.
  Communicator& data_group() const { return *data_group_; }

 private:
  Communicator& world_;
  const MeshShape shape_;
  const MeshPlace place_;
  std::unique_ptr<Communicator> pipeline_, expert_group_, expert_data_group_, data_group_;
};

}  // namespace minke
