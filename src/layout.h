/* Where things lie: the one place that computes a size. Placing and counting are the same code: a
 * caller that wants only the size passes no base.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_LAYOUT_H
#define SPL_LAYOUT_H

#include <stdbool.h>

#include "problem.h"

/* Most bytes of one task's scratch that go on the stack. */
#define SPL_STACK_BYTES (96 * 1024)
/* Most KV heads that a task walks side by side (src/bundle.h). */
#define SPL_MAX_BUNDLE 16

/* What the pieces of one task ask of its scratch. Each place in a bundle has a state of its own:
 * what it needs beside that of any piece depends on the longest piece that is walked there. */
typedef struct spl_scratch {
  int64_t max_piece_tokens; /* of all pieces */
  int32_t n_groups;         /* places of bundles with tokens: 0 .. SPL_MAX_BUNDLE */
  uint32_t folding;         /* bit i: some piece at place i folds its sums */
} spl_scratch;

/* Adds a piece of n_tokens at a place. No tokens need no scratch. */
void spl_scratch_add(spl_scratch *scratch, int64_t place, int64_t n_tokens);

/* The same as if pieces of n_tokens had been added at each of n_groups places. */
spl_scratch spl_scratch_of(int64_t n_groups, int64_t n_tokens);

/* Whether more pieces, none of more than max_piece_tokens of `most`, would not make it larger: it
 * takes as many bytes as `most`. */
bool spl_scratch_is_full(const spl_scratch *scratch, const spl_scratch *most);

/* Its bytes: of rows, a multiple of 64, and of sums, a multiple of 8. */
bool spl_scratch_bytes(const spl_shape *shape, const spl_scratch *scratch, int64_t *row_bytes,
                       int64_t *sum_bytes);

/* Points the arrays of n_groups groups into memory of those sizes; of `rows`, 64-byte aligned, each
 * vector lies in one line. */
void spl_scratch_place(const spl_shape *shape, const spl_scratch *scratch, unsigned char *rows,
                       unsigned char *sums, spl_group *groups);

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
