/* What append costs beside copying: time of memcpy / time of append.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * usage: bench-append [--threads N] [--tokens N] [--rounds N]
 *
 * N new tokens, 8 KV heads, d = 128, K and V, go to random slots of caches that are much larger
 * than the machine's own. Beside it, round for round, the same pool copies as many bytes as append
 * stores (of rows, not of scales) from one contiguous place to another, with memcpy, each
 * thread its share. What is read and what is written lies elsewhere each time. `ratio` is the time
 * of that copy over the time of append: 1 is as fast as the copy. Where append reads more than it
 * stores (f32 into f16) it is below for that alone. Medians, and minima for a machine that others
 * use as well. */
#define _DEFAULT_SOURCE /* madvise, clock_gettime */

#include <splitkv/append.h>
#include <splitkv/threads.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { HEADS = 8, DIM = 128, MAX_ROUNDS = 99, HUGE_PAGE = 2 << 20, ROTARY_POSITIONS = 4096 };
/* Copies of the input, so that it is not in the caches from the round before; bytes of one cache.
 */
static const int64_t input_bytes = (int64_t)64 << 20, cache_bytes = (int64_t)256 << 20;

typedef struct options {
  int64_t threads, tokens, rounds;
} options;

typedef struct bench_case {
  const char *name;
  splitkv_dtype dtype_new, dtype_kv;
  bool computes_scales, rotates;
} bench_case;

static const bench_case cases[] = {
    {"f16 -> f16", SPLITKV_F16, SPLITKV_F16, false, false},
    {"f16 -> f16, rotary", SPLITKV_F16, SPLITKV_F16, false, true},
    {"f32 -> f16", SPLITKV_F32, SPLITKV_F16, false, false},
    {"f32 -> f16, rotary", SPLITKV_F32, SPLITKV_F16, false, true},
    {"bf16 -> bf16, rotary", SPLITKV_BF16, SPLITKV_BF16, false, true},
    {"f16 -> int8, token scales", SPLITKV_F16, SPLITKV_INT8, true, false},
    {"f16 -> int8, rotary", SPLITKV_F16, SPLITKV_INT8, true, true},
    {"f16 -> fp8_e4m3", SPLITKV_F16, SPLITKV_FP8_E4M3, false, false},
    {"f16 -> int4, token scales", SPLITKV_F16, SPLITKV_INT4, true, false},
};

static const struct {
  const char *name;
  splitkv_layout layout;
  int64_t page;
} places[] = {{"NHD, page 16", SPLITKV_LAYOUT_NHD, 16},
              {"NHD, page 128", SPLITKV_LAYOUT_NHD, 128},
              {"HND, page 16", SPLITKV_LAYOUT_HND, 16},
              {"HND, page 128", SPLITKV_LAYOUT_HND, 128}};
enum { N_CASES = sizeof cases / sizeof cases[0], N_PLACES = sizeof places / sizeof places[0] };

/* Memory that all cases share. */
static unsigned char *input[2], *cache[2];
static float *scales[2], *cosines, *sines;
static int64_t *slots;
static int32_t *positions;

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *get_memory(int64_t size_bytes) {
  const size_t size = ((size_t)size_bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
  void *memory = aligned_alloc(HUGE_PAGE, size);
  if (memory == NULL) {
    fputs("bench-append: out of memory\n", stderr);
    exit(2);
  }
#ifdef MADV_HUGEPAGE
  (void)madvise(memory, size, MADV_HUGEPAGE);
#endif
  memset(memory, 0x11, size);
  return memory;
}

static uint64_t random_number(void) {
  static uint64_t state = 1;
  state = state * 6364136223846793005ULL + 1442695040888963407ULL;
  return state >> 33;
}

static int64_t bits_of(splitkv_dtype dtype) {
  static const int64_t bits[] = {32, 16, 16, 8, 8, 8, 4};
  return bits[dtype];
}

/* ── the copy ───────────────────────────────────────────────────────────────────────────────── */

typedef struct copy_job {
  unsigned char *to[2];
  const unsigned char *from[2];
  int64_t bytes, n; /* of each; parts */
} copy_job;

static void copy_part(void *context, int64_t i) {
  const copy_job *job = (const copy_job *)context;
  const int64_t first = job->bytes * i / job->n, end = job->bytes * (i + 1) / job->n;
  for (int side = 0; side < 2; side++)
    memcpy(job->to[side] + first, job->from[side] + first, (size_t)(end - first));
}

static double time_copy(const options *o, const splitkv_pool *pool, int64_t bytes, int round) {
  copy_job job = {.bytes = bytes, .n = o->threads};
  for (int side = 0; side < 2; side++) {
    job.from[side] = input[side] + round % (input_bytes / bytes) * bytes;
    job.to[side] = cache[side] + round % (cache_bytes / bytes) * bytes;
  }
  const double start = seconds();
  pool->parallel_for(pool->context, job.n, copy_part, &job);
  return seconds() - start;
}

/* ── append ─────────────────────────────────────────────────────────────────────────────────── */

/* Numbers near 1 in every dtype. */
static void fill_input(splitkv_dtype dtype) {
  for (int side = 0; side < 2; side++)
    for (int64_t i = 0; i < input_bytes * 8 / bits_of(dtype); i++) {
      const uint32_t fraction = (uint32_t)random_number() & 0x7fffffu;
      const uint32_t bits = (uint32_t)i << 31 | 0x3f800000u | fraction;
      if (dtype == SPLITKV_F32) {
        memcpy(input[side] + 4 * i, &bits, 4);
      } else {
        const uint16_t half = dtype == SPLITKV_F16
                                  ? (uint16_t)((bits >> 16 & 0x8000u) | 0x3c00u | fraction >> 13)
                                  : (uint16_t)(bits >> 16);
        memcpy(input[side] + 2 * i, &half, 2);
      }
    }
}

static double time_append(const options *o, const splitkv_pool *pool,
                          const splitkv_problem *problem, splitkv_append_args *args, int round) {
  const int64_t row = HEADS * DIM * bits_of(args->dtype_new) / 8, all = o->tokens * row;
  const int64_t n_slots = problem->n_pages * problem->page_size_tokens;
  args->k_new = input[0] + round % (input_bytes / all) * all;
  args->v_new = input[1] + round % (input_bytes / all) * all;
  for (int64_t t = 0; t < o->tokens; t++) /* hardly ever the same twice */
    slots[t] = (int64_t)(random_number() % (uint64_t)n_slots);
  splitkv_error error;
  const double start = seconds();
  const splitkv_status status = splitkv_append(problem, args, pool, &error);
  const double time = seconds() - start;
  if (status == SPLITKV_OK) return time;
  fprintf(stderr, "bench-append: %s\n", error.message);
  exit(2);
}

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void measure(const options *o, const splitkv_pool *pool, const bench_case *c, int place) {
  const int64_t row = HEADS * DIM * bits_of(c->dtype_kv) / 8;
  splitkv_problem p;
  splitkv_problem_init(&p);
  p.n_heads_q = p.n_heads_kv = HEADS;
  p.head_dim = p.head_dim_v = DIM;
  p.dtype_kv = c->dtype_kv;
  p.layout = places[place].layout;
  p.page_size_tokens = places[place].page;
  p.n_pages = cache_bytes / row / p.page_size_tokens;
  if (c->computes_scales) p.k_scale_mode = p.v_scale_mode = SPLITKV_SCALE_TOKEN;
  splitkv_append_args a;
  splitkv_append_args_init(&a);
  a.n_tokens = o->tokens;
  a.dtype_new = c->dtype_new;
  a.slot_mapping = slots, a.slot_type = SPLITKV_I64;
  a.k = cache[0], a.v = cache[1];
  if (c->computes_scales) {
    a.k_scales = scales[0], a.v_scales = scales[1];
    a.flags = SPLITKV_APPEND_COMPUTE_K_SCALES | SPLITKV_APPEND_COMPUTE_V_SCALES;
  }
  if (c->rotates) {
    a.rotary_dim = DIM;
    a.cos = cosines, a.sin = sines, a.n_positions = ROTARY_POSITIONS, a.positions = positions;
  }
  double copies[MAX_ROUNDS], appends[MAX_ROUNDS];
  for (int r = -2; r < o->rounds; r++) {
    const double copy = time_copy(o, pool, o->tokens * row, r + 2);
    const double append = time_append(o, pool, &p, &a, r + 2);
    if (r >= 0) copies[r] = copy, appends[r] = append;
  }
  qsort(copies, (size_t)o->rounds, sizeof *copies, compare);
  qsort(appends, (size_t)o->rounds, sizeof *appends, compare);
  const double copy = copies[o->rounds / 2], append = appends[o->rounds / 2];
  printf("%-26s %-14s %8.3f %8.3f %8.2f %8.3f %8.3f %8.2f\n", c->name, places[place].name,
         append * 1e3, copy * 1e3, copy / append, appends[0] * 1e3, copies[0] * 1e3,
         copies[0] / appends[0]);
}

static int parse(int argc, char **argv, options *o) {
  for (int i = 1; i + 1 < argc; i += 2) {
    char *end = argv[i + 1];
    const long value = strtol(argv[i + 1], &end, 10);
    if (*end != 0 || value < 1) return 0;
    if (strcmp(argv[i], "--threads") == 0) {
      o->threads = value;
    } else if (strcmp(argv[i], "--tokens") == 0) {
      o->tokens = value;
    } else if (strcmp(argv[i], "--rounds") == 0) {
      o->rounds = value;
    } else {
      return 0;
    }
  }
  return argc % 2 == 1 && o->rounds <= MAX_ROUNDS &&
         o->tokens <= input_bytes / (int64_t)(HEADS * DIM * sizeof(float));
}

int main(int argc, char **argv) {
  options o = {2, 4096, 15};
  if (!parse(argc, argv, &o)) {
    fprintf(stderr, "usage: %s [--threads N] [--tokens N] [--rounds N]\n", argv[0]);
    return 2;
  }
  splitkv_threads *threads;
  splitkv_error error;
  if (splitkv_threads_create(o.threads, &threads, &error) != SPLITKV_OK) {
    fprintf(stderr, "bench-append: %s\n", error.message);
    return 2;
  }
  const int64_t most_slots = cache_bytes / (HEADS * DIM / 2);
  for (int side = 0; side < 2; side++) {
    input[side] = get_memory(input_bytes);
    cache[side] = get_memory(cache_bytes);
    scales[side] = get_memory(most_slots * HEADS * (int64_t)sizeof(float));
  }
  cosines = get_memory(ROTARY_POSITIONS * DIM / 2 * (int64_t)sizeof(float));
  sines = get_memory(ROTARY_POSITIONS * DIM / 2 * (int64_t)sizeof(float));
  slots = get_memory(o.tokens * (int64_t)sizeof *slots);
  positions = get_memory(o.tokens * (int64_t)sizeof *positions);
  for (int64_t t = 0; t < o.tokens; t++)
    positions[t] = (int32_t)(t % ROTARY_POSITIONS);
  for (int64_t i = 0; i < ROTARY_POSITIONS * DIM / 2; i++)
    cosines[i] = 0.6f, sines[i] = 0.8f;

  printf("%lld tokens, %lld threads, medians and minima of %lld\n", (long long)o.tokens,
         (long long)o.threads, (long long)o.rounds);
  printf("%-26s %-14s %8s %8s %8s %8s %8s %8s\n", "", "", "ms", "copy ms", "ratio", "min ms",
         "copy", "ratio");
  for (int c = 0; c < N_CASES; c++) {
    fill_input(cases[c].dtype_new);
    for (int place = 0; place < N_PLACES; place++)
      measure(&o, splitkv_threads_pool(threads), &cases[c], place);
  }
  splitkv_threads_destroy(threads);
  return 0;
}
