/* The same bits: on every kernel set of a class, and of two descriptions.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TEST_EQUAL_H
#define SPLITKV_TEST_EQUAL_H

#include "batch.h"

/* Policy 0 .. 3 with a random value, and random workers. */
enum { N_TEST_POLICIES = 4 };
void test_set_policy(test_batch *b, int policy, rng *r);

/* Checks that the sets of the class f32 give one digest; *n_seen of them had *digest so far. */
bool test_same_bits(const test_batch *b, uint64_t *digest, int *n_seen);

typedef void (*test_change)(test_spec *spec);

/* Where two descriptions have to be equal; or'ed together. */
enum {
  EQUAL_BY_ROW = 1, /* under FIXED_SIZE and NONE alone */
  EQUAL_IN_F32 = 2  /* no other class */
};

/* Checks that two changes of a spec give the same bits under every policy and kernel set, or where
 * `where` says. */
void test_equal(const test_spec *spec, test_change first, test_change second, int where,
                const char *what);

/* Whether a row (query row * heads + head) of one batch has the bits of a row of another,
 * whose lse both have. */
bool test_same_row(const test_batch *a, int64_t row_a, const test_batch *b, int64_t row_b);

#endif
