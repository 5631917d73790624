/* What a call costs beside the reading and multiplying: planning, planning again, and run on the
 * calling thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 *   plan     splitkv_plan_init into storage that is there. Lengths change with every call, through
 *            SETS arrays, so that no branch is learned by heart.
 *   re-plan  the same into the storage of the plan before, each request one token longer.
 *   before   run from its call to the start of its first task, which the program's own pool
 *            observes: all that run does before any kernel. It contains one reading of the clock.
 *   task     run with one worker over one token, kernels included: with one head this bounds what
 *            run adds to its kernels from above, checks, walk and all. Beside it, what a tile of 64
 *            tokens in cache costs, first and later.
 *   empty    run where no request attends to anything: checks and zeros, per request.
 *
 * Medians of SAMPLES samples, each of as many calls as take SAMPLE_NS. Status 1: a limit is passed.
 */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */

#include <splitkv/splitkv.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SAMPLES = 41, SAMPLE_NS = 150000, SETS = 32, MAX_REQUESTS = 4096 };

/* The limits: planning in ns, fixed and per request; run in ns. */
static const double plan_fixed = 2000, plan_per_request = 20, run_fixed = 2000;

static int n_over;

static double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int compare_doubles(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, int n) {
  qsort(values, (size_t)n, sizeof *values, compare_doubles);
  return values[n / 2];
}

static void *get_memory(size_t size_bytes) {
  const size_t unit = SPLITKV_ALIGNMENT;
  void *memory = aligned_alloc(unit, (size_bytes + unit) / unit * unit);
  if (memory == NULL) {
    fputs("overhead: out of memory\n", stderr);
    exit(2);
  }
  memset(memory, 0, size_bytes);
  return memory;
}

static void must(splitkv_status status, const splitkv_error *error) {
  if (status == SPLITKV_OK) return;
  fprintf(stderr, "overhead: %s: %s\n", splitkv_status_name(status), error->message);
  exit(2);
}

/* ns per call of body(context, i), i counting the calls. */
static double time_calls(void (*body)(void *context, int64_t i), void *context) {
  double samples[SAMPLES];
  int64_t n_calls = 1, i = 0;
  for (double took = 0; took < SAMPLE_NS; n_calls *= 2) {
    const double start = now_ns();
    for (int64_t k = 0; k < n_calls; k++)
      body(context, i++);
    took = now_ns() - start;
  }
  n_calls /= 2;
  for (int s = 0; s < SAMPLES; s++) {
    const double start = now_ns();
    for (int64_t k = 0; k < n_calls; k++)
      body(context, i++);
    samples[s] = (now_ns() - start) / (double)n_calls;
  }
  return median(samples, SAMPLES);
}

static const char *verdict(double ns, double limit) {
  if (ns <= limit) return "";
  n_over++;
  return "  over the limit";
}

/* ── planning ───────────────────────────────────────────────────────────────────────────────── */

typedef struct planning {
  splitkv_problem problem;
  splitkv_batch batch;
  const int32_t *kv_lens[SETS][2]; /* [..][1]: one token more */
  void *storage;
  size_t storage_bytes;
  splitkv_plan *plan;
} planning;

static uint64_t next_random(uint64_t *state) {
  *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return *state >> 33;
}

static splitkv_problem make_problem(void) {
  splitkv_problem problem;
  splitkv_problem_init(&problem);
  problem.n_heads_q = 32;
  problem.n_heads_kv = 8;
  problem.head_dim = problem.head_dim_v = 128;
  problem.page_size_tokens = 128;
  problem.n_pages = INT64_C(1) << 20;
  problem.table_width = 1024;
  problem.dtype_q = problem.dtype_kv = problem.dtype_out = SPLITKV_F16;
  return problem;
}

static void set_policy(splitkv_problem *problem, splitkv_split_policy policy) {
  problem->split_policy = policy;
  problem->split_value = policy == SPLITKV_SPLIT_FIXED_SIZE    ? 2048
                         : policy == SPLITKV_SPLIT_FIXED_COUNT ? 8
                                                               : 0;
}

static void plan_new(void *context, int64_t i) {
  planning *p = context;
  splitkv_error error;
  p->batch.kv_lens = p->kv_lens[i % SETS][0];
  must(splitkv_plan_init(p->storage, p->storage_bytes, &p->problem, &p->batch, &p->plan, &error),
       &error);
}

/* Every second call plans what the call before planned, one token on. */
static void plan_again(void *context, int64_t i) {
  planning *p = context;
  splitkv_error error;
  p->batch.kv_lens = p->kv_lens[i / 2 % SETS][i % 2];
  must(splitkv_plan_init(p->storage, p->storage_bytes, &p->problem, &p->batch, &p->plan, &error),
       &error);
}

static void plan_and_allocate(void *context, int64_t i) {
  planning *p = context;
  splitkv_error error;
  p->batch.kv_lens = p->kv_lens[i % SETS][0];
  must(splitkv_plan_create(&p->problem, &p->batch, NULL, &p->plan, &error), &error);
  splitkv_plan_destroy(p->plan);
}

/* a + b n through the points, each weighed by 1/t, so that small batches count as large ones do. */
static void fit(const int64_t *n, const double *t, int count, double *a, double *b) {
  double s = 0, sx = 0, sxx = 0, sy = 0, sxy = 0;
  for (int i = 0; i < count; i++) {
    const double w = 1 / (t[i] * t[i]), x = (double)n[i];
    s += w;
    sx += w * x;
    sxx += w * x * x;
    sy += w * t[i];
    sxy += w * x * t[i];
  }
  *b = (s * sxy - sx * sy) / (s * sxx - sx * sx);
  *a = (sy - *b * sx) / s;
}

static void measure_planning(planning *p, const char *name) {
  static const int64_t counts[] = {1, 16, 256, MAX_REQUESTS};
  enum { N = sizeof counts / sizeof counts[0] };
  double fresh[N], again[N], a = 0, b = 0;
  printf("%-34s", name);
  for (int i = 0; i < N; i++) {
    p->batch.n_requests = counts[i];
    fresh[i] = time_calls(plan_new, p);
    again[i] = time_calls(plan_again, p);
    printf(" %8.0f %8.0f", fresh[i], again[i]);
  }
  fit(counts, fresh, N, &a, &b);
  printf("  %5.0f + %4.1f n", a, b);
  for (int i = 0; i < N; i++) {
    const double limit = plan_fixed + plan_per_request * (double)counts[i];
    printf("%s", verdict(fresh[i], limit));
    /* A re-plan is a plan; what is left is noise. */
    printf("%s", verdict(again[i], 1.1 * fresh[i] + 50));
  }
  printf("\n");
}

static void measure_all_planning(void) {
  static const struct {
    const char *name;
    splitkv_split_policy policy;
  } policies[] = {{"AUTO", SPLITKV_SPLIT_AUTO},
                  {"FIXED_SIZE", SPLITKV_SPLIT_FIXED_SIZE},
                  {"FIXED_COUNT", SPLITKV_SPLIT_FIXED_COUNT},
                  {"NONE", SPLITKV_SPLIT_NONE}};
  static const int64_t workers[] = {2, 64};
  planning p = {.problem = make_problem(), .storage_bytes = 1 << 20};
  p.storage = get_memory(p.storage_bytes);
  int32_t *lens = get_memory(sizeof *lens * SETS * 4 * MAX_REQUESTS);
  uint64_t state = 1;
  for (int64_t i = 0; i < (int64_t)SETS * MAX_REQUESTS; i++) {
    lens[i] = (int32_t)(next_random(&state) % 16000);
    lens[i + (int64_t)SETS * MAX_REQUESTS] = lens[i] + 1;
  }
  int32_t *even = lens + (int64_t)2 * SETS * MAX_REQUESTS;
  for (int64_t i = 0; i < MAX_REQUESTS; i++) {
    even[i] = 4096;
    even[i + MAX_REQUESTS] = 4097;
  }
  printf("planning, ns: for 1, 16, 256 and %d requests a plan, and again with one token more\n",
         MAX_REQUESTS);
  for (int is_ragged = 0; is_ragged < 2; is_ragged++) {
    for (int s = 0; s < SETS; s++) {
      int32_t *set = is_ragged ? lens + (int64_t)s * MAX_REQUESTS : even;
      p.kv_lens[s][0] = set;
      p.kv_lens[s][1] = set + (is_ragged ? (int64_t)SETS * MAX_REQUESTS : MAX_REQUESTS);
    }
    for (int csr = 0; csr < 2; csr++) {
      p.problem.table_format = csr ? SPLITKV_TABLE_CSR : SPLITKV_TABLE_DENSE;
      p.problem.table_width = csr ? 0 : 1024;
      for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++) {
        for (size_t w = 0; w < sizeof workers / sizeof workers[0]; w++) {
          if (csr && (w > 0 || i > 1)) continue;
          char name[64];
          set_policy(&p.problem, policies[i].policy);
          splitkv_batch_init(&p.batch);
          p.batch.n_workers = workers[w];
          (void)snprintf(name, sizeof name, "%s %s %s %d workers", policies[i].name,
                         is_ragged ? "ragged" : "even", csr ? "CSR" : "dense", (int)workers[w]);
          measure_planning(&p, name);
        }
      }
    }
  }
  /* Scratch of a task lies in the workspace: of heads side by side, and of one with many. */
  p.problem.n_heads_q = 64;
  p.batch.n_workers = 64;
  set_policy(&p.problem, SPLITKV_SPLIT_AUTO);
  measure_planning(&p, "AUTO ragged CSR 64 workers, 64/8");
  set_policy(&p.problem, SPLITKV_SPLIT_FIXED_SIZE);
  measure_planning(&p, "FIXED_SIZE ragged CSR 64 w., 64/8");
  set_policy(&p.problem, SPLITKV_SPLIT_AUTO);
  p.problem.n_heads_kv = 1;
  p.problem.n_heads_q = 128;
  p.problem.head_dim = p.problem.head_dim_v = 512;
  measure_planning(&p, "AUTO ragged CSR 64 workers, MLA");
  p.batch.n_requests = 1;
  p.batch.n_workers = 2;
  printf("plan_create and destroy, 1 request: %.0f\n\n", time_calls(plan_and_allocate, &p));
  free(lens);
  free(p.storage);
}

/* ── run ────────────────────────────────────────────────────────────────────────────────────── */

typedef struct running {
  splitkv_problem problem;
  splitkv_plan *plan;
  splitkv_tensors tensors;
  void *workspace;
  size_t workspace_bytes;
  const splitkv_pool *pool;
} running;

static void run_once(void *context, int64_t i) {
  const running *r = context;
  splitkv_error error;
  (void)i;
  must(splitkv_run(r->plan, &r->problem, &r->tensors, r->workspace, r->workspace_bytes, r->pool,
                   &error),
       &error);
}

static void make_plan(running *r, int64_t n_requests, const int32_t *kv_lens, int64_t n_workers) {
  splitkv_batch batch;
  splitkv_error error;
  splitkv_batch_init(&batch);
  batch.n_requests = n_requests;
  batch.kv_lens = kv_lens;
  batch.n_workers = n_workers;
  must(splitkv_plan_create(&r->problem, &batch, NULL, &r->plan, &error), &error);
  r->workspace_bytes = splitkv_plan_workspace_bytes(r->plan);
  r->workspace = get_memory(r->workspace_bytes);
}

static void free_plan(running *r) {
  splitkv_plan_destroy(r->plan);
  free(r->workspace);
}

/* A pool that keeps the time of its first call and does no task. */
static void note_start(void *context, int64_t n, void (*body)(void *, int64_t),
                       void *body_context) {
  double *first = context;
  (void)n;
  (void)body;
  (void)body_context;
  if (*first == 0) *first = now_ns();
}

/* Tables of `pages` pages a request; k and v are named by no task, since none is done. */
static void measure_before(int64_t n_requests, int64_t page_size, int csr, int trust) {
  enum { LENGTH = 4096 };
  const int64_t pages = LENGTH / page_size;
  double first = 0, samples[401];
  const splitkv_pool pool = {sizeof pool, note_start, &first};
  running r = {.problem = make_problem(), .pool = &pool};
  r.problem.page_size_tokens = page_size;
  r.problem.table_width = csr ? 0 : pages;
  r.problem.table_format = csr ? SPLITKV_TABLE_CSR : SPLITKV_TABLE_DENSE;
  r.problem.flags = trust ? SPLITKV_FLAG_TRUST_TABLE : 0;
  int32_t *lens = get_memory(sizeof *lens * (size_t)n_requests);
  int32_t *table = get_memory(sizeof *table * (size_t)(n_requests * pages));
  int32_t *offsets = get_memory(sizeof *offsets * (size_t)(n_requests + 1));
  for (int64_t i = 0; i < n_requests; i++) {
    lens[i] = LENGTH;
    offsets[i + 1] = (int32_t)((i + 1) * pages);
  }
  /* Merging is done, whatever the pool does: one task's worth of it is not given to a pool. */
  const splitkv_problem *p = &r.problem;
  void *some = get_memory(sizeof(float) * (size_t)(n_requests * p->n_heads_q * p->head_dim));
  splitkv_tensors_init(&r.tensors);
  r.tensors.q = r.tensors.k = r.tensors.v = r.tensors.out = some;
  r.tensors.block_table = table;
  r.tensors.table_offsets = csr ? offsets : NULL;
  r.tensors.table_entries = csr ? n_requests * pages : 0;
  make_plan(&r, n_requests, lens, 2);
  for (int i = 0; i < (int)(sizeof samples / sizeof samples[0]); i++) {
    first = 0;
    const double start = now_ns();
    run_once(&r, 0);
    samples[i] = first - start;
  }
  const double ns = median(samples, sizeof samples / sizeof samples[0]);
  /* What 30 GB/s need for the K and V of these tokens. */
  const double reading = (double)n_requests * LENGTH * 8 * 2 * 128 * 2 / 30;
  printf(
      "%4lld requests x %4lld pages of %3lld, %-5s %-9s %9.0f ns  %.4f%% of reading at 30 GB/s%s\n",
      (long long)n_requests, (long long)pages, (long long)page_size, csr ? "CSR" : "dense",
      trust ? "unchecked" : "", ns, 100 * ns / reading,
      verdict(ns, n_requests == 1 ? run_fixed : reading / 200));
  free_plan(&r);
  free(some);
  free(offsets);
  free(table);
  free(lens);
}

/* One request of 1 token, and of 1, 2, .. tiles of 64 tokens that stay in cache. */
static void measure_task(int64_t group, int64_t n_heads_kv) {
  enum { N = 4 };
  static const int32_t lengths[N] = {1, 64, 128, 192};
  running r = {.problem = make_problem()};
  double t[N];
  r.problem.n_heads_kv = n_heads_kv;
  r.problem.n_heads_q = group * n_heads_kv;
  r.problem.page_size_tokens = 64;
  r.problem.n_pages = r.problem.table_width = N;
  const int32_t table[N] = {0, 1, 2, 3};
  const size_t row_bytes = (size_t)(group * n_heads_kv * 128 * 2);
  void *kv = get_memory((size_t)(N * 64 * 128 * 2 * n_heads_kv));
  void *q = get_memory(row_bytes), *out = get_memory(row_bytes);
  splitkv_tensors_init(&r.tensors);
  r.tensors.q = q;
  r.tensors.k = r.tensors.v = kv;
  r.tensors.block_table = table;
  r.tensors.out = out;
  r.tensors.lse = get_memory(sizeof(float) * (size_t)(group * n_heads_kv));
  for (int i = 0; i < N; i++) {
    make_plan(&r, 1, &lengths[i], 1);
    t[i] = time_calls(run_once, &r);
    free_plan(&r);
  }
  const double tile = (t[3] - t[1]) / 2;
  printf(
      "%3lld kv x %2lld heads: 1 token %6.0f ns; 64 tokens %6.0f ns, each tile more %6.0f ns%s\n",
      (long long)n_heads_kv, (long long)group, t[0], t[1], tile,
      verdict(t[0], group * n_heads_kv == 1 ? run_fixed : 1e9));
  free(r.tensors.lse);
  free(out);
  free(q);
  free(kv);
}

static void measure_empty(int64_t n_requests) {
  running r = {.problem = make_problem()};
  r.problem.n_heads_q = r.problem.n_heads_kv = 1;
  int32_t *lens = get_memory(sizeof *lens * (size_t)n_requests);
  void *out = get_memory((size_t)n_requests * 128 * 2);
  splitkv_tensors_init(&r.tensors);
  r.tensors.q = r.tensors.out = out;
  make_plan(&r, n_requests, lens, 1);
  const double ns = time_calls(run_once, &r);
  printf("%4lld requests: %7.0f ns%s\n", (long long)n_requests, ns,
         n_requests == 1 ? verdict(ns, run_fixed) : "");
  free_plan(&r);
  free(out);
  free(lens);
}

int main(void) {
  measure_all_planning();
  printf("run before its first task (q 32, kv 8 heads, 4096 tokens each)\n");
  for (int64_t n = 1; n <= MAX_REQUESTS; n *= 16) {
    measure_before(n, 128, 0, 0);
    measure_before(n, 128, 0, 1);
    measure_before(n, 128, 1, 0);
    measure_before(n, 16, 0, 0);
    measure_before(n, 1, 0, 0);
  }
  printf("\nrun with one worker, KV in cache\n");
  measure_task(1, 1);
  measure_task(4, 1);
  measure_task(1, 8);
  measure_task(16, 1);
  measure_task(4, 8);
  printf("\nrun where nothing is attended to (1 head)\n");
  for (int64_t n = 1; n <= MAX_REQUESTS; n *= 16)
    measure_empty(n);
  if (n_over > 0) printf("\n%d over the limit\n", n_over);
  return n_over > 0;
}
