/* Launches of the Ascend kernel for tests: a batch with its words and scratch, for the model.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TEST_LAUNCH_H
#define SPLITKV_TEST_LAUNCH_H

#include <splitkv/ascend.h>

#include "batch.h"

typedef struct launch {
  test_batch batch;
  splitkv_ascend_target target;
  splitkv_ascend_info info;
  uint32_t *words;
  splitkv_ascend_sizes sizes; /* EXACT */
  splitkv_ascend_memory memory;
  unsigned char *q; /* with room behind its last row */
  ref_result exact; /* NULLs until launch_compare */
} launch;

/* Builds the batch of `spec`, whose dtypes, layout, table and dims are as the kernel takes them,
 * its words, and scratch of `sizing`. False, and nothing to close, where splitkv_ascend_tile
 * refuses: *error (may be NULL) says why. */
bool launch_open(launch *l, const test_spec *spec, const splitkv_ascend_target *target,
                 splitkv_ascend_sizing sizing, splitkv_error *error);
void launch_close(launch *l);

/* Every byte of out and scratch becomes `byte`: of scratch, NaNs with 0xff. */
void launch_fill(launch *l, int byte);

/* Runs the model; *report (not NULL) is initialised here. */
splitkv_status launch_run(launch *l, uint32_t flags, const splitkv_pool *pool,
                          splitkv_ascend_report *report, splitkv_error *error);

/* Every row of out against the oracle and the bound. False after a failed check. */
bool launch_compare(launch *l, double *worst);

/* A random problem that the kernel takes: with max_head_dim and max_tokens, which may be split over
 * up to 48 cores. */
typedef struct launch_ranges {
  int64_t max_requests, max_tokens, max_head_dim, max_heads_kv, max_group;
} launch_ranges;
void launch_random(test_spec *spec, splitkv_ascend_target *target, rng *r,
                   const launch_ranges *ranges);

#endif
