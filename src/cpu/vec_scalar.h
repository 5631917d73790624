/* The vector vocabulary in plain C: 16 lanes in an array. The definition of what the other
 * vocabularies must give, bit for bit.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CPU_VEC_SCALAR_H
#define SPL_CPU_VEC_SCALAR_H

/* Loops stay loops: sixteen lanes unrolled in every block would take minutes to compile. */
#if !defined(SPL_SMALL_CODE)
#define SPL_SMALL_CODE
#endif
#include "vec_common.h"

typedef struct vf {
  float lane[SPL_LANES];
} vf;

/* Accumulators (of one vf each) that the register file holds in a block. */
#define SPL_BLOCK_HEADS(X) X(2) X(1)
#define SPL_VALUE_ACC 4
#define SPL_VALUE_VECTORS(nh) (4 / (nh))
#define SPL_PROBE_CHAINS 4

#define VF_EACH(i) for (int i = 0; i < SPL_LANES; i++)

#if defined(__FP_FAST_FMAF)
SPL_INLINE float scalar_fma(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
#else
/* Correctly rounded a*b+c without an FMA instruction: the product is exact in double; the sum is
 * rounded to odd there, so that the rounding to float is the only one (Boldo and Melquiond, 2008,
 * "Emulation of FMA and correctly rounded sums"). */
SPL_INLINE float scalar_fma(float a, float b, float c) {
  const double product = (double)a * (double)b, addend = (double)c;
  double sum = product + addend;
  const double back = sum - product;
  const double error = (product - (sum - back)) + (addend - back);
  /* Without branches, so that the compiler can vectorise: an even, inexact sum moves by one in the
   * direction of the error. An infinite or NaN sum has error NaN and stays. */
  uint64_t bits, error_bits;
  memcpy(&bits, &sum, sizeof bits);
  memcpy(&error_bits, &error, sizeof error_bits);
  const uint64_t inexact = (uint64_t)(error > 0) | (uint64_t)(error < 0);
  const uint64_t move = ~bits & inexact;
  bits += move - ((move & (bits ^ error_bits) >> 63) << 1);
  memcpy(&sum, &bits, sizeof sum);
  return (float)sum;
}
#endif

SPL_INLINE vf vf_set1(float x) {
  vf r;
  VF_EACH(i) r.lane[i] = x;
  return r;
}
SPL_INLINE vf vf_load(const float *p) {
  vf r;
  memcpy(r.lane, p, sizeof r.lane);
  return r;
}
SPL_INLINE void vf_store(float *p, vf x) {
  memcpy(p, x.lane, sizeof x.lane);
}

SPL_INLINE vf vf_load_f16(const uint16_t *p) {
  vf r;
  VF_EACH(i) r.lane[i] = scalar_from_f16(p[i]);
  return r;
}
SPL_INLINE vf vf_load_bf16(const uint16_t *p) {
  vf r;
  VF_EACH(i) r.lane[i] = scalar_from_bits((uint32_t)p[i] << 16);
  return r;
}
/* Codes: E4M3 as 2^-8 of its value, U4 as 0 .. 15 and I4 as that less 8, two to a byte. */
#define VEC_CODES(name, vector, each, expression)                                                  \
  SPL_INLINE vector name(const uint8_t *p) {                                                       \
    vector r;                                                                                      \
    each(i) r.lane[i] = expression;                                                                \
    return r;                                                                                      \
  }
#define SCALAR_U4(p, i) (int)((p)[(i) / 2] >> (i) % 2 * 4 & 15)
VEC_CODES(vf_load_i8, vf, VF_EACH, (float)(int8_t)p[i])
VEC_CODES(vf_load_e4m3, vf, VF_EACH, scalar_from_f16(scalar_e4m3_as_f16(p[i])))
VEC_CODES(vf_load_e5m2, vf, VF_EACH, scalar_from_f16((uint16_t)(p[i] << 8)))
VEC_CODES(vf_load_u4, vf, VF_EACH, (float)SCALAR_U4(p, i))
VEC_CODES(vf_load_i4, vf, VF_EACH, (float)(SCALAR_U4(p, i) - 8))
SPL_INLINE void vf_to_f16(uint16_t *p, vf x) {
  VF_EACH(i) p[i] = scalar_to_f16(x.lane[i]);
}
SPL_INLINE void vf_to_bf16(uint16_t *p, vf x) {
  VF_EACH(i) p[i] = scalar_to_bf16(x.lane[i]);
}

#define VF_BINARY(name, expression)                                                                \
  SPL_INLINE vf name(vf x, vf y) {                                                                 \
    vf r;                                                                                          \
    VF_EACH(i) {                                                                                   \
      const float a = x.lane[i], b = y.lane[i];                                                    \
      r.lane[i] = expression;                                                                      \
    }                                                                                              \
    return r;                                                                                      \
  }
VF_BINARY(vf_add, a + b)
VF_BINARY(vf_sub, a - b)
VF_BINARY(vf_mul, (a) * (b))
VF_BINARY(vf_div, a / b)
VF_BINARY(vf_max, a > b ? a : b)
#undef VF_BINARY

SPL_INLINE vf vf_fma(vf a, vf b, vf c) {
  vf r;
  VF_EACH(i) r.lane[i] = scalar_fma(a.lane[i], b.lane[i], c.lane[i]);
  return r;
}
/* *a * b + c */
SPL_INLINE vf vf_fma_each(const float *a, vf b, vf c) {
  return vf_fma(vf_set1(*a), b, c);
}
/* To the nearest integer, ties to even; |x| < 2^22, NaN and infinities pass through. */
SPL_INLINE vf vf_rint(vf x) {
  vf r;
  const float magic = 12582912.0f; /* 1.5 * 2^23 */
  VF_EACH(i) r.lane[i] = (x.lane[i] + magic) - magic;
  return r;
}
/* a < b ? x : y; a NaN takes y. */
SPL_INLINE vf vf_select_lt(vf a, vf b, vf x, vf y) {
  vf r;
  VF_EACH(i) r.lane[i] = a.lane[i] < b.lane[i] ? x.lane[i] : y.lane[i];
  return r;
}
/* Lane i where bit i is set, -inf elsewhere. */
SPL_INLINE vf vf_hide(vf x, uint32_t bits) {
  VF_EACH(i) x.lane[i] = bits >> i & 1 ? x.lane[i] : -INFINITY;
  return x;
}
SPL_INLINE int vf_any_gt(vf a, vf b) {
  int any = 0;
  VF_EACH(i) any |= a.lane[i] > b.lane[i];
  return any;
}
/* NaN becomes the one quiet NaN 0x7fc00000. */
SPL_INLINE vf vf_canonical(vf x) {
  vf r;
  VF_EACH(i) r.lane[i] = x.lane[i] == x.lane[i] ? x.lane[i] : scalar_from_bits(0x7fc00000u);
  return r;
}
/* x * 2^n for integral n, 0 where exponent < -125; NaN where it is NaN. */
SPL_INLINE vf vf_scale(vf x, vf n, vf exponent) {
  vf r;
  VF_EACH(i) {
    const int in_range = n.lane[i] >= -125.0f && n.lane[i] <= 0;
    const uint32_t shift = in_range ? (uint32_t)(int32_t)n.lane[i] << 23 : 0;
    const float scaled = scalar_from_bits(scalar_bits(x.lane[i]) + shift);
    r.lane[i] = exponent.lane[i] < -125.0f ? 0.0f : scaled;
  }
  return r;
}
/* The fixed tree: lanes i and i+8, i and i+4, i and i+2, 0 and 1. */
SPL_INLINE float vf_sum(vf x) {
  for (int half = SPL_LANES / 2; half >= 1; half /= 2) {
    for (int i = 0; i < half; i++)
      x.lane[i] += x.lane[i + half];
  }
  return x.lane[0];
}
SPL_INLINE float vf_hmax(vf x) {
  float m = x.lane[0];
  for (int i = 1; i < SPL_LANES; i++)
    m = x.lane[i] > m ? x.lane[i] : m;
  return m;
}

/* ── dot products ───────────────────────────────────────────────────────────────────────────── */

typedef struct vd {
  float lane[SPL_DOT_LANES];
} vd;
#define VD_ASKS_ROWS(bits, nh) 0
#define VD_TOKENS 1 /* rows whose products one vd holds */
#define VD_Q_COPIES(n_heads) 1
#define VD_MAX_ACC 8
#define VD_MAX_VECTORS 8
#define VD_SCORE_VECTORS(nh) (8 / (nh))
#define VD_ROW_TOKEN(i, nv) (i)
#define VD_ROWS(rows, v, c) (rows)[v] + (c)
#define VD_SAME(p) (p) /* for each of those rows */
#define VD_EACH(i) for (int i = 0; i < SPL_DOT_LANES; i++)

SPL_INLINE vd vd_zero(void) {
  const vd r = {{0}};
  return r;
}
SPL_INLINE vd vd_load_f32(const float *p) {
  vd r;
  memcpy(r.lane, p, sizeof r.lane);
  return r;
}
SPL_INLINE vd vd_load_f16(const uint16_t *p) {
  vd r;
  VD_EACH(i) r.lane[i] = scalar_from_f16(p[i]);
  return r;
}
SPL_INLINE vd vd_load_bf16(const uint16_t *p) {
  vd r;
  VD_EACH(i) r.lane[i] = scalar_from_bits((uint32_t)p[i] << 16);
  return r;
}
VEC_CODES(vd_load_i8, vd, VD_EACH, (float)(int8_t)p[i])
VEC_CODES(vd_load_e4m3, vd, VD_EACH, scalar_from_f16(scalar_e4m3_as_f16(p[i])))
VEC_CODES(vd_load_e5m2, vd, VD_EACH, scalar_from_f16((uint16_t)(p[i] << 8)))
VEC_CODES(vd_load_u4, vd, VD_EACH, (float)SCALAR_U4(p, i))
VEC_CODES(vd_load_i4, vd, VD_EACH, (float)(SCALAR_U4(p, i) - 8))
#undef VEC_CODES
#undef SCALAR_U4
SPL_INLINE vd vd_load_q(const float *q, const int copies) {
  (void)copies;
  return vd_load_f32(q);
}
/* All lanes of a row are the one number at p. */
SPL_INLINE vd vd_broadcast(const float *p) {
  vd r;
  VD_EACH(i) r.lane[i] = *p;
  return r;
}
SPL_INLINE vd vd_sub(vd a, vd b) {
  VD_EACH(i) a.lane[i] -= b.lane[i];
  return a;
}
SPL_INLINE vd vd_mul(vd a, vd b) {
  VD_EACH(i) a.lane[i] *= b.lane[i];
  return a;
}
SPL_INLINE vd vd_fma(vd a, vd b, vd c) {
  vd r;
  VD_EACH(i) r.lane[i] = scalar_fma(a.lane[i], b.lane[i], c.lane[i]);
  return r;
}
/* The fixed tree: lanes i and i+4, i and i+2, 0 and 1. */
SPL_INLINE float vd_sum(vd x) {
  for (int half = SPL_DOT_LANES / 2; half >= 1; half /= 2) {
    for (int i = 0; i < half; i++)
      x.lane[i] += x.lane[i + half];
  }
  return x.lane[0];
}
/* dst[h * stride + t] = sum of acc[h * nv + t], times c, for nh heads and nt tokens. */
SPL_INLINE void vd_store_sums(float *dst, int64_t stride, const vd *acc, int nh, int nv, float c) {
  for (int h = 0; h < nh; h++) {
    for (int t = 0; t < nv; t++)
      dst[h * stride + t] = vd_sum(acc[h * nv + t]) * c;
  }
}

#include "vec_tails.h"

#endif
