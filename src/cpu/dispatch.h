/* Choosing a kernel set: by CPU bits, by name, by number.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CPU_DISPATCH_H
#define SPL_CPU_DISPATCH_H

#include <splitkv/splitkv.h>

#include "kernels.h"

/* The set for `isa`: for SPLITKV_ISA_AUTO the best usable one whose arithmetic class is allowed and
 * that does KV of dtype_kv; has_plain_codes: with what spl_kernel_set.needs_plain_codes asks for.
 * Errors: ISA_UNKNOWN (no such number), ARITHMETIC (its class is not allowed), ISA_DTYPE (it does
 * not do dtype_kv), ISA_UNAVAILABLE (not in this build, or this CPU lacks it). */
splitkv_status spl_choose_kernels(splitkv_isa isa, splitkv_arithmetic allowed,
                                  splitkv_dtype dtype_kv, int has_plain_codes,
                                  const spl_kernel_set **kernels, splitkv_error *error);

#endif
