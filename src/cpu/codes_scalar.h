/* Storing codes in plain C: the definition of what the other vocabularies must give, bit for bit.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CPU_CODES_SCALAR_H
#define SPL_CPU_CODES_SCALAR_H

#include "codes_common.h"
#include "vec_scalar.h"

/* Lanes 1 0 3 2 and so on. */
SPL_INLINE vf vf_swap_pairs(vf x) {
  vf r;
  VF_EACH(i) r.lane[i] = x.lane[i ^ 1];
  return r;
}
/* p[0] p[0] p[1] p[1] and so on, SPL_LANES / 2 numbers. */
SPL_INLINE vf vf_load_twice(const float *p) {
  vf r;
  VF_EACH(i) r.lane[i] = p[i / 2];
  return r;
}
/* a < b ? a : b; a NaN gives b. */
SPL_INLINE vf vf_lesser(vf a, vf b) {
  vf r;
  VF_EACH(i) r.lane[i] = a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i];
  return r;
}
/* NaN becomes 0. */
SPL_INLINE vf vf_number(vf x) {
  vf r;
  VF_EACH(i) r.lane[i] = x.lane[i] == x.lane[i] ? x.lane[i] : 0;
  return r;
}
/* 16 bytes of integers in -128 .. 127. */
SPL_INLINE void vf_to_int8(unsigned char *p, vf x) {
  VF_EACH(i) p[i] = (unsigned char)(int)x.lane[i];
}
/* 8 bytes of two integers in 0 .. 15 each, the first in the lower half. */
SPL_INLINE void vf_to_int4(unsigned char *p, vf x) {
  for (int i = 0; i < SPL_LANES / 2; i++)
    p[i] = (unsigned char)((unsigned)x.lane[2 * i] | (unsigned)x.lane[2 * i + 1] << 4);
}
/* To nearest, ties to even; past the largest number, and infinite, the largest with the sign. */
SPL_INLINE unsigned char scalar_to_fp8(float x, const spl_fp8 *f) {
  const uint32_t bits = scalar_bits(x), sign = bits >> 24 & 0x80u;
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (unsigned char)f->nan;
  float magnitude = scalar_from_bits(bits & 0x7fffffffu);
  if (magnitude > f->largest) magnitude = f->largest;
  const uint32_t m = scalar_bits(magnitude);
  if (m < f->least_normal)
    return (unsigned char)(sign | (scalar_bits(magnitude + f->magic) - scalar_bits(f->magic)));
  const uint32_t half = (1u << (f->shift - 1)) - 1u, odd = m >> f->shift & 1u;
  return (unsigned char)(sign | (m - f->rebias + half + odd) >> f->shift);
}
SPL_INLINE void vf_to_fp8(unsigned char *p, vf x, const spl_fp8 *f) {
  VF_EACH(i) p[i] = scalar_to_fp8(x.lane[i], f);
}
/* One line to memory, not into the caches where the machine has such stores; dst is aligned to it,
 * 64 bytes. */
SPL_INLINE void vf_store_line_past(void *dst, const void *src) {
  memcpy(dst, src, 64);
}
/* Such stores come before what is stored next. */
SPL_INLINE void vf_end_past(void) {}

#endif
