/* The kernel set avx512bf16: the arithmetic class bf16, for KV in bf16 and fp8 and no other.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "codes_avx512.h"
#include "lanes_avx512.h"

#define SPL_SET_OTHER_CLASS
#include "kernels.c.inc"

#include "attend_bf16.c.inc"

static int64_t probe_dot_products(int64_t n_fma, float *sink) {
  enum { PER_ROUND = SPL_PROBE_CHAINS * SPL_LANES * 2 };
  const int64_t rounds = (n_fma + PER_ROUND - 1) / PER_ROUND;
  /* Every lane has a value of its own, so that no two chains can be computed as one. */
  float start[SPL_PROBE_CHAINS * SPL_LANES];
  for (int i = 0; i < SPL_PROBE_CHAINS * SPL_LANES; i++)
    start[i] = *sink + (float)i;
  const __m512i a = _mm512_set1_epi16(0x3f00), b = _mm512_set1_epi16(0x3e80); /* 0.5, 0.25 */
  __m512 acc[SPL_PROBE_CHAINS];
  SPL_UNROLL for (int i = 0; i < SPL_PROBE_CHAINS; i++) acc[i] = vf_load(start + i * SPL_LANES);
  for (int64_t r = 0; r < rounds; r++) {
    SPL_UNROLL for (int i = 0; i < SPL_PROBE_CHAINS; i++) acc[i] = dp(acc[i], a, b);
  }
  vf sum = acc[0];
  SPL_UNROLL for (int i = 1; i < SPL_PROBE_CHAINS; i++) sum = vf_add(sum, acc[i]);
  *sink = vf_sum(sum);
  return rounds * PER_ROUND;
}

const spl_kernel_set spl_kernels_avx512bf16 = {
    .name = "avx512bf16",
    .arithmetic = "bf16",
    .arithmetic_class = SPLITKV_ARITHMETIC_BF16,
    .isa = SPLITKV_ISA_AVX512BF16,
    .cpu_bits = SPL_CPU_AVX512_BF16 | SPL_CPU_AVX512 | SPL_CPU_FMA | SPL_CPU_F16C,
    .rounds_weights = 1,
    .needs_plain_codes = 1,
    .q_floats = q_floats,
    .wide_floats = wide_floats,
    .attend = {[SPL_DTYPE_BF16] = attend_bf16,
               [SPL_DTYPE_FP8_E4M3] = attend_e4m3,
               [SPL_DTYPE_FP8_E5M2] = attend_e5m2},
    .finish = finish_pairs,
    .normalize = normalize,
    .add_partial = add_partial,
    .end_sum = end_sum,
    .load_q = {load_q_terms_f32, load_q_terms_f16, load_q_terms_bf16},
    .store_row = {store_row_f32, store_row_f16, store_row_bf16},
    .append = append,
    .append_end = append_end,
    .load_rows = load_rows,
    .ask_for_rows = ask_for_rows,
    .probe_multiply_add = probe_dot_products,
    .probe_read = probe_read,
};
