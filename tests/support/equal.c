/* SPDX-License-Identifier: Apache-2.0 */
#include "equal.h"

#include "check.h"

#include <string.h>

void test_set_policy(test_batch *b, int policy, rng *r) {
  b->problem.split_policy = (splitkv_split_policy)policy;
  b->problem.split_value = policy == 1   ? rng_range(r, 1, 300)
                           : policy == 2 ? rng_range(r, 1, 9)
                                         : 0;
  b->batch.n_workers = rng_range(r, 1, 9);
}

bool test_same_bits(const test_batch *b, uint64_t *digest, int *n_seen) {
  if (b->arithmetic != SPLITKV_ARITHMETIC_F32) return true;
  const uint64_t got = test_batch_digest(b);
  if ((*n_seen)++ == 0) *digest = got;
  return CHECK_MSG(got == *digest, "%s differs from the other kernel sets",
                   test_isa_name(b->problem.isa));
}

void test_equal(const test_spec *spec, test_change first, test_change second, int where,
                const char *what) {
  static test_spec one, other;
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n_isas = test_usable_isas(isas);
  one = other = *spec;
  first(&one);
  second(&other);
  test_batch a, b;
  test_batch_build(&a, &one);
  test_batch_build(&b, &other);
  for (int policy = 0; policy < N_TEST_POLICIES; ++policy)
    for (int i = 0; i < n_isas; ++i) {
      if (where & EQUAL_BY_ROW && policy % 2 == 0) continue; /* 1 and 3 are the two */
      if (where & EQUAL_IN_F32 && test_isa_arithmetic(isas[i]) != SPLITKV_ARITHMETIC_F32) continue;
      rng r = {spec->seed + (uint64_t)policy}, same = r;
      test_set_policy(&a, policy, &r);
      test_set_policy(&b, policy, &same);
      test_batch_use(&a, isas[i]);
      test_batch_use(&b, isas[i]);
      if (test_batch_run(&a, NULL) && test_batch_run(&b, NULL) &&
          !CHECK_MSG(test_batch_digest(&a) == test_batch_digest(&b), "%s, policy %d, %s", what,
                     policy, test_isa_name(isas[i]))) {
        test_batch_print(&a);
        test_batch_print(&b);
      }
    }
  test_batch_destroy(&a);
  test_batch_destroy(&b);
}

bool test_same_row(const test_batch *a, int64_t row_a, const test_batch *b, int64_t row_b) {
  return memcmp(test_out_row(a, row_a), test_out_row(b, row_b), test_row_bytes(a)) == 0 &&
         memcmp(a->tensors.lse + row_a, b->tensors.lse + row_b, sizeof(float)) == 0;
}
