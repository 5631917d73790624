/* Sizes of scratch: the case of the pull request to the byte, and the bound: no batch within the
 * limits needs more, and more of a limit never gives less.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "check.h"
#include "rng.h"

#include <splitkv/ascend.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_REQUESTS = 300, MOST_WORDS = 44 + 17 * MOST_REQUESTS };

static int64_t lens[MOST_REQUESTS];
static uint32_t words[MOST_WORDS];

static splitkv_problem make_problem(int64_t hq, int64_t hkv, int64_t d, int64_t page) {
  splitkv_problem p;
  splitkv_problem_init(&p);
  p.n_heads_q = hq;
  p.n_heads_kv = hkv;
  p.head_dim = p.head_dim_v = d;
  p.page_size_tokens = page;
  p.n_pages = 1 << 20;
  p.table_width = 1 << 20;
  p.dtype_q = p.dtype_kv = p.dtype_out = SPLITKV_F16;
  return p;
}

static splitkv_batch make_batch(int64_t n) {
  splitkv_batch b;
  splitkv_batch_init(&b);
  b.n_requests = n;
  b.kv_lens = lens;
  b.kv_lens_type = SPLITKV_I64;
  return b;
}

/* 256 requests of 8192 tokens, 16 heads over one KV head, 24 cores. */
static void pull_request_case(splitkv_ascend_rule rule, uint32_t flags, uint64_t o_core,
                              uint64_t l) {
  const splitkv_problem p = make_problem(16, 1, 128, 128);
  const splitkv_batch b = make_batch(256);
  splitkv_ascend_target t;
  splitkv_ascend_target_init(&t);
  t.rule = rule;
  t.flags = flags;
  for (int i = 0; i < 256; ++i)
    lens[i] = 8192;
  splitkv_ascend_info info = {.struct_size = sizeof info};
  splitkv_ascend_sizes exact, before;
  if (!CHECK(splitkv_ascend_tile(&p, &b, &t, words, MOST_WORDS, &info, NULL) == SPLITKV_OK) ||
      !CHECK(splitkv_ascend_get_sizes(words, info.n_words, 24, SPLITKV_ASCEND_EXACT, &exact,
                                      NULL) == SPLITKV_OK) ||
      !CHECK(splitkv_ascend_get_sizes(words, info.n_words, 24, SPLITKV_ASCEND_BEFORE, &before,
                                      NULL) == SPLITKV_OK))
    return;
  CHECK(info.n_groups == 24 && info.heads_per_task_former == 16);
  if (rule == SPLITKV_ASCEND_PR683) {
    CHECK(info.key == 16 && info.n_splits == 22 && info.split_tokens == 384);
  } else {
    CHECK(info.key == 0 && info.n_splits == 1);
  }
  const uint64_t want[] = {3088384, 3084288, 6168576, 0, o_core, l, 0, 0};
  for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; ++i)
    CHECK_MSG(exact.bytes[i] == want[i], "%s: %llu instead of %llu",
              splitkv_ascend_buffer_name((splitkv_ascend_buffer)i),
              (unsigned long long)exact.bytes[i], (unsigned long long)want[i]);
  CHECK(before.bytes[SPLITKV_ASCEND_O_CORE] == 3735552);
  CHECK(before.bytes[SPLITKV_ASCEND_L] == 29184);
}

static splitkv_problem random_problem(rng *r) {
  static const int64_t groups[] = {1, 2, 3, 4, 5, 7, 8, 12, 16, 23, 40, 50, 63, 64};
  static const int64_t heads_kv[] = {1, 1, 1, 2, 3, 8};
  static const int64_t pages[] = {1, 7, 16, 32, 48, 64, 100, 128, 256};
  const int64_t hkv = RNG_PICK(r, heads_kv);
  splitkv_problem p = make_problem(hkv * RNG_PICK(r, groups), hkv, 8 * rng_range(r, 1, 32), 1);
  do
    p.page_size_tokens = RNG_PICK(r, pages);
  while (p.page_size_tokens * p.head_dim > 32768);
  return p;
}

static void random_batch(rng *r, const splitkv_limits *limits, splitkv_batch *b) {
  *b = make_batch(rng_range(r, 1, limits->max_requests));
  const int64_t longest = rng_range(r, 1, limits->max_kv_tokens_per_request);
  const int has_zeros = rng_one_in(r, 3), all_longest = rng_one_in(r, 3);
  for (int64_t i = 0; i < b->n_requests; ++i) {
    lens[i] = all_longest ? longest : rng_range(r, 1, longest);
    if (has_zeros && rng_one_in(r, 3)) lens[i] = 0;
  }
}

/* Batches within limits against the bound, and the bound against that of the limits before. */
static void bounds(uint64_t seed) {
  rng r = {seed};
  const splitkv_problem p = random_problem(&r);
  splitkv_ascend_target t;
  splitkv_ascend_target_init(&t);
  t.n_cores = rng_range(&r, 1, 64);
  t.rule = rng_one_in(&r, 2) ? SPLITKV_ASCEND_PR683 : SPLITKV_ASCEND_GUARDED;
  splitkv_limits limits;
  splitkv_limits_init(&limits);
  splitkv_ascend_sizes last;
  memset(&last, 0, sizeof last);
  for (int step = 0; step < 6; ++step) {
    splitkv_ascend_sizes bound;
    if (!CHECK(splitkv_ascend_get_bound(&p, &limits, &t, &bound, NULL) == SPLITKV_OK)) return;
    for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; ++i)
      CHECK_MSG(bound.bytes[i] >= last.bytes[i], "seed %llu: less for higher limits",
                (unsigned long long)seed);
    last = bound;
    for (int k = 0; k < 8 && limits.max_requests > 0 && limits.max_kv_tokens_per_request > 0; ++k) {
      splitkv_batch b;
      splitkv_ascend_info info = {.struct_size = sizeof info};
      splitkv_ascend_sizes exact;
      random_batch(&r, &limits, &b);
      const splitkv_status status = splitkv_ascend_tile(&p, &b, &t, words, MOST_WORDS, &info, NULL);
      if (status != SPLITKV_OK) continue; /* what the kernel cannot do */
      CHECK(splitkv_ascend_get_sizes(words, info.n_words, t.n_cores, SPLITKV_ASCEND_EXACT, &exact,
                                     NULL) == SPLITKV_OK);
      for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; ++i)
        CHECK_MSG(exact.bytes[i] <= bound.bytes[i], "seed %llu: %s takes %llu, bound %llu",
                  (unsigned long long)seed, splitkv_ascend_buffer_name((splitkv_ascend_buffer)i),
                  (unsigned long long)exact.bytes[i], (unsigned long long)bound.bytes[i]);
    }
    limits.max_requests = limits.max_requests * 2 + rng_range(&r, 0, 3);
    limits.max_kv_tokens_per_request =
        limits.max_kv_tokens_per_request * rng_range(&r, 1, 12) + rng_range(&r, 0, 300);
  }
}

/* Known by hand: guarded, at most 19 of 24 cores' worth of requests are split, into 24 parts. */
static void known_bound(void) {
  const splitkv_problem p = make_problem(16, 1, 128, 128);
  splitkv_ascend_target t;
  splitkv_ascend_target_init(&t);
  splitkv_limits limits;
  splitkv_limits_init(&limits);
  limits.max_requests = 256;
  limits.max_kv_tokens_per_request = 8192;
  splitkv_ascend_sizes bound;
  if (!CHECK(splitkv_ascend_get_bound(&p, &limits, &t, &bound, NULL) == SPLITKV_OK)) return;
  CHECK(bound.bytes[SPLITKV_ASCEND_O_CORE] == 19 * 24 * 16 * 128 * 4);
  CHECK(bound.bytes[SPLITKV_ASCEND_L] == 19 * 24 * 16 * 4);
  CHECK(bound.bytes[SPLITKV_ASCEND_GO] == 0 && bound.bytes[SPLITKV_ASCEND_K16] == 0);
}

int main(int argc, char **argv) {
  const long n = argc > 1 ? strtol(argv[1], NULL, 10) : 20000;
  pull_request_case(SPLITKV_ASCEND_PR683, 0, 46137344, 360448);
  pull_request_case(SPLITKV_ASCEND_GUARDED, 0, 0, 0);
  pull_request_case(SPLITKV_ASCEND_PR683, SPLITKV_ASCEND_SCALED_OFFSETS, 1011236864, 360448);
  known_bound();
  for (long i = 0; i < n; ++i)
    bounds((uint64_t)i + 1);
  return check_report("sizes");
}
