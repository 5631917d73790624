/* Refusals of run: nothing of out, lse and workspace is touched.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"
#include "check.h"
#include "reject.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATTERN = 0x39 };

/* A good run with everything that goes into it, to be spoiled one thing at a time. */
typedef struct scene {
  test_batch b;
  splitkv_plan *plan;
  guard_buffer workspace;
  /* what run is called with: */
  splitkv_problem problem;
  splitkv_tensors tensors;
  const splitkv_plan *use_plan;
  void *use_workspace;
  size_t workspace_bytes;
  const splitkv_pool *pool;
} scene;

static test_spec *scene_spec(void) {
  static test_spec spec;
  test_spec_init(&spec);
  test_spec_requests(&spec, 3, 0);
  spec.kv_lens[0] = 100;
  spec.kv_lens[2] = 37;
  spec.problem.n_heads_q = 4;
  spec.problem.n_heads_kv = 2;
  spec.problem.head_dim = spec.problem.head_dim_v = 24;
  spec.problem.split_policy = SPLITKV_SPLIT_FIXED_SIZE;
  spec.problem.split_value = 30;
  spec.extra_pages = 2;
  spec.extra_width = 2;
  return &spec;
}

static void scene_of(scene *s, const test_spec *spec) {
  memset(s, 0, sizeof *s);
  test_batch_build(&s->b, spec);
  CHECK(splitkv_plan_create(&s->b.problem, &s->b.batch, NULL, &s->plan, NULL) == SPLITKV_OK);
  s->workspace_bytes = splitkv_plan_workspace_bytes(s->plan);
  CHECK(s->workspace_bytes > 0);
  s->workspace = guard_create(s->workspace_bytes, GUARD_LEFT, 64);
}

static void scene_create(scene *s, splitkv_table_format format, splitkv_index_type type) {
  test_spec *spec = scene_spec();
  spec->problem.table_format = format;
  spec->problem.table_type = type;
  scene_of(s, spec);
}

static void scene_destroy(scene *s) {
  guard_destroy(&s->workspace);
  splitkv_plan_destroy(s->plan);
  test_batch_destroy(&s->b);
}

/* Undoes what was spoiled. */
static void restore(scene *s) {
  s->problem = s->b.problem;
  s->tensors = s->b.tensors;
  s->use_plan = s->plan;
  s->use_workspace = s->workspace.data;
  s->workspace_bytes = splitkv_plan_workspace_bytes(s->plan);
  s->pool = NULL;
}

static bool all_pattern(const guard_buffer *b) {
  for (size_t i = 0; i < b->size_bytes; ++i)
    if (b->data[i] != PATTERN) return false;
  return true;
}

static void refused(scene *s, splitkv_status want, const char *field, int64_t value) {
  memset(s->b.out.data, PATTERN, s->b.out.size_bytes);
  memset(s->b.lse.data, PATTERN, s->b.lse.size_bytes);
  memset(s->workspace.data, PATTERN, s->workspace.size_bytes);
  splitkv_error error = reject_error();
  REJECT(splitkv_run(s->use_plan, &s->problem, &s->tensors, s->use_workspace, s->workspace_bytes,
                     s->pool, &error),
         &error, want, field, value);
  CHECK(splitkv_run(s->use_plan, &s->problem, &s->tensors, s->use_workspace, s->workspace_bytes,
                    s->pool, NULL) == want);
  CHECK_MSG(all_pattern(&s->b.out) && all_pattern(&s->b.lse) && all_pattern(&s->workspace),
            "touched: %s", field);
  restore(s);
}

static void accepted(scene *s) {
  splitkv_error error = reject_error();
  CHECK_MSG(splitkv_run(s->use_plan, &s->problem, &s->tensors, s->use_workspace, s->workspace_bytes,
                        s->pool, &error) == SPLITKV_OK,
            "%.199s", error.message);
  restore(s);
}

static void null_pointers(scene *s) {
  s->use_plan = NULL;
  refused(s, SPLITKV_ERROR_NULL_POINTER, "plan", 0);
  s->use_workspace = NULL;
  refused(s, SPLITKV_ERROR_NULL_POINTER, "workspace", 0);
  s->tensors.q = NULL;
  refused(s, SPLITKV_ERROR_NULL_POINTER, "tensors.q", 0);
  s->tensors.k = NULL;
  refused(s, SPLITKV_ERROR_NULL_POINTER, "tensors.k", 0);
  s->tensors.v = NULL;
  refused(s, SPLITKV_ERROR_NULL_POINTER, "tensors.v", 0);
  s->tensors.block_table = NULL;
  refused(s, SPLITKV_ERROR_NULL_POINTER, "tensors.block_table", 0);
  s->tensors.out = NULL;
  refused(s, SPLITKV_ERROR_NULL_POINTER, "tensors.out", 0);
  splitkv_error error = reject_error();
  REJECT(
      splitkv_run(s->plan, NULL, &s->tensors, s->use_workspace, s->workspace_bytes, NULL, &error),
      &error, SPLITKV_ERROR_NULL_POINTER, "problem", 0);
  error = reject_error();
  REJECT(
      splitkv_run(s->plan, &s->problem, NULL, s->use_workspace, s->workspace_bytes, NULL, &error),
      &error, SPLITKV_ERROR_NULL_POINTER, "tensors", 0);
  s->tensors.lse = NULL;
  accepted(s);
}

/* Sinks and slopes go with their flags, and have an older struct's NULL without them. */
static void heads_numbers(scene *s) {
  static const float numbers[5];
  s->tensors.sinks = numbers;
  refused(s, SPLITKV_ERROR_TENSOR_UNUSED, "tensors.sinks", 0);
  s->tensors.alibi_slopes = numbers;
  refused(s, SPLITKV_ERROR_TENSOR_UNUSED, "tensors.alibi_slopes", 0);
  s->tensors.sinks = s->tensors.alibi_slopes = numbers;
  s->tensors.struct_size = offsetof(splitkv_tensors, sinks);
  accepted(s);
  splitkv_problem flagged = s->problem;
  flagged.flags = SPLITKV_FLAG_SINKS | SPLITKV_FLAG_ALIBI;
  splitkv_plan *plan = NULL;
  if (!CHECK(splitkv_plan_create(&flagged, &s->b.batch, NULL, &plan, NULL) == SPLITKV_OK)) return;
  for (int step = 0; step < 6; ++step) {
    s->use_plan = plan;
    s->problem = flagged;
    s->tensors.sinks = s->tensors.alibi_slopes = numbers;
    if (step == 0) s->tensors.sinks = NULL;
    if (step == 1) s->tensors.alibi_slopes = NULL;
    if (step == 2) s->tensors.struct_size = offsetof(splitkv_tensors, sinks);
    if (step == 3) s->tensors.sinks = (const float *)(const void *)((const char *)numbers + 1);
    if (step == 4)
      s->tensors.alibi_slopes = (const float *)(const void *)((const char *)numbers + 2);
    if (step == 5) {
      accepted(s);
    } else if (step < 3) {
      refused(s, SPLITKV_ERROR_NULL_POINTER, step == 1 ? "tensors.alibi_slopes" : "tensors.sinks",
              0);
    } else {
      refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT,
              step == 3 ? "tensors.sinks" : "tensors.alibi_slopes", step - 2);
    }
  }
  splitkv_plan_destroy(plan);
}

/* A tree mask goes with its tokens, and a plan that shares a prefix with a table that has it. */
static void trees_and_prefixes(scene *s) {
  static const uint64_t mask[4] = {0};
  s->tensors.tree_mask = mask;
  refused(s, SPLITKV_ERROR_TENSOR_UNUSED, "tensors.tree_mask", 0);
  splitkv_problem with_tree = s->problem;
  with_tree.tree_tokens = 5;
  splitkv_plan *plan = NULL;
  if (!CHECK(splitkv_plan_create(&with_tree, &s->b.batch, NULL, &plan, NULL) == SPLITKV_OK)) return;
  for (int step = 0; step < 3; ++step) {
    s->use_plan = plan;
    s->problem = with_tree;
    s->tensors.tree_mask =
        step == 1   ? (const uint64_t *)(const void *)((const char *)(const void *)mask + 4)
        : step == 2 ? mask
                    : NULL;
    if (step == 0) refused(s, SPLITKV_ERROR_NULL_POINTER, "tensors.tree_mask", 0);
    if (step == 1) refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, "tensors.tree_mask", 4);
    if (step == 2) accepted(s);
  }
  splitkv_plan_destroy(plan);

  const int64_t lens[] = {100, 37, 37};
  const splitkv_prefix prefix = {0, 3, 30};
  splitkv_batch batch = s->b.batch;
  batch.kv_lens = lens;
  batch.kv_lens_type = SPLITKV_I64;
  batch.prefixes = &prefix;
  batch.n_prefixes = 1;
  if (!CHECK(splitkv_plan_create(&s->problem, &batch, NULL, &plan, NULL) == SPLITKV_OK)) return;
  const int32_t *table = (const int32_t *)s->tensors.block_table;
  s->use_plan = plan;
  s->workspace_bytes = splitkv_plan_workspace_bytes(plan);
  guard_buffer workspace = guard_create(s->workspace_bytes, GUARD_LEFT, 64);
  s->use_workspace = workspace.data;
  refused(s, SPLITKV_ERROR_PREFIX, "tensors.block_table", table[s->problem.table_width]);
  guard_destroy(&workspace);
  splitkv_plan_destroy(plan);
}

static void workspaces(scene *s) {
  const size_t exact = s->workspace_bytes;
  const size_t too_few[] = {exact - 1, exact / 2, 1, 0};
  for (size_t i = 0; i < 4; ++i) {
    s->workspace_bytes = too_few[i];
    refused(s, SPLITKV_ERROR_WORKSPACE_SIZE, "workspace_bytes", (int64_t)too_few[i]);
  }
  for (int offset = 1; offset < 64; offset += offset) {
    s->use_workspace = s->workspace.data + offset;
    refused(s, SPLITKV_ERROR_WORKSPACE_ALIGNMENT, "workspace", offset);
  }
  s->workspace_bytes = exact + 1000; /* more than needed is fine, and not touched */
  accepted(s);
}

static void structs(scene *s) {
  s->tensors.struct_size = 3;
  refused(s, SPLITKV_ERROR_STRUCT_SIZE, "tensors.struct_size", 3);
  s->tensors.struct_size += 8;
  refused(s, SPLITKV_ERROR_STRUCT_SIZE, "tensors.struct_size", (int64_t)sizeof s->tensors + 8);
  s->problem.struct_size = 0;
  refused(s, SPLITKV_ERROR_STRUCT_SIZE, "problem.struct_size", 0);
  splitkv_pool pool = test_pool_reversed();
  s->pool = &pool;
  accepted(s);
  s->pool = &pool;
  pool.struct_size = 1;
  refused(s, SPLITKV_ERROR_STRUCT_SIZE, "pool.struct_size", 1);
  pool = test_pool_reversed();
  pool.parallel_for = NULL;
  s->pool = &pool;
  refused(s, SPLITKV_ERROR_POOL, "pool.parallel_for", 0);
}

/* Any other problem, be it as good as the plan's own, and no plan at all. */
static void other_problems(scene *s) {
#define MISMATCH(field, other)                                                                     \
  s->problem.field = (other);                                                                      \
  refused(s, SPLITKV_ERROR_PLAN_MISMATCH, "problem", 0);
  MISMATCH(n_heads_q, 2)
  MISMATCH(n_heads_kv, 4)
  MISMATCH(head_dim, 25)
  MISMATCH(head_dim_v, 1)
  MISMATCH(page_size_tokens, 32)
  MISMATCH(n_pages, s->problem.n_pages + 1)
  MISMATCH(dtype_q, SPLITKV_F16)
  MISMATCH(dtype_kv, SPLITKV_BF16)
  MISMATCH(dtype_out, SPLITKV_F16)
  MISMATCH(layout, SPLITKV_LAYOUT_HND)
  MISMATCH(table_type, s->problem.table_type == SPLITKV_I32 ? SPLITKV_I64 : SPLITKV_I32)
  MISMATCH(split_value, 31)
  MISMATCH(scale, 0.5F)
  MISMATCH(flags, SPLITKV_FLAG_TRUST_TABLE)
  MISMATCH(isa, SPLITKV_ISA_SCALAR)
  MISMATCH(arithmetic, SPLITKV_ARITHMETIC_BF16)
  MISMATCH(q_stride_request, 1000)
  MISMATCH(out_stride_head, 24)
  MISMATCH(v_stride_page, 7)
  MISMATCH(window_tokens, 50)
  MISMATCH(logit_softcap, 30)
  MISMATCH(flags, SPLITKV_FLAG_SINKS)
  MISMATCH(v_scale_mode, SPLITKV_SCALE_HEAD)
#undef MISMATCH
  static _Alignas(64) unsigned char no_plan[4096];
  memset(no_plan, 1, sizeof no_plan);
  s->use_plan = (const splitkv_plan *)(const void *)no_plan;
  refused(s, SPLITKV_ERROR_PLAN_INVALID, "plan", 0);
}

static void misaligned(scene *s) {
  s->tensors.q = s->b.q.data + 1;
  refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, "tensors.q", 1);
  s->tensors.k = (const unsigned char *)s->tensors.k + 2;
  refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, "tensors.k", 2);
  s->tensors.v = (const unsigned char *)s->tensors.v + 3;
  refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, "tensors.v", 3);
  s->tensors.block_table = s->b.table.data + 1;
  refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, "tensors.block_table", 1);
  s->tensors.out = s->b.out.data + 2;
  refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, "tensors.out", 2);
  s->tensors.lse = (float *)(void *)(s->b.lse.data + 1);
  refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, "tensors.lse", 1);
}

/* Scales and zero points: there where the problem has them, aligned, and nowhere else. */
static void scale_tensors(scene *s) {
  static const int8_t number[8];
  const splitkv_tensors kept = s->tensors;
  const struct {
    const char *field;
    const void **pointer;
    splitkv_scale_mode mode;
  } tensors[] = {{"tensors.k_scales", &s->tensors.k_scales, s->problem.k_scale_mode},
                 {"tensors.v_scales", &s->tensors.v_scales, s->problem.v_scale_mode},
                 {"tensors.k_zeros", (const void **)&s->tensors.k_zeros, s->problem.k_scale_mode},
                 {"tensors.v_zeros", (const void **)&s->tensors.v_zeros, s->problem.v_scale_mode}};
  for (int i = 0; i < 4; ++i) {
    const bool is_zeros = i >= 2, flag = (s->problem.flags & SPLITKV_FLAG_ZERO_POINTS) != 0;
    if (tensors[i].mode == SPLITKV_SCALE_NONE || (is_zeros && !flag)) {
      *tensors[i].pointer = number;
      refused(s, SPLITKV_ERROR_TENSOR_UNUSED, tensors[i].field, 0);
      continue;
    }
    *tensors[i].pointer = NULL;
    refused(s, SPLITKV_ERROR_NULL_POINTER, tensors[i].field, 0);
    if (is_zeros) continue;
    *tensors[i].pointer = (const char *)*tensors[i].pointer + 1;
    refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, tensors[i].field, 1);
  }
  /* A struct that ends before them has none. */
  s->tensors.struct_size = offsetof(splitkv_tensors, k_scales);
  refused(s, SPLITKV_ERROR_NULL_POINTER,
          s->problem.k_scale_mode ? "tensors.k_scales" : "tensors.v_scales", 0);
  s->tensors = kept;
  accepted(s);
}

static void reject_scales(splitkv_scale_mode k, splitkv_scale_mode v, uint32_t flags) {
  static scene s;
  test_spec *spec = scene_spec();
  spec->problem.dtype_kv = SPLITKV_INT8;
  spec->problem.k_scale_mode = k;
  spec->problem.v_scale_mode = v;
  spec->problem.dtype_scales = flags ? SPLITKV_F16 : SPLITKV_F32;
  spec->problem.flags = flags;
  scene_of(&s, spec);
  restore(&s);
  accepted(&s);
  scale_tensors(&s);
  CHECK(test_batch_run(&s.b, NULL) && test_batch_compare(&s.b, NULL));
  scene_destroy(&s);
}

void reject_runs(void) {
  reject_scales(SPLITKV_SCALE_TENSOR, SPLITKV_SCALE_NONE, 0);
  reject_scales(SPLITKV_SCALE_TOKEN, SPLITKV_SCALE_CHANNEL, SPLITKV_FLAG_ZERO_POINTS);
  reject_scales(SPLITKV_SCALE_NONE, SPLITKV_SCALE_GROUP32, SPLITKV_FLAG_ZERO_POINTS);
  static scene s;
  scene_create(&s, SPLITKV_TABLE_DENSE, SPLITKV_I32);
  restore(&s);
  accepted(&s);
  null_pointers(&s);
  heads_numbers(&s);
  trees_and_prefixes(&s);
  workspaces(&s);
  structs(&s);
  other_problems(&s);
  misaligned(&s);
  CHECK(test_batch_run(&s.b, NULL) && test_batch_compare(&s.b, NULL));
  scene_destroy(&s);
}

/* ── block tables ───────────────────────────────────────────────────────────────────────────── */

static int64_t get(const scene *s, const guard_buffer *buffer, int64_t i) {
  return s->problem.table_type == SPLITKV_I64 ? ((const int64_t *)(const void *)buffer->data)[i]
                                              : ((const int32_t *)(const void *)buffer->data)[i];
}

static void set(const scene *s, const guard_buffer *buffer, int64_t i, int64_t value) {
  if (s->problem.table_type == SPLITKV_I64)
    ((int64_t *)(void *)buffer->data)[i] = value;
  else
    ((int32_t *)(void *)buffer->data)[i] = (int32_t)value;
}

/* Each entry that a request needs is checked, and only those. */
static void page_ids(scene *s) {
  const bool csr = s->problem.table_format == SPLITKV_TABLE_CSR;
  const int64_t bad[] = {-1, s->problem.n_pages, INT32_MAX, INT32_MIN};
  for (int64_t r = 0; r < 3; ++r) {
    const int64_t row = csr ? get(s, &s->b.offsets, r) : r * s->problem.table_width;
    const int64_t pages = (s->b.spec.kv_lens[r] + 15) / 16;
    for (int64_t i = 0; i < pages; ++i)
      for (size_t k = 0; k < 4; ++k) {
        const int64_t kept = get(s, &s->b.table, row + i);
        set(s, &s->b.table, row + i, bad[k]);
        refused(s, SPLITKV_ERROR_PAGE_ID, "tensors.block_table", bad[k]);
        set(s, &s->b.table, row + i, kept);
      }
  }
  accepted(s); /* the entries that nobody needs are wrong all the time */
}

/* Each offset of three rows wrong in turn; the error gives the end of the row. */
static void csr_offsets(scene *s) {
  const char *const field = "tensors.table_offsets";
  int64_t at[4];
  for (int i = 0; i < 4; ++i)
    at[i] = get(s, &s->b.offsets, i);
  const struct {
    int offset;
    int64_t wrong;
    splitkv_status status;
    int64_t value;
  } bad[] = {
      {0, -1, SPLITKV_ERROR_TABLE_OFFSETS, at[1]},
      {0, at[1] + 1, SPLITKV_ERROR_TABLE_OFFSETS, at[1]},
      {1, -1, SPLITKV_ERROR_TABLE_OFFSETS, -1},
      {2, at[1] - 1, SPLITKV_ERROR_TABLE_OFFSETS, at[1] - 1},
      {3, at[3] + 1, SPLITKV_ERROR_TABLE_OFFSETS, at[3] + 1},
      {3, INT32_MAX, SPLITKV_ERROR_TABLE_OFFSETS, INT32_MAX},
      {1, at[0] + 6, SPLITKV_ERROR_TABLE_SHORT, 6}, /* row 0 needs 7 pages */
      {2, at[3], SPLITKV_ERROR_TABLE_SHORT, 0},     /* row 2 needs 3 */
  };
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    set(s, &s->b.offsets, bad[i].offset, bad[i].wrong);
    refused(s, bad[i].status, field, bad[i].value);
    set(s, &s->b.offsets, bad[i].offset, at[bad[i].offset]);
  }
  s->tensors.table_entries = at[3] - 1;
  refused(s, SPLITKV_ERROR_TABLE_OFFSETS, field, at[3]);
  s->tensors.table_entries = -1;
  refused(s, SPLITKV_ERROR_TABLE_OFFSETS, field, at[1]);
  s->tensors.table_offsets = NULL;
  refused(s, SPLITKV_ERROR_NULL_POINTER, field, 0);
  s->tensors.table_offsets = s->b.offsets.data + 1;
  refused(s, SPLITKV_ERROR_TENSOR_ALIGNMENT, field, 1);
  accepted(s);
}

/* With a window the ids of pages before it are anybody's, in a table as wide as ever. */
static void released_pages(scene *s) {
  const bool csr = s->problem.table_format == SPLITKV_TABLE_CSR;
  s->b.problem.window_tokens = 40; /* of request 0 tokens 60 to 99: pages 3 to 6 */
  splitkv_plan *const kept_plan = s->plan;
  if (!CHECK(splitkv_plan_create(&s->b.problem, &s->b.batch, NULL, &s->plan, NULL) == SPLITKV_OK))
    return;
  restore(s);
  const int64_t row = csr ? get(s, &s->b.offsets, 0) : 0;
  for (int64_t i = 0; i < 7; ++i) {
    const int64_t kept = get(s, &s->b.table, row + i);
    set(s, &s->b.table, row + i, -7);
    if (i < 3) {
      accepted(s);
    } else {
      refused(s, SPLITKV_ERROR_PAGE_ID, "tensors.block_table", -7);
    }
    set(s, &s->b.table, row + i, kept);
  }
  splitkv_plan_destroy(s->plan);
  s->plan = kept_plan;
  s->b.problem.window_tokens = 0;
  restore(s);
}

/* The caller vouches for the ids: good ones work, and nobody looks at the others. */
static void trusted_table(void) {
  static scene s;
  scene_create(&s, SPLITKV_TABLE_DENSE, SPLITKV_I32);
  s.b.problem.flags = SPLITKV_FLAG_TRUST_TABLE;
  CHECK(test_batch_run(&s.b, NULL) && test_batch_compare(&s.b, NULL));
  scene_destroy(&s);
}

void reject_tables(void) {
  static scene s;
  for (int format = 0; format < 2; ++format)
    for (int type = 0; type < 2; ++type) {
      scene_create(&s, (splitkv_table_format)format, (splitkv_index_type)type);
      restore(&s);
      page_ids(&s);
      released_pages(&s);
      if (format == SPLITKV_TABLE_CSR) csr_offsets(&s);
      scene_destroy(&s);
    }
  trusted_table();
}

/* ── merge ──────────────────────────────────────────────────────────────────────────────────── */

static float merge_parts[3 * 2 * 5 + 1], merge_lse_parts[3 * 2 + 1];
static float merge_out[2 * 5 + 1], merge_lse[2 + 1];

static splitkv_merge_args good_merge(void) {
  splitkv_merge_args a;
  splitkv_merge_args_init(&a);
  a.n_states = 3;
  a.n_rows = 2;
  a.head_dim_v = 5;
  a.out_parts = merge_parts;
  a.lse_parts = merge_lse_parts;
  a.out = merge_out;
  a.lse = merge_lse;
  return a;
}

static void merge_refused(const splitkv_merge_args *a, splitkv_status want, const char *field,
                          int64_t value) {
  memset(merge_out, PATTERN, sizeof merge_out);
  memset(merge_lse, PATTERN, sizeof merge_lse);
  splitkv_error error = reject_error();
  REJECT(splitkv_merge(a, &error), &error, want, field, value);
  CHECK(splitkv_merge(a, NULL) == want);
  const unsigned char *out = (const unsigned char *)merge_out;
  const unsigned char *lse = (const unsigned char *)merge_lse;
  bool untouched = true;
  for (size_t i = 0; i < sizeof merge_out; ++i)
    untouched = untouched && out[i] == PATTERN;
  for (size_t i = 0; i < sizeof merge_lse; ++i)
    untouched = untouched && lse[i] == PATTERN;
  CHECK(untouched);
}

void reject_merges(void) {
  splitkv_merge_args a;
#define BAD_MERGE(name, bad, status)                                                               \
  a = good_merge();                                                                                \
  a.name = (bad);                                                                                  \
  merge_refused(&a, SPLITKV_ERROR_##status, "args." #name, (int64_t)(intptr_t)(bad));
  BAD_MERGE(n_states, -1, MERGE_SHAPE)
  BAD_MERGE(n_rows, -5, MERGE_SHAPE)
  BAD_MERGE(head_dim_v, 0, MERGE_SHAPE)
  BAD_MERGE(head_dim_v, SPLITKV_MAX_HEAD_DIM + 1, MERGE_SHAPE)
  BAD_MERGE(dtype_out, (splitkv_dtype)9, DTYPE)
  BAD_MERGE(out_parts, NULL, NULL_POINTER)
  BAD_MERGE(lse_parts, NULL, NULL_POINTER)
  BAD_MERGE(out, NULL, NULL_POINTER)
  BAD_MERGE(struct_size, 4, STRUCT_SIZE)
  BAD_MERGE(n_rows, INT64_MAX, OVERFLOW)
#undef BAD_MERGE
  a = good_merge();
  a.n_states = INT64_MAX;
  merge_refused(&a, SPLITKV_ERROR_OVERFLOW, "args.n_rows", 2);
  merge_refused(NULL, SPLITKV_ERROR_NULL_POINTER, "args", 0);
  a = good_merge();
  a.out_parts = (const float *)(const void *)((const char *)merge_parts + 1);
  merge_refused(&a, SPLITKV_ERROR_TENSOR_ALIGNMENT, "args.out_parts", 1);
  a = good_merge();
  a.lse_parts = (const float *)(const void *)((const char *)merge_lse_parts + 2);
  merge_refused(&a, SPLITKV_ERROR_TENSOR_ALIGNMENT, "args.lse_parts", 2);
  a = good_merge();
  a.out = (char *)merge_out + 3;
  merge_refused(&a, SPLITKV_ERROR_TENSOR_ALIGNMENT, "args.out", 3);
  a = good_merge();
  a.lse = (float *)(void *)((char *)merge_lse + 1);
  merge_refused(&a, SPLITKV_ERROR_TENSOR_ALIGNMENT, "args.lse", 1);
  a = good_merge();
  CHECK(splitkv_merge(&a, NULL) == SPLITKV_OK);
  a.lse = NULL;
  CHECK(splitkv_merge(&a, NULL) == SPLITKV_OK);
}
