/* Refusals of what is asked of a plan, of allocators and of the thread pool.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "check.h"
#include "reject.h"
#include "track.h"

#include <splitkv/threads.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { PATTERN = 0x39 };

static splitkv_plan *good_plan(void) {
  const splitkv_problem p = reject_good_problem();
  const splitkv_batch b = reject_good_batch();
  splitkv_plan *plan = NULL;
  CHECK(splitkv_plan_create(&p, &b, NULL, &plan, NULL) == SPLITKV_OK);
  return plan;
}

/* Each query refuses `plan` with `want`. */
static void queries_refuse(const splitkv_plan *plan, splitkv_status want) {
  splitkv_plan_info info;
  splitkv_region region;
  splitkv_task_info task;
  memset(&info, 0, sizeof info);
  memset(&region, 0, sizeof region);
  memset(&task, 0, sizeof task);
  info.struct_size = sizeof info;
  region.struct_size = sizeof region;
  task.struct_size = sizeof task;
  splitkv_error error = reject_error();
  REJECT(splitkv_plan_get_info(plan, &info, &error), &error, want, "plan", 0);
  error = reject_error();
  REJECT(splitkv_plan_get_region(plan, 0, &region, &error), &error, want, "plan", 0);
  error = reject_error();
  REJECT(splitkv_plan_get_task(plan, 0, &task, &error), &error, want, "plan", 0);
  char text[16] = "untouched";
  size_t length = 5;
  error = reject_error();
  REJECT(splitkv_plan_explain(plan, SPLITKV_TEXT, text, sizeof text, &length, &error), &error, want,
         "plan", 0);
  CHECK(strcmp(text, "untouched") == 0 && length == 5);
  CHECK(splitkv_plan_workspace_bytes(plan) == 0);
}

static void bad_structs(const splitkv_plan *plan) {
  const size_t bad[] = {0, 8, 1 << 20};
  for (size_t i = 0; i < 3; ++i) {
    splitkv_plan_info info;
    splitkv_region region;
    splitkv_task_info task;
    splitkv_kernel_set_info set;
    info.struct_size = region.struct_size = task.struct_size = set.struct_size = bad[i];
    splitkv_error error = reject_error();
    REJECT(splitkv_plan_get_info(plan, &info, &error), &error, SPLITKV_ERROR_STRUCT_SIZE,
           "info.struct_size", (int64_t)bad[i]);
    error = reject_error();
    REJECT(splitkv_plan_get_region(plan, 0, &region, &error), &error, SPLITKV_ERROR_STRUCT_SIZE,
           "region.struct_size", (int64_t)bad[i]);
    error = reject_error();
    REJECT(splitkv_plan_get_task(plan, 0, &task, &error), &error, SPLITKV_ERROR_STRUCT_SIZE,
           "task.struct_size", (int64_t)bad[i]);
    error = reject_error();
    REJECT(splitkv_kernel_set_get(0, &set, &error), &error, SPLITKV_ERROR_STRUCT_SIZE,
           "info.struct_size", (int64_t)bad[i]);
  }
  /* A caller of the first header gets what its struct has. */
  splitkv_plan_info old;
  old.struct_size = offsetof(splitkv_plan_info, arithmetic);
  old.arithmetic = "untouched";
  CHECK(splitkv_plan_get_info(plan, &old, NULL) == SPLITKV_OK && old.kernel_set != NULL);
  CHECK(strcmp(old.arithmetic, "untouched") == 0);
  splitkv_error error = reject_error();
  REJECT(splitkv_plan_get_info(plan, NULL, &error), &error, SPLITKV_ERROR_NULL_POINTER, "info", 0);
  error = reject_error();
  REJECT(splitkv_plan_get_region(plan, 0, NULL, &error), &error, SPLITKV_ERROR_NULL_POINTER,
         "region", 0);
  error = reject_error();
  REJECT(splitkv_plan_get_task(plan, 0, NULL, &error), &error, SPLITKV_ERROR_NULL_POINTER, "task",
         0);
  error = reject_error();
  REJECT(splitkv_kernel_set_get(0, NULL, &error), &error, SPLITKV_ERROR_NULL_POINTER, "info", 0);
}

static void bad_indexes(const splitkv_plan *plan) {
  splitkv_plan_info info;
  info.struct_size = sizeof info;
  CHECK(splitkv_plan_get_info(plan, &info, NULL) == SPLITKV_OK);
  splitkv_region region;
  splitkv_task_info task;
  splitkv_kernel_set_info set;
  region.struct_size = sizeof region;
  task.struct_size = sizeof task;
  set.struct_size = sizeof set;
  const int64_t wrong[] = {-1, INT64_MIN, INT64_MAX};
  for (size_t i = 0; i < 4; ++i) {
    splitkv_error error = reject_error();
    int64_t index = i < 3 ? wrong[i] : info.n_regions;
    REJECT(splitkv_plan_get_region(plan, index, &region, &error), &error, SPLITKV_ERROR_INDEX,
           "index", index);
    error = reject_error();
    index = i < 3 ? wrong[i] : info.n_tasks;
    REJECT(splitkv_plan_get_task(plan, index, &task, &error), &error, SPLITKV_ERROR_INDEX, "index",
           index);
    error = reject_error();
    index = i < 3 ? wrong[i] : splitkv_kernel_set_count();
    REJECT(splitkv_kernel_set_get(index, &set, &error), &error, SPLITKV_ERROR_INDEX, "index",
           index);
  }
}

static void bad_explain(const splitkv_plan *plan) {
  char text[8] = "abcdefg";
  size_t length = 3;
  splitkv_error error = reject_error();
  REJECT(splitkv_plan_explain(plan, (splitkv_text_format)2, text, sizeof text, &length, &error),
         &error, SPLITKV_ERROR_FORMAT, "format", 2);
  error = reject_error();
  REJECT(splitkv_plan_explain(plan, SPLITKV_JSON, NULL, 1, &length, &error), &error,
         SPLITKV_ERROR_NULL_POINTER, "buffer", 0);
  CHECK(strcmp(text, "abcdefg") == 0 && length == 3);
}

void reject_plan_queries(void) {
  splitkv_plan *plan = good_plan();
  bad_structs(plan);
  bad_indexes(plan);
  bad_explain(plan);
  queries_refuse(NULL, SPLITKV_ERROR_NULL_POINTER);
  static _Alignas(64) unsigned char no_plan[1024];
  queries_refuse((const splitkv_plan *)(const void *)no_plan, SPLITKV_ERROR_PLAN_INVALID);
  memset(no_plan, PATTERN, sizeof no_plan);
  queries_refuse((const splitkv_plan *)(const void *)no_plan, SPLITKV_ERROR_PLAN_INVALID);
  queries_refuse((const splitkv_plan *)(const void *)(no_plan + 4), SPLITKV_ERROR_PLAN_INVALID);
  splitkv_plan_destroy(plan);
  splitkv_plan_destroy(NULL);
}

void reject_allocators(void) {
  const splitkv_problem p = reject_good_problem();
  const splitkv_batch b = reject_good_batch();
  splitkv_plan *const untouched = (splitkv_plan *)(void *)&p;
  splitkv_plan *plan = untouched;
  track t;
  splitkv_allocator a = track_allocator(&t);
  a.allocate = NULL;
  splitkv_error error = reject_error();
  REJECT(splitkv_plan_create(&p, &b, &a, &plan, &error), &error, SPLITKV_ERROR_ALLOCATOR,
         "allocator.allocate", 0);
  a = track_allocator(&t);
  a.release = NULL;
  error = reject_error();
  REJECT(splitkv_plan_create(&p, &b, &a, &plan, &error), &error, SPLITKV_ERROR_ALLOCATOR,
         "allocator.release", 0);
  a = track_allocator(&t);
  a.struct_size = 12;
  error = reject_error();
  REJECT(splitkv_plan_create(&p, &b, &a, &plan, &error), &error, SPLITKV_ERROR_STRUCT_SIZE,
         "allocator.struct_size", 12);
  a = track_allocator(&t);
  error = reject_error();
  REJECT(splitkv_plan_create(&p, &b, &a, NULL, &error), &error, SPLITKV_ERROR_NULL_POINTER, "plan",
         0);
  size_t bytes = 0;
  CHECK(splitkv_plan_size(&p, &b, &bytes, NULL) == SPLITKV_OK);
  t.fail_at = 1;
  error = reject_error();
  REJECT(splitkv_plan_create(&p, &b, &a, &plan, &error), &error, SPLITKV_ERROR_OUT_OF_MEMORY,
         "plan_bytes", (int64_t)bytes);
  CHECK(plan == untouched && t.n_allocated == 1 && t.n_failed == 1 && t.n_released == 0);
}

/* ── threads ────────────────────────────────────────────────────────────────────────────────── */

static int n_creations_left; /* of threads, before they fail */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument) {
  if (n_creations_left-- <= 0) return 11; /* EAGAIN */
  return __real_pthread_create(thread, attributes, start, argument);
}

void reject_threads(void) {
  splitkv_threads *const untouched = (splitkv_threads *)(void *)&n_creations_left;
  splitkv_threads *threads = untouched;
  const int64_t bad[] = {0, -1, SPLITKV_MAX_WORKERS + 1, INT64_MAX};
  for (size_t i = 0; i < 4; ++i) {
    splitkv_error error = reject_error();
    REJECT(splitkv_threads_create(bad[i], &threads, &error), &error, SPLITKV_ERROR_N_WORKERS,
           "n_threads", bad[i]);
  }
  splitkv_error error = reject_error();
  REJECT(splitkv_threads_create(2, NULL, &error), &error, SPLITKV_ERROR_NULL_POINTER, "threads", 0);
  /* Each thread but the last k can be started; the started ones are joined again. */
  for (int k = 0; k < 4; ++k) {
    n_creations_left = k;
    error = reject_error();
    REJECT(splitkv_threads_create(5, &threads, &error), &error, SPLITKV_ERROR_THREADS, "n_threads",
           5);
  }
  CHECK(threads == untouched);
  n_creations_left = 4;
  CHECK(splitkv_threads_create(5, &threads, NULL) == SPLITKV_OK);
  splitkv_threads_destroy(threads);
}
