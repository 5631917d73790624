/* Running a batch through the public interface and judging what comes out.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"
#include "check.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OUT_POISON = 0xcd, WORKSPACE_POISON = 0xff };

static int64_t out_stride_head(const splitkv_problem *p) {
  return p->out_stride_head ? p->out_stride_head : p->head_dim_v;
}

static int64_t out_stride_request(const splitkv_problem *p) {
  return p->out_stride_request ? p->out_stride_request : p->n_heads_q * out_stride_head(p);
}

size_t test_row_bytes(const test_batch *b) {
  return (size_t)b->problem.head_dim_v * ref_dtype_size(b->problem.dtype_out);
}

const unsigned char *test_out_row(const test_batch *b, int64_t row) {
  const splitkv_problem *p = &b->problem;
  const int64_t element =
      row / p->n_heads_q * out_stride_request(p) + row % p->n_heads_q * out_stride_head(p);
  return b->out.data + (size_t)element * ref_dtype_size(p->dtype_out);
}

/* Rows of out: query rows times heads. */
static int64_t n_results(const test_batch *b) {
  return b->first_rows[b->spec.n_requests] * b->problem.n_heads_q;
}

/* Whether the elements between the rows of out still hold the pattern. */
static bool gaps_are_untouched(const test_batch *b) {
  unsigned char *is_row = calloc(b->out.size_bytes + 1, 1);
  if (!is_row) return false;
  for (int64_t row = 0; row < n_results(b); ++row)
    memset(is_row + (test_out_row(b, row) - b->out.data), 1, test_row_bytes(b));
  bool ok = true;
  for (size_t i = 0; i < b->out.size_bytes; ++i)
    ok = ok && (is_row[i] || b->out.data[i] == OUT_POISON);
  free(is_row);
  return ok;
}

static void print_lens(const test_spec *s) {
  fputs("  kv_lens", stderr);
  for (int64_t r = 0; r < s->n_requests && r < 40; ++r)
    fprintf(stderr, " %" PRId64, s->kv_lens[r]);
  fputs(s->n_requests > 40 ? " ...\n" : "\n", stderr);
}

static void print_rows(const test_spec *s) {
  const splitkv_problem *p = &s->problem;
  fprintf(stderr, "  right %" PRId64 " chunk %" PRId64 " tree %" PRId64 " kind %d specials %d\n",
          p->window_right_tokens, p->chunk_tokens, p->tree_tokens, s->tree, s->specials);
  if (!s->has_rows) return;
  fputs("  rows", stderr);
  for (int64_t r = 0; r < s->n_requests && r < 40; ++r)
    fprintf(stderr, " %" PRId64, s->n_rows[r]);
  fputs("\n", stderr);
}

void test_batch_print(const test_batch *b) {
  const test_spec *s = &b->spec;
  const splitkv_problem *p = &b->problem;
  if (!check_prints()) return;
  fprintf(stderr,
          "  seed %" PRIu64 " isa %s arithmetic %d b %" PRId64 " hq %" PRId64 " hkv %" PRId64
          " d %" PRId64 " dv %" PRId64 " page %" PRId64 " n_pages %" PRId64
          " dtypes q %d kv %d out %d\n",
          s->seed, test_isa_name(p->isa), p->arithmetic, s->n_requests, p->n_heads_q, p->n_heads_kv,
          p->head_dim, p->head_dim_v, p->page_size_tokens, p->n_pages, p->dtype_q, p->dtype_kv,
          p->dtype_out);
  fprintf(stderr,
          "  layout %d table %d format %d index %d policy %d value %" PRId64 " workers %" PRId64
          " scale %a flags %u data %d side %d alias %d trim %d strides %d pad %" PRId64
          " extra pages %" PRId64 " width %" PRId64 " lens type %d\n",
          p->layout, s->table, p->table_format, p->table_type, p->split_policy, p->split_value,
          b->batch.n_workers, (double)p->scale, p->flags, s->data, s->side, s->v_aliases_k, s->trim,
          s->stride_kind, s->stride_pad, s->extra_pages, s->extra_width, s->kv_lens_type);
  fprintf(stderr,
          "  strides q %" PRId64 " %" PRId64 " out %" PRId64 " %" PRId64 " k %" PRId64 " %" PRId64
          " %" PRId64 " v %" PRId64 " %" PRId64 " %" PRId64 "\n",
          p->q_stride_request, p->q_stride_head, p->out_stride_request, p->out_stride_head,
          p->k_stride_page, p->k_stride_token, p->k_stride_head, p->v_stride_page,
          p->v_stride_token, p->v_stride_head);
  fprintf(stderr, "  scale modes k %d v %d of dtype %d\n", p->k_scale_mode, p->v_scale_mode,
          p->dtype_scales);
  fprintf(stderr, "  window %" PRId64 " softcap %a\n", p->window_tokens, (double)p->logit_softcap);
  print_lens(s);
  print_rows(s);
}

static bool run_planned(test_batch *b, const splitkv_plan *plan, const splitkv_pool *pool) {
  const size_t bytes = splitkv_plan_workspace_bytes(plan);
  guard_buffer workspace = guard_create(bytes, b->spec.side, SPLITKV_ALIGNMENT);
  memset(workspace.data, WORKSPACE_POISON, bytes);
  memset(b->out.data, OUT_POISON, b->out.size_bytes);
  memset(b->lse.data, OUT_POISON, b->lse.size_bytes);
  splitkv_error error;
  memset(&error, 0, sizeof error);
  const splitkv_status status = splitkv_run(plan, &b->problem, &b->tensors,
                                            bytes ? workspace.data : NULL, bytes, pool, &error);
  bool ok = CHECK_MSG(status == SPLITKV_OK, "run: %s %s", error.field, error.message);
  ok &= CHECK(guard_is_intact(&workspace));
  ok &= CHECK(guard_is_intact(&b->out) && guard_is_intact(&b->lse));
  ok &= CHECK(gaps_are_untouched(b));
  guard_destroy(&workspace);
  return ok;
}

static splitkv_arithmetic class_of(const char *arithmetic) {
  return strcmp(arithmetic, "bf16") == 0   ? SPLITKV_ARITHMETIC_BF16
         : strcmp(arithmetic, "int8") == 0 ? SPLITKV_ARITHMETIC_INT8
                                           : SPLITKV_ARITHMETIC_F32;
}

bool test_class_does(splitkv_arithmetic arithmetic, splitkv_dtype dtype_kv) {
  switch (arithmetic) {
  case SPLITKV_ARITHMETIC_BF16:
    return dtype_kv == SPLITKV_BF16 || dtype_kv == SPLITKV_FP8_E4M3 || dtype_kv == SPLITKV_FP8_E5M2;
  case SPLITKV_ARITHMETIC_INT8:
    return dtype_kv == SPLITKV_INT8 || dtype_kv == SPLITKV_INT4;
  default:
    return true;
  }
}

/* The class that the plan took is one that was allowed. */
static bool note_arithmetic(test_batch *b, const splitkv_plan *plan) {
  splitkv_plan_info info;
  info.struct_size = sizeof info;
  if (!CHECK(splitkv_plan_get_info(plan, &info, NULL) == SPLITKV_OK)) return false;
  b->arithmetic = class_of(info.arithmetic);
  return CHECK(b->arithmetic == SPLITKV_ARITHMETIC_F32 ||
               (b->problem.arithmetic == b->arithmetic &&
                test_class_does(b->arithmetic, b->problem.dtype_kv)));
}

bool test_batch_run(test_batch *b, const splitkv_pool *pool) {
  splitkv_plan *plan = NULL;
  splitkv_error error;
  memset(&error, 0, sizeof error);
  const splitkv_status status = splitkv_plan_create(&b->problem, &b->batch, NULL, &plan, &error);
  bool ok = CHECK_MSG(status == SPLITKV_OK, "plan: %s %s", error.field, error.message);
  if (ok) ok = note_arithmetic(b, plan);
  if (ok) ok = run_planned(b, plan, pool);
  splitkv_plan_destroy(plan);
  if (!ok) test_batch_print(b);
  return ok;
}

static bool make_exact(test_batch *b) {
  const size_t rows = (size_t)n_results(b) + 1;
  b->exact.out = malloc(rows * (size_t)b->problem.head_dim_v * sizeof(double));
  b->exact.lse = malloc(rows * sizeof(double));
  b->exact.max_abs_score = malloc(rows * sizeof(double));
  b->exact.max_abs_v = malloc(rows * sizeof(double));
  const bool is_integer =
      b->problem.dtype_kv == SPLITKV_INT8 || b->problem.dtype_kv == SPLITKV_INT4;
  if (is_integer) { /* the bounds of the class int8 ask for more */
    b->exact.max_spread = malloc(rows * sizeof(double));
    b->exact.max_reach_v = malloc(rows * sizeof(double));
  }
  return b->exact.out && b->exact.lse && b->exact.max_abs_score && b->exact.max_abs_v &&
         (!is_integer || (b->exact.max_spread && b->exact.max_reach_v)) &&
         ref_attention(&b->problem, b->spec.kv_lens, b->spec.has_rows ? b->first_rows : NULL, 0,
                       b->spec.n_requests, &b->tensors, &b->exact) == 0;
}

bool test_batch_compare(test_batch *b, double *worst) {
  if (!b->exact.out && !CHECK(make_exact(b))) return false;
  for (int64_t row = 0; row < n_results(b); ++row) {
    const ref_row_errors e =
        ref_compare_row(&b->problem, b->arithmetic, row, b->out.data, b->tensors.lse, &b->exact);
    if (worst && e.worst > *worst) *worst = e.worst;
    if (!CHECK_MSG(e.pass,
                   "row %" PRId64 ": abs %g ulp %g lse err %g, %g of the bound; lse %g, oracle %g; "
                   "out[0] %g, oracle %g",
                   row, e.max_abs_err, e.max_ulp_err, e.lse_err, e.worst,
                   b->tensors.lse ? (double)b->tensors.lse[row] : 0.0, b->exact.lse[row],
                   ref_load(b->problem.dtype_out, test_out_row(b, row), 0),
                   b->exact.out[row * b->problem.head_dim_v])) {
      test_batch_print(b);
      return false;
    }
  }
  return true;
}

static uint64_t fnv(uint64_t digest, const unsigned char *bytes, size_t n) {
  for (size_t i = 0; i < n; ++i)
    digest = (digest ^ bytes[i]) * 0x100000001b3ULL;
  return digest;
}

uint64_t test_batch_digest(const test_batch *b) {
  uint64_t digest = 0xcbf29ce484222325ULL;
  for (int64_t row = 0; row < n_results(b); ++row)
    digest = fnv(digest, test_out_row(b, row), test_row_bytes(b));
  return b->tensors.lse ? fnv(digest, b->lse.data, b->lse.size_bytes) : digest;
}

int test_usable_isas(splitkv_isa isas[TEST_MAX_ISAS]) {
  int n = 0;
  for (int64_t i = 0; i < splitkv_kernel_set_count(); ++i) {
    splitkv_kernel_set_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    if (splitkv_kernel_set_get(i, &info, NULL) == SPLITKV_OK && info.is_usable && n < TEST_MAX_ISAS)
      isas[n++] = info.isa;
  }
  return n;
}

splitkv_arithmetic test_isa_arithmetic(splitkv_isa isa) {
  for (int64_t i = 0; i < splitkv_kernel_set_count(); ++i) {
    splitkv_kernel_set_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    if (splitkv_kernel_set_get(i, &info, NULL) == SPLITKV_OK && info.isa == isa)
      return class_of(info.arithmetic);
  }
  return SPLITKV_ARITHMETIC_F32;
}

void test_batch_use(test_batch *b, splitkv_isa isa) {
  const splitkv_arithmetic arithmetic = test_isa_arithmetic(isa);
  b->problem.isa = isa;
  if (arithmetic == SPLITKV_ARITHMETIC_F32) return;
  b->problem.arithmetic = arithmetic;
  if (splitkv_describe(&b->problem, NULL) == SPLITKV_ERROR_ISA_DTYPE)
    b->problem.isa = SPLITKV_ISA_AUTO;
}

const char *test_isa_name(splitkv_isa isa) {
  static const char *const names[] = {"auto", "scalar",     "avx2",      "avx512",
                                      "neon", "avx512bf16", "avx512vnni"};
  return (size_t)isa < sizeof names / sizeof names[0] ? names[isa] : "?";
}

static void reversed(void *context, int64_t n, void (*body)(void *body_context, int64_t i),
                     void *body_context) {
  (void)context;
  for (int64_t i = n - 1; i >= 0; --i)
    body(body_context, i);
}

splitkv_pool test_pool_reversed(void) {
  splitkv_pool pool;
  memset(&pool, 0, sizeof pool);
  pool.struct_size = sizeof pool;
  pool.parallel_for = reversed;
  return pool;
}
