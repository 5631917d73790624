/* A problem, checked and resolved: every default filled in, every product known to fit.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_PROBLEM_H
#define SPL_PROBLEM_H

#include <splitkv/splitkv.h>

#include "cpu/kernels.h"

typedef struct spl_cache_strides {
  int64_t page, token, head; /* elements */
} spl_cache_strides;

typedef struct spl_shape {
  splitkv_problem problem; /* the caller's, in this library's full size */
  const spl_kernel_set *kernels;
  int64_t group; /* query heads per KV head */
  int64_t d_padded, dv_padded;
  int64_t kv_bytes, q_bytes, out_bytes; /* of one element */
  int64_t window; /* most tokens that a row attends to; INT64_MAX without a window */
  spl_score_rule rule;
  spl_cache_strides k, v;
  int64_t q_request, q_head, out_request, out_head; /* strides, elements */
} spl_shape;

/* Bytes of one element of a dtype; 0 for an unknown one. */
int64_t spl_dtype_bytes(splitkv_dtype dtype);
int64_t spl_index_bytes(splitkv_index_type type);

/* Copies a caller's problem of any known size into *full, zero beyond it. */
splitkv_status spl_import_problem(const splitkv_problem *problem, splitkv_problem *full,
                                  splitkv_error *error);

/* Checks the whole problem and fills *shape. Errors: those of splitkv_describe. */
splitkv_status spl_resolve(const splitkv_problem *problem, spl_shape *shape, splitkv_error *error);

#endif
