/* Results against the oracle, by the contract's bounds.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "ref.h"

#include "ref_internal.h"

#include <math.h>
#include <stdbool.h>

/* Error over bound of one value; 0 where got is exactly right, HUGE_VAL where no bound helps. */
static double ratio(double error, double bound) {
  if (error == 0) return 0;
  return bound > 0 ? error / bound : HUGE_VAL;
}

/* Whether `exact` is NaN or inf, and then whether got is the same (*match). */
static bool special(double got, double exact, bool *match) {
  if (isfinite(exact)) return false;
  *match = isnan(exact) ? isnan(got) : got == exact;
  return true;
}

/* An infinity of a 16-bit format stands for the first power of two past its largest number: that
 * is one unit in the last place further. */
static double unbounded(splitkv_dtype dtype, double value) {
  return isinf(value) ? copysign(2 * ref_largest_power(dtype), value) : value;
}

static void fail(ref_row_errors *errors) {
  errors->worst = HUGE_VAL;
  errors->max_abs_err = HUGE_VAL;
  errors->max_ulp_err = HUGE_VAL;
}

static void compare_channel(splitkv_dtype dtype, double got, double exact, const ref_bounds *bounds,
                            ref_row_errors *errors) {
  bool match = true;
  if (special(got, exact, &match)) {
    if (!match) fail(errors);
    return;
  }
  if (isnan(got) || (dtype == SPLITKV_F32 && isinf(got))) {
    fail(errors);
    return;
  }
  const double target = dtype == SPLITKV_F32 ? exact : ref_round(dtype, exact);
  const double value = unbounded(dtype, got), aim = unbounded(dtype, target);
  /* In f32's subnormal range no result is nearer than half a step. */
  const double bound =
      dtype == SPLITKV_F32 ? fmax(bounds->out, 0x1p-149) : bounds->out_16bit + ref_ulp(dtype, aim);
  const double error = fabs(value - exact);
  errors->max_abs_err = fmax(errors->max_abs_err, error);
  errors->max_ulp_err = fmax(errors->max_ulp_err, error / ref_ulp(dtype, exact));
  errors->worst = fmax(errors->worst, ratio(fabs(value - aim), bound));
}

ref_bounds ref_row_bounds(const splitkv_problem *problem, splitkv_arithmetic arithmetic,
                          int64_t row, const ref_result *result) {
  const double score = result->max_abs_score[row], v = result->max_abs_v[row];
  /* With a sink, lse can be far from every score, and is one rounding away from itself. */
  const double lse = problem->flags & SPLITKV_FLAG_SINKS && isfinite(result->lse[row])
                         ? fmax(score, fabs(result->lse[row]))
                         : score;
  const double eps = 0x1p-20 * (1 + score / 8) * v;
  if (arithmetic == SPLITKV_ARITHMETIC_F32) return (ref_bounds){2 * eps, eps, 0x1p-20 * (1 + lse)};
  if (arithmetic == SPLITKV_ARITHMETIC_INT8) {
    /* Q and the weights of a tile are integers up to 32639. */
    const double spread = 0x1p-15 * result->max_spread[row];
    const double out = (0x1p-10 + 0x1p-12) * result->max_reach_v[row] + spread * v + 2 * eps;
    return (ref_bounds){out, out, spread + 0x1p-20 * (1 + lse)};
  }
  /* Weights have 8 bits; of an f32 Q the dot products see 16. Subnormals count as 0. */
  const double rough = (0x1p-8 + 0x1p-12 + 0x1p-16 * (1 + score)) * v + 0x1p-100;
  const double q_bits = problem->dtype_q == SPLITKV_F32 ? 0x1p-16 : 0x1p-20;
  return (ref_bounds){rough, rough, q_bits * (1 + lse)};
}

ref_row_errors ref_compare_row(const splitkv_problem *problem, splitkv_arithmetic arithmetic,
                               int64_t row, const void *out, const float *lse,
                               const ref_result *result) {
  const int64_t dv = problem->head_dim_v, heads = problem->n_heads_q;
  const int64_t stride_head = problem->out_stride_head ? problem->out_stride_head : dv;
  const int64_t stride_request =
      problem->out_stride_request ? problem->out_stride_request : heads * stride_head;
  const int64_t first = row / heads * stride_request + row % heads * stride_head;
  const ref_bounds bounds = ref_row_bounds(problem, arithmetic, row, result);
  ref_row_errors errors = {0, 0, 0, 0, 0};
  for (int64_t c = 0; c < dv; ++c)
    compare_channel(problem->dtype_out, ref_load(problem->dtype_out, out, first + c),
                    result->out[row * dv + c], &bounds, &errors);
  if (lse) {
    const double got = (double)lse[row], exact = result->lse[row];
    bool match = true;
    if (special(got, exact, &match) || !isfinite(got)) {
      errors.lse_err = match && !isfinite(exact) ? 0 : HUGE_VAL;
      errors.worst = fmax(errors.worst, errors.lse_err);
    } else {
      errors.lse_err = fabs(got - exact);
      errors.worst = fmax(errors.worst, ratio(errors.lse_err, bounds.lse));
    }
  }
  errors.pass = errors.worst <= 1;
  return errors;
}
