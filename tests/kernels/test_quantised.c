/* Quantised KV against the oracle: every dtype, scale mode and policy, with and without zero points
 * and variants, on every usable kernel set, whose bits have to be those of the first one.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Arguments: [number of problems [first seed]]. */
#include "batch.h"
#include "check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t n_seen[SPLITKV_INT4 + 1][SPLITKV_SCALE_GROUP64 + 1];

static void set_policy(test_batch *b, splitkv_split_policy policy, rng *r) {
  b->problem.split_policy = policy;
  b->problem.split_value = policy == SPLITKV_SPLIT_FIXED_SIZE    ? rng_range(r, 30, 400)
                           : policy == SPLITKV_SPLIT_FIXED_COUNT ? rng_range(r, 1, 9)
                                                                 : 0;
}

/* Runs on every kernel set of the class: the oracle judges the first one, the others are the same.
 */
static bool all_sets(test_batch *b, double *worst) {
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n = test_usable_isas(isas);
  uint64_t digest = 0;
  bool is_first = true, ok = true;
  for (int i = 0; ok && i < n; ++i) {
    if (test_isa_arithmetic(isas[i]) != SPLITKV_ARITHMETIC_F32) continue;
    test_batch_use(b, isas[i]);
    ok = test_batch_run(b, NULL);
    if (ok && is_first) ok = test_batch_compare(b, worst);
    if (ok && !is_first) {
      ok = CHECK_MSG(test_batch_digest(b) == digest, "%s has other bits", test_isa_name(isas[i]));
      if (!ok) test_batch_print(b);
    }
    digest = test_batch_digest(b);
    is_first = false;
  }
  return ok && CHECK(!is_first);
}

static bool one_problem(uint64_t seed, double *worst) {
  static const test_ranges ranges = {6, 1200, SPLITKV_MAX_HEAD_DIM, 4, 24, 30000};
  static test_spec spec;
  rng r = {seed};
  test_spec_random(&spec, &r, &ranges);
  if (seed % 3 == 0) test_spec_vary(&spec, &r, (int)(seed / 3 % N_VARIANTS));
  test_spec_quantise(&spec, &r);
  ++n_seen[spec.problem.dtype_kv][spec.problem.k_scale_mode];
  test_batch b;
  test_batch_build(&b, &spec);
  bool ok = true;
  for (int policy = 0; ok && policy < 4; ++policy) {
    if (policy > 1 && rng_one_in(&r, 2)) continue;
    set_policy(&b, (splitkv_split_policy)policy, &r);
    b.batch.n_workers = rng_range(&r, 1, 5);
    ok = all_sets(&b, worst);
  }
  test_batch_destroy(&b);
  return ok;
}

int main(int argc, char **argv) {
  const int64_t n = argc > 1 ? strtoll(argv[1], NULL, 10) : 400;
  const uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
  double worst = 0;
  for (int64_t i = 0; i < n && check_failures() < 5; ++i)
    if (!one_problem(first + (uint64_t)i, &worst))
      fprintf(stderr, "  repeat with: test_quantised 1 %" PRIu64 "\n", first + (uint64_t)i);
  for (int dtype = SPLITKV_INT8; dtype <= SPLITKV_INT4 && n >= 400; ++dtype)
    for (int mode = 0; mode <= SPLITKV_SCALE_GROUP64; ++mode)
      CHECK_MSG(n_seen[dtype][mode] > 0, "dtype %d with mode %d was never tried", dtype, mode);
  printf("largest error: %.3f of the bound\n", worst);
  return check_report("quantised");
}
