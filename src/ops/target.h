// Target regions: code between BEGIN and END is compiled for that instruction set, whatever the
// flags of the file. All includes stay above the region, helpers inside it go into an anonymous
// namespace, and nothing inside calls inline functions of other headers (they could be linked
// elsewhere in this form).
#pragma once

#define MINKE_PRAGMA(text) _Pragma(#text)
#define MINKE_TARGET_BEGIN(...) MINKE_PRAGMA(GCC push_options) MINKE_PRAGMA(GCC target(__VA_ARGS__))
#define MINKE_TARGET_END MINKE_PRAGMA(GCC pop_options)

#define MINKE_AVX2_NAMES "avx2,fma,f16c,bmi,bmi2,popcnt"
#define MINKE_AVX512_NAMES \
  MINKE_AVX2_NAMES, "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,prefer-vector-width=512"

#define MINKE_TARGET_AVX2_BEGIN MINKE_TARGET_BEGIN(MINKE_AVX2_NAMES)
#define MINKE_TARGET_AVX2_END MINKE_TARGET_END

// gcc 12 warns wrongly where intrinsics leave unused lanes undefined (gcc bug 105593).
#define MINKE_QUIET_INTRINSICS                           \
  MINKE_PRAGMA(GCC diagnostic ignored "-Wuninitialized") \
  MINKE_PRAGMA(GCC diagnostic ignored "-Wmaybe-uninitialized")

#define MINKE_TARGET_AVX512_BEGIN MINKE_QUIET_INTRINSICS MINKE_TARGET_BEGIN(MINKE_AVX512_NAMES)
#define MINKE_TARGET_AVX512_END MINKE_TARGET_END

#define MINKE_TARGET_AVX512_BF16_BEGIN \
  MINKE_QUIET_INTRINSICS MINKE_TARGET_BEGIN(MINKE_AVX512_NAMES, "avx512bf16")
#define MINKE_TARGET_AVX512_BF16_END MINKE_TARGET_END

#define MINKE_TARGET_AMX_BEGIN \
  MINKE_QUIET_INTRINSICS       \
  MINKE_TARGET_BEGIN(MINKE_AVX512_NAMES, "avx512bf16,amx-tile,amx-bf16,amx-int8")
#define MINKE_TARGET_AMX_END MINKE_TARGET_END
