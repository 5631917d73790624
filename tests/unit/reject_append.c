/* Refusals of append: no cache, scale or zero point is touched.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "check.h"
#include "reject.h"

#include <splitkv/append.h>

#include <stdlib.h>
#include <string.h>

enum { PATTERN = 0x39, N_TOKENS = 5, HEADS = 2, D = 20, SLOTS = 80, POSITIONS = 9 };

/* A good call with all that goes into it, to be spoiled one thing at a time. */
typedef struct scene {
  float k_new[N_TOKENS * HEADS * D], v_new[N_TOKENS * HEADS * D];
  float cos[POSITIONS * D / 2], sin[POSITIONS * D / 2];
  int32_t slots[N_TOKENS];
  int64_t positions[N_TOKENS];
  /* what a call writes: */
  struct written {
    float k[SLOTS * HEADS * D], v[SLOTS * HEADS * D];
    float k_scales[SLOTS * HEADS], v_scales[SLOTS * HEADS];
    int8_t k_zeros[SLOTS * HEADS], v_zeros[SLOTS * HEADS];
  } to;
  splitkv_problem problem;
  splitkv_append_args args;
  splitkv_pool pool;
  const splitkv_pool *use_pool;
} scene;

static void run_nothing(void *context, int64_t n, void (*body)(void *, int64_t), void *of_body) {
  (void)context, (void)n, (void)body, (void)of_body;
}

/* Undoes what was spoiled. */
static void restore(scene *s) {
  s->problem = reject_good_problem(); /* 2 KV heads, d = dv = 20, 5 pages of 16 tokens */
  splitkv_append_args_init(&s->args);
  splitkv_append_args *a = &s->args;
  a->n_tokens = N_TOKENS;
  a->k_new = s->k_new, a->v_new = s->v_new;
  a->k = s->to.k, a->v = s->to.v;
  a->slot_mapping = s->slots;
  a->rotary_dim = 10;
  a->cos = s->cos, a->sin = s->sin, a->n_positions = POSITIONS;
  a->positions = s->positions, a->position_type = SPLITKV_I64;
  for (int t = 0; t < N_TOKENS; ++t)
    s->slots[t] = t == 1 ? -1 : SLOTS - 1 - 7 * t, s->positions[t] = t == 1 ? -4 : t;
  s->pool = (splitkv_pool){.struct_size = sizeof s->pool, .parallel_for = run_nothing};
  s->use_pool = NULL;
}

/* The same in int8, with scales that are computed and zero points. */
static void quantise(scene *s) {
  s->problem.dtype_kv = SPLITKV_INT8;
  s->problem.k_scale_mode = s->problem.v_scale_mode = SPLITKV_SCALE_TOKEN;
  s->problem.flags = SPLITKV_FLAG_ZERO_POINTS;
  s->args.k_scales = s->to.k_scales, s->args.v_scales = s->to.v_scales;
  s->args.k_zeros = s->to.k_zeros, s->args.v_zeros = s->to.v_zeros;
  s->args.flags = SPLITKV_APPEND_COMPUTE_K_SCALES | SPLITKV_APPEND_COMPUTE_V_SCALES;
}

static bool is_untouched(const scene *s) {
  const unsigned char *bytes = (const unsigned char *)&s->to;
  for (size_t i = 0; i < sizeof s->to; ++i)
    if (bytes[i] != PATTERN) return false;
  return true;
}

static void refused(scene *s, splitkv_status want, const char *field, int64_t value) {
  memset(&s->to, PATTERN, sizeof s->to);
  splitkv_error error = reject_error();
  REJECT(splitkv_append(&s->problem, &s->args, s->use_pool, &error), &error, want, field, value);
  CHECK(splitkv_append(&s->problem, &s->args, s->use_pool, NULL) == want);
  CHECK_MSG(is_untouched(s), "touched: %s", field);
  restore(s);
}

/* A call is accepted, and writes or not. */
static void accepted(scene *s, bool writes) {
  memset(&s->to, PATTERN, sizeof s->to);
  splitkv_error error = reject_error();
  CHECK_MSG(splitkv_append(&s->problem, &s->args, s->use_pool, &error) == SPLITKV_OK, "%.199s",
            error.message);
  CHECK(is_untouched(s) == !writes);
  restore(s);
}

static void *beyond(void *pointer) {
  return (unsigned char *)pointer + 1;
}

/* X(field, status) */
#define NEEDED(X)                                                                                  \
  X(k_new)                                                                                         \
  X(k)                                                                                             \
  X(v_new)                                                                                         \
  X(v)                                                                                             \
  X(slot_mapping)                                                                                  \
  X(cos)                                                                                           \
  X(sin)                                                                                           \
  X(positions)
#define NEEDED_QUANTISED(X)                                                                        \
  X(k_scales)                                                                                      \
  X(v_scales)                                                                                      \
  X(k_zeros)                                                                                       \
  X(v_zeros)

static void pointers(scene *s) {
#define TRY(name)                                                                                  \
  s->args.name = NULL;                                                                             \
  refused(s, SPLITKV_ERROR_NULL_POINTER, "args." #name, 0);
  NEEDED(TRY)
#undef TRY
#define TRY(name)                                                                                  \
  quantise(s);                                                                                     \
  s->args.name = NULL;                                                                             \
  refused(s, SPLITKV_ERROR_NULL_POINTER, "args." #name, 0);
  NEEDED_QUANTISED(TRY)
#undef TRY
  splitkv_error error = reject_error();
  REJECT(splitkv_append(NULL, &s->args, NULL, &error), &error, SPLITKV_ERROR_NULL_POINTER,
         "problem", 0);
  error = reject_error();
  REJECT(splitkv_append(&s->problem, NULL, NULL, &error), &error, SPLITKV_ERROR_NULL_POINTER,
         "args", 0);
  s->args.k_new = beyond(s->k_new);
  refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, "args.k_new", 1);
  s->args.v_new = beyond(s->v_new);
  refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, "args.v_new", 1);
  s->args.k = beyond(s->to.k);
  refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, "args.k", 1);
  s->args.v = beyond(s->to.v);
  refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, "args.v", 1);
  s->args.slot_mapping = beyond(s->slots);
  refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, "args.slot_mapping", 1);
  s->args.positions = beyond(s->positions);
  refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, "args.positions", 1);
  s->args.cos = (const float *)beyond(s->cos);
  refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, "args.cos", 1);
  s->args.sin = (const float *)beyond(s->sin);
  refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, "args.sin", 1);
  quantise(s);
  s->args.k_scales = beyond(s->to.k_scales);
  refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, "args.k_scales", 1);
  quantise(s);
  s->args.k = beyond(s->to.k), s->args.k_zeros = s->to.k_zeros + 1; /* bytes lie anywhere */
  accepted(s, true);
}

static void unused(scene *s) {
  s->args.k_scales = s->to.k_scales;
  refused(s, SPLITKV_ERROR_TENSOR_UNUSED, "args.k_scales", 0);
  s->args.v_zeros = s->to.v_zeros;
  refused(s, SPLITKV_ERROR_TENSOR_UNUSED, "args.v_zeros", 0);
  quantise(s);
  s->problem.flags = 0, s->args.v_zeros = NULL;
  refused(s, SPLITKV_ERROR_TENSOR_UNUSED, "args.k_zeros", 0);
  s->args.rotary_dim = 0;
  refused(s, SPLITKV_ERROR_TENSOR_UNUSED, "args.cos", 0);
  s->args.rotary_dim = 0, s->args.cos = NULL;
  refused(s, SPLITKV_ERROR_TENSOR_UNUSED, "args.sin", 0);
  s->args.rotary_dim = 0, s->args.cos = s->args.sin = NULL;
  refused(s, SPLITKV_ERROR_TENSOR_UNUSED, "args.positions", 0);
  /* V aliases K: nothing of V is stored. */
  s->args.v = s->to.k;
  refused(s, SPLITKV_ERROR_TENSOR_UNUSED, "args.v_new", 0);
  s->args.v = s->to.k, s->args.v_new = NULL;
  accepted(s, true);
  s->args.v = NULL, s->args.v_new = NULL;
  accepted(s, true);
  quantise(s);
  s->args.v = NULL, s->args.v_new = NULL;
  s->args.flags = SPLITKV_APPEND_COMPUTE_K_SCALES;
  refused(s, SPLITKV_ERROR_TENSOR_UNUSED, "args.v_scales", 0);
  quantise(s);
  s->args.v = NULL, s->args.v_new = NULL, s->args.v_scales = NULL;
  s->args.flags = SPLITKV_APPEND_COMPUTE_K_SCALES;
  refused(s, SPLITKV_ERROR_TENSOR_UNUSED, "args.v_zeros", 0);
}

/* X(field, value, status) */
#define BAD_NUMBERS(X)                                                                             \
  X(struct_size, 8, STRUCT_SIZE)                                                                   \
  X(struct_size, sizeof(splitkv_append_args) + 8, STRUCT_SIZE)                                     \
  X(n_tokens, -1, APPEND_TOKENS)                                                                   \
  X(n_tokens, INT64_MIN, APPEND_TOKENS)                                                            \
  X(n_tokens, INT64_MAX, OVERFLOW)                                                                 \
  X(k_new_stride_token, -1, STRIDE)                                                                \
  X(k_new_stride_head, -20, STRIDE)                                                                \
  X(v_new_stride_token, INT64_MIN, STRIDE)                                                         \
  X(v_new_stride_head, -1, STRIDE)                                                                 \
  X(rotary_stride, -1, STRIDE)                                                                     \
  X(rotary_dim, -2, APPEND_ROTARY)                                                                 \
  X(rotary_dim, 9, APPEND_ROTARY)                                                                  \
  X(rotary_dim, D + 2, APPEND_ROTARY)                                                              \
  X(rotary_dim, INT64_MAX - 1, APPEND_ROTARY)                                                      \
  X(n_positions, -1, APPEND_ROTARY)                                                                \
  X(n_positions, INT64_MAX, OVERFLOW)                                                              \
  X(flags, 4u, FLAGS)                                                                              \
  X(flags, 0x80000000u, FLAGS)                                                                     \
  X(reserved, 3u, RESERVED)
#define BAD_ENUMS(X)                                                                               \
  X(dtype_new, splitkv_dtype, SPLITKV_INT8, DTYPE)                                                 \
  X(dtype_new, splitkv_dtype, -1, DTYPE)                                                           \
  X(slot_type, splitkv_index_type, 2, INDEX_TYPE)                                                  \
  X(position_type, splitkv_index_type, -1, INDEX_TYPE)                                             \
  X(rotary_style, splitkv_rotary_style, 2, APPEND_ROTARY)                                          \
  X(rotary_style, splitkv_rotary_style, -1, APPEND_ROTARY)

static void numbers(scene *s) {
#define TRY(name, bad, status)                                                                     \
  s->args.name = (bad);                                                                            \
  refused(s, SPLITKV_ERROR_##status, "args." #name, (int64_t)(bad));
  BAD_NUMBERS(TRY)
#undef TRY
#define TRY(name, type, bad, status)                                                               \
  s->args.name = (type)(bad);                                                                      \
  refused(s, SPLITKV_ERROR_##status, "args." #name, (bad));
  BAD_ENUMS(TRY)
#undef TRY
  s->args.k_new_stride_head = INT64_MAX;
  refused(s, SPLITKV_ERROR_OVERFLOW, "args.k_new_stride_head", INT64_MAX);
  s->args.v_new_stride_token = INT64_MAX / 2;
  refused(s, SPLITKV_ERROR_OVERFLOW, "args.n_tokens", N_TOKENS);
  s->args.rotary_stride = INT64_MAX / 4;
  refused(s, SPLITKV_ERROR_OVERFLOW, "args.n_positions", POSITIONS);
  s->problem.head_dim = 0; /* all that describe says */
  refused(s, SPLITKV_ERROR_HEAD_DIM, "problem.head_dim", 0);
  s->problem.isa = (splitkv_isa)99;
  refused(s, SPLITKV_ERROR_ISA_UNKNOWN, "problem.isa", 99);
}

static void places(scene *s) {
  s->slots[4] = SLOTS;
  refused(s, SPLITKV_ERROR_APPEND_SLOT, "args.slot_mapping", SLOTS);
  s->slots[0] = -2;
  refused(s, SPLITKV_ERROR_APPEND_SLOT, "args.slot_mapping", -2);
  s->slots[4] = INT32_MIN;
  refused(s, SPLITKV_ERROR_APPEND_SLOT, "args.slot_mapping", INT32_MIN);
  int64_t far[N_TOKENS] = {0, 1, 2, 3, (int64_t)1 << 32};
  s->args.slot_mapping = far, s->args.slot_type = SPLITKV_I64, s->positions[1] = 0;
  refused(s, SPLITKV_ERROR_APPEND_SLOT, "args.slot_mapping", far[4]);
  s->problem.n_pages = 0;
  refused(s, SPLITKV_ERROR_APPEND_SLOT, "args.slot_mapping", SLOTS - 1);
  s->positions[4] = POSITIONS;
  refused(s, SPLITKV_ERROR_APPEND_POSITION, "args.positions", POSITIONS);
  s->positions[2] = -1;
  refused(s, SPLITKV_ERROR_APPEND_POSITION, "args.positions", -1);
  s->args.n_positions = 0;
  refused(s, SPLITKV_ERROR_APPEND_POSITION, "args.positions", 0);
  for (int t = 0; t < N_TOKENS; ++t)
    s->slots[t] = -1;
  accepted(s, false);
}

static void scales(scene *s) {
  for (int mode = SPLITKV_SCALE_TENSOR; mode <= SPLITKV_SCALE_CHANNEL; ++mode) {
    quantise(s);
    s->problem.k_scale_mode = (splitkv_scale_mode)mode;
    refused(s, SPLITKV_ERROR_APPEND_SCALES, "problem.k_scale_mode", mode);
    quantise(s);
    s->problem.v_scale_mode = (splitkv_scale_mode)mode;
    refused(s, SPLITKV_ERROR_APPEND_SCALES, "problem.v_scale_mode", mode);
  }
  s->args.flags = SPLITKV_APPEND_COMPUTE_V_SCALES; /* f32 has none */
  refused(s, SPLITKV_ERROR_APPEND_SCALES, "problem.v_scale_mode", 0);
  quantise(s);
  s->args.v = NULL, s->args.v_new = NULL, s->args.v_scales = NULL, s->args.v_zeros = NULL;
  refused(s, SPLITKV_ERROR_APPEND_SCALES, "problem.v_scale_mode", SPLITKV_SCALE_TOKEN);
  quantise(s);
  accepted(s, true);
}

static void pools(scene *s) {
  s->use_pool = &s->pool;
  s->pool.parallel_for = NULL;
  refused(s, SPLITKV_ERROR_POOL, "pool.parallel_for", 0);
  s->use_pool = &s->pool;
  s->pool.struct_size = 3;
  refused(s, SPLITKV_ERROR_STRUCT_SIZE, "pool.struct_size", 3);
}

/* Without tokens no pointer is needed, and nothing is written. */
static void no_tokens(scene *s) {
  splitkv_append_args_init(&s->args);
  accepted(s, false);
  s->args.n_tokens = 0;
  s->slots[0] = 12345; /* not read */
  accepted(s, false);
}

void reject_appends(void) {
  scene *s = calloc(1, sizeof *s);
  if (!CHECK(s != NULL)) return;
  restore(s);
  accepted(s, true);
  pointers(s);
  unused(s);
  numbers(s);
  places(s);
  scales(s);
  pools(s);
  no_tokens(s);
  free(s);
}
