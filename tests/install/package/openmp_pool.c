/* The installed splitkv-openmp library: every index once, on as many threads as were asked for,
 * and the refusals.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <splitkv/openmp.h>

#include <stdio.h>
#include <string.h>

enum { N_MAX = 100 };

static int calls[N_MAX];

static void count(void *body_context, int64_t i) {
  int *counts = body_context;
  counts[i]++; /* each i is one thread's alone */
}

static int expect(int condition, const char *what) {
  if (!condition) {
    fprintf(stderr, "failed: %s\n", what);
  }
  return !condition;
}

int main(void) {
  int failures = 0;
  for (int64_t n_threads = 0; n_threads <= 3; n_threads++) {
    splitkv_pool pool;
    failures += expect(splitkv_openmp_pool(n_threads, &pool, NULL) == SPLITKV_OK, "a pool is made");
    failures += expect(pool.struct_size == sizeof pool, "struct_size is set");
    for (int64_t n = 0; n <= N_MAX; n++) {
      memset(calls, 0, sizeof calls);
      pool.parallel_for(pool.context, n, count, calls);
      for (int64_t i = 0; i < N_MAX; i++) {
        failures += expect(calls[i] == (i < n), "every index below n once, none beyond");
      }
    }
  }
  splitkv_error error;
  splitkv_pool untouched;
  memset(&untouched, 0x5a, sizeof untouched);
  splitkv_pool before = untouched;
  failures += expect(splitkv_openmp_pool(-1, &untouched, &error) == SPLITKV_ERROR_N_WORKERS &&
                         error.status == SPLITKV_ERROR_N_WORKERS && error.value == -1 &&
                         strcmp(error.field, "n_threads") == 0,
                     "-1 threads are refused, and the error says so");
  failures += expect(splitkv_openmp_pool(SPLITKV_MAX_WORKERS + 1, &untouched, NULL) ==
                         SPLITKV_ERROR_N_WORKERS,
                     "too many threads are refused");
  failures += expect(memcmp(&before, &untouched, sizeof before) == 0, "a refusal touches nothing");
  failures += expect(splitkv_openmp_pool(1, NULL, &error) == SPLITKV_ERROR_NULL_POINTER,
                     "a null pool is refused");
  return failures != 0;
}
