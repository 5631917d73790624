/* Choosing a kernel set: by CPU bits, by name, by number.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CPU_DISPATCH_H
#define SPL_CPU_DISPATCH_H

#include <splitkv/splitkv.h>

#include "kernels.h"

/* The set for `isa`: the best usable one for SPLITKV_ISA_AUTO. Errors: ISA_UNKNOWN (no such
 * number), ISA_UNAVAILABLE (not in this build, or this CPU lacks it). */
splitkv_status spl_choose_kernels(splitkv_isa isa, const spl_kernel_set **kernels,
                                  splitkv_error *error);

#endif
