/* Bundles: pieces of neighbouring KV heads of one block that a task walks side by side.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Where the rows of a token's KV heads lie side by side, a task walks several heads through a tile
 * before the next tile, so that memory is read in order. The pieces may be ranges of different
 * tokens; each takes part in the tiles inside its own. Tiles are counted from a piece's first token
 * whether it is walked in a bundle or alone, so that the arithmetic of each head is the same. */
#ifndef SPL_BUNDLE_H
#define SPL_BUNDLE_H

#include "plan.h"

typedef struct spl_bundle {
  int64_t n;          /* pieces; 0 at the end of the task */
  int64_t first, end; /* tokens of all pieces together, without a gap */
  spl_piece pieces[SPL_MAX_BUNDLE];
} spl_bundle;

/* The walk through the bundles of a walk, one piece ahead of them. */
typedef struct spl_bundle_walk {
  spl_walk walk;
  bool has_piece;
  spl_piece piece;
} spl_bundle_walk;

/* Pieces side by side where n of one block are to come: bundles of even size, the narrower the more
 * query rows share each tile. */
int64_t spl_bundle_width(const splitkv_plan *plan, int64_t block, int64_t n);

spl_bundle_walk spl_bundle_begin(const spl_walk *walk);

/* False at the end of the walk. */
bool spl_bundle_next(spl_bundle_walk *walk, spl_bundle *bundle);

#endif
