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

/* Scratch of a task whose longest piece has max_piece_tokens: its size in bytes, a multiple of 8.
 * 0 tokens take 0 bytes. */
bool spl_scratch_bytes(const spl_shape *shape, int64_t max_piece_tokens, int64_t *bytes);

/* Points group's arrays into scratch of at least spl_scratch_bytes, 64-byte aligned. */
void spl_scratch_place(const spl_shape *shape, int64_t max_piece_tokens, unsigned char *scratch,
                       spl_group *group);

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
