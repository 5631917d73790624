/* Which pieces a task walks side by side.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "bundle.h"

#include "checked.h"

int64_t spl_bundle_width(const splitkv_plan *plan, int64_t block, int64_t n) {
  const int64_t most = spl_most_heads(&plan->limit, plan->blocks[block].n_rows);
  if (n <= most) return n; /* without a division, which planning has for each task */
  return spl_ceil_div(n, spl_ceil_div(n, most));
}

spl_bundle_walk spl_bundle_begin(const spl_walk *walk) {
  spl_bundle_walk w = {.walk = *walk};
  w.has_piece = spl_walk_next(&w.walk, &w.piece);
  return w;
}

/* The next head's piece, of tokens some of which the bundle walks anyway, on the same grid of
 * tiles. Of a block without tokens all pieces are alike. */
static bool joins(const spl_bundle *b, const spl_piece *piece) {
  const spl_piece *last = &b->pieces[b->n - 1];
  if (piece->block != last->block || piece->head != last->head + 1) return false;
  if (piece->end == piece->first) return true;
  return piece->first < b->end && piece->end > b->first &&
         (piece->first - b->first) % SPL_TILE_TOKENS == 0;
}

/* Most pieces of the bundle that `first` begins: those of the block that the walk has yet to
 * reach, in bundles of even size. */
static int64_t most_pieces(const spl_walk *walk, const spl_piece *first) {
  const bool ends_here = walk->end.block == first->block && !spl_is_level(walk->plan, first->block);
  const int64_t end =
      ends_here ? walk->end.head + (walk->end.token > 0) : walk->plan->shape.problem.n_heads_kv;
  return spl_bundle_width(walk->plan, first->block, end - first->head);
}

static void add_piece(spl_bundle *b, const spl_piece *piece) {
  b->first = b->n == 0 ? piece->first : spl_min(b->first, piece->first);
  b->end = b->n == 0 ? piece->end : spl_max(b->end, piece->end);
  b->pieces[b->n++] = *piece;
}

bool spl_bundle_next(spl_bundle_walk *w, spl_bundle *b) {
  b->n = b->first = b->end = 0;
  if (!w->has_piece) return false;
  const int64_t most = most_pieces(&w->walk, &w->piece);
  do {
    add_piece(b, &w->piece);
    w->has_piece = spl_walk_next(&w->walk, &w->piece);
  } while (w->has_piece && b->n < most && joins(b, &w->piece));
  return true;
}
