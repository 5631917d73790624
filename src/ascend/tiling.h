/* What tiling decides, apart from the words that say it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_ASCEND_TILING_H
#define SPL_ASCEND_TILING_H

#include <splitkv/ascend.h>

#include <stdbool.h>

/* A batch in the numbers that tiling depends on. */
typedef struct spl_ascend_case {
  splitkv_problem problem; /* checked */
  splitkv_ascend_target target;
  int64_t n_requests, n_nonempty, max_kv_len;
} spl_ascend_case;

/* Checks problem and target, without a batch. */
splitkv_status spl_ascend_import(const splitkv_problem *problem,
                                 const splitkv_ascend_target *target, spl_ascend_case *c,
                                 splitkv_error *error);

/* Sequences are long from this many tokens per core on. */
enum { SPL_ASCEND_LONG_TOKENS = 256 };
/* The largest number of heads that a task takes. */
enum { SPL_ASCEND_TASK_HEADS = 32 };

/* May a batch of that size be split over cores: one whose longest request counts as long, and any
 * other? Both need more conditions, but never without this one. */
bool spl_ascend_may_split_long(const spl_ascend_case *c, int64_t n_requests);
bool spl_ascend_may_split_short(const spl_ascend_case *c, int64_t n_requests);

/* Tokens that one step of the kernel takes. */
int64_t spl_ascend_tile_tokens(const splitkv_problem *problem);

/* Query rows per matrix product in tasks of n_heads heads. */
int64_t spl_ascend_rows(const splitkv_problem *problem, int64_t n_heads);

static inline int64_t spl_ascend_round16(int64_t n) {
  return (n + 15) / 16 * 16;
}

#endif
