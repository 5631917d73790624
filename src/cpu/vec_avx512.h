/* The vector vocabulary on AVX-512 (F, BW, DQ, VL): one register is one vf.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CPU_VEC_AVX512_H
#define SPL_CPU_VEC_AVX512_H

#include <immintrin.h>

#include "vec_common.h"

typedef __m512 vf;

#define SPL_QK_ACC 16
#define SPL_QK_HEADS 4
#define SPL_PV_ACC 16
#define SPL_PROBE_CHAINS 16

SPL_INLINE __mmask16 vf_tail_mask(int n) {
  return (__mmask16)((1u << n) - 1u);
}

SPL_INLINE vf vf_set1(float x) {
  return _mm512_set1_ps(x);
}
SPL_INLINE vf vf_load(const float *p) {
  return _mm512_loadu_ps(p);
}
SPL_INLINE void vf_store(float *p, vf x) {
  _mm512_storeu_ps(p, x);
}
SPL_INLINE vf vf_load_tail(const float *p, int n) {
  return _mm512_maskz_loadu_ps(vf_tail_mask(n), p);
}
SPL_INLINE void vf_store_tail(float *p, vf x, int n) {
  _mm512_mask_storeu_ps(p, vf_tail_mask(n), x);
}
SPL_INLINE vf vf_load_f16(const uint16_t *p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
SPL_INLINE vf vf_from_bf16(__m256i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
SPL_INLINE vf vf_load_bf16(const uint16_t *p) {
  return vf_from_bf16(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
SPL_INLINE vf vf_load_f16_tail(const uint16_t *p, int n) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vf_tail_mask(n), p));
}
SPL_INLINE vf vf_load_bf16_tail(const uint16_t *p, int n) {
  return vf_from_bf16(_mm256_maskz_loadu_epi16(vf_tail_mask(n), p));
}

SPL_INLINE vf vf_add(vf a, vf b) {
  return _mm512_add_ps(a, b);
}
SPL_INLINE vf vf_sub(vf a, vf b) {
  return _mm512_sub_ps(a, b);
}
SPL_INLINE vf vf_mul(vf a, vf b) {
  return _mm512_mul_ps(a, b);
}
SPL_INLINE vf vf_div(vf a, vf b) {
  return _mm512_div_ps(a, b);
}
SPL_INLINE vf vf_max(vf a, vf b) {
  return _mm512_max_ps(a, b);
}
SPL_INLINE vf vf_fma(vf a, vf b, vf c) {
  return _mm512_fmadd_ps(a, b, c);
}
SPL_INLINE vf vf_rint(vf x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
SPL_INLINE vf vf_select_lt(vf a, vf b, vf x, vf y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
SPL_INLINE int vf_any_gt(vf a, vf b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0;
}
SPL_INLINE vf vf_canonical(vf x) {
  return _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q),
                            _mm512_set1_ps(scalar_from_bits(0x7fc00000u)));
}
SPL_INLINE vf vf_scale(vf x, vf n) {
  return _mm512_scalef_ps(x, n);
}

SPL_INLINE void vf_to_f16(uint16_t *p, vf x) {
  const __m256i h = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  _mm256_storeu_si256((__m256i *)(void *)p,
                      _mm256_mask_mov_epi16(h, nan, _mm256_set1_epi16(0x7e00)));
}
SPL_INLINE void vf_to_bf16(uint16_t *p, vf x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i r =
      _mm512_mask_mov_epi32(_mm512_srli_epi32(up, 16), nan, _mm512_set1_epi32(0x7fc0));
  _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(r));
}

SPL_INLINE float vf_hmax(vf x) {
  return _mm512_reduce_max_ps(x);
}

/* One level of the tree for two vectors at once: lo and hi pick the lanes to be added. */
#define VF_FOLD_BLOCKS(a, b, lo, hi)                                                               \
  _mm512_add_ps(_mm512_shuffle_f32x4(a, b, lo), _mm512_shuffle_f32x4(a, b, hi))
#define VF_FOLD_LANES(a, b, lo, hi)                                                                \
  _mm512_add_ps(_mm512_shuffle_ps(a, b, lo), _mm512_shuffle_ps(a, b, hi))

/* Lane 4b+e of the result = the tree sum of x[4e+b]: 15 levels of two vectors each. */
SPL_INLINE vf vf_sums16(const vf *x) {
  vf p[8], r[4], u[2];
  SPL_UNROLL for (int i = 0; i < 8; i++) p[i] = VF_FOLD_BLOCKS(x[2 * i], x[2 * i + 1], 0x44, 0xee);
  SPL_UNROLL for (int i = 0; i < 4; i++) r[i] = VF_FOLD_BLOCKS(p[2 * i], p[2 * i + 1], 0x88, 0xdd);
  SPL_UNROLL for (int i = 0; i < 2; i++) u[i] = VF_FOLD_LANES(r[2 * i], r[2 * i + 1], 0x44, 0xee);
  return VF_FOLD_LANES(u[0], u[1], 0x88, 0xdd);
}

SPL_INLINE float vf_sum(vf x) {
  const __m512 r8 = _mm512_add_ps(x, _mm512_shuffle_f32x4(x, x, 0xee));
  const __m512 r4 = _mm512_add_ps(r8, _mm512_shuffle_f32x4(r8, r8, 0x55));
  const __m128 r2 =
      _mm_add_ps(_mm512_castps512_ps128(r4),
                 _mm_movehl_ps(_mm512_castps512_ps128(r4), _mm512_castps512_ps128(r4)));
  return _mm_cvtss_f32(_mm_add_ss(r2, _mm_movehdup_ps(r2)));
}

/* nh * nt <= 16 and nt one of 4, 8, 16. */
SPL_INLINE void vf_store_sums(float *dst, int64_t stride, const vf *acc, int nh, int nt, float c) {
  vf x[16];
  SPL_UNROLL for (int b = 0; b < 4; b++) {
    SPL_UNROLL for (int e = 0; e < 4; e++) {
      x[4 * e + b] = 4 * b + e < nh * nt ? acc[4 * b + e] : _mm512_setzero_ps();
    }
  }
  const vf s = _mm512_mul_ps(vf_sums16(x), _mm512_set1_ps(c));
  if (nt == 16) {
    _mm512_storeu_ps(dst, s);
  } else if (nt == 8) {
    _mm256_storeu_ps(dst, _mm512_castps512_ps256(s));
    if (nh > 1) _mm256_storeu_ps(dst + stride, _mm512_extractf32x8_ps(s, 1));
  } else {
    _mm_storeu_ps(dst, _mm512_castps512_ps128(s));
    if (nh > 1) _mm_storeu_ps(dst + stride, _mm512_extractf32x4_ps(s, 1));
    if (nh > 2) _mm_storeu_ps(dst + 2 * stride, _mm512_extractf32x4_ps(s, 2));
    if (nh > 3) _mm_storeu_ps(dst + 3 * stride, _mm512_extractf32x4_ps(s, 3));
  }
}

#endif
