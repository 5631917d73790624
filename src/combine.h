/* Merging partial results of one row: the one arithmetic that run and splitkv_merge share.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_COMBINE_H
#define SPL_COMBINE_H

#include <stdint.h>

#include <splitkv/splitkv.h>

#include "cpu/kernels.h"

/* lse of a row whose weights 2^(score - max) sum to `weight`: (max + log2 weight) ln 2. */
float spl_lse(float max, float weight);

/* A row being merged: sum of weights and of weighted rows, relative to e^max_lse. */
typedef struct spl_combined {
  const spl_kernel_set *kernels;
  double weight;
  double sum[SPLITKV_MAX_HEAD_DIM];
} spl_combined;

void spl_combine_begin(spl_combined *row, const spl_kernel_set *kernels, int64_t n);

/* Adds a partial row[0..n) / divisor of log-sum-exp `lse`; max_lse is the largest of all the row's
 * partials. divisor is 1 for a row that is normalised already; 0 leaves the row as it is. */
void spl_combine_add(spl_combined *row, const float *partial, int64_t n, float divisor, float lse,
                     float max_lse);

/* Adds a sink: a partial of log-sum-exp `sink` whose row is 0. */
void spl_combine_add_sink(spl_combined *row, float sink, float max_lse);

/* Ends the row: out[0..n) in f32 and the merged lse. */
float spl_combine_end(const spl_combined *row, int64_t n, float max_lse, float *out);

#endif
