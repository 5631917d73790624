/* SPDX-License-Identifier: Apache-2.0 */
#include "verify.h"

#include "data.h"
#include "rows.h"
#include "tool.h"

#include "ref.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct oracle_job {
  const tool_case *c;
  const ref_result *result;
  atomic_int failed;
} oracle_job;

static void compute_requests(void *context, int64_t first, int64_t end) {
  oracle_job *job = context;
  const tool_case *c = job->c;
  if (ref_attention(&c->problem, c->kv_lens, c->q_offsets, first, end - first, &c->tensors,
                    job->result)) {
    atomic_store(&job->failed, 1);
  }
}

int oracle_compute(oracle *o, const tool_case *c, const char *name, const splitkv_pool *pool) {
  size_t n_rows = (size_t)(c->n_rows * c->problem.n_heads_q);
  size_t n_out = n_rows * (size_t)c->problem.head_dim_v;
  o->memory = malloc((n_out + 5 * n_rows + 1) * sizeof *o->memory);
  o->result = malloc(sizeof *o->result);
  oracle_job job = {.c = c, .result = o->result};
  if (o->memory && o->result) {
    *o->result = (ref_result){.out = o->memory,
                              .lse = o->memory + n_out,
                              .max_abs_score = o->memory + n_out + n_rows,
                              .max_abs_v = o->memory + n_out + 2 * n_rows};
    if (c->spec->device == PROBLEM_ASCEND) { /* its bound asks for more */
      o->result->max_products = o->memory + n_out + 3 * n_rows;
    } else if (c->problem.arithmetic == SPLITKV_ARITHMETIC_INT8) { /* and so does this one */
      o->result->max_spread = o->memory + n_out + 3 * n_rows;
      o->result->max_reach_v = o->memory + n_out + 4 * n_rows;
    }
    data_parallel(pool, c->batch.n_requests, 1, compute_requests, &job);
  }
  if (!o->memory || !o->result || atomic_load(&job.failed)) {
    oracle_free(o);
    return tool_unsupported("%s: out of memory for the oracle", name);
  }
  return TOOL_OK;
}

void oracle_free(oracle *o) {
  free(o->memory);
  free(o->result);
  *o = (oracle){0};
}

/* The larger one; a NaN counts as infinite. */
static double larger(double a, double b) {
  return isnan(b) ? INFINITY : b > a ? b : a;
}

/* Adds one row's errors. Returns whether it is out of bounds. */
static int add_row(verdict *v, int64_t row, const ref_row_errors *e, double *worst_bad) {
  double ratio = isnan(e->worst) ? INFINITY : e->worst;
  if (ratio > *worst_bad) {
    *worst_bad = ratio;
    v->worst_row = row;
  }
  v->max_abs_err = larger(v->max_abs_err, e->max_abs_err);
  v->max_ulp_err = larger(v->max_ulp_err, e->max_ulp_err);
  v->lse_err = larger(v->lse_err, e->lse_err);
  v->worst = larger(v->worst, e->worst);
  return !e->pass;
}

static void explain_bad_rows(verdict *v, const tool_case *c, int64_t n_bad, int64_t n_rows) {
  if (n_bad == 0) {
    return;
  }
  int64_t row = v->worst_row / c->problem.n_heads_q, request = rows_request_of(c, row);
  char of_request[40] = "";
  if (!problem_spec_is_decode(c->spec)) {
    snprintf(of_request, sizeof of_request, " row %lld", (long long)(row - c->q_offsets[request]));
  }
  snprintf(v->reason, sizeof v->reason,
           "%lld of %lld rows are out of bounds, the worst %.3g times, request %lld%s head %lld",
           (long long)n_bad, (long long)n_rows, v->worst, (long long)request, of_request,
           (long long)(v->worst_row % c->problem.n_heads_q));
}

verdict oracle_compare(const oracle *o, const tool_case *c) {
  verdict v = {.pass = 1, .worst_row = -1};
  int64_t n_rows = c->n_rows * c->problem.n_heads_q;
  int64_t n_bad = 0;
  double worst_bad = -1;
  splitkv_arithmetic arithmetic =
      strcmp(c->info.arithmetic, "f32") == 0 ? SPLITKV_ARITHMETIC_F32 : c->problem.arithmetic;
  for (int64_t row = 0; row < n_rows; row++) {
    ref_row_errors e =
        ref_compare_row(&c->problem, arithmetic, row, c->tensors.out, c->tensors.lse, o->result);
    n_bad += add_row(&v, row, &e, &worst_bad);
  }
  const char *overrun = case_find_overrun(c);
  explain_bad_rows(&v, c, n_bad, n_rows);
  if (n_bad == 0 && overrun) {
    snprintf(v.reason, sizeof v.reason, "memory outside of the %s was written", overrun);
  }
  v.pass = !v.reason[0];
  return v;
}

/* sqrt(sum of squared errors / sum of squares); 0 where all is 0. */
static double relative_error(const oracle *o, const float *out, int64_t n) {
  double errors = 0, squares = 0;
  for (int64_t i = 0; i < n; i++) {
    double exact = o->result->out[i], error = (double)out[i] - exact;
    errors += error * error;
    squares += exact * exact;
  }
  return errors == 0 ? 0 : sqrt(errors / squares);
}

verdict oracle_compare_peer(const oracle *o, const tool_case *c, const float *out,
                            double *relative_l2) {
  verdict v = {.pass = 1, .worst_row = -1};
  int64_t dv = c->problem.head_dim_v, n_rows = c->n_rows * c->problem.n_heads_q;
  splitkv_problem dense = c->problem;
  dense.out_stride_head = dense.out_stride_request = 0;
  int64_t n_bad = 0;
  double worst_bad = -1;
  for (int64_t row = 0; row < n_rows; row++) {
    /* Of one query row and one head: the comparison looks at no other. */
    double exact_score = o->result->max_abs_score[row], exact_v = o->result->max_abs_v[row];
    ref_result of_row = {.out = o->result->out + row * dv,
                         .lse = o->result->lse + row,
                         .max_abs_score = &exact_score,
                         .max_abs_v = &exact_v};
    float rounded[SPLITKV_MAX_HEAD_DIM];
    for (int64_t i = 0; i < dv; i++) {
      ref_store(c->problem.dtype_out, rounded, i, (double)out[row * dv + i]);
    }
    ref_row_errors e = ref_compare_row(&dense, SPLITKV_ARITHMETIC_F32, 0, rounded, NULL, &of_row);
    n_bad += add_row(&v, row, &e, &worst_bad);
  }
  *relative_l2 = relative_error(o, out, n_rows * dv);
  explain_bad_rows(&v, c, n_bad, n_rows);
  v.pass = n_bad == 0;
  return v;
}

static int is_untouched(const zoned *buffer) {
  for (size_t i = 0; i < buffer->size_bytes; i++) {
    if (buffer->data[i] != 0xff) {
      return 0;
    }
  }
  return 1;
}

int verify_memory_contract(tool_case *c, const splitkv_pool *pool, char *reason, size_t capacity) {
  if (c->info.workspace_bytes > c->bound_bytes) {
    snprintf(reason, capacity, "the plan's workspace of %zu bytes is above the bound of %zu",
             c->info.workspace_bytes, c->bound_bytes);
    return 0;
  }
  if (c->info.workspace_bytes == 0) {
    return 1;
  }
  case_poison(c);
  splitkv_error error = {0};
  splitkv_status status = splitkv_run(c->plan, &c->problem, &c->tensors, c->workspace.data,
                                      c->info.workspace_bytes - 1, pool, &error);
  if (status != SPLITKV_ERROR_WORKSPACE_SIZE) {
    snprintf(reason, capacity, "a workspace that is one byte short got %s",
             splitkv_status_name(status));
    return 0;
  }
  if (!is_untouched(&c->out) || !is_untouched(&c->lse) || !is_untouched(&c->workspace)) {
    snprintf(reason, capacity, "a run that was refused wrote to its outputs");
    return 0;
  }
  return 1;
}
