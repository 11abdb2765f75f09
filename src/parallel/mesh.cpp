#include "parallel/mesh.h"

#include <fmt/format.h>

#include <charconv>

namespace minke {
namespace {

[[noreturn]] void refuse(const std::string& text) {
  throw ConfigError(fmt::format(
      "mesh is '{}', but must be three sizes of at least 1, pipeline x expert x data, as 2x1x4",
      text));
}

const MeshShape& checked(const MeshShape& shape, int n_ranks) {
  if (shape.pipeline < 1 || shape.expert < 1 || shape.data < 1) refuse(to_string(shape));
  if (shape.n_ranks() != n_ranks)
    throw ConfigError(fmt::format(
        "mesh is {} (pipeline x expert x data), which takes {} ranks, but {} were started; start "
        "{} or change the mesh",
        to_string(shape), shape.n_ranks(), n_ranks, shape.n_ranks()));
  return shape;
}

}  // namespace

MeshShape parse_mesh(const std::string& text) {
  MeshShape shape;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (int* size : {&shape.pipeline, &shape.expert, &shape.data}) {
    if (size != &shape.pipeline && (at == end || *at++ != 'x')) refuse(text);
    const auto [rest, error] = std::from_chars(at, end, *size);
    if (error != std::errc{} || *size < 1) refuse(text);
    at = rest;
  }
  if (at != end) refuse(text);
  return shape;
}

std::string to_string(const MeshShape& shape) {
  return fmt::format("{}x{}x{}", shape.pipeline, shape.expert, shape.data);
}

MeshPlace place_of(const MeshShape& shape, int world_rank) {
  return {.pipeline = world_rank / shape.n_data_ranks(),
          .expert = world_rank % shape.expert,
          .data = world_rank / shape.expert % shape.data};
}

int world_rank_of(const MeshShape& shape, const MeshPlace& place) {
  return (place.pipeline * shape.data + place.data) * shape.expert + place.expert;
}

IndexRange share_of(Index n, int n_parts, int part) {
  return {n * part / n_parts, n * (part + 1) / n_parts};
}

Mesh::Mesh(Communicator& world, const MeshShape& shape)
    : world_(world),
      shape_(checked(shape, world.size())),
      place_(place_of(shape_, world.rank())),
      pipeline_(world.split(data_rank_of(shape_, place_), place_.pipeline)),
      expert_group_(world.split(place_.pipeline * shape_.data + place_.data, place_.expert)),
      expert_data_group_(world.split(place_.pipeline * shape_.expert + place_.expert, place_.data)),
      data_group_(world.split(place_.pipeline, data_rank_of(shape_, place_))) {}

}  // namespace minke
