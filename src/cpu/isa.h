/* What the CPU and the operating system can do, as one word of bits.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CPU_ISA_H
#define SPL_CPU_ISA_H

#include <stddef.h>
#include <stdint.h>

enum {
  SPL_CPU_AVX2 = 1 << 0,
  SPL_CPU_FMA = 1 << 1,
  SPL_CPU_F16C = 1 << 2,
  SPL_CPU_AVX512 = 1 << 3,      /* F, BW, DQ and VL, and the OS saves the registers */
  SPL_CPU_AVX512_BF16 = 1 << 4, /* and VBMI */
  SPL_CPU_NEON = 1 << 5,
  SPL_CPU_AVX512_VNNI = 1 << 6,
  /* What no set needs, but kernels go by: AVX-512 in units of 512 bits, not in halves one after the
   * other; requests for memory are best made into the first cache. */
  SPL_CPU_WIDE = 1 << 8,
  SPL_CPU_NEAR = 1 << 9
};

/* Asks the CPU once per process. Any thread. */
uint32_t spl_cpu_bits(void);

/* The names of the bits in `bits`, separated by blanks, as static text for any combination that
 * a kernel set can lack. */
const char *spl_cpu_bits_text(uint32_t bits);

#endif
