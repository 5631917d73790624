/* Scales and zero points of quantised KV: from the tensors to the kernels.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_SCALES_H
#define SPL_SCALES_H

#include "problem.h"

/* The same for K and for V. */
typedef struct spl_scale_tensors {
  const spl_quant *quant;
  const void *scales;
  const int8_t *zeros;
} spl_scale_tensors;

/* What of *codes follows from the problem alone, except where the rows of a tile lie. */
void spl_describe_codes(const spl_shape *shape, const spl_quant *quant, spl_codes *codes);

/* And from the KV head. */
void spl_begin_codes(const spl_shape *shape, const spl_scale_tensors *tensors, int64_t head,
                     int64_t dim, spl_codes *codes);

/* Where scales lie with tokens: numbers of the rows of n tokens of KV head 0, which have slots of
 * one page from `slot` on. */
void spl_find_scale_rows(const splitkv_problem *problem, int64_t page, int64_t slot, int64_t n,
                         int64_t *rows);

/* Asks for the scales of n tokens of one page, the first of which has that row, and of n_heads side
 * by side from `head` on. */
void spl_ask_for_scales(const spl_shape *shape, const spl_scale_tensors *tensors, int64_t head,
                        int64_t n_heads, int64_t scale_row, int64_t n);

/* The scales of the n tokens of a tile, n > 0, if the kernels want any; scale_rows has the rows of
 * n rounded up to SPL_LANES. */
void spl_load_scale_rows(const spl_shape *shape, const spl_scale_tensors *tensors, int64_t head,
                         const int64_t *scale_rows, int64_t n, const spl_codes *codes);

/* NULL_POINTER, TENSOR_ALIGNMENT and TENSOR_UNUSED of scales and zero points. */
splitkv_status spl_check_scales(const spl_shape *shape, const splitkv_tensors *tensors,
                                bool attended, splitkv_error *error);

#endif
