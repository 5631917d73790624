/* Arithmetic of the model: 16-bit conversions and matrix products.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_ASCEND_MODEL_MATH_H
#define SPL_ASCEND_MODEL_MATH_H

#include <stdbool.h>
#include <stdint.h>

/* One row of n 16-bit elements as f32, exactly. */
void spl_model_widen(bool is_bf16, const uint16_t *from, int64_t n, float *to);

/* The nearest 16-bit elements, ties to even; what is too large for f16 becomes infinite. */
void spl_model_narrow(bool is_bf16, const float *from, int64_t n, uint16_t *to);

/* to[c][r] = from[r][c]: rows of `from` are n_columns long, those of `to` to_stride. */
void spl_model_transpose(const float *from, int64_t n_rows, int64_t n_columns, float *to,
                         int64_t to_stride);

/* c = a b in f32: a is [n_rows, n_inner] with rows a_stride apart, b [n_inner, n_columns] and
 * c [n_rows, n_columns] with rows b_stride and c_stride apart. n_columns is a multiple of 4. */
void spl_model_multiply(const float *a, int64_t a_stride, const float *b, int64_t b_stride,
                        int64_t n_rows, int64_t n_inner, int64_t n_columns, float *c,
                        int64_t c_stride);

#endif
