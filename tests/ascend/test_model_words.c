/* The model trusts nothing in the words: test_model_words [N [SEED]] runs it on words of random
 * problems in which some were replaced. It has to return, and to say why where it does nothing.
 * Built with ASan every access that escapes its check shows.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "launch.h"

static uint32_t replacement(rng *r, uint32_t word) {
  switch (rng_range(r, 0, 6)) {
  case 0:
    return 0;
  case 1:
    return (uint32_t)rng_range(r, 0, 80);
  case 2:
    return (uint32_t)rng_next(r);
  case 3:
    return word + (uint32_t)rng_range(r, -2, 2);
  case 4:
    return word ^ (1u << rng_range(r, 0, 31));
  case 5:
    return word * (uint32_t)rng_range(r, 2, 4);
  default:
    return UINT32_MAX - (uint32_t)rng_range(r, 0, 3);
  }
}

int main(int argc, char **argv) {
  enum { MUTATIONS = 50 };
  const int64_t n = argc > 1 ? strtoll(argv[1], NULL, 10) : 20000;
  const uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
  static test_spec spec;
  static launch l;
  rng r = {seed};
  int64_t n_ok = 0, n_outside = 0, n_refused = 0;
  for (int64_t i = 0; i < n;) {
    splitkv_ascend_target target;
    const launch_ranges ranges = {6, 100, 32, 4, 4};
    launch_random(&spec, &target, &r, &ranges);
    if (!launch_open(&l, &spec, &target, SPLITKV_ASCEND_EXACT, NULL)) continue;
    const size_t bytes = (size_t)l.info.n_words * sizeof *l.words;
    uint32_t *kept = malloc(bytes);
    if (!CHECK(kept != NULL)) break;
    memcpy(kept, l.words, bytes);
    for (int k = 0; k < MUTATIONS && i < n; k++, i++) {
      memcpy(l.words, kept, bytes);
      for (int64_t left = rng_range(&r, 1, 3); left > 0; left--) {
        const int64_t last = rng_one_in(&r, 2) ? SPLITKV_ASCEND_HEADER_WORDS : l.info.n_words;
        uint32_t *word = &l.words[rng_range(&r, 0, last - 1)];
        *word = replacement(&r, *word);
      }
      splitkv_ascend_report report;
      const splitkv_status status =
          launch_run(&l, (uint32_t)rng_range(&r, 0, 3), NULL, &report, NULL);
      n_ok += status == SPLITKV_OK;
      n_outside += status == SPLITKV_ERROR_ASCEND_BOUNDS;
      n_refused += status == SPLITKV_ERROR_ASCEND_WORDS || status == SPLITKV_ERROR_ASCEND_KEY;
    }
    free(kept);
    launch_close(&l);
  }
  CHECK(n_ok + n_outside + n_refused == n);
  CHECK(n_ok > 0 && n_outside > 0 && n_refused > 0);
  printf("%" PRId64 " ran, %" PRId64 " reached outside, %" PRId64 " were refused\n", n_ok,
         n_outside, n_refused);
  return check_report("test_model_words");
}
