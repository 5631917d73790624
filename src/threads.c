/* A pool of POSIX threads that sleep between runs.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * One mutex guards everything except the task counter. A run offers "seats", one for each further
 * thread that could have a task; a thread that wakes takes a seat, works until no task is left and
 * reports back. When the calling thread finds no task left it withdraws the seats nobody took, so
 * it never waits for a thread that has not woken yet, only for bodies that are still running.
 *
 * Waking a thread takes tens of microseconds, so a thread that comes from a job looks around for a
 * moment before it sleeps: the caller for the bodies that still run, the others for the next job
 * (the merge follows the tasks at once). That moment is a small share of the job, and there is none
 * where the process has fewer CPUs than the pool has threads.
 *
 * Under a quota of CPU time no more threads are started than the quota keeps running: where memory
 * is the bound, threads side by side take more CPU time than one after the other, each waiting for
 * its share of the bandwidth. */
#define _POSIX_C_SOURCE 200809L /* pthread_sigmask */

#include <splitkv/threads.h>

#include "error.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

/* Longest time that a thread looks around before it sleeps, and the share of its job that this may
 * be. */
enum { LOOK_NS = 50000, LOOK_SHARE = 16 };
/* Tries before a thread sleeps for the mutex, which is held for well under a microsecond. */
enum { LOCK_TRIES = 100 };
/* Least stack of a thread of this pool: three times what a task takes (splitkv_run), which is more
 * than the 128 KiB that some C libraries give a thread. */
enum { STACK_BYTES = 512 * 1024 };

typedef struct spl_job {
  int64_t n;
  void (*body)(void *body_context, int64_t i);
  void *body_context;
} spl_job;

struct splitkv_threads {
  splitkv_pool pool;
  int64_t n_started;
  bool has_cpus; /* one for each thread */
  pthread_mutex_t mutex;
  pthread_cond_t seats_offered; /* n_seats rose, or is_stopping was set */
  pthread_cond_t all_back;      /* n_working fell to 0 */
  spl_job job;                  /* valid while is_busy */
  _Atomic int64_t n_seats;      /* threads that may still join the job */
  _Atomic int64_t n_working;    /* threads that joined it and are not back */
  int64_t n_looking;            /* threads that will look at n_seats before they sleep */
  bool is_busy;
  bool is_stopping;
  _Atomic int64_t next_task; /* of the job; the one thing that is changed without the mutex */
  pthread_t handles[];       /* [n_started] */
};

/* The mutex and condition calls below fail only on misuse, which would be a defect here. */
static void lock(splitkv_threads *threads) {
  for (int i = 0; i < LOCK_TRIES && threads->has_cpus; i++) {
    if (pthread_mutex_trylock(&threads->mutex) == 0) {
      return;
    }
  }
  int failed = pthread_mutex_lock(&threads->mutex);
  assert(!failed);
  (void)failed;
}

static void unlock(splitkv_threads *threads) {
  int failed = pthread_mutex_unlock(&threads->mutex);
  assert(!failed);
  (void)failed;
}

/* Takes tasks until none is left. The order of memory accesses between threads is the mutex's
 * business, taken before the first task and after the last; the counter only has to be atomic. */
static void do_tasks(_Atomic int64_t *next_task, const spl_job *job) {
  for (;;) {
    int64_t i = atomic_fetch_add_explicit(next_task, 1, memory_order_relaxed);
    if (i >= job->n) {
      return;
    }
    job->body(job->body_context, i);
  }
}

static int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* How long to look around after a job that began at start_ns. */
static int64_t look_ns(const splitkv_threads *threads, int64_t start_ns) {
  if (!threads->has_cpus) {
    return 0;
  }
  int64_t share = (now_ns() - start_ns) / LOOK_SHARE;
  return share < LOOK_NS ? share : LOOK_NS;
}

/* Looks until *count is zero, or is not, for at most limit_ns. Whoever needs this CPU gets it. */
static void look(const _Atomic int64_t *count, bool for_zero, int64_t limit_ns) {
  int64_t end_ns = now_ns() + limit_ns;
  do {
    for (int i = 0; i < 50; i++) {
      if ((atomic_load_explicit(count, memory_order_relaxed) == 0) == for_zero) {
        return;
      }
    }
    sched_yield();
  } while (now_ns() < end_ns);
}

/* With the mutex. Returns when there is a seat or the pool stops. */
static void wait_for_seat(splitkv_threads *threads, int64_t limit_ns) {
  if (limit_ns > 0 && threads->n_seats == 0 && !threads->is_stopping) {
    threads->n_looking++;
    unlock(threads);
    look(&threads->n_seats, false, limit_ns);
    lock(threads);
    threads->n_looking--;
  }
  while (threads->n_seats == 0 && !threads->is_stopping) {
    pthread_cond_wait(&threads->seats_offered, &threads->mutex);
  }
}

static void *thread_main(void *argument) {
  splitkv_threads *threads = argument;
  int64_t limit_ns = 0;
  lock(threads);
  for (;;) {
    wait_for_seat(threads, limit_ns);
    if (threads->is_stopping) {
      break;
    }
    threads->n_seats--;
    threads->n_working++;
    spl_job job = threads->job;
    unlock(threads);
    int64_t start_ns = now_ns();
    do_tasks(&threads->next_task, &job);
    limit_ns = look_ns(threads, start_ns);
    lock(threads);
    threads->n_working--;
    if (threads->n_working == 0) {
      pthread_cond_signal(&threads->all_back);
    }
  }
  unlock(threads);
  return NULL;
}

/* Publishes the job and wakes as many threads as it has seats, less those that are awake. False
 * when a run is under way: a caller who breaks the rule of one run at a time gets the right result
 * from its own thread alone. */
static bool offer_job(splitkv_threads *threads, const spl_job *job) {
  lock(threads);
  if (threads->is_busy) {
    unlock(threads);
    return false;
  }
  threads->is_busy = true;
  threads->job = *job;
  atomic_store_explicit(&threads->next_task, 0, memory_order_relaxed);
  int64_t n_seats = job->n - 1 < threads->n_started ? job->n - 1 : threads->n_started;
  threads->n_seats = n_seats;
  int64_t n_wanted = n_seats - threads->n_looking;
  if (n_wanted == threads->n_started) {
    pthread_cond_broadcast(&threads->seats_offered);
  } else {
    for (int64_t i = 0; i < n_wanted; i++) {
      pthread_cond_signal(&threads->seats_offered);
    }
  }
  unlock(threads);
  return true;
}

static void withdraw_job(splitkv_threads *threads, int64_t limit_ns) {
  lock(threads);
  threads->n_seats = 0;
  if (limit_ns > 0 && threads->n_working > 0) {
    unlock(threads);
    look(&threads->n_working, true, limit_ns);
    lock(threads);
  }
  while (threads->n_working > 0) {
    pthread_cond_wait(&threads->all_back, &threads->mutex);
  }
  threads->is_busy = false;
  unlock(threads);
}

static void parallel_for(void *context, int64_t n, void (*body)(void *body_context, int64_t i),
                         void *body_context) {
  splitkv_threads *threads = context;
  spl_job job = {.n = n, .body = body, .body_context = body_context};
  if (n <= 1 || threads->n_started == 0 || !offer_job(threads, &job)) {
    for (int64_t i = 0; i < n; i++) {
      body(body_context, i);
    }
    return;
  }
  int64_t start_ns = now_ns();
  do_tasks(&threads->next_task, &job);
  withdraw_job(threads, look_ns(threads, start_ns));
}

/* Mutex and conditions; 0, or the error number with none of them left behind. */
static int init_locks(splitkv_threads *threads) {
  int failed = pthread_mutex_init(&threads->mutex, NULL);
  if (failed) {
    return failed;
  }
  failed = pthread_cond_init(&threads->seats_offered, NULL);
  if (!failed) {
    failed = pthread_cond_init(&threads->all_back, NULL);
    if (!failed) {
      return 0;
    }
    pthread_cond_destroy(&threads->seats_offered);
  }
  pthread_mutex_destroy(&threads->mutex);
  return failed;
}

/* Room for the tasks of splitkv_run, whatever a thread has by default; 0, or the error number. */
static int init_attributes(pthread_attr_t *attributes) {
  size_t stack_bytes = 0;
  int failed = pthread_attr_init(attributes);
  if (failed) {
    return failed;
  }
  failed = pthread_attr_getstacksize(attributes, &stack_bytes);
  if (!failed && stack_bytes < STACK_BYTES) {
    failed = pthread_attr_setstacksize(attributes, STACK_BYTES);
  }
  if (failed) {
    pthread_attr_destroy(attributes);
  }
  return failed;
}

/* Starts threads until there are n_wanted; 0 or the error number of the first that failed. They
 * block the signals that are sent to a process, so that those keep going to the caller's own
 * threads; a fault of the thread itself and a profiler's clock still reach it. */
static int start_threads(splitkv_threads *threads, int64_t n_wanted) {
  static const int kept[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGPROF};
  sigset_t blocked;
  sigset_t callers_signals;
  sigfillset(&blocked);
  for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
    sigdelset(&blocked, kept[i]);
  }
  pthread_attr_t attributes;
  int failed = init_attributes(&attributes);
  if (failed) {
    return failed;
  }
  failed = pthread_sigmask(SIG_SETMASK, &blocked, &callers_signals);
  if (!failed) {
    while (!failed && threads->n_started < n_wanted) {
      pthread_t *handle = &threads->handles[threads->n_started];
      failed = pthread_create(handle, &attributes, thread_main, threads);
      threads->n_started += !failed;
    }
    pthread_sigmask(SIG_SETMASK, &callers_signals, NULL);
  }
  pthread_attr_destroy(&attributes);
  return failed;
}

splitkv_status splitkv_threads_create(int64_t n_threads, splitkv_threads **threads,
                                      splitkv_error *error) {
  if (threads == NULL) {
    return spl_fail_null(error, "threads");
  }
  if (n_threads < 1 || n_threads > SPLITKV_MAX_WORKERS) {
    return spl_fail(error, SPLITKV_ERROR_N_WORKERS, "n_threads", n_threads,
                    "n_threads is %lld, must be 1 to %d", (long long)n_threads,
                    SPLITKV_MAX_WORKERS);
  }
  const double quota = ceil(splitkv_threads_quota());
  const int64_t n_running = (double)n_threads <= quota ? n_threads : (int64_t)quota;
  const int64_t n_wanted = n_running - 1; /* the caller of run is the last one */
  splitkv_threads *made = malloc(sizeof *made + (size_t)n_wanted * sizeof made->handles[0]);
  if (made == NULL) {
    return spl_fail(error, SPLITKV_ERROR_OUT_OF_MEMORY, "n_threads", n_threads,
                    "no memory for a pool of %lld threads", (long long)n_threads);
  }
  *made = (splitkv_threads){
      .pool = {.struct_size = sizeof made->pool, .parallel_for = parallel_for, .context = made},
      .has_cpus = n_threads == n_running && n_threads <= splitkv_threads_cpus(),
  };
  int failed = init_locks(made);
  if (failed) {
    free(made);
  } else {
    failed = start_threads(made, n_wanted);
    if (!failed) {
      *threads = made;
      return SPLITKV_OK;
    }
    splitkv_threads_destroy(made);
  }
  return spl_fail(error, SPLITKV_ERROR_THREADS, "n_threads", n_threads,
                  "a pool of %lld threads could not be started (error number %d)",
                  (long long)n_threads, failed);
}

const splitkv_pool *splitkv_threads_pool(const splitkv_threads *threads) {
  return threads == NULL ? NULL : &threads->pool;
}

void splitkv_threads_destroy(splitkv_threads *threads) {
  if (threads == NULL) {
    return;
  }
  lock(threads);
  assert(!threads->is_busy);
  threads->is_stopping = true;
  pthread_cond_broadcast(&threads->seats_offered);
  unlock(threads);
  for (int64_t i = 0; i < threads->n_started; i++) {
    pthread_join(threads->handles[i], NULL);
  }
  pthread_cond_destroy(&threads->all_back);
  pthread_cond_destroy(&threads->seats_offered);
  pthread_mutex_destroy(&threads->mutex);
  free(threads);
}
