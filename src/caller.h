/* What callers hand in: their memory functions and their threads.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CALLER_H
#define SPL_CALLER_H

#include <splitkv/splitkv.h>

/* *chosen is the caller's allocator, or malloc where there is none. STRUCT_SIZE, ALLOCATOR. */
splitkv_status spl_choose_allocator(const splitkv_allocator *given, splitkv_allocator *chosen,
                                    splitkv_error *error);

/* STRUCT_SIZE, POOL. NULL is a pool too: the calling thread. */
splitkv_status spl_check_pool(const splitkv_pool *pool, splitkv_error *error);

/* body(context, i) for each i in 0 .. n-1, on the pool's threads. */
void spl_parallel_for(const splitkv_pool *pool, int64_t n, void (*body)(void *, int64_t),
                      void *context);

#endif
