/* Query rows and blocks of them.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "rows.h"

#include "checked.h"

/* Rows of query heads whose multiply-adds take as long as reading K and V does. */
#define BALANCED_HEADS 8

int64_t spl_block_rows(const splitkv_problem *problem) {
  return spl_max(1, SPL_BLOCK_HEADS / (problem->n_heads_q / problem->n_heads_kv));
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

int64_t spl_block_weight(const spl_shape *shape, int64_t n_rows) {
  const int64_t one = BALANCED_HEADS + shape->group;
  return spl_max(1, (BALANCED_HEADS + n_rows * shape->group + one / 2) / one);
}
