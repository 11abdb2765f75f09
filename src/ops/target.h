// Target regions: code between BEGIN and END is compiled for that instruction set, whatever the
// flags of the file. All includes stay above the region, helpers inside it go into an anonymous
// namespace, and nothing inside calls inline functions of other headers (they could be linked
// elsewhere in this form).
#pragma once

#define MINKE_TARGET_AVX2_BEGIN \
  _Pragma("GCC push_options") _Pragma("GCC target(\"avx2,fma,f16c,bmi,bmi2,popcnt\")")
#define MINKE_TARGET_AVX2_END _Pragma("GCC pop_options")

#define MINKE_TARGET_AVX512_BEGIN                                              \
  _Pragma("GCC push_options") _Pragma(                                         \
      "GCC target(\"avx2,fma,f16c,bmi,bmi2,popcnt,avx512f,avx512bw,avx512dq,"  \
      "avx512vl,avx512vbmi,prefer-vector-width=512\")")
#define MINKE_TARGET_AVX512_END _Pragma("GCC pop_options")

#define MINKE_TARGET_AVX512_BF16_BEGIN                                         \
  _Pragma("GCC push_options") _Pragma(                                         \
      "GCC target(\"avx2,fma,f16c,bmi,bmi2,popcnt,avx512f,avx512bw,avx512dq,"  \
      "avx512vl,avx512vbmi,avx512bf16,prefer-vector-width=512\")")
#define MINKE_TARGET_AVX512_BF16_END _Pragma("GCC pop_options")

#define MINKE_TARGET_AMX_BEGIN                                                 \
  _Pragma("GCC push_options") _Pragma(                                         \
      "GCC target(\"avx2,fma,f16c,bmi,bmi2,popcnt,avx512f,avx512bw,avx512dq,"  \
      "avx512vl,avx512vbmi,avx512bf16,amx-tile,amx-bf16,amx-int8,prefer-vector-width=512\")")
#define MINKE_TARGET_AMX_END _Pragma("GCC pop_options")
