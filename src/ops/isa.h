// Which instruction set the fast forms use: found at run time, or forced once at start (--isa).
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace minke {

enum class Isa { Scalar, Avx2, Avx512, Amx };  // each includes the ones before it

std::string_view name_of(Isa isa);  // "scalar", "avx2", "avx512", "amx"
Isa parse_isa(std::string_view name);  // ConfigError for another name

struct CpuFeatures {
  std::string model;      // "AMD EPYC ..." as the processor says
  bool avx2 = false;      // AVX2, FMA and F16C
  bool avx512 = false;    // F, BW, DQ, VL and VBMI
  bool avx512_bf16 = false, avx512_vnni = false;
  // vdpbf16ps, two multiply-adds a lane, issues as often as an FP32 multiply-add: so on AMD's
  // processors; Intel's take four times as long for it.
  bool full_rate_bf16 = false;
  bool amx = false;       // AMX-TILE and AMX-BF16, granted by the kernel
  std::size_t l1d_bytes = 0, l2_bytes = 0, l3_bytes = 0;
};
const CpuFeatures& cpu_features();

// The rows that this machine can run, Scalar first.
std::vector<Isa> available_isas();
// The best one unless choose_isa said otherwise.
Isa chosen_isa();
// ConfigError when this machine lacks it. To be called at start, or by tests between operations.
void choose_isa(Isa isa);

// A table of functions with a row per instruction set; a null row falls back to the next lower one.
template <class Kernels>
struct FormTable {
  const Kernels* scalar;
  const Kernels* avx2 = nullptr;
  const Kernels* avx512 = nullptr;
  const Kernels* amx = nullptr;

  const Kernels& at(Isa isa) const {
    if (isa >= Isa::Amx && amx) return *amx;
    if (isa >= Isa::Avx512 && avx512) return *avx512;
    if (isa >= Isa::Avx2 && avx2) return *avx2;
    return *scalar;
  }
  const Kernels& chosen() const { return at(chosen_isa()); }
};

}  // namespace minke
