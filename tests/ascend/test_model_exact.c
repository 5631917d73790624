/* The model against the exact sizes and the oracle, over random problems:
 *
 *   test_model_exact [N [SEED]]
 *
 * The last byte that the model touches of every scratch buffer is the last that
 * splitkv_ascend_get_sizes counts; with any buffer a byte smaller it says so and names it; every
 * row is within its bound.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "check.h"
#include "launch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static bool check_exact(launch *l, double *worst) {
  splitkv_ascend_report report;
  splitkv_error error;
  memset(&error, 0, sizeof error);
  if (!CHECK_MSG(launch_run(l, 0, NULL, &report, &error) == SPLITKV_OK, "%s", error.message))
    return false;
  for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; i++) {
    if (!CHECK_MSG(report.high_water[i] == l->sizes.bytes[i],
                   "%s: touched %" PRIu64 ", exact %" PRIu64,
                   splitkv_ascend_buffer_name((splitkv_ascend_buffer)i), report.high_water[i],
                   l->sizes.bytes[i]))
      return false;
  }
  return CHECK(report.n_rows_unwritten == 0) && launch_compare(l, worst);
}

/* One of the buffers that are used, a byte too small. */
static bool check_smaller(launch *l, rng *r) {
  const splitkv_ascend_buffer buffer =
      (splitkv_ascend_buffer)rng_range(r, 0, SPLITKV_ASCEND_N_SCRATCH - 1);
  if (l->memory.bytes[buffer] == 0) return true;
  splitkv_ascend_report report;
  splitkv_error error;
  l->memory.bytes[buffer]--;
  const splitkv_status status = launch_run(l, 0, NULL, &report, &error);
  l->memory.bytes[buffer]++;
  bool ok = CHECK(status == SPLITKV_ERROR_ASCEND_BOUNDS) && CHECK(report.first.buffer == buffer);
  for (int i = 0; i < SPLITKV_ASCEND_N_BUFFERS; i++) {
    const int64_t lowest = i == (int)buffer ? (int64_t)l->sizes.bytes[i] - 1 : INT64_MAX;
    ok = ok && CHECK(report.lowest_outside[i] == lowest);
  }
  return ok;
}

int main(int argc, char **argv) {
  const int64_t n = argc > 1 ? strtoll(argv[1], NULL, 10) : 10000;
  const uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
  static test_spec spec;
  static launch l;
  double worst = 0;
  int64_t n_done = 0, n_split = 0, n_tail = 0;
  for (int64_t i = 0; i < n; i++) {
    rng r = {seed + (uint64_t)i};
    splitkv_ascend_target target;
    const bool is_large = rng_one_in(&r, 200);
    const launch_ranges small = {8, 160, 64, 6, 8}, large = {40, 3000, 256, 8, 16};
    launch_random(&spec, &target, &r, is_large ? &large : &small);
    if (!is_large && rng_one_in(&r, 8)) {
      spec.problem.n_heads_kv = 1;
      spec.problem.n_heads_q = rng_range(&r, 1, 70);
    }
    if (!launch_open(&l, &spec, &target, SPLITKV_ASCEND_EXACT, NULL)) continue;
    n_done++;
    n_split += l.info.n_splits > 1;
    n_tail += l.info.n_requests_tail > 0;
    const bool ok = check_exact(&l, &worst) && check_smaller(&l, &r);
    if (!ok) {
      test_batch_print(&l.batch);
      (void)fprintf(stderr, "  problem %" PRId64 ", %" PRId64 " cores, rule %d\n", i,
                    target.n_cores, (int)target.rule);
    }
    launch_close(&l);
    if (!ok) break;
  }
  CHECK(n_done * 2 > n);
  printf("%" PRId64 " of %" PRId64 " problems (%" PRId64 " split, %" PRId64
         " with a tail), worst %.3f of the bound\n",
         n_done, n, n_split, n_tail, worst);
  return check_report("test_model_exact");
}
