/* Lengths → plan. Two passes over the lengths: the first checks and measures and writes nothing,
 * so that an error leaves the storage alone; the second cannot fail.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"
#include "bundle.h"

#include <stdlib.h>
#include <string.h>

#include "caller.h"
#include "checked.h"
#include "error.h"

/* AUTO leaves an item whole rather than cut it within this share of a task from its end: no merge,
 * and its head is walked beside its neighbours. */
#define SPL_SLACK 128
/* Partial sums that are worth a task of their own when merged: some ten microseconds. */
#define SPL_MERGE_FLOATS 32768

/* ── measuring a batch ──────────────────────────────────────────────────────────────────────── */

typedef struct measure {
  int64_t total_cost, total_tokens;
  int64_t longest_piece;
  int64_t longest_block; /* of blocks that share no prefix, which one rule cuts */
  int64_t n_rows, n_blocks, max_block_rows;
  int64_t max_cut_rows; /* of blocks that AUTO may cut */
  int64_t n_slots;      /* where the rule cuts; for AUTO the most that n_workers can make */
  int64_t n_merge_runs; /* most */
  bool cuts_level;
  spl_bundle_limit limit;
  spl_scratch most_scratch; /* of one task */
  int64_t scratch_bytes;    /* most of one task */
} measure;

static splitkv_status fail_overflow(splitkv_error *error, const char *field, int64_t value) {
  return spl_fail(error, SPLITKV_ERROR_OVERFLOW, field, value,
                  "with %lld a size does not fit in 64 bits", (long long)value);
}

static splitkv_status check_rows(const splitkv_batch *batch, const spl_shape *shape,
                                 splitkv_error *error) {
  const splitkv_status status = spl_check_q_offsets(batch, error);
  if (status != SPLITKV_OK) return status;
  if (batch->n_workers < 1 || batch->n_workers > SPLITKV_MAX_WORKERS) {
    return spl_fail(error, SPLITKV_ERROR_N_WORKERS, "batch.n_workers", batch->n_workers,
                    "%lld is outside 1..%d", (long long)batch->n_workers, SPLITKV_MAX_WORKERS);
  }
  /* Rows of out lie apart, query rows outside heads or heads outside query rows. */
  const int64_t n = spl_q_offset(batch, batch->n_requests), heads = shape->problem.n_heads_q;
  if (batch->q_offsets != NULL && n > INT32_MAX) {
    return spl_fail(error, SPLITKV_ERROR_Q_OFFSETS, "batch.q_offsets", n,
                    "%lld query rows are more than %d", (long long)n, INT32_MAX);
  }
  const int64_t dim = shape->problem.head_dim_v, tree_words = spl_tree_words(&shape->problem);
  int64_t heads_end = dim, rows_end = dim, q_end = shape->problem.head_dim, entries = 0, all = 0;
  if (!spl_mul(batch->n_requests, shape->problem.table_width, &entries) ||
      !spl_mul(entries, (int64_t)sizeof(int64_t), &entries)) {
    return fail_overflow(error, "batch.n_requests", batch->n_requests);
  }
  if (!spl_mul_add(shape->out_head, heads - 1, &heads_end) ||
      !spl_mul_add(shape->out_request, spl_max(n - 1, 0), &rows_end) ||
      !spl_add(heads_end, rows_end, &all) || !spl_mul(all, shape->out_bytes, &all) ||
      !spl_mul_add(shape->q_request, spl_max(n - 1, 0), &q_end) ||
      !spl_mul_add(shape->q_head, heads - 1, &q_end) || !spl_mul(q_end, shape->q_bytes, &q_end) ||
      !spl_mul(n, heads * (int64_t)sizeof(float), &all) || !spl_mul(n, tree_words, &all) ||
      !spl_mul(all, (int64_t)sizeof(uint64_t), &all)) {
    return fail_overflow(error, batch->q_offsets == NULL ? "batch.n_requests" : "batch.q_offsets",
                         n);
  }
  if (n > 1 && shape->out_request < heads_end && shape->out_head < rows_end) {
    return spl_fail(error, SPLITKV_ERROR_STRIDE, "problem.out_stride_request", shape->out_request,
                    "with %lld rows of out overlap", (long long)shape->out_request);
  }
  return SPLITKV_OK;
}

/* Adds a block of n_rows and `length` tokens, cut by the rule; false where a size does not fit. */
static bool add_block(const spl_shape *shape, const splitkv_problem *rule, int64_t n_rows,
                      int64_t length, bool is_shared, measure *m) {
  const int64_t n = spl_n_pieces(rule, length);
  int64_t cost = 0;
  if (!spl_block_cost(rule, length, n, spl_block_weight(shape, n_rows), &cost) ||
      !spl_add(m->total_cost, cost, &m->total_cost) ||
      !spl_add(m->total_tokens, length, &m->total_tokens)) {
    return false;
  }
  if (n > 1 || is_shared) {
    int64_t slots = 0;
    if (!spl_mul(n, n_rows, &slots) ||
        !spl_mul_add(slots, shape->problem.n_heads_kv, &m->n_slots)) {
      return false;
    }
    m->n_merge_runs++;
  }
  if (is_shared || length > m->longest_block) {
    m->longest_piece = spl_max(m->longest_piece, spl_longest_piece(rule, length));
    if (!is_shared) m->longest_block = length;
  }
  if (!is_shared && length >= 2 * SPL_CUT_TOKENS)
    m->max_cut_rows = spl_max(m->max_cut_rows, n_rows);
  m->max_block_rows = spl_max(m->max_block_rows, n_rows);
  m->n_blocks++;
  return true;
}

static splitkv_status check_lengths(const spl_shape *shape, const splitkv_batch *batch,
                                    splitkv_error *error) {
  const int64_t row_tokens = spl_table_row_tokens(&shape->problem);
  for (int64_t r = 0; r < batch->n_requests; r++) {
    const int64_t kv_len = spl_kv_len(batch, r);
    if (kv_len < 0 || kv_len > row_tokens) return spl_fail_kv_len(error, r, kv_len, row_tokens);
  }
  return spl_check_prefixes(batch, error);
}

static splitkv_status measure_batch(const spl_shape *shape, const splitkv_batch *batch, measure *m,
                                    splitkv_error *error) {
  *m = (measure){.n_rows = spl_q_offset(batch, batch->n_requests)};
  spl_block_walk walk = spl_begin_blocks(shape, batch);
  spl_block block = {0};
  while (spl_next_block(&walk, &block)) {
    const splitkv_problem *rule = block.is_shared ? &walk.shared : &shape->problem;
    if (!add_block(shape, rule, block.n_rows, block.end - block.first, block.is_shared, m))
      return fail_overflow(error, "batch.kv_lens", block.end);
    m->n_merge_runs -= block.is_prefix; /* its rows are merged with their own blocks */
  }
  return SPLITKV_OK;
}

/* Scratch that any task has room in, with blocks of at most max_rows. */
static spl_scratch most_scratch(const spl_shape *shape, const spl_bundle_limit *limit,
                                int64_t max_rows, int64_t n_tokens) {
  spl_scratch scratch = {0};
  /* The most rows whose heads are not packed: the largest Q, where packing makes it smaller. */
  const int64_t unpacked = (shape->kernels->packed_heads - 1) / shape->group;
  for (int64_t i = limit->heads - 1; i >= 0; i--) {
    spl_scratch_add(shape, &scratch, i, 1, n_tokens);
    if (i >= limit->tile_heads) continue;
    const int64_t rows = i == 0 ? max_rows : spl_min(max_rows, limit->rows / (i + 1));
    if (unpacked > 0 && unpacked < rows) spl_scratch_add(shape, &scratch, i, unpacked, n_tokens);
    /* The Q of more heads can be smaller, but grows with each eight of them. */
    for (int64_t n = spl_max(1, rows - 7); n <= rows; n++)
      spl_scratch_add(shape, &scratch, i, n, n_tokens);
  }
  return scratch;
}

static bool most_bytes(const spl_shape *shape, const spl_scratch *scratch, int64_t *bytes) {
  int64_t rows = 0, sums = 0;
  return spl_scratch_bytes(shape, scratch, &rows, &sums) && spl_add(rows, sums, bytes);
}

/* Width of bundles of even size of at most `most` heads. */
static int64_t even_width(const splitkv_problem *p, int64_t most) {
  return spl_ceil_div(p->n_heads_kv, spl_ceil_div(p->n_heads_kv, most));
}

/* How much is walked side by side: where the rows of a token's heads lie side by side, bundles of
 * even size, as many heads as are worth their memory: this tile and the next one, halves or
 * strips of them, should stay in a second-level cache, and scratch should be kilobytes. It depends
 * on the problem and the kernels alone, so that scratch never shrinks where pieces grow. */
static spl_bundle_limit choose_bundle(const spl_shape *shape) {
  const splitkv_problem *p = &shape->problem;
  const spl_bundle_limit alone = {1, 1, 1};
  if (!shape->is_side_by_side) return alone;
  const int64_t tile_bytes =
      spl_kv_bytes(shape, SPL_TILE_TOKENS * (p->head_dim + p->head_dim_v)); /* of one head */
  const int64_t by_cache = spl_max(1, SPL_BUNDLE_BYTES / tile_bytes);
  /* What all places share, and what each takes. */
  const spl_scratch one = most_scratch(shape, &alone, 1, INT64_MAX);
  spl_scratch none = one;
  none.n_groups = 0;
  int64_t shared = 0, all = 0;
  if (!most_bytes(shape, &none, &shared) || !most_bytes(shape, &one, &all)) return alone;
  const int64_t by_scratch =
      spl_max(1, (SPL_BUNDLE_SCRATCH_BYTES - shared) / spl_max(1, all - shared));
  const int64_t by_tiles = spl_min(SPL_MAX_TILE_BUNDLE, by_scratch);
  const int64_t tile_heads = even_width(p, spl_min(by_tiles, by_cache));
  int64_t heads = tile_heads;
  if (shape->by_strips) {
    heads = even_width(p, spl_min(SPL_MAX_BUNDLE, by_scratch));
  } else if (shape->together) {
    heads = even_width(p, spl_min(by_tiles, by_cache * 2));
  }
  return (spl_bundle_limit){heads, tile_heads, spl_max(heads, SPL_BUNDLE_SCRATCH_BYTES / all)};
}

/* Whether AUTO may cut all KV heads of a block at one token: where the widest kernels walk most of
 * them side by side. The bits of a row depend on it, so it goes by the problem alone and not by
 * what the kernels at hand do: their bundles may be narrower. */
static bool can_be_level(const spl_shape *shape) {
  const splitkv_problem *p = &shape->problem;
  const bool is_plain = (int)p->dtype_kv < SPL_N_PLAIN_DTYPES;
  const bool by_strips = is_plain && shape->group <= SPL_MOST_STRIP_HEADS;
  const bool together = is_plain && shape->group <= SPL_TOGETHER_HEADS;
  if (!shape->is_side_by_side || p->n_heads_kv > (by_strips ? SPL_MAX_BUNDLE : SPL_MAX_TILE_BUNDLE))
    return false;
  /* About a head's scratch: Q, acc, sum_hi, sum_lo and two sums by strips, or scores instead. */
  const int64_t state_bytes = (shape->d_padded + 5 * shape->dv_padded) * (int64_t)sizeof(float);
  if (p->n_heads_q > SPL_BUNDLE_SCRATCH_BYTES / state_bytes) return false;
  const int64_t tile_bytes = spl_kv_bytes(shape, SPL_TILE_TOKENS * (p->head_dim + p->head_dim_v));
  return by_strips || p->n_heads_kv * tile_bytes <= SPL_BUNDLE_BYTES * (together ? 2 : 1);
}

/* What the cuts of AUTO add to what was measured: the most that n_workers can make. */
static void measure_cuts(const spl_shape *shape, int64_t n_workers, measure *m) {
  if (shape->problem.split_policy != SPLITKV_SPLIT_AUTO || m->max_cut_rows == 0) return;
  const int64_t task_cost = m->total_cost / spl_n_tasks(shape, m->total_cost, n_workers);
  m->cuts_level = can_be_level(shape) && spl_cuts_level(&shape->problem, task_cost);
  const int64_t heads = m->cuts_level ? shape->problem.n_heads_kv : 1;
  m->n_slots += 2 * (n_workers - 1) * spl_max(m->max_cut_rows, heads);
  m->n_merge_runs += n_workers - 1;
}

/* Whether scratch of tasks that take at most so many bytes each lies on the stack. */
static bool fits_stack(int64_t scratch_bytes) {
  return scratch_bytes <= SPL_STACK_BYTES;
}

/* Most scratch of one task, and of all tasks together in the workspace. */
static bool scratch_bound(const spl_shape *shape, const spl_bundle_limit *limit, int64_t max_rows,
                          int64_t longest_piece, int64_t n_workers, spl_scratch *most,
                          int64_t *each, int64_t *region_bytes) {
  *region_bytes = 0;
  *most = most_scratch(shape, limit, max_rows, longest_piece);
  if (!most_bytes(shape, most, each) || !spl_round_up(*each, SPLITKV_ALIGNMENT, each)) return false;
  return fits_stack(*each) || spl_mul(*each, n_workers, region_bytes);
}

/* Most kinds of scratch that tasks have. */
static int64_t most_scratch_kinds(int64_t scratch_bytes, int64_t n_workers) {
  return fits_stack(scratch_bytes) ? 1 : n_workers;
}

/* Bytes of a plan: the header, then its arrays. Pointers are set when plan is not NULL. */
static bool place_plan(int64_t n_requests, int64_t n_blocks, int64_t n_workers,
                       int64_t n_scratch_kinds, int64_t n_merge_runs, splitkv_plan *plan,
                       int64_t *bytes) {
  if (n_requests == INT64_MAX) return false;
  const struct {
    int64_t n;
    size_t element;
  } arrays[] = {{n_workers + 1, sizeof(spl_task)},     {n_scratch_kinds, sizeof(spl_scratch_kind)},
                {n_merge_runs, sizeof(spl_merge_run)}, {n_blocks, sizeof(spl_block)},
                {n_requests, sizeof(int64_t)},         {n_requests + 1, sizeof(int64_t)}};
  enum { N = sizeof arrays / sizeof arrays[0] };
  void *at[N] = {NULL};
  *bytes = 0;
  if (!spl_round_up((int64_t)sizeof(splitkv_plan), SPLITKV_ALIGNMENT, bytes)) return false;
  for (int i = 0; i < N; i++) {
    if (plan != NULL) at[i] = (unsigned char *)plan + *bytes;
    if (!spl_mul_add(arrays[i].n, (int64_t)arrays[i].element, bytes)) return false;
  }
  if (plan == NULL) return true;
  plan->tasks = (spl_task *)at[0];
  plan->scratch_kinds = (spl_scratch_kind *)at[1];
  plan->merges = (spl_merge_run *)at[2];
  plan->blocks = (spl_block *)at[3];
  plan->kv_lens = (int64_t *)at[4];
  plan->q_offsets = (int64_t *)at[5];
  return true;
}

/* ── making the plan ────────────────────────────────────────────────────────────────────────── */

static void add_merge(splitkv_plan *plan, int64_t block, int64_t head, int64_t n_heads,
                      int64_t slot, int64_t n_splits) {
  plan->merges[plan->n_merge_runs++] =
      (spl_merge_run){block, head, n_heads, slot, n_splits, plan->n_merge_pairs};
  plan->n_merge_pairs += n_heads * plan->blocks[block].n_rows;
}

/* AUTO: a cut inside an item, or all of a level block, splits it once more. The pieces before the
 * cut keep their slots. Returns the first slot behind the cut. */
static int64_t split_items(splitkv_plan *plan, const spl_place *cut) {
  spl_merge_run *last = plan->n_merge_runs > 0 ? &plan->merges[plan->n_merge_runs - 1] : NULL;
  const int64_t n_heads = spl_cut_heads(plan, cut->block);
  const int64_t slots = n_heads * plan->blocks[cut->block].n_rows;
  if (last != NULL && last->block == cut->block && last->head == cut->head) {
    last->n_splits++;
  } else {
    add_merge(plan, cut->block, cut->head, n_heads, plan->n_slots, 2);
    plan->n_slots += slots;
  }
  plan->n_slots += slots;
  return plan->n_slots - slots;
}

static bool same_place(const spl_place *a, const spl_place *b) {
  return a->block == b->block && a->head == b->head && a->token == b->token;
}

/* A new task from its start on, which is written behind the last task, unless that one starts there
 * too. slot: the first one behind the cut by rule. */
static void add_task(splitkv_plan *plan, int64_t slot) {
  spl_task *task = &plan->tasks[plan->n_tasks];
  if (same_place(&task[-1].start, &task->start) || task->start.block >= plan->n_blocks) return;
  if (task->start.token > 0 &&
      spl_rule(plan, task->start.block)->split_policy == SPLITKV_SPLIT_AUTO) {
    slot = split_items(plan, &task->start);
  }
  task->slot = slot;
  task->scratch_kind = task->scratch = 0;
  plan->n_tasks++;
}

/* Slots of a block that the rule cuts, and what is merged of them. */
static void add_slots(splitkv_plan *plan, int64_t b, int64_t pieces) {
  spl_block *block = &plan->blocks[b];
  const int64_t n_heads = plan->shape.problem.n_heads_kv;
  block->slot = plan->n_slots;
  if (!block->is_prefix) add_merge(plan, b, 0, n_heads, plan->n_slots, pieces);
  plan->n_slots += pieces * n_heads * block->n_rows;
}

/* Cuts the line into tasks of equal cost. */
static void cut_line(splitkv_plan *plan, int64_t total_cost) {
  const int64_t n = spl_n_tasks(&plan->shape, total_cost, plan->n_workers);
  plan->tasks[0] = (spl_task){.start = {0, 0, 0}};
  plan->n_tasks = plan->n_blocks > 0 ? 1 : 0;
  const int64_t each = total_cost / n, rest = total_cost % n;
  /* Task i begins at i * each + floor(i * rest / n): `target`, and `over` of n more. */
  int64_t before = 0, next = 1, target = each, over = rest;
  for (int64_t b = 0; b < plan->n_blocks; b++) {
    const splitkv_problem *p = spl_rule(plan, b);
    const int64_t length = spl_attended(plan, b), slots = plan->n_slots;
    const int64_t n_rows = plan->blocks[b].n_rows, pieces = spl_n_pieces(p, length);
    const int64_t weight = spl_block_weight(&plan->shape, n_rows);
    const bool has_slots = pieces > 1 || plan->blocks[b].is_shared;
    const bool is_level = spl_is_level(plan, b);
    int64_t cost = 0;
    (void)spl_block_cost(p, length, pieces, weight, &cost); /* measured before */
    if (has_slots) add_slots(plan, b, pieces);
    for (; next < n && target < before + cost; next++) {
      int64_t pieces_before = 0;
      const int64_t into = (target - before) / weight, slack = each / weight / SPL_SLACK;
      spl_place *start = &plan->tasks[plan->n_tasks].start;
      if (is_level) {
        spl_cut_level(p, b, length, into, slack, start);
      } else {
        spl_cut(p, b, length, into, slack, start, &pieces_before);
      }
      const bool by_rule = has_slots && start->block == b;
      add_task(plan, by_rule ? slots + n_rows * pieces_before : plan->n_slots);
      target += each;
      over += rest;
      if (over >= n) {
        target++;
        over -= n;
      }
    }
    before += cost;
  }
  plan->tasks[plan->n_tasks] = (spl_task){.start = {plan->n_blocks, 0, 0}, .slot = plan->n_slots};
}

/* Merging is shared out only where each share is worth waking a thread for. */
static int64_t choose_merge_tasks(const splitkv_plan *plan) {
  const spl_shape *shape = &plan->shape;
  int64_t floats = 0;
  if (!spl_mul(plan->n_slots, shape->group * shape->problem.head_dim_v, &floats))
    floats = INT64_MAX;
  const int64_t rows = plan->n_merge_pairs * shape->group;
  return spl_min(rows, spl_min(plan->n_workers, spl_max(1, floats / SPL_MERGE_FLOATS)));
}

/* The longest piece of one block between two places in it, or one that takes as much of scratch;
 * `to` may be the end of all its heads. */
static int64_t longest_between(const splitkv_plan *plan, const spl_place *from,
                               const spl_place *to) {
  const splitkv_problem *p = spl_rule(plan, from->block);
  const int64_t length = spl_attended(plan, from->block);
  /* Which of the pieces are one token longer than others is worth no search where they take the
   * same. */
  const int64_t most = spl_longest_piece(p, length);
  if (p->split_policy == SPLITKV_SPLIT_FIXED_COUNT && most > 1 &&
      spl_scratch_tokens(most) == spl_scratch_tokens(most - 1))
    return most;
  if (from->head == to->head) return spl_longest_piece_in(p, length, from->token, to->token);
  int64_t longest = spl_longest_piece_in(p, length, from->token, length);
  if (to->head > from->head + 1) longest = spl_max(longest, most);
  return spl_max(longest, spl_longest_piece_in(p, length, 0, to->token));
}

/* Whether the rule cuts a row of so many tokens. */
static bool is_cut_by_rule(const splitkv_problem *p, int64_t length) {
  if (p->split_policy == SPLITKV_SPLIT_FIXED_SIZE) return length > p->split_value;
  return spl_n_pieces(p, length) > 1;
}

/* Most pieces of a block side by side, those of a part of its heads included, which may go in wider
 * bundles than all of them. */
static int64_t most_places(const splitkv_plan *plan, int64_t block) {
  const int64_t whole = spl_most_heads(&plan->limit, plan->blocks[block].n_rows);
  return is_cut_by_rule(spl_rule(plan, block), spl_attended(plan, block)) ? 1 : whole;
}

/* What pieces ask of scratch where that is the same at each of so many places: room for a piece of
 * n_rows and n_tokens (spl_scratch_tokens). */
typedef struct even_pieces {
  int64_t n_places, n_rows, n_tokens; /* 0 where there are no tokens */
} even_pieces;

static bool same_pieces(const even_pieces *a, const even_pieces *b) {
  return a->n_places == b->n_places && a->n_rows == b->n_rows && a->n_tokens == b->n_tokens;
}

/* Whether there is room for a piece at each of so many places. */
static bool has_room(const even_pieces *all, int64_t n_places, int64_t n_rows, int64_t n_tokens) {
  return n_tokens == 0 || (all->n_rows == n_rows && all->n_places >= n_places &&
                           all->n_tokens >= spl_scratch_tokens(n_tokens));
}

/* Makes room for them; false, and nothing is changed, where that is not even. */
static bool add_even(even_pieces *all, int64_t n_places, int64_t n_rows, int64_t n_tokens) {
  if (has_room(all, n_places, n_rows, n_tokens)) return true;
  n_tokens = spl_scratch_tokens(n_tokens);
  if (all->n_tokens > 0 &&
      (all->n_rows != n_rows || all->n_places > n_places || all->n_tokens > n_tokens))
    return false;
  all->n_places = n_places;
  all->n_rows = n_rows;
  all->n_tokens = n_tokens;
  return true;
}

/* Makes room for the pieces between two places of one block, if that is even; `to` may be the start
 * of the next one. */
static bool add_even_of_block(const splitkv_plan *plan, const spl_place *from, const spl_place *to,
                              even_pieces *all) {
  const splitkv_problem *p = spl_rule(plan, from->block);
  const int64_t length = spl_attended(plan, from->block), rows = plan->blocks[from->block].n_rows;
  const bool to_end = to->block > from->block;
  const spl_place end = {from->block, to_end ? p->n_heads_kv : to->head, to_end ? 0 : to->token};
  if (spl_is_level(plan, from->block)) { /* the same tokens of all heads */
    const int64_t n_places = spl_bundle_width(plan, from->block, p->n_heads_kv);
    return add_even(all, n_places, rows, (to_end ? length : to->token) - from->token);
  }
  if (most_places(plan, from->block) == 1) /* one by one */
    return add_even(all, 1, rows, longest_between(plan, from, &end));
  const int64_t n_heads = end.head - from->head;
  if (n_heads == 0) return add_even(all, 1, rows, end.token - from->token);
  if (end.token == 0 && (from->token == 0 || n_heads == 1)) { /* to the end of heads */
    const int64_t n_places = spl_bundle_width(plan, from->block, n_heads);
    return add_even(all, n_places, rows, length - from->token);
  }
  return false;
}

/* The same between any two places. longest: of all pieces. */
static bool add_even_of_task(const splitkv_plan *plan, const spl_place *from, const spl_place *to,
                             int64_t longest, even_pieces *all) {
  const int64_t last = to->head > 0 || to->token > 0 ? to->block : to->block - 1;
  for (int64_t b = from->block; b <= last; b++) {
    if (has_room(all, most_places(plan, b), plan->blocks[b].n_rows, longest)) continue;
    const spl_place start = {b, 0, 0}, next = {b + 1, 0, 0};
    if (!add_even_of_block(plan, b > from->block ? &start : from, b < to->block ? &next : to, all))
      return false;
  }
  return true;
}

/* Adds what the pieces between two places of one block ask of scratch, no more than `limit`; `to`
 * may be the start of the next block. */
static void add_pieces(const splitkv_plan *plan, const spl_place *from, const spl_place *to,
                       const spl_scratch *limit, spl_scratch *scratch) {
  const int64_t rows = plan->blocks[from->block].n_rows;
  even_pieces even = {0, 0, 0};
  if (spl_scratch_is_full(scratch, limit, most_places(plan, from->block))) return;
  if (add_even_of_block(plan, from, to, &even)) {
    spl_scratch_add_all(&plan->shape, scratch, even.n_places, even.n_rows, even.n_tokens);
    return;
  }
  const spl_walk pieces = {plan, *from, *to, 0};
  spl_bundle_walk bundles = spl_bundle_begin(&pieces);
  spl_bundle bundle;
  while (spl_bundle_next(&bundles, &bundle)) {
    for (int64_t i = 0; i < bundle.n; i++)
      spl_scratch_add(&plan->shape, scratch, i, rows,
                      bundle.pieces[i].end - bundle.pieces[i].first);
  }
}

/* What a task takes: no more than `most`. */
static void measure_scratch(const splitkv_plan *plan, int64_t task, const spl_scratch *most,
                            spl_scratch *scratch) {
  const spl_place end = plan->tasks[task + 1].start;
  spl_place at = plan->tasks[task].start;
  memset(scratch, 0, sizeof *scratch);
  while (at.block < end.block && !spl_scratch_is_full(scratch, most, most->n_groups)) {
    const spl_place next = {at.block + 1, 0, 0};
    add_pieces(plan, &at, &next, most, scratch);
    at = next;
  }
  if (at.block == end.block && !same_place(&at, &end)) add_pieces(plan, &at, &end, most, scratch);
}

/* The number of a kind: a new one, unless it is the last one. */
static int64_t add_scratch_kind(splitkv_plan *plan, const spl_scratch *needs) {
  const int64_t n = plan->n_scratch_kinds;
  if (n > 0 && spl_scratch_same(needs, &plan->scratch_kinds[n - 1].needs)) return n - 1;
  spl_scratch_kind *kind = &plan->scratch_kinds[n];
  kind->needs = *needs;
  const bool fits = spl_scratch_bytes(&plan->shape, needs, &kind->row_bytes, &kind->sum_bytes);
  assert(fits); /* the most that a task can need does */
  (void)fits;
  plan->n_scratch_kinds++;
  return n;
}

/* Where each task's scratch lies in the workspace, sized by the pieces that it really has: its rows
 * and behind them its sums, so that what lies between what two tasks write is Q, which is read.
 * Returns the bytes. */
static int64_t place_scratch(splitkv_plan *plan, const measure *m) {
  struct {
    even_pieces even;
    int64_t kind;
  } last[SPL_MAX_BUNDLE + 1] = {0}; /* of so many places */
  int64_t end = 0;
  for (int64_t t = 0; t < plan->n_tasks; t++) {
    spl_task *task = &plan->tasks[t];
    even_pieces even = {0, 0, 0};
    const bool is_even =
        add_even_of_task(plan, &task->start, &task[1].start, m->longest_piece, &even);
    if (even.n_tokens > 0 && is_even && same_pieces(&even, &last[even.n_places].even)) {
      task->scratch_kind = last[even.n_places].kind;
    } else {
      spl_scratch needs;
      if (is_even) {
        memset(&needs, 0, sizeof needs);
        spl_scratch_add_all(&plan->shape, &needs, even.n_places, even.n_rows, even.n_tokens);
      } else {
        measure_scratch(plan, t, &m->most_scratch, &needs);
      }
      task->scratch_kind = add_scratch_kind(plan, &needs);
      if (is_even) {
        last[even.n_places].kind = task->scratch_kind;
        last[even.n_places].even = even;
      }
    }
    task->scratch = end;
    const spl_scratch_kind *kind = &plan->scratch_kinds[task->scratch_kind];
    end += kind->row_bytes + kind->sum_bytes; /* fits: measured before */
  }
  return end;
}

static void list_blocks(splitkv_plan *plan, const splitkv_batch *batch) {
  for (int64_t r = 0; r < batch->n_requests; r++) {
    plan->kv_lens[r] = spl_kv_len(batch, r);
    plan->q_offsets[r] = spl_q_offset(batch, r);
  }
  plan->q_offsets[batch->n_requests] = plan->n_rows;
  spl_block_walk walk = spl_begin_blocks(&plan->shape, batch);
  while (spl_next_block(&walk, &plan->blocks[plan->n_blocks]))
    plan->n_blocks++;
  if (batch->n_prefixes > 0) plan->shared_rule = walk.shared;
}

static void make_plan(splitkv_plan *plan, const spl_shape *shape, const splitkv_batch *batch,
                      const measure *m, int64_t plan_bytes) {
  memset(plan, 0, sizeof *plan);
  plan->magic = SPL_PLAN_MAGIC;
  plan->plan_bytes = plan_bytes;
  plan->shape = *shape;
  plan->n_requests = batch->n_requests;
  plan->n_rows = m->n_rows;
  plan->n_workers = batch->n_workers;
  plan->n_attended = m->total_tokens;
  plan->limit = m->limit;
  plan->cuts_level = m->cuts_level;
  int64_t bytes = 0;
  (void)place_plan(batch->n_requests, m->n_blocks, batch->n_workers,
                   most_scratch_kinds(m->scratch_bytes, batch->n_workers), m->n_merge_runs, plan,
                   &bytes);
  list_blocks(plan, batch);
  cut_line(plan, m->total_cost);
  plan->n_merge_tasks = choose_merge_tasks(plan);
  int64_t region_bytes = 0;
  if (fits_stack(m->scratch_bytes)) { /* each has room for the longest pieces */
    (void)add_scratch_kind(plan, &m->most_scratch);
    plan->stack_bytes = m->scratch_bytes;
  } else {
    region_bytes = place_scratch(plan, m);
  }
  const bool fits = spl_workspace_layout(shape, plan->n_slots, region_bytes, &plan->workspace);
  assert(fits);
  (void)fits;
}

/* Everything that can go wrong, before anything is written. */
static splitkv_status prepare(const splitkv_problem *problem, const splitkv_batch *given,
                              spl_shape *shape, splitkv_batch *batch, measure *m,
                              int64_t *plan_bytes, splitkv_error *error) {
  splitkv_status status = spl_resolve(problem, shape, error);
  if (status != SPLITKV_OK) return status;
  status = spl_import_batch(given, batch, error);
  if (status != SPLITKV_OK) return status;
  status = check_rows(batch, shape, error);
  if (status != SPLITKV_OK) return status;
  status = check_lengths(shape, batch, error);
  if (status != SPLITKV_OK) return status;
  status = measure_batch(shape, batch, m, error);
  if (status != SPLITKV_OK) return status;
  int64_t scratch = 0;
  spl_workspace workspace;
  m->limit = choose_bundle(shape);
  measure_cuts(shape, batch->n_workers, m);
  if (!scratch_bound(shape, &m->limit, m->max_block_rows, m->longest_piece, batch->n_workers,
                     &m->most_scratch, &m->scratch_bytes, &scratch) ||
      !spl_workspace_layout(shape, m->n_slots, scratch, &workspace) ||
      (uint64_t)workspace.bytes > SIZE_MAX) {
    return fail_overflow(error, "batch.kv_lens", m->total_tokens);
  }
  if (!place_plan(batch->n_requests, m->n_blocks, batch->n_workers,
                  most_scratch_kinds(m->scratch_bytes, batch->n_workers), m->n_merge_runs, NULL,
                  plan_bytes) ||
      (uint64_t)*plan_bytes > SIZE_MAX) {
    return fail_overflow(error, "batch.n_requests", batch->n_requests);
  }
  return SPLITKV_OK;
}

/* ── public ─────────────────────────────────────────────────────────────────────────────────── */

splitkv_status splitkv_plan_size(const splitkv_problem *problem, const splitkv_batch *batch,
                                 size_t *plan_bytes, splitkv_error *error) {
  if (plan_bytes == NULL) return spl_fail_null(error, "plan_bytes");
  spl_shape shape;
  splitkv_batch full;
  measure m;
  int64_t bytes = 0;
  const splitkv_status status = prepare(problem, batch, &shape, &full, &m, &bytes, error);
  if (status == SPLITKV_OK) *plan_bytes = (size_t)bytes;
  return status;
}

splitkv_status splitkv_plan_init(void *storage, size_t storage_bytes,
                                 const splitkv_problem *problem, const splitkv_batch *batch,
                                 splitkv_plan **plan, splitkv_error *error) {
  if (storage == NULL) return spl_fail_null(error, "storage");
  if (plan == NULL) return spl_fail_null(error, "plan");
  spl_shape shape;
  splitkv_batch full;
  measure m;
  int64_t bytes = 0;
  const splitkv_status status = prepare(problem, batch, &shape, &full, &m, &bytes, error);
  if (status != SPLITKV_OK) return status;
  if ((uintptr_t)storage % SPLITKV_ALIGNMENT != 0) {
    return spl_fail(error, SPLITKV_ERROR_PLAN_ALIGNMENT, "storage",
                    (int64_t)((uintptr_t)storage % SPLITKV_ALIGNMENT),
                    "the address is %d beyond a multiple of %d",
                    (int)((uintptr_t)storage % SPLITKV_ALIGNMENT), SPLITKV_ALIGNMENT);
  }
  if (storage_bytes < (size_t)bytes) {
    return spl_fail(error, SPLITKV_ERROR_PLAN_STORAGE, "storage_bytes", (int64_t)storage_bytes,
                    "%zu bytes are too few, this plan takes %lld", storage_bytes, (long long)bytes);
  }
  make_plan((splitkv_plan *)storage, &shape, &full, &m, bytes);
  *plan = (splitkv_plan *)storage;
  return SPLITKV_OK;
}

static void *default_allocate(void *context, size_t size, size_t alignment) {
  (void)context;
  return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static void default_release(void *context, void *memory) {
  (void)context;
  free(memory);
}

splitkv_status spl_choose_allocator(const splitkv_allocator *given, splitkv_allocator *chosen,
                                    splitkv_error *error) {
  if (given == NULL) {
    *chosen = (splitkv_allocator){sizeof *chosen, default_allocate, default_release, NULL};
    return SPLITKV_OK;
  }
  const splitkv_status status = spl_check_struct_size(
      error, "allocator.struct_size", given->struct_size, sizeof *given, sizeof *given);
  if (status != SPLITKV_OK) return status;
  if (given->allocate == NULL || given->release == NULL) {
    return spl_fail(error, SPLITKV_ERROR_ALLOCATOR,
                    given->allocate == NULL ? "allocator.allocate" : "allocator.release", 0,
                    "the function is null");
  }
  *chosen = *given;
  return SPLITKV_OK;
}

splitkv_status splitkv_plan_create(const splitkv_problem *problem, const splitkv_batch *batch,
                                   const splitkv_allocator *allocator, splitkv_plan **plan,
                                   splitkv_error *error) {
  if (plan == NULL) return spl_fail_null(error, "plan");
  splitkv_allocator chosen;
  splitkv_status status = spl_choose_allocator(allocator, &chosen, error);
  if (status != SPLITKV_OK) return status;
  spl_shape shape;
  splitkv_batch full;
  measure m;
  int64_t bytes = 0;
  status = prepare(problem, batch, &shape, &full, &m, &bytes, error);
  if (status != SPLITKV_OK) return status;
  void *memory = chosen.allocate(chosen.context, (size_t)bytes, SPLITKV_ALIGNMENT);
  if (memory == NULL) {
    return spl_fail(error, SPLITKV_ERROR_OUT_OF_MEMORY, "plan_bytes", bytes,
                    "the allocator has no %lld bytes", (long long)bytes);
  }
  const int beyond = (int)((uintptr_t)memory % SPLITKV_ALIGNMENT);
  if (beyond != 0) {
    chosen.release(chosen.context, memory);
    return spl_fail(error, SPLITKV_ERROR_PLAN_ALIGNMENT, "allocator.allocate", beyond,
                    "it returned an address %d beyond a multiple of %d", beyond, SPLITKV_ALIGNMENT);
  }
  make_plan((splitkv_plan *)memory, &shape, &full, &m, bytes);
  *plan = (splitkv_plan *)memory;
  (*plan)->allocator = chosen;
  return SPLITKV_OK;
}

void splitkv_plan_destroy(splitkv_plan *plan) {
  if (spl_check_plan(plan, NULL) != SPLITKV_OK || plan->allocator.release == NULL) return;
  const splitkv_allocator allocator = plan->allocator;
  plan->magic = 0;
  allocator.release(allocator.context, plan);
}

splitkv_status spl_check_plan(const splitkv_plan *plan, splitkv_error *error) {
  if (plan == NULL) return spl_fail_null(error, "plan");
  if ((uintptr_t)plan % SPLITKV_ALIGNMENT == 0 && plan->magic == SPL_PLAN_MAGIC) return SPLITKV_OK;
  return spl_fail(error, SPLITKV_ERROR_PLAN_INVALID, "plan", 0,
                  "this is no plan, or one that was destroyed");
}

size_t splitkv_plan_workspace_bytes(const splitkv_plan *plan) {
  return spl_check_plan(plan, NULL) == SPLITKV_OK ? (size_t)plan->workspace.bytes : 0;
}

static splitkv_status check_limits(const splitkv_limits *given, splitkv_limits *limits,
                                   splitkv_error *error) {
  const splitkv_status status =
      spl_import(error, "limits.struct_size", given, offsetof(splitkv_limits, max_q_rows_total),
                 limits, sizeof *limits);
  if (status != SPLITKV_OK) return status;
  const struct {
    const char *field;
    int64_t value;
  } counts[] = {{"limits.max_requests", limits->max_requests},
                {"limits.max_kv_tokens_total", limits->max_kv_tokens_total},
                {"limits.max_kv_tokens_per_request", limits->max_kv_tokens_per_request},
                {"limits.max_q_rows_total", limits->max_q_rows_total},
                {"limits.max_q_rows_per_request", limits->max_q_rows_per_request},
                {"limits.max_prefix_rows", limits->max_prefix_rows}};
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
    if (counts[i].value >= 0) continue;
    return spl_fail(error, SPLITKV_ERROR_LIMITS, counts[i].field, counts[i].value,
                    "%lld is negative", (long long)counts[i].value);
  }
  if (limits->max_workers < 1 || limits->max_workers > SPLITKV_MAX_WORKERS) {
    return spl_fail(error, SPLITKV_ERROR_N_WORKERS, "limits.max_workers", limits->max_workers,
                    "%lld is outside 1..%d", (long long)limits->max_workers, SPLITKV_MAX_WORKERS);
  }
  return SPLITKV_OK;
}

/* Limits of tokens attended to, with the counts of query rows filled in. A request without query
 * rows asks for nothing. */
static splitkv_limits resolve_limits(const splitkv_problem *p, const splitkv_limits *given) {
  splitkv_limits l = *given;
  int64_t all = 0;
  l.max_q_rows_per_request = spl_max(1, l.max_q_rows_per_request);
  if (l.max_q_rows_total == 0) l.max_q_rows_total = l.max_requests;
  if (spl_mul(l.max_requests, l.max_q_rows_per_request, &all)) {
    l.max_q_rows_total = spl_min(l.max_q_rows_total, all);
  }
  l.max_q_rows_per_request = spl_min(l.max_q_rows_per_request, l.max_q_rows_total);
  l.max_requests = spl_min(l.max_requests, l.max_q_rows_total);
  l.max_prefix_rows = spl_min(l.max_prefix_rows, l.max_q_rows_total);
  l.max_prefix_rows = spl_min(l.max_prefix_rows, INT64_MAX / 4); /* of which no plan has room */
  if (l.max_q_rows_total == 0) return l;
  l.max_kv_tokens_per_request = spl_block_reach(
      p, spl_min(l.max_kv_tokens_per_request, l.max_kv_tokens_total), l.max_q_rows_per_request);
  if (spl_mul(l.max_requests, l.max_kv_tokens_per_request, &all)) {
    l.max_kv_tokens_total = spl_min(l.max_kv_tokens_total, all);
  }
  return l;
}

/* Most blocks: of k requests with rows at most (total - k) / size + k, which grows with k. */
static int64_t block_bound(const splitkv_problem *p, const splitkv_limits *l) {
  const int64_t size = spl_block_rows(p), rows = l->max_q_rows_total;
  const int64_t by_total = (rows - l->max_requests) / size + l->max_requests;
  int64_t by_request = 0;
  return spl_mul(l->max_requests, spl_ceil_div(l->max_q_rows_per_request, size), &by_request)
             ? spl_min(by_total, by_request)
             : by_total;
}

splitkv_status splitkv_get_sizes(const splitkv_problem *problem, const splitkv_limits *limits,
                                 splitkv_sizes *sizes, splitkv_error *error) {
  if (sizes == NULL) return spl_fail_null(error, "sizes");
  spl_shape shape;
  splitkv_limits given;
  splitkv_status status = spl_resolve(problem, &shape, error);
  if (status != SPLITKV_OK) return status;
  status = check_limits(limits, &given, error);
  if (status != SPLITKV_OK) return status;

  const splitkv_problem *p = &shape.problem;
  const splitkv_limits l = resolve_limits(p, &given);
  const int64_t longest =
      l.max_requests == 0 ? 0 : spl_min(l.max_kv_tokens_per_request, l.max_kv_tokens_total);
  /* A block of a prefix has the rows of two requests at least, each of which has its own blocks. */
  const int64_t n_blocks = spl_min(block_bound(p, &l), INT64_MAX / 2) + l.max_prefix_rows / 2;
  const int64_t n_merge_runs = p->split_policy == SPLITKV_SPLIT_AUTO
                                   ? l.max_workers - 1 + l.max_prefix_rows
                               : p->split_policy == SPLITKV_SPLIT_NONE ? 0
                                                                       : n_blocks;
  const spl_bundle_limit bundle = choose_bundle(&shape);
  int64_t n_slots = 0, each = 0, scratch = 0, plan_bytes = 0;
  spl_scratch most;
  spl_workspace workspace;
  if (!spl_slot_bound(p, &l, can_be_level(&shape), &n_slots) ||
      !scratch_bound(
          &shape, &bundle,
          spl_min(spl_max(l.max_q_rows_per_request, l.max_prefix_rows), spl_block_rows(p)),
          spl_longest_piece(p, longest), l.max_workers, &most, &each, &scratch) ||
      !spl_workspace_layout(&shape, n_slots, scratch, &workspace) ||
      !place_plan(given.max_requests, n_blocks, l.max_workers,
                  most_scratch_kinds(each, l.max_workers), n_merge_runs, NULL, &plan_bytes) ||
      (uint64_t)workspace.bytes > SIZE_MAX || (uint64_t)plan_bytes > SIZE_MAX) {
    return fail_overflow(error, "limits.max_kv_tokens_total", given.max_kv_tokens_total);
  }
  *sizes = (splitkv_sizes){(size_t)plan_bytes, (size_t)workspace.bytes};
  return SPLITKV_OK;
}

/* ── the pieces of a task ───────────────────────────────────────────────────────────────────── */

spl_walk spl_walk_task(const splitkv_plan *plan, int64_t task) {
  return (spl_walk){plan, plan->tasks[task].start, plan->tasks[task + 1].start,
                    plan->tasks[task].slot};
}

bool spl_walk_next(spl_walk *walk, spl_piece *piece) {
  if (same_place(&walk->at, &walk->end)) return false;
  const spl_place at = walk->at;
  const splitkv_problem *p = spl_rule(walk->plan, at.block);
  const int64_t length = spl_attended(walk->plan, at.block);
  const bool is_level = spl_is_level(walk->plan, at.block);
  int64_t end = length == 0 ? 0 : spl_piece_end(p, length, at.token);
  if (walk->end.block == at.block && (is_level || walk->end.head == at.head)) {
    end = spl_min(end, walk->end.token);
  }
  const bool whole = at.token == 0 && end == length && !walk->plan->blocks[at.block].is_shared;
  *piece = (spl_piece){at.block, at.head, at.token, end, whole ? -1 : walk->slot};
  if (!whole) walk->slot += walk->plan->blocks[at.block].n_rows;

  if (is_level && ++walk->at.head < p->n_heads_kv) return true; /* the same tokens */
  walk->at.token = end;
  if (is_level) walk->at.head = 0;
  if (end < length) return true;
  walk->at.token = 0;
  if (!is_level && ++walk->at.head < p->n_heads_kv) return true;
  walk->at.head = 0;
  walk->at.block++;
  return true;
}
