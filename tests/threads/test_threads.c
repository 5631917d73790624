/* The ready-made pool: every task once, side by side, by sleeping threads that leave signals alone;
 * the refusals, and what a failed creation leaves behind.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* pthread_barrier, setrlimit, nanosleep */

#include <splitkv/threads.h>

#include "../../src/cpus.h"
#include "check.h"

#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED 0
#endif

enum { MAX_TASKS = 64 };

static splitkv_threads *make_pool(int64_t n_threads) {
  splitkv_threads *threads = NULL;
  splitkv_error error = {0};
  splitkv_status status = splitkv_threads_create(n_threads, &threads, &error);
  if (!CHECK_MSG(status == SPLITKV_OK, "%s", error.message)) {
    exit(check_report("test_threads"));
  }
  return threads;
}

static void run(const splitkv_threads *threads, int64_t n, void (*body)(void *, int64_t),
                void *body_context) {
  const splitkv_pool *pool = splitkv_threads_pool(threads);
  pool->parallel_for(pool->context, n, body, body_context);
}

static int64_t seconds_to_ns(struct timespec time) {
  return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* ── every task once ── */

typedef struct task_log {
  int calls[MAX_TASKS + 1];
  pthread_t ran_on[MAX_TASKS];
} task_log;

static void log_task(void *body_context, int64_t i) {
  task_log *log = body_context;
  log->calls[i >= 0 && i < MAX_TASKS ? i : MAX_TASKS]++;
  if (i >= 0 && i < MAX_TASKS) {
    log->ran_on[i] = pthread_self();
  }
}

static int64_t count_distinct(const pthread_t *threads, int64_t n) {
  int64_t n_distinct = 0;
  for (int64_t i = 0; i < n; i++) {
    int64_t j = 0;
    while (j < i && !pthread_equal(threads[i], threads[j])) {
      j++;
    }
    n_distinct += j == i;
  }
  return n_distinct;
}

static void test_every_task_once(void) {
  for (int64_t n_threads = 1; n_threads <= 9; n_threads++) {
    splitkv_threads *threads = make_pool(n_threads);
    const splitkv_pool *pool = splitkv_threads_pool(threads);
    CHECK(pool != NULL && pool->struct_size == sizeof *pool);
    CHECK(splitkv_threads_pool(threads) == pool);
    for (int64_t repeat = 0; repeat < 20; repeat++) {
      for (int64_t n = 0; n <= MAX_TASKS; n += n < 12 ? 1 : 13) {
        task_log log = {{0}, {0}};
        run(threads, n, log_task, &log);
        for (int64_t i = 0; i <= MAX_TASKS; i++) {
          CHECK_MSG(log.calls[i] == (i < n), "task %d of %d on %d threads: %d calls", (int)i,
                    (int)n, (int)n_threads, log.calls[i]);
        }
        CHECK(count_distinct(log.ran_on, n) <= (n < n_threads ? n : n_threads));
      }
    }
    splitkv_threads_destroy(threads);
  }
}

/* ── side by side ── */

static void meet(void *body_context, int64_t i) {
  (void)i;
  pthread_barrier_wait(body_context);
}

/* n tasks that wait for each other end only if n threads run at once: as many as the pool has, or
 * as the quota of this process allows. */
static void test_side_by_side(void) {
  double quota = splitkv_threads_quota();
  for (unsigned n = 1; n <= 5 && n <= quota; n++) {
    splitkv_threads *threads = make_pool(5);
    pthread_barrier_t barrier;
    CHECK(pthread_barrier_init(&barrier, NULL, n) == 0);
    for (int repeat = 0; repeat < 200; repeat++) {
      run(threads, n, meet, &barrier);
    }
    pthread_barrier_destroy(&barrier);
    splitkv_threads_destroy(threads);
  }
}

/* ── idle threads sleep ── */

static void test_idle_threads_sleep(void) {
  splitkv_threads *threads = make_pool(4);
  task_log log = {{0}, {0}};
  run(threads, 4, log_task, &log);
  struct timespec before;
  struct timespec after;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
  nanosleep(&(struct timespec){.tv_nsec = 300 * 1000 * 1000}, NULL);
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
  int64_t used_ns = seconds_to_ns(after) - seconds_to_ns(before);
  CHECK_MSG(used_ns < 60 * 1000 * 1000, "an idle pool used %d us of 300000", (int)(used_ns / 1000));
  splitkv_threads_destroy(threads);
}

/* ── calls that break the rule of one run at a time still get every task once ── */

typedef struct nest {
  const splitkv_threads *threads;
  task_log logs[3];
} nest;

static void run_inner(void *body_context, int64_t i) {
  nest *outer = body_context;
  run(outer->threads, MAX_TASKS, log_task, &outer->logs[i]);
}

static void test_nested(void) {
  splitkv_threads *threads = make_pool(3);
  for (int repeat = 0; repeat < 50; repeat++) {
    nest outer = {.threads = threads};
    run(threads, 3, run_inner, &outer);
    for (int64_t i = 0; i < 3; i++) {
      for (int64_t j = 0; j < MAX_TASKS; j++) {
        CHECK(outer.logs[i].calls[j] == 1);
      }
    }
  }
  splitkv_threads_destroy(threads);
}

/* ── signals ── */

typedef struct mask_log {
  pthread_barrier_t barrier;
  sigset_t masks[3];
  bool is_caller[3];
  pthread_t caller;
} mask_log;

static void log_mask(void *body_context, int64_t i) {
  mask_log *log = body_context;
  pthread_barrier_wait(&log->barrier);
  pthread_sigmask(SIG_SETMASK, NULL, &log->masks[i]);
  log->is_caller[i] = pthread_equal(pthread_self(), log->caller) != 0;
}

static void test_signals(void) {
  if (splitkv_threads_quota() < 3) {
    return;
  }
  sigset_t before;
  pthread_sigmask(SIG_SETMASK, NULL, &before);
  splitkv_threads *threads = make_pool(3);
  mask_log log = {.caller = pthread_self()};
  pthread_barrier_init(&log.barrier, NULL, 3);
  run(threads, 3, log_mask, &log);
  int n_callers = 0;
  for (int64_t i = 0; i < 3; i++) {
    n_callers += log.is_caller[i];
    bool blocks = !log.is_caller[i];
    CHECK(sigismember(&log.masks[i], SIGTERM) == blocks);
    CHECK(sigismember(&log.masks[i], SIGUSR1) == blocks);
    CHECK(sigismember(&log.masks[i], SIGSEGV) == 0);
    CHECK(sigismember(&log.masks[i], SIGPROF) == 0);
  }
  CHECK(n_callers == 1);
  CHECK(sigismember(&before, SIGTERM) == 0);
  pthread_barrier_destroy(&log.barrier);
  splitkv_threads_destroy(threads);
}

/* ── jobs one after another ── */

/* Short jobs and long ones, at once after each other and after a pause, so that threads are met
 * looking around, falling asleep and asleep. */
static void add_task(void *body_context, int64_t i) {
  _Atomic int64_t *sum = body_context;
  int64_t spin = i % 3 * 400;
  for (volatile int64_t k = 0; k < spin; k++) {
  }
  atomic_fetch_add(sum, i + 1);
}

static void test_in_a_row(void) {
  for (int64_t n_threads = 2; n_threads <= 4; n_threads++) {
    splitkv_threads *threads = make_pool(n_threads);
    for (int repeat = 0; repeat < 3000; repeat++) {
      int64_t n = repeat % 7 + 1;
      _Atomic int64_t sum = 0;
      run(threads, n, add_task, &sum);
      CHECK_MSG(sum == n * (n + 1) / 2, "%d tasks on %d threads", (int)n, (int)n_threads);
      if (repeat % 50 == 0) {
        nanosleep(&(struct timespec){.tv_nsec = repeat % 200 * 1000}, NULL);
      }
    }
    splitkv_threads_destroy(threads);
  }
}

/* Bodies that take long and no CPU time; the one that a caller usually gets ends first. */
static void sleep_long(void *body_context, int64_t i) {
  (void)body_context;
  nanosleep(&(struct timespec){.tv_nsec = (i == 0 ? 40 : 50) * 1000 * 1000}, NULL);
}

/* Whoever comes from a long job looks around for at most 50 us: the caller until the others are
 * back, they for the next job. A sixteenth of the job, their other limit, would be 2 ms and more
 * each. The least CPU time of some runs leaves out what disturbed the others. */
static void test_looks_briefly(void) {
  splitkv_threads *threads = make_pool(2);
  int64_t least_ns = INT64_MAX;
  for (int repeat = 0; repeat < 4; repeat++) {
    struct timespec before;
    struct timespec after;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    run(threads, 2, sleep_long, NULL);
    nanosleep(&(struct timespec){.tv_nsec = 5 * 1000 * 1000}, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    int64_t used_ns = seconds_to_ns(after) - seconds_to_ns(before);
    least_ns = used_ns < least_ns ? used_ns : least_ns;
  }
  CHECK_MSG(least_ns < 1000 * 1000, "a job that sleeps used %d us", (int)(least_ns / 1000));
  splitkv_threads_destroy(threads);
}

/* ── quotas ── */

static char folder[] = "/tmp/splitkv-quota-XXXXXX";

static void write_file(const char *name, const char *text) {
  char path[128];
  (void)snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "w");
  if (CHECK_MSG(file != NULL, "%s", path)) {
    fputs(text, file);
    fclose(file);
  }
}

static double quota_of(const char *list_text) {
  char list[128];
  write_file("list", list_text);
  (void)snprintf(list, sizeof list, "%s/list", folder);
  return spl_quota_at(list, folder);
}

static void make_folder(const char *name) {
  char path[128];
  (void)snprintf(path, sizeof path, "%s/%s", folder, name);
  CHECK(mkdir(path, 0700) == 0);
}

static void test_quota(void) {
  if (!CHECK(mkdtemp(folder) != NULL)) {
    return;
  }
  make_folder("a");
  make_folder("a/b");
  make_folder("cpu");
  make_folder("cpu/c");
  write_file("a/cpu.max", "250000 100000\n");
  write_file("a/b/cpu.max", "max 100000\n");
  write_file("cpu/c/cpu.cfs_quota_us", "100000\n");
  write_file("cpu/c/cpu.cfs_period_us", "100000\n");
  write_file("cpu/cpu.cfs_quota_us", "-1\n");
  write_file("cpu/cpu.cfs_period_us", "100000\n");
  static const struct {
    const char *list;
    double cpus;
  } cases[] = {
      {"", INFINITY},
      {"nonsense\n", INFINITY},
      {"0::/\n", INFINITY},
      {"0::/a\n", 2.5},
      {"0::/a/b\n", 2.5}, /* the group above has the limit */
      {"0::/of/another/view\n", INFINITY},
      {"4:memory:/a\n1:cpu:/c\n0::/\n", 1},
      {"2:cpuset:/c\n1:cpu,cpuacct:/c\n", 1},
      {"2:cpuset:/c\n", INFINITY},
      {"1:cpu:/\n", INFINITY},
      {"1:cpu:/c", 1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    double cpus = quota_of(cases[i].list);
    CHECK_MSG(cpus == cases[i].cpus, "\"%s\" gave %g", cases[i].list, cpus);
  }
  CHECK(spl_quota_at("/nowhere", folder) == INFINITY);
  CHECK(splitkv_threads_quota() > 0 && splitkv_threads_cpus() >= 1);
  static const char *const names[] = {"list",
                                      "a/b/cpu.max",
                                      "a/cpu.max",
                                      "cpu/c/cpu.cfs_quota_us",
                                      "cpu/c/cpu.cfs_period_us",
                                      "cpu/cpu.cfs_quota_us",
                                      "cpu/cpu.cfs_period_us",
                                      "a/b",
                                      "a",
                                      "cpu/c",
                                      "cpu"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    CHECK(remove(path) == 0);
  }
  CHECK(remove(folder) == 0);
}

/* ── refusals ── */

static void test_refusals(void) {
  static const int64_t refused[] = {0, -1, INT64_MIN, SPLITKV_MAX_WORKERS + 1, INT64_MAX};
  char mark;
  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
    splitkv_threads *threads = (splitkv_threads *)(void *)&mark;
    splitkv_error error = {0};
    CHECK(splitkv_threads_create(refused[i], &threads, &error) == SPLITKV_ERROR_N_WORKERS);
    CHECK(threads == (splitkv_threads *)(void *)&mark);
    CHECK(error.status == SPLITKV_ERROR_N_WORKERS && error.value == refused[i]);
    CHECK(strcmp(error.field, "n_threads") == 0 && strstr(error.message, "n_threads") != NULL);
    CHECK(splitkv_threads_create(refused[i], &threads, NULL) == SPLITKV_ERROR_N_WORKERS);
  }
  CHECK(splitkv_threads_create(1, NULL, NULL) == SPLITKV_ERROR_NULL_POINTER);
  CHECK(splitkv_threads_pool(NULL) == NULL);
  splitkv_threads_destroy(NULL);
}

/* ── a thread that cannot be started ── */

static int count_threads(void) {
  DIR *directory = opendir("/proc/self/task");
  if (directory == NULL) {
    return -1;
  }
  int n = 0;
  for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
    n += entry->d_name[0] != '.';
  }
  closedir(directory);
  return n;
}

/* Address space for a few stacks only: creation fails half way, joins what it had started and
 * leaves *threads alone. The sanitizers need more address space than any limit leaves them. */
static void test_failing_start(void) {
  if (IS_SANITIZED) {
    return;
  }
  struct rlimit before;
  CHECK(getrlimit(RLIMIT_AS, &before) == 0);
  struct rlimit tight = {.rlim_cur = 200u << 20, .rlim_max = before.rlim_max};
  int n_before = count_threads();
  CHECK(setrlimit(RLIMIT_AS, &tight) == 0);
  splitkv_threads *threads = NULL;
  splitkv_error error = {0};
  splitkv_status status = splitkv_threads_create(1000, &threads, &error);
  setrlimit(RLIMIT_AS, &before);
  CHECK_MSG(status == SPLITKV_ERROR_THREADS, "%s", splitkv_status_name(status));
  CHECK(error.status == status && error.value == 1000);
  CHECK(threads == NULL);
  CHECK_MSG(count_threads() == n_before, "%d threads, were %d", count_threads(), n_before);
  if (status == SPLITKV_OK) {
    splitkv_threads_destroy(threads);
  }
}

/* ── stacks ── */

#if defined(__GLIBC__)
typedef struct stack_sizes {
  pthread_barrier_t both;
  size_t bytes[2];
} stack_sizes;

static void note_stack(void *context, int64_t i) {
  stack_sizes *sizes = context; /* bytes stay 0 where a call fails */
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
    pthread_attr_getstacksize(&attributes, &sizes->bytes[i]);
    pthread_attr_destroy(&attributes);
  }
  pthread_barrier_wait(&sizes->both);
}

/* Where threads have 128 KiB by default, as with musl, one of the pool has what a task takes. */
static void test_stacks(void) {
  if (splitkv_threads_quota() < 2) return;
  pthread_attr_t before, small;
  CHECK(pthread_getattr_default_np(&before) == 0);
  CHECK(pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, 128 * 1024) == 0);
  CHECK(pthread_setattr_default_np(&small) == 0);
  splitkv_threads *threads = make_pool(2);
  CHECK(pthread_setattr_default_np(&before) == 0);
  stack_sizes sizes = {.bytes = {0, 0}};
  CHECK(pthread_barrier_init(&sizes.both, NULL, 2) == 0);
  run(threads, 2, note_stack, &sizes);
  for (int i = 0; i < 2; i++)
    CHECK_MSG(sizes.bytes[i] >= 512 * 1024, "%zu bytes", sizes.bytes[i]);
  pthread_barrier_destroy(&sizes.both);
  pthread_attr_destroy(&small);
  pthread_attr_destroy(&before);
  splitkv_threads_destroy(threads);
}
#else
static void test_stacks(void) {}
#endif

int main(void) {
  test_failing_start();
  test_refusals();
  test_every_task_once();
  test_side_by_side();
  test_idle_threads_sleep();
  test_looks_briefly();
  test_in_a_row();
  test_quota();
  test_nested();
  test_signals();
  test_stacks();
  return check_report("test_threads");
}
