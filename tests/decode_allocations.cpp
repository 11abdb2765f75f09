// A decode step takes no memory: once every size has been seen, neither the C library nor operator
// new is asked for any. The C library's functions are replaced here by ones that count.
//
// Which thread does what is chance, and each keeps its own small blocks. So every thread first does
// the same work once alone, and then all do it together.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <thread>

#include "base/test_directory.h"
#include "base/threads.h"
#include "infer/small_engine_model.h"
#include "infer/test_bench.h"
#include "io/convert.h"

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define MINKE_COUNTS_ALLOCATIONS 1
#else
#define MINKE_COUNTS_ALLOCATIONS 0
#endif

namespace {

std::atomic<bool> counting{false};
std::atomic<int> n_allocations{0};

}  // namespace

#if MINKE_COUNTS_ALLOCATIONS
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

// To stop at in a debugger.
__attribute__((noinline)) void note_allocation() {
  if (counting.load(std::memory_order_relaxed)) n_allocations.fetch_add(1);
}

void* malloc(std::size_t n) {
  note_allocation();
  return __libc_malloc(n);
}
void* calloc(std::size_t n, std::size_t size) {
  note_allocation();
  return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t n) {
  note_allocation();
  return __libc_realloc(p, n);
}
void* memalign(std::size_t alignment, std::size_t n) {
  note_allocation();
  return __libc_memalign(alignment, n);
}
void* aligned_alloc(std::size_t alignment, std::size_t n) {
  note_allocation();
  return __libc_memalign(alignment, n);
}
int posix_memalign(void** p, std::size_t alignment, std::size_t n) {
  note_allocation();
  *p = __libc_memalign(alignment, n);
  return *p ? 0 : ENOMEM;
}
}
#endif

namespace minke {
namespace {

constexpr Index kPrompt = 5, kNew = 100;  // tokens
constexpr Index kFirst = 10, kLast = 90;  // new tokens between which is counted: a page is filled

void start_counting() {
  n_allocations = 0;
  counting = true;
}
int stop_counting() {
  counting = false;
  return n_allocations;
}

// Large enough that the head's product is shared out over threads.
ModelConfig decode_config() {
  ModelConfig c = small_config(1);
  c.vocab_size = 4096;
  c.hidden_size = 128;
  c.intermediate_size = 160;
  c.moe_intermediate_size = 64;
  c.check("decode_config");
  return c;
}

struct WeightsAndCompute {
  const char* name;
  SaveDType saved;
  bool int4;
  Compute compute;
};
constexpr WeightsAndCompute kForms[] = {
    {"fp32", SaveDType::F32, false, Compute::Fp32},
    {"bf16", SaveDType::Bf16, false, Compute::Bf16},
    {"FP8 weights, bf16", SaveDType::Fp8, false, Compute::Bf16},
    {"FP8 weights, fp8", SaveDType::Fp8, false, Compute::Fp8},
    {"4-bit weights, bf16", SaveDType::Bf16, true, Compute::Bf16},
};

SamplerSettings every_setting() {
  return {.temperature = 0.8,
          .top_k = 40,
          .top_p = 0.95,
          .min_p = 0.01,
          .repetition_penalty = 1.1,
          .presence_penalty = 0.1,
          .frequency_penalty = 0.1,
          .seed = 5};
}

// f() on every thread of the pool at the same time.
template <class F>
void on_every_thread(F f) {
  std::atomic<int> here{0};
  parallel_for(n_threads(), [&](Index) {
    ++here;
    while (here < n_threads()) std::this_thread::yield();
    f();
  });
}

// f() while no other thread finds the pool free.
template <class F>
void with_the_pool_taken(F f) {
  std::atomic<bool> done{false};
  parallel_for(n_threads(), [&](Index i) {
    if (i == 0) {
      f();
      done = true;
    }
    while (!done) std::this_thread::yield();
  });
}

struct Threads {
  int n;
  const char* machine;  // hwloc's description
};

struct DecodeAllocations : TestDirectory, ::testing::WithParamInterface<Threads> {
  void SetUp() override {
    if (!MINKE_COUNTS_ALLOCATIONS)
      GTEST_SKIP() << "allocations are counted in the GNU C library without a sanitizer (which "
                      "keeps no freed blocks and has allocation functions of its own)";
    set_threads(GetParam().n);
    set_topology(Topology::synthetic(GetParam().machine));
  }
  void TearDown() override {
    set_topology(Topology::of_machine());
    set_threads(available_cores());
  }

  Model model_of(const WeightsAndCompute& form) {
    const ModelConfig c = decode_config();
    ModelParameters<Tensor> p = small_parameters(c);
    const auto at = dir / "model", int4 = dir / "int4";
    for (const auto& directory : {at, int4}) std::filesystem::remove_all(directory);
    std::filesystem::create_directory(at);
    save_model(at, c, p, form.saved);
    if (form.int4)
      convert_model({.model = at, .out = int4, .to = ConvertTo::Int4},
                    [](std::uint64_t, std::uint64_t) {});
    return load_model(form.int4 ? int4 : at, {.compute = form.compute});
  }
};

TEST_P(DecodeAllocations, AreSeen) {
  start_counting();
  for (void* volatile block : {std::malloc(3), operator new(3), std::aligned_alloc(64, 64)})
    std::free(block);
  EXPECT_EQ(stop_counting(), 3);
}

// One sequence: generate() as a user of one prompt calls it.
TEST_P(DecodeAllocations, NoneInAStepOfOneSequence) {
  for (const WeightsAndCompute& form : kForms)
    for (const std::optional<DType> cache : {std::optional<DType>(), {DType::F8_E4M3}}) {
      Model model = model_of(form);
      model.cache_dtype = cache;
      const Ids prompt = random_prompt(kPrompt, model.config.vocab_size, 1);
      const auto run = [&](const GenerationHooks& hooks) {
        Sequence sequence(model);
        GenerationSettings settings;
        settings.sampler = every_setting();
        settings.max_tokens = kNew;
        generate(model, sequence, prompt, settings, hooks);
      };
      on_every_thread([&] { run({}); });
      int n = 0, allocations = -1;
      run({.on_token = [&](std::int32_t) {
        if (++n == kFirst) start_counting();
        if (n == kLast) allocations = stop_counting();
        return true;
      }});
      EXPECT_EQ(allocations, 0) << form.name;
    }
}

// Counts from token kFirst to kLast of the choice it listens to.
class CountingSink : public RequestSink {
 public:
  explicit CountingSink(bool counts) : counts_(counts) {}
  void on_prompt(std::vector<ScoredToken>) override {}
  bool on_token(Index, ScoredToken) override {
    ++n_;
    if (counts_ && n_ == kFirst) start_counting();
    if (counts_ && n_ >= kLast && allocations < 0) allocations = stop_counting();
    return true;
  }
  void on_finish(Index, FinishReason) override {}
  void on_done(const RequestUsage&) override { done.set_value(); }

  int allocations = -1;
  std::promise<void> done;

 private:
  bool counts_;
  int n_ = 0;
};

GenerationRequest request_number(Index i, const Model& model) {
  SamplerSettings sampler = every_setting();
  sampler.seed += static_cast<std::uint64_t>(i);
  return request_of(random_prompt(kPrompt + i, model.config.vocab_size, 10 + i), kNew, sampler);
}

// Several requests in the batch engine, from submit() on; -> what the first one's sink counted.
int allocations_of(BatchEngine& engine, const Model& model, Index n_requests) {
  std::vector<std::shared_ptr<CountingSink>> sinks;
  std::vector<Submission> together;
  for (Index i = 0; i < n_requests; ++i) {
    sinks.push_back(std::make_shared<CountingSink>(i == 0));
    together.push_back({request_number(i, model), sinks.back()});
  }
  engine.submit_together(std::move(together));
  for (const auto& sink : sinks) sink->done.get_future().wait();
  return sinks.front()->allocations;
}

TEST_P(DecodeAllocations, NoneInAStepOfTheBatchEngine) {
  for (const WeightsAndCompute& form : kForms) {
    const Model model = model_of(form);
    for (const Drafting drafting : {Drafting::Off, Drafting::Always})
      for (const Index n : {1, 8}) {
        const BatchSettings settings{.max_batch = 8, .prefix_cache = false, .drafting = drafting};
        on_every_thread([&] {
          TestBench bench(model, settings);
          for (Index i = 0; i < n; ++i)
            bench.add(request_number(i, model), std::make_shared<CountingSink>(false));
          bench.run();
        });
        BatchEngine engine(model, settings);
        with_the_pool_taken([&] { allocations_of(engine, model, n); });
        EXPECT_EQ(allocations_of(engine, model, n), 0)
            << form.name << ", " << n << " sequences"
            << (drafting == Drafting::Off ? "" : ", with drafts");
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, DecodeAllocations,
                         ::testing::Values(Threads{1, "numa:1 pu:2"}, Threads{2, "numa:1 pu:2"},
                                           Threads{2, "numa:2 pu:1"}));

}  // namespace
}  // namespace minke
