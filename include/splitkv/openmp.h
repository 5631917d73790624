/* A ready-made pool over OpenMP, in the library splitkv-openmp (the core needs no OpenMP).
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_OPENMP_H
#define SPLITKV_OPENMP_H

#include <splitkv/splitkv.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Writes to *pool a pool that runs on OpenMP's own threads: n_threads of them, or as many as
 * OpenMP's settings say when n_threads is 0. It holds no resource and needs no release. Their
 * stacks, OMP_STACKSIZE or what the C library gives, need room for splitkv_run. Errors:
 * NULL_POINTER, N_WORKERS (n_threads < 0 or > SPLITKV_MAX_WORKERS). */
SPLITKV_API splitkv_status splitkv_openmp_pool(int64_t n_threads, splitkv_pool *pool,
                                               splitkv_error *error);

#ifdef __cplusplus
}
#endif
#endif
