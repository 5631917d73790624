/* Memory: a plan is one allocation, run and merge are none, and every failed allocation is reported
 * with nothing leaked.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Linked with wrappers around the C allocator (see track_malloc.c). */
#include "batch.h"
#include "check.h"
#include "track.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void wrappers_count(void) {
  const int64_t before = track_malloc_calls();
  void *volatile memory = malloc(100);
  CHECK(track_malloc_calls() == before + 1);
  free(memory);
}

/* Fails the k-th allocation for each k that happens; then none fails and all is released. */
static void plan_allocations(test_batch *b) {
  track t;
  splitkv_allocator allocator = track_allocator(&t);
  splitkv_plan *plan = NULL;
  int64_t before = track_malloc_calls();
  CHECK(splitkv_plan_create(&b->problem, &b->batch, &allocator, &plan, NULL) == SPLITKV_OK);
  CHECK(track_malloc_calls() - before == t.n_allocated); /* the tracker's own, nobody else's */
  CHECK_MSG(t.n_allocated == 1, "%" PRId64 " allocations", t.n_allocated);
  size_t plan_bytes = 0;
  CHECK(splitkv_plan_size(&b->problem, &b->batch, &plan_bytes, NULL) == SPLITKV_OK);
  CHECK_MSG(t.last_size == plan_bytes, "%zu allocated, %zu stated", t.last_size, plan_bytes);
  /* The plan keeps a copy of the allocator: the caller's struct may go. */
  memset(&allocator, 0, sizeof allocator);
  splitkv_plan_destroy(plan);
  CHECK(t.n_released == 1 && track_alive(&t) == 0 && t.n_errors == 0);
  const int64_t n = t.n_allocated;
  for (int64_t k = 1; k <= n; ++k) {
    allocator = track_allocator(&t);
    t.fail_at = k;
    splitkv_error error;
    memset(&error, 0, sizeof error);
    splitkv_plan *const untouched = (splitkv_plan *)(void *)&t;
    plan = untouched;
    CHECK(splitkv_plan_create(&b->problem, &b->batch, &allocator, &plan, &error) ==
          SPLITKV_ERROR_OUT_OF_MEMORY);
    CHECK(error.status == SPLITKV_ERROR_OUT_OF_MEMORY && error.message[0] != '\0');
    CHECK(plan == untouched && t.n_failed == 1 && track_alive(&t) == 0 && t.n_errors == 0);
  }
}

/* Planning into storage, running, asking and explaining allocate nothing. */
static void nothing_else_allocates(test_batch *b) {
  size_t bytes = 0;
  CHECK(splitkv_plan_size(&b->problem, &b->batch, &bytes, NULL) == SPLITKV_OK);
  void *storage = aligned_alloc(SPLITKV_ALIGNMENT, (bytes + 63) / 64 * 64);
  splitkv_plan *plan = NULL;
  const int64_t before = track_malloc_calls();
  for (int again = 0; again < 3; ++again)
    CHECK(splitkv_plan_init(storage, bytes, &b->problem, &b->batch, &plan, NULL) == SPLITKV_OK);
  CHECK(track_malloc_calls() == before);
  const size_t workspace_bytes = splitkv_plan_workspace_bytes(plan);
  void *workspace = aligned_alloc(64, (workspace_bytes + 64) / 64 * 64);
  const splitkv_pool pool = test_pool_reversed();
  const int64_t before_run = track_malloc_calls();
  for (int i = 0; i < 3; ++i)
    CHECK(splitkv_run(plan, &b->problem, &b->tensors, workspace, workspace_bytes,
                      i == 2 ? &pool : NULL, NULL) == SPLITKV_OK);
  splitkv_plan_info info;
  info.struct_size = sizeof info;
  CHECK(splitkv_plan_get_info(plan, &info, NULL) == SPLITKV_OK);
  splitkv_plan_destroy(plan); /* leaves storage alone */
  CHECK(track_malloc_calls() == before_run);
  free(workspace);
  free(storage);
}

static void merge_allocates_nothing(void) {
  static float parts[7 * 5 * 40], lse_parts[7 * 5], out[5 * 40], lse[5];
  splitkv_merge_args args;
  splitkv_merge_args_init(&args);
  args.n_states = 7;
  args.n_rows = 5;
  args.head_dim_v = 40;
  args.out_parts = parts;
  args.lse_parts = lse_parts;
  args.out = out;
  args.lse = lse;
  const int64_t before = track_malloc_calls();
  CHECK(splitkv_merge(&args, NULL) == SPLITKV_OK);
  CHECK(track_malloc_calls() == before);
}

int main(void) {
  const test_ranges ranges = {8, 700, 300, 4, 64, 4000};
  static test_spec spec;
  wrappers_count();
  merge_allocates_nothing();
  for (uint64_t seed = 1; seed <= 300 && check_failures() == 0; ++seed) {
    rng r = {seed};
    test_spec_random(&spec, &r, &ranges);
    test_spec_vary(&spec, &r, (int)(seed % N_VARIANTS));
    test_batch b;
    test_batch_build(&b, &spec);
    plan_allocations(&b);
    nothing_else_allocates(&b);
    if (check_failures() > 0) test_batch_print(&b);
    test_batch_destroy(&b);
  }
  return check_report("allocations");
}
