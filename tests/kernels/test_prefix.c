/* Shared prefixes: the oracle's results, FIXED_SIZE's bits, and what is refused.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Arguments: [number of problems [first seed]]. */
#include "batch.h"
#include "check.h"
#include "equal.h"

#include <splitkv/threads.h>

#include <stdio.h>
#include <stdlib.h>

static const splitkv_pool *pools[3];
static int64_t n_sharing, n_saving; /* plans with a shared block; of those with more than one */

/* Requests in runs that have their pages in common, each with rows of its own. */
static void share_pages(test_spec *spec, rng *r) {
  spec->table = TABLE_SHARED;
  spec->problem.page_size_tokens = rng_range(r, 1, 70);
  int64_t source = 0, common = rng_range(r, 0, 700);
  for (int64_t i = 0; i < spec->n_requests; ++i) {
    if (rng_one_in(r, 4)) {
      source++;
      common = rng_range(r, 0, 700);
    }
    spec->kv_lens[i] = common + rng_range(r, 0, 100);
    spec->sources[i] = source;
    spec->first_tokens[i] = 0;
    spec->q_ages[i] = i * 64;
  }
}

/* Partial slots that the plan of b's batch has. */
static int64_t n_slots(const test_batch *b) {
  splitkv_plan *plan = NULL;
  splitkv_plan_info info = {.struct_size = sizeof info};
  CHECK(splitkv_plan_create(&b->problem, &b->batch, NULL, &plan, NULL) == SPLITKV_OK);
  CHECK(splitkv_plan_get_info(plan, &info, NULL) == SPLITKV_OK);
  splitkv_plan_destroy(plan);
  return info.n_slots;
}

/* The bound from limits that this batch just reaches holds its plan. */
static bool check_bound(const test_batch *b) {
  splitkv_limits limits;
  splitkv_limits_init(&limits);
  limits.max_requests = b->batch.n_requests;
  limits.max_workers = b->batch.n_workers;
  limits.max_q_rows_total = test_n_rows(&b->spec);
  for (int64_t r = 0; r < b->batch.n_requests; ++r) {
    const int64_t len = b->spec.kv_lens[r], rows = test_rows_of(&b->spec, r);
    limits.max_kv_tokens_total += len;
    if (len > limits.max_kv_tokens_per_request) limits.max_kv_tokens_per_request = len;
    if (rows > limits.max_q_rows_per_request) limits.max_q_rows_per_request = rows;
  }
  for (int64_t i = 0; i < b->batch.n_prefixes; ++i) {
    const splitkv_prefix *x = &b->batch.prefixes[i];
    limits.max_prefix_rows +=
        b->first_rows[x->first_request + x->n_requests] - b->first_rows[x->first_request];
  }
  splitkv_sizes sizes;
  size_t plan_bytes = 0;
  splitkv_plan *plan = NULL;
  if (!CHECK(splitkv_get_sizes(&b->problem, &limits, &sizes, NULL) == SPLITKV_OK &&
             splitkv_plan_size(&b->problem, &b->batch, &plan_bytes, NULL) == SPLITKV_OK &&
             splitkv_plan_create(&b->problem, &b->batch, NULL, &plan, NULL) == SPLITKV_OK)) {
    return false;
  }
  const size_t workspace = splitkv_plan_workspace_bytes(plan);
  splitkv_plan_destroy(plan);
  return CHECK_MSG(plan_bytes <= sizes.plan_bytes && workspace <= sizes.workspace_bytes,
                   "plan %zu of %zu, workspace %zu of %zu", plan_bytes, sizes.plan_bytes, workspace,
                   sizes.workspace_bytes);
}

static bool run_shared(test_batch *b, rng *r, const splitkv_prefix *prefixes, int64_t n,
                       double *worst) {
  const bool fixed = b->problem.split_policy == SPLITKV_SPLIT_FIXED_SIZE;
  if (!test_batch_run(b, RNG_PICK(r, pools)) || !test_batch_compare(b, worst)) return false;
  const uint64_t alone = test_batch_digest(b);
  const int64_t slots = n_slots(b);
  b->batch.prefixes = prefixes;
  b->batch.n_prefixes = n;
  bool ok = test_batch_run(b, RNG_PICK(r, pools)) && test_batch_compare(b, worst) && check_bound(b);
  if (fixed) ok = ok && CHECK(test_batch_digest(b) == alone);
  n_sharing += !fixed && n_slots(b) > slots;
  n_saving += fixed && n > 0 && slots > 0;
  b->batch.prefixes = NULL;
  b->batch.n_prefixes = 0;
  return ok;
}

static bool one_problem(uint64_t seed, double *worst) {
  const test_ranges ranges = {12, 900, 80, 3, 16, 8000};
  static test_spec spec;
  rng r = {seed};
  test_spec_random(&spec, &r, &ranges);
  test_spec_vary(&spec, &r, (int)(seed % N_VARIANTS) & ~(seed % 5 == 0 ? 0 : VARIANT_WINDOW));
  test_spec_rows(&spec, &r, 60);
  if (seed % 6 == 1) test_spec_quantise(&spec, &r);
  if (seed % 2 == 0) test_spec_mask(&spec, &r, seed % 4 == 0 ? MASK_CAUSAL : MASK_TREE);
  share_pages(&spec, &r);
  test_batch b;
  test_batch_build(&b, &spec);
  splitkv_prefix found[TEST_MAX_REQUESTS];
  int64_t n = 0;
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n_isas = test_usable_isas(isas);
  bool ok = CHECK(splitkv_find_prefixes(&b.problem, &b.batch, &b.tensors, 1, found,
                                        TEST_MAX_REQUESTS, &n, NULL) == SPLITKV_OK);
  for (int fixed = 0; ok && fixed < 2; ++fixed) {
    b.problem.split_policy = fixed ? SPLITKV_SPLIT_FIXED_SIZE : SPLITKV_SPLIT_AUTO;
    b.problem.split_value = fixed ? rng_range(&r, 1, 200) : 0;
    b.problem.arithmetic = SPLITKV_ARITHMETIC_F32;
    test_batch_use(&b, isas[rng_range(&r, 0, n_isas - 1)]);
    ok = run_shared(&b, &r, found, n, worst);
  }
  if (!ok) test_batch_print(&b);
  test_batch_destroy(&b);
  return ok;
}

/* 16 requests of two rows with 40 common pages, then 4 of one with 10, then one alone. */
static void check_found(void) {
  enum { PAGE = 16, N = 21, WIDTH = 64 };
  splitkv_problem p;
  splitkv_problem_init(&p);
  p.n_heads_q = p.n_heads_kv = 1;
  p.head_dim = p.head_dim_v = 8;
  p.page_size_tokens = PAGE;
  p.table_width = WIDTH;
  p.n_pages = N * WIDTH;
  static int32_t table[N * WIDTH];
  int64_t kv_lens[N];
  for (int r = 0; r < N; ++r) {
    const int common = r < 16 ? 40 : r < 20 ? 10 : 0, owner = r < 16 ? 0 : r < 20 ? 16 : 20;
    for (int i = 0; i < WIDTH; ++i)
      table[r * WIDTH + i] = (i < common ? owner : r) * WIDTH + i;
    kv_lens[r] = 60 * PAGE + r;
  }
  splitkv_batch batch;
  splitkv_batch_init(&batch);
  batch.n_requests = N;
  batch.kv_lens = kv_lens;
  batch.kv_lens_type = SPLITKV_I64;
  splitkv_tensors t;
  splitkv_tensors_init(&t);
  t.block_table = table;
  splitkv_prefix found[N];
  int64_t n = -1;
  CHECK(splitkv_find_prefixes(&p, &batch, &t, 1, found, N, &n, NULL) == SPLITKV_OK && n == 2);
  CHECK(found[0].first_request == 0 && found[0].n_requests == 16 && found[0].n_tokens == 640);
  CHECK(found[1].first_request == 16 && found[1].n_requests == 4 && found[1].n_tokens == 160);
  CHECK(splitkv_find_prefixes(&p, &batch, &t, 161, found, N, &n, NULL) == SPLITKV_OK && n == 1);
  CHECK(splitkv_find_prefixes(&p, &batch, &t, 1, NULL, 0, &n, NULL) == SPLITKV_OK && n == 2);

  /* A plan that shares, and a table that does not. */
  static float q[N * 8], cache[N * WIDTH * PAGE * 8], out[N * 8];
  batch.prefixes = found;
  batch.n_prefixes = 1;
  found[0].n_tokens = 704; /* 40 pages are 640 */
  splitkv_plan *plan = NULL;
  splitkv_error error;
  CHECK(splitkv_plan_create(&p, &batch, NULL, &plan, NULL) == SPLITKV_OK);
  static _Alignas(SPLITKV_ALIGNMENT) unsigned char workspace[1 << 16];
  CHECK(splitkv_plan_workspace_bytes(plan) <= sizeof workspace);
  t.q = q;
  t.k = t.v = cache;
  t.out = out;
  CHECK(splitkv_run(plan, &p, &t, workspace, sizeof workspace, NULL, &error) ==
        SPLITKV_ERROR_PREFIX);
  CHECK(error.value == table[WIDTH + 40]);
  splitkv_plan_destroy(plan);
}

int main(int argc, char **argv) {
  const int n = argc > 1 ? atoi(argv[1]) : 60;
  const uint64_t first = argc > 2 ? (uint64_t)atoll(argv[2]) : 1;
  splitkv_threads *threads = NULL;
  CHECK(splitkv_threads_create(3, &threads, NULL) == SPLITKV_OK);
  const splitkv_pool reversed = test_pool_reversed();
  pools[1] = splitkv_threads_pool(threads);
  pools[2] = &reversed;
  check_found();
  double worst = 0;
  for (int i = 0; i < n; ++i) {
    if (one_problem(first + (uint64_t)i, &worst)) continue;
    fprintf(stderr, "  repeat with: test_prefix 1 %llu\n", (unsigned long long)first + (unsigned)i);
    break;
  }
  if (n >= 60) CHECK(n_sharing > n / 20 && n_saving > n / 4);
  splitkv_threads_destroy(threads);
  printf("%lld plans shared, largest error: %.3f of the bound\n", (long long)n_sharing, worst);
  return check_report("prefix");
}
