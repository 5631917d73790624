/* plan + tensors + workspace → out, lse. Reads the plan and does arithmetic: all decisions are
 * made.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "checked.h"
#include "combine.h"
#include "error.h"
#include "plan.h"

/* What every task of one run shares; read only. */
typedef struct run_context {
  const splitkv_plan *plan;
  const splitkv_tensors *tensors;
  unsigned char *workspace;
} run_context;

/* ── the block table ────────────────────────────────────────────────────────────────────────── */

static int64_t load_index(splitkv_index_type type, const void *array, int64_t i) {
  return type == SPLITKV_I32 ? ((const int32_t *)array)[i] : ((const int64_t *)array)[i];
}

/* Index in block_table of the first page of request r. */
static int64_t table_row(const splitkv_problem *p, const splitkv_tensors *t, int64_t r) {
  return p->table_format == SPLITKV_TABLE_DENSE ? r * p->table_width
                                                : load_index(p->table_type, t->table_offsets, r);
}

/* Row addresses of one tile: K and V of n tokens of one KV head; n 0: no tile. */
typedef struct tile_rows {
  int64_t n;
  const unsigned char *k[SPL_TILE_TOKENS + SPL_LANES], *v[SPL_TILE_TOKENS + SPL_LANES];
} tile_rows;

static void find_rows(const run_context *run, const spl_piece *piece, int64_t first,
                      tile_rows *rows) {
  const spl_shape *shape = &run->plan->shape;
  const splitkv_problem *p = &shape->problem;
  const int64_t n = spl_min(SPL_TILE_TOKENS, piece->end - first);
  rows->n = n;
  if (n <= 0) return;
  const int64_t row = table_row(p, run->tensors, piece->request), bytes = shape->kv_bytes;
  const unsigned char *k_head =
      (const unsigned char *)run->tensors->k + piece->head * shape->k.head * bytes;
  const unsigned char *v_head =
      (const unsigned char *)run->tensors->v + piece->head * shape->v.head * bytes;
  int64_t page = first / p->page_size_tokens, slot = first % p->page_size_tokens;
  for (int64_t t = 0; t < n; page++, slot = 0) {
    const int64_t id = load_index(p->table_type, run->tensors->block_table, row + page);
    const int64_t in_page = spl_min(n - t, p->page_size_tokens - slot);
    const unsigned char *k = k_head + (id * shape->k.page + slot * shape->k.token) * bytes;
    const unsigned char *v = v_head + (id * shape->v.page + slot * shape->v.token) * bytes;
    for (int64_t i = 0; i < in_page; i++) {
      rows->k[t + i] = k + i * shape->k.token * bytes;
      rows->v[t + i] = v + i * shape->v.token * bytes;
    }
    t += in_page;
  }
  for (int64_t t = n; t % SPL_LANES != 0; t++)
    rows->k[t] = rows->k[n - 1];
}

/* ── bundles: pieces of neighbouring KV heads over the same tokens ──────────────────────────── */

/* Where the rows of a token's KV heads lie side by side, a task walks several heads through a tile
 * before the next tile, so that memory is read in order. The arithmetic of each head is the same.
 */
typedef struct bundle {
  int64_t n;
  spl_piece pieces[SPL_MAX_BUNDLE];
} bundle;

/* The walk through a task, one piece ahead of the bundle. */
typedef struct task_walk {
  spl_walk walk;
  bool has_piece;
  spl_piece piece;
} task_walk;

static task_walk begin_task(const run_context *run, int64_t task) {
  task_walk w = {.walk = spl_walk_task(run->plan, task)};
  w.has_piece = spl_walk_next(&w.walk, &w.piece);
  return w;
}

static bool joins(const bundle *b, const spl_piece *piece) {
  const spl_piece *first = &b->pieces[0];
  return b->n == 0 || (piece->request == first->request && piece->first == first->first &&
                       piece->end == first->end && piece->head == first->head + b->n);
}

/* Pieces for the bundle that `first` begins: the whole heads of the task that follow in the
 * request, in bundles of even size. */
static int64_t bundle_size(const run_context *run, const spl_walk *walk, const spl_piece *first) {
  const bool ends_here = walk->end.request == first->request;
  const int64_t n_heads = ends_here ? walk->end.head : run->plan->shape.problem.n_heads_kv;
  const int64_t ahead = spl_max(1, n_heads - first->head);
  return spl_ceil_div(ahead, spl_ceil_div(ahead, run->plan->max_bundle));
}

/* False at the end of the task. */
static bool next_bundle(const run_context *run, task_walk *w, bundle *b) {
  b->n = 0;
  const int64_t most = w->has_piece ? bundle_size(run, &w->walk, &w->piece) : 0;
  while (w->has_piece && b->n < most && joins(b, &w->piece)) {
    b->pieces[b->n++] = w->piece;
    w->has_piece = spl_walk_next(&w->walk, &w->piece);
  }
  return b->n > 0;
}

/* ── attention over one bundle ──────────────────────────────────────────────────────────────── */

static void begin_group(const run_context *run, const spl_piece *piece, spl_group *g) {
  const spl_shape *shape = &run->plan->shape;
  const splitkv_problem *p = &shape->problem;
  g->n_tiles = 0;
  g->n_folds = 0;
  const unsigned char *q = (const unsigned char *)run->tensors->q;
  for (int64_t h = 0; h < shape->group; h++) {
    const int64_t offset =
        piece->request * shape->q_request + (piece->head * shape->group + h) * shape->q_head;
    shape->kernels->load_q[p->dtype_q](g, h, q + offset * shape->q_bytes);
    g->max[h] = -(double)FLT_MAX;
    g->weight[h] = 0;
    if (g->rounded != NULL) g->rounded[h] = 0;
  }
}

/* One tile of all pieces of a bundle. Each asks for its share of the tile that follows, whose rows
 * are as wide as the bundle that it belongs to. */
static void attend_tile(const run_context *run, const bundle *b, const tile_rows *rows,
                        const bundle *next_bundle_of, const tile_rows *next, spl_group *groups) {
  const spl_shape *shape = &run->plan->shape;
  const splitkv_problem *p = &shape->problem;
  const int64_t bytes = shape->kv_bytes, others = next_bundle_of->n - 1;
  spl_tile tile = {.n_tokens = rows->n, .k_rows = rows->k, .v_rows = rows->v};
  tile.next_k.bytes = (p->head_dim + others * shape->k.head) * bytes;
  tile.next_v.bytes = (p->head_dim_v + others * shape->v.head) * bytes;
  for (int64_t i = 0; i < b->n; i++) {
    const int64_t first = next->n * i / b->n;
    tile.k_offset = i * shape->k.head * bytes;
    tile.v_offset = i * shape->v.head * bytes;
    tile.next_k.n = tile.next_v.n = next->n * (i + 1) / b->n - first;
    tile.next_k.starts = next->k + first;
    tile.next_v.starts = next->v + first;
    shape->kernels->attend[p->dtype_kv](&groups[i], &tile);
  }
}

/* ── rows of out and lse ────────────────────────────────────────────────────────────────────── */

static void store_result(const run_context *run, int64_t request, int64_t query_head,
                         const float *row, float lse) {
  const spl_shape *shape = &run->plan->shape;
  const splitkv_problem *p = &shape->problem;
  const int64_t offset = request * shape->out_request + query_head * shape->out_head;
  unsigned char *out = (unsigned char *)run->tensors->out + offset * shape->out_bytes;
  shape->kernels->store_row[p->dtype_out](out, row, p->head_dim_v);
  if (run->tensors->lse != NULL) run->tensors->lse[request * p->n_heads_q + query_head] = lse;
}

static void store_empty(const run_context *run, const spl_piece *piece) {
  const spl_shape *shape = &run->plan->shape;
  static const float zeros[SPLITKV_MAX_HEAD_DIM];
  for (int64_t h = 0; h < shape->group; h++) {
    store_result(run, piece->request, piece->head * shape->group + h, zeros, -INFINITY);
  }
}

static void store_whole(const run_context *run, const spl_piece *piece, const spl_group *g) {
  const spl_shape *shape = &run->plan->shape;
  for (int64_t h = 0; h < shape->group; h++) {
    float *row = g->acc + h * shape->dv_padded;
    const float weight = (float)g->weight[h];
    shape->kernels->finish(g, h);
    /* No weight at all: 0, also where V holds inf or NaN, whose product with 0 is NaN. */
    if (weight == 0) memset(row, 0, (size_t)shape->dv_padded * sizeof *row);
    shape->kernels->normalize(row, shape->dv_padded, weight);
    store_result(run, piece->request, piece->head * shape->group + h, row,
                 spl_lse((float)g->max[h], weight));
  }
}

/* A slot: [group][dv] sums in one region, [group] pairs (max, weight) in the other. */
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
  for (int64_t h = 0; h < shape->group; h++) {
    shape->kernels->finish(g, h);
    memcpy(slot_out(run, piece->slot, h), g->acc + h * shape->dv_padded,
           (size_t)shape->problem.head_dim_v * sizeof(float));
    float *state = slot_state(run, piece->slot, h);
    state[0] = (float)g->max[h];
    state[1] = (float)g->weight[h];
  }
}

/* ── tasks ──────────────────────────────────────────────────────────────────────────────────── */

static void store_bundle(const run_context *run, const bundle *b, const spl_group *groups) {
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

static void place_groups(const run_context *run, int64_t task, unsigned char *scratch,
                         spl_group *groups) {
  const spl_shape *shape = &run->plan->shape;
  for (int64_t i = 0; i < run->plan->max_bundle; i++) {
    groups[i] = (spl_group){.n_heads = shape->group,
                            .d = shape->problem.head_dim,
                            .dv = shape->problem.head_dim_v,
                            .d_padded = shape->d_padded,
                            .dv_padded = shape->dv_padded,
                            .q_dtype = (int)shape->problem.dtype_q,
                            .score_scale = shape->score_scale};
    spl_scratch_place(shape, run->plan->tasks[task].max_piece_tokens,
                      scratch + i * run->plan->stack_bytes, &groups[i]);
  }
}

/* The tile after the one at `token` of bundle b: in b itself, else the first one of `after`, which
 * has n 0 at the end of the task. Returns the bundle that it belongs to. */
static const bundle *look_ahead(const run_context *run, const bundle *b, const bundle *after,
                                int64_t token, tile_rows *rows) {
  rows->n = 0;
  if (b->pieces[0].end - token > SPL_TILE_TOKENS) {
    find_rows(run, &b->pieces[0], token + SPL_TILE_TOKENS, rows);
    return b;
  }
  if (after->n > 0) find_rows(run, &after->pieces[0], after->pieces[0].first, rows);
  return after;
}

/* All pieces of a task, bundle by bundle and tile by tile, always one tile ahead. */
static void run_pieces(const run_context *run, int64_t task, unsigned char *scratch) {
  spl_group groups[SPL_MAX_BUNDLE];
  bundle bundles[2];
  tile_rows rows[2];
  place_groups(run, task, scratch, groups);
  task_walk walk = begin_task(run, task);
  bundle *now = &bundles[0], *after = &bundles[1];
  tile_rows *tile = &rows[0], *next = &rows[1];
  if (!next_bundle(run, &walk, now)) return;
  find_rows(run, &now->pieces[0], now->pieces[0].first, tile);
  do {
    (void)next_bundle(run, &walk, after);
    const spl_piece *piece = &now->pieces[0];
    for (int64_t i = 0; i < now->n && piece->end > piece->first; i++) {
      begin_group(run, &now->pieces[i], &groups[i]);
    }
    int64_t token = piece->first;
    do {
      const bundle *source = look_ahead(run, now, after, token, next);
      if (tile->n > 0) attend_tile(run, now, tile, source, next, groups);
      tile_rows *swap = tile;
      tile = next;
      next = swap;
      token += SPL_TILE_TOKENS;
    } while (token < piece->end);
    store_bundle(run, now, groups);
    bundle *swap = now;
    now = after;
    after = swap;
  } while (now->n > 0);
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
  run_pieces(run, task, run->workspace + region->offset + run->plan->tasks[task].scratch_offset);
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

static void merge_head(const run_context *run, const spl_merge_run *m, int64_t head, int64_t h) {
  const spl_shape *shape = &run->plan->shape;
  const int64_t n = shape->problem.head_dim_v;
  const int64_t slot = m->slot + (head - m->head) * m->n_splits;
  float max_lse = -INFINITY;
  for (int64_t s = 0; s < m->n_splits; s++) {
    const float *state = slot_state(run, slot + s, h);
    const float lse = spl_lse(state[0], state[1]);
    if (lse > max_lse) max_lse = lse;
  }
  spl_combined sum;
  spl_combine_begin(&sum, n);
  for (int64_t s = 0; s < m->n_splits; s++) {
    const float *state = slot_state(run, slot + s, h);
    spl_combine_add(&sum, slot_out(run, slot + s, h), n, state[1], spl_lse(state[0], state[1]),
                    max_lse);
  }
  float out[SPLITKV_MAX_HEAD_DIM];
  const float lse = spl_combine_end(&sum, n, max_lse, out);
  store_result(run, m->request, head * shape->group + h, out, lse);
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
    merge_head(run, m, m->head + pair - m->pairs_before, row % group);
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

static splitkv_status check_tensors(const splitkv_plan *plan, const splitkv_tensors *t,
                                    splitkv_error *error) {
  if (t == NULL) return spl_fail_null(error, "tensors");
  splitkv_status status =
      spl_check_struct_size(error, "tensors.struct_size", t->struct_size, sizeof *t, sizeof *t);
  if (status != SPLITKV_OK) return status;
  const spl_shape *shape = &plan->shape;
  const bool rows = plan->n_requests > 0, attended = plan->n_attended > 0;
  const bool csr = shape->problem.table_format == SPLITKV_TABLE_CSR;
  const int64_t index = spl_index_bytes(shape->problem.table_type);
  const struct {
    const char *field;
    const void *pointer;
    bool needed;
    int64_t alignment;
  } pointers[] = {
      {"tensors.q", t->q, attended, shape->q_bytes},
      {"tensors.k", t->k, attended, shape->kv_bytes},
      {"tensors.v", t->v, attended, shape->kv_bytes},
      {"tensors.block_table", t->block_table, attended, index},
      {"tensors.table_offsets", t->table_offsets, attended && csr, index},
      {"tensors.out", t->out, rows, shape->out_bytes},
      {"tensors.lse", t->lse, false, (int64_t)sizeof(float)},
  };
  for (size_t i = 0; i < sizeof pointers / sizeof pointers[0]; i++) {
    status = spl_check_pointer(error, pointers[i].field, pointers[i].pointer, pointers[i].needed,
                               pointers[i].alignment);
    if (status != SPLITKV_OK) return status;
  }
  return SPLITKV_OK;
}

/* CSR: offsets ascend, stay inside the table, and each row holds the pages its length needs. */
static splitkv_status check_offsets(const splitkv_plan *plan, const splitkv_tensors *t,
                                    splitkv_error *error) {
  const splitkv_problem *p = &plan->shape.problem;
  if (p->table_format != SPLITKV_TABLE_CSR || plan->n_attended == 0) return SPLITKV_OK;
  for (int64_t r = 0; r < plan->n_requests; r++) {
    const int64_t first = load_index(p->table_type, t->table_offsets, r);
    const int64_t end = load_index(p->table_type, t->table_offsets, r + 1);
    if (first < 0 || end < first || end > t->table_entries) {
      return spl_fail(error, SPLITKV_ERROR_TABLE_OFFSETS, "tensors.table_offsets", end,
                      "row %lld is [%lld, %lld) of %lld entries", (long long)r, (long long)first,
                      (long long)end, (long long)t->table_entries);
    }
    const int64_t pages = spl_ceil_div(plan->kv_lens[r], p->page_size_tokens);
    if (end - first < pages) {
      return spl_fail(error, SPLITKV_ERROR_TABLE_SHORT, "tensors.table_offsets", end - first,
                      "row %lld has %lld pages, %lld tokens need %lld", (long long)r,
                      (long long)(end - first), (long long)plan->kv_lens[r], (long long)pages);
    }
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

static splitkv_status check_page_ids(const splitkv_plan *plan, const splitkv_tensors *t,
                                     splitkv_error *error) {
  const splitkv_problem *p = &plan->shape.problem;
  if (p->flags & SPLITKV_FLAG_TRUST_TABLE) return SPLITKV_OK;
  for (int64_t r = 0; r < plan->n_requests; r++) {
    const int64_t n = spl_ceil_div(plan->kv_lens[r], p->page_size_tokens);
    if (n == 0) continue;
    const int64_t row = table_row(p, t, r);
    const bool bad = p->table_type == SPLITKV_I32
                         ? any_bad_i32((const int32_t *)t->block_table + row, n, p->n_pages)
                         : any_bad_i64((const int64_t *)t->block_table + row, n, p->n_pages);
    if (!bad) continue;
    int64_t i = 0, id = 0;
    for (; i < n; i++) {
      id = load_index(p->table_type, t->block_table, row + i);
      if (id < 0 || id >= p->n_pages) break;
    }
    return spl_fail(error, SPLITKV_ERROR_PAGE_ID, "tensors.block_table", id,
                    "page %lld of request %lld is %lld, the cache has pages 0..%lld", (long long)i,
                    (long long)r, (long long)id, (long long)p->n_pages - 1);
  }
  return SPLITKV_OK;
}

static splitkv_status check_pool(const splitkv_pool *pool, splitkv_error *error) {
  if (pool == NULL) return SPLITKV_OK;
  const splitkv_status status = spl_check_struct_size(error, "pool.struct_size", pool->struct_size,
                                                      sizeof *pool, sizeof *pool);
  if (status != SPLITKV_OK) return status;
  if (pool->parallel_for != NULL) return SPLITKV_OK;
  return spl_fail(error, SPLITKV_ERROR_POOL, "pool.parallel_for", 0, "the function is null");
}

static void parallel_for(const splitkv_pool *pool, int64_t n, void (*body)(void *, int64_t),
                         run_context *run) {
  if (pool != NULL && n > 1) {
    pool->parallel_for(pool->context, n, body, run);
    return;
  }
  for (int64_t i = 0; i < n; i++)
    body(run, i);
}

splitkv_status splitkv_run(const splitkv_plan *plan, const splitkv_problem *problem,
                           const splitkv_tensors *tensors, void *workspace, size_t workspace_bytes,
                           const splitkv_pool *pool, splitkv_error *error) {
  splitkv_status status = spl_check_plan(plan, error);
  if (status != SPLITKV_OK) return status;
  status = check_problem(plan, problem, error);
  if (status != SPLITKV_OK) return status;
  status = check_tensors(plan, tensors, error);
  if (status != SPLITKV_OK) return status;
  status = check_workspace(plan, workspace, workspace_bytes, error);
  if (status != SPLITKV_OK) return status;
  status = check_pool(pool, error);
  if (status != SPLITKV_OK) return status;
  status = check_offsets(plan, tensors, error);
  if (status != SPLITKV_OK) return status;
  status = check_page_ids(plan, tensors, error);
  if (status != SPLITKV_OK) return status;

  run_context run = {plan, tensors, (unsigned char *)workspace};
  parallel_for(pool, plan->n_tasks, run_task, &run);
  parallel_for(pool, plan->n_merge_tasks, merge_task, &run);
  return SPLITKV_OK;
}
