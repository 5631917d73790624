/* The machine's roofs as the library's own kernel sets see them, for benchmarks.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each probe works on the calling thread and takes no time itself: the caller reads the clock. */
#ifndef SPLITKV_PROBE_H
#define SPLITKV_PROBE_H

#include <splitkv/splitkv.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Does at least n_fma independent multiply-adds (one multiply and one add each), in registers, with
 * the vectors and the arithmetic of kernel set `isa`: of f32, or of products of bf16. Returns how
 * many it did, 0 for a kernel set that is not usable here. The result of the arithmetic goes to
 * *sink (any float). */
SPLITKV_API int64_t splitkv_probe_multiply_add(splitkv_isa isa, int64_t n_fma, float *sink);

/* Reads size_bytes once, in order, with the vectors of kernel set `isa`. prefetch_bytes > 0: asks
 * for the data that far ahead into the second-level cache. Returns the bytes read, 0 for a kernel
 * set that is not usable here; *sink depends on every byte. */
SPLITKV_API int64_t splitkv_probe_read(splitkv_isa isa, const void *data, size_t size_bytes,
                                       size_t prefetch_bytes, uint32_t *sink);

#ifdef __cplusplus
}
#endif
#endif
