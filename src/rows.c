/* Query rows and blocks of them.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "rows.h"

#include "checked.h"
#include "split.h"

int64_t spl_block_rows(const splitkv_problem *problem) {
  const int64_t rows = SPL_BLOCK_ROW_HEADS / (problem->n_heads_q / problem->n_heads_kv);
  return spl_max(1, spl_min(SPL_MAX_BLOCK_ROWS, rows));
}

/* Tokens from a row's own on that it may attend to. */
static int64_t right_of(const splitkv_problem *p) {
  if (p->flags & SPLITKV_FLAG_CAUSAL) return 1;
  return p->window_right_tokens > 0 ? p->window_right_tokens : INT64_MAX;
}

spl_row_range spl_range_of_row(const splitkv_problem *p, int64_t kv_len, int64_t n, int64_t i) {
  const int64_t position = kv_len - n + i, right = right_of(p);
  int64_t first = 0, end = kv_len;
  if (p->window_tokens > 0 && position >= p->window_tokens) first = position - p->window_tokens + 1;
  if (right <= kv_len - position) end = position + right;
  if (p->chunk_tokens > 0) {
    if (position < 0) return (spl_row_range){position, 0, 0};
    const int64_t chunk = position - position % p->chunk_tokens;
    first = spl_max(first, chunk);
    if (p->chunk_tokens < end - chunk) end = chunk + p->chunk_tokens;
  }
  if (first >= end) return (spl_row_range){position, 0, 0};
  return (spl_row_range){position, first, end};
}

void spl_measure_block(const splitkv_problem *p, int64_t kv_len, int64_t n, int64_t i,
                       spl_block *block) {
  const spl_row_range last = spl_range_of_row(p, kv_len, n, i + block->n_rows - 1);
  block->first = block->end = 0;
  if (last.first == last.end) return; /* then those before it have none either */
  block->end = last.end;
  block->first = last.first;
  if (block->n_rows == 1) return;
  /* Rows that stand before token 0 may have none: what comes after them begins with token 0. */
  const spl_row_range first = spl_range_of_row(p, kv_len, n, i);
  block->first = first.first == first.end ? 0 : first.first;
}

int64_t spl_block_reach(const splitkv_problem *p, int64_t kv_len, int64_t n) {
  /* The last row stands at the last token. So no row has more than n - 1 tokens behind its own, and
   * the rows of a block lie within n_rows positions. */
  const int64_t n_rows = spl_min(n, spl_block_rows(p)), behind = spl_min(n, right_of(p)) - 1;
  int64_t reach = kv_len, window = p->window_tokens, chunks = 0;
  if (window > 0 && spl_add(window, behind, &window) && spl_add(window, n_rows - 1, &window)) {
    reach = spl_min(reach, window);
  }
  if (p->chunk_tokens > 0 &&
      spl_mul(spl_ceil_div(n_rows - 1, p->chunk_tokens) + 1, p->chunk_tokens, &chunks)) {
    reach = spl_min(reach, chunks);
  }
  return reach;
}

/* n > 0 bits from bit `first` on, of 64. */
static uint64_t bits_between(int64_t first, int64_t end) {
  if (first >= end) return 0;
  const uint64_t upto = end >= 64 ? UINT64_MAX : (UINT64_C(1) << end) - 1;
  return upto & UINT64_MAX << first;
}

/* 64 bits of a tree mask from bit `first` on; bits before and behind it are set. */
static uint64_t tree_bits(const uint64_t *tree, int64_t n_bits, int64_t first) {
  uint64_t bits = UINT64_MAX;
  if (first <= -64 || first >= n_bits) return bits;
  if (first < 0) {
    bits = tree[0] << -first | ((UINT64_C(1) << -first) - 1);
  } else {
    bits = tree[first / 64] >> first % 64;
    if (first % 64 > 0 && first / 64 + 1 < spl_ceil_div(n_bits, 64)) {
      bits |= tree[first / 64 + 1] << (64 - first % 64);
    }
  }
  return n_bits - first >= 64 ? bits : bits | UINT64_MAX << (n_bits - first);
}

uint64_t spl_row_mask(const splitkv_problem *p, const spl_row_range *range, int64_t kv_len,
                      const uint64_t *tree, int64_t token) {
  const int64_t first = spl_max(range->first - token, 0), end = spl_min(range->end - token, 64);
  const uint64_t bits = bits_between(spl_min(first, 64), end);
  return tree == NULL ? bits
                      : bits & tree_bits(tree, p->tree_tokens, token - (kv_len - p->tree_tokens));
}

/* ── blocks ─────────────────────────────────────────────────────────────────────────────────── */

/* Pieces that a block with a shared prefix is cut into, where n_rows rows have one: for balance
 * eight per worker in all, since pieces cannot be cut further. */
static int64_t shared_pieces(const splitkv_problem *p, int64_t n_rows, int64_t n_workers) {
  const int64_t n_blocks = spl_ceil_div(spl_max(n_rows, 1), spl_block_rows(p));
  const int64_t wanted = spl_ceil_div(8 * n_workers, p->n_heads_kv);
  return spl_ceil_div(wanted, n_blocks);
}

bool spl_prefix_slots(const splitkv_problem *p, int64_t n_rows, int64_t n_workers,
                      int64_t *n_slots) {
  /* Of the prefix and of what is behind it, each row has shared_pieces for each KV head: at most
   * one, and its share of what all blocks together are cut into. */
  *n_slots = 0;
  if (n_rows == 0) return true;
  const int64_t by_cuts = (8 * n_workers + p->n_heads_kv) * spl_block_rows(p);
  return spl_mul_add(2 * p->n_heads_kv, n_rows, n_slots) && spl_add(*n_slots, 2 * by_cuts, n_slots);
}

/* The rule for blocks with a shared prefix: FIXED_SIZE as the caller has it, for AUTO of a size
 * that leaves enough pieces. */
static void set_shared_rule(const splitkv_problem *p, const splitkv_batch *batch,
                            splitkv_problem *rule) {
  *rule = *p;
  if (p->split_policy != SPLITKV_SPLIT_AUTO) return;
  int64_t longest = 1, n_rows = 0;
  for (int64_t i = 0; i < batch->n_prefixes; i++) {
    const splitkv_prefix *x = &batch->prefixes[i];
    n_rows += spl_q_offset(batch, x->first_request + x->n_requests) -
              spl_q_offset(batch, x->first_request);
    for (int64_t r = x->first_request; r < x->first_request + x->n_requests; r++)
      longest = spl_max(longest, spl_kv_len(batch, r));
  }
  const int64_t n = shared_pieces(p, n_rows, batch->n_workers);
  const int64_t cuts = spl_ceil_div(spl_ceil_div(longest, n), SPL_CUT_TOKENS);
  rule->split_policy = SPLITKV_SPLIT_FIXED_SIZE;
  rule->split_value = cuts < INT64_MAX / SPL_CUT_TOKENS ? cuts * SPL_CUT_TOKENS : INT64_MAX - 1;
}

spl_block_walk spl_begin_blocks(const spl_shape *shape, const splitkv_batch *batch) {
  const splitkv_problem *p = &shape->problem;
  spl_block_walk w = {.problem = p,
                      .batch = batch,
                      .is_decode = batch->q_offsets == NULL && batch->n_prefixes == 0,
                      .attends_all = p->window_tokens == 0 && p->chunk_tokens == 0,
                      .most_rows = spl_block_rows(p),
                      .measured_prefix = -1,
                      .prefix = -1};
  if (batch->n_prefixes > 0) set_shared_rule(p, batch, &w.shared);
  /* In other classes than f32 the bits of a head depend on how many share a tile with it, which a
   * caller of FIXED_SIZE does not want to know. */
  const bool other_bits = p->split_policy == SPLITKV_SPLIT_FIXED_SIZE &&
                          shape->kernels->arithmetic_class != SPLITKV_ARITHMETIC_F32;
  if (other_bits || w.most_rows == 1) { /* of one row nothing can be shared */
    w.next_prefix = batch->n_prefixes;
  }
  return w;
}

static int64_t rows_of(const splitkv_batch *batch, int64_t r) {
  return spl_q_offset(batch, r + 1) - spl_q_offset(batch, r);
}

/* Tokens of a prefix that every row of its requests attends to, cut to what the rule can cut at so
 * that something is left of each; 0: it is not worth it or not possible. */
static int64_t shared_tokens(const spl_block_walk *w, const splitkv_prefix *x) {
  const splitkv_problem *p = w->problem;
  if (w->shared.split_policy != SPLITKV_SPLIT_FIXED_SIZE) return 0;
  int64_t n = x->n_tokens;
  for (int64_t r = x->first_request; r < x->first_request + x->n_requests; r++) {
    const int64_t kv_len = spl_kv_len(w->batch, r), rows = rows_of(w->batch, r);
    if (rows == 0) continue;
    if (rows > w->most_rows) return 0;
    if (spl_range_of_row(p, kv_len, rows, rows - 1).first > 0) return 0;
    n = spl_min(n, spl_min(spl_range_of_row(p, kv_len, rows, 0).end, kv_len - 1));
    n = spl_min(n, spl_max(0, kv_len - p->tree_tokens));
  }
  const bool by_rule = p->split_policy == SPLITKV_SPLIT_FIXED_SIZE;
  const int64_t unit = by_rule ? p->split_value : SPL_CUT_TOKENS;
  return n / unit * unit;
}

/* Requests from r on, before `end`, whose rows share one block; blocks of even size. */
static int64_t last_of_block(const spl_block_walk *w, int64_t r, int64_t end, int64_t *n_rows) {
  const int64_t all = spl_q_offset(w->batch, end) - spl_q_offset(w->batch, r);
  const int64_t most = spl_ceil_div(all, spl_ceil_div(spl_max(all, 1), w->most_rows));
  for (*n_rows = 0; r < end; r++) {
    const int64_t rows = rows_of(w->batch, r);
    if (*n_rows > 0 && *n_rows + rows > most) break;
    *n_rows += rows;
  }
  return r;
}

/* The block of a prefix that begins at the request at hand, if one does and it has more than one
 * request's rows. */
static bool begin_prefix(spl_block_walk *w, spl_block *block) {
  const splitkv_batch *batch = w->batch;
  const int64_t r = w->request;
  while (w->next_prefix < batch->n_prefixes && batch->prefixes[w->next_prefix].first_request +
                                                       batch->prefixes[w->next_prefix].n_requests <=
                                                   r)
    w->next_prefix++;
  if (w->next_prefix == batch->n_prefixes) return false;
  const splitkv_prefix *x = &batch->prefixes[w->next_prefix];
  if (x->first_request > r || rows_of(batch, r) == 0) return false;
  if (w->measured_prefix != w->next_prefix) {
    w->prefix_tokens = shared_tokens(w, x);
    w->measured_prefix = w->next_prefix;
  }
  const int64_t tokens = w->prefix_tokens;
  int64_t n_rows = 0;
  w->prefix_end = x->first_request + x->n_requests;
  if (tokens > 0) w->prefix_end = last_of_block(w, r, w->prefix_end, &n_rows);
  w->prefix = -1;
  if (n_rows <= rows_of(batch, r)) return false;
  *block = (spl_block){.request = r,
                       .row = spl_q_offset(batch, r),
                       .n_rows = n_rows,
                       .end = tokens,
                       .prefix = -1,
                       .is_shared = true,
                       .is_prefix = true};
  w->prefix = w->n++;
  return true;
}

bool spl_next_block_of_rows(spl_block_walk *w, spl_block *block) {
  const splitkv_batch *batch = w->batch;
  for (; w->request < batch->n_requests; w->request++, w->row = 0) {
    const int64_t r = w->request, n = rows_of(batch, r), i = w->row;
    if (w->row == 0 && r >= w->prefix_end && begin_prefix(w, block)) return true;
    if (i >= n) continue;
    const bool is_shared = w->prefix >= 0 && r < w->prefix_end;
    *block = (spl_block){.request = r,
                         .row = spl_q_offset(batch, r) + i,
                         .n_rows = spl_min(n - i, w->most_rows),
                         .prefix = is_shared ? w->prefix : -1,
                         .is_shared = is_shared};
    spl_measure_block(w->problem, spl_kv_len(batch, r), n, i, block);
    if (is_shared) block->first = w->prefix_tokens;
    w->row += block->n_rows;
    w->n++;
    return true;
  }
  return false;
}
