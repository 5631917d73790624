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
/* Of scores, and of P.V with weights in registers: with more heads and two vectors of tokens or of
 * channels, so that rows are converted for more heads at once and take fewer pointers. */
#define SPL_WIDE_BLOCK_HEADS(X) X(8) X(7) SPL_BLOCK_HEADS(X)
#define SPL_MAX_WIDE_BLOCK_HEADS 8
#define SPL_VALUE_ACC 12
#define SPL_VALUE_VECTORS(nh) ((nh) == 1 ? 8 : (nh) < 4 ? 4 : (nh) == 4 ? 3 : 2)
/* With weights in registers of their own: chunk sums go to memory, once for 16 tokens. */
#define SPL_WIDE_VALUE_ACC 18
#define SPL_WIDE_VALUE_VECTORS(nh) ((nh) == 1 ? 8 : (nh) <= 4 ? 4 : (nh) <= 6 ? 3 : 2)
/* By strips go groups of few heads: more wait for multiplications rather than for memory. */
#define SPL_STRIP_GROUPS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define SPL_STRIP_HEADS SPL_MAX_BLOCK_HEADS
#define SPL_STRIP_VECTORS(bits, nh) ((bits) > 16 ? 1 : (nh) < 3 || (nh) > 5 ? 2 : 4)
#define SPL_STRIP_ACC 20
#define SPL_PACKED_HEADS 40
#define SPL_PACKED_SCORE_HEADS 8
#define SPL_PACKED_SCORE_VECTORS 2
#define SPL_PACKED_SCORE_BLOCKS(X) X(8) X(7) X(6) X(5) X(4) X(3) X(2) X(1)
#define SPL_PACKED_VALUE_HEADS 4
#define SPL_PACKED_VALUE_VECTORS 4
#define SPL_PACKED_VALUE_BLOCKS(X) X(4) X(3) X(2) X(1)
#define SPL_PROBE_CHAINS 16
#define SPL_ASKS_NEAR 1

/* Asks for a line into the first cache, after what made x and before what uses it. */
SPL_INLINE void vf_ask_before(vf *x, const void *p) {
  __asm__ volatile("prefetcht0 %1" : "+v"(*x) : "m"(*(const char *)p));
}

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

/* ── codes of quantised KV, from registers: of a vf and of a vd alike ────────────────────────────
 */

SPL_INLINE __m512 from_i8(__m128i x) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(x));
}
SPL_INLINE __m512 from_e5m2(__m128i x) {
  return _mm512_cvtph_ps(_mm256_slli_epi16(_mm256_cvtepu8_epi16(x), 8));
}
/* As scalar_e4m3_as_f16. The sign, spread over the upper byte, is in bits 15 and 14: the second one
 * has to go, unless the magnitude's carry says NaN, and it meets that carry with bit 14 turned. */
SPL_INLINE __m512 from_e4m3(__m128i x) {
  const __m256i h = _mm256_slli_epi16(_mm256_cvtepi8_epi16(x), 7);
  const __m256i carried = _mm256_add_epi16(h, _mm256_set1_epi16(0x80));
  const __m256i bit = _mm256_set1_epi16(0x4000);
  return _mm512_cvtph_ps(
      _mm256_ternarylogic_epi32(h, carried, bit, 0x78)); /* h ^ (carried & bit) */
}
/* Eight channels from each of two words: the lane's four bits are the lowest four of what a
 * permutation takes for its index. */
SPL_INLINE __m512 from_i4_words(uint32_t a, uint32_t b, __m512 values) {
  const __m512i shifts =
      _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
  const __m512i words = _mm512_mask_set1_epi32(_mm512_set1_epi32((int32_t)a), 0xff00, (int32_t)b);
  return _mm512_permutexvar_ps(_mm512_srlv_epi32(words, shifts), values);
}
SPL_INLINE __m512 u4_values(void) {
  return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
SPL_INLINE __m512 i4_values(void) {
  return _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
}
SPL_INLINE uint32_t load_word(const uint8_t *p) {
  uint32_t word;
  memcpy(&word, p, sizeof word);
  return word;
}
SPL_INLINE uint32_t load_word_tail(const uint8_t *p, int n_bytes) {
  uint32_t word = 0;
  SPL_UNROLL for (int i = 0; i < 4; i++) word |= i < n_bytes ? (uint32_t)p[i] << 8 * i : 0;
  return word;
}

#define VF_CODES(type)                                                                             \
  SPL_INLINE vf vf_load_##type(const uint8_t *p) {                                                 \
    return from_##type(_mm_loadu_si128((const __m128i *)(const void *)p));                         \
  }                                                                                                \
  SPL_INLINE vf vf_load_##type##_tail(const uint8_t *p, int n) {                                   \
    return from_##type(_mm_maskz_loadu_epi8(vf_tail_mask(n), p));                                  \
  }
VF_CODES(i8)
VF_CODES(e4m3)
VF_CODES(e5m2)
#undef VF_CODES
#define VF_HALF_CODES(type)                                                                        \
  SPL_INLINE vf vf_load_##type(const uint8_t *p) {                                                 \
    return from_i4_words(load_word(p), load_word(p + 4), type##_values());                         \
  }                                                                                                \
  SPL_INLINE vf vf_load_##type##_tail(const uint8_t *p, int n) {                                   \
    return from_i4_words(load_word_tail(p, n / 2), load_word_tail(p + 4, n / 2 - 4),               \
                         type##_values());                                                         \
  }
VF_HALF_CODES(u4)
VF_HALF_CODES(i4)
#undef VF_HALF_CODES

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

/* x[i][j] = x[j][i]. */
SPL_INLINE void vf_transpose(vf *x) {
  vf y[SPL_LANES];
  SPL_UNROLL for (int i = 0; i < SPL_LANES; i += 2) { /* pairs of lanes of two vectors */
    y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
  }
  SPL_UNROLL for (int i = 0; i < SPL_LANES; i += 4) { /* one lane of four vectors */
    SPL_UNROLL for (int j = 0; j < 2; j++) {
      const __m512d a = _mm512_castps_pd(y[i + j]), b = _mm512_castps_pd(y[i + j + 2]);
      x[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      x[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
  }
  SPL_UNROLL for (int i = 0; i < 4; i++) { /* blocks of four lanes */
    const vf a = _mm512_shuffle_f32x4(x[i], x[i + 4], 0x88);
    const vf b = _mm512_shuffle_f32x4(x[i], x[i + 4], 0xdd);
    const vf c = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0x88);
    const vf d = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0xdd);
    y[i] = _mm512_shuffle_f32x4(a, c, 0x88);
    y[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
    y[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
    y[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
  SPL_UNROLL for (int i = 0; i < SPL_LANES; i++) x[i] = y[i];
}

/* ── dot products: a vd holds those of two tokens, SPL_DOT_LANES lanes each ────────────────── */

typedef __m512 vd;
#define VD_ASKS_ROWS(bits, nh) ((bits) <= 16 && (nh) <= SPL_MAX_BLOCK_HEADS)
#define VD_TOKENS 2 /* rows whose products one vd holds */
/* Q as often as a vd has tokens, or once where a block of up to six has all heads: then there are
 * others beside it, or few multiplications for each load, and less of it in the first cache is
 * worth more than the slower load. */
#define VD_Q_COPIES(n_heads) ((n_heads) <= SPL_MAX_BLOCK_HEADS ? 1 : VD_TOKENS)
#define VD_MAX_ACC 24
#define VD_MAX_VECTORS 4
#define VD_SCORE_VECTORS(nh) ((nh) <= SPL_MAX_BLOCK_HEADS ? 4 : 2)
/* nv vectors hold nv tokens and, in their second halves, the nv tokens behind those. */
#define VD_ROW_TOKEN(i, nv) ((i) / 2 + (i) % 2 * (nv))
#define VD_ROWS(rows, v, c) (rows)[2 * (v)] + (c), (rows)[2 * (v) + 1] + (c)
#define VD_SAME(p) (p), (p)

SPL_INLINE vd vd_zero(void) {
  return _mm512_setzero_ps();
}
SPL_INLINE vd vd_fma(vd a, vd b, vd c) {
  return _mm512_fmadd_ps(a, b, c);
}
SPL_INLINE vd vd_load_q(const float *q, const int copies) {
  if (copies == 1) return _mm512_broadcast_f32x8(_mm256_loadu_ps(q));
  vd x = _mm512_loadu_ps(q);
  __asm__("" : "+v"(x)); /* else gcc loads it again for each multiplication */
  return x;
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

SPL_INLINE __m128i vd_bytes(const uint8_t *p0, const uint8_t *p1) {
  const __m128 low = _mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)(const void *)p0));
  return _mm_castps_si128(_mm_loadh_pi(low, (const __m64 *)(const void *)p1));
}
SPL_INLINE __m128i vd_tail_bytes(const uint8_t *p0, const uint8_t *p1, int n) {
  const __mmask16 mask = vf_tail_mask(n);
  return _mm_unpacklo_epi64(_mm_maskz_loadu_epi8(mask, p0), _mm_maskz_loadu_epi8(mask, p1));
}
#define VD_CODES(type)                                                                             \
  SPL_INLINE vd vd_load_##type(const uint8_t *p0, const uint8_t *p1) {                             \
    return from_##type(vd_bytes(p0, p1));                                                          \
  }                                                                                                \
  SPL_INLINE vd vd_load_##type##_tail(const uint8_t *p0, const uint8_t *p1, int n) {               \
    return from_##type(vd_tail_bytes(p0, p1, n));                                                  \
  }
VD_CODES(i8)
VD_CODES(e4m3)
VD_CODES(e5m2)
#undef VD_CODES
#define VD_HALF_CODES(type)                                                                        \
  SPL_INLINE vd vd_load_##type(const uint8_t *p0, const uint8_t *p1) {                             \
    return from_i4_words(load_word(p0), load_word(p1), type##_values());                           \
  }                                                                                                \
  SPL_INLINE vd vd_load_##type##_tail(const uint8_t *p0, const uint8_t *p1, int n) {               \
    return from_i4_words(load_word_tail(p0, n / 2), load_word_tail(p1, n / 2), type##_values());   \
  }
VD_HALF_CODES(u4)
VD_HALF_CODES(i4)
#undef VD_HALF_CODES

/* Lane t is p[rows[t]]. */
SPL_INLINE __m128 column_of_four(const float *p, const int64_t *rows) {
  int64_t row[4];
  SPL_UNROLL for (int t = 0; t < 4; t++) {
    row[t] = rows[t];
    __asm__("" : "+r"(row[t])); /* gcc 12 adds p to vectors of rows, and takes them apart again */
  }
  return _mm_set_ps(p[row[3]], p[row[2]], p[row[1]], p[row[0]]);
}
SPL_INLINE vf vf_column(const float *p, const int64_t *rows) {
  return vd_join(_mm256_set_m128(column_of_four(p, rows + 4), column_of_four(p, rows)),
                 _mm256_set_m128(column_of_four(p, rows + 12), column_of_four(p, rows + 8)));
}

/* All lanes of a row are the one number at its pointer. */
SPL_INLINE vd vd_broadcast(const float *p0, const float *p1) {
  return _mm512_mask_broadcastss_ps(_mm512_set1_ps(*p0), 0xff00, _mm_load_ss(p1));
}
SPL_INLINE vd vd_sub(vd a, vd b) {
  return _mm512_sub_ps(a, b);
}
SPL_INLINE vd vd_mul(vd a, vd b) {
  return _mm512_mul_ps(a, b);
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
  if (nv == 4) {
    SPL_UNROLL for (int h = 0; h < nh; h += 2) {
      const vd *a = acc + h * 4, *b = h + 1 < nh ? a + 4 : a;
      const __m512 s = vd_sums(a, b, c);
      _mm256_storeu_ps(dst + h * stride, _mm512_castps512_ps256(s));
      if (h + 1 < nh) _mm256_storeu_ps(dst + (h + 1) * stride, _mm512_extractf32x8_ps(s, 1));
    }
    return;
  }
  SPL_UNROLL for (int h = 0; h < nh; h += 4) { /* two vectors each */
    vd x[8];
    SPL_UNROLL for (int i = 0; i < 8; i++) x[i] = acc[h + i / 2 < nh ? h * 2 + i : i % 2];
    /* Of two heads each: their first tokens, their second ones. */
    const __m512d s = _mm512_castps_pd(vd_sums(x, x + 4, c));
    const __m512i order = _mm512_setr_epi64(0, 2, 1, 3, 4, 6, 5, 7);
    const __m512 rows = _mm512_castpd_ps(_mm512_permutexvar_pd(order, s));
    _mm_storeu_ps(dst + h * stride, _mm512_castps512_ps128(rows));
    if (h + 1 < nh) _mm_storeu_ps(dst + (h + 1) * stride, _mm512_extractf32x4_ps(rows, 1));
    if (h + 2 < nh) _mm_storeu_ps(dst + (h + 2) * stride, _mm512_extractf32x4_ps(rows, 2));
    if (h + 3 < nh) _mm_storeu_ps(dst + (h + 3) * stride, _mm512_extractf32x4_ps(rows, 3));
  }
}

#endif
