/* The oracle: naive attention in double, written from the formula.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * It takes the public structs, so that it sees exactly what the library sees, and shares no code
 * with the library: its own dtype conversion, its own walk through the block table, its own
 * softmax. It trusts its input. */
#ifndef SPLITKV_REF_H
#define SPLITKV_REF_H

#include <splitkv/splitkv.h>

/* What query row i of Q and out and query head h should be, at index i * n_heads_q + h. */
typedef struct ref_result {
  double *out; /* [n_rows, n_heads_q, head_dim_v] */
  double *lse; /* [n_rows, n_heads_q] */
  double
      *max_abs_score; /* largest |score| over the attended tokens, 0 if none; with ALiBi the largest
                       * sum of |capped score| and |bias| where weight is not negligible */
  double *max_abs_v;  /* largest |v| over the attended tokens, 0 if none */
  double *max_products; /* NULL, or: largest scale * sum_c |q[c] k[c]| over the attended tokens */
  /* NULL, or what the bounds of the class int8 speak of: scale * max_c |q[c]| * the largest
   * sum_c |k[c]|, and max_abs_v, or, where tokens of V have scales, the largest |scale| * 128
   * (INT4: 8). */
  double *max_spread, *max_reach_v;
} ref_result;

/* Computes requests [first_request, first_request + n_requests) of the batch whose lengths are
 * kv_lens[0 ..] and whose query rows are q_offsets[0 ..] (as splitkv_batch.q_offsets, int64; NULL:
 * one row of each request). Result arrays are those of the whole batch. Tokens that no row attends
 * to are not read, nor are table entries of pages without other tokens. Threads may do disjoint
 * ranges side by side. Returns 0, or -1 when memory is short. */
int ref_attention(const splitkv_problem *problem, const int64_t *kv_lens, const int64_t *q_offsets,
                  int64_t first_request, int64_t n_requests, const splitkv_tensors *tensors,
                  const ref_result *result);

/* One row's errors against the contract (docs/numerics.md, "Error bounds"). */
typedef struct ref_row_errors {
  double max_abs_err; /* |out - exact| */
  double max_ulp_err; /* |out - exact| in units in the last place of dtype_out at exact */
  double lse_err;     /* |lse - exact|, 0 where lse is NULL */
  double worst;       /* largest error / bound over channels and lse; <= 1 passes */
  int pass;
} ref_row_errors;

/* The bounds of a row of f32 results that were computed in an arithmetic class: of out, and of lse.
 * A 16-bit result may be one unit in the last place further from the correctly rounded one than
 * `out_16bit`. */
typedef struct ref_bounds {
  double out, out_16bit, lse;
} ref_bounds;
ref_bounds ref_row_bounds(const splitkv_problem *problem, splitkv_arithmetic arithmetic,
                          int64_t row, const ref_result *result);

/* Compares row `row` = i * n_heads_q + h, of query row i of Q, of `out` (dtype_out, strides of the
 * problem) and lse, which were computed in the given arithmetic class. */
ref_row_errors ref_compare_row(const splitkv_problem *problem, splitkv_arithmetic arithmetic,
                               int64_t row, const void *out, const float *lse,
                               const ref_result *result);

/* How far out may be from the exact value in the arithmetic of the Ascend kernel, before it is
 * rounded to 16 bits (docs/numerics.md, "The Ascend kernel's arithmetic"). result->max_products
 * must be there; problem is one that the kernel does. */
double ref_ascend_bound(const splitkv_problem *problem, int64_t kv_len, int64_t row,
                        const ref_result *result);

/* One row's errors against that bound, and against the tolerance of pull request 683's own tests:
 * |out - exact| <= 2e-2 + 5e-3 |exact|. */
typedef struct ref_ascend_errors {
  double max_abs_err; /* |out - exact| */
  double max_ulp_err; /* |out - exact| in units in the last place of dtype_out at exact */
  double worst;       /* largest error / bound over channels; <= 1 passes */
  double worst_pr683; /* largest error / tolerance; <= 1 passes */
  int pass, pass_pr683;
} ref_ascend_errors;

/* Compares row `row` = r * n_heads_q + h of `out` (dtype_out, strides of the problem), a result of
 * the Ascend kernel or its model; kv_len is that of request r. */
ref_ascend_errors ref_ascend_compare_row(const splitkv_problem *problem, int64_t kv_len,
                                         int64_t row, const void *out, const ref_result *result);

/* One element of a dtype as double, and the nearest element (ties to even) of a double. Of a
 * quantised dtype its code as it stands (INT4: 0 .. 15), without scale and zero point; codes that
 * do not reach as far as the double are the last ones. */
double ref_load(splitkv_dtype dtype, const void *data, int64_t index);
void ref_store(splitkv_dtype dtype, void *data, int64_t index, double value);
size_t ref_dtype_size(splitkv_dtype dtype); /* bytes; 0 of INT4 */
int ref_dtype_bits(splitkv_dtype dtype);

#endif
