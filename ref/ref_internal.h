/* What the oracle's own files share.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_REF_INTERNAL_H
#define SPLITKV_REF_INTERNAL_H

#include <splitkv/splitkv.h>

/* Elements first .. first+n-1 as doubles. */
void ref_load_row(splitkv_dtype dtype, const void *data, int64_t first, int64_t n, double *row);

/* The head_dim codes of a token of K (or the head_dim_v ones of V) become elements: the scale times
 * (code - zero point), rounded once to f32 (docs/numerics.md). Of other dtypes they are already. */
void ref_dequantise(const splitkv_problem *problem, const splitkv_tensors *tensors, int is_v,
                    int64_t page, int64_t slot, int64_t head, double *row);

/* The largest |element| that the scale of a token of V allows for; 0 where tokens have none. */
double ref_reach_v(const splitkv_problem *problem, const splitkv_tensors *tensors, int64_t page,
                   int64_t slot, int64_t head);

/* Index of the scale of channel c, in the shapes of splitkv_scale_mode. */
int64_t ref_scale_index(const splitkv_problem *problem, splitkv_scale_mode mode, int64_t dim,
                        int64_t page, int64_t slot, int64_t head, int64_t c);

/* `value` rounded to the nearest element of dtype (ties to even), inf past the largest. */
double ref_round(splitkv_dtype dtype, double value);

/* The unit in the last place of dtype at a finite `value`. */
double ref_ulp(splitkv_dtype dtype, double value);

/* The largest power of two that dtype holds. */
double ref_largest_power(splitkv_dtype dtype);

#endif
