/* One run of a named shape with a named kernel set, for counting its instructions.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 *   bench-instructions SET SHAPE
 *     runs once, for callgrind --toggle-collect=counted_run
 *   bench-instructions SET SHAPE --step
 *     counts a run of a quarter of the tokens by single steps, some ten thousand a second
 *   bench-instructions --shapes
 *     names of the shapes
 *   bench-instructions --compiler
 *     what compiled this program, and the library beside it
 *
 * The first two print the bytes of K and V that the run attends to, --step the count before them.
 * Status 77: this CPU lacks the set, or the system does not let a process be stepped. */
#define _GNU_SOURCE /* ptrace */

#include <splitkv/splitkv.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CANNOT = 77 };

typedef struct shape {
  const char *name;
  splitkv_dtype dtype, dtype_kv;
  splitkv_layout layout;
  int64_t n_heads_q, n_heads_kv, head_dim, page_size_tokens, kv_len;
} shape;

/* More tokens than are summed plainly, and a part of a tile. A quarter of them is two tiles and a
 * part. */
static const shape shapes[] = {
    {"f32-group1", SPLITKV_F32, SPLITKV_F32, SPLITKV_LAYOUT_NHD, 2, 2, 128, 128, 640},
    {"f16-group4", SPLITKV_F16, SPLITKV_F16, SPLITKV_LAYOUT_NHD, 8, 2, 128, 128, 640},
    {"bf16-group16", SPLITKV_BF16, SPLITKV_BF16, SPLITKV_LAYOUT_NHD, 16, 1, 128, 16, 640},
    {"f16-group5-odd", SPLITKV_F16, SPLITKV_F16, SPLITKV_LAYOUT_HND, 5, 1, 80, 7, 601},
    {"int8-group4", SPLITKV_F16, SPLITKV_INT8, SPLITKV_LAYOUT_NHD, 8, 2, 128, 128, 640},
    {"e4m3-group4", SPLITKV_F16, SPLITKV_FP8_E4M3, SPLITKV_LAYOUT_NHD, 8, 2, 128, 128, 640},
    {"int4-group4", SPLITKV_F16, SPLITKV_INT4, SPLITKV_LAYOUT_NHD, 8, 2, 128, 128, 640},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

typedef struct running {
  splitkv_problem problem;
  splitkv_plan *plan;
  splitkv_tensors tensors;
} running;

void counted_run(const running *r);

static void stop(const char *why) {
  fprintf(stderr, "bench-instructions: %s\n", why);
  exit(2);
}

static void must(splitkv_status status, const splitkv_error *error) {
  if (status == SPLITKV_ERROR_ISA_UNAVAILABLE) exit(CANNOT);
  if (status != SPLITKV_OK) stop(error->message);
}

/* Not static and not inlined, so that callgrind finds it by name. */
__attribute__((noinline)) void counted_run(const running *r) {
  splitkv_error error;
  must(splitkv_run(r->plan, &r->problem, &r->tensors, NULL, 0, NULL, &error), &error);
}

static void *get_memory(size_t size_bytes) {
  void *memory = calloc(1, size_bytes);
  if (memory == NULL) stop("out of memory");
  return memory;
}

static size_t dtype_bits(splitkv_dtype dtype) {
  if (dtype == SPLITKV_INT4) return 4;
  return dtype == SPLITKV_F32 ? 32 : dtype > SPLITKV_BF16 ? 8 : 16;
}

/* n elements between 1/2 and 1 in size, of either sign; codes of any size but the largest. */
static void *make_tensor(splitkv_dtype dtype, int64_t n, uint32_t seed) {
  void *tensor = get_memory((size_t)n * dtype_bits(dtype) / 8);
  for (int64_t i = 0; i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    const uint32_t sign = seed & 0x80000000u, fraction = seed >> 9 & 0x3fffffu;
    if (dtype > SPLITKV_BF16) {
      ((uint8_t *)tensor)[i * (int64_t)dtype_bits(dtype) / 8] = (uint8_t)(seed >> 24 & 0xbf);
    } else if (dtype == SPLITKV_F32) {
      ((uint32_t *)tensor)[i] = sign | 0x3f000000u | fraction;
    } else if (dtype == SPLITKV_F16) {
      ((uint16_t *)tensor)[i] = (uint16_t)(sign >> 16 | 0x3800u | fraction >> 12);
    } else {
      ((uint16_t *)tensor)[i] = (uint16_t)(sign >> 16 | 0x3f00u | fraction >> 15);
    }
  }
  return tensor;
}

/* Everything lives until the program ends. */
static running make_run(const shape *s, splitkv_isa isa) {
  running r = {0};
  splitkv_error error;
  splitkv_problem *p = &r.problem;
  const int64_t n_pages = (s->kv_len + s->page_size_tokens - 1) / s->page_size_tokens;
  splitkv_problem_init(p);
  p->isa = isa;
  p->n_heads_q = s->n_heads_q;
  p->n_heads_kv = s->n_heads_kv;
  p->head_dim = p->head_dim_v = s->head_dim;
  p->page_size_tokens = s->page_size_tokens;
  p->n_pages = p->table_width = n_pages;
  p->dtype_q = p->dtype_out = s->dtype;
  p->dtype_kv = s->dtype_kv;
  p->scale = s->dtype_kv > SPLITKV_BF16 ? 0x1p-10F : 0; /* codes are large numbers without scales */
  p->layout = s->layout;
  splitkv_batch batch;
  splitkv_batch_init(&batch);
  batch.n_requests = 1;
  batch.kv_lens = &s->kv_len;
  batch.kv_lens_type = SPLITKV_I64;
  must(splitkv_plan_create(p, &batch, NULL, &r.plan, &error), &error);
  if (splitkv_plan_workspace_bytes(r.plan) != 0) stop("these shapes need no workspace");

  const int64_t in_cache = n_pages * s->page_size_tokens * s->n_heads_kv * s->head_dim;
  int32_t *table = get_memory((size_t)n_pages * sizeof *table);
  for (int64_t i = 0; i < n_pages; i++)
    table[i] = (int32_t)(n_pages - 1 - i);
  splitkv_tensors *t = &r.tensors;
  splitkv_tensors_init(t);
  t->q = make_tensor(s->dtype, s->n_heads_q * s->head_dim, 1);
  t->k = make_tensor(s->dtype_kv, in_cache, 2);
  t->v = make_tensor(s->dtype_kv, in_cache, 3);
  t->block_table = table;
  t->out = get_memory((size_t)(s->n_heads_q * s->head_dim) * dtype_bits(s->dtype) / 8);
  t->lse = get_memory((size_t)s->n_heads_q * sizeof(float));
  return r;
}

/* A child that stops itself before and after the run. */
static pid_t start_child(const running *r, int with_run) {
  const pid_t child = fork();
  if (child != 0) return child;
  if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(CANNOT);
  (void)raise(SIGSTOP);
  if (with_run) counted_run(r);
  (void)raise(SIGSTOP);
  _exit(0);
}

/* Instructions of the child from its first stop to its second; -1 where it cannot be stepped. */
static int64_t count_steps(const running *r, int with_run) {
  const pid_t child = start_child(r, with_run);
  int status = 0;
  int64_t n = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) return -1;
  do {
    if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) != 0) return -1;
    if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) return -1;
    n++;
  } while (WSTOPSIG(status) == SIGTRAP);
  (void)ptrace(PTRACE_CONT, child, NULL, NULL);
  (void)waitpid(child, &status, 0);
  return n;
}

static splitkv_isa find_set(const char *name) {
  for (int64_t i = 0; i < splitkv_kernel_set_count(); i++) {
    splitkv_kernel_set_info info = {.struct_size = sizeof info};
    if (splitkv_kernel_set_get(i, &info, NULL) != SPLITKV_OK) break;
    if (strcmp(info.name, name) == 0 && strcmp(info.arithmetic, "f32") == 0) return info.isa;
  }
  exit(CANNOT);
}

static const shape *find_shape(const char *name) {
  for (int i = 0; i < N_SHAPES; i++) {
    if (strcmp(shapes[i].name, name) == 0) return &shapes[i];
  }
  stop("no such shape");
  return NULL;
}

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "--shapes") == 0) {
    for (int i = 0; i < N_SHAPES; i++)
      puts(shapes[i].name);
    return 0;
  }
  if (argc == 2 && strcmp(argv[1], "--compiler") == 0) {
#if defined(__clang__)
    printf("clang-%d.%d.%d\n", __clang_major__, __clang_minor__, __clang_patchlevel__);
#else
    printf("gcc-%d.%d.%d\n", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
    return 0;
  }
  if (argc < 3) stop("usage: bench-instructions SET SHAPE [--step]");
  shape s = *find_shape(argv[2]);
  const int by_steps = argc > 3 && strcmp(argv[3], "--step") == 0;
  if (by_steps) s.kv_len /= 4;
  const running r = make_run(&s, find_set(argv[1]));
  if (by_steps) {
    counted_run(&r); /* symbols are bound, memory is touched */
    const int64_t without = count_steps(&r, 0), with = count_steps(&r, 1);
    if (without < 0 || with < 0) return CANNOT;
    printf("%lld ", (long long)(with - without));
  } else {
    counted_run(&r);
  }
  printf("%lld\n", (long long)(2 * s.kv_len * s.n_heads_kv * s.head_dim) *
                       (long long)dtype_bits(s.dtype_kv) / 8);
  return 0;
}
