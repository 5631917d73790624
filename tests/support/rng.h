/* Random numbers that are the same on every machine.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TEST_RNG_H
#define SPLITKV_TEST_RNG_H

#include <stdint.h>

typedef struct rng {
  uint64_t state;
} rng;

/* SplitMix64's output function: a good 64-bit mixer (Steele, Lea, Flood 2014). */
static inline uint64_t rng_mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

static inline uint64_t rng_next(rng *r) {
  r->state += 0x9e3779b97f4a7c15ULL;
  return rng_mix(r->state);
}

/* Uniform in first .. last, both included. */
static inline int64_t rng_range(rng *r, int64_t first, int64_t last) {
  return first + (int64_t)(rng_next(r) % (uint64_t)(last - first + 1));
}

/* True once in n. */
static inline int rng_one_in(rng *r, int64_t n) {
  return rng_range(r, 1, n) == 1;
}

#define RNG_PICK(r, array)                                                                         \
  ((array)[rng_range((r), 0, (int64_t)(sizeof(array) / sizeof((array)[0])) - 1)])

#endif
