/* plan + tensors + workspace → out, lse. Reads the plan and does arithmetic: all decisions are
 * made.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "bundle.h"
#include "caller.h"
#include "checked.h"
#include "combine.h"
#include "cpu/isa.h"
#include "error.h"
#include "scales.h"
#include "table.h"

/* What every task of one run shares; read only. */
typedef struct run_context {
  const splitkv_plan *plan;
  const splitkv_tensors *tensors;
  unsigned char *workspace;
  spl_scale_tensors k_scales, v_scales;
} run_context;

/* ── tiles of a bundle ──────────────────────────────────────────────────────────────────────── */

/* A bundle and the query rows of its block. */
typedef struct row_bundle {
  spl_bundle pieces;
  int64_t n_rows;
  spl_row_range ranges[SPL_MAX_BLOCK_ROWS];
  int64_t positions[SPL_MAX_BLOCK_ROWS];
} row_bundle;

/* One tile of a bundle and who takes part in it: the addresses of its rows of K and V, in the
 * first of those heads. n 0: no tile. */
typedef struct bundle_tile {
  const row_bundle *bundle;
  int64_t token, n;          /* [token, token + n): the most that a piece has */
  int64_t first_piece, wide; /* pieces [first_piece, first_piece + wide) span the rows in use */
  int64_t n_pieces;          /* that take part */
  const unsigned char *k[SPL_TILE_TOKENS + SPL_LANES], *v[SPL_TILE_TOKENS + SPL_LANES];
  int64_t scale_rows[SPL_TILE_TOKENS]; /* of each token: spl_find_scale_rows */
} bundle_tile;

/* The next bundle of a walk, and where its query rows stand. False at the end. */
static bool next_bundle(const splitkv_plan *plan, spl_bundle_walk *walk, row_bundle *b) {
  if (!spl_bundle_next(walk, &b->pieces)) return false;
  const spl_block *block = &plan->blocks[b->pieces.pieces[0].block];
  int64_t r = block->request;
  b->n_rows = block->n_rows;
  for (int64_t i = 0; i < block->n_rows; i++) {
    const int64_t row = block->row + i;
    while (row >= plan->q_offsets[r + 1]) /* a shared prefix: rows of several requests */
      r++;
    const int64_t first = plan->q_offsets[r], n = plan->q_offsets[r + 1] - first;
    spl_row_range *range = &b->ranges[i];
    *range = spl_range_of_row(&plan->shape.problem, plan->kv_lens[r], n, row - first);
    b->positions[i] = range->position;
    range->first = spl_max(range->first, block->first);
    range->end = spl_min(range->end, block->end);
    if (range->first >= range->end) range->first = range->end = 0;
  }
  return true;
}

/* Tokens that a piece has of the tile at `token`, which is on its grid; 0: it takes no part. */
static int64_t tokens_in_tile(const spl_piece *piece, int64_t token) {
  if (token < piece->first || token >= piece->end) return 0;
  return spl_min(SPL_TILE_TOKENS, piece->end - token);
}

static void find_pieces(const row_bundle *b, int64_t token, bundle_tile *tile) {
  tile->bundle = b;
  tile->token = token;
  tile->n = tile->n_pieces = tile->first_piece = tile->wide = 0;
  for (int64_t i = 0; i < b->pieces.n; i++) {
    const int64_t n = tokens_in_tile(&b->pieces.pieces[i], token);
    if (n == 0) continue;
    if (tile->n_pieces++ == 0) tile->first_piece = i;
    tile->wide = i + 1 - tile->first_piece;
    tile->n = spl_max(tile->n, n);
  }
}

/* Asks for the scales of n tokens of one page of the cache: first for one, so that the pages of
 * memory of those of K and of V are looked up side by side. */
static void ask_for_scales(const run_context *run, int64_t head, int64_t n_heads, int64_t scale_row,
                           int64_t n) {
  const spl_scale_tensors *tensors[] = {&run->k_scales, &run->v_scales};
  for (int i = 0; i < 4; i++) {
    spl_ask_for_scales(&run->plan->shape, tensors[i % 2], head, n_heads, scale_row, i < 2 ? 1 : n);
  }
}

static void find_tile(const run_context *run, const row_bundle *b, int64_t token,
                      bundle_tile *tile) {
  const spl_shape *shape = &run->plan->shape;
  const splitkv_problem *p = &shape->problem;
  find_pieces(b, token, tile);
  const int64_t n = tile->n;
  if (n == 0) return;
  const spl_piece *piece = &b->pieces.pieces[tile->first_piece];
  const spl_block *block = &run->plan->blocks[piece->block];
  const int64_t row = spl_table_row(p, run->tensors, block->request);
  const int64_t in_request = block->first + token;
  const unsigned char *k_head =
      (const unsigned char *)run->tensors->k + spl_kv_bytes(shape, piece->head * shape->k.head);
  const unsigned char *v_head =
      (const unsigned char *)run->tensors->v + spl_kv_bytes(shape, piece->head * shape->v.head);
  const int64_t k_bytes = spl_kv_bytes(shape, shape->k.token);
  const int64_t v_bytes = spl_kv_bytes(shape, shape->v.token);
  const bool has_scale_rows = shape->k_quant.by_token || shape->v_quant.by_token;
  int64_t page = in_request / p->page_size_tokens, slot = in_request % p->page_size_tokens;
  for (int64_t t = 0; t < n; page++, slot = 0) {
    const int64_t id = spl_load_index(p->table_type, run->tensors->block_table, row + page);
    const int64_t in_page = spl_min(n - t, p->page_size_tokens - slot);
    const unsigned char *k = k_head + spl_kv_bytes(shape, id * shape->k.page) + slot * k_bytes;
    const unsigned char *v = v_head + spl_kv_bytes(shape, id * shape->v.page) + slot * v_bytes;
    for (int64_t i = 0; i < in_page; i++) {
      tile->k[t + i] = k + i * k_bytes;
      tile->v[t + i] = v + i * v_bytes;
    }
    if (has_scale_rows) {
      int64_t *rows = tile->scale_rows + t;
      spl_find_scale_rows(p, id, slot, in_page, rows);
      ask_for_scales(run, piece->head, tile->wide, *rows, in_page);
    }
    t += in_page;
  }
  for (int64_t t = n; t % SPL_LANES != 0; t++) {
    tile->k[t] = tile->k[n - 1];
    if (has_scale_rows) tile->scale_rows[t] = tile->scale_rows[n - 1];
  }
}

/* ── attention over one bundle ──────────────────────────────────────────────────────────────── */

static void begin_group(const run_context *run, const row_bundle *b, const spl_piece *piece,
                        const spl_score_places *places, spl_group *g) {
  const spl_shape *shape = &run->plan->shape;
  const splitkv_problem *p = &shape->problem;
  g->n_heads = b->n_rows * shape->group;
  g->score_stride = spl_score_stride(piece->end - piece->first);
  g->positions = b->positions;
  const bool together = spl_walks_together(shape, b->n_rows);
  g->scores = together ? places->own : places->shared;
  g->part = together ? places->part : NULL;
  g->chunk = together ? places->chunk : NULL;
  g->n_tiles = 0;
  g->n_folds = 0;
  if (p->flags & SPLITKV_FLAG_ALIBI) {
    g->slopes = run->tensors->alibi_slopes + piece->head * shape->group;
  }
  spl_begin_codes(shape, &run->k_scales, piece->head, p->head_dim, &g->k_codes);
  spl_begin_codes(shape, &run->v_scales, piece->head, p->head_dim_v, &g->v_codes);
  const unsigned char *q = (const unsigned char *)run->tensors->q +
                           (run->plan->blocks[piece->block].row * shape->q_request +
                            piece->head * shape->group * shape->q_head) *
                               shape->q_bytes;
  for (int64_t h = 0; h < g->n_heads; h++) {
    const int64_t offset = h / shape->group * shape->q_request + h % shape->group * shape->q_head;
    shape->kernels->load_q[p->dtype_q](g, h, q + offset * shape->q_bytes);
    g->max[h] = -(double)FLT_MAX;
    g->weight[h] = 0;
    if (g->rounded != NULL) g->rounded[h] = 0;
  }
}

/* Which tokens of a tile each row attends to; false where all rows attend to all of them. */
static bool find_masks(const run_context *run, const bundle_tile *tile, uint64_t *masks) {
  const splitkv_problem *p = &run->plan->shape.problem;
  const row_bundle *b = tile->bundle;
  const spl_block *block = &run->plan->blocks[b->pieces.pieces[0].block];
  const int64_t token = block->first + tile->token, last = b->n_rows - 1;
  const int64_t kv_len = run->plan->kv_lens[block->request], n_words = spl_tree_words(p);
  const bool tree = p->tree_tokens > 0 && token + tile->n > kv_len - p->tree_tokens;
  /* Ranges begin and end no earlier than those of the rows before. */
  if (!tree && token >= b->ranges[last].first && token + tile->n <= b->ranges[0].end) return false;
  for (int64_t i = 0; i < b->n_rows; i++) {
    const uint64_t *row = tree ? run->tensors->tree_mask + (block->row + i) * n_words : NULL;
    masks[i] = spl_row_mask(p, &b->ranges[i], kv_len, row, token);
  }
  return true;
}

/* Behind the pieces from `first` on that have as many tokens of a tile. */
static int64_t end_of_equals(const bundle_tile *tile, int64_t first, int64_t n_tokens) {
  const spl_piece *pieces = tile->bundle->pieces.pieces;
  int64_t end = first + 1;
  while (end < tile->first_piece + tile->wide &&
         tokens_in_tile(&pieces[end], tile->token) == n_tokens)
    end++;
  return end;
}

/* One tile of all pieces of a bundle that take part in it: one by one, or together all neighbours
 * that have the same tokens. Each asks for its share of the tile that follows, whose rows are as
 * wide as the heads that take part there. */
static void attend_tile(const run_context *run, const bundle_tile *tile, const bundle_tile *next,
                        spl_group *groups) {
  const spl_shape *shape = &run->plan->shape;
  const splitkv_problem *p = &shape->problem;
  const spl_piece *pieces = tile->bundle->pieces.pieces;
  const int64_t others = next->wide - 1;
  uint64_t masks[SPL_MAX_BLOCK_ROWS];
  spl_tile t = {.k_rows = tile->k, .v_rows = tile->v};
  if (tile->n > 0) {
    t.position = run->plan->blocks[pieces[0].block].first + tile->token;
    if (find_masks(run, tile, masks)) t.masks = masks;
  }
  t.next_k.bytes = spl_kv_bytes(shape, p->head_dim + others * shape->k.head);
  t.next_v.bytes = spl_kv_bytes(shape, p->head_dim_v + others * shape->v.head);
  const bool together = spl_walks_together(shape, tile->bundle->n_rows);
  const int64_t k_step = spl_kv_bytes(shape, shape->k.head);
  const int64_t v_step = spl_kv_bytes(shape, shape->v.head);
  int64_t asked = 0, done = 0;
  for (int64_t i = tile->first_piece, n = 1; done < tile->n_pieces; i += n) {
    t.n_tokens = tokens_in_tile(&pieces[i], tile->token);
    n = together ? end_of_equals(tile, i, t.n_tokens) - i : 1;
    if (t.n_tokens == 0) continue;
    done += n;
    const int64_t end = next->n * done / tile->n_pieces;
    t.k_offset = (i - tile->first_piece) * k_step;
    t.v_offset = (i - tile->first_piece) * v_step;
    t.next_k.n = t.next_v.n = end - asked;
    t.next_k.starts = next->k + asked;
    t.next_v.starts = next->v + asked;
    asked = end;
    if (together) {
      shape->kernels->attend_together[p->dtype_kv](&groups[i], n, &t, k_step, v_step);
      continue;
    }
    const int64_t head = pieces[i].head;
    spl_load_scale_rows(shape, &run->k_scales, head, tile->scale_rows, t.n_tokens,
                        &groups[i].k_codes);
    spl_load_scale_rows(shape, &run->v_scales, head, tile->scale_rows, t.n_tokens,
                        &groups[i].v_codes);
    shape->kernels->attend[p->dtype_kv](&groups[i], &t);
  }
}

/* ── rows of out and lse ────────────────────────────────────────────────────────────────────── */

static void store_result(const run_context *run, int64_t query_row, int64_t query_head,
                         const float *row, float lse) {
  const spl_shape *shape = &run->plan->shape;
  const splitkv_problem *p = &shape->problem;
  const int64_t offset = query_row * shape->out_request + query_head * shape->out_head;
  unsigned char *out = (unsigned char *)run->tensors->out + offset * shape->out_bytes;
  shape->kernels->store_row[p->dtype_out](out, row, p->head_dim_v);
  if (run->tensors->lse != NULL) run->tensors->lse[query_row * p->n_heads_q + query_head] = lse;
}

/* The sink of a query head; -inf: it has none. */
static float sink_of(const run_context *run, int64_t query_head) {
  return run->tensors->sinks == NULL ? -INFINITY : run->tensors->sinks[query_head];
}

/* The end of a row that was not cut: its sink is merged with it. */
static void end_row(const run_context *run, int64_t query_row, int64_t query_head, const float *row,
                    float lse) {
  const spl_shape *shape = &run->plan->shape;
  const int64_t n = shape->problem.head_dim_v;
  const float sink = sink_of(run, query_head), max_lse = sink > lse ? sink : lse;
  if (sink == -INFINITY) {
    store_result(run, query_row, query_head, row, lse);
    return;
  }
  spl_combined sum;
  spl_combine_begin(&sum, shape->kernels, n);
  spl_combine_add(&sum, row, n, 1.0f, lse, max_lse);
  spl_combine_add_sink(&sum, sink, max_lse);
  float out[SPLITKV_MAX_HEAD_DIM];
  lse = spl_combine_end(&sum, n, max_lse, out);
  store_result(run, query_row, query_head, out, lse);
}

/* Where head h of a piece's rows belongs. */
static int64_t query_row_of(const run_context *run, const spl_piece *piece, int64_t h) {
  return run->plan->blocks[piece->block].row + h / run->plan->shape.group;
}
static int64_t query_head_of(const run_context *run, const spl_piece *piece, int64_t h) {
  return piece->head * run->plan->shape.group + h % run->plan->shape.group;
}

static void store_empty(const run_context *run, const spl_piece *piece) {
  static const float zeros[SPLITKV_MAX_HEAD_DIM];
  const int64_t n = run->plan->blocks[piece->block].n_rows * run->plan->shape.group;
  for (int64_t h = 0; h < n; h++) {
    end_row(run, query_row_of(run, piece, h), query_head_of(run, piece, h), zeros, -INFINITY);
  }
}

static void store_whole(const run_context *run, const spl_piece *piece, const spl_group *g) {
  const spl_shape *shape = &run->plan->shape;
  for (int64_t h = 0; h < g->n_heads; h++) {
    float *row = g->acc + h * shape->dv_padded;
    const float weight = (float)g->weight[h];
    shape->kernels->finish(g, h);
    /* No weight at all: 0, also where V holds inf or NaN, whose product with 0 is NaN. */
    if (weight == 0) memset(row, 0, (size_t)shape->dv_padded * sizeof *row);
    shape->kernels->normalize(row, shape->dv_padded, weight);
    end_row(run, query_row_of(run, piece, h), query_head_of(run, piece, h), row,
            spl_lse((float)g->max[h], weight));
  }
}

/* A slot: [group][dv] sums in one region, [group] pairs (lse, weight) in the other. The slots of a
 * piece lie one after another: h counts the heads of all its rows. */
static float *slot_out(const run_context *run, int64_t slot, int64_t h) {
  const spl_shape *shape = &run->plan->shape;
  float *base =
      (float *)(void *)(run->workspace + run->plan->workspace.regions[SPL_PARTIAL_OUT].offset);
  return base + (slot * shape->group + h) * shape->problem.head_dim_v;
}

static float *slot_state(const run_context *run, int64_t slot, int64_t h) {
  float *base =
      (float *)(void *)(run->workspace + run->plan->workspace.regions[SPL_PARTIAL_STATE].offset);
  return base + (slot * run->plan->shape.group + h) * 2;
}

static void store_partial(const run_context *run, const spl_piece *piece, const spl_group *g) {
  const spl_shape *shape = &run->plan->shape;
  for (int64_t h = 0; h < g->n_heads; h++) {
    shape->kernels->finish(g, h);
    memcpy(slot_out(run, piece->slot, h), g->acc + h * shape->dv_padded,
           (size_t)shape->problem.head_dim_v * sizeof(float));
    float *state = slot_state(run, piece->slot, h);
    state[1] = (float)g->weight[h];
    state[0] = spl_lse((float)g->max[h], state[1]);
  }
}

/* ── tasks ──────────────────────────────────────────────────────────────────────────────────── */

static void store_bundle(const run_context *run, const spl_bundle *b, const spl_group *groups) {
  for (int64_t i = 0; i < b->n; i++) {
    const spl_piece *piece = &b->pieces[i];
    if (piece->end == piece->first) {
      store_empty(run, piece);
    } else if (piece->slot < 0) {
      store_whole(run, piece, &groups[i]);
    } else {
      store_partial(run, piece, &groups[i]);
    }
  }
}

static void place_groups(const run_context *run, const spl_scratch_kind *kind,
                         unsigned char *scratch, spl_group *groups, spl_score_places *places) {
  const spl_shape *shape = &run->plan->shape;
  for (int64_t i = 0; i < kind->needs.n_groups; i++) {
    groups[i] = (spl_group){.row_heads = shape->group,
                            .d = shape->problem.head_dim,
                            .dv = shape->problem.head_dim_v,
                            .d_padded = shape->d_padded,
                            .dv_padded = shape->dv_padded,
                            .kv_offset = shape->kv_offset,
                            .q_dtype = (int)shape->problem.dtype_q,
                            .is_wide = (shape->cpu_bits & SPL_CPU_WIDE) != 0,
                            .asks_near = (shape->cpu_bits & SPL_CPU_NEAR) != 0,
                            .rule = shape->rule};
    spl_describe_codes(shape, &shape->k_quant, &groups[i].k_codes);
    spl_describe_codes(shape, &shape->v_quant, &groups[i].v_codes);
  }
  spl_scratch_place(shape, &kind->needs, scratch, scratch + kind->row_bytes, groups, places);
}

/* The tile after `tile`: of the same bundle, else the first one of `after`, if there is one. */
static void look_ahead(const run_context *run, const bundle_tile *tile, const row_bundle *after,
                       bundle_tile *next) {
  const int64_t token = tile->token + SPL_TILE_TOKENS;
  if (token < tile->bundle->pieces.end) {
    find_tile(run, tile->bundle, token, next);
  } else {
    find_tile(run, after, after->pieces.first, next);
  }
}

/* Asks for K of the first tile of a task, which no tile before it has asked for, where the problem
 * is one whose decode reads rows of several heads in parts, which no hardware prefetcher finds. */
static void ask_for_first(const run_context *run, const bundle_tile *tile) {
  const spl_shape *shape = &run->plan->shape;
  if (!shape->together || shape->by_strips || tile->wide <= 1) return;
  const int64_t bytes =
      spl_kv_bytes(shape, shape->problem.head_dim + (tile->wide - 1) * shape->k.head);
  for (int64_t t = 0; t < tile->n; t++)
    shape->kernels->ask_for_rows(tile->k[t], 1, bytes, bytes);
}

/* All pieces of a task, bundle by bundle and tile by tile, always one tile ahead. */
static void run_pieces(const run_context *run, int64_t task, unsigned char *scratch) {
  spl_group groups[SPL_MAX_BUNDLE];
  spl_score_places places[SPL_MAX_BUNDLE];
  row_bundle bundles[2];
  bundle_tile tiles[2];
  const int64_t kind = run->plan->tasks[task].scratch_kind;
  place_groups(run, &run->plan->scratch_kinds[kind], scratch, groups, places);
  const spl_walk pieces = spl_walk_task(run->plan, task);
  spl_bundle_walk walk = spl_bundle_begin(&pieces);
  row_bundle *now = &bundles[0], *after = &bundles[1];
  bundle_tile *tile = &tiles[0], *next = &tiles[1];
  if (!next_bundle(run->plan, &walk, now)) return;
  find_tile(run, now, now->pieces.first, tile);
  ask_for_first(run, tile);
  do {
    (void)next_bundle(run->plan, &walk, after);
    const spl_bundle *b = &now->pieces;
    for (int64_t i = 0; i < b->n && b->end > b->first; i++)
      begin_group(run, now, &b->pieces[i], &places[i], &groups[i]);
    do { /* once also where there are no tokens: the tile has none, the next one may */
      look_ahead(run, tile, after, next);
      attend_tile(run, tile, next, groups);
      bundle_tile *swap = tile;
      tile = next;
      next = swap;
    } while (tile->bundle == now);
    store_bundle(run, b, groups);
    row_bundle *swap = now;
    now = after;
    after = swap;
  } while (now->pieces.n > 0);
}

static void run_task_on_stack(const run_context *run, int64_t task) {
  _Alignas(SPLITKV_ALIGNMENT) unsigned char scratch[SPL_STACK_BYTES];
  run_pieces(run, task, scratch);
}

static void run_task(void *context, int64_t task) {
  const run_context *run = (const run_context *)context;
  const spl_region *region = &run->plan->workspace.regions[SPL_SCRATCH];
  if (region->bytes == 0) {
    run_task_on_stack(run, task);
    return;
  }
  run_pieces(run, task, run->workspace + region->offset + run->plan->tasks[task].scratch);
}

/* ── merging slots ──────────────────────────────────────────────────────────────────────────── */

/* The merge run that holds pair `pair`. */
static const spl_merge_run *find_merge(const splitkv_plan *plan, int64_t pair) {
  int64_t low = 0, high = plan->n_merge_runs;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (plan->merges[middle].pairs_before <= pair) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return &plan->merges[low];
}

/* Pieces of one row and KV head that lie in slots: every `stride` slots from `slot` on. */
typedef struct row_pieces {
  int64_t slot, stride, n;
} row_pieces;

static float largest_lse(const run_context *run, const row_pieces *pieces, int64_t h, float most) {
  for (int64_t s = 0; s < pieces->n; s++) {
    const float lse = slot_state(run, pieces->slot + s * pieces->stride, h)[0];
    if (lse > most) most = lse;
  }
  return most;
}

static void add_pieces(const run_context *run, const row_pieces *pieces, int64_t h, float max_lse,
                       spl_combined *sum) {
  for (int64_t s = 0; s < pieces->n; s++) {
    const int64_t slot = pieces->slot + s * pieces->stride;
    const float *state = slot_state(run, slot, h);
    spl_combine_add(sum, slot_out(run, slot, h), run->plan->shape.problem.head_dim_v, state[1],
                    state[0], max_lse);
  }
}

/* The pieces of the shared prefix of a block, for its row i. */
static row_pieces pieces_of_prefix(const splitkv_plan *plan, const spl_block *block, int64_t head,
                                   int64_t i) {
  if (block->prefix < 0) return (row_pieces){0, 0, 0};
  const spl_block *prefix = &plan->blocks[block->prefix];
  const int64_t n = spl_n_pieces(&plan->shared_rule, prefix->end - prefix->first);
  return (row_pieces){prefix->slot + head * n * prefix->n_rows + block->row - prefix->row + i,
                      prefix->n_rows, n};
}

/* Query row i of the block, head h of KV head `head`. */
static void merge_head(const run_context *run, const spl_merge_run *m, int64_t head, int64_t i,
                       int64_t h) {
  const spl_shape *shape = &run->plan->shape;
  const spl_block *block = &run->plan->blocks[m->block];
  const int64_t n = shape->problem.head_dim_v;
  const row_pieces before = pieces_of_prefix(run->plan, block, head, i);
  const bool is_level = spl_is_level(run->plan, m->block);
  const int64_t n_before = (head - m->head) * (is_level ? 1 : m->n_splits); /* pieces */
  const row_pieces own = {m->slot + n_before * block->n_rows + i,
                          block->n_rows * (is_level ? m->n_heads : 1), m->n_splits};
  const float sink = sink_of(run, head * shape->group + h);
  float max_lse = sink > -INFINITY ? sink : -INFINITY;
  max_lse = largest_lse(run, &own, h, largest_lse(run, &before, h, max_lse));
  spl_combined sum;
  spl_combine_begin(&sum, shape->kernels, n);
  add_pieces(run, &before, h, max_lse, &sum);
  add_pieces(run, &own, h, max_lse, &sum);
  spl_combine_add_sink(&sum, sink, max_lse);
  float out[SPLITKV_MAX_HEAD_DIM];
  const float lse = spl_combine_end(&sum, n, max_lse, out);
  store_result(run, block->row + i, head * shape->group + h, out, lse);
}

/* Task i of n takes its share of all cut rows. */
static void merge_task(void *context, int64_t task) {
  const run_context *run = (const run_context *)context;
  const int64_t group = run->plan->shape.group, n = run->plan->n_merge_tasks;
  const int64_t rows = run->plan->n_merge_pairs * group;
  const int64_t first = rows / n * task + rows % n * task / n;
  const int64_t end = rows / n * (task + 1) + rows % n * (task + 1) / n;
  for (int64_t row = first; row < end; row++) {
    const int64_t pair = row / group;
    const spl_merge_run *m = find_merge(run->plan, pair);
    const int64_t in_run = pair - m->pairs_before, n_rows = run->plan->blocks[m->block].n_rows;
    merge_head(run, m, m->head + in_run / n_rows, in_run % n_rows, row % group);
  }
}

/* ── checks ─────────────────────────────────────────────────────────────────────────────────── */

static splitkv_status check_problem(const splitkv_plan *plan, const splitkv_problem *problem,
                                    splitkv_error *error) {
  splitkv_problem full;
  const splitkv_status status = spl_import_problem(problem, &full, error);
  if (status != SPLITKV_OK) return status;
  if (memcmp(&full, &plan->shape.problem, sizeof full) == 0) return SPLITKV_OK;
  return spl_fail(error, SPLITKV_ERROR_PLAN_MISMATCH, "problem", 0,
                  "this is not the problem that the plan was made of");
}

static splitkv_status check_workspace(const splitkv_plan *plan, const void *workspace,
                                      size_t workspace_bytes, splitkv_error *error) {
  const size_t needed = (size_t)plan->workspace.bytes;
  if (workspace_bytes < needed) {
    return spl_fail(error, SPLITKV_ERROR_WORKSPACE_SIZE, "workspace_bytes",
                    (int64_t)workspace_bytes, "%zu bytes are too few, the plan needs %zu",
                    workspace_bytes, needed);
  }
  if (needed == 0) return SPLITKV_OK;
  if (workspace == NULL) return spl_fail_null(error, "workspace");
  const int beyond = (int)((uintptr_t)workspace % SPLITKV_ALIGNMENT);
  if (beyond == 0) return SPLITKV_OK;
  return spl_fail(error, SPLITKV_ERROR_WORKSPACE_ALIGNMENT, "workspace", beyond,
                  "the address is %d beyond a multiple of %d", beyond, SPLITKV_ALIGNMENT);
}

/* What is given without its flag would be ignored: better said than done. */
static splitkv_status check_unused(const splitkv_plan *plan, const splitkv_tensors *t,
                                   splitkv_error *error) {
  const uint32_t flags = plan->shape.problem.flags;
  const bool sinks = t->sinks != NULL && !(flags & SPLITKV_FLAG_SINKS);
  const bool slopes = t->alibi_slopes != NULL && !(flags & SPLITKV_FLAG_ALIBI);
  if (t->tree_mask != NULL && plan->shape.problem.tree_tokens == 0) {
    return spl_fail(error, SPLITKV_ERROR_TENSOR_UNUSED, "tensors.tree_mask", 0,
                    "is given, but problem.tree_tokens is 0");
  }
  if (!sinks && !slopes) return SPLITKV_OK;
  return spl_fail(
      error, SPLITKV_ERROR_TENSOR_UNUSED, sinks ? "tensors.sinks" : "tensors.alibi_slopes", 0,
      "is given, but problem.flags lacks %s", sinks ? "SPLITKV_FLAG_SINKS" : "SPLITKV_FLAG_ALIBI");
}

static splitkv_status check_tensors(const splitkv_plan *plan, const splitkv_tensors *t,
                                    splitkv_error *error) {
  const spl_shape *shape = &plan->shape;
  const bool rows = plan->n_rows > 0, attended = plan->n_attended > 0;
  const bool csr = shape->problem.table_format == SPLITKV_TABLE_CSR;
  const bool sinks = rows && (shape->problem.flags & SPLITKV_FLAG_SINKS) != 0;
  const bool slopes = attended && (shape->problem.flags & SPLITKV_FLAG_ALIBI) != 0;
  const int64_t index = spl_index_bytes(shape->problem.table_type);
  const struct {
    const char *field;
    const void *pointer;
    bool needed;
    int64_t alignment;
  } pointers[] = {
      {"tensors.q", t->q, attended, shape->q_bytes},
      {"tensors.k", t->k, attended, spl_max(shape->kv_bits / 8, 1)},
      {"tensors.v", t->v, attended, spl_max(shape->kv_bits / 8, 1)},
      {"tensors.block_table", t->block_table, attended, index},
      {"tensors.table_offsets", t->table_offsets, attended && csr, index},
      {"tensors.out", t->out, rows, shape->out_bytes},
      {"tensors.lse", t->lse, false, (int64_t)sizeof(float)},
      {"tensors.sinks", t->sinks, sinks, (int64_t)sizeof(float)},
      {"tensors.alibi_slopes", t->alibi_slopes, slopes, (int64_t)sizeof(float)},
      {"tensors.tree_mask", t->tree_mask, attended && shape->problem.tree_tokens > 0,
       (int64_t)sizeof(uint64_t)},
  };
  for (size_t i = 0; i < sizeof pointers / sizeof pointers[0]; i++) {
    const splitkv_status status = spl_check_pointer(error, pointers[i].field, pointers[i].pointer,
                                                    pointers[i].needed, pointers[i].alignment);
    if (status != SPLITKV_OK) return status;
  }
  const splitkv_status status = spl_check_scales(shape, t, attended, error);
  return status != SPLITKV_OK ? status : check_unused(plan, t, error);
}

static splitkv_status check_offsets(const splitkv_plan *plan, const splitkv_tensors *t,
                                    splitkv_error *error) {
  const splitkv_problem *p = &plan->shape.problem;
  if (p->table_format != SPLITKV_TABLE_CSR || plan->n_attended == 0) return SPLITKV_OK;
  for (int64_t r = 0; r < plan->n_requests; r++) {
    const bool has_rows = plan->q_offsets[r + 1] > plan->q_offsets[r];
    const splitkv_status status =
        spl_check_csr_row(p, t, r, has_rows ? plan->kv_lens[r] : 0, error);
    if (status != SPLITKV_OK) return status;
  }
  return SPLITKV_OK;
}

/* Is any of n ids outside [0, n_pages)? Plain loops, so that they are vectorised. */
static bool any_bad_i32(const int32_t *ids, int64_t n, int64_t n_pages) {
  const uint32_t limit = (uint32_t)spl_min(n_pages, (int64_t)INT32_MAX + 1);
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; i++)
    bad |= (uint32_t)((uint32_t)ids[i] >= limit);
  return bad != 0;
}

static bool any_bad_i64(const int64_t *ids, int64_t n, int64_t n_pages) {
  uint64_t bad = 0;
  for (int64_t i = 0; i < n; i++)
    bad |= (uint64_t)((uint64_t)ids[i] >= (uint64_t)n_pages);
  return bad != 0;
}

/* Pages of a request that its blocks attend to, from the first of them on. */
static splitkv_status check_page_range(const splitkv_plan *plan, const splitkv_tensors *t,
                                       int64_t r, int64_t first, int64_t end,
                                       splitkv_error *error) {
  const splitkv_problem *p = &plan->shape.problem;
  const int64_t before = first / p->page_size_tokens; /* may be released */
  const int64_t n = spl_ceil_div(end, p->page_size_tokens) - before;
  const int64_t row = spl_table_row(p, t, r) + before;
  const bool bad = p->table_type == SPLITKV_I32
                       ? any_bad_i32((const int32_t *)t->block_table + row, n, p->n_pages)
                       : any_bad_i64((const int64_t *)t->block_table + row, n, p->n_pages);
  if (!bad) return SPLITKV_OK;
  int64_t i = 0, id = 0;
  for (; i < n; i++) {
    id = spl_load_index(p->table_type, t->block_table, row + i);
    if (id < 0 || id >= p->n_pages) break;
  }
  return spl_fail(error, SPLITKV_ERROR_PAGE_ID, "tensors.block_table", id,
                  "page %lld of request %lld is %lld, the cache has pages 0..%lld",
                  (long long)(before + i), (long long)r, (long long)id, (long long)p->n_pages - 1);
}

/* What a plan reads once for all rows of a block is the same in all their requests. */
static splitkv_status check_prefix_pages(const splitkv_plan *plan, const splitkv_tensors *t,
                                         const spl_block *block, splitkv_error *error) {
  const splitkv_problem *p = &plan->shape.problem;
  const int64_t n = spl_ceil_div(block->end, p->page_size_tokens);
  const int64_t first = spl_table_row(p, t, block->request);
  for (int64_t r = block->request + 1; plan->q_offsets[r] < block->row + block->n_rows; r++) {
    if (plan->q_offsets[r] == plan->q_offsets[r + 1]) continue;
    const int64_t row = spl_table_row(p, t, r);
    for (int64_t i = 0; i < n; i++) {
      const int64_t id = spl_load_index(p->table_type, t->block_table, row + i);
      const int64_t shared = spl_load_index(p->table_type, t->block_table, first + i);
      if (id == shared) continue;
      return spl_fail(error, SPLITKV_ERROR_PREFIX, "tensors.block_table", id,
                      "page %lld of request %lld is %lld, but %lld in request %lld, with which it "
                      "shares a prefix",
                      (long long)i, (long long)r, (long long)id, (long long)shared,
                      (long long)block->request);
    }
  }
  return SPLITKV_OK;
}

static splitkv_status check_page_ids(const splitkv_plan *plan, const splitkv_tensors *t,
                                     splitkv_error *error) {
  if (plan->shape.problem.flags & SPLITKV_FLAG_TRUST_TABLE) return SPLITKV_OK;
  for (int64_t b = 0; b < plan->n_blocks;) {
    const spl_block *block = &plan->blocks[b];
    int64_t first = INT64_MAX, end = 0;
    splitkv_status status = SPLITKV_OK;
    if (block->is_prefix) {
      status = check_prefix_pages(plan, t, block, error);
      if (status != SPLITKV_OK) return status;
      first = block->first;
      end = block->end;
      b++;
    }
    for (; b < plan->n_blocks && plan->blocks[b].request == block->request &&
           plan->blocks[b].is_prefix == block->is_prefix;
         b++) {
      if (spl_attended(plan, b) > 0) first = spl_min(first, plan->blocks[b].first);
      end = spl_max(end, plan->blocks[b].end);
    }
    if (end == 0) continue;
    status = check_page_range(plan, t, block->request, first, end, error);
    if (status != SPLITKV_OK) return status;
  }
  return SPLITKV_OK;
}

splitkv_status spl_check_pool(const splitkv_pool *pool, splitkv_error *error) {
  if (pool == NULL) return SPLITKV_OK;
  const splitkv_status status = spl_check_struct_size(error, "pool.struct_size", pool->struct_size,
                                                      sizeof *pool, sizeof *pool);
  if (status != SPLITKV_OK) return status;
  if (pool->parallel_for != NULL) return SPLITKV_OK;
  return spl_fail(error, SPLITKV_ERROR_POOL, "pool.parallel_for", 0, "the function is null");
}

void spl_parallel_for(const splitkv_pool *pool, int64_t n, void (*body)(void *, int64_t),
                      void *context) {
  if (pool != NULL && n > 1) {
    pool->parallel_for(pool->context, n, body, context);
    return;
  }
  for (int64_t i = 0; i < n; i++)
    body(context, i);
}

splitkv_status splitkv_run(const splitkv_plan *plan, const splitkv_problem *problem,
                           const splitkv_tensors *tensors, void *workspace, size_t workspace_bytes,
                           const splitkv_pool *pool, splitkv_error *error) {
  splitkv_status status = spl_check_plan(plan, error);
  if (status != SPLITKV_OK) return status;
  status = check_problem(plan, problem, error);
  if (status != SPLITKV_OK) return status;
  splitkv_tensors full;
  status = spl_import_tensors(tensors, &full, error);
  if (status != SPLITKV_OK) return status;
  status = check_tensors(plan, &full, error);
  if (status != SPLITKV_OK) return status;
  status = check_workspace(plan, workspace, workspace_bytes, error);
  if (status != SPLITKV_OK) return status;
  status = spl_check_pool(pool, error);
  if (status != SPLITKV_OK) return status;
  status = check_offsets(plan, &full, error);
  if (status != SPLITKV_OK) return status;
  status = check_page_ids(plan, &full, error);
  if (status != SPLITKV_OK) return status;

  const spl_shape *shape = &plan->shape;
  run_context run = {plan,
                     &full,
                     (unsigned char *)workspace,
                     {&shape->k_quant, full.k_scales, full.k_zeros},
                     {&shape->v_quant, full.v_scales, full.v_zeros}};
  spl_parallel_for(pool, plan->n_tasks, run_task, &run);
  spl_parallel_for(pool, plan->n_merge_tasks, merge_task, &run);
  return SPLITKV_OK;
}
