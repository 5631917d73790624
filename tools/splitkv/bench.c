/* SPDX-License-Identifier: Apache-2.0 */
#include "bench.h"

#include "data.h"
#include "machine.h"
#include "roof.h"
#include "tool.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  MIN_ROUNDS = 7,
  MAX_ROUNDS = 400,
  MAX_ATTEMPTS = 3,
  PREFETCH_BYTES = 4096, /* how far ahead the reader with prefetch asks */
  COPY_BYTES = 4 << 20,
  MAX_SETTLE_STEPS = 60 /* of MULTIPLY_SECONDS */
};
#define MULTIPLY_SECONDS 0.001 /* of one peak measurement */
#define WAKE_SECONDS 0.008     /* of runs before the one that counts, beside peers */
#define MAX_SPREAD 0.25
#define MIN_CPU_SHARE 0.9

/* ── copies of the cache ─────────────────────────────────────────────────────────────────────── */

typedef struct kv_copy {
  void *parts[N_KV_PARTS];
} kv_copy;

typedef struct kv_copies {
  kv_copy *copies; /* [n]; entry 0 is the case's own */
  int64_t n, next;
  size_t read_bytes[N_KV_PARTS]; /* what a run reads of each part */
} kv_copies;
static_assert((int)N_KV_PARTS == (int)ROOF_PIECES, "the roof reads all parts of a cache");

static void free_copies(kv_copies *copies) {
  for (int64_t i = 1; i < copies->n; i++) {
    for (int part = 0; part < N_KV_PARTS; part++) {
      free(copies->copies[i].parts[part]);
    }
  }
  free(copies->copies);
  *copies = (kv_copies){0};
}

static int64_t copies_wanted(const tool_case *c, int is_warm) {
  size_t size = 0;
  for (int part = 0; part < N_KV_PARTS; part++) {
    size += c->kv[part].size_bytes;
  }
  size_t total = machine_cold_bytes();
  if (is_warm || size == 0 || size >= total) {
    return 1;
  }
  return (int64_t)((total + size - 1) / size);
}

typedef struct copy_job {
  const unsigned char *source;
  unsigned char *copy;
} copy_job;

static void copy_stretch(void *context, int64_t first, int64_t end) {
  const copy_job *job = context;
  memcpy(job->copy + first, job->source + first, (size_t)(end - first));
}

/* All threads copy, so that the pages of a machine with several memories lie as the first ones do.
 * NULL when memory is short. */
static void *copy_of(const zoned *source, const splitkv_pool *pool) {
  copy_job job = {source->data, machine_allocate(source->size_bytes + 1)};
  if (job.copy) {
    data_parallel(pool, (int64_t)source->size_bytes, COPY_BYTES, copy_stretch, &job);
  }
  return job.copy;
}

/* Returns 0, or -1 when memory is short. */
static int make_copies(kv_copies *copies, const tool_case *c, const splitkv_pool *pool,
                       int is_warm) {
  int64_t n = copies_wanted(c, is_warm);
  *copies = (kv_copies){.copies = calloc((size_t)n, sizeof *copies->copies)};
  if (!copies->copies) {
    return -1;
  }
  for (int part = 0; part < N_KV_PARTS; part++) {
    copies->read_bytes[part] = case_read_bytes(c, (kv_part)part);
    copies->copies[0].parts[part] = c->kv[part].data;
  }
  for (copies->n = 1; copies->n < n; copies->n++) {
    for (int part = 0; part < N_KV_PARTS; part++) {
      void **copy = &copies->copies[copies->n].parts[part];
      *copy = copy_of(&c->kv[part], pool);
      if (!*copy) {
        copies->n++;
        return -1;
      }
    }
  }
  return 0;
}

static const kv_copy *next_copy(kv_copies *copies) {
  int64_t i = copies->next;
  copies->next = (i + 1) % copies->n;
  return &copies->copies[i];
}

static roof_memory next_memory(kv_copies *copies) {
  roof_memory memory;
  const kv_copy *copy = next_copy(copies);
  for (int part = 0; part < N_KV_PARTS; part++) {
    memory.data[part] = copy->parts[part];
    memory.size_bytes[part] = copies->read_bytes[part];
  }
  return memory;
}

/* ── samples ────────────────────────────────────────────────────────────────────────────────── */

typedef struct samples {
  double value[MAX_ROUNDS];
  int64_t n;
} samples;

static int compare_doubles(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void sort_samples(samples *s) {
  qsort(s->value, (size_t)s->n, sizeof s->value[0], compare_doubles);
}

/* Of sorted samples. */
static double percentile(const samples *s, double share) {
  double place = share * (double)(s->n - 1);
  int64_t below = (int64_t)place;
  int64_t above = below + 1 < s->n ? below + 1 : below;
  double part = place - (double)below;
  return s->value[below] * (1 - part) + s->value[above] * part;
}

static double median(samples *s) {
  sort_samples(s);
  return percentile(s, 0.5);
}

/* ── rounds ─────────────────────────────────────────────────────────────────────────────────── */

/* What the runs of one peer took. */
typedef struct peer_samples {
  peer *p;
  samples run;
  double cpu_seconds;
} peer_samples;

typedef struct measurement {
  tool_case *c;
  roof_machine machine;
  kv_copies copies;
  int64_t multiply_adds;   /* per thread and sample */
  unsigned char *expected; /* outputs of the first run: out, then lse */
  int has_expected;
  samples read_plain, read_ahead, multiply, run;
  double cpu_seconds, wall_seconds; /* of the runs together */
  peer_samples *peers;              /* [n_peers] */
  size_t n_peers;
  char failure[160];
} measurement;

/* Every run of a plan gives the same bits, whatever copy it read. */
static void compare_outputs(measurement *m) {
  const zoned *out = &m->c->out, *lse = &m->c->lse;
  unsigned char *expected_lse = m->expected + out->size_bytes;
  if (!m->has_expected) {
    memcpy(m->expected, out->data, out->size_bytes);
    memcpy(expected_lse, lse->data, lse->size_bytes);
    m->has_expected = 1;
  } else if (memcmp(m->expected, out->data, out->size_bytes) != 0 ||
             memcmp(expected_lse, lse->data, lse->size_bytes) != 0) {
    snprintf(m->failure, sizeof m->failure, "two runs of one plan gave different bits");
  }
}

/* Returns 0, or -1 when the run failed. */
static int time_run(measurement *m, int is_counted) {
  tool_case *c = m->c;
  case_use_kv(c, next_copy(&m->copies)->parts);
  memset(c->out.data, 0xff, c->out.size_bytes);
  memset(c->lse.data, 0xff, c->lse.size_bytes);
  splitkv_error error = {0};
  double cpu_start = machine_cpu_seconds();
  double start = machine_seconds();
  splitkv_status status = case_run(c, m->machine.pool, &error);
  double seconds = machine_seconds() - start;
  if (is_counted) {
    m->cpu_seconds += machine_cpu_seconds() - cpu_start;
    m->wall_seconds += seconds;
    m->run.value[m->run.n++] = seconds;
  }
  if (status != SPLITKV_OK) {
    snprintf(m->failure, sizeof m->failure, "the run got %s: %.100s", splitkv_status_name(status),
             error.message);
    return -1;
  }
  compare_outputs(m);
  return 0;
}

/* The last of several runs counts. Those before it wake the peer's threads, as the work before
 * attention does in a program that uses it, and give the system time to find a CPU for each. Each
 * run reads another copy, so the last one finds no KV in a cache. */
static void time_peer(peer_samples *s) {
  peer_time time = {0};
  double start = machine_seconds();
  while (s->p->state == PEER_READY && peer_run(s->p, &time) == 0) {
    if (machine_seconds() - start > WAKE_SECONDS) {
      break;
    }
  }
  if (peer_run(s->p, &time) == 0) {
    s->run.value[s->run.n++] = time.seconds;
    s->cpu_seconds += time.cpu_seconds;
  }
  peer_calm(s->p);
}

/* Lets our threads work until each has a CPU of its own: after the peers' threads were on all of
 * them, Linux wakes ours on one for a while. */
static void settle(const measurement *m) {
  int64_t n_cpus = machine_n_cpus();
  int64_t active = m->machine.n_threads < n_cpus ? m->machine.n_threads : n_cpus;
  for (int i = 0; i < MAX_SETTLE_STEPS && active > 1; i++) {
    double cpu_start = machine_cpu_seconds(), start = machine_seconds();
    roof_multiply_adds(&m->machine, m->multiply_adds);
    double wall = machine_seconds() - start;
    if (machine_cpu_seconds() - cpu_start > MIN_CPU_SHARE * (double)active * wall) {
      return;
    }
  }
}

/* What time_peer does for the peers. */
static int wake(measurement *m) {
  double start = machine_seconds();
  int failed = 0;
  while (!failed && machine_seconds() - start <= WAKE_SECONDS) {
    failed = time_run(m, 0);
  }
  return failed;
}

static int measure_round(measurement *m) {
  if (m->n_peers > 0) {
    settle(m);
  }
  roof_memory memory = next_memory(&m->copies);
  m->read_plain.value[m->read_plain.n++] = roof_read(&m->machine, &memory, 0);
  memory = next_memory(&m->copies);
  m->read_ahead.value[m->read_ahead.n++] = roof_read(&m->machine, &memory, PREFETCH_BYTES);
  m->multiply.value[m->multiply.n++] = roof_multiply_adds(&m->machine, m->multiply_adds);
  int failed = m->n_peers > 0 ? wake(m) : 0;
  failed = failed || time_run(m, 1);
  for (size_t i = 0; i < m->n_peers && !failed; i++) {
    time_peer(&m->peers[i]);
  }
  return failed ? -1 : 0;
}

static int measure_rounds(measurement *m, double seconds) {
  m->read_plain.n = m->read_ahead.n = m->multiply.n = m->run.n = 0;
  m->cpu_seconds = m->wall_seconds = 0;
  int n_measured = 1;
  for (size_t i = 0; i < m->n_peers; i++) {
    n_measured += m->peers[i].p->state == PEER_READY;
    m->peers[i].run.n = 0;
    m->peers[i].cpu_seconds = 0;
  }
  seconds *= n_measured;
  double start = machine_seconds();
  while (m->run.n < MAX_ROUNDS) {
    if (measure_round(m)) {
      return -1;
    }
    if (m->run.n >= MIN_ROUNDS && machine_seconds() - start > seconds) {
      break;
    }
  }
  return 0;
}

/* So many that one sample takes about MULTIPLY_SECONDS; also wakes all threads. */
static int64_t calibrate_multiply_adds(const roof_machine *machine) {
  double rate = 0;
  for (int i = 0; i < 3; i++) {
    double now = roof_multiply_adds(machine, 1 << 20);
    rate = now > rate ? now : rate;
  }
  double n = rate / (double)machine->n_threads * MULTIPLY_SECONDS;
  return n < 1 << 16 ? 1 << 16 : (int64_t)n;
}

/* ── results ────────────────────────────────────────────────────────────────────────────────── */

static void note_spread(double spread, int *is_noisy, char *noise, size_t capacity) {
  *is_noisy = spread > MAX_SPREAD;
  if (*is_noisy) {
    snprintf(noise, capacity, "the times spread over %.0f%% of their median", 100 * spread);
  }
}

static void judge_noise(const measurement *m, bench_result *result) {
  int64_t n_cpus = machine_n_cpus();
  int64_t active = m->machine.n_threads < n_cpus ? m->machine.n_threads : n_cpus;
  active = m->c->info.n_tasks < active ? m->c->info.n_tasks : active;
  double cpu_share = m->cpu_seconds / ((double)active * m->wall_seconds);
  note_spread(result->spread, &result->is_noisy, result->noise, sizeof result->noise);
  if (active > 0 && cpu_share < MIN_CPU_SHARE) {
    result->is_noisy = 1;
    snprintf(result->noise, sizeof result->noise, "the threads ran %.0f%% of the time",
             100 * cpu_share);
  }
}

static void summarize_peer(peer_samples *s, bench_peer_result *result) {
  if (s->p->state != PEER_READY) {
    return;
  }
  result->time = median(&s->run);
  result->time_min = s->run.value[0];
  result->time_max = s->run.value[s->run.n - 1];
  result->spread = (percentile(&s->run, 0.9) - percentile(&s->run, 0.1)) / result->time;
  result->cpu_time = s->cpu_seconds / (double)s->run.n;
  note_spread(result->spread, &result->is_noisy, result->noise, sizeof result->noise);
}

static void summarize(measurement *m, bench_result *result) {
  samples *run = &m->run;
  result->n_rounds = run->n;
  result->n_copies = m->copies.n;
  result->cpu_time = m->cpu_seconds / (double)run->n;
  result->time = median(run);
  result->time_min = run->value[0];
  result->time_max = run->value[run->n - 1];
  result->spread =
      result->time > 0 ? (percentile(run, 0.9) - percentile(run, 0.1)) / result->time : 0;
  double plain = median(&m->read_plain), ahead = median(&m->read_ahead);
  double read_bytes = case_kv_bytes(m->c);
  result->memory_roof = read_bytes > 0 ? (plain < ahead ? plain : ahead) : 0;
  result->read_rate = result->memory_roof > 0 ? read_bytes / result->memory_roof : 0;
  result->multiply_rate = median(&m->multiply);
  result->compute_roof =
      result->multiply_rate > 0 ? case_multiply_adds(m->c) / result->multiply_rate : 0;
  judge_noise(m, result);
  for (size_t i = 0; i < m->n_peers; i++) {
    summarize_peer(&m->peers[i], &result->peers[i]);
  }
}

static int count_noisy(const bench_result *r) {
  int n = r->is_noisy;
  for (int i = 0; i < BENCH_MAX_PEERS; i++) {
    n += r->peers[i].is_noisy;
  }
  return n;
}

/* The attempt to keep, whole, so that its ratios are of one time: the one with the least noise, of
 * ours first, then the one with the least spread. */
static int is_better(const bench_result *a, const bench_result *b) {
  return a->is_noisy != b->is_noisy         ? !a->is_noisy
         : count_noisy(a) != count_noisy(b) ? count_noisy(a) < count_noisy(b)
                                            : a->spread < b->spread;
}

static int measure_attempts(measurement *m, double seconds, bench_result *result) {
  int has_result = 0;
  /* The first run touches memory for the first time; it is not counted. */
  int failed = time_run(m, 0);
  for (size_t i = 0; i < m->n_peers && !failed; i++) {
    time_peer(&m->peers[i]);
  }
  for (int i = 0; i < MAX_ATTEMPTS && !failed; i++) {
    bench_result attempt = {0};
    failed = measure_rounds(m, seconds);
    if (failed) {
      break;
    }
    summarize(m, &attempt);
    if (!has_result || is_better(&attempt, result)) {
      *result = attempt;
      has_result = 1;
    }
    if (count_noisy(result) == 0) {
      break;
    }
  }
  memcpy(result->failure, m->failure, sizeof result->failure);
  return failed;
}

int bench_measure(tool_case *c, const char *name, const splitkv_pool *pool,
                  const bench_settings *settings, peer *peers, size_t n_peers,
                  bench_result *result) {
  *result = (bench_result){0};
  measurement *m = calloc(1, sizeof *m);
  peer_samples *of_peers = calloc(n_peers + 1, sizeof *of_peers);
  unsigned char *expected = malloc(c->out.size_bytes + c->lse.size_bytes + 1);
  int status = TOOL_OK;
  if (!m || !of_peers || !expected || make_copies(&m->copies, c, pool, settings->is_warm)) {
    status = tool_unsupported("%s: out of memory for copies of the KV cache", name);
  } else {
    m->c = c;
    m->expected = expected;
    m->peers = of_peers;
    m->n_peers = n_peers;
    for (size_t i = 0; i < n_peers; i++) {
      of_peers[i].p = &peers[i];
    }
    m->machine = (roof_machine){
        .pool = pool, .n_threads = c->spec->threads, .isa = roof_isa(c->info.kernel_set)};
    m->multiply_adds = calibrate_multiply_adds(&m->machine);
    measure_attempts(m, settings->seconds, result);
    case_use_own_kv(c);
  }
  if (m) {
    free_copies(&m->copies);
  }
  free(expected);
  free(of_peers);
  free(m);
  return status;
}
