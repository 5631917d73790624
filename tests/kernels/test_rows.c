/* Query rows and masks: against the oracle, the same bits on every kernel set of a class, and what
 * they are equal to.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Arguments: [number of problems [first seed]]. Tokens that no row attends to are NaN, and pages
 * out of every row's reach have no id: the builder of every test sees to that. */
#include "batch.h"
#include "check.h"
#include "equal.h"

#include <splitkv/threads.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every combination of masks, causal and right window excluding each other. */
static const int masks[] = {
    0,
    MASK_CAUSAL,
    MASK_RIGHT,
    MASK_CHUNK,
    MASK_TREE,
    MASK_CAUSAL | MASK_CHUNK,
    MASK_CAUSAL | MASK_TREE,
    MASK_RIGHT | MASK_CHUNK,
    MASK_RIGHT | MASK_TREE,
    MASK_CHUNK | MASK_TREE,
    MASK_CAUSAL | MASK_CHUNK | MASK_TREE,
    MASK_RIGHT | MASK_CHUNK | MASK_TREE,
};
enum { N_MASK_SETS = sizeof masks / sizeof masks[0] };

static const splitkv_pool *pools[3];

static void random_rows(test_spec *spec, rng *r, uint64_t seed, int64_t max_rows) {
  test_spec_vary(spec, r, (int)(seed % N_VARIANTS));
  test_spec_rows(spec, r, max_rows);
  test_spec_mask(spec, r, masks[seed / N_VARIANTS % N_MASK_SETS]);
  if (seed % 5 == 2) test_spec_quantise(spec, r);
  if (seed % 3 == 0 && spec->problem.dtype_kv < SPLITKV_INT8 &&
      !(spec->problem.flags & SPLITKV_FLAG_ALIBI)) {
    spec->specials = true;
    spec->data = DATA_NORMAL; /* no weight is negligible */
  }
}

static bool one_problem(uint64_t seed, double *worst) {
  const test_ranges ranges = {6, 500, 160, 3, 16, 5000};
  static test_spec spec;
  rng r = {seed};
  test_spec_random(&spec, &r, &ranges);
  random_rows(&spec, &r, seed, seed % 8 == 0 ? 150 : 25);
  test_batch b;
  test_batch_build(&b, &spec);
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n_isas = test_usable_isas(isas);
  bool ok = CHECK(n_isas >= 1);
  for (int policy = 0; ok && policy < N_TEST_POLICIES; ++policy) {
    uint64_t digest = 0;
    int n_seen = 0;
    test_set_policy(&b, policy, &r);
    for (int i = 0; ok && i < n_isas; ++i) {
      b.problem.arithmetic = SPLITKV_ARITHMETIC_F32;
      test_batch_use(&b, isas[i]);
      ok = test_batch_run(&b, RNG_PICK(&r, pools)) && test_batch_compare(&b, worst) &&
           test_same_bits(&b, &digest, &n_seen);
    }
  }
  if (!ok) test_batch_print(&b);
  test_batch_destroy(&b);
  return ok;
}

/* ── row by row ─────────────────────────────────────────────────────────────────────────────── */

/* Requests of one row: each row of the spec as the last one of a request that ends there. */
static void as_decode(test_spec *decode, const test_spec *spec) {
  *decode = *spec;
  decode->has_rows = false;
  decode->problem.flags &= ~SPLITKV_FLAG_CAUSAL;
  decode->problem.out_stride_head = decode->problem.out_stride_request = 0;
  int64_t at = 0;
  for (int64_t r = 0; r < spec->n_requests; ++r)
    for (int64_t i = 0; i < spec->n_rows[r]; ++i, ++at) {
      const int64_t kv_len = spec->kv_lens[r] - (spec->n_rows[r] - 1 - i);
      decode->kv_lens[at] = kv_len > 0 ? kv_len : 0;
      decode->sources[at] = spec->sources[r];
      decode->first_tokens[at] = spec->first_tokens[r];
      decode->q_ages[at] = spec->n_rows[r] - 1 - i;
    }
  decode->n_requests = at;
}

/* All rows of two batches that have the same ones, in the same order. */
static bool all_rows_equal(const test_batch *a, const test_batch *b, const char *what) {
  const int64_t n = test_n_rows(&a->spec) * a->problem.n_heads_q;
  for (int64_t row = 0; row < n; ++row)
    if (!CHECK_MSG(test_same_row(a, row, b, row), "%s: row %" PRId64 " head %" PRId64, what,
                   row / a->problem.n_heads_q, row % a->problem.n_heads_q)) {
      test_batch_print(a);
      return false;
    }
  return true;
}

/* FIXED_SIZE and NONE, class f32: a row of a causal chunk is a request that ends with it. */
static void causal_rows_are_decode(uint64_t seed) {
  const test_ranges ranges = {5, 500, 100, 3, 12, 4000};
  static test_spec spec, decode;
  rng r = {seed};
  test_spec_random(&spec, &r, &ranges);
  test_spec_vary(&spec, &r, (int)(seed % N_VARIANTS) & ~VARIANT_WINDOW);
  test_spec_rows(&spec, &r, seed % 4 == 0 ? 250 : 50);
  if (seed % 5 == 2) test_spec_quantise(&spec, &r);
  spec.no_lse = false;
  spec.problem.flags |= SPLITKV_FLAG_CAUSAL;
  as_decode(&decode, &spec);
  if (!CHECK(decode.n_requests <= TEST_MAX_REQUESTS)) return;
  test_batch a, b;
  test_batch_build(&a, &spec);
  test_batch_build(&b, &decode);
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n_isas = test_usable_isas(isas);
  for (int policy = 1; policy < N_TEST_POLICIES; policy += 2)
    for (int i = 0; i < n_isas; ++i) {
      if (test_isa_arithmetic(isas[i]) != SPLITKV_ARITHMETIC_F32) continue;
      rng one = r, other = r;
      test_set_policy(&a, policy, &one);
      test_set_policy(&b, policy, &other);
      b.batch.n_workers = rng_range(&one, 1, 9);
      a.problem.isa = b.problem.isa = isas[i];
      a.problem.arithmetic = b.problem.arithmetic = SPLITKV_ARITHMETIC_F32;
      if (!test_batch_run(&a, RNG_PICK(&one, pools)) || !test_batch_run(&b, NULL) ||
          !all_rows_equal(&a, &b, "a causal row and a request that ends with it"))
        i = n_isas;
    }
  test_batch_destroy(&a);
  test_batch_destroy(&b);
}

static void take_request(test_spec *to, int64_t at, const test_spec *from, int64_t r) {
  to->kv_lens[at] = from->kv_lens[r];
  to->sources[at] = from->sources[r];
  to->first_tokens[at] = from->first_tokens[r];
  to->n_rows[at] = from->n_rows[r];
  to->q_ages[at] = from->q_ages[r];
}

/* Whether request `at` of one batch has the rows of request r of another. */
static bool requests_equal(const test_batch *a, int64_t at, const test_batch *b, int64_t r) {
  const int64_t heads = a->problem.n_heads_q, first = b->first_rows[r];
  for (int64_t row = first * heads; row < b->first_rows[r + 1] * heads; ++row)
    if (!test_same_row(a, row + (a->first_rows[at] - first) * heads, b, row)) return false;
  return true;
}

/* Runs `other`, whose request i is request kept_of[i] of the batch that was run. */
static void judge(const test_batch *b, const test_spec *other, const int64_t *kept_of,
                  const splitkv_pool *pool, const char *what) {
  test_batch a;
  test_batch_build(&a, other);
  if (test_batch_run(&a, pool))
    for (int64_t i = 0; i < other->n_requests; ++i)
      if (!CHECK_MSG(requests_equal(&a, i, b, kept_of[i]), "request %" PRId64 ": %s", kept_of[i],
                     what)) {
        test_batch_print(b);
        test_batch_print(&a);
        break;
      }
  test_batch_destroy(&a);
}

/* The same requests in other pages, under another layout, with other tables. */
static void lay_out_otherwise(test_spec *s, rng *r) {
  static const int64_t pages[] = {1, 3, 16, 64, 100, 128, 700};
  splitkv_problem *p = &s->problem;
  p->page_size_tokens = RNG_PICK(r, pages);
  p->table_format = (splitkv_table_format)rng_range(r, 0, 1);
  p->table_type = (splitkv_index_type)rng_range(r, 0, 1);
  if (!s->v_aliases_k || p->head_dim == p->head_dim_v)
    p->layout = (splitkv_layout)rng_range(r, 0, 2);
  p->q_stride_head = p->head_dim + rng_range(r, 0, 8);
  p->q_stride_request = 0;
  s->stride_kind = (test_stride_kind)rng_range(r, 0, N_STRIDE_KINDS - 1);
  s->kv_lens_type = (splitkv_index_type)rng_range(r, 0, 1);
  s->q_offsets_type = (splitkv_index_type)rng_range(r, 0, 1);
  s->table = (test_table)rng_range(r, 0, 2);
}

/* All policies but AUTO: a request's rows have the same bits alone and in any batch, on any number
 * of workers and threads, in any pages; those of one row without offsets, too. */
static void batch_invariance(uint64_t seed) {
  const test_ranges ranges = {6, 600, 100, 3, 12, 5000};
  static test_spec spec, other;
  static int64_t kept_of[TEST_MAX_REQUESTS];
  rng r = {seed};
  test_spec_random(&spec, &r, &ranges);
  random_rows(&spec, &r, seed, seed % 4 == 0 ? 200 : 40);
  spec.no_lse = false;
  spec.specials =
      false; /* which tokens they are in is a matter of the batch, where pages are shared */
  if (spec.problem.tree_tokens == 0 && spec.n_requests > 0) spec.n_rows[0] = 1;
  spec.problem.out_stride_head = spec.problem.out_stride_request = 0;
  spec.problem.split_policy = (splitkv_split_policy)(1 + seed % 3);
  spec.problem.split_value = seed % 3 == 2 ? 0 : rng_range(&r, 1, seed % 3 == 0 ? 300 : 9);
  test_batch b;
  test_batch_build(&b, &spec);
  if (test_batch_run(&b, NULL)) {
    for (int64_t i = 0; i < spec.n_requests; ++i) {
      other = spec;
      other.n_requests = 1;
      take_request(&other, 0, &spec, i);
      other.has_rows = spec.n_rows[i] != 1;
      other.n_workers = rng_range(&r, 1, 9);
      judge(&b, &other, &i, RNG_PICK(&r, pools), "alone");
    }
    other = spec;
    other.n_requests = spec.n_requests > 0 ? rng_range(&r, 1, 2 * spec.n_requests) : 0;
    for (int64_t i = 0; i < other.n_requests; ++i) {
      kept_of[i] = rng_range(&r, 0, spec.n_requests - 1);
      take_request(&other, i, &spec, kept_of[i]);
    }
    other.n_workers = rng_range(&r, 1, 20);
    judge(&b, &other, kept_of, RNG_PICK(&r, pools), "another batch");
    other = spec;
    lay_out_otherwise(&other, &r);
    for (int64_t i = 0; i < other.n_requests; ++i)
      kept_of[i] = i;
    judge(&b, &other, kept_of, RNG_PICK(&r, pools), "other pages and layout");
  }
  test_batch_destroy(&b);
}

/* ── what a mask is equal to ────────────────────────────────────────────────────────────────── */

static void as_it_is(test_spec *s) {
  (void)s;
}
static int64_t most_rows(const test_spec *s) {
  int64_t most = 1;
  for (int64_t r = 0; r < s->n_requests; ++r)
    most = s->n_rows[r] > most ? s->n_rows[r] : most;
  return most;
}
static int64_t longest(const test_spec *s) {
  int64_t most = 1;
  for (int64_t r = 0; r < s->n_requests; ++r)
    most = s->kv_lens[r] > most ? s->kv_lens[r] : most;
  return most;
}
static void at_most_a_row(test_spec *s) {
  for (int64_t r = 0; r < s->n_requests; ++r)
    s->n_rows[r] = s->n_rows[r] > 0;
}
static void one_row(test_spec *s) {
  for (int64_t r = 0; r < s->n_requests; ++r)
    s->n_rows[r] = 1;
}
static void no_offsets(test_spec *s) {
  s->has_rows = false;
}
static void short_causal(test_spec *s) {
  at_most_a_row(s);
  s->problem.flags |= SPLITKV_FLAG_CAUSAL;
  s->problem.window_right_tokens = 0;
}
static void short_free(test_spec *s) {
  at_most_a_row(s);
  s->problem.flags &= ~SPLITKV_FLAG_CAUSAL;
  s->problem.window_right_tokens = 0;
}
static void causal(test_spec *s) {
  s->problem.flags |= SPLITKV_FLAG_CAUSAL;
  s->problem.window_right_tokens = 0;
}
static void right_window_of_one(test_spec *s) {
  s->problem.flags &= ~SPLITKV_FLAG_CAUSAL;
  s->problem.window_right_tokens = 1;
}
static void no_right_window(test_spec *s) {
  s->problem.flags &= ~SPLITKV_FLAG_CAUSAL;
  s->problem.window_right_tokens = 0;
}
static void wide_right_window(test_spec *s) {
  no_right_window(s);
  s->problem.window_right_tokens = longest(s) + most_rows(s);
}
static void fewer_rows_than_tokens(test_spec *s) {
  for (int64_t r = 0; r < s->n_requests; ++r)
    if (s->n_rows[r] > s->kv_lens[r]) s->n_rows[r] = s->kv_lens[r];
}
static void no_chunk(test_spec *s) {
  fewer_rows_than_tokens(s);
  s->problem.chunk_tokens = 0;
}
static void long_chunk(test_spec *s) {
  fewer_rows_than_tokens(s);
  s->problem.chunk_tokens = longest(s);
}
static void no_window(test_spec *s) {
  s->problem.window_tokens = 0;
}
static void wide_window(test_spec *s) {
  s->problem.window_tokens = longest(s);
}
static void no_tree(test_spec *s) {
  s->problem.tree_tokens = 0;
}
static void full_tree(test_spec *s) {
  s->problem.tree_tokens = 1 + (int64_t)(s->seed % 300);
  s->tree = TREE_ALL;
}
static void causal_without_tree(test_spec *s) {
  causal(s);
  no_tree(s);
}
static void causal_by_tree(test_spec *s) {
  no_right_window(s);
  s->problem.tree_tokens = most_rows(s) + (int64_t)(s->seed % 70);
  s->tree = TREE_CAUSAL;
}

static void equalities(uint64_t seed) {
  const test_ranges ranges = {4, 300, 80, 3, 12, 3000};
  static test_spec spec;
  rng r = {seed};
  test_spec_random(&spec, &r, &ranges);
  random_rows(&spec, &r, seed, 30);
  /* The number of rows changes. */
  spec.problem.out_stride_head = spec.problem.out_stride_request = 0;
  test_equal(&spec, short_causal, short_free, 0, "CAUSAL and none, of one row");
  test_equal(&spec, causal, right_window_of_one, 0, "CAUSAL and a right window of 1");
  test_equal(&spec, no_right_window, wide_right_window, 0, "a right window that holds all");
  test_equal(&spec, no_window, wide_window, 0, "a window that holds all");
  test_equal(&spec, no_chunk, long_chunk, 0, "a chunk that holds all");
  test_equal(&spec, no_tree, full_tree, 0, "a tree mask of ones");
  test_equal(&spec, causal_without_tree, causal_by_tree, EQUAL_BY_ROW | EQUAL_IN_F32,
             "CAUSAL and a tree mask that says the same");
  one_row(&spec);
  test_equal(&spec, as_it_is, no_offsets, 0, "offsets of one row each");
}

int main(int argc, char **argv) {
  const int64_t n = argc > 1 ? strtoll(argv[1], NULL, 10) : (int64_t)N_VARIANTS * N_MASK_SETS;
  const uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
  const splitkv_pool reversed = test_pool_reversed();
  splitkv_threads *threads = NULL;
  double worst = 0;
  CHECK(splitkv_threads_create(3, &threads, NULL) == SPLITKV_OK);
  pools[1] = &reversed;
  pools[2] = splitkv_threads_pool(threads);
  for (int64_t i = 0; i < n && check_failures() == 0; ++i) {
    const uint64_t seed = first + (uint64_t)i;
    one_problem(seed, &worst);
    if (i % 2 == 0) causal_rows_are_decode(seed / 2);
    if (i % 2 == 1) batch_invariance(seed / 2 * 7);
    if (i % 8 == 0) equalities(seed / 8 * 7);
    if (check_failures() > 0) fprintf(stderr, "  repeat with: test_rows 1 %" PRIu64 "\n", seed);
  }
  splitkv_threads_destroy(threads);
  printf("largest error: %.3f of the bound\n", worst);
  return check_report("rows");
}
