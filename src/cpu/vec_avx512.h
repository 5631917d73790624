/* The vector vocabulary on AVX-512 (F, BW, DQ, VL): one register is one vf.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CPU_VEC_AVX512_H
#define SPL_CPU_VEC_AVX512_H

#include <immintrin.h>

#include "vec_common.h"

typedef __m512 vf;

#define SPL_BLOCK_HEADS(X) X(6) X(5) X(4) X(3) X(2) X(1)
#define SPL_MAX_BLOCK_HEADS 6
#define SPL_VALUE_ACC 12
#define SPL_VALUE_VECTORS(nh) ((nh) == 1 ? 8 : (nh) < 4 ? 4 : (nh) == 4 ? 3 : 2)
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
/* *a * b + c. In memory form: a broadcast of its own would take a place in the pipes that multiply,
 * an operand that the multiplication loads does not; compilers make one broadcast of equal ones. */
SPL_INLINE vf vf_fma_each(const float *a, vf b, vf c) {
  __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(c) : "v"(b), "m"(*a));
  return c;
}
SPL_INLINE vf vf_rint(vf x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
SPL_INLINE vf vf_select_lt(vf a, vf b, vf x, vf y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
/* Lane i where bit i is set, -inf elsewhere. */
SPL_INLINE vf vf_hide(vf x, uint32_t bits) {
  return _mm512_mask_blend_ps((__mmask16)bits, _mm512_set1_ps(-INFINITY), x);
}
SPL_INLINE int vf_any_gt(vf a, vf b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0;
}
SPL_INLINE vf vf_canonical(vf x) {
  return _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q),
                            _mm512_set1_ps(scalar_from_bits(0x7fc00000u)));
}
/* x * 2^n for integral n, 0 where exponent < -125; NaN where it is NaN. */
SPL_INLINE vf vf_scale(vf x, vf n, vf exponent) {
  const __mmask16 keep = _mm512_cmp_ps_mask(exponent, _mm512_set1_ps(-125.0f), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(keep, x, n);
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

SPL_INLINE float vf_sum(vf x) {
  const __m512 r8 = _mm512_add_ps(x, _mm512_shuffle_f32x4(x, x, 0xee));
  const __m512 r4 = _mm512_add_ps(r8, _mm512_shuffle_f32x4(r8, r8, 0x55));
  const __m128 r2 =
      _mm_add_ps(_mm512_castps512_ps128(r4),
                 _mm_movehl_ps(_mm512_castps512_ps128(r4), _mm512_castps512_ps128(r4)));
  return _mm_cvtss_f32(_mm_add_ss(r2, _mm_movehdup_ps(r2)));
}

/* ── dot products: a vd holds those of two tokens, SPL_DOT_LANES lanes each ────────────────── */

typedef __m512 vd;
#define VD_TOKENS 2 /* rows whose products one vd holds */
#define VD_MAX_ACC 24
#define VD_MAX_VECTORS 4
#define VD_SCORE_VECTORS(nh) 4
/* Vectors 0-3 hold tokens 0-3 and, in their second halves, 4-7. */
#define VD_ROW_TOKEN(i) ((i) / 2 + (i) % 2 * 4)
#define VD_ROWS(rows, v, c) (rows)[2 * (v)] + (c), (rows)[2 * (v) + 1] + (c)

SPL_INLINE vd vd_zero(void) {
  return _mm512_setzero_ps();
}
SPL_INLINE vd vd_fma(vd a, vd b, vd c) {
  return _mm512_fmadd_ps(a, b, c);
}
SPL_INLINE vd vd_load_q(const float *q) {
  return _mm512_loadu_ps(q);
}

SPL_INLINE vd vd_join(__m256 a, __m256 b) {
  return _mm512_insertf32x8(_mm512_castps256_ps512(a), b, 1);
}
SPL_INLINE __m256i vd_join_halfwords(__m128i a, __m128i b) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}
SPL_INLINE __m256i vd_halfwords(const uint16_t *p0, const uint16_t *p1) {
  return vd_join_halfwords(_mm_loadu_si128((const __m128i *)(const void *)p0),
                           _mm_loadu_si128((const __m128i *)(const void *)p1));
}
SPL_INLINE __m256i vd_tail_halfwords(const uint16_t *p0, const uint16_t *p1, int n) {
  const __mmask8 mask = (__mmask8)((1u << n) - 1u);
  return vd_join_halfwords(_mm_maskz_loadu_epi16(mask, p0), _mm_maskz_loadu_epi16(mask, p1));
}
SPL_INLINE vd vd_load_f32(const float *p0, const float *p1) {
  return vd_join(_mm256_loadu_ps(p0), _mm256_loadu_ps(p1));
}
SPL_INLINE vd vd_load_f16(const uint16_t *p0, const uint16_t *p1) {
  return _mm512_cvtph_ps(vd_halfwords(p0, p1));
}
SPL_INLINE vd vd_load_bf16(const uint16_t *p0, const uint16_t *p1) {
  return vf_from_bf16(vd_halfwords(p0, p1));
}
SPL_INLINE vd vd_load_f32_tail(const float *p0, const float *p1, int n) {
  const __mmask8 mask = (__mmask8)((1u << n) - 1u);
  return vd_join(_mm256_maskz_loadu_ps(mask, p0), _mm256_maskz_loadu_ps(mask, p1));
}
SPL_INLINE vd vd_load_f16_tail(const uint16_t *p0, const uint16_t *p1, int n) {
  return _mm512_cvtph_ps(vd_tail_halfwords(p0, p1, n));
}
SPL_INLINE vd vd_load_bf16_tail(const uint16_t *p0, const uint16_t *p1, int n) {
  return vf_from_bf16(vd_tail_halfwords(p0, p1, n));
}

/* One level of the tree for two vectors at once: lanes (or blocks of four) of a, then of b. */
SPL_INLINE vd vd_fold_halves(vd a, vd b) { /* blocks 0+1 2+3 of a, 0+1 2+3 of b */
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
SPL_INLINE vd vd_fold_pairs(vd a, vd b) {
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
}
SPL_INLINE vd vd_fold_lanes(vd a, vd b) {
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
}

/* The tree sums of four vectors a and four vectors b, times c. Four lanes each of: the first halves
 * of a, the second halves of a, the first halves of b, the second halves of b. */
SPL_INLINE __m512 vd_sums(const vd *a, const vd *b, float c) {
  vd r[4];
  SPL_UNROLL for (int i = 0; i < 4; i++) r[i] = vd_fold_halves(a[i], b[i]);
  const vd u = vd_fold_pairs(r[0], r[1]), v = vd_fold_pairs(r[2], r[3]);
  return _mm512_mul_ps(vd_fold_lanes(u, v), _mm512_set1_ps(c));
}

/* dst[h * stride + t] = sum of acc[h][token t], times c, for nh heads and nv vectors of tokens. */
SPL_INLINE void vd_store_sums(float *dst, int64_t stride, const vd *acc, int nh, int nv, float c) {
  (void)nv; /* 4 */
  SPL_UNROLL for (int h = 0; h < nh; h += 2) {
    const vd *a = acc + h * 4, *b = h + 1 < nh ? a + 4 : a;
    const __m512 s = vd_sums(a, b, c);
    _mm256_storeu_ps(dst + h * stride, _mm512_castps512_ps256(s));
    if (h + 1 < nh) _mm256_storeu_ps(dst + (h + 1) * stride, _mm512_extractf32x8_ps(s, 1));
  }
}

#endif
