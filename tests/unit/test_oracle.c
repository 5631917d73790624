/* The oracle on query rows and masks, against the formula asked token by token.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * f32, d 3, one page per three tokens. K and V of tokens that no row of their request attends to
 * are NaN, and their pages, where all of their tokens are such, have no id. Arguments: [number of
 * batches [first seed]]. */
#include "check.h"
#include "mask.h"
#include "ref.h"
#include "rng.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 4, MAX_LEN = 90, MAX_ROWS = 100, HQ = 4, HKV = 2, D = 3, PAGE = 3, WORDS = 3 };
enum { WIDTH = MAX_LEN / PAGE, TOKEN = HKV * D };

typedef struct setup {
  splitkv_problem problem;
  splitkv_tensors tensors;
  int64_t kv_lens[N], q_offsets[N + 1];
  float q[N * MAX_ROWS * HQ * D], k[N * MAX_LEN * TOKEN], v[N * MAX_LEN * TOKEN];
  float sinks[HQ], slopes[HQ];
  int64_t table[N * WIDTH];
  uint64_t tree[N * MAX_ROWS * WORDS];
  double out[N * MAX_ROWS * HQ * D], lse[N * MAX_ROWS * HQ];
  double max_abs_score[N * MAX_ROWS * HQ], max_abs_v[N * MAX_ROWS * HQ];
} setup;

static float number(rng *r) {
  return (float)rng_range(r, -2000, 2000) / 1000;
}

static void random_problem(splitkv_problem *p, rng *r) {
  splitkv_problem_init(p);
  p->n_heads_q = HQ, p->n_heads_kv = HKV;
  p->head_dim = p->head_dim_v = D;
  p->page_size_tokens = PAGE, p->n_pages = N * WIDTH;
  p->table_type = SPLITKV_I64, p->table_width = WIDTH;
  if (rng_one_in(r, 2)) p->flags |= SPLITKV_FLAG_CAUSAL;
  if (rng_one_in(r, 3)) p->flags |= SPLITKV_FLAG_SINKS;
  if (rng_one_in(r, 3)) p->flags |= SPLITKV_FLAG_ALIBI;
  if (rng_one_in(r, 3)) p->logit_softcap = 1.5F;
  if (rng_one_in(r, 3)) p->window_tokens = rng_one_in(r, 9) ? INT64_MAX : rng_range(r, 1, 50);
  if (!(p->flags & SPLITKV_FLAG_CAUSAL) && rng_one_in(r, 2))
    p->window_right_tokens = rng_one_in(r, 9) ? INT64_MAX : rng_range(r, 1, 50);
  if (rng_one_in(r, 3)) p->chunk_tokens = rng_one_in(r, 9) ? INT64_MAX : rng_range(r, 1, 60);
  if (rng_one_in(r, 3)) p->tree_tokens = rng_range(r, 1, 64 * WORDS);
}

static const uint64_t *tree_row(const setup *s, int64_t row) {
  return s->tree + row * ((s->problem.tree_tokens + 63) / 64);
}

static bool row_attends(const setup *s, int64_t r, int64_t row, int64_t token) {
  const int64_t first = s->q_offsets[r];
  const test_row at = {s->kv_lens[r], s->q_offsets[r + 1] - first, row - first, tree_row(s, row)};
  return test_attends(&s->problem, &at, token);
}

static bool anybody_attends(const setup *s, int64_t r, int64_t token) {
  for (int64_t row = s->q_offsets[r]; row < s->q_offsets[r + 1]; ++row)
    if (row_attends(s, r, row, token)) return true;
  return false;
}

static void fill_request(setup *s, int64_t r) {
  for (int64_t t = 0; t < MAX_LEN; ++t) {
    const bool is_read = anybody_attends(s, r, t);
    if (is_read) s->table[r * WIDTH + t / PAGE] = r * WIDTH + t / PAGE;
    for (int64_t c = 0; c < TOKEN && !is_read; ++c)
      s->k[(r * MAX_LEN + t) * TOKEN + c] = s->v[(r * MAX_LEN + t) * TOKEN + c] = NAN;
  }
}

static void fill(setup *s, rng *r) {
  random_problem(&s->problem, r);
  for (int64_t i = 0; i < N; ++i) {
    s->kv_lens[i] = rng_one_in(r, 6) ? 0 : rng_range(r, 0, MAX_LEN);
    s->q_offsets[i + 1] =
        s->q_offsets[i] + (rng_one_in(r, 2) ? rng_range(r, 0, 2) : rng_range(r, 0, MAX_ROWS));
  }
  for (size_t i = 0; i < sizeof s->q / sizeof s->q[0]; ++i)
    s->q[i] = number(r);
  for (size_t i = 0; i < sizeof s->k / sizeof s->k[0]; ++i)
    s->k[i] = number(r), s->v[i] = number(r);
  for (int64_t h = 0; h < HQ; ++h)
    s->sinks[h] = number(r), s->slopes[h] = number(r) / 16;
  for (size_t i = 0; i < sizeof s->tree / sizeof s->tree[0]; ++i)
    s->tree[i] = rng_one_in(r, 4) ? 0 : rng_next(r) | rng_next(r);
  for (int64_t i = 0; i < (int64_t)N * WIDTH; ++i)
    s->table[i] = INT64_MIN / 1024; /* far outside of everything */
  for (int64_t i = 0; i < N; ++i)
    fill_request(s, i);
  splitkv_tensors_init(&s->tensors);
  s->tensors.q = s->q, s->tensors.k = s->k, s->tensors.v = s->v;
  s->tensors.block_table = s->table, s->tensors.tree_mask = s->tree;
  s->tensors.sinks = s->sinks, s->tensors.alibi_slopes = s->slopes;
}

static double score_of(const setup *s, int64_t r, int64_t row, int64_t h, int64_t token) {
  const splitkv_problem *p = &s->problem;
  const int64_t position = s->kv_lens[r] - (s->q_offsets[r + 1] - row);
  const float *q = s->q + (row * HQ + h) * D;
  const float *k = s->k + (r * MAX_LEN + token) * TOKEN + h / (HQ / HKV) * D;
  double score = 0;
  for (int c = 0; c < D; ++c)
    score += (double)q[c] * (double)k[c];
  score /= sqrt((double)D);
  const double cap = (double)p->logit_softcap;
  if (cap > 0) score = cap * tanh(score / cap);
  if (p->flags & SPLITKV_FLAG_ALIBI) score += (double)s->slopes[h] * (double)(token - position);
  return score;
}

static bool near(double got, double want) {
  return got == want || fabs(got - want) <= 1e-12 * (1 + fabs(want));
}

/* Scores are small: nothing is lost without a maximum. */
static void check_row(const setup *s, int64_t r, int64_t row, int64_t h) {
  double weight = 0, sums[D] = {0}, largest = 0;
  for (int64_t t = 0; t < s->kv_lens[r]; ++t) {
    if (!row_attends(s, r, row, t)) continue;
    const double w = exp(score_of(s, r, row, h, t));
    const float *v = s->v + (r * MAX_LEN + t) * TOKEN + h / (HQ / HKV) * D;
    weight += w;
    for (int c = 0; c < D; ++c) {
      sums[c] += w * (double)v[c];
      largest = fmax(largest, fabs((double)v[c]));
    }
  }
  if (s->problem.flags & SPLITKV_FLAG_SINKS) weight += exp((double)s->sinks[h]);
  const int64_t at = row * HQ + h;
  const double lse = weight > 0 ? log(weight) : -(double)INFINITY;
  bool ok = CHECK_MSG(near(s->lse[at], lse), "lse %g, not %g", s->lse[at], lse);
  ok = CHECK(s->max_abs_v[at] == largest) && ok;
  for (int c = 0; c < D; ++c) {
    const double want = weight > 0 ? sums[c] / weight : 0;
    ok =
        CHECK_MSG(near(s->out[at * D + c], want), "out %g, not %g", s->out[at * D + c], want) && ok;
  }
  if (!ok)
    check_that(false, __FILE__, __LINE__, "row",
               "request %" PRId64 " row %" PRId64 " head %" PRId64, r, row, h);
}

static int64_t n_empty, n_partial;

static void one_batch(setup *s, uint64_t seed) {
  rng r = {seed};
  memset(s, 0, sizeof *s);
  fill(s, &r);
  const ref_result result = {
      .out = s->out, .lse = s->lse, .max_abs_score = s->max_abs_score, .max_abs_v = s->max_abs_v};
  /* In two parts, as threads do it. */
  CHECK(ref_attention(&s->problem, s->kv_lens, s->q_offsets, 0, 1, &s->tensors, &result) == 0);
  CHECK(ref_attention(&s->problem, s->kv_lens, s->q_offsets, 1, N - 1, &s->tensors, &result) == 0);
  for (int64_t i = 0; i < N; ++i)
    for (int64_t row = s->q_offsets[i]; row < s->q_offsets[i + 1]; ++row) {
      for (int64_t h = 0; h < HQ; ++h)
        check_row(s, i, row, h);
      n_empty += s->max_abs_v[row * HQ] == 0;
      n_partial += s->max_abs_v[row * HQ] != 0;
    }
}

int main(int argc, char **argv) {
  const int64_t n = argc > 1 ? strtoll(argv[1], NULL, 10) : 300;
  const uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
  setup *s = malloc(sizeof *s);
  if (!CHECK(s != NULL)) return 1;
  for (int64_t i = 0; i < n && check_failures() == 0; ++i) {
    one_batch(s, first + (uint64_t)i);
    CHECK_MSG(check_failures() == 0, "repeat with: test_oracle 1 %" PRIu64, first + (uint64_t)i);
  }
  free(s);
  if (n >= 100) CHECK(n_empty > n && n_partial > n); /* rows without tokens and rows with some */
  return check_report("oracle");
}
