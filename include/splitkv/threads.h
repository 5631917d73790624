/* A ready-made pool of POSIX threads for callers who have none.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Idle threads sleep. After a job a thread looks around for the next one, or for the end of the
 * job, for at most a sixteenth of the time that the job took and at most 50 us, and not at all
 * where the process has fewer CPUs than the pool has threads. Under a quota of CPU time (a Linux
 * control group) no more threads run than the quota keeps running. Both are looked up when the pool
 * is created. */
#ifndef SPLITKV_THREADS_H
#define SPLITKV_THREADS_H

#include <splitkv/splitkv.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct splitkv_threads splitkv_threads;

/* Starts n_threads - 1 threads, or as many fewer as a quota does not keep running; the thread that
 * calls run is the last one. n_threads is
 * 1 .. SPLITKV_MAX_WORKERS. One run at a time uses the pool. The pool itself is allocated with
 * malloc. Errors: N_WORKERS, NULL_POINTER, OUT_OF_MEMORY, THREADS. */
SPLITKV_API splitkv_status splitkv_threads_create(int64_t n_threads, splitkv_threads **threads,
                                                  splitkv_error *error);
/* The pool to hand to splitkv_run; valid until splitkv_threads_destroy. */
SPLITKV_API const splitkv_pool *splitkv_threads_pool(const splitkv_threads *threads);
/* Joins the threads. NULL is left alone. */
SPLITKV_API void splitkv_threads_destroy(splitkv_threads *threads);

/* CPUs that the calling thread may run on, at least 1. */
SPLITKV_API int64_t splitkv_threads_cpus(void);
/* CPU time per time, in CPUs, that the control groups of the process grant (Linux, both versions):
 * the least of the group's own and of those above it. Infinity where there is no limit. */
SPLITKV_API double splitkv_threads_quota(void);

#ifdef __cplusplus
}
#endif
#endif
