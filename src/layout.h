/* Where things lie: the one place that computes a size. Placing and counting are the same code: a
 * caller that wants only the size passes no base.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_LAYOUT_H
#define SPL_LAYOUT_H

#include <assert.h>
#include <stdbool.h>

#include "checked.h"
#include "problem.h"

/* Most bytes of one task's scratch that go on the stack. */
#define SPL_STACK_BYTES (112 * 1024)
/* Most KV heads that a task walks side by side (src/bundle.h), by strips and otherwise. */
#define SPL_MAX_BUNDLE SPL_MAX_TOGETHER
#define SPL_MAX_TILE_BUNDLE 16

/* What the pieces of one task ask of its scratch. Each place in a bundle has a state of its own,
 * for the most query rows of any piece that is walked there, and sums to fold into for the most of
 * any that folds. Scores of pieces that are walked one by one last for one of them, so that all
 * places share them. Pieces that are walked together have scores at each place, and those that go
 * by strips sums of a tile and of a chunk, too. */
typedef struct spl_scratch {
  int64_t max_stride; /* of scores */
  int64_t max_scores; /* of one row of heads, times query rows; of pieces walked one by one */
  int64_t max_wide;   /* floats of spl_group.wide */
  int64_t n_groups;   /* places of bundles with tokens: 0 .. SPL_MAX_BUNDLE */
  uint8_t rows[SPL_MAX_BUNDLE], folding_rows[SPL_MAX_BUNDLE];
  uint8_t q_rows[SPL_MAX_BUNDLE];     /* those whose Q is largest: that of more can be smaller */
  uint8_t own_stride[SPL_MAX_BUNDLE]; /* of scores of pieces walked together */
  uint8_t has_part[SPL_MAX_BUNDLE];   /* of pieces walked by strips */
} spl_scratch;
static_assert(sizeof(spl_scratch) == 4 * sizeof(int64_t) + 5 * SPL_MAX_BUNDLE, "no padding");

/* Whether pieces of n_rows are walked together, K of all of them before V. */
static inline bool spl_walks_together(const spl_shape *shape, int64_t n_rows) {
  return shape->together && n_rows == 1;
}

/* Where a group has them: scores of pieces walked one by one and together, sums by strips. */
typedef struct spl_score_places {
  float *shared, *own, *part, *chunk;
} spl_score_places;

/* Scores per row of heads for pieces of n_tokens: of one tile at most. */
static inline int64_t spl_score_stride(int64_t n_tokens) {
  if (n_tokens >= SPL_TILE_TOKENS) return SPL_TILE_TOKENS;
  return spl_ceil_div(n_tokens, SPL_LANES) * SPL_LANES;
}

/* Most tokens of a piece whose sums are never folded. The last tile may be a partial one: what
 * counts is that there is a tile that folds. */
enum { SPL_UNFOLDED_TOKENS = (SPL_FOLD_TILES - 1) * SPL_TILE_TOKENS };

/* The number of tokens that stands for all those of which a piece asks for the same scratch: whole
 * vectors of scores up to a tile, and whether there are tiles enough to fold. */
static inline int64_t spl_scratch_tokens(int64_t n_tokens) {
  return n_tokens > SPL_UNFOLDED_TOKENS ? SPL_UNFOLDED_TOKENS + 1 : spl_score_stride(n_tokens);
}

/* Adds a piece of n_rows and n_tokens at a place. No tokens need no scratch. */
void spl_scratch_add(const spl_shape *shape, spl_scratch *scratch, int64_t place, int64_t n_rows,
                     int64_t n_tokens);

/* The same at each of the first n_places. */
void spl_scratch_add_all(const spl_shape *shape, spl_scratch *scratch, int64_t n_places,
                         int64_t n_rows, int64_t n_tokens);

/* Whether no piece at the first n_places could add to it, where no task asks for more than `most`.
 */
bool spl_scratch_is_full(const spl_scratch *scratch, const spl_scratch *most, int64_t n_places);

/* Whether they ask for the same. */
bool spl_scratch_same(const spl_scratch *a, const spl_scratch *b);

/* Its bytes, of rows and of sums, both multiples of 64. */
bool spl_scratch_bytes(const spl_shape *shape, const spl_scratch *scratch, int64_t *row_bytes,
                       int64_t *sum_bytes);

/* Points the arrays of n_groups groups into memory of those sizes; of `rows`, 64-byte aligned, each
 * vector lies in one line. score_stride and n_heads are left to each piece, as are scores, part
 * and chunk, which are those of its places. */
void spl_scratch_place(const spl_shape *shape, const spl_scratch *scratch, unsigned char *rows,
                       unsigned char *sums, spl_group *groups, spl_score_places *places);

typedef struct spl_region {
  const char *name;
  int64_t offset, bytes;
} spl_region;
enum { SPL_PARTIAL_OUT, SPL_PARTIAL_STATE, SPL_SCRATCH, SPL_N_REGIONS };

/* The workspace: regions one after another, each at a multiple of its alignment. */
typedef struct spl_workspace {
  spl_region regions[SPL_N_REGIONS];
  int64_t bytes;
} spl_workspace;

/* scratch_bytes: of all tasks together, 0 if scratch is on the stack. */
bool spl_workspace_layout(const spl_shape *shape, int64_t n_slots, int64_t scratch_bytes,
                          spl_workspace *workspace);

#endif
