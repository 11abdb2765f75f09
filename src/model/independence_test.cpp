// A row's bits depend on its own sequence and the attention form alone: not on what else is in the
// batch, how the prompt was cut, or the number of threads (docs/architecture.md, "Numbers").
#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "base/threads.h"
#include "model/cached_forward.h"
#include "model/checkpoint.h"
#include "ops/isa.h"

namespace minke {
namespace {

std::vector<std::int32_t> prompt(Index n, Index vocabulary, Index seed) {
  std::vector<std::int32_t> ids;
  for (Index i = 0; i < n; ++i)
    ids.push_back(static_cast<std::int32_t>((i * i * 7 + i * 13 + seed * 31 + 5) % vocabulary));
  return ids;
}

// States of a prompt that is cut into pieces of `chunk`.
Tensor in_pieces(const Model& model, const std::vector<std::int32_t>& ids, Index chunk,
                 AttentionForm form) {
  SequenceCache cache(model.config, cache_dtype(model.compute));
  const Index n = static_cast<Index>(ids.size());
  cache.reserve(n);
  Tensor all = Tensor::uninitialized({n, model.config.hidden_size});
  for (Index at = 0; at < n; at += chunk) {
    const Segment segment{&cache, std::min(chunk, n - at), form};
    const Tensor h =
        cached_forward(model,
                       std::span(ids).subspan(static_cast<std::size_t>(at),
                                              static_cast<std::size_t>(segment.n_tokens)),
                       {&segment, 1});
    std::memcpy(&all.v2()(at, 0), h.raw(), h.bytes());
  }
  return all;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

class Independence : public testing::TestWithParam<Compute> {};

TEST_P(Independence, OfChunksThreadsAndNeighboursOnEveryInstructionSet) {
  for (const char* name : {"tiny-fp8", "tiny-grouped", "tiny-noqlora"}) {
    for (Isa isa : available_isas()) {
      choose_isa(isa);
      const Model model =
          load_model(std::filesystem::path(MINKE_GOLDEN_DIR) / name, {.compute = GetParam()});
      const auto ids = prompt(150, model.config.vocab_size, 1);
      for (AttentionForm form : {AttentionForm::Absorbed, AttentionForm::Expanded}) {
        const Tensor whole = in_pieces(model, ids, 150, form);
        for (Index chunk : {1, 7, 64, 100})
          EXPECT_TRUE(same_bits(whole, in_pieces(model, ids, chunk, form)))
              << name << " " << name_of(isa) << " chunk " << chunk;
        for (int threads : {1, 2, 3}) {
          set_threads(threads);
          EXPECT_TRUE(same_bits(whole, in_pieces(model, ids, 150, form)))
              << name << " " << name_of(isa) << " threads " << threads;
        }
        set_threads(available_cores());

        // Among other sequences, of other lengths, in one call.
        const auto before = prompt(33, model.config.vocab_size, 2);
        const auto after = prompt(5, model.config.vocab_size, 3);
        std::vector<std::int32_t> all = before;
        all.insert(all.end(), ids.begin(), ids.end());
        all.insert(all.end(), after.begin(), after.end());
        std::vector<std::unique_ptr<SequenceCache>> caches;
        std::vector<Segment> segments;
        for (Index n : {33, 150, 5}) {
          caches.push_back(
              std::make_unique<SequenceCache>(model.config, cache_dtype(model.compute)));
          caches.back()->reserve(n);
          segments.push_back({caches.back().get(), n, form});
        }
        const Tensor together = cached_forward(model, all, segments);
        EXPECT_EQ(0, std::memcmp(&together.v2()(33, 0), whole.raw(), whole.bytes()))
            << name << " " << name_of(isa) << " in a batch";
      }
      choose_isa(available_isas().back());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Computes, Independence,
                         testing::Values(Compute::Fp32, Compute::Bf16, Compute::Fp8),
                         [](const auto& info) { return std::string(name_of(info.param)); });

}  // namespace
}  // namespace minke
