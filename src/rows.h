/* Query rows: which tokens each attends to, and which of them are walked together.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A block is a range of query rows of one request that share each tile of K and V. Wherever work is
 * cut, measured and walked, tokens of a block are counted from the first one that some row of it
 * attends to: those before are as if they were not there. */
#ifndef SPL_ROWS_H
#define SPL_ROWS_H

#include <stdbool.h>

#include "batch.h"
#include "problem.h"

/* Rows of query heads that a block should have: each block reads all its KV again, from memory
 * where the shared caches do not hold it, but its state should stay in a second-level cache. */
#define SPL_BLOCK_ROW_HEADS 128
/* Most query rows of a block: at the diagonal all rows meet the tiles that any of them attends to.
 */
#define SPL_MAX_BLOCK_ROWS 64

#define SPL_BALANCED_HEADS 8

typedef struct spl_block {
  int64_t request;
  int64_t row, n_rows; /* query rows [row, row + n_rows) of the batch */
  int64_t first, end;  /* tokens of the request that some row attends to; both 0: none */
  /* A block of a shared prefix has the rows of several requests, `request` is the first of them.
   * Its rows have blocks of their own behind it, for the tokens behind the prefix. All of these are
   * cut by spl_block_walk.shared, and every piece has slots. */
  int64_t prefix; /* the block with the tokens before `first`; -1: there is none */
  int64_t slot;   /* where its slots begin, if the rule cuts it */
  bool is_shared, is_prefix;
} spl_block;

/* Where a query row stands and what it may attend to, before any tree mask. */
typedef struct spl_row_range {
  int64_t position;
  int64_t first, end; /* tokens; both 0: none */
} spl_row_range;

/* Query rows per block. */
int64_t spl_block_rows(const splitkv_problem *problem);

/* Row i of n of a request. */
spl_row_range spl_range_of_row(const splitkv_problem *problem, int64_t kv_len, int64_t n,
                               int64_t i);

/* Sets first and end of a block that begins with row i of n of its request. */
void spl_measure_block(const splitkv_problem *problem, int64_t kv_len, int64_t n, int64_t i,
                       spl_block *block);

/* Most tokens between first and end of any block, of requests of up to kv_len tokens and n >= 1
 * rows; grows with both. */
int64_t spl_block_reach(const splitkv_problem *problem, int64_t kv_len, int64_t n);

/* The bits of tokens [token, token + 64) that a row attends to. tree: the row's mask, or NULL. */
uint64_t spl_row_mask(const splitkv_problem *problem, const spl_row_range *range, int64_t kv_len,
                      const uint64_t *tree, int64_t token);

/* Words of a row of tree_mask. */
static inline int64_t spl_tree_words(const splitkv_problem *problem) {
  return problem->tree_tokens / 64 + (problem->tree_tokens % 64 != 0);
}

/* The blocks of a batch, in order. */
typedef struct spl_block_walk {
  const splitkv_problem *problem;
  const splitkv_batch *batch;
  splitkv_problem shared;               /* the rule that blocks with a shared prefix are cut by */
  bool is_decode;                       /* one row of each request, no prefixes */
  bool attends_all;                     /* and each to all tokens */
  int64_t most_rows;                    /* of a block */
  int64_t n;                            /* blocks so far */
  int64_t request, row;                 /* where the next one begins: a row of a request */
  int64_t next_prefix, measured_prefix; /* whose prefix_tokens are known; -1: none */
  int64_t prefix, prefix_tokens, prefix_end; /* of requests before prefix_end; -1: none */
} spl_block_walk;

/* The batch has been checked. */
spl_block_walk spl_begin_blocks(const spl_shape *shape, const splitkv_batch *batch);
bool spl_next_block_of_rows(spl_block_walk *walk, spl_block *block);

/* False at the end of the batch. Decode is what planning does for every request of every step, so
 * it has the shortest way. */
static inline bool spl_next_block(spl_block_walk *w, spl_block *block) {
  if (!w->is_decode) return spl_next_block_of_rows(w, block);
  const int64_t r = w->request;
  if (r >= w->batch->n_requests) return false;
  const int64_t kv_len = spl_kv_len(w->batch, r);
  block->request = block->row = r;
  block->n_rows = 1;
  block->first = 0;
  block->end = kv_len;
  block->prefix = -1;
  block->slot = 0;
  block->is_shared = block->is_prefix = false;
  if (!w->attends_all) spl_measure_block(w->problem, kv_len, 1, 0, block);
  w->request++;
  return true;
}

/* Most slots of n_rows query rows of requests with a shared prefix, of AUTO, for n_workers; false
 * on overflow. */
bool spl_prefix_slots(const splitkv_problem *problem, int64_t n_rows, int64_t n_workers,
                      int64_t *n_slots);

/* What the rows of a block cost per token, where one row costs 1: it is bound by reading, which
 * takes as long as the multiply-adds of SPL_BALANCED_HEADS. */
static inline int64_t spl_block_weight(const spl_shape *shape, int64_t n_rows) {
  if (n_rows == 1) return 1;
  const int64_t one = SPL_BALANCED_HEADS + shape->group;
  const int64_t weight = (SPL_BALANCED_HEADS + n_rows * shape->group + one / 2) / one;
  return weight > 1 ? weight : 1;
}

#endif
