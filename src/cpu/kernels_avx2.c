/* The kernel set avx2.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "codes_avx2.h"

#define SPL_SET_NAME spl_kernels_avx2
#define SPL_SET_TEXT "avx2"
#define SPL_SET_ISA SPLITKV_ISA_AVX2
#define SPL_SET_BITS (SPL_CPU_AVX2 | SPL_CPU_FMA | SPL_CPU_F16C)
#include "kernels.c.inc"
