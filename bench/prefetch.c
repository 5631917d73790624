/* What the memory of this machine gives to plain loads and to software prefetch, beside arithmetic.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Four things, by one thread over 256 MB; docs/performance.md quotes them:
 *  - Reading line by line, with so many multiply-adds after each line, while the line `ahead` bytes
 *    further is asked for: not at all, into the second-level cache, into the first. GB/s, medians
 *    of five rounds that are taken in turn.
 *  - Which share of the 1024 lines of a stretch is there some time after they were asked for, with
 *    so many multiply-adds between them, one after the other or in random order.
 *  - How long a request takes that comes upon a page of 4 KB, of a stretch of 64 KB at random.
 *  - Reading rows of 2 KB with 8 multiply-adds a line, so many of them side by side, 256 bytes of
 *    each in turn: GB/s without requests; with requests (T0) in the order of reading, so many rows
 *    ahead; with requests row after row, as far ahead.
 * The memory is in huge pages where the system has them, which a hypervisor may have split again;
 * --small-pages: it is not. */
#define _DEFAULT_SOURCE /* madvise */

#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { ROUNDS = 5, LINE_BYTES = 64, HUGE_PAGE = 2 << 20 };
static const size_t size_bytes = (size_t)256 << 20;

typedef enum { PLAIN, INTO_L2, INTO_L1, N_METHODS } method;
static const char *const method_names[N_METHODS] = {"loads alone", "prefetch into L2 (T1)",
                                                    "prefetch into L1 (T0)"};
static const int fmas_per_line[] = {0, 4, 8, 16};
enum { N_FMAS = sizeof fmas_per_line / sizeof fmas_per_line[0] };

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Four chains of multiply-adds, so that their rate and not their latency counts. */
__attribute__((target("avx512f"))) static double read_once(const char *data, method how, int n_fma,
                                                           size_t ahead, float *sink) {
  __m512 sum = _mm512_setzero_ps(), chain[4] = {sum, sum, sum, sum};
  const __m512 half = _mm512_set1_ps(0.5f);
  const double start = seconds();
  for (size_t i = 0; i < size_bytes; i += LINE_BYTES) {
    if (how == INTO_L2) _mm_prefetch(data + i + ahead, _MM_HINT_T1);
    if (how == INTO_L1) _mm_prefetch(data + i + ahead, _MM_HINT_T0);
    sum = _mm512_add_ps(sum, _mm512_loadu_ps(data + i));
    for (int f = 0; f < n_fma; f += 4) {
      for (int c = 0; c < 4; c++)
        chain[c] = _mm512_fmadd_ps(chain[c], half, half);
    }
  }
  const double time = seconds() - start;
  for (int c = 0; c < 4; c++)
    sum = _mm512_add_ps(sum, chain[c]);
  *sink += _mm512_reduce_add_ps(sum);
  return time;
}

/* ── lost requests, pages ───────────────────────────────────────────────────────────────────── */

enum { STRETCH = 64 << 10, PAGE = 4096, PAGES = STRETCH / PAGE, BURST = STRETCH / LINE_BYTES };
enum { BURSTS = 60, PROBES = 256, STRETCHES = 2001 };
#define SETTLE_SECONDS 20e-6 /* of a burst, until what will come has come */

static uint64_t next_random(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

static void shuffle(int *order, int n, uint64_t *state) {
  for (int i = 0; i < n; i++)
    order[i] = i;
  for (int i = n - 1; i > 0; i--) {
    const int j = (int)(next_random(state) % (uint64_t)(i + 1)), x = order[i];
    order[i] = order[j];
    order[j] = x;
  }
}

/* Cycles of the time-stamp counter, with all that came before it done. */
static uint64_t ticks(void) {
  unsigned int cpu = 0;
  _mm_lfence();
  const uint64_t t = __rdtscp(&cpu);
  _mm_lfence();
  return t;
}

static uint64_t ticks_of_load(const char *p) {
  const uint64_t start = ticks();
  (void)*(const volatile char *)p;
  return ticks() - start;
}

/* The order of a burst's lines, and whether a line of each page was read before. */
typedef enum { IN_ORDER, AT_RANDOM, NEW_PAGES, N_BURST_KINDS } burst_kind;
static const char *const burst_names[N_BURST_KINDS] = {"one after the other", "in random order",
                                                       "the same, of pages not in the TLB"};

/* A stretch of BURST lines at random. */
static const char *random_burst(const char *data, burst_kind kind, uint64_t *state) {
  const char *at = data + next_random(state) % (size_bytes / STRETCH) * STRETCH;
  for (int i = 0; i < STRETCH && kind != NEW_PAGES; i += PAGE)
    (void)*(const volatile char *)(at + i + LINE_BYTES * (i / PAGE));
  return at;
}

/* Less than `limit` ticks: the line came from a cache. */
__attribute__((target("avx512f"))) static double share_present(const char *data, method how,
                                                               int n_fma, burst_kind kind,
                                                               uint64_t limit, float *sink) {
  static uint64_t state = 88172645463325252u; /* goes on: what was read lately is in a cache */
  int order[BURST], probes[BURST], n_present = 0;
  const __m512 half = _mm512_set1_ps(0.5f);
  __m512 chain[4] = {half, half, half, half};
  for (int b = 0; b < BURSTS; b++) {
    const char *at = random_burst(data, kind, &state);
    shuffle(order, BURST, &state);
    shuffle(probes, BURST, &state);
    for (double start = seconds(); seconds() - start < SETTLE_SECONDS;) {
    }
    for (int i = 0; i < BURST; i++) {
      const char *line = at + LINE_BYTES * (kind == IN_ORDER ? i : order[i]);
      if (how == INTO_L2) _mm_prefetch(line, _MM_HINT_T1);
      if (how == INTO_L1) _mm_prefetch(line, _MM_HINT_T0);
      for (int f = 0; f < n_fma; f += 4) {
        for (int c = 0; c < 4; c++)
          chain[c] = _mm512_fmadd_ps(chain[c], half, half);
      }
    }
    for (double start = seconds(); seconds() - start < SETTLE_SECONDS;) {
    }
    for (int i = 0; i < PROBES; i++)
      n_present += ticks_of_load(at + LINE_BYTES * probes[i]) < limit;
  }
  for (int c = 0; c < 4; c++)
    *sink += _mm512_reduce_add_ps(chain[c]);
  return (double)n_present / (BURSTS * PROBES);
}

static int compare_ticks(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

/* Half of what a line takes that is in no cache. */
static uint64_t find_limit(const char *data) {
  uint64_t times[STRETCHES], state = 1234567;
  for (int i = 0; i < STRETCHES; i++) {
    const char *at = random_burst(data, IN_ORDER, &state);
    times[i] = ticks_of_load(at + STRETCH / 2 + PAGE / 2 + LINE_BYTES);
  }
  qsort(times, STRETCHES, sizeof times[0], compare_ticks);
  return times[STRETCHES / 2] / 2;
}

static void measure_losses(const char *data, float *sink) {
  const uint64_t limit = find_limit(data);
  printf("share of %d lines that came, of requests with 0, 4, 8, 16 multiply-adds between them\n",
         BURST);
  for (int kind = 0; kind < N_BURST_KINDS; kind++) {
    for (int m = PLAIN; m < N_METHODS; m++) {
      printf("  %-22s", m == PLAIN ? "no request" : method_names[m]);
      for (int f = 0; f < N_FMAS; f++) {
        printf(" %6.2f",
               share_present(data, (method)m, fmas_per_line[f], (burst_kind)kind, limit, sink));
      }
      printf("  %s\n", burst_names[kind]);
    }
  }
}

static void measure_pages(const char *data) {
  static uint64_t times[PAGES + 1][STRETCHES]; /* the last one is the first page again */
  uint64_t state = 7654321;
  for (int i = 0; i < STRETCHES; i++) {
    const char *at = data + next_random(&state) % (size_bytes / STRETCH) * STRETCH;
    for (int k = 0; k <= PAGES; k++) {
      const size_t line = next_random(&state) % (PAGE / LINE_BYTES);
      const uint64_t start = ticks();
      _mm_prefetch(at + k % PAGES * PAGE + line * LINE_BYTES, _MM_HINT_T0);
      times[k][i] = ticks() - start;
    }
  }
  printf("ticks until a request lets go, by page of a stretch of %d, median (90th percentile)\n ",
         PAGES);
  for (int k = 0; k <= PAGES; k++) {
    qsort(times[k], STRETCHES, sizeof times[k][0], compare_ticks);
    printf(" %s%llu (%llu)", k == PAGES ? "again: " : "",
           (unsigned long long)times[k][STRETCHES / 2],
           (unsigned long long)times[k][STRETCHES * 9 / 10]);
  }
  printf("\n");
}

/* ── rows side by side ──────────────────────────────────────────────────────────────────────── */

enum { ROW = 2048, PART = 256, PART_FMAS = 8, MOST_ROWS = 64 };
static const int rows_side_by_side[] = {1, 2, 4, 8, 16, MOST_ROWS};
enum { N_ROWS = sizeof rows_side_by_side / sizeof rows_side_by_side[0] };
typedef enum { NO_REQUEST, AS_READ, ROW_AFTER_ROW, N_ORDERS } request_order;
static const char *const order_names[N_ORDERS] = {"loads alone", "requests as read",
                                                  "requests row after row"};

/* Requests run n_rows rows ahead, at least eight. */
__attribute__((target("avx512f"))) static double read_rows(const char *data, int n_rows,
                                                           request_order order, float *sink) {
  __m512 sum = _mm512_setzero_ps(), chain[PART_FMAS];
  const __m512 half = _mm512_set1_ps(0.5f);
  const size_t ahead = (size_t)(n_rows < 8 ? 8 : n_rows) * ROW;
  for (int c = 0; c < PART_FMAS; c++)
    chain[c] = half;
  const char *next = data + ahead; /* row after row; the memory goes on behind size_bytes */
  const double start = seconds();
  for (size_t row = 0; row < size_bytes / ROW; row += (size_t)n_rows) {
    for (size_t part = 0; part < ROW; part += PART) {
      for (int side = 0; side < n_rows; side++) {
        const char *at = data + (row + (size_t)side) * ROW + part;
        for (const char *line = at; line < at + PART; line += LINE_BYTES, next += LINE_BYTES) {
          if (order == AS_READ) _mm_prefetch(line + ahead, _MM_HINT_T0);
          if (order == ROW_AFTER_ROW) _mm_prefetch(next, _MM_HINT_T0);
          sum = _mm512_add_ps(sum, _mm512_loadu_ps(line));
          for (int c = 0; c < PART_FMAS; c++)
            chain[c] = _mm512_fmadd_ps(chain[c], half, half);
        }
      }
    }
  }
  const double time = seconds() - start;
  for (int c = 0; c < PART_FMAS; c++)
    sum = _mm512_add_ps(sum, chain[c]);
  *sink += _mm512_reduce_add_ps(sum);
  return time;
}

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* A line of n figures, each the median of ROUNDS times of reading all once. */
static void print_rates(const char *name, double (*times)[ROUNDS], int n) {
  printf("  %-22s", name);
  for (int i = 0; i < n; i++) {
    qsort(times[i], ROUNDS, sizeof times[i][0], compare);
    printf(" %6.1f", (double)size_bytes / times[i][ROUNDS / 2] * 1e-9);
  }
  printf("\n");
}

static void measure(const char *data, size_t ahead, float *sink) {
  double times[N_METHODS][N_FMAS][ROUNDS];
  for (int r = 0; r < ROUNDS; r++) {
    for (int f = 0; f < N_FMAS; f++) {
      for (int m = 0; m < N_METHODS; m++)
        times[m][f][r] = read_once(data, (method)m, fmas_per_line[f], ahead, sink);
    }
  }
  printf("%zu bytes ahead, GB/s at 0, 4, 8, 16 multiply-adds of 16 lanes a line\n", ahead);
  for (int m = 0; m < N_METHODS; m++)
    print_rates(method_names[m], times[m], N_FMAS);
}

static void measure_rows(const char *data, float *sink) {
  double times[N_ORDERS][N_ROWS][ROUNDS];
  for (int r = 0; r < ROUNDS; r++) {
    for (int n = 0; n < N_ROWS; n++) {
      for (int o = 0; o < N_ORDERS; o++)
        times[o][n][r] = read_rows(data, rows_side_by_side[n], (request_order)o, sink);
    }
  }
  printf("rows of %d bytes, GB/s at 1, 2, 4, 8, 16, %d of them side by side\n", ROW, MOST_ROWS);
  for (int o = 0; o < N_ORDERS; o++)
    print_rates(order_names[o], times[o], N_ROWS);
}

int main(int argc, char **argv) {
  const int has_small_pages = argc > 1 && strcmp(argv[1], "--small-pages") == 0;
  if (argc > 2 || (argc == 2 && !has_small_pages)) {
    fprintf(stderr, "usage: %s [--small-pages]\n", argv[0]);
    return 2;
  }
  if (!__builtin_cpu_supports("avx512f")) {
    fprintf(stderr, "%s: needs AVX-512\n", argv[0]);
    return 3;
  }
  char *data = aligned_alloc(HUGE_PAGE, size_bytes + HUGE_PAGE);
  if (!data) {
    fprintf(stderr, "%s: out of memory\n", argv[0]);
    return 3;
  }
#ifdef MADV_HUGEPAGE
  if (!has_small_pages) (void)madvise(data, size_bytes, MADV_HUGEPAGE);
#endif
  for (size_t i = 0; i < size_bytes + HUGE_PAGE; i += sizeof(float))
    memcpy(data + i, &(float){1}, sizeof(float));
  float sink = 0;
  measure(data, 4096, &sink);
  measure(data, 16384, &sink);
  measure_losses(data, &sink);
  measure_pages(data);
  measure_rows(data, &sink);
  free(data);
  return sink < 0;
}
