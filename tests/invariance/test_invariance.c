/* What a row's bits may not depend on.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * FIXED_SIZE and NONE: the batch around the row, the order of requests, the number of workers, the
 * pool, the page size, the table, the layout. AUTO and FIXED_COUNT: the pool.
 * Every policy: the layout, in which a task walks KV heads side by side or one by one, unless AUTO
 * cuts them side by side, too. Arguments: [number of problems [first seed]]. */
#include "../../src/plan.h"
#include "batch.h"
#include "check.h"

#include <splitkv/threads.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_POOLS = 6 };

static splitkv_pool reversed_pool;
static splitkv_threads *threads[4];
static const splitkv_pool *pools[N_POOLS];

/* Output rows of some batch, by request. */
typedef struct rows {
  unsigned char *out; /* [requests, heads, row bytes] */
  float *lse;
  size_t row_bytes;
} rows;

static rows keep(const test_batch *b) {
  rows k;
  const int64_t n = b->spec.n_requests * b->problem.n_heads_q;
  k.row_bytes = test_row_bytes(b);
  k.out = malloc((size_t)n * k.row_bytes + 1);
  k.lse = malloc(((size_t)n + 1) * sizeof *k.lse);
  if (!k.out || !k.lse) exit(2);
  for (int64_t i = 0; i < n; ++i)
    memcpy(k.out + (size_t)i * k.row_bytes, test_out_row(b, i), k.row_bytes);
  memcpy(k.lse, b->lse.data, b->lse.size_bytes);
  return k;
}

static void forget(rows *k) {
  free(k->out);
  free(k->lse);
}

/* Whether request r of the batch just run has the rows of request `kept_r`. */
static bool same_rows(const test_batch *b, int64_t r, const rows *k, int64_t kept_r) {
  const int64_t heads = b->problem.n_heads_q;
  for (int64_t h = 0; h < heads; ++h)
    if (memcmp(test_out_row(b, r * heads + h), k->out + (size_t)(kept_r * heads + h) * k->row_bytes,
               k->row_bytes) != 0)
      return false;
  return memcmp(b->tensors.lse + r * heads, k->lse + kept_r * heads,
                (size_t)heads * sizeof(float)) == 0;
}

/* Runs the spec anew and compares all rows; kept_of[r] is the request in `k` (NULL: the same). */
static void judge(const test_spec *spec, const splitkv_pool *pool, const rows *k,
                  const int64_t *kept_of, const char *what) {
  test_batch b;
  test_batch_build(&b, spec);
  if (test_batch_run(&b, pool))
    for (int64_t r = 0; r < spec->n_requests; ++r)
      if (!CHECK_MSG(same_rows(&b, r, k, kept_of ? kept_of[r] : r), "request %" PRId64 ": %s", r,
                     what)) {
        test_batch_print(&b);
        break;
      }
  test_batch_destroy(&b);
}

static void take_request(test_spec *to, int64_t at, const test_spec *from, int64_t r) {
  to->kv_lens[at] = from->kv_lens[r];
  to->sources[at] = from->sources[r];
  to->first_tokens[at] = from->first_tokens[r];
}

static void alone(const test_spec *spec, const rows *k) {
  static test_spec one;
  for (int64_t r = 0; r < spec->n_requests; ++r) {
    one = *spec;
    one.n_requests = 1;
    take_request(&one, 0, spec, r);
    judge(&one, NULL, k, &r, "alone");
  }
}

/* A random order, some requests twice, some left out, with other workers. */
static void reordered(const test_spec *spec, const rows *k, rng *r) {
  static test_spec other;
  static int64_t kept_of[TEST_MAX_REQUESTS];
  if (spec->n_requests == 0) return;
  other = *spec;
  other.n_requests = rng_range(r, 1, 2 * spec->n_requests);
  for (int64_t i = 0; i < other.n_requests; ++i) {
    kept_of[i] = rng_range(r, 0, spec->n_requests - 1);
    take_request(&other, i, spec, kept_of[i]);
  }
  other.problem.out_stride_head = other.problem.out_stride_request = 0;
  other.n_workers = rng_range(r, 1, 20);
  judge(&other, pools[rng_range(r, 0, N_POOLS - 1)], k, kept_of, "reordered batch");
}

static void paged_otherwise(const test_spec *spec, const rows *k, rng *r) {
  static const int64_t pages[] = {1, 3, 16, 64, 100, 128, 700};
  static test_spec other;
  for (size_t i = 0; i < sizeof pages / sizeof pages[0]; ++i) {
    other = *spec;
    other.problem.page_size_tokens = pages[i];
    other.table = (test_table)rng_range(r, 0, 2);
    other.extra_pages = rng_range(r, 0, 4);
    other.extra_width = rng_range(r, 0, 4);
    other.problem.table_format = (splitkv_table_format)rng_range(r, 0, 1);
    other.problem.table_type = (splitkv_index_type)rng_range(r, 0, 1);
    other.kv_lens_type = (splitkv_index_type)rng_range(r, 0, 1);
    other.side = (guard_side)rng_range(r, 0, 1);
    judge(&other, NULL, k, NULL, "page size and table");
  }
}

/* Whether AUTO cuts this problem through all KV heads at one token, as it does in some layouts. */
static bool is_cut_level(const test_spec *spec) {
  test_batch b;
  test_batch_build(&b, spec);
  splitkv_plan *plan = NULL;
  const bool is_level =
      CHECK(splitkv_plan_create(&b.problem, &b.batch, NULL, &plan, NULL) == SPLITKV_OK) &&
      plan->cuts_level;
  splitkv_plan_destroy(plan);
  test_batch_destroy(&b);
  return is_level;
}

static int64_t n_level, n_as_before; /* AUTO's plans of problems laid out otherwise */

static void laid_out_otherwise(const test_spec *spec, const rows *k) {
  static test_spec other;
  for (int layout = 0; layout < 3; ++layout)
    for (int kind = 0; kind < (layout == 2 ? N_STRIDE_KINDS : 1); ++kind) {
      if (spec->v_aliases_k && layout != 2 && spec->problem.head_dim != spec->problem.head_dim_v)
        continue;
      other = *spec;
      other.problem.layout = (splitkv_layout)layout;
      other.stride_kind = (test_stride_kind)kind;
      other.stride_pad = 2 * kind;
      other.problem.q_stride_head = other.problem.head_dim + layout;
      other.problem.q_stride_request = other.problem.n_heads_q * other.problem.q_stride_head + kind;
      const bool is_auto = other.problem.split_policy == SPLITKV_SPLIT_AUTO;
      const bool is_level = is_auto && is_cut_level(&other);
      n_level += is_level;
      n_as_before += is_auto && !is_level;
      if (!is_level) judge(&other, NULL, k, NULL, "layout");
    }
}

static void any_workers_and_pool(const test_spec *spec, const rows *k) {
  static const int64_t workers[] = {1, 2, 3, 7, 31, 1000};
  static test_spec other;
  for (size_t i = 0; i < sizeof workers / sizeof workers[0]; ++i) {
    other = *spec;
    other.n_workers = workers[i];
    judge(&other, pools[i % N_POOLS], k, NULL, "workers and pool");
  }
}

static void independent_policies(test_spec *spec, rng *r) {
  for (int i = 0; i < 2; ++i) {
    spec->problem.split_policy = i ? SPLITKV_SPLIT_NONE : SPLITKV_SPLIT_FIXED_SIZE;
    spec->problem.split_value = i ? 0 : rng_range(r, 1, 300);
    test_batch b;
    test_batch_build(&b, spec);
    if (test_batch_run(&b, NULL)) {
      rows k = keep(&b);
      alone(spec, &k);
      reordered(spec, &k, r);
      paged_otherwise(spec, &k, r);
      laid_out_otherwise(spec, &k);
      any_workers_and_pool(spec, &k);
      forget(&k);
    }
    test_batch_destroy(&b);
  }
}

/* Every policy: one plan, any pool. */
static void pool_independence(test_spec *spec, rng *r) {
  for (int policy = 0; policy < 4; ++policy) {
    spec->problem.split_policy = (splitkv_split_policy)policy;
    spec->problem.split_value = policy == SPLITKV_SPLIT_FIXED_SIZE    ? rng_range(r, 1, 300)
                                : policy == SPLITKV_SPLIT_FIXED_COUNT ? rng_range(r, 1, 9)
                                                                      : 0;
    spec->n_workers = rng_range(r, 1, 16);
    test_batch b;
    test_batch_build(&b, spec);
    if (test_batch_run(&b, NULL)) {
      rows k = keep(&b);
      for (int p = 1; p < N_POOLS; ++p)
        for (int again = 0; again < 2; ++again) {
          bool same = test_batch_run(&b, pools[p]);
          for (int64_t q = 0; same && q < spec->n_requests; ++q)
            same = same_rows(&b, q, &k, q);
          CHECK_MSG(same, "policy %d pool %d", policy, p);
        }
      forget(&k);
    }
    test_batch_destroy(&b);
  }
}

/* So many slots that merging them is shared over the workers, which the random problems are too
 * small for. */
static void shared_merge(void) {
  static test_spec spec;
  test_spec_init(&spec);
  spec.problem.n_heads_q = 8;
  spec.problem.n_heads_kv = 2;
  spec.problem.head_dim = spec.problem.head_dim_v = 128;
  spec.problem.split_policy = SPLITKV_SPLIT_FIXED_SIZE;
  spec.problem.split_value = 3;
  test_spec_requests(&spec, 2, 700);
  test_batch b;
  test_batch_build(&b, &spec);
  if (test_batch_run(&b, NULL)) {
    rows k = keep(&b);
    any_workers_and_pool(&spec, &k);
    forget(&k);
  }
  test_batch_destroy(&b);
}

/* Many KV heads, so that AUTO's cuts in the middle of a head leave pieces of different tokens side
 * by side, and bundles are as wide as the row or of several widths. */
static void side_by_side(rng *r, bool large) {
  static const int64_t around[] = {0, 1, 64, 130, 448, 449, 512};
  static test_spec spec;
  test_spec_init(&spec);
  splitkv_problem *p = &spec.problem;
  p->n_heads_kv = large ? 8 : rng_range(r, 2, 20);
  p->n_heads_q = p->n_heads_kv * rng_range(r, large ? 4 : 1, large ? 16 : 5);
  p->head_dim = p->head_dim_v = large ? 128 : rng_range(r, 1, 24);
  p->page_size_tokens = rng_one_in(r, 2) ? 16 : rng_range(r, 1, 200);
  p->dtype_q = p->dtype_out = p->dtype_kv = (splitkv_dtype)rng_range(r, 0, 2);
  p->layout = SPLITKV_LAYOUT_HND;
  if (rng_one_in(r, 2)) p->arithmetic = SPLITKV_ARITHMETIC_BF16;
  if (rng_one_in(r, 4)) {
    p->split_policy = SPLITKV_SPLIT_FIXED_SIZE;
    p->split_value = rng_range(r, 100, 500);
  }
  test_spec_requests(&spec, rng_range(r, 1, 4), 0);
  for (int64_t i = 0; i < spec.n_requests; ++i)
    spec.kv_lens[i] = rng_one_in(r, 3) ? RNG_PICK(r, around) : rng_range(r, 0, large ? 700 : 1500);
  spec.n_workers = rng_range(r, 1, 12);
  if (rng_one_in(r, 2)) test_spec_vary(&spec, r, (int)rng_range(r, 0, N_VARIANTS - 1));
  test_batch b;
  test_batch_build(&b, &spec);
  if (test_batch_run(&b, NULL)) {
    rows k = keep(&b);
    laid_out_otherwise(&spec, &k);
    forget(&k);
  }
  test_batch_destroy(&b);
}

/* AUTO's cuts through all KV heads are those that FIXED_SIZE makes of as many tokens, and the slots
 * are found again. */
static void level_cuts(rng *r) {
  static test_spec spec;
  test_spec_init(&spec);
  splitkv_problem *p = &spec.problem;
  p->n_heads_kv = rng_range(r, 2, 9);
  p->n_heads_q = p->n_heads_kv * rng_range(r, 1, 5);
  p->head_dim = p->head_dim_v = rng_range(r, 16, 70);
  p->page_size_tokens = rng_range(r, 1, 200);
  p->dtype_q = p->dtype_out = p->dtype_kv = (splitkv_dtype)rng_range(r, 0, 2);
  const int64_t n_workers = rng_range(r, 2, 6), each = 16 * rng_range(r, 36, 56);
  test_spec_requests(&spec, 1, n_workers * each - rng_range(r, 9, 23));
  p->split_policy = SPLITKV_SPLIT_FIXED_SIZE;
  p->split_value = each;
  p->layout = SPLITKV_LAYOUT_HND;
  test_batch b;
  test_batch_build(&b, &spec);
  if (test_batch_run(&b, NULL)) {
    rows k = keep(&b);
    p->split_policy = SPLITKV_SPLIT_AUTO;
    p->split_value = 0;
    p->layout = SPLITKV_LAYOUT_NHD;
    spec.n_workers = n_workers;
    CHECK(is_cut_level(&spec));
    judge(&spec, pools[rng_range(r, 0, N_POOLS - 1)], &k, NULL, "level cuts");
    forget(&k);
  }
  test_batch_destroy(&b);
}

int main(int argc, char **argv) {
  static const int64_t n_threads[] = {1, 2, 3, 7};
  const int64_t n = argc > 1 ? strtoll(argv[1], NULL, 10) : 60;
  const uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
  const test_ranges ranges = {6, 1200, 300, 3, 12, 12000};
  reversed_pool = test_pool_reversed();
  pools[0] = NULL;
  pools[1] = &reversed_pool;
  for (int i = 0; i < 4; ++i) {
    if (!CHECK(splitkv_threads_create(n_threads[i], &threads[i], NULL) == SPLITKV_OK))
      return check_report("invariance");
    pools[2 + i] = splitkv_threads_pool(threads[i]);
  }
  shared_merge();
  for (int64_t i = 0; i < 3 * n && check_failures() == 0; ++i) {
    rng r = {~(first + (uint64_t)i)};
    side_by_side(&r, i % 12 == 0);
  }
  CHECK(n < 20 || (n_level > n / 10 && n_as_before > n));
  for (int64_t i = 0; i < n && check_failures() == 0; ++i) {
    rng r = {~(first + (uint64_t)i)};
    level_cuts(&r);
  }
  static test_spec spec;
  for (int64_t i = 0; i < n && check_failures() == 0; ++i) {
    rng r = {first + (uint64_t)i};
    test_spec_random(&spec, &r, &ranges);
    if (i % 2) test_spec_vary(&spec, &r, (int)(i / 2 % N_VARIANTS));
    if (i % 5 == 4) test_spec_quantise(&spec, &r);
    spec.no_lse = false;
    spec.problem.q_stride_head = spec.problem.q_stride_request = 0;
    independent_policies(&spec, &r);
    pool_independence(&spec, &r);
    if (check_failures() > 0)
      fprintf(stderr, "  repeat with: test_invariance 1 %" PRIu64 "\n", first + (uint64_t)i);
  }
  for (int i = 0; i < 4; ++i)
    splitkv_threads_destroy(threads[i]);
  return check_report("invariance");
}
