/* What every vector vocabulary shares: scalar conversions, prefetch, inlining.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A vocabulary (vec_<isa>.h) defines the type vf, SPL_LANES lanes of f32, and the same functions
 * on it; kernel bodies (*.c.inc) are written once over those. Only static functions here: a plain
 * inline one, built with wide vectors, could become the program-wide copy. */
#ifndef SPL_CPU_VEC_COMMON_H
#define SPL_CPU_VEC_COMMON_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels.h"

#if defined(SPL_SMALL_CODE)
#define SPL_INLINE static inline __attribute__((unused))
#else
#define SPL_INLINE static inline __attribute__((always_inline, unused))
#endif
#define SPL_STATIC static __attribute__((unused))
/* The same, never as a part of its callers. */
#define SPL_APART static __attribute__((unused, noinline))
#define SPL_PRAGMA(x) _Pragma(#x)
#if defined(SPL_SMALL_CODE)
#define SPL_UNROLL
#elif defined(__clang__)
#define SPL_UNROLL SPL_PRAGMA(clang loop unroll(full))
#else
#define SPL_UNROLL SPL_PRAGMA(GCC unroll 64)
#endif

/* Asks for a line for reading into the second-level cache. Never faults. */
SPL_INLINE void spl_prefetch(const void *p) {
  __builtin_prefetch(p, 0, 2);
}

/* The same, into the first-level cache. */
SPL_INLINE void spl_prefetch_near(const void *p) {
  __builtin_prefetch(p, 0, 3);
}

SPL_INLINE float scalar_from_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
SPL_INLINE uint32_t scalar_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

/* Exact. NaN stays NaN. */
SPL_INLINE float scalar_from_f16(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
  const uint32_t magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u)
    return scalar_from_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude >= 0x0400u) return scalar_from_bits(sign | ((magnitude << 13) + (112u << 23)));
  /* Subnormal: an integer times 2^-24, exact in f32. */
  const float value = (float)magnitude * scalar_from_bits(0x33800000u);
  return scalar_from_bits(sign | scalar_bits(value));
}

/* The bits of an f16 with 2^-8 times the value of an E4M3, which has its exponent 8 too low there.
 * NaN is NaN: a magnitude of all ones carries into the lowest of the exponent's upper bits. */
SPL_INLINE uint16_t scalar_e4m3_as_f16(uint8_t x) {
  const uint32_t magnitude = (x & 0x7fu) << 7, sign = (uint32_t)(x & 0x80u) << 8;
  return (uint16_t)(sign | magnitude | ((magnitude + 0x80u) & 0x4000u));
}

/* To nearest, ties to even. NaN gives the one quiet NaN 0x7e00. */
SPL_INLINE uint16_t scalar_to_f16(float x) {
  const uint32_t bits = scalar_bits(x);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7e00u;
  if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds to 2^16 or more */
  if (magnitude < 0x38800000u) {
    /* Below 2^-14: adding 0.5 leaves the multiple of 2^-24 in the last bits, rounded. */
    const float shifted = scalar_from_bits(magnitude) + 0.5f;
    return (uint16_t)(sign | (scalar_bits(shifted) - 0x3f000000u));
  }
  const uint32_t odd = magnitude >> 13 & 1u;
  return (uint16_t)(sign | ((magnitude - (112u << 23) + 0xfffu + odd) >> 13));
}

/* To nearest, ties to even. NaN gives the one quiet NaN 0x7fc0. */
SPL_INLINE uint16_t scalar_to_bf16(float x) {
  const uint32_t bits = scalar_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0u;
  return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

#endif
