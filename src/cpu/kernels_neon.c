/* The kernel set neon.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "codes_neon.h"

#define SPL_SET_NAME spl_kernels_neon
#define SPL_SET_TEXT "neon"
#define SPL_SET_ISA SPLITKV_ISA_NEON
#define SPL_SET_BITS SPL_CPU_NEON
#include "kernels.c.inc"
