/* The vector vocabulary on AVX2 with FMA and F16C: two registers are one vf.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CPU_VEC_AVX2_H
#define SPL_CPU_VEC_AVX2_H

#include <immintrin.h>

#include "vec_common.h"

typedef struct vf {
  __m256 lo, hi; /* lanes 0-7, 8-15 */
} vf;

#define SPL_BLOCK_HEADS(X) X(4) X(2) X(1)
#define SPL_VALUE_ACC 4
#define SPL_VALUE_VECTORS(nh) (4 / (nh))
#define SPL_PACKED_HEADS 40
#define SPL_PACKED_SCORE_HEADS 6
#define SPL_PACKED_SCORE_VECTORS 1
#define SPL_PACKED_SCORE_BLOCKS(X) X(6) X(5) X(4) X(3) X(2) X(1)
#define SPL_PACKED_VALUE_HEADS 6
#define SPL_PACKED_VALUE_VECTORS 1
#define SPL_PACKED_VALUE_BLOCKS(X) X(6) X(5) X(4) X(3) X(2) X(1)
#define SPL_PROBE_CHAINS 6

#define VF_ROUND (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)

SPL_INLINE vf vf_make(__m256 lo, __m256 hi) {
  const vf r = {lo, hi};
  return r;
}
SPL_INLINE vf vf_set1(float x) {
  return vf_make(_mm256_set1_ps(x), _mm256_set1_ps(x));
}
SPL_INLINE vf vf_load(const float *p) {
  return vf_make(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8));
}
SPL_INLINE void vf_store(float *p, vf x) {
  _mm256_storeu_ps(p, x.lo);
  _mm256_storeu_ps(p + 8, x.hi);
}
SPL_INLINE __m128i vf_load_halfwords(const uint16_t *p) {
  return _mm_loadu_si128((const __m128i *)(const void *)p);
}
SPL_INLINE vf vf_load_f16(const uint16_t *p) {
  return vf_make(_mm256_cvtph_ps(vf_load_halfwords(p)), _mm256_cvtph_ps(vf_load_halfwords(p + 8)));
}
SPL_INLINE __m256 vf_from_bf16(__m128i x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
SPL_INLINE vf vf_load_bf16(const uint16_t *p) {
  return vf_make(vf_from_bf16(vf_load_halfwords(p)), vf_from_bf16(vf_load_halfwords(p + 8)));
}

/* ── codes of quantised KV, eight to a register ─────────────────────────────────────────────── */

SPL_INLINE __m128i load_codes(const uint8_t *p) {
  return _mm_loadl_epi64((const __m128i *)(const void *)p);
}
SPL_INLINE __m256 half_of_i8(const uint8_t *p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_codes(p)));
}
SPL_INLINE __m256 half_of_e5m2(const uint8_t *p) {
  return _mm256_cvtph_ps(_mm_unpacklo_epi8(_mm_setzero_si128(), load_codes(p)));
}
/* As scalar_e4m3_as_f16. The sign, spread over the upper byte, is in bits 15 and 14: the second one
 * has to go, unless the magnitude's carry says NaN, and it meets that carry with bit 14 turned. */
SPL_INLINE __m256 half_of_e4m3(const uint8_t *p) {
  const __m128i h = _mm_slli_epi16(_mm_cvtepi8_epi16(load_codes(p)), 7);
  const __m128i carried = _mm_add_epi16(h, _mm_set1_epi16(0x80));
  return _mm256_cvtph_ps(_mm_xor_si128(h, _mm_and_si128(carried, _mm_set1_epi16(0x4000))));
}
SPL_INLINE __m256i four_bits(const uint8_t *p) {
  int32_t word;
  memcpy(&word, p, sizeof word);
  const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
  return _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(word), shifts),
                          _mm256_set1_epi32(15));
}
SPL_INLINE __m256 half_of_u4(const uint8_t *p) {
  return _mm256_cvtepi32_ps(four_bits(p));
}
SPL_INLINE __m256 half_of_i4(const uint8_t *p) {
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(four_bits(p), _mm256_set1_epi32(8)));
}
/* behind: bytes of eight codes. */
#define VF_CODES(type, behind)                                                                     \
  SPL_INLINE vf vf_load_##type(const uint8_t *p) {                                                 \
    return vf_make(half_of_##type(p), half_of_##type(p + (behind)));                               \
  }                                                                                                \
  SPL_INLINE __m256 vd_load_##type(const uint8_t *p) {                                             \
    return half_of_##type(p);                                                                      \
  }
VF_CODES(i8, 8)
VF_CODES(e4m3, 8)
VF_CODES(e5m2, 8)
VF_CODES(u4, 4)
VF_CODES(i4, 4)
#undef VF_CODES

#define VF_BINARY(name, op)                                                                        \
  SPL_INLINE vf name(vf a, vf b) {                                                                 \
    return vf_make(op(a.lo, b.lo), op(a.hi, b.hi));                                                \
  }
VF_BINARY(vf_add, _mm256_add_ps)
VF_BINARY(vf_sub, _mm256_sub_ps)
VF_BINARY(vf_mul, _mm256_mul_ps)
VF_BINARY(vf_div, _mm256_div_ps)
VF_BINARY(vf_max, _mm256_max_ps)
#undef VF_BINARY

SPL_INLINE vf vf_fma(vf a, vf b, vf c) {
  return vf_make(_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi));
}
SPL_INLINE vf vf_fma_each(const float *a, vf b, vf c) {
  return vf_fma(vf_set1(*a), b, c);
}
SPL_INLINE vf vf_rint(vf x) {
  return vf_make(_mm256_round_ps(x.lo, VF_ROUND), _mm256_round_ps(x.hi, VF_ROUND));
}
SPL_INLINE vf vf_select_lt(vf a, vf b, vf x, vf y) {
  return vf_make(_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
                 _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)));
}
/* Lane i where bit i is set, -inf elsewhere. */
SPL_INLINE vf vf_hide(vf x, uint32_t bits) {
  const __m256i low = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i high = _mm256_slli_epi32(low, 8), all = _mm256_set1_epi32((int)bits);
  const __m256 hidden = _mm256_set1_ps(-INFINITY);
  const __m256i keep_low = _mm256_cmpeq_epi32(_mm256_and_si256(all, low), low);
  const __m256i keep_high = _mm256_cmpeq_epi32(_mm256_and_si256(all, high), high);
  return vf_make(_mm256_blendv_ps(hidden, x.lo, _mm256_castsi256_ps(keep_low)),
                 _mm256_blendv_ps(hidden, x.hi, _mm256_castsi256_ps(keep_high)));
}
SPL_INLINE int vf_any_gt(vf a, vf b) {
  return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ),
                                         _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ))) != 0;
}
SPL_INLINE vf vf_canonical(vf x) {
  const __m256 nan = _mm256_set1_ps(scalar_from_bits(0x7fc00000u));
  return vf_make(_mm256_blendv_ps(x.lo, nan, _mm256_cmp_ps(x.lo, x.lo, _CMP_UNORD_Q)),
                 _mm256_blendv_ps(x.hi, nan, _mm256_cmp_ps(x.hi, x.hi, _CMP_UNORD_Q)));
}
/* x * 2^n for integral n, 0 where exponent < -125; NaN where it is NaN. Adds n to the exponent
 * bits; what comes of an n out of range is masked. */
SPL_INLINE __m256 vf_scale_half(__m256 x, __m256 n, __m256 exponent) {
  const __m256i shift = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
  const __m256 low = _mm256_cmp_ps(exponent, _mm256_set1_ps(-125.0f), _CMP_LT_OQ);
  return _mm256_andnot_ps(low,
                          _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), shift)));
}
SPL_INLINE vf vf_scale(vf x, vf n, vf exponent) {
  return vf_make(vf_scale_half(x.lo, n.lo, exponent.lo), vf_scale_half(x.hi, n.hi, exponent.hi));
}

SPL_INLINE void vf_to_f16(uint16_t *p, vf x) {
  const vf c = vf_canonical(x);
  _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(c.lo, VF_ROUND));
  _mm_storeu_si128((__m128i *)(void *)(p + 8), _mm256_cvtps_ph(c.hi, VF_ROUND));
}
SPL_INLINE __m256i vf_bf16_bits(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  return _mm256_blendv_epi8(_mm256_srli_epi32(up, 16), _mm256_set1_epi32(0x7fc0),
                            _mm256_castps_si256(nan));
}
SPL_INLINE void vf_to_bf16(uint16_t *p, vf x) {
  const __m256i packed = _mm256_packus_epi32(vf_bf16_bits(x.lo), vf_bf16_bits(x.hi));
  _mm256_storeu_si256((__m256i *)(void *)p, _mm256_permute4x64_epi64(packed, 0xd8));
}

SPL_INLINE float vf_sum(vf x) {
  const __m256 r8 = _mm256_add_ps(x.lo, x.hi);
  const __m128 r4 = _mm_add_ps(_mm256_castps256_ps128(r8), _mm256_extractf128_ps(r8, 1));
  const __m128 r2 = _mm_add_ps(r4, _mm_movehl_ps(r4, r4));
  return _mm_cvtss_f32(_mm_add_ss(r2, _mm_movehdup_ps(r2)));
}
SPL_INLINE float vf_hmax(vf x) {
  const __m256 m8 = _mm256_max_ps(x.lo, x.hi);
  const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
  const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
  return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}

/* Eight registers: x[i][j] = x[j][i]. */
SPL_INLINE void transpose_halves(__m256 *x) {
  __m256 y[8];
  SPL_UNROLL for (int i = 0; i < 8; i += 2) { /* pairs of lanes of two registers */
    y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
    y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
  }
  SPL_UNROLL for (int i = 0; i < 8; i += 4) { /* one lane of four */
    SPL_UNROLL for (int j = 0; j < 2; j++) {
      x[i + 2 * j] = _mm256_shuffle_ps(y[i + j], y[i + j + 2], 0x44);
      x[i + 2 * j + 1] = _mm256_shuffle_ps(y[i + j], y[i + j + 2], 0xee);
    }
  }
  SPL_UNROLL for (int i = 0; i < 4; i++) { /* blocks of four lanes */
    y[i] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x20);
    y[i + 4] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x31);
  }
  SPL_UNROLL for (int i = 0; i < 8; i++) x[i] = y[i];
}

/* x[i][j] = x[j][i]. */
SPL_INLINE void vf_transpose(vf *x) {
  __m256 quarter[4][8];
  SPL_UNROLL for (int i = 0; i < 8; i++) {
    quarter[0][i] = x[i].lo;
    quarter[1][i] = x[i + 8].lo;
    quarter[2][i] = x[i].hi;
    quarter[3][i] = x[i + 8].hi;
  }
  SPL_UNROLL for (int i = 0; i < 4; i++) transpose_halves(quarter[i]);
  SPL_UNROLL for (int i = 0; i < 8; i++) {
    x[i] = vf_make(quarter[0][i], quarter[1][i]);
    x[i + 8] = vf_make(quarter[2][i], quarter[3][i]);
  }
}

/* ── dot products: a vd is one register, SPL_DOT_LANES lanes ────────────────────────────────── */

typedef __m256 vd;
#define VD_ASKS_ROWS(bits, nh) 0
#define VD_TOKENS 1
#define VD_Q_COPIES(n_heads) 1
#define VD_MAX_ACC 8
#define VD_MAX_VECTORS 8
#define VD_SCORE_VECTORS(nh) (8 / (nh))
#define VD_ROW_TOKEN(i, nv) (i)
#define VD_ROWS(rows, v, c) (rows)[v] + (c)
#define VD_SAME(p) (p)

SPL_INLINE vd vd_zero(void) {
  return _mm256_setzero_ps();
}
SPL_INLINE vd vd_fma(vd a, vd b, vd c) {
  return _mm256_fmadd_ps(a, b, c);
}
SPL_INLINE vd vd_load_q(const float *q, const int copies) {
  (void)copies;
  return _mm256_loadu_ps(q);
}
SPL_INLINE vd vd_load_f32(const float *p) {
  return _mm256_loadu_ps(p);
}
SPL_INLINE vd vd_load_f16(const uint16_t *p) {
  return _mm256_cvtph_ps(vf_load_halfwords(p));
}
SPL_INLINE vd vd_load_bf16(const uint16_t *p) {
  return vf_from_bf16(vf_load_halfwords(p));
}
/* All lanes of a row are the one number at p. */
SPL_INLINE vd vd_broadcast(const float *p) {
  return _mm256_broadcast_ss(p);
}
SPL_INLINE vd vd_sub(vd a, vd b) {
  return _mm256_sub_ps(a, b);
}
SPL_INLINE vd vd_mul(vd a, vd b) {
  return _mm256_mul_ps(a, b);
}

#define VD_FOLD_BLOCKS(a, b)                                                                       \
  _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31))
#define VD_FOLD_LANES(a, b, lo, hi)                                                                \
  _mm256_add_ps(_mm256_shuffle_ps(a, b, lo), _mm256_shuffle_ps(a, b, hi))

/* The tree sums of eight vectors, times c: acc[0..4) in the first four lanes, acc[4..8) behind. */
SPL_INLINE __m256 vd_sums(const vd *acc, float c) {
  __m256 r[4];
  SPL_UNROLL for (int i = 0; i < 4; i++) r[i] = VD_FOLD_BLOCKS(acc[i], acc[i + 4]);
  const __m256 u = VD_FOLD_LANES(r[0], r[1], 0x44, 0xee);
  const __m256 v = VD_FOLD_LANES(r[2], r[3], 0x44, 0xee);
  return _mm256_mul_ps(VD_FOLD_LANES(u, v, 0x88, 0xdd), _mm256_set1_ps(c));
}

/* acc[head][token]; (nh, nv) is (4, 2), (2, 4) or (1, 8). */
SPL_INLINE void vd_store_sums(float *dst, int64_t stride, const vd *acc, int nh, int nv, float c) {
  const __m256 s = vd_sums(acc, c);
  if (nh == 1) {
    _mm256_storeu_ps(dst, s);
    return;
  }
  const __m128 lo = _mm256_castps256_ps128(s), hi = _mm256_extractf128_ps(s, 1);
  if (nv == 4) {
    _mm_storeu_ps(dst, lo);
    _mm_storeu_ps(dst + stride, hi);
    return;
  }
  _mm_storel_pi((__m64 *)(void *)dst, lo);
  _mm_storeh_pi((__m64 *)(void *)(dst + stride), lo);
  _mm_storel_pi((__m64 *)(void *)(dst + 2 * stride), hi);
  _mm_storeh_pi((__m64 *)(void *)(dst + 3 * stride), hi);
}

#include "vec_tails.h"

#endif
