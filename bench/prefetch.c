/* What the memory of this machine gives to plain loads and to software prefetch, beside arithmetic.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * One thread reads 256 MB line by line, with so many multiply-adds after each line, and asks for
 * the line `ahead` bytes further: not at all, into the second-level cache, into the first. Prints
 * GB/s, medians of five rounds that are taken in turn. docs/performance.md quotes it. */
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

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
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
  for (int m = 0; m < N_METHODS; m++) {
    printf("  %-22s", method_names[m]);
    for (int f = 0; f < N_FMAS; f++) {
      qsort(times[m][f], ROUNDS, sizeof times[m][f][0], compare);
      printf(" %6.1f", (double)size_bytes / times[m][f][ROUNDS / 2] * 1e-9);
    }
    printf("\n");
  }
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
  free(data);
  return sink < 0;
}
