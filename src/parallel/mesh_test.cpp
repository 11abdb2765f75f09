#include "parallel/mesh.h"

#include <set>

#include "base/test_directory.h"
#include "parallel/thread_ranks.h"

namespace minke {
namespace {

TEST(Mesh, PlacesFollowTheFormula) {
  const MeshShape shape{.pipeline = 3, .expert = 2, .data = 4};
  EXPECT_EQ(shape.n_ranks(), 24);
  std::set<int> ranks;
  for (int p = 0; p < 3; ++p)
    for (int d = 0; d < 4; ++d)
      for (int e = 0; e < 2; ++e) {
        const MeshPlace place{.pipeline = p, .expert = e, .data = d};
        const int rank = world_rank_of(shape, place);
        EXPECT_EQ(rank, (p * 4 + d) * 2 + e);
        EXPECT_EQ(place_of(shape, rank), place);
        EXPECT_EQ(data_rank_of(shape, place), rank - 8 * p);
        ranks.insert(rank);
      }
  EXPECT_EQ(ranks.size(), 24u);
}

TEST(Mesh, TextsBothWays) {
  EXPECT_EQ(parse_mesh("2x1x4"), (MeshShape{.pipeline = 2, .expert = 1, .data = 4}));
  EXPECT_EQ(to_string(parse_mesh("16x64x2")), "16x64x2");
  for (const char* text : {"", "2", "2x1", "2x1x", "x1x1", "2x1x4x1", "2x0x4", "2x-1x4", "2x1x4 ",
                           "2 x1x4", "2,1,4", "99999999999x1x1", "axbxc"})
    EXPECT_HOLDS(error_of([&] { (void)parse_mesh(text); }), "three sizes of at least 1") << text;
}

TEST(Mesh, SharesCoverWithoutOverlap) {
  for (const Index n : {0, 1, 7, 8, 64})
    for (const int parts : {1, 2, 3, 8}) {
      Index next = 0;
      for (int part = 0; part < parts; ++part) {
        const IndexRange range = share_of(n, parts, part);
        EXPECT_EQ(range.begin, next);
        EXPECT_LE(range.size(), n / parts + 1);
        next = range.end;
      }
      EXPECT_EQ(next, n);
    }
}

// Every group holds the ranks that it should, in the order of the coordinate that varies.
TEST(Mesh, GroupsOfThreadsHoldTheirRanks) {
  const MeshShape shape{.pipeline = 2, .expert = 2, .data = 3};
  run_ranks(12, [&](Communicator& world) {
    const Mesh mesh(world, shape);
    const auto expect_group = [&](Communicator& group, int size, auto place_at) {
      ASSERT_EQ(group.size(), size);
      std::vector<int> all(static_cast<std::size_t>(size));
      const int own = world.rank();
      Request request = group.all_gather(std::as_bytes(std::span(&own, 1)),
                                         std::as_writable_bytes(std::span(all)));
      wait(request);
      for (int r = 0; r < size; ++r) {
        MeshPlace place = mesh.place();
        place_at(place, r);
        EXPECT_EQ(all[static_cast<std::size_t>(r)], world_rank_of(shape, place));
      }
    };
    expect_group(mesh.pipeline(), 2, [](MeshPlace& at, int r) { at.pipeline = r; });
    expect_group(mesh.expert_group(), 2, [](MeshPlace& at, int r) { at.expert = r; });
    expect_group(mesh.expert_data_group(), 3, [](MeshPlace& at, int r) { at.data = r; });
    expect_group(mesh.data_group(), 6, [](MeshPlace& at, int r) {
      at.data = r / 2;
      at.expert = r % 2;
    });
    EXPECT_EQ(mesh.data_group().rank(), mesh.data_rank());
    EXPECT_EQ(mesh.pipeline().rank(), mesh.place().pipeline);
  });
}

TEST(Mesh, SizesThatDoNotMultiplyToTheWorld) {
  const auto error = [](MeshShape shape) { return error_of([&] { Mesh(*one_rank(), shape); }); };
  EXPECT_EQ(error({.pipeline = 2, .expert = 1, .data = 4}),
            "mesh is 2x1x4 (pipeline x expert x data), which takes 8 ranks, but 1 were started; "
            "start 8 or change the mesh");
  EXPECT_HOLDS(error({.pipeline = 0, .expert = 1, .data = 1}), "at least 1");
  EXPECT_THROW(run_ranks(3, [](Communicator& c) { Mesh(c, {.pipeline = 2}); }), ConfigError);
}

}  // namespace
}  // namespace minke
