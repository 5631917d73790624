/* The kernel set avx512vnni: the arithmetic class int8, for KV in int8 and int4 and no other.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "codes_avx512.h"
#include "lanes_avx512.h"

#define SPL_SET_OTHER_CLASS
#define SPL_SET_TOKEN_ROWS
#include "kernels.c.inc"

#include "attend_int8.c.inc"

/* A multiply-add of the class is one of four products of bytes. */
static int64_t probe_dot_products(int64_t n_fma, float *sink) {
  enum { PER_ROUND = SPL_PROBE_CHAINS * SPL_LANES * 4 };
  const int64_t rounds = (n_fma + PER_ROUND - 1) / PER_ROUND;
  /* Every chain has a value of its own, so that no two can be computed as one. */
  __m512i acc[SPL_PROBE_CHAINS];
  SPL_UNROLL for (int i = 0; i < SPL_PROBE_CHAINS; i++) {
    acc[i] = _mm512_set1_epi32((int)*sink + i);
  }
  const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(1);
  for (int64_t r = 0; r < rounds; r++) {
    SPL_UNROLL for (int i = 0; i < SPL_PROBE_CHAINS; i++) acc[i] = dp(acc[i], a, b);
  }
  __m512i sum = acc[0];
  SPL_UNROLL for (int i = 1; i < SPL_PROBE_CHAINS; i++) sum = _mm512_xor_si512(sum, acc[i]);
  *sink = (float)_mm512_reduce_add_epi32(sum);
  return rounds * PER_ROUND;
}

const spl_kernel_set spl_kernels_avx512vnni = {
    .name = "avx512vnni",
    .arithmetic = "int8",
    .arithmetic_class = SPLITKV_ARITHMETIC_INT8,
    .isa = SPLITKV_ISA_AVX512VNNI,
    .cpu_bits = SPL_CPU_AVX512_VNNI | SPL_CPU_AVX512 | SPL_CPU_FMA | SPL_CPU_F16C,
    .needs_plain_codes = 1,
    .q_floats = q_floats,
    .attend = {[SPL_DTYPE_INT8] = attend_i8, [SPL_DTYPE_INT4] = attend_i4},
    .finish = finish,
    .normalize = normalize,
    .add_partial = add_partial,
    .end_sum = end_sum,
    .load_q = {load_q_digits_f32, load_q_digits_f16, load_q_digits_bf16},
    .store_row = {store_row_f32, store_row_f16, store_row_bf16},
    .load_rows = load_rows,
    .ask_for_rows = ask_for_rows,
    .append = append,
    .append_end = append_end,
    .probe_multiply_add = probe_dot_products,
    .probe_read = probe_read,
};
