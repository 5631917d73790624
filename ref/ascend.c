/* Results of the Ascend kernel's arithmetic against the oracle.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "ref.h"

#include "ref_internal.h"

#include <math.h>

/* The tolerance of the pull request's tests. */
#define PR683_RTOL 5e-3
#define PR683_ATOL 2e-2

/* Splits that the combine can take, each with an addition and a weight. */
#define MAX_SPLITS 64

double ref_ascend_bound(const splitkv_problem *problem, int64_t kv_len, int64_t row,
                        const ref_result *result) {
  if (kv_len == 0) return 0;
  const double u = 0x1p-24, n = (double)kv_len, page = (double)problem->page_size_tokens;
  const double score = result->max_abs_score[row], products = result->max_products[row];
  const double tiles = ceil(n / page), terms = fmin(n, 2 * page) + tiles;
  /* Weights are rounded in the numerator only. f16 has a last subnormal. */
  const double weights = problem->dtype_out == SPLITKV_BF16 ? 0x1p-8 : 0x1p-11 + n * 0x1p-25;
  const double scores = (double)problem->head_dim * products + 8 * score;
  const double sums = 5 * tiles + 2 * terms;
  const double splits = 8 * (score + log(n)) + MAX_SPLITS + 16;
  return result->max_abs_v[row] * (weights + u * (scores + sums + splits)) * (1 + 0x1p-7);
}

static double ratio_of(double error, double bound) {
  if (error == 0) return 0;
  return bound > 0 && !isnan(error) ? error / bound : HUGE_VAL;
}

ref_ascend_errors ref_ascend_compare_row(const splitkv_problem *problem, int64_t kv_len,
                                         int64_t row, const void *out, const ref_result *result) {
  const int64_t d = problem->head_dim_v, heads = problem->n_heads_q;
  const int64_t stride_head = problem->out_stride_head ? problem->out_stride_head : d;
  const int64_t stride_request =
      problem->out_stride_request ? problem->out_stride_request : heads * stride_head;
  const int64_t first = row / heads * stride_request + row % heads * stride_head;
  const double bound = ref_ascend_bound(problem, kv_len, row, result);
  const splitkv_dtype dtype = problem->dtype_out;
  ref_ascend_errors errors = {0};
  for (int64_t c = 0; c < d; ++c) {
    const double got = ref_load(dtype, out, first + c), exact = result->out[row * d + c];
    const double target = ref_round(dtype, exact), error = fabs(got - exact);
    if (got == target && isinf(got)) continue;
    /* A result within the bound may be rounded one unit further than the exact value is. */
    const double most = kv_len == 0 ? 0 : bound + ref_ulp(dtype, target);
    errors.max_abs_err = fmax(errors.max_abs_err, isnan(error) ? HUGE_VAL : error);
    errors.max_ulp_err =
        fmax(errors.max_ulp_err, isnan(error) ? HUGE_VAL : error / ref_ulp(dtype, exact));
    errors.worst = fmax(errors.worst, ratio_of(fabs(got - target), most));
    errors.worst_pr683 =
        fmax(errors.worst_pr683, ratio_of(error, PR683_ATOL + PR683_RTOL * fabs(exact)));
  }
  errors.pass = errors.worst <= 1;
  errors.pass_pr683 = errors.worst_pr683 <= 1;
  return errors;
}
