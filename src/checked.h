/* Size arithmetic that says when it does not fit. Operands are non-negative.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CHECKED_H
#define SPL_CHECKED_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

static inline bool spl_add(int64_t a, int64_t b, int64_t *sum) {
  assert(a >= 0 && b >= 0);
  if (a > INT64_MAX - b) return false;
  *sum = a + b;
  return true;
}

static inline bool spl_mul(int64_t a, int64_t b, int64_t *product) {
  assert(a >= 0 && b >= 0);
  /* The division only where it can matter: planning multiplies for every request. */
  if (((a | b) >> 31) != 0 && b != 0 && a > INT64_MAX / b) return false;
  *product = a * b;
  return true;
}

/* *total += a * b. */
static inline bool spl_mul_add(int64_t a, int64_t b, int64_t *total) {
  int64_t product = 0;
  return spl_mul(a, b, &product) && spl_add(*total, product, total);
}

/* a rounded up to a multiple of `unit`, a power of two. */
static inline bool spl_round_up(int64_t a, int64_t unit, int64_t *rounded) {
  if (!spl_add(a, unit - 1, rounded)) return false;
  *rounded &= ~(unit - 1);
  return true;
}

static inline int64_t spl_min(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static inline int64_t spl_max(int64_t a, int64_t b) {
  return a > b ? a : b;
}
/* ceil(a / b) without the overflow of a + b - 1. */
static inline int64_t spl_ceil_div(int64_t a, int64_t b) {
  return a / b + (a % b != 0);
}

#endif
