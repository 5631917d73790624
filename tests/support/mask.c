/* SPDX-License-Identifier: Apache-2.0 */
#include "mask.h"

static int64_t floor_div(int64_t a, int64_t b) {
  return a / b - (a % b < 0);
}

bool test_attends(const splitkv_problem *p, const test_row *row, int64_t token) {
  const int64_t position = row->kv_len - row->n_rows + row->index;
  if (token < 0 || token >= row->kv_len) return false;
  if (p->flags & SPLITKV_FLAG_CAUSAL && token > position) return false;
  if (p->window_right_tokens > 0 && token - position >= p->window_right_tokens) return false;
  if (p->window_tokens > 0 && position - token >= p->window_tokens) return false;
  if (p->chunk_tokens > 0 &&
      floor_div(token, p->chunk_tokens) != floor_div(position, p->chunk_tokens))
    return false;
  if (p->tree_tokens == 0 || row->words == NULL) return true;
  const int64_t bit = token - (row->kv_len - p->tree_tokens);
  return bit < 0 || (row->words[bit / 64] >> (bit % 64) & 1) != 0;
}
