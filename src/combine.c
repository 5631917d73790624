/* out = sum_i w_i out_i / sum_i w_i with w_i = e^(lse_i - max lse), in ascending i.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Weights are rounded to f32, so that a product of weight and element is exact in double: the sums
 * have the same bits with and without fused multiply-add, in vectors of any width. */
#include "combine.h"

#include <math.h>
#include <string.h>

#include "elementary.h"

static float canonical(float x) {
  return x == x ? x : (float)NAN;
}

float spl_lse(float max, float weight) {
  if (weight == 0) return -INFINITY;
  const double ln2 = 0x1.62e42fefa39efp-1;
  return canonical((float)((double)max * ln2 + spl_ln((double)weight)));
}

void spl_combine_begin(spl_combined *row, const spl_kernel_set *kernels, int64_t n) {
  row->kernels = kernels;
  row->weight = 0;
  memset(row->sum, 0, (size_t)n * sizeof row->sum[0]);
}

/* e^(lse - max), in f32. A partial of +inf takes all: its weight is inf, so that out is NaN. */
static float partial_weight(float lse, float max_lse) {
  if (lse == INFINITY) return INFINITY;
  return (float)spl_exp((double)lse - (double)max_lse);
}

void spl_combine_add(spl_combined *row, const float *partial, int64_t n, float divisor, float lse,
                     float max_lse) {
  if (lse == -INFINITY) return; /* attended to nothing */
  const double weight = (double)partial_weight(lse, max_lse);
  const float d = divisor == 0 ? 1.0f : divisor;
  row->weight += weight;
  row->kernels->add_partial(row->sum, partial, n, d, weight);
}

void spl_combine_add_sink(spl_combined *row, float sink, float max_lse) {
  if (sink != -INFINITY) row->weight += (double)partial_weight(sink, max_lse);
}

float spl_combine_end(const spl_combined *row, int64_t n, float max_lse, float *out) {
  const double weight = row->weight == 0 ? 1 : row->weight;
  row->kernels->end_sum(out, row->sum, n, weight);
  if (row->weight == 0) return -INFINITY;
  return canonical((float)((double)max_lse + spl_ln(row->weight)));
}
