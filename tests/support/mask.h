/* Which tokens a query row attends to, rule by rule as docs/variants.md has them.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The oracle and the library turn the rules into ranges; this asks each of them of each token. */
#ifndef SPLITKV_TEST_MASK_H
#define SPLITKV_TEST_MASK_H

#include <splitkv/splitkv.h>

#include <stdbool.h>

/* Query row `index` of a request's n_rows. */
typedef struct test_row {
  int64_t kv_len, n_rows, index;
  const uint64_t *words; /* its row of the tree mask; NULL: all rules but that one */
} test_row;

bool test_attends(const splitkv_problem *p, const test_row *row, int64_t token);

#endif
