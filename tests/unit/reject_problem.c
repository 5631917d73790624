/* Problems, batches and limits that are refused, by every function that takes them.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"
#include "check.h"
#include "reject.h"
#include "track.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STORAGE_BYTES = 65536, PATTERN = 0x39 };

static _Alignas(64) unsigned char storage[STORAGE_BYTES];

static bool storage_is_untouched(void) {
  for (size_t i = 0; i < sizeof storage; ++i)
    if (storage[i] != PATTERN) return false;
  return true;
}

/* Everything that takes a problem and a batch refuses this one alike, and touches nothing. */
static void all_refuse(const splitkv_problem *p, const splitkv_batch *b, splitkv_status want,
                       const char *field, int64_t value) {
  splitkv_error error = reject_error();
  size_t bytes = 77;
  REJECT(splitkv_plan_size(p, b, &bytes, &error), &error, want, field, value);
  CHECK(bytes == 77);
  CHECK(splitkv_plan_size(p, b, &bytes, NULL) == want);

  splitkv_plan *const untouched = (splitkv_plan *)(void *)storage;
  splitkv_plan *plan = untouched;
  memset(storage, PATTERN, sizeof storage);
  error = reject_error();
  REJECT(splitkv_plan_init(storage, sizeof storage, p, b, &plan, &error), &error, want, field,
         value);
  CHECK(plan == untouched && storage_is_untouched());

  track t;
  const splitkv_allocator allocator = track_allocator(&t);
  error = reject_error();
  REJECT(splitkv_plan_create(p, b, &allocator, &plan, &error), &error, want, field, value);
  CHECK(plan == untouched && t.n_allocated == t.n_released);
}

static void refused(const splitkv_problem *p, splitkv_status want, const char *field,
                    int64_t value) {
  splitkv_error error = reject_error();
  REJECT(splitkv_describe(p, &error), &error, want, field, value);
  CHECK(splitkv_describe(p, NULL) == want);

  splitkv_limits limits;
  splitkv_limits_init(&limits);
  splitkv_sizes sizes;
  memset(&sizes, PATTERN, sizeof sizes);
  const splitkv_sizes before = sizes;
  error = reject_error();
  REJECT(splitkv_get_sizes(p, &limits, &sizes, &error), &error, want, field, value);
  CHECK(memcmp(&sizes, &before, sizeof sizes) == 0);

  const splitkv_batch b = reject_good_batch();
  all_refuse(p, &b, want, field, value);
}

/* X(field, value, status) */
#define BAD_FIELDS(X)                                                                              \
  X(n_heads_q, 0, N_HEADS_Q)                                                                       \
  X(n_heads_q, -6, N_HEADS_Q)                                                                      \
  X(n_heads_q, INT64_MIN, N_HEADS_Q)                                                               \
  X(n_heads_q, INT64_MAX, N_HEADS_Q)                                                               \
  X(n_heads_kv, 0, N_HEADS_KV)                                                                     \
  X(n_heads_kv, -1, N_HEADS_KV)                                                                    \
  X(n_heads_kv, INT64_MAX, N_HEADS_KV)                                                             \
  X(n_heads_q, 7, HEAD_GROUP)                                                                      \
  X(n_heads_q, 1, HEAD_GROUP)                                                                      \
  X(head_dim, 0, HEAD_DIM)                                                                         \
  X(head_dim, -20, HEAD_DIM)                                                                       \
  X(head_dim, SPLITKV_MAX_HEAD_DIM + 1, HEAD_DIM)                                                  \
  X(head_dim, INT64_MAX, HEAD_DIM)                                                                 \
  X(head_dim_v, 0, HEAD_DIM_V)                                                                     \
  X(head_dim_v, -1, HEAD_DIM_V)                                                                    \
  X(head_dim_v, SPLITKV_MAX_HEAD_DIM + 1, HEAD_DIM_V)                                              \
  X(page_size_tokens, 0, PAGE_SIZE)                                                                \
  X(page_size_tokens, -16, PAGE_SIZE)                                                              \
  X(n_pages, -1, N_PAGES)                                                                          \
  X(n_pages, INT64_MIN, N_PAGES)                                                                   \
  X(table_width, -1, TABLE_WIDTH)                                                                  \
  X(split_value, 1, SPLIT_VALUE)                                                                   \
  X(split_value, -1, SPLIT_VALUE)                                                                  \
  X(flags, 32u, FLAGS)                                                                             \
  X(flags, 0x80000001u, FLAGS)                                                                     \
  X(q_stride_request, -1, STRIDE)                                                                  \
  X(q_stride_head, -20, STRIDE)                                                                    \
  X(out_stride_request, -1, STRIDE)                                                                \
  X(out_stride_head, 19, STRIDE)                                                                   \
  X(k_stride_page, 640, STRIDE)                                                                    \
  X(k_stride_token, 40, STRIDE)                                                                    \
  X(k_stride_head, 20, STRIDE)                                                                     \
  X(v_stride_page, 640, STRIDE)                                                                    \
  X(v_stride_token, -1, STRIDE)                                                                    \
  X(v_stride_head, 20, STRIDE)                                                                     \
  X(window_tokens, -1, WINDOW)                                                                     \
  X(window_tokens, INT64_MIN, WINDOW)                                                              \
  X(window_right_tokens, -1, WINDOW)                                                               \
  X(chunk_tokens, -1, CHUNK)                                                                       \
  X(chunk_tokens, INT64_MIN, CHUNK)                                                                \
  X(tree_tokens, -1, TREE)                                                                         \
  X(tree_tokens, (int64_t)INT32_MAX + 1, TREE)

/* X(field, type, number, status) */
#define BAD_ENUMS(X)                                                                               \
  X(dtype_q, splitkv_dtype, 3, DTYPE)                                                              \
  X(dtype_q, splitkv_dtype, SPLITKV_INT8, DTYPE)                                                   \
  X(dtype_kv, splitkv_dtype, SPLITKV_INT4 + 1, DTYPE)                                              \
  X(dtype_kv, splitkv_dtype, 77, DTYPE)                                                            \
  X(dtype_out, splitkv_dtype, SPLITKV_FP8_E4M3, DTYPE)                                             \
  X(dtype_scales, splitkv_dtype, SPLITKV_BF16, DTYPE)                                              \
  X(dtype_scales, splitkv_dtype, -1, DTYPE)                                                        \
  X(k_scale_mode, splitkv_scale_mode, SPLITKV_SCALE_GROUP64 + 1, SCALE_MODE)                       \
  X(v_scale_mode, splitkv_scale_mode, -1, SCALE_MODE)                                              \
  X(k_scale_mode, splitkv_scale_mode, SPLITKV_SCALE_TENSOR, SCALE_MODE)                            \
  X(v_scale_mode, splitkv_scale_mode, SPLITKV_SCALE_GROUP32, SCALE_MODE)                           \
  X(dtype_out, splitkv_dtype, -1, DTYPE)                                                           \
  X(layout, splitkv_layout, 3, LAYOUT)                                                             \
  X(layout, splitkv_layout, -1, LAYOUT)                                                            \
  X(table_format, splitkv_table_format, 2, TABLE_FORMAT)                                           \
  X(table_type, splitkv_index_type, 2, INDEX_TYPE)                                                 \
  X(split_policy, splitkv_split_policy, 4, SPLIT_POLICY)                                           \
  X(split_policy, splitkv_split_policy, -1, SPLIT_POLICY)                                          \
  X(isa, splitkv_isa, 99, ISA_UNKNOWN)                                                             \
  X(isa, splitkv_isa, -1, ISA_UNKNOWN)                                                             \
  X(arithmetic, splitkv_arithmetic, 3, ARITHMETIC)                                                 \
  X(arithmetic, splitkv_arithmetic, -1, ARITHMETIC)                                                \
  X(reserved, uint32_t, 1, RESERVED)                                                               \
  X(reserved2, uint32_t, 3, RESERVED)                                                              \
  X(reserved3, uint32_t, 1, RESERVED)

static void single_fields(void) {
  splitkv_problem p;
#define TRY(name, bad, status)                                                                     \
  p = reject_good_problem();                                                                       \
  p.name = (bad);                                                                                  \
  refused(&p, SPLITKV_ERROR_##status, "problem." #name, (int64_t)(bad));
  BAD_FIELDS(TRY)
#undef TRY
#define TRY(name, type, bad, status)                                                               \
  p = reject_good_problem();                                                                       \
  p.name = (type)(bad);                                                                            \
  refused(&p, SPLITKV_ERROR_##status, "problem." #name, (bad));
  BAD_ENUMS(TRY)
#undef TRY
}

static void struct_sizes(void) {
  const splitkv_batch b = reject_good_batch();
  const size_t known = sizeof(splitkv_problem);
  const size_t oldest = offsetof(splitkv_problem, arithmetic);
  const size_t bad[] = {0, 8, oldest - 8, oldest - 1, known + 8, known + 1, (size_t)1 << 40};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    splitkv_problem p = reject_good_problem();
    p.struct_size = bad[i];
    refused(&p, SPLITKV_ERROR_STRUCT_SIZE, "problem.struct_size", (int64_t)bad[i]);
  }
  /* The struct of the first header: what it does not have counts as 0. */
  splitkv_problem old = reject_good_problem();
  old.arithmetic = (splitkv_arithmetic)77;
  old.struct_size = oldest;
  CHECK(splitkv_describe(&old, NULL) == SPLITKV_OK);
  /* And of the one before windows. */
  old = reject_good_problem();
  old.window_tokens = -1;
  old.logit_softcap = -1;
  old.reserved2 = 1;
  old.struct_size = offsetof(splitkv_problem, window_tokens);
  CHECK(splitkv_describe(&old, NULL) == SPLITKV_OK);
  all_refuse(NULL, &b, SPLITKV_ERROR_NULL_POINTER, "problem", 0);
  splitkv_error error = reject_error();
  REJECT(splitkv_describe(NULL, &error), &error, SPLITKV_ERROR_NULL_POINTER, "problem", 0);
}

static void scales(void) {
  const float bad[] = {INFINITY, -INFINITY, NAN};
  for (size_t i = 0; i < 3; ++i) {
    splitkv_problem p = reject_good_problem();
    p.scale = bad[i];
    refused(&p, SPLITKV_ERROR_SCALE, "problem.scale", 0);
  }
  splitkv_problem p = reject_good_problem();
  p.head_dim_v = 16;
  refused(&p, SPLITKV_ERROR_SCALE, "problem.scale", 0);
  p.scale = 0.25F;
  CHECK(splitkv_describe(&p, NULL) == SPLITKV_OK);
  p.scale = -0.0F; /* zero all the same */
  refused(&p, SPLITKV_ERROR_SCALE, "problem.scale", 0);
}

static void softcaps(void) {
  const float bad[] = {-1, -0x1p-149F, INFINITY, -INFINITY, NAN, 3e38F, 0x1p-149F};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    splitkv_problem p = reject_good_problem();
    p.logit_softcap = bad[i];
    refused(&p, SPLITKV_ERROR_SOFTCAP, "problem.logit_softcap", 0);
  }
  splitkv_problem p = reject_good_problem();
  p.scale = 0x1p-120F; /* divided by the cap it is no normal number */
  p.logit_softcap = 100;
  refused(&p, SPLITKV_ERROR_SOFTCAP, "problem.logit_softcap", 0);
  const float good[] = {-0.0F, 0x1p-120F, 1, 30, 50, 0x1p120F};
  p = reject_good_problem();
  for (size_t i = 0; i < sizeof good / sizeof good[0]; ++i) {
    p.logit_softcap = good[i];
    CHECK(splitkv_describe(&p, NULL) == SPLITKV_OK);
  }
}

static void combinations(void) {
  splitkv_problem p = reject_good_problem();
  p.split_policy = SPLITKV_SPLIT_FIXED_SIZE;
  refused(&p, SPLITKV_ERROR_SPLIT_VALUE, "problem.split_value", 0);
  p.split_value = -3;
  refused(&p, SPLITKV_ERROR_SPLIT_VALUE, "problem.split_value", -3);
  p.split_policy = SPLITKV_SPLIT_FIXED_COUNT;
  refused(&p, SPLITKV_ERROR_SPLIT_VALUE, "problem.split_value", -3);
  p.split_policy = SPLITKV_SPLIT_NONE;
  p.split_value = 4;
  refused(&p, SPLITKV_ERROR_SPLIT_VALUE, "problem.split_value", 4);

  p = reject_good_problem();
  p.table_format = SPLITKV_TABLE_CSR;
  refused(&p, SPLITKV_ERROR_TABLE_WIDTH, "problem.table_width", 4);

  p = reject_good_problem();
  p.flags = SPLITKV_FLAG_CAUSAL;
  p.window_right_tokens = 2;
  refused(&p, SPLITKV_ERROR_MASK, "problem.window_right_tokens", 2);
  p.window_right_tokens = 0;
  CHECK(splitkv_describe(&p, NULL) == SPLITKV_OK);

  p = reject_good_problem();
  p.layout = SPLITKV_LAYOUT_STRIDES;
  p.k_stride_head = -1;
  refused(&p, SPLITKV_ERROR_STRIDE, "problem.k_stride_head", -1);
}

/* Products past 2^63, one at a time. */
static void overflows(void) {
  const int64_t huge = INT64_MAX / 4;
  splitkv_problem p = reject_good_problem();
  p.page_size_tokens = huge;
  refused(&p, SPLITKV_ERROR_OVERFLOW, "problem.page_size_tokens", huge);
  p = reject_good_problem();
  p.n_pages = huge;
  refused(&p, SPLITKV_ERROR_OVERFLOW, "problem.n_pages", huge);
  p = reject_good_problem();
  p.layout = SPLITKV_LAYOUT_HND;
  p.n_pages = INT64_MAX / (16 * 2 * 20) + 1;
  refused(&p, SPLITKV_ERROR_OVERFLOW, "problem.n_pages", p.n_pages);
  p = reject_good_problem();
  p.layout = SPLITKV_LAYOUT_STRIDES;
  p.v_stride_token = huge;
  refused(&p, SPLITKV_ERROR_OVERFLOW, "problem.n_pages", p.n_pages);
}

/* Kernel sets that are in the list of names but not of this build or CPU. */
static void unavailable_kernel_sets(void) {
  bool usable[7] = {true};
  for (int64_t i = 0; i < splitkv_kernel_set_count(); ++i) {
    splitkv_kernel_set_info info;
    info.struct_size = sizeof info;
    if (CHECK(splitkv_kernel_set_get(i, &info, NULL) == SPLITKV_OK) && CHECK((int)info.isa < 7))
      usable[info.isa] = info.is_usable != 0;
  }
  int n_unavailable = 0;
  for (int isa = 0; isa < 7; ++isa) {
    splitkv_problem p = reject_good_problem();
    p.isa = (splitkv_isa)isa;
    if (isa == SPLITKV_ISA_AVX512BF16) {
      p.dtype_kv = SPLITKV_BF16;
      p.arithmetic = SPLITKV_ARITHMETIC_BF16;
    }
    if (isa == SPLITKV_ISA_AVX512VNNI) {
      p.dtype_kv = SPLITKV_INT8;
      p.arithmetic = SPLITKV_ARITHMETIC_INT8;
    }
    if (usable[isa]) {
      CHECK(splitkv_describe(&p, NULL) == SPLITKV_OK);
      continue;
    }
    refused(&p, SPLITKV_ERROR_ISA_UNAVAILABLE, "problem.isa", isa);
    ++n_unavailable;
  }
  CHECK(usable[SPLITKV_ISA_SCALAR] && n_unavailable > 0); /* no CPU has both AVX2 and NEON */
}

/* A set of the classes bf16 and int8 needs leave, and does some types of KV only; nobody gets them
 * unasked. */
static void arithmetic_classes(void) {
  for (int64_t i = 0; i < splitkv_kernel_set_count(); ++i) {
    splitkv_kernel_set_info info;
    info.struct_size = sizeof info;
    if (!CHECK(splitkv_kernel_set_get(i, &info, NULL) == SPLITKV_OK)) return;
    if (strcmp(info.arithmetic, "f32") == 0) continue;
    const bool is_bf16 = strcmp(info.arithmetic, "bf16") == 0;
    CHECK((is_bf16 || strcmp(info.arithmetic, "int8") == 0) && !info.is_default);
    for (int dtype = SPLITKV_F32; dtype <= SPLITKV_INT4; ++dtype) {
      splitkv_problem p = reject_good_problem();
      p.isa = info.isa;
      p.dtype_kv = (splitkv_dtype)dtype;
      refused(&p, SPLITKV_ERROR_ARITHMETIC, "problem.arithmetic", 0); /* before the dtype */
      p.arithmetic = is_bf16 ? SPLITKV_ARITHMETIC_INT8 : SPLITKV_ARITHMETIC_BF16;
      refused(&p, SPLITKV_ERROR_ARITHMETIC, "problem.arithmetic", (int64_t)p.arithmetic);
      p.arithmetic = is_bf16 ? SPLITKV_ARITHMETIC_BF16 : SPLITKV_ARITHMETIC_INT8;
      if (!test_class_does(p.arithmetic, p.dtype_kv)) { /* before the CPU: on every one */
        refused(&p, SPLITKV_ERROR_ISA_DTYPE, "problem.dtype_kv", dtype);
      } else if (info.is_usable) {
        CHECK(splitkv_describe(&p, NULL) == SPLITKV_OK);
      }
      p.isa = SPLITKV_ISA_AUTO;
      CHECK(splitkv_describe(&p, NULL) == SPLITKV_OK);
    }
  }
}

/* What goes with some dtypes of KV and not with others. */
static void quantised(void) {
  splitkv_problem p = reject_good_problem();
  for (int dtype = SPLITKV_F32; dtype <= SPLITKV_BF16; ++dtype) {
    p.dtype_kv = (splitkv_dtype)dtype;
    p.v_scale_mode = SPLITKV_SCALE_TOKEN;
    refused(&p, SPLITKV_ERROR_SCALE_MODE, "problem.v_scale_mode", SPLITKV_SCALE_TOKEN);
    p.v_scale_mode = SPLITKV_SCALE_NONE;
  }
  for (int dtype = SPLITKV_F32; dtype <= SPLITKV_INT4; ++dtype) {
    p.dtype_kv = (splitkv_dtype)dtype;
    p.flags = SPLITKV_FLAG_ZERO_POINTS;
    if (dtype == SPLITKV_INT8 || dtype == SPLITKV_INT4) {
      CHECK(splitkv_describe(&p, NULL) == SPLITKV_OK);
    } else {
      refused(&p, SPLITKV_ERROR_ZERO_POINTS, "problem.flags", SPLITKV_FLAG_ZERO_POINTS);
    }
    p.flags = 0;
    for (int mode = 0; mode <= SPLITKV_SCALE_GROUP64 && dtype >= SPLITKV_INT8; ++mode) {
      p.k_scale_mode = (splitkv_scale_mode)mode;
      p.v_scale_mode = (splitkv_scale_mode)(SPLITKV_SCALE_GROUP64 - mode);
      CHECK(splitkv_describe(&p, NULL) == SPLITKV_OK);
      p.k_scale_mode = p.v_scale_mode = SPLITKV_SCALE_NONE;
    }
  }
  /* Scales of tokens have to fit, too, where strides of 0 make any number of pages fit. */
  p = reject_good_problem();
  p.dtype_kv = SPLITKV_INT8;
  p.layout = SPLITKV_LAYOUT_STRIDES;
  p.n_pages = INT64_MAX / 100;
  p.v_scale_mode = SPLITKV_SCALE_CHANNEL;
  CHECK(splitkv_describe(&p, NULL) == SPLITKV_OK);
  p.k_scale_mode = SPLITKV_SCALE_TOKEN;
  refused(&p, SPLITKV_ERROR_OVERFLOW, "problem.n_pages", INT64_MAX / 100);
}

/* Two channels to a byte: every row begins with a whole one. */
static void odd_halves(void) {
  splitkv_problem p = reject_good_problem();
  p.dtype_kv = SPLITKV_INT4;
  p.layout = SPLITKV_LAYOUT_STRIDES;
  CHECK(splitkv_describe(&p, NULL) == SPLITKV_OK);
#define ODD(field, value, status)                                                                  \
  p.field += (value);                                                                              \
  refused(&p, SPLITKV_ERROR_##status, "problem." #field, p.field);                                 \
  p.field -= (value);
  ODD(head_dim, 1, HEAD_DIM)
  ODD(head_dim_v, -1, HEAD_DIM_V)
  ODD(k_stride_page, 641, STRIDE)
  ODD(k_stride_token, 21, STRIDE)
  ODD(k_stride_head, 7, STRIDE)
  ODD(v_stride_page, 1, STRIDE)
  ODD(v_stride_token, 41, STRIDE)
  ODD(v_stride_head, 1, STRIDE)
#undef ODD
}

/* The classes bf16 and int8 do scales that can be taken out of the sums, and no zero points: by
 * name they say so, else the class f32 takes over. */
static void codes_of_class(splitkv_arithmetic arithmetic, splitkv_isa isa, splitkv_dtype one,
                           splitkv_dtype other) {
  const struct {
    splitkv_scale_mode k, v;
    uint32_t flags;
    bool does;
  } modes[] = {{SPLITKV_SCALE_NONE, SPLITKV_SCALE_NONE, 0, true},
               {SPLITKV_SCALE_TENSOR, SPLITKV_SCALE_CHANNEL, 0, true},
               {SPLITKV_SCALE_TOKEN, SPLITKV_SCALE_TOKEN, 0, true},
               {SPLITKV_SCALE_CHANNEL, SPLITKV_SCALE_HEAD, 0, false},
               {SPLITKV_SCALE_HEAD, SPLITKV_SCALE_GROUP32, 0, false},
               {SPLITKV_SCALE_GROUP64, SPLITKV_SCALE_HEAD, 0, false},
               {SPLITKV_SCALE_TOKEN, SPLITKV_SCALE_NONE, SPLITKV_FLAG_ZERO_POINTS, false},
               {SPLITKV_SCALE_NONE, SPLITKV_SCALE_CHANNEL, SPLITKV_FLAG_ZERO_POINTS, false}};
  for (size_t i = 0; i < sizeof modes / sizeof modes[0]; ++i) {
    splitkv_problem p = reject_good_problem();
    p.arithmetic = arithmetic;
    p.dtype_kv = i % 2 ? one : other;
    p.k_scale_mode = modes[i].k;
    p.v_scale_mode = modes[i].v;
    p.flags = modes[i].flags;
    const bool has_no_zeros = p.dtype_kv == SPLITKV_FP8_E4M3 || p.dtype_kv == SPLITKV_FP8_E5M2;
    if (p.flags != 0 && has_no_zeros) continue;
    CHECK(splitkv_describe(&p, NULL) == SPLITKV_OK);
    p.isa = isa;
    splitkv_error error = reject_error();
    const splitkv_status status = splitkv_describe(&p, &error);
    if (status == SPLITKV_ERROR_ISA_UNAVAILABLE) continue;
    if (modes[i].does) {
      CHECK(status == SPLITKV_OK);
    } else {
      refused(&p, SPLITKV_ERROR_ISA_DTYPE, "problem.dtype_kv", p.dtype_kv);
    }
  }
}

void reject_problems(void) {
  const splitkv_problem good = reject_good_problem();
  splitkv_error error = reject_error();
  const splitkv_error before = error;
  CHECK(splitkv_describe(&good, &error) == SPLITKV_OK);
  CHECK(memcmp(&error, &before, sizeof error) == 0);
  single_fields();
  struct_sizes();
  arithmetic_classes();
  scales();
  softcaps();
  combinations();
  quantised();
  odd_halves();
  codes_of_class(SPLITKV_ARITHMETIC_BF16, SPLITKV_ISA_AVX512BF16, SPLITKV_FP8_E4M3,
                 SPLITKV_FP8_E5M2);
  codes_of_class(SPLITKV_ARITHMETIC_INT8, SPLITKV_ISA_AVX512VNNI, SPLITKV_INT4, SPLITKV_INT8);
  overflows();
  unavailable_kernel_sets();
}

/* ── batches ────────────────────────────────────────────────────────────────────────────────── */

static void bad_lengths(void) {
  const splitkv_problem p = reject_good_problem();
  splitkv_batch b = reject_good_batch();
  const int64_t negative[] = {40, -1};
  b.kv_lens = negative;
  all_refuse(&p, &b, SPLITKV_ERROR_KV_LEN, "batch.kv_lens[1]", -1);
  const int32_t negative32[] = {-2000000000, 4};
  b.kv_lens = negative32;
  b.kv_lens_type = SPLITKV_I32;
  all_refuse(&p, &b, SPLITKV_ERROR_KV_LEN, "batch.kv_lens[0]", -2000000000);
  const int64_t least[] = {3, INT64_MIN};
  b.kv_lens = least;
  b.kv_lens_type = SPLITKV_I64;
  all_refuse(&p, &b, SPLITKV_ERROR_KV_LEN, "batch.kv_lens[1]", INT64_MIN);
  const int64_t past_table[] = {64, 65}; /* 4 pages of 16 */
  b.kv_lens = past_table;
  all_refuse(&p, &b, SPLITKV_ERROR_KV_LEN_TABLE, "batch.kv_lens[1]", 65);
  const int64_t most[] = {INT64_MAX, 1};
  b.kv_lens = most;
  all_refuse(&p, &b, SPLITKV_ERROR_KV_LEN_TABLE, "batch.kv_lens[0]", INT64_MAX);
}

/* Sums and products of lengths past 2^63; a CSR table sets no limit to a length. */
static void overflowing_lengths(void) {
  splitkv_problem p = reject_good_problem();
  p.table_format = SPLITKV_TABLE_CSR;
  p.table_width = 0;
  splitkv_batch b = reject_good_batch();
  const int64_t one[] = {1, INT64_MAX};
  b.kv_lens = one;
  all_refuse(&p, &b, SPLITKV_ERROR_OVERFLOW, "batch.kv_lens", INT64_MAX);
  const int64_t sum[] = {INT64_MAX / 3, INT64_MAX / 3};
  b.kv_lens = sum;
  all_refuse(&p, &b, SPLITKV_ERROR_OVERFLOW, "batch.kv_lens", INT64_MAX / 3);
  p.split_policy = SPLITKV_SPLIT_FIXED_SIZE;
  p.split_value = 1;
  const int64_t slots[] = {0, INT64_MAX / 60};
  b.kv_lens = slots;
  splitkv_error error = reject_error();
  size_t bytes = 0;
  CHECK(splitkv_plan_size(&p, &b, &bytes, &error) == SPLITKV_ERROR_OVERFLOW);
}

static void bad_batch_fields(void) {
  const splitkv_problem p = reject_good_problem();
  splitkv_batch b = reject_good_batch();
  const int64_t workers[] = {0, -1, SPLITKV_MAX_WORKERS + 1, INT64_MAX, INT64_MIN};
  for (size_t i = 0; i < sizeof workers / sizeof workers[0]; ++i) {
    b.n_workers = workers[i];
    all_refuse(&p, &b, SPLITKV_ERROR_N_WORKERS, "batch.n_workers", workers[i]);
  }
  b = reject_good_batch();
  b.n_requests = -1;
  all_refuse(&p, &b, SPLITKV_ERROR_N_REQUESTS, "batch.n_requests", -1);
  b.n_requests = INT64_MAX;
  all_refuse(&p, &b, SPLITKV_ERROR_OVERFLOW, "batch.n_requests", INT64_MAX);
  b = reject_good_batch();
  b.kv_lens_type = (splitkv_index_type)5;
  all_refuse(&p, &b, SPLITKV_ERROR_INDEX_TYPE, "batch.kv_lens_type", 5);
  b = reject_good_batch();
  b.kv_lens = NULL;
  all_refuse(&p, &b, SPLITKV_ERROR_NULL_POINTER, "batch.kv_lens", 0);
  b = reject_good_batch();
  b.struct_size += 8;
  all_refuse(&p, &b, SPLITKV_ERROR_STRUCT_SIZE, "batch.struct_size", (int64_t)b.struct_size);
  all_refuse(&p, NULL, SPLITKV_ERROR_NULL_POINTER, "batch", 0);
}

/* Query rows of each request: offsets from 0 on, ascending. */
static void bad_q_offsets(void) {
  const splitkv_problem p = reject_good_problem();
  splitkv_batch b = reject_good_batch();
  const int64_t not_zero[] = {1, 2, 3}, descending[] = {0, 5, 4}, negative[] = {0, -1, 3};
  const int64_t many[] = {0, 1, (int64_t)INT32_MAX + 1};
  const int32_t descending32[] = {0, 2, 1};
  b.q_offsets_type = SPLITKV_I64;
  b.q_offsets = not_zero;
  all_refuse(&p, &b, SPLITKV_ERROR_Q_OFFSETS, "batch.q_offsets[0]", 1);
  b.q_offsets = descending;
  all_refuse(&p, &b, SPLITKV_ERROR_Q_OFFSETS, "batch.q_offsets[2]", 4);
  b.q_offsets = negative;
  all_refuse(&p, &b, SPLITKV_ERROR_Q_OFFSETS, "batch.q_offsets[1]", -1);
  b.q_offsets = many;
  all_refuse(&p, &b, SPLITKV_ERROR_Q_OFFSETS, "batch.q_offsets", many[2]);
  b.q_offsets = (const char *)(const void *)many + 4;
  all_refuse(&p, &b, SPLITKV_ERROR_TENSOR_ALIGNMENT, "batch.q_offsets", 4);
  b.q_offsets_type = SPLITKV_I32;
  b.q_offsets = descending32;
  all_refuse(&p, &b, SPLITKV_ERROR_Q_OFFSETS, "batch.q_offsets[2]", 1);
  b.q_offsets_type = (splitkv_index_type)2;
  all_refuse(&p, &b, SPLITKV_ERROR_INDEX_TYPE, "batch.q_offsets_type", 2);
  b = reject_good_batch();
  b.reserved = 7;
  all_refuse(&p, &b, SPLITKV_ERROR_RESERVED, "batch.reserved", 7);
  /* The struct of the first header does not have them. */
  b.q_offsets = descending32;
  b.struct_size = offsetof(splitkv_batch, q_offsets);
  size_t bytes = 0;
  CHECK(splitkv_plan_size(&p, &b, &bytes, NULL) == SPLITKV_OK);
  /* Rows of the tree mask have to fit, too. */
  splitkv_problem tree = reject_good_problem();
  const int64_t rows[] = {0, 0, INT32_MAX};
  b = reject_good_batch();
  b.q_offsets = rows;
  b.q_offsets_type = SPLITKV_I64;
  tree.out_stride_request = INT64_MAX / INT32_MAX;
  all_refuse(&tree, &b, SPLITKV_ERROR_OVERFLOW, "batch.q_offsets", INT32_MAX);
}

static void bad_prefixes(void) {
  const splitkv_problem p = reject_good_problem();
  const struct {
    splitkv_prefix prefixes[2];
    int64_t n;
    const char *field;
    int64_t value;
  } cases[] = {
      {{{-1, 1, 0}}, 1, "batch.prefixes[0]", -1},
      {{{0, 0, 0}}, 1, "batch.prefixes[0]", 0},
      {{{0, 3, 0}}, 1, "batch.prefixes[0]", 0},
      {{{2, 1, 0}}, 1, "batch.prefixes[0]", 2},
      {{{1, INT64_MAX, 0}}, 1, "batch.prefixes[0]", 1},
      {{{0, 2, -1}}, 1, "batch.prefixes[0]", -1},
      {{{0, 2, 4}}, 1, "batch.prefixes[0]", 4}, /* request 1 has 3 tokens */
      {{{0, 1, 41}}, 1, "batch.prefixes[0]", 41},
      {{{0, 1, 4}, {0, 2, 1}}, 2, "batch.prefixes[1]", 0},
      {{{1, 1, 1}, {0, 1, 1}}, 2, "batch.prefixes[1]", 0},
  };
  splitkv_batch b = reject_good_batch();
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    b.prefixes = cases[i].prefixes;
    b.n_prefixes = cases[i].n;
    all_refuse(&p, &b, SPLITKV_ERROR_PREFIX, cases[i].field, cases[i].value);
  }
  b.n_prefixes = -1;
  all_refuse(&p, &b, SPLITKV_ERROR_PREFIX, "batch.n_prefixes", -1);
  b.n_prefixes = 1;
  b.prefixes = NULL;
  all_refuse(&p, &b, SPLITKV_ERROR_NULL_POINTER, "batch.prefixes", 0);
  b.prefixes = (const splitkv_prefix *)(const void *)((const char *)(const void *)cases + 1);
  all_refuse(&p, &b, SPLITKV_ERROR_TENSOR_ALIGNMENT, "batch.prefixes", 1);
}

/* What looks for prefixes refuses what plans and runs do. */
static void bad_searches(void) {
  splitkv_problem p = reject_good_problem();
  splitkv_batch b = reject_good_batch();
  static const int32_t table[8] = {0}, offsets[] = {0, 3, 2};
  splitkv_tensors t;
  splitkv_tensors_init(&t);
  splitkv_prefix found[2];
  int64_t n = 77;
#define REFUSED(want, field, value)                                                                \
  error = reject_error();                                                                          \
  REJECT(splitkv_find_prefixes(&p, &b, &t, 1, found, 2, &n, &error), &error, want, field, value);
  splitkv_error error;
  REFUSED(SPLITKV_ERROR_NULL_POINTER, "tensors.block_table", 0)
  t.block_table = table;
  p.table_format = SPLITKV_TABLE_CSR;
  p.table_width = 0;
  t.table_entries = 8;
  REFUSED(SPLITKV_ERROR_NULL_POINTER, "tensors.table_offsets", 0)
  t.table_offsets = offsets;
  REFUSED(SPLITKV_ERROR_TABLE_OFFSETS, "tensors.table_offsets", 2)
  const int32_t short_row[] = {0, 2, 3};
  t.table_offsets = short_row;
  REFUSED(SPLITKV_ERROR_TABLE_SHORT, "tensors.table_offsets", 2) /* 40 tokens need 3 pages */
  p = reject_good_problem();
  const int64_t negative[] = {1, -5}, many[] = {65, 1};
  b.kv_lens = negative;
  REFUSED(SPLITKV_ERROR_KV_LEN, "batch.kv_lens[1]", -5)
  b.kv_lens = many;
  REFUSED(SPLITKV_ERROR_KV_LEN_TABLE, "batch.kv_lens[0]", 65)
#undef REFUSED
  b = reject_good_batch();
  error = reject_error();
  REJECT(splitkv_find_prefixes(&p, &b, &t, 1, NULL, 1, &n, &error), &error,
         SPLITKV_ERROR_NULL_POINTER, "prefixes", 0);
  CHECK(n == 77);
  error = reject_error();
  REJECT(splitkv_find_prefixes(&p, &b, &t, 1, found, 1, NULL, &error), &error,
         SPLITKV_ERROR_NULL_POINTER, "n_prefixes", 0);
  /* All pages of both are page 0; request 1 has none that is whole. */
  CHECK(splitkv_find_prefixes(&p, &b, &t, 1, found, 1, &n, NULL) == SPLITKV_OK && n == 0);
}

/* Row strides that only the number of requests makes impossible. */
static void bad_row_strides(void) {
  const splitkv_batch b = reject_good_batch();
  splitkv_problem p = reject_good_problem();
  p.q_stride_request = INT64_MAX / 2;
  all_refuse(&p, &b, SPLITKV_ERROR_OVERFLOW, "batch.n_requests", 2);
  p = reject_good_problem();
  p.out_stride_request = INT64_MAX / 2;
  all_refuse(&p, &b, SPLITKV_ERROR_OVERFLOW, "batch.n_requests", 2);
  p = reject_good_problem();
  p.q_stride_request = 8;
  p.q_stride_head = INT64_MAX / 4;
  all_refuse(&p, &b, SPLITKV_ERROR_OVERFLOW, "batch.n_requests", 2);
  p = reject_good_problem();
  p.out_stride_request = 119; /* six rows of 20 take 120 */
  all_refuse(&p, &b, SPLITKV_ERROR_STRIDE, "problem.out_stride_request", 119);
  p.out_stride_request = 20; /* requests inside heads */
  p.out_stride_head = 40;
  splitkv_plan *plan = NULL;
  CHECK(splitkv_plan_create(&p, &b, NULL, &plan, NULL) == SPLITKV_OK);
  splitkv_plan_destroy(plan);
}

static void bad_storage(void) {
  const splitkv_problem p = reject_good_problem();
  const splitkv_batch b = reject_good_batch();
  splitkv_plan *const untouched = (splitkv_plan *)(void *)storage;
  splitkv_plan *plan = untouched;
  splitkv_error error = reject_error();
  size_t bytes = 0;
  CHECK(splitkv_plan_size(&p, &b, &bytes, NULL) == SPLITKV_OK && bytes > 0);
  memset(storage, PATTERN, sizeof storage);
  const size_t too_few[] = {bytes - 1, 0, 64};
  for (size_t i = 0; i < 3; ++i) {
    error = reject_error();
    REJECT(splitkv_plan_init(storage, too_few[i], &p, &b, &plan, &error), &error,
           SPLITKV_ERROR_PLAN_STORAGE, "storage_bytes", (int64_t)too_few[i]);
  }
  for (int offset = 1; offset < 64; offset += offset) {
    error = reject_error();
    REJECT(splitkv_plan_init(storage + offset, sizeof storage - 64, &p, &b, &plan, &error), &error,
           SPLITKV_ERROR_PLAN_ALIGNMENT, "storage", offset);
  }
  error = reject_error();
  REJECT(splitkv_plan_init(NULL, bytes, &p, &b, &plan, &error), &error, SPLITKV_ERROR_NULL_POINTER,
         "storage", 0);
  error = reject_error();
  REJECT(splitkv_plan_init(storage, bytes, &p, &b, NULL, &error), &error,
         SPLITKV_ERROR_NULL_POINTER, "plan", 0);
  error = reject_error();
  REJECT(splitkv_plan_size(&p, &b, NULL, &error), &error, SPLITKV_ERROR_NULL_POINTER, "plan_bytes",
         0);
  CHECK(plan == untouched && storage_is_untouched());
  CHECK(splitkv_plan_init(storage, bytes, &p, &b, &plan, NULL) == SPLITKV_OK);
  for (size_t i = bytes; i < sizeof storage; ++i)
    if (!CHECK_MSG(storage[i] == PATTERN, "byte %zu of %zu was written", i, bytes)) break;
}

void reject_batches(void) {
  bad_lengths();
  overflowing_lengths();
  bad_batch_fields();
  bad_q_offsets();
  bad_prefixes();
  bad_searches();
  bad_row_strides();
  bad_storage();
}

/* ── limits ─────────────────────────────────────────────────────────────────────────────────── */

static void limits_refused(const splitkv_problem *p, const splitkv_limits *limits,
                           splitkv_status want, const char *field, int64_t value) {
  splitkv_sizes sizes;
  memset(&sizes, PATTERN, sizeof sizes);
  const splitkv_sizes before = sizes;
  splitkv_error error = reject_error();
  REJECT(splitkv_get_sizes(p, limits, &sizes, &error), &error, want, field, value);
  CHECK(memcmp(&sizes, &before, sizeof sizes) == 0);
}

static splitkv_limits good_limits(void) {
  splitkv_limits limits;
  splitkv_limits_init(&limits);
  limits.max_requests = 10;
  limits.max_kv_tokens_total = 1000;
  limits.max_kv_tokens_per_request = 500;
  limits.max_workers = 4;
  return limits;
}

void reject_limits(void) {
  splitkv_problem p = reject_good_problem();
  splitkv_limits limits = good_limits();
  limits.max_requests = -1;
  limits_refused(&p, &limits, SPLITKV_ERROR_LIMITS, "limits.max_requests", -1);
  limits = good_limits();
  limits.max_kv_tokens_total = INT64_MIN;
  limits_refused(&p, &limits, SPLITKV_ERROR_LIMITS, "limits.max_kv_tokens_total", INT64_MIN);
  limits = good_limits();
  limits.max_kv_tokens_per_request = -7;
  limits_refused(&p, &limits, SPLITKV_ERROR_LIMITS, "limits.max_kv_tokens_per_request", -7);
  const int64_t workers[] = {0, -4, SPLITKV_MAX_WORKERS + 1, INT64_MAX};
  for (size_t i = 0; i < sizeof workers / sizeof workers[0]; ++i) {
    limits = good_limits();
    limits.max_workers = workers[i];
    limits_refused(&p, &limits, SPLITKV_ERROR_N_WORKERS, "limits.max_workers", workers[i]);
  }
  limits = good_limits();
  limits.struct_size = 1;
  limits_refused(&p, &limits, SPLITKV_ERROR_STRUCT_SIZE, "limits.struct_size", 1);
  limits_refused(&p, NULL, SPLITKV_ERROR_NULL_POINTER, "limits", 0);
  limits = good_limits();
  splitkv_error error = reject_error();
  REJECT(splitkv_get_sizes(&p, &limits, NULL, &error), &error, SPLITKV_ERROR_NULL_POINTER, "sizes",
         0);

  /* Bounds past 2^63 are errors, bounds that are merely large are not. */
  p.split_policy = SPLITKV_SPLIT_FIXED_SIZE;
  p.split_value = 1;
  limits = good_limits();
  limits.max_kv_tokens_total = limits.max_kv_tokens_per_request = INT64_MAX;
  limits_refused(&p, &limits, SPLITKV_ERROR_OVERFLOW, "limits.max_kv_tokens_total", INT64_MAX);
  p.split_policy = SPLITKV_SPLIT_AUTO;
  p.split_value = 0;
  splitkv_sizes sizes;
  CHECK(splitkv_get_sizes(&p, &limits, &sizes, NULL) == SPLITKV_OK);
  CHECK(sizes.workspace_bytes < 1000000);
  limits.max_requests = INT64_MAX;
  error = reject_error();
  CHECK(splitkv_get_sizes(&p, &limits, &sizes, &error) == SPLITKV_ERROR_OVERFLOW);
}
