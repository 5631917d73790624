/* The vector vocabulary on AArch64 NEON: four registers are one vf.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CPU_VEC_NEON_H
#define SPL_CPU_VEC_NEON_H

#include <arm_neon.h>

#include "vec_common.h"

typedef struct vf {
  float32x4_t part[4];
} vf;

#define SPL_BLOCK_HEADS(X) X(4) X(2) X(1)
#define SPL_VALUE_ACC 4
#define SPL_VALUE_VECTORS(nh) (4 / (nh))
#define SPL_PROBE_CHAINS 6

#define VF_PARTS(i) SPL_UNROLL for (int i = 0; i < 4; i++)

SPL_INLINE vf vf_set1(float x) {
  vf r;
  VF_PARTS(i) r.part[i] = vdupq_n_f32(x);
  return r;
}
SPL_INLINE vf vf_load(const float *p) {
  vf r;
  VF_PARTS(i) r.part[i] = vld1q_f32(p + 4 * i);
  return r;
}
SPL_INLINE void vf_store(float *p, vf x) {
  VF_PARTS(i) vst1q_f32(p + 4 * i, x.part[i]);
}
SPL_INLINE vf vf_load_f16(const uint16_t *p) {
  vf r;
  VF_PARTS(i) r.part[i] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i)));
  return r;
}
SPL_INLINE vf vf_load_bf16(const uint16_t *p) {
  vf r;
  VF_PARTS(i) r.part[i] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16));
  return r;
}

/* ── codes of quantised KV, eight to a pair of registers ─────────────────────────────────────── */

SPL_INLINE float32x4x2_t pair_of_halfwords(int16x8_t x) {
  const float32x4x2_t r = {
      {vcvtq_f32_s32(vmovl_s16(vget_low_s16(x))), vcvtq_f32_s32(vmovl_high_s16(x))}};
  return r;
}
SPL_INLINE float32x4x2_t pair_of_f16(uint16x8_t bits) {
  const float16x8_t x = vreinterpretq_f16_u16(bits);
  const float32x4x2_t r = {{vcvt_f32_f16(vget_low_f16(x)), vcvt_high_f32_f16(x)}};
  return r;
}
SPL_INLINE float32x4x2_t pair_of_i8(const uint8_t *p) {
  return pair_of_halfwords(vmovl_s8(vreinterpret_s8_u8(vld1_u8(p))));
}
SPL_INLINE float32x4x2_t pair_of_e5m2(const uint8_t *p) {
  return pair_of_f16(vshll_n_u8(vld1_u8(p), 8));
}
/* As scalar_e4m3_as_f16. The sign, spread over the upper byte, is in bits 15 and 14: the second one
 * has to go, unless the magnitude's carry says NaN, and it meets that carry with bit 14 turned. */
SPL_INLINE float32x4x2_t pair_of_e4m3(const uint8_t *p) {
  const int16x8_t spread = vmovl_s8(vreinterpret_s8_u8(vld1_u8(p)));
  const uint16x8_t h = vreinterpretq_u16_s16(vshlq_n_s16(spread, 7));
  const uint16x8_t carried = vaddq_u16(h, vdupq_n_u16(0x80));
  return pair_of_f16(veorq_u16(h, vandq_u16(carried, vdupq_n_u16(0x4000))));
}
/* Each of the four bytes becomes its two halves. */
SPL_INLINE int16x8_t four_bits(const uint8_t *p) {
  uint32_t word;
  memcpy(&word, p, sizeof word);
  const uint8x8_t x = vreinterpret_u8_u32(vdup_n_u32(word));
  const uint8x8_t halves = vzip1_u8(vand_u8(x, vdup_n_u8(15)), vshr_n_u8(x, 4));
  return vreinterpretq_s16_u16(vmovl_u8(halves));
}
SPL_INLINE float32x4x2_t pair_of_u4(const uint8_t *p) {
  return pair_of_halfwords(four_bits(p));
}
SPL_INLINE float32x4x2_t pair_of_i4(const uint8_t *p) {
  return pair_of_halfwords(vsubq_s16(four_bits(p), vdupq_n_s16(8)));
}
/* behind: bytes of eight codes. */
#define VF_CODES(type, behind)                                                                     \
  SPL_INLINE vf vf_load_##type(const uint8_t *p) {                                                 \
    const float32x4x2_t lo = pair_of_##type(p), hi = pair_of_##type(p + (behind));                 \
    const vf r = {{lo.val[0], lo.val[1], hi.val[0], hi.val[1]}};                                   \
    return r;                                                                                      \
  }
VF_CODES(i8, 8)
VF_CODES(e4m3, 8)
VF_CODES(e5m2, 8)
VF_CODES(u4, 4)
VF_CODES(i4, 4)
#undef VF_CODES

#define VF_BINARY(name, op)                                                                        \
  SPL_INLINE vf name(vf a, vf b) {                                                                 \
    vf r;                                                                                          \
    VF_PARTS(i) r.part[i] = op(a.part[i], b.part[i]);                                              \
    return r;                                                                                      \
  }
/* a > b ? a : b, so that a NaN gives b: vmaxq_f32 would give the NaN. */
SPL_INLINE float32x4_t vf_max_part(float32x4_t a, float32x4_t b) {
  return vbslq_f32(vcgtq_f32(a, b), a, b);
}
VF_BINARY(vf_add, vaddq_f32)
VF_BINARY(vf_sub, vsubq_f32)
VF_BINARY(vf_mul, vmulq_f32)
VF_BINARY(vf_div, vdivq_f32)
VF_BINARY(vf_max, vf_max_part)
#undef VF_BINARY

SPL_INLINE vf vf_fma(vf a, vf b, vf c) {
  vf r;
  VF_PARTS(i) r.part[i] = vfmaq_f32(c.part[i], a.part[i], b.part[i]);
  return r;
}
SPL_INLINE vf vf_fma_each(const float *a, vf b, vf c) {
  return vf_fma(vf_set1(*a), b, c);
}
SPL_INLINE vf vf_rint(vf x) {
  vf r;
  VF_PARTS(i) r.part[i] = vrndnq_f32(x.part[i]);
  return r;
}
SPL_INLINE vf vf_select_lt(vf a, vf b, vf x, vf y) {
  vf r;
  VF_PARTS(i) r.part[i] = vbslq_f32(vcltq_f32(a.part[i], b.part[i]), x.part[i], y.part[i]);
  return r;
}
/* Lane i where bit i is set, -inf elsewhere. */
SPL_INLINE vf vf_hide(vf x, uint32_t bits) {
  static const uint32_t lanes[4] = {1, 2, 4, 8};
  const uint32x4_t bit = vld1q_u32(lanes);
  vf r;
  VF_PARTS(i) {
    const uint32x4_t keep = vtstq_u32(vdupq_n_u32(bits >> 4 * i), bit);
    r.part[i] = vbslq_f32(keep, x.part[i], vdupq_n_f32(-INFINITY));
  }
  return r;
}
SPL_INLINE int vf_any_gt(vf a, vf b) {
  uint32x4_t any = vdupq_n_u32(0);
  VF_PARTS(i) any = vorrq_u32(any, vcgtq_f32(a.part[i], b.part[i]));
  return vmaxvq_u32(any) != 0;
}
SPL_INLINE vf vf_canonical(vf x) {
  vf r;
  const float32x4_t nan = vreinterpretq_f32_u32(vdupq_n_u32(0x7fc00000u));
  VF_PARTS(i) r.part[i] = vbslq_f32(vceqq_f32(x.part[i], x.part[i]), x.part[i], nan);
  return r;
}
/* x * 2^n for integral n, 0 where exponent < -125; NaN where it is NaN. Adds n to the exponent
 * bits; what comes of an n out of range is masked. */
SPL_INLINE vf vf_scale(vf x, vf n, vf exponent) {
  vf r;
  VF_PARTS(i) {
    const int32x4_t shift = vshlq_n_s32(vcvtq_s32_f32(n.part[i]), 23);
    const uint32x4_t low = vcltq_f32(exponent.part[i], vdupq_n_f32(-125.0f));
    const int32x4_t bits = vaddq_s32(vreinterpretq_s32_f32(x.part[i]), shift);
    r.part[i] = vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_s32(bits), low));
  }
  return r;
}
SPL_INLINE void vf_to_f16(uint16_t *p, vf x) {
  const vf c = vf_canonical(x);
  VF_PARTS(i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(c.part[i])));
}
SPL_INLINE void vf_to_bf16(uint16_t *p, vf x) {
  VF_PARTS(i) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x.part[i]);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t up = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    const uint32x4_t number = vceqq_f32(x.part[i], x.part[i]);
    const uint32x4_t r = vbslq_u32(number, vshrq_n_u32(up, 16), vdupq_n_u32(0x7fc0));
    vst1_u16(p + 4 * i, vmovn_u32(r));
  }
}
SPL_INLINE float vf_sum(vf x) {
  const float32x4_t lo = vaddq_f32(x.part[0], x.part[2]), hi = vaddq_f32(x.part[1], x.part[3]);
  const float32x4_t r4 = vaddq_f32(lo, hi);
  const float32x2_t r2 = vadd_f32(vget_low_f32(r4), vget_high_f32(r4));
  return vget_lane_f32(r2, 0) + vget_lane_f32(r2, 1);
}
SPL_INLINE float vf_hmax(vf x) {
  const float32x4_t lo = vf_max_part(x.part[0], x.part[1]), hi = vf_max_part(x.part[2], x.part[3]);
  const float32x4_t m = vf_max_part(lo, hi);
  const float a = vgetq_lane_f32(m, 0), b = vgetq_lane_f32(m, 1);
  const float c = vgetq_lane_f32(m, 2), d = vgetq_lane_f32(m, 3);
  const float ab = a > b ? a : b, cd = c > d ? c : d;
  return ab > cd ? ab : cd;
}

/* ── dot products: a vd is two registers, SPL_DOT_LANES lanes ───────────────────────────────── */

typedef struct vd {
  float32x4_t lo, hi;
} vd;
#define VD_ASKS_ROWS(bits, nh) 0
#define VD_TOKENS 1
#define VD_Q_COPIES(n_heads) 1
#define VD_MAX_ACC 8
#define VD_MAX_VECTORS 8
#define VD_SCORE_VECTORS(nh) (8 / (nh))
#define VD_ROW_TOKEN(i, nv) (i)
#define VD_ROWS(rows, v, c) (rows)[v] + (c)
#define VD_SAME(p) (p)

SPL_INLINE vd vd_make(float32x4_t lo, float32x4_t hi) {
  const vd r = {lo, hi};
  return r;
}
SPL_INLINE vd vd_zero(void) {
  return vd_make(vdupq_n_f32(0), vdupq_n_f32(0));
}
SPL_INLINE vd vd_fma(vd a, vd b, vd c) {
  return vd_make(vfmaq_f32(c.lo, a.lo, b.lo), vfmaq_f32(c.hi, a.hi, b.hi));
}
SPL_INLINE vd vd_load_f32(const float *p) {
  return vd_make(vld1q_f32(p), vld1q_f32(p + 4));
}
SPL_INLINE vd vd_load_q(const float *q, const int copies) {
  (void)copies;
  return vd_load_f32(q);
}
SPL_INLINE vd vd_load_f16(const uint16_t *p) {
  const float16x8_t x = vreinterpretq_f16_u16(vld1q_u16(p));
  return vd_make(vcvt_f32_f16(vget_low_f16(x)), vcvt_high_f32_f16(x));
}
SPL_INLINE vd vd_load_bf16(const uint16_t *p) {
  const uint16x8_t x = vld1q_u16(p);
  return vd_make(vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(x), 16)),
                 vreinterpretq_f32_u32(vshll_high_n_u16(x, 16)));
}
#define VD_CODES(type)                                                                             \
  SPL_INLINE vd vd_load_##type(const uint8_t *p) {                                                 \
    const float32x4x2_t x = pair_of_##type(p);                                                     \
    return vd_make(x.val[0], x.val[1]);                                                            \
  }
VD_CODES(i8)
VD_CODES(e4m3)
VD_CODES(e5m2)
VD_CODES(u4)
VD_CODES(i4)
#undef VD_CODES
/* All lanes of a row are the one number at p. */
SPL_INLINE vd vd_broadcast(const float *p) {
  return vd_make(vdupq_n_f32(*p), vdupq_n_f32(*p));
}
SPL_INLINE vd vd_sub(vd a, vd b) {
  return vd_make(vsubq_f32(a.lo, b.lo), vsubq_f32(a.hi, b.hi));
}
SPL_INLINE vd vd_mul(vd a, vd b) {
  return vd_make(vmulq_f32(a.lo, b.lo), vmulq_f32(a.hi, b.hi));
}
SPL_INLINE float vd_sum(vd x) {
  const float32x4_t r4 = vaddq_f32(x.lo, x.hi);
  const float32x2_t r2 = vadd_f32(vget_low_f32(r4), vget_high_f32(r4));
  return vget_lane_f32(r2, 0) + vget_lane_f32(r2, 1);
}
SPL_INLINE void vd_store_sums(float *dst, int64_t stride, const vd *acc, int nh, int nv, float c) {
  SPL_UNROLL for (int h = 0; h < nh; h++) {
    SPL_UNROLL for (int t = 0; t < nv; t++) dst[h * stride + t] = vd_sum(acc[h * nv + t]) * c;
  }
}

#include "vec_tails.h"

#endif
