/* Test data for tensors: random, reproducible from the seed, NaN where nobody may read.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_DATA_H
#define SPLITKV_TOOL_DATA_H

#include "case.h"

/* Fills q, k and v of a built case, and scales and zero points. Where nobody may read, floats and
 * FP8 codes are NaN, and beside codes of integers, which have none, the scales that each token has
 * of its own are. Returns 0, or -1 when memory is short. */
int data_fill(tool_case *c, const splitkv_pool *pool);

/* What is added to the values of a KV head that get zero points: without it those would all be near
 * the middle. */
double data_offset(const tool_case *c, int64_t head);

/* Calls body(context, first, end) for chunks of 0 .. n-1 on the pool, or here where it is NULL. */
void data_parallel(const splitkv_pool *pool, int64_t n, int64_t chunk,
                   void (*body)(void *context, int64_t first, int64_t end), void *context);

#endif
