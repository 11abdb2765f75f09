#include "ops/isa.h"

#include <cpuid.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>

#include "base/error.h"

namespace minke {
namespace {

constexpr std::string_view kNames[] = {"scalar", "avx2", "avx512", "amx"};

struct Leaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Leaf cpuid(unsigned leaf, unsigned sub = 0) {
  Leaf r;
  if (!__get_cpuid_count(leaf, sub, &r.eax, &r.ebx, &r.ecx, &r.edx)) return {};
  return r;
}

bool bit(unsigned word, int i) { return (word >> i) & 1u; }

// State that the operating system saves on a context switch.
std::uint64_t saved_state() {
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (std::uint64_t{high} << 32) | low;
}

// Tile registers are granted once per process, on request.
bool request_amx() {
  constexpr long kArchReqXcompPerm = 0x1023, kXfeatureTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
}

std::string brand() {
  char text[49] = {};
  for (unsigned i = 0; i < 3; ++i) {
    const Leaf leaf = cpuid(0x80000002u + i);
    std::memcpy(text + 16 * i, &leaf, 16);
  }
  std::string name = text;
  name.erase(0, name.find_first_not_of(' '));
  name.erase(name.find_last_not_of(' ') + 1);
  return name;
}

std::string vendor() {
  const Leaf leaf = cpuid(0);
  char text[12];
  std::memcpy(text, &leaf.ebx, 4);
  std::memcpy(text + 4, &leaf.edx, 4);
  std::memcpy(text + 8, &leaf.ecx, 4);
  return {text, sizeof text};
}

std::size_t cache_bytes(int name) {
  const long bytes = sysconf(name);
  return bytes > 0 ? static_cast<std::size_t>(bytes) : 0;
}

CpuFeatures find_features() {
  CpuFeatures f;
  f.model = brand();
  f.l1d_bytes = cache_bytes(_SC_LEVEL1_DCACHE_SIZE);
  f.l2_bytes = cache_bytes(_SC_LEVEL2_CACHE_SIZE);
  f.l3_bytes = cache_bytes(_SC_LEVEL3_CACHE_SIZE);
  const Leaf one = cpuid(1), seven = cpuid(7), seven_one = cpuid(7, 1);
  if (!bit(one.ecx, 27)) return f;  // no xgetbv
  const std::uint64_t state = saved_state();
  const bool ymm = (state & 0x6) == 0x6, zmm = (state & 0xE6) == 0xE6, tiles = (state >> 17 & 3) == 3;
  f.avx2 = ymm && bit(one.ecx, 12) && bit(one.ecx, 29) && bit(seven.ebx, 5) && bit(seven.ebx, 8);
  f.avx512 = f.avx2 && zmm && bit(seven.ebx, 16) && bit(seven.ebx, 17) && bit(seven.ebx, 30) &&
             bit(seven.ebx, 31) && bit(seven.ecx, 1);
  f.avx512_vnni = f.avx512 && bit(seven.ecx, 11);
  f.avx512_bf16 = f.avx512 && bit(seven_one.eax, 5);
  f.full_rate_bf16 = f.avx512_bf16 && vendor() == "AuthenticAMD";
  f.amx = f.avx512_bf16 && tiles && bit(seven.edx, 24) && bit(seven.edx, 22) && request_amx();
  return f;
}

std::atomic<int>& choice() {
  static std::atomic<int> chosen{static_cast<int>(available_isas().back())};
  return chosen;
}

}  // namespace

std::string_view name_of(Isa isa) { return kNames[static_cast<int>(isa)]; }

Isa parse_isa(std::string_view name) {
  for (int i = 0; i < 4; ++i)
    if (kNames[i] == name) return static_cast<Isa>(i);
  throw ConfigError(fmt::format("instruction set \"{}\" is unknown; expected one of {}", name,
                                fmt::join(kNames, ", ")));
}

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = find_features();
  return features;
}

std::vector<Isa> available_isas() {
  const CpuFeatures& f = cpu_features();
  std::vector<Isa> isas{Isa::Scalar};
  if (f.avx2) isas.push_back(Isa::Avx2);
  if (f.avx512) isas.push_back(Isa::Avx512);
  if (f.amx) isas.push_back(Isa::Amx);
  return isas;
}

Isa chosen_isa() { return static_cast<Isa>(choice().load(std::memory_order_relaxed)); }

void choose_isa(Isa isa) {
  const std::vector<Isa> isas = available_isas();
  if (std::find(isas.begin(), isas.end(), isa) == isas.end()) {
    std::string names;
    for (Isa i : isas) names += fmt::format("{}{}", names.empty() ? "" : ", ", name_of(i));
    throw ConfigError(fmt::format("this processor ({}) has no {}; it can run {}",
                                  cpu_features().model, name_of(isa), names));
  }
  choice().store(static_cast<int>(isa));
}

}  // namespace minke
