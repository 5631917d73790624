/* The kernel set scalar.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "codes_scalar.h"

#define SPL_SET_NAME spl_kernels_scalar
#define SPL_SET_TEXT "scalar"
#define SPL_SET_ISA SPLITKV_ISA_SCALAR
#define SPL_SET_BITS 0
#include "kernels.c.inc"
