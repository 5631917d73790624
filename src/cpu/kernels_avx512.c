/* The kernel set avx512.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "codes_avx512.h"

#define SPL_SET_NAME spl_kernels_avx512
#define SPL_SET_TEXT "avx512"
#define SPL_SET_ISA SPLITKV_ISA_AVX512
#define SPL_SET_BITS (SPL_CPU_AVX512 | SPL_CPU_FMA | SPL_CPU_F16C)
#include "kernels.c.inc"
