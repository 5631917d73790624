/* Descriptions of test problems, random ones too.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"

#include "mask.h"

#include <math.h>
#include <string.h>

void test_spec_init(test_spec *spec) {
  memset(spec, 0, sizeof *spec);
  splitkv_problem_init(&spec->problem);
  spec->problem.n_heads_q = 1;
  spec->problem.n_heads_kv = 1;
  spec->problem.head_dim = 64;
  spec->problem.head_dim_v = 64;
  spec->problem.page_size_tokens = 16;
  spec->n_workers = 1;
  spec->seed = 1;
  spec->table = TABLE_SHUFFLED;
  test_spec_requests(spec, 1, 0);
}

void test_spec_requests(test_spec *spec, int64_t n_requests, int64_t kv_len) {
  spec->n_requests = n_requests;
  for (int64_t r = 0; r < n_requests; ++r) {
    spec->kv_lens[r] = kv_len;
    spec->sources[r] = r;
    spec->first_tokens[r] = 0;
    spec->n_rows[r] = 1;
    spec->q_ages[r] = 0;
  }
}

static int64_t min64(int64_t a, int64_t b) {
  return a < b ? a : b;
}

int64_t test_tokens_before(const test_spec *spec, int64_t kv_len) {
  const int64_t window = spec->problem.window_tokens;
  return window > 0 && window < kv_len ? kv_len - window : 0;
}

int64_t test_rows_of(const test_spec *spec, int64_t r) {
  return spec->has_rows ? spec->n_rows[r] : 1;
}

int64_t test_n_rows(const test_spec *spec) {
  int64_t n = 0;
  for (int64_t r = 0; r < spec->n_requests; ++r)
    n += test_rows_of(spec, r);
  return n;
}

int64_t test_attending(const test_spec *spec, int64_t r, int64_t token) {
  const int64_t n = test_rows_of(spec, r);
  const int64_t bit = token - (spec->kv_lens[r] - spec->problem.tree_tokens);
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    const test_row row = {spec->kv_lens[r], n, i, NULL};
    if (!test_attends(&spec->problem, &row, token)) continue;
    count += spec->problem.tree_tokens == 0 || bit < 0 || test_tree_bit(spec, r, i, bit);
  }
  return count;
}

static bool is_reached(const test_spec *spec, int64_t r, int64_t token) {
  const int64_t n = test_rows_of(spec, r);
  for (int64_t i = 0; i < n; ++i) {
    const test_row row = {spec->kv_lens[r], n, i, NULL};
    if (test_attends(&spec->problem, &row, token)) return true;
  }
  return false;
}

void test_span(const test_spec *spec, int64_t r, int64_t *begin, int64_t *end) {
  *begin = 0;
  *end = spec->kv_lens[r];
  while (*end > 0 && !is_reached(spec, r, *end - 1))
    --*end;
  while (*begin < *end && !is_reached(spec, r, *begin))
    ++*begin;
}

static int64_t longest_of(const test_spec *spec) {
  int64_t longest = 1;
  for (int64_t i = 0; i < spec->n_requests; ++i)
    longest = spec->kv_lens[i] > longest ? spec->kv_lens[i] : longest;
  return longest;
}

void test_spec_mask(test_spec *spec, rng *r, int which) {
  splitkv_problem *p = &spec->problem;
  const int64_t longest = longest_of(spec);
  if (which & MASK_CAUSAL)
    p->flags |= SPLITKV_FLAG_CAUSAL;
  else if (which & MASK_RIGHT)
    p->window_right_tokens = rng_one_in(r, 8) ? INT64_MAX : rng_range(r, 1, longest);
  if (which & MASK_CHUNK)
    p->chunk_tokens = rng_one_in(r, 8) ? INT64_MAX : rng_range(r, 1, longest + 1);
  if (which & MASK_TREE) {
    p->tree_tokens = rng_range(r, 1, rng_one_in(r, 2) ? 80 : longest + 70);
    spec->tree = TREE_RANDOM;
  }
}

void test_spec_rows(test_spec *spec, rng *r, int64_t max_rows) {
  splitkv_problem *p = &spec->problem;
  const bool heads_outside =
      p->out_stride_request > 0 && p->out_stride_head == spec->n_requests * p->out_stride_request;
  spec->has_rows = true;
  spec->q_offsets_type = (splitkv_index_type)rng_range(r, 0, 1);
  const int64_t many = spec->n_requests > 0 ? max_rows / spec->n_requests + 1 : 1;
  for (int64_t i = 0; i < spec->n_requests; ++i) {
    const int64_t kind = rng_range(r, 0, 7), few = min64(rng_range(r, 2, 9), many);
    spec->n_rows[i] = kind == 0   ? 0
                      : kind < 3  ? 1
                      : kind == 3 ? min64(spec->kv_lens[i] + rng_range(r, 0, 20), many)
                      : kind < 6  ? few
                                  : rng_range(r, 1, many);
  }
  if (heads_outside) {
    const int64_t n = test_n_rows(spec);
    p->out_stride_head = (n > 0 ? n : 1) * p->out_stride_request;
  }
}

void test_spec_vary(test_spec *spec, rng *r, int which) {
  splitkv_problem *p = &spec->problem;
  const int64_t longest = longest_of(spec);
  if (which & VARIANT_WINDOW) p->window_tokens = rng_range(r, 1, longest + (longest > 4 ? 0 : 2));
  if (which & VARIANT_SOFTCAP) p->logit_softcap = (float)rng_range(r, 1, 200) / 4;
  if (which & VARIANT_SINKS) p->flags |= SPLITKV_FLAG_SINKS;
  if (which & VARIANT_ALIBI) p->flags |= SPLITKV_FLAG_ALIBI;
}

/* One of the widths that have a fast path, a multiple of 16, or any. */
static int64_t random_width(rng *r, int64_t max) {
  static const int64_t usual[] = {16, 64, 80, 96, 112, 128, 192, 256, 512, 576};
  const int64_t kind = rng_range(r, 0, 9);
  if (kind < 4) return min64(RNG_PICK(r, usual), max);
  if (kind == 4) return min64(16 * rng_range(r, 1, 36), max);
  return rng_range(r, 1, kind < 8 ? min64(max, 140) : max);
}

static void random_shape(test_spec *s, rng *r, const test_ranges *ranges) {
  static const int64_t groups[] = {1, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 64};
  static const int64_t pages[] = {1, 2, 7, 16, 16, 19, 48, 64, 100, 128, 256, 528};
  splitkv_problem *p = &s->problem;
  p->n_heads_kv = rng_range(r, 1, ranges->max_heads_kv);
  p->n_heads_q = p->n_heads_kv * min64(RNG_PICK(r, groups), ranges->max_group);
  p->head_dim = random_width(r, ranges->max_head_dim);
  p->head_dim_v = rng_one_in(r, 3) ? random_width(r, ranges->max_head_dim) : p->head_dim;
  p->page_size_tokens = rng_one_in(r, 6) ? rng_range(r, 1, 600) : RNG_PICK(r, pages);
  const bool must_say = p->head_dim != p->head_dim_v;
  /* Up to twice the usual, either sign. */
  const double scale = (double)rng_range(r, 1, 16) / 8 / sqrt((double)p->head_dim);
  if (must_say || rng_one_in(r, 4)) p->scale = (float)(rng_one_in(r, 4) ? -scale : scale);
}

static void random_types(test_spec *s, rng *r) {
  splitkv_problem *p = &s->problem;
  p->dtype_kv = (splitkv_dtype)rng_range(r, 0, 2);
  p->dtype_q = rng_one_in(r, 2) ? p->dtype_kv : (splitkv_dtype)rng_range(r, 0, 2);
  p->dtype_out = rng_one_in(r, 2) ? p->dtype_q : (splitkv_dtype)rng_range(r, 0, 2);
  p->layout = (splitkv_layout)rng_range(r, 0, 2);
  p->table_format = (splitkv_table_format)rng_range(r, 0, 1);
  p->table_type = (splitkv_index_type)rng_range(r, 0, 1);
  s->kv_lens_type = (splitkv_index_type)rng_range(r, 0, 1);
  s->stride_kind = (test_stride_kind)rng_range(r, 0, N_STRIDE_KINDS - 1);
  s->stride_pad = rng_one_in(r, 2) ? 0 : rng_range(r, 1, 21);
  s->v_aliases_k = p->head_dim_v <= p->head_dim && rng_one_in(r, 6) &&
                   (p->layout == SPLITKV_LAYOUT_STRIDES || p->head_dim == p->head_dim_v);
}

static void random_policy(test_spec *s, rng *r, int64_t longest) {
  splitkv_problem *p = &s->problem;
  p->split_policy = (splitkv_split_policy)rng_range(r, 0, 3);
  if (p->split_policy == SPLITKV_SPLIT_FIXED_SIZE)
    p->split_value = rng_range(r, longest / 9 + 1, longest + 2);
  if (p->split_policy == SPLITKV_SPLIT_FIXED_COUNT) p->split_value = rng_range(r, 1, 12);
  s->n_workers = rng_one_in(r, 3) ? 1 : rng_range(r, 1, 12);
  if (rng_one_in(r, 8)) p->flags = SPLITKV_FLAG_TRUST_TABLE;
}

static void random_lengths(test_spec *s, rng *r, const test_ranges *ranges) {
  const splitkv_problem *p = &s->problem;
  const int64_t token = p->n_heads_kv * p->head_dim;
  const int64_t tokens = ranges->max_elements / token + 1;
  const int64_t n = rng_one_in(r, 20) ? 0 : rng_range(r, 1, ranges->max_requests);
  test_spec_requests(s, n, 0);
  const int64_t longest = min64(ranges->max_kv_len, n > 0 ? tokens / n + 1 : 0);
  for (int64_t i = 0; i < n; ++i) {
    s->kv_lens[i] = rng_one_in(r, 6) ? 0 : rng_range(r, 0, longest);
    s->first_tokens[i] = rng_one_in(r, 4) ? rng_range(r, 0, 1000) : 0;
    s->sources[i] = s->table == TABLE_SHARED ? rng_range(r, 0, 1) : i;
    if (s->table == TABLE_SHARED) s->first_tokens[i] = 0;
  }
  random_policy(s, r, longest);
}

static void random_row_strides(test_spec *s, rng *r) {
  splitkv_problem *p = &s->problem;
  if (rng_one_in(r, 4)) {
    p->q_stride_head = p->head_dim + rng_range(r, 0, 9);
    if (rng_one_in(r, 2))
      p->q_stride_request = p->n_heads_q * p->q_stride_head + rng_range(r, 0, 9);
  }
  if (rng_one_in(r, 4)) {
    p->out_stride_head = p->head_dim_v + rng_range(r, 0, 9);
    if (rng_one_in(r, 2))
      p->out_stride_request = p->n_heads_q * p->out_stride_head + rng_range(r, 0, 9);
  } else if (rng_one_in(r, 4) && s->n_requests > 0) { /* heads outside, requests inside */
    p->out_stride_request = p->head_dim_v + rng_range(r, 0, 9);
    p->out_stride_head = s->n_requests * p->out_stride_request;
  }
}

void test_spec_random(test_spec *spec, rng *r, const test_ranges *ranges) {
  test_spec_init(spec);
  spec->seed = rng_next(r);
  spec->table = (test_table)rng_range(r, 0, 2);
  spec->data = (test_data)rng_range(r, 0, N_TEST_DATA - 1);
  random_shape(spec, r, ranges);
  random_types(spec, r);
  random_lengths(spec, r, ranges);
  random_row_strides(spec, r);
  spec->extra_pages = rng_range(r, 0, 3);
  spec->extra_width = rng_range(r, 0, 3);
  spec->side = rng_one_in(r, 2) ? GUARD_LEFT : GUARD_RIGHT;
  spec->trim = rng_one_in(r, 4);
  spec->no_lse = rng_one_in(r, 6);
  if (rng_one_in(r, 2)) spec->problem.arithmetic = SPLITKV_ARITHMETIC_BF16; /* allowed, not asked */
}

/* Two channels to a byte. */
static int64_t make_even(int64_t n) {
  return n > 1 ? n & ~INT64_C(1) : 2;
}

void test_spec_quantise(test_spec *spec, rng *r) {
  splitkv_problem *p = &spec->problem;
  p->dtype_kv = (splitkv_dtype)rng_range(r, SPLITKV_INT8, SPLITKV_INT4);
  p->k_scale_mode = (splitkv_scale_mode)rng_range(r, 0, SPLITKV_SCALE_GROUP64);
  p->v_scale_mode = (splitkv_scale_mode)rng_range(r, 0, SPLITKV_SCALE_GROUP64);
  p->dtype_scales = (splitkv_dtype)rng_range(r, 0, 1);
  const bool is_integer = p->dtype_kv == SPLITKV_INT8 || p->dtype_kv == SPLITKV_INT4;
  if (is_integer && rng_one_in(r, 2)) p->flags |= SPLITKV_FLAG_ZERO_POINTS;
  /* Without a scale codes of int8 stand for up to 128: scores of a few units all the same. */
  if (p->k_scale_mode == SPLITKV_SCALE_NONE) p->scale = 0x1p-10F;
  if (p->dtype_kv != SPLITKV_INT4) return;
  if (p->head_dim == 1 || p->head_dim_v == 1)
    p->out_stride_head = p->out_stride_request = p->q_stride_head = p->q_stride_request = 0;
  if (p->head_dim == 1 || p->head_dim_v == 1) p->scale = 0.5F;
  p->head_dim = make_even(p->head_dim);
  p->head_dim_v = make_even(p->head_dim_v);
  spec->stride_pad &= ~INT64_C(1);
}
