/* Storing codes on AArch64 NEON. Its stores past the caches have no intrinsic: lines are copied.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CPU_CODES_NEON_H
#define SPL_CPU_CODES_NEON_H

#include "codes_common.h"
#include "vec_neon.h"

SPL_INLINE vf vf_swap_pairs(vf x) {
  vf r;
  VF_PARTS(i) r.part[i] = vrev64q_f32(x.part[i]);
  return r;
}
SPL_INLINE vf vf_load_twice(const float *p) {
  vf r;
  for (int i = 0; i < 2; i++) {
    const float32x4_t x = vld1q_f32(p + 4 * i);
    r.part[2 * i] = vzip1q_f32(x, x);
    r.part[2 * i + 1] = vzip2q_f32(x, x);
  }
  return r;
}
SPL_INLINE vf vf_lesser(vf a, vf b) {
  vf r;
  VF_PARTS(i) r.part[i] = vbslq_f32(vcltq_f32(a.part[i], b.part[i]), a.part[i], b.part[i]);
  return r;
}
SPL_INLINE vf vf_number(vf x) {
  vf r;
  VF_PARTS(i) {
    const uint32x4_t is_number = vceqq_f32(x.part[i], x.part[i]);
    r.part[i] = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x.part[i]), is_number));
  }
  return r;
}
/* The lowest bytes of sixteen integers of 32 bits. */
SPL_INLINE uint8x16_t vf_pack_bytes(const uint32x4_t *x) {
  const uint16x8_t lo = vcombine_u16(vmovn_u32(x[0]), vmovn_u32(x[1]));
  const uint16x8_t hi = vcombine_u16(vmovn_u32(x[2]), vmovn_u32(x[3]));
  return vcombine_u8(vmovn_u16(lo), vmovn_u16(hi));
}
SPL_INLINE uint8x16_t vf_bytes(vf x) {
  uint32x4_t integers[4];
  VF_PARTS(i) integers[i] = vreinterpretq_u32_s32(vcvtq_s32_f32(x.part[i]));
  return vf_pack_bytes(integers);
}
SPL_INLINE void vf_to_int8(unsigned char *p, vf x) {
  vst1q_u8(p, vf_bytes(x));
}
SPL_INLINE void vf_to_int4(unsigned char *p, vf x) {
  const uint16x8_t pairs = vreinterpretq_u16_u8(vf_bytes(x));
  vst1_u8(p, vmovn_u16(vorrq_u16(pairs, vshrq_n_u16(pairs, 4))));
}
SPL_INLINE uint32x4_t vf_fp8_part(float32x4_t x, const spl_fp8 *f) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x);
  const uint32x4_t sign = vandq_u32(vshrq_n_u32(bits, 24), vdupq_n_u32(0x80));
  const float32x4_t a = vminq_f32(vabsq_f32(x), vdupq_n_f32(f->largest));
  const float32x4_t magic = vdupq_n_f32(f->magic);
  const uint32x4_t m = vreinterpretq_u32_f32(a);
  const int32x4_t down = vdupq_n_s32(-(int)f->shift);
  const uint32x4_t odd = vandq_u32(vshlq_u32(m, down), vdupq_n_u32(1));
  const uint32_t offset = (1u << (f->shift - 1)) - 1u - f->rebias;
  const uint32x4_t up = vaddq_u32(vaddq_u32(m, vdupq_n_u32(offset)), odd);
  const uint32x4_t small =
      vsubq_u32(vreinterpretq_u32_f32(vaddq_f32(a, magic)), vreinterpretq_u32_f32(magic));
  const uint32x4_t is_small = vcltq_u32(m, vdupq_n_u32(f->least_normal));
  const uint32x4_t code = vbslq_u32(is_small, small, vshlq_u32(up, down));
  return vbslq_u32(vceqq_f32(x, x), vorrq_u32(code, sign), vdupq_n_u32(f->nan));
}
SPL_INLINE void vf_to_fp8(unsigned char *p, vf x, const spl_fp8 *f) {
  uint32x4_t codes[4];
  VF_PARTS(i) codes[i] = vf_fp8_part(x.part[i], f);
  vst1q_u8(p, vf_pack_bytes(codes));
}
SPL_INLINE void vf_store_line_past(void *dst, const void *src) {
  memcpy(dst, src, 64);
}
SPL_INLINE void vf_end_past(void) {}

#endif
