/* Caches of codes: a plain quantiser, and where scales and zero points lie.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_CODES_H
#define SPLITKV_TOOL_CODES_H

#include "case.h"

/* Bytes of n elements of any dtype. SIZE_MAX for an n that is negative or does not fit. */
size_t codes_bytes(splitkv_dtype dtype, int64_t n);

/* Writes the code of element `index` that is nearest to `value`, already divided by the scale: ties
 * to the even code, numbers out of range to the last one, so no infinity. zero is the zero point of
 * INT8, and of INT4 (8 where there is none). */
void codes_store(splitkv_dtype dtype, void *data, int64_t index, double value, int zero);

/* What the smallest and the largest of the elements that share a scale ask for: the scale as a
 * number of dtype_scales, above 0, and the zero point. */
typedef struct code_scale {
  double scale;
  int zero;
} code_scale;
code_scale codes_scale(const tool_case *c, double least, double most);

/* Scales of a cache of so many channels, and the place of the one of an element. */
int64_t codes_n_scales(const tool_case *c, splitkv_scale_mode mode, int64_t channels);
int64_t codes_scale_index(const tool_case *c, splitkv_scale_mode mode, int64_t channels,
                          int64_t page, int64_t token, int64_t head, int64_t channel);
/* Neighbouring channels of a row that share a scale: at most so many, from a multiple on. */
int64_t codes_channels_per_scale(splitkv_scale_mode mode, int64_t channels);
/* Does each token have scales of its own? */
int codes_is_per_token(splitkv_scale_mode mode);

#endif
