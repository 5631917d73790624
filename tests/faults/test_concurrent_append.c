/* Threads that append to the same caches at the same time, each its own tokens, some through pools
 * of their own: together they write what one call writes. Meant for ThreadSanitizer as well.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "append_case.h"
#include "batch.h"
#include "check.h"
#include "ref.h"

#include <splitkv/threads.h>

#include <pthread.h>
#include <string.h>

enum { N_THREADS = 4, N_TURNS = 6 };

typedef struct worker {
  const append_case *c;
  int index;
  splitkv_status status;
  pthread_t thread;
} worker;

/* Appends a quarter of the tokens. */
static void *work(void *argument) {
  worker *w = argument;
  const splitkv_append_args *all = &w->c->args;
  splitkv_append_args a = *all;
  const int64_t first = all->n_tokens * w->index / N_THREADS;
  const int64_t heads = w->c->problem.n_heads_kv, bytes = (int64_t)ref_dtype_size(a.dtype_new);
  const int64_t k_token =
      a.k_new_stride_token ? a.k_new_stride_token : heads * w->c->problem.head_dim;
  const int64_t v_token =
      a.v_new_stride_token ? a.v_new_stride_token : heads * w->c->problem.head_dim_v;
  a.n_tokens = all->n_tokens * (w->index + 1) / N_THREADS - first;
  a.k_new = (const unsigned char *)all->k_new + first * k_token * bytes;
  a.v_new = (const unsigned char *)all->v_new + first * v_token * bytes;
  a.slot_mapping =
      (const unsigned char *)all->slot_mapping + first * (a.slot_type == SPLITKV_I32 ? 4 : 8);
  a.positions =
      (const unsigned char *)all->positions + first * (a.position_type == SPLITKV_I32 ? 4 : 8);
  splitkv_threads *threads = NULL;
  if (w->index % 2) w->status = splitkv_threads_create(2, &threads, NULL);
  if (w->status == SPLITKV_OK)
    w->status =
        splitkv_append(&w->c->problem, &a, threads ? splitkv_threads_pool(threads) : NULL, NULL);
  splitkv_threads_destroy(threads);
  return NULL;
}

static void judge(int turn) {
  static const splitkv_dtype kv[] = {SPLITKV_F16, SPLITKV_INT4, SPLITKV_F32};
  rng r = {(uint64_t)turn + 7};
  append_spec spec;
  memset(&spec, 0, sizeof spec);
  splitkv_problem *p = &spec.problem;
  splitkv_problem_init(p);
  p->dtype_kv = kv[turn % 3];
  p->n_heads_q = p->n_heads_kv = 4;
  p->head_dim = p->head_dim_v = 72;
  p->page_size_tokens = 16, p->n_pages = 130;
  p->layout = (splitkv_layout)(turn % 2);
  if (p->dtype_kv == SPLITKV_INT4) {
    p->k_scale_mode = p->v_scale_mode = SPLITKV_SCALE_TOKEN;
    spec.flags = SPLITKV_APPEND_COMPUTE_K_SCALES | SPLITKV_APPEND_COMPUTE_V_SCALES;
  }
  spec.n_tokens = 2000; /* several tasks to a call; the f32 ones go past the caches */
  spec.rotary_dim = 72;
  spec.stores_v = true;
  append_case c;
  append_case_build(&c, &spec, &r);
  worker workers[N_THREADS];
  int n_started = 0;
  for (int i = 0; i < N_THREADS; ++i) {
    workers[i] = (worker){.c = &c, .index = i};
    n_started += pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0;
  }
  CHECK(n_started == N_THREADS);
  for (int i = 0; i < n_started; ++i) {
    pthread_join(workers[i].thread, NULL);
    CHECK(workers[i].status == SPLITKV_OK);
  }
  CHECK(append_case_compare(&c, "threads side by side"));
  splitkv_threads *threads = NULL;
  if (CHECK(splitkv_threads_create(3, &threads, NULL) == SPLITKV_OK))
    append_case_run(&c, SPLITKV_ISA_AUTO, splitkv_threads_pool(threads), "pool");
  splitkv_threads_destroy(threads);
  append_case_destroy(&c);
}

int main(void) {
  for (int turn = 0; turn < N_TURNS; ++turn)
    judge(turn);
  return check_report("concurrent append");
}
