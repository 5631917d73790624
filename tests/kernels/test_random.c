/* Random problems on every usable kernel set under every policy, against the oracle.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Arguments: [number of problems [first seed [most elements of K]]]. */
#include "batch.h"
#include "check.h"

#include <splitkv/threads.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* The policy itself and a value for it that cuts something. */
static void set_policy(test_batch *b, splitkv_split_policy policy, rng *r) {
  int64_t longest = 1;
  for (int64_t i = 0; i < b->spec.n_requests; ++i)
    longest = b->spec.kv_lens[i] > longest ? b->spec.kv_lens[i] : longest;
  b->problem.split_policy = policy;
  b->problem.split_value = policy == SPLITKV_SPLIT_FIXED_SIZE    ? rng_range(r, 1, longest)
                           : policy == SPLITKV_SPLIT_FIXED_COUNT ? rng_range(r, 1, 20)
                                                                 : 0;
}

static bool one_problem(uint64_t seed, int64_t max_elements, const splitkv_pool *pool,
                        double *worst) {
  static const splitkv_split_policy policies[] = {SPLITKV_SPLIT_AUTO, SPLITKV_SPLIT_FIXED_SIZE,
                                                  SPLITKV_SPLIT_FIXED_COUNT, SPLITKV_SPLIT_NONE};
  const test_ranges ranges = {12, 3000, SPLITKV_MAX_HEAD_DIM, 5, 64, max_elements};
  rng r = {seed};
  static test_spec spec;
  test_spec_random(&spec, &r, &ranges);
  test_batch b;
  test_batch_build(&b, &spec);
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n_isas = test_usable_isas(isas);
  bool ok = CHECK(n_isas >= 1);
  for (int i = 0; ok && i < n_isas; ++i) {
    test_batch_use(&b, isas[i]);
    for (int k = 0; ok && k < 4; ++k) {
      set_policy(&b, policies[k], &r);
      b.batch.n_workers = rng_range(&r, 1, 9);
      const splitkv_pool reversed = test_pool_reversed();
      const splitkv_pool *choice[] = {NULL, &reversed, pool};
      ok = test_batch_run(&b, RNG_PICK(&r, choice)) && test_batch_compare(&b, worst);
    }
  }
  test_batch_destroy(&b);
  return ok;
}

int main(int argc, char **argv) {
  const int64_t n = argc > 1 ? strtoll(argv[1], NULL, 10) : 400;
  const uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000;
  const int64_t elements = argc > 3 ? strtoll(argv[3], NULL, 10) : 60000;
  splitkv_threads *threads = NULL;
  CHECK(splitkv_threads_create(3, &threads, NULL) == SPLITKV_OK);
  double worst = 0;
  for (int64_t i = 0; i < n && check_failures() == 0; ++i)
    if (!one_problem(first + (uint64_t)i, elements, splitkv_threads_pool(threads), &worst))
      fprintf(stderr, "  repeat with: test_random 1 %" PRIu64 " %" PRId64 "\n", first + (uint64_t)i,
              elements);
  splitkv_threads_destroy(threads);
  printf("largest error: %.3f of the bound\n", worst);
  return check_report("random");
}
