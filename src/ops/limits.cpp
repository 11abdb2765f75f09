#include "ops/limits.h"

#include <immintrin.h>

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

double seconds_of(FunctionRef<void(Index)> of_thread) {
  const auto start = std::chrono::steady_clock::now();
  parallel_for(n_threads(), of_thread);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double flop_per_s(const Loop& loop) {
  const Index steps = loop.flop > 1000 ? 4000 : 100000;
  const double seconds = seconds_of([&](Index) { loop.run(steps); });
  return static_cast<double>(n_threads()) * static_cast<double>(steps) * kSums * loop.flop /
         seconds;
}

// `half` bytes from p and as many from p + half.
void read_two_streams(const char* p, Index half) {
  __m128i all = _mm_setzero_si128();
  for (Index i = 0; i + 64 <= half; i += 64)
    for (const char* q : {p + i, p + half + i}) {
      _mm_prefetch(q + 2048, _MM_HINT_T0);
#pragma GCC unroll 4
      for (int j = 0; j < 64; j += 16)
        all = _mm_xor_si128(all, _mm_load_si128(reinterpret_cast<const __m128i*>(q + j)));
    }
  __asm__ volatile("" : : "x"(all));
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

MemoryLimit::MemoryLimit(Index bytes) : memory_(Tensor::uninitialized(DType::U8, {bytes})) {
  std::memset(memory_.raw(), 1, memory_.bytes());
}

double MemoryLimit::read_bytes_per_s() const {
  const auto* p = static_cast<const char*>(memory_.raw());
  const Index half = static_cast<Index>(memory_.bytes()) / n_threads() / 2 / 64 * 64;
  const double seconds = seconds_of([&](Index t) { read_two_streams(p + t * 2 * half, half); });
  return static_cast<double>(2 * half * n_threads()) / seconds;
}

}  // namespace minke
