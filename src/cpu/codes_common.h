/* What storing codes shares: the formats of eight bits.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * codes_<isa>.h is the part of a vocabulary that only append needs: codes in memory, neighbouring
 * lanes, stores past the caches. codes_scalar.h is the definition. */
#ifndef SPL_CPU_CODES_COMMON_H
#define SPL_CPU_CODES_COMMON_H

#include "vec_common.h"

/* How an f32 becomes a code of eight bits: bits of its fraction go, its exponent has another bias.
 * Below the least normal number, adding `magic` leaves the multiple of the least subnormal one in
 * the last bits. Both ways round to nearest, ties to even. */
typedef struct spl_fp8 {
  uint32_t shift, rebias, least_normal; /* the last two are bits of an f32 */
  float magic, largest;
  uint32_t nan;
} spl_fp8;

static const spl_fp8 spl_e4m3 = {20, 120u << 23, 121u << 23, 16384.0f, 448.0f, 0x7f};
static const spl_fp8 spl_e5m2 = {21, 112u << 23, 113u << 23, 128.0f, 57344.0f, 0x7f};

#endif
