/* What the oracle's own files share.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_REF_INTERNAL_H
#define SPLITKV_REF_INTERNAL_H

#include <splitkv/splitkv.h>

/* Elements first .. first+n-1 as doubles. */
void ref_load_row(splitkv_dtype dtype, const void *data, int64_t first, int64_t n, double *row);

/* `value` rounded to the nearest element of dtype (ties to even), inf past the largest. */
double ref_round(splitkv_dtype dtype, double value);

/* The unit in the last place of dtype at a finite `value`. */
double ref_ulp(splitkv_dtype dtype, double value);

/* The largest power of two that dtype holds. */
double ref_largest_power(splitkv_dtype dtype);

#endif
