/* One plan, many threads: each runs it with its own workspace and outputs at the same time, some
 * through pools of their own, and all get the same bytes. Meant for ThreadSanitizer as well.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"
#include "check.h"

#include <splitkv/threads.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { N_THREADS = 6, N_RUNS = 12 };

typedef struct worker {
  const test_batch *batch;
  const splitkv_plan *plan;
  int index;
  int n_bad;
  pthread_t thread;
} worker;

static bool run_once(const worker *w, unsigned char *out, float *lse, void *workspace,
                     const splitkv_pool *pool) {
  const test_batch *b = w->batch;
  splitkv_tensors tensors = b->tensors;
  tensors.out = out;
  tensors.lse = lse;
  memset(out, 0xcd, b->out.size_bytes);
  memset(lse, 0xcd, b->lse.size_bytes);
  return splitkv_run(w->plan, &b->problem, &tensors, workspace,
                     splitkv_plan_workspace_bytes(w->plan), pool, NULL) == SPLITKV_OK &&
         memcmp(out, b->out.data, b->out.size_bytes) == 0 &&
         memcmp(lse, b->lse.data, b->lse.size_bytes) == 0;
}

static void *work(void *argument) {
  worker *w = argument;
  splitkv_threads *threads = NULL;
  if (w->index % 3 != 0 && splitkv_threads_create(w->index, &threads, NULL) != SPLITKV_OK)
    ++w->n_bad;
  unsigned char *out = malloc(w->batch->out.size_bytes + 1);
  float *lse = malloc(w->batch->lse.size_bytes + 1);
  void *workspace = aligned_alloc(64, (splitkv_plan_workspace_bytes(w->plan) + 64) / 64 * 64);
  for (int i = 0; i < N_RUNS; ++i) {
    if (!out || !lse || !workspace ||
        !run_once(w, out, lse, workspace, threads ? splitkv_threads_pool(threads) : NULL))
      ++w->n_bad;
    /* Other plans come and go meanwhile. */
    splitkv_plan *other = NULL;
    if (splitkv_plan_create(&w->batch->problem, &w->batch->batch, NULL, &other, NULL) != SPLITKV_OK)
      ++w->n_bad;
    splitkv_plan_destroy(other);
  }
  free(out);
  free(lse);
  free(workspace);
  splitkv_threads_destroy(threads);
  return NULL;
}

static void judge(int policy) {
  static test_spec spec;
  test_spec_init(&spec);
  test_spec_requests(&spec, 5, 0);
  static const int64_t lens[] = {1900, 0, 64, 700, 1};
  memcpy(spec.kv_lens, lens, sizeof lens);
  spec.problem.n_heads_kv = 2;
  spec.problem.n_heads_q = 14;
  spec.problem.dtype_q = spec.problem.dtype_kv = SPLITKV_F16;
  spec.problem.split_policy = (splitkv_split_policy)policy;
  spec.problem.split_value = policy == SPLITKV_SPLIT_FIXED_SIZE    ? 300
                             : policy == SPLITKV_SPLIT_FIXED_COUNT ? 5
                                                                   : 0;
  spec.n_workers = 7;
  test_batch b;
  test_batch_build(&b, &spec);
  splitkv_plan *plan = NULL;
  if (test_batch_run(&b, NULL) && test_batch_compare(&b, NULL) &&
      CHECK(splitkv_plan_create(&b.problem, &b.batch, NULL, &plan, NULL) == SPLITKV_OK)) {
    worker workers[N_THREADS];
    int n_started = 0;
    for (int i = 0; i < N_THREADS; ++i) {
      workers[i] = (worker){.batch = &b, .plan = plan, .index = i};
      n_started += pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0;
    }
    CHECK(n_started == N_THREADS);
    for (int i = 0; i < n_started; ++i) {
      pthread_join(workers[i].thread, NULL);
      CHECK_MSG(workers[i].n_bad == 0, "policy %d thread %d: %d runs went wrong", policy, i,
                workers[i].n_bad);
    }
  }
  splitkv_plan_destroy(plan);
  test_batch_destroy(&b);
}

int main(void) {
  for (int policy = 0; policy < 4; ++policy)
    judge(policy);
  return check_report("concurrent");
}
