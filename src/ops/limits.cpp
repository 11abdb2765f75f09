#include "ops/limits.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/threads.h"
#include "ops/isa.h"
#include "ops/target.h"

namespace minke {
namespace {

constexpr int kSums = 24;  // enough chains to hide the latency on every processor so far

// Each loop does `steps` steps of kSums instructions. The operands pass through empty assembly, so
// that the compiler can neither drop nor merge the steps.
#define MINKE_REGISTER_LOOP(Vec, zero, operand, instruction)                        \
  Vec sums[kSums];                                                                  \
  for (Vec & s : sums) s = zero;                                                    \
  auto a = operand;                                                                 \
  for (Index i = 0; i < steps; ++i) {                                               \
    _Pragma("GCC unroll 24") for (int j = 0; j < kSums; ++j) sums[j] = instruction; \
    __asm__ volatile("" : "+v"(a));                                                 \
  }                                                                                 \
  for (Vec & s : sums) __asm__ volatile("" : : "v"(s))

void scalar_loop(Index steps) {
  float sums[kSums] = {}, a = 1.0f;
  for (Index i = 0; i < steps; ++i) {
#pragma GCC unroll 24
    for (int j = 0; j < kSums; ++j) sums[j] += a * a;
    __asm__ volatile("" : "+x"(a));
  }
  for (float& s : sums) __asm__ volatile("" : : "x"(s));
}

}  // namespace
}  // namespace minke

MINKE_TARGET_AVX2_BEGIN
namespace minke {
namespace {
// 12 of 16 registers: twice for a step.
void avx2_loop(Index steps) {
  __m256 sums[12];
  for (__m256& s : sums) s = _mm256_setzero_ps();
  __m256 a = _mm256_set1_ps(1.0f);
  for (Index i = 0; i < 2 * steps; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) sums[j] = _mm256_fmadd_ps(a, a, sums[j]);
    __asm__ volatile("" : "+x"(a));
  }
  for (__m256& s : sums) __asm__ volatile("" : : "x"(s));
}
}  // namespace
}  // namespace minke
MINKE_TARGET_AVX2_END

MINKE_TARGET_AVX512_BEGIN
namespace minke {
namespace {
void avx512_loop(Index steps) {
  MINKE_REGISTER_LOOP(__m512, _mm512_setzero_ps(), _mm512_set1_ps(1.0f),
                      _mm512_fmadd_ps(a, a, sums[j]));
}
}  // namespace
}  // namespace minke
MINKE_TARGET_AVX512_END

MINKE_TARGET_AVX512_BF16_BEGIN
namespace minke {
namespace {
void avx512_bf16_loop(Index steps) {
  MINKE_REGISTER_LOOP(__m512, _mm512_setzero_ps(), _mm512_set1_epi32(0x3F803F80),
                      _mm512_dpbf16_ps(sums[j], (__m512bh)a, (__m512bh)a));
}
}  // namespace
}  // namespace minke
MINKE_TARGET_AVX512_BF16_END

namespace minke {
namespace {

// Four tiles of sums, tiles of zeros: kSums instructions a step.
void amx_loop(Index steps) {
  struct alignas(64) Shapes {
    std::uint8_t palette = 1, rest[15] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  const Shapes shapes;
  __asm__ volatile("ldtilecfg %0" ::"m"(shapes));
  for (Index i = 0; i < steps; ++i)
    for (int j = 0; j < kSums; j += 4)
      __asm__ volatile(
          "tdpbf16ps %tmm7, %tmm6, %tmm0\n\ttdpbf16ps %tmm7, %tmm6, %tmm1\n\t"
          "tdpbf16ps %tmm7, %tmm6, %tmm2\n\ttdpbf16ps %tmm7, %tmm6, %tmm3");
  __asm__ volatile("tilerelease");
}

struct Loop {
  void (*run)(Index steps);
  double flop;  // of one instruction
  std::string_view name;
};

Loop fp32_loop() {
  const Isa isa = chosen_isa();
  if (isa >= Isa::Avx512) return {avx512_loop, 32, "AVX-512 FMA"};
  if (isa >= Isa::Avx2) return {avx2_loop, 16, "AVX2 FMA"};
  return {scalar_loop, 2, "scalar multiply and add"};
}

Loop bf16_loop() {
  if (chosen_isa() == Isa::Amx) return {amx_loop, 16 * 16 * 64, "AMX tdpbf16ps"};
  if (chosen_isa() == Isa::Avx512 && cpu_features().avx512_bf16)
    return {avx512_bf16_loop, 64, "vdpbf16ps"};
  return fp32_loop();
}

double seconds_of(FunctionRef<void()> work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double flop_per_s(const Loop& loop) {
  const Index steps = loop.flop > 1000 ? 4000 : 100000;
  const double seconds =
      seconds_of([&] { parallel_for(n_threads(), [&](Index) { loop.run(steps); }); });
  return static_cast<double>(n_threads()) * static_cast<double>(steps) * kSums * loop.flop /
         seconds;
}

// kStreams streams of `part` bytes each, one behind the other in memory and read in turn.
template <int kStreams>
void read_streams(const char* p, Index part) {
  __m128i all = _mm_setzero_si128();
  for (Index i = 0; i + 64 <= part; i += 64)
    for (int s = 0; s < kStreams; ++s) {
      const char* q = p + s * part + i;
      _mm_prefetch(q + 2048, _MM_HINT_T0);
#pragma GCC unroll 4
      for (int j = 0; j < 64; j += 16)
        all = _mm_xor_si128(all, _mm_load_si128(reinterpret_cast<const __m128i*>(q + j)));
    }
  __asm__ volatile("" : : "x"(all));
}

void update(char* p, Index n) {
  const __m128i ones = _mm_set1_epi8(1);
  for (Index i = 0; i < n; i += 16) {
    auto* q = reinterpret_cast<__m128i*>(p + i);
    _mm_store_si128(q, _mm_xor_si128(_mm_load_si128(q), ones));
  }
}

}  // namespace

double fp32_flop_per_s() {
  return flop_per_s(fp32_loop());
}
double bf16_flop_per_s() {
  return flop_per_s(bf16_loop());
}
std::string_view bf16_limit_name() {
  return bf16_loop().name;
}

// Shared out over the homes of threads as weights are.
MemoryLimit::MemoryLimit(Index bytes) : memory_(Tensor::uninitialized(DType::U8, {bytes})) {
  constexpr Index kPage = 4096;
  auto* p = static_cast<char*>(memory_.raw());
  const EvenParts pages{bytes / kPage, n_homes()};
  if (pages.parts > 1 && reinterpret_cast<std::uintptr_t>(p) % kPage == 0)
    for (Index home = 0; home < pages.parts; ++home)
      topology().place_memory(
          p + pages.begin(home) * kPage,
          static_cast<std::size_t>((pages.end(home) - pages.begin(home)) * kPage), home);
  parallel_for_at_home(n_threads(), [&, part = EvenParts{bytes, n_threads()}](Index t) {
    std::memset(p + part.begin(t), 1, static_cast<std::size_t>(part.end(t) - part.begin(t)));
  });
}

// Whole cache lines of one of `n` equal parts.
Index MemoryLimit::part(Index n) const {
  return static_cast<Index>(memory_.bytes()) / n / 64 * 64;
}

double MemoryLimit::read(int streams) const {
  const auto* p = static_cast<const char*>(memory_.raw());
  const Index part = this->part(n_threads() * streams);
  const auto reader = streams == 1   ? read_streams<1>
                      : streams == 2 ? read_streams<2>
                                     : read_streams<4>;
  MINKE_ASSERT(streams == 1 || streams == 2 || streams == 4);
  parallel_for_at_home(n_threads(), [&](Index t) { reader(p + t * streams * part, part); });
  return static_cast<double>(part * streams * n_threads());
}

double MemoryLimit::read_bytes_per_s() const {
  double best = 0;
  for (const int streams : kStreams) {
    double bytes = 0;
    const double seconds = seconds_of([&] { bytes = read(streams); });
    best = std::max(best, bytes / seconds);
  }
  return best;
}

double MemoryLimit::copy() {
  auto* p = static_cast<char*>(memory_.raw());
  const Index half = part(2 * n_threads());
  parallel_for_at_home(n_threads(), [&](Index t) {
    char* from = p + 2 * t * half;
    std::memcpy(from + half, from, static_cast<std::size_t>(half));
  });
  return static_cast<double>(2 * half * n_threads());
}

double MemoryLimit::update() {
  auto* p = static_cast<char*>(memory_.raw());
  const Index part = this->part(n_threads());
  parallel_for_at_home(n_threads(), [&](Index t) { minke::update(p + t * part, part); });
  return static_cast<double>(2 * part * n_threads());
}

}  // namespace minke
