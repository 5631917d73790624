/* SPDX-License-Identifier: Apache-2.0 */
#include "rows.h"

#include <stdlib.h>
#include <string.h>

/* A node's parent is one of so many nodes before it, or the root. */
enum { TREE_REACH = 6 };

/* ── what a row may attend to ───────────────────────────────────────────────────────────────── */

int64_t rows_of_request(const tool_case *c, int64_t r) {
  return c->q_offsets[r + 1] - c->q_offsets[r];
}

int64_t rows_request_of(const tool_case *c, int64_t row) {
  int64_t low = 0, high = c->batch.n_requests; /* q_offsets[low] <= row < q_offsets[high] */
  while (high - low > 1) {
    int64_t middle = low + (high - low) / 2;
    if (c->q_offsets[middle] <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

token_span rows_span_of_row(const tool_case *c, int64_t r, int64_t i) {
  const problem_spec *s = c->spec;
  int64_t kv_len = c->kv_lens[r], position = kv_len - rows_of_request(c, r) + i;
  token_span span = {0, kv_len};
  int64_t right = s->causal ? 1 : s->window_right;
  if (right > 0 && position + right < span.end) {
    span.end = position + right;
  }
  if (s->window > 0 && position - s->window + 1 > span.first) {
    span.first = position - s->window + 1;
  }
  if (s->chunk > 0) {
    int64_t begin = position < 0 ? kv_len : position / s->chunk * s->chunk;
    span.first = begin > span.first ? begin : span.first;
    span.end = span.end - begin > s->chunk ? begin + s->chunk : span.end;
  }
  return span.first < span.end ? span : (token_span){0, 0};
}

token_span rows_span_of_request(const tool_case *c, int64_t r) {
  int64_t kv_len = c->kv_lens[r], n = rows_of_request(c, r);
  if (kv_len == 0 || n == 0) {
    return (token_span){0, 0};
  }
  /* Rows at tokens reach from one to the next without a gap, each to itself at least; rows in front
   * of token 0 reach no further than the one at token 0. */
  return (token_span){rows_span_of_row(c, r, n > kv_len ? n - kv_len : 0).first, kv_len};
}

int rows_describe(tool_case *c) {
  int64_t *counts = problem_spec_q_rows(c->spec);
  c->q_offsets = calloc((size_t)c->spec->b + 1, sizeof *c->q_offsets);
  int failed = !counts || !c->q_offsets;
  for (int64_t r = 0; r < c->spec->b && !failed; r++) {
    failed = counts[r] > INT64_MAX - c->n_rows;
    c->n_rows += failed ? 0 : counts[r];
    c->max_q_rows = counts[r] > c->max_q_rows ? counts[r] : c->max_q_rows;
    c->q_offsets[r + 1] = c->n_rows;
  }
  free(counts);
  return failed ? -1 : 0;
}

/* ── the tree ───────────────────────────────────────────────────────────────────────────────── */

static int64_t words_of_row(const tool_case *c) {
  return c->spec->tree / 64 + (c->spec->tree % 64 > 0);
}

size_t rows_tree_bytes(const tool_case *c) {
  size_t n = (size_t)words_of_row(c);
  return n > 0 && (size_t)c->n_rows > SIZE_MAX / 8 / n ? SIZE_MAX : (size_t)c->n_rows * n * 8;
}

static void set_bits(uint64_t *words, int64_t first, int64_t end) {
  for (int64_t bit = first > 0 ? first : 0; bit < end; bit++) {
    words[bit / 64] |= (uint64_t)1 << (bit % 64);
  }
}

/* Tokens in front of the rows are an unbranched trunk. Bits that are no token are set, so that it
 * shows where somebody takes them for one. */
static void grow_tree(tool_case *c, int64_t r, uint64_t *root) {
  int64_t n_tree = c->spec->tree, n_words = words_of_row(c), n = rows_of_request(c, r);
  int64_t kv_len = c->kv_lens[r], first = n > n_tree ? n - n_tree : 0; /* row in the tree */
  uint64_t *mask = c->tree_mask + c->q_offsets[r] * n_words;
  uint64_t state = ((uint64_t)c->spec->seed << 20) ^ (uint64_t)r ^ 0x74726565u;
  memset(root, 0, (size_t)n_words * sizeof *root);
  set_bits(root, 0, n_tree - (n < kv_len ? n : kv_len));
  set_bits(root, n_tree, n_words * 64);
  for (int64_t i = 0; i < n; i++) {
    int64_t n_before = i - first < TREE_REACH ? i - first : TREE_REACH;
    int64_t back = n_before > 0 ? (int64_t)(random_next(&state) % (uint64_t)(n_before + 1)) : 0;
    int64_t token = n_tree - n + i;
    memcpy(mask + i * n_words, back > 0 ? mask + (i - back) * n_words : root,
           (size_t)n_words * sizeof *root);
    set_bits(mask + i * n_words, token, token + 1);
  }
}

/* Bits of a row of the mask among tokens [first, end) of its request. */
static int64_t count_bits(const uint64_t *words, int64_t first, int64_t end) {
  int64_t n = 0;
  for (int64_t bit = first; bit < end; bit++) {
    n += (int64_t)(words[bit / 64] >> (bit % 64) & 1);
  }
  return n;
}

static int64_t count_row(const tool_case *c, int64_t r, int64_t i) {
  token_span span = rows_span_of_row(c, r, i);
  int64_t tree_first = c->kv_lens[r] - c->spec->tree; /* token of bit 0 */
  if (c->spec->tree == 0 || span.end <= tree_first) {
    return span.end - span.first;
  }
  const uint64_t *words = c->tree_mask + (c->q_offsets[r] + i) * words_of_row(c);
  int64_t in_tree = span.first > tree_first ? span.first : tree_first;
  return in_tree - span.first + count_bits(words, in_tree - tree_first, span.end - tree_first);
}

int rows_build(tool_case *c) {
  if (c->spec->tree > 0) {
    size_t bytes = rows_tree_bytes(c);
    uint64_t *root = calloc((size_t)words_of_row(c), sizeof *root);
    c->tree_mask = bytes < PTRDIFF_MAX ? calloc(bytes + 1, 1) : NULL;
    for (int64_t r = 0; root && c->tree_mask && r < c->batch.n_requests; r++) {
      grow_tree(c, r, root);
    }
    free(root);
    if (!root || !c->tree_mask) {
      return -1;
    }
    c->tensors.tree_mask = c->tree_mask;
  }
  c->n_attended = 0;
  for (int64_t r = 0; r < c->batch.n_requests; r++) {
    for (int64_t i = 0; i < rows_of_request(c, r); i++) {
      c->n_attended += count_row(c, r, i);
    }
  }
  return 0;
}
