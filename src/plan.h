/* The plan as run, explain and tests of the house see it. Immutable once made.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_PLAN_H
#define SPL_PLAN_H

#include "layout.h"
#include "rows.h"
#include "split.h"

/* Of KV heads that a task walks side by side: most bytes of K and V in one tile of theirs, for
 * twice as many heads where they are walked together, any by strips; and most bytes of scratch. */
#define SPL_BUNDLE_BYTES (512 * 1024)
#define SPL_BUNDLE_SCRATCH_BYTES (256 * 1024)

/* KV heads that a task walks side by side: of blocks of one query row at most `heads`, of several
 * rows at most `tile_heads` and `rows` rows in all. A block may always be walked alone. */
typedef struct spl_bundle_limit {
  int64_t heads, tile_heads, rows; /* 1 <= tile_heads <= heads <= rows */
} spl_bundle_limit;

static inline int64_t spl_most_heads(const spl_bundle_limit *limit, int64_t n_rows) {
  if (n_rows == 1) return limit->heads;
  const int64_t by_rows = limit->rows / n_rows;
  return by_rows < 1 ? 1 : by_rows < limit->tile_heads ? by_rows : limit->tile_heads;
}

/* What a task takes of scratch: its rows, and its sums behind them. */
typedef struct spl_scratch_kind {
  spl_scratch needs;
  int64_t row_bytes, sum_bytes;
} spl_scratch_kind;

/* One call of the pool: the pieces from `start` up to the next task's start. */
typedef struct spl_task {
  spl_place start;
  int64_t slot;         /* of the first piece that needs one */
  int64_t scratch_kind; /* number in plan->scratch_kinds */
  int64_t scratch;      /* offset in the scratch region; 0 on the stack */
} spl_task;

/* Cut (block, KV head) pairs whose slots lie one after another: heads [head, head + n_heads) of one
 * block, n_splits pieces each, of each piece a slot for each row: the pieces of a head one after
 * another, or of a level block those of all heads between two cuts. The pieces of a shared prefix
 * come before them. */
typedef struct spl_merge_run {
  int64_t block, head, n_heads;
  int64_t slot, n_splits;
  int64_t pairs_before; /* (query row, KV head) pairs of all merge runs before this one */
} spl_merge_run;

struct splitkv_plan {
  uint64_t magic;
  int64_t plan_bytes;
  splitkv_allocator allocator; /* release is NULL when the caller owns the storage */
  spl_shape shape;
  int64_t n_requests;
  int64_t n_rows;   /* query rows */
  int64_t n_blocks; /* of query rows */
  int64_t n_workers;
  int64_t n_tasks;
  int64_t n_slots;
  int64_t n_merge_runs;
  int64_t n_merge_pairs;
  int64_t n_scratch_kinds;
  int64_t n_merge_tasks;  /* that share the rows of all merge pairs; 0 when there are none */
  int64_t n_attended;     /* tokens that some row attends to, of all blocks */
  bool cuts_level;        /* blocks of one query row */
  spl_bundle_limit limit; /* of bundles; which pieces there are does not depend on it */
  int64_t stack_bytes;    /* of one task's scratch; 0 when it is in the workspace */
  spl_workspace workspace;
  splitkv_problem shared_rule;     /* that blocks with a shared prefix are cut by */
  int64_t *kv_lens;                /* [n_requests] */
  int64_t *q_offsets;              /* [n_requests + 1] */
  spl_block *blocks;               /* [n_blocks] */
  spl_task *tasks;                 /* [n_tasks + 1]; the last one is the end of the line */
  spl_scratch_kind *scratch_kinds; /* [n_scratch_kinds]; on the stack one for all tasks */
  spl_merge_run *merges;           /* [n_merge_runs] */
};

#define SPL_PLAN_MAGIC UINT64_C(0x6e616c70766b7073) /* "spkvplan" */

/* NULL_POINTER or PLAN_INVALID, unless this is a plan. */
splitkv_status spl_check_plan(const splitkv_plan *plan, splitkv_error *error);

/* Tokens that some row of a block attends to. */
static inline int64_t spl_attended(const splitkv_plan *plan, int64_t block) {
  return plan->blocks[block].end - plan->blocks[block].first;
}

/* The problem whose policy cuts a block. */
static inline const splitkv_problem *spl_rule(const splitkv_plan *plan, int64_t block) {
  return plan->blocks[block].is_shared ? &plan->shared_rule : &plan->shape.problem;
}

/* Whether all KV heads of a block are cut at one token. */
static inline bool spl_is_level(const splitkv_plan *plan, int64_t block) {
  return plan->cuts_level && plan->blocks[block].n_rows == 1 && !plan->blocks[block].is_shared;
}

/* KV heads that a cut in a block goes through. */
static inline int64_t spl_cut_heads(const splitkv_plan *plan, int64_t block) {
  return spl_is_level(plan, block) ? plan->shape.problem.n_heads_kv : 1;
}

/* One piece of work. */
typedef struct spl_piece {
  int64_t block, head;
  int64_t first, end; /* tokens, counted from the block's first; both 0 if it has none */
  int64_t slot;       /* of its first row, the others follow; -1: the piece is all of its rows and
                       * goes straight to out */
} spl_piece;

/* The pieces of one task, in order. */
typedef struct spl_walk {
  const splitkv_plan *plan;
  spl_place at, end;
  int64_t slot;
} spl_walk;

spl_walk spl_walk_task(const splitkv_plan *plan, int64_t task);
bool spl_walk_next(spl_walk *walk, spl_piece *piece);

#endif
