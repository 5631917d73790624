/* The vector vocabulary on AVX-512 (F, BW, DQ, VL): one register is one vf.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CPU_VEC_AVX512_H
#define SPL_CPU_VEC_AVX512_H

#include <immintrin.h>

#include "vec_common.h"

typedef __m512 vf;

#define SPL_PV_ACC 16
#define SPL_PV_HEADS 4
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

/* ── dot products: a vd holds two of SPL_DOT_LANES lanes, of two heads or of two tokens ─────── */

typedef __m512 vd;
#define VD_HEADS 2
#define VD_MAX_ACC 16

SPL_INLINE vd vd_zero(void) {
  return _mm512_setzero_ps();
}
SPL_INLINE vd vd_fma(vd a, vd b, vd c) {
  return _mm512_fmadd_ps(a, b, c);
}
/* Pair `a` of heads: q is in the order of load_q. */
SPL_INLINE vd vd_load_q(const float *q, int64_t d_padded, int a) {
  return _mm512_loadu_ps(q + 2 * a * d_padded);
}

/* The same SPL_DOT_LANES elements for both heads. */
SPL_INLINE vd vd_both(__m256 x) {
  return _mm512_broadcast_f32x8(x);
}
SPL_INLINE __m256i vd_both_halfwords(const uint16_t *p) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p));
}
SPL_INLINE __m256i vd_two_halfwords(const uint16_t *p0, const uint16_t *p1) {
  const __m256i x = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p0));
  return _mm256_inserti128_si256(x, _mm_loadu_si128((const __m128i *)(const void *)p1), 1);
}
SPL_INLINE __m128i vd_tail_halfwords(const uint16_t *p, int n) {
  return _mm_maskz_loadu_epi16((__mmask8)((1u << n) - 1u), p);
}
SPL_INLINE __m256 vd_tail_floats(const float *p, int n) {
  return _mm256_maskz_loadu_ps((__mmask8)((1u << n) - 1u), p);
}
SPL_INLINE vd vd_load_f32(const float *p) {
  return vd_both(_mm256_loadu_ps(p));
}
SPL_INLINE vd vd_load_f16(const uint16_t *p) {
  return _mm512_cvtph_ps(vd_both_halfwords(p));
}
SPL_INLINE vd vd_load_bf16(const uint16_t *p) {
  return vf_from_bf16(vd_both_halfwords(p));
}
SPL_INLINE vd vd_load_f32_tail(const float *p, int n) {
  return vd_both(vd_tail_floats(p, n));
}
SPL_INLINE vd vd_load_f16_tail(const uint16_t *p, int n) {
  return _mm512_cvtph_ps(_mm256_broadcastsi128_si256(vd_tail_halfwords(p, n)));
}
SPL_INLINE vd vd_load_bf16_tail(const uint16_t *p, int n) {
  return vf_from_bf16(_mm256_broadcastsi128_si256(vd_tail_halfwords(p, n)));
}
/* Elements of two rows, one for each half. */
SPL_INLINE vd vd_join(__m256 a, __m256 b) {
  return _mm512_insertf32x8(_mm512_castps256_ps512(a), b, 1);
}
SPL_INLINE __m256i vd_join_halfwords(__m128i a, __m128i b) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}
SPL_INLINE vd vd_load_two_f32(const float *p0, const float *p1) {
  return vd_join(_mm256_loadu_ps(p0), _mm256_loadu_ps(p1));
}
SPL_INLINE vd vd_load_two_f16(const uint16_t *p0, const uint16_t *p1) {
  return _mm512_cvtph_ps(vd_two_halfwords(p0, p1));
}
SPL_INLINE vd vd_load_two_bf16(const uint16_t *p0, const uint16_t *p1) {
  return vf_from_bf16(vd_two_halfwords(p0, p1));
}
SPL_INLINE vd vd_load_two_f32_tail(const float *p0, const float *p1, int n) {
  return vd_join(vd_tail_floats(p0, n), vd_tail_floats(p1, n));
}
SPL_INLINE vd vd_load_two_f16_tail(const uint16_t *p0, const uint16_t *p1, int n) {
  return _mm512_cvtph_ps(vd_join_halfwords(vd_tail_halfwords(p0, n), vd_tail_halfwords(p1, n)));
}
SPL_INLINE vd vd_load_two_bf16_tail(const uint16_t *p0, const uint16_t *p1, int n) {
  return vf_from_bf16(vd_join_halfwords(vd_tail_halfwords(p0, n), vd_tail_halfwords(p1, n)));
}

/* One level of the tree for two vectors at once: lo and hi pick the lanes to be added. */
#define VD_FOLD_BLOCKS(a, b, lo, hi)                                                               \
  _mm512_add_ps(_mm512_shuffle_f32x4(a, b, lo), _mm512_shuffle_f32x4(a, b, hi))
#define VD_FOLD_LANES(a, b, lo, hi)                                                                \
  _mm512_add_ps(_mm512_shuffle_ps(a, b, lo), _mm512_shuffle_ps(a, b, hi))

/* The sixteen tree sums of eight vectors, times c. Four lanes each of: the first halves of a, the
 * second halves of a, the first halves of b, the second halves of b. */
SPL_INLINE __m512 vd_sums(const vd *a, const vd *b, float c) {
  __m512 r[4];
  SPL_UNROLL for (int i = 0; i < 4; i++) r[i] = VD_FOLD_BLOCKS(a[i], b[i], 0x88, 0xdd);
  const __m512 u = VD_FOLD_LANES(r[0], r[1], 0x44, 0xee);
  const __m512 v = VD_FOLD_LANES(r[2], r[3], 0x44, 0xee);
  return _mm512_mul_ps(VD_FOLD_LANES(u, v, 0x88, 0xdd), _mm512_set1_ps(c));
}

/* acc[pair][token]; (nh, nt) is (8, 4), (4, 8) or (2, 8). */
SPL_INLINE void vd_store_sums(float *dst, int64_t stride, const vd *acc, int nh, int nt, float c) {
  SPL_UNROLL for (int h = 0; h < nh; h += 4) {
    SPL_UNROLL for (int t = 0; t < nt; t += 4) {
      if (nh == 2 && t > 0) continue;
      const vd *a = acc + h / 2 * nt + t;
      const __m512 s = vd_sums(a, nh == 2 ? a + 4 : a + nt, c);
      float *row = dst + h * stride + t;
      _mm_storeu_ps(row, _mm512_castps512_ps128(s));
      _mm_storeu_ps(row + stride, _mm512_extractf32x4_ps(s, 1));
      row = nh == 2 ? row + 4 : row + 2 * stride;
      _mm_storeu_ps(row, _mm512_extractf32x4_ps(s, 2));
      _mm_storeu_ps(row + stride, _mm512_extractf32x4_ps(s, 3));
    }
  }
}
/* Accumulator i of a single head holds tokens 0-3, 8-11 and, in its second half, 4-7, 12-15. */
#define VD_FIRST_TOKEN(i) ((i) < 4 ? (i) : (i) + 4)
#define VD_SECOND_TOKEN(i) (VD_FIRST_TOKEN(i) + 4)
SPL_INLINE void vd_store_single(float *dst, const vd *acc, float c) {
  _mm512_storeu_ps(dst, vd_sums(acc, acc + 4, c));
}

#endif
