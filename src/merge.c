/* splitkv_merge: partial results over disjoint KV ranges become one.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "checked.h"
#include "combine.h"
#include "cpu/dispatch.h"
#include "error.h"
#include "problem.h"

static splitkv_status check_shape(const splitkv_merge_args *args, splitkv_error *error) {
  const struct {
    const char *field;
    int64_t value, lowest, highest;
  } counts[] = {{"args.n_states", args->n_states, 0, INT64_MAX},
                {"args.n_rows", args->n_rows, 0, INT64_MAX},
                {"args.head_dim_v", args->head_dim_v, 1, SPLITKV_MAX_HEAD_DIM}};
  for (int i = 0; i < 3; i++) {
    if (counts[i].value >= counts[i].lowest && counts[i].value <= counts[i].highest) continue;
    return spl_fail(error, SPLITKV_ERROR_MERGE_SHAPE, counts[i].field, counts[i].value,
                    "%lld is outside %lld..%lld", (long long)counts[i].value,
                    (long long)counts[i].lowest, (long long)counts[i].highest);
  }
  if (spl_dtype_bytes(args->dtype_out) == 0) {
    return spl_fail(error, SPLITKV_ERROR_DTYPE, "args.dtype_out", (int)args->dtype_out,
                    "%d is no dtype", (int)args->dtype_out);
  }
  int64_t rows = 0, bytes = 0;
  if (!spl_mul(spl_max(args->n_states, 1), args->n_rows, &rows) ||
      !spl_mul(rows, args->head_dim_v * (int64_t)sizeof(float), &bytes)) {
    return spl_fail(error, SPLITKV_ERROR_OVERFLOW, "args.n_rows", args->n_rows,
                    "with %lld rows a size does not fit in 64 bits", (long long)args->n_rows);
  }
  return SPLITKV_OK;
}

static splitkv_status check_pointers(const splitkv_merge_args *args, splitkv_error *error) {
  const int has_input = args->n_states > 0 && args->n_rows > 0;
  const struct {
    const char *field;
    const void *pointer;
    int needed;
    int64_t alignment;
  } pointers[] = {
      {"args.out_parts", args->out_parts, has_input, (int64_t)sizeof(float)},
      {"args.lse_parts", args->lse_parts, has_input, (int64_t)sizeof(float)},
      {"args.out", args->out, args->n_rows > 0, spl_dtype_bytes(args->dtype_out)},
      {"args.lse", args->lse, 0, (int64_t)sizeof(float)},
  };
  for (int i = 0; i < 4; i++) {
    const splitkv_status status = spl_check_pointer(error, pointers[i].field, pointers[i].pointer,
                                                    pointers[i].needed, pointers[i].alignment);
    if (status != SPLITKV_OK) return status;
  }
  return SPLITKV_OK;
}

static void merge_row(const splitkv_merge_args *args, const spl_kernel_set *kernels, int64_t row) {
  const int64_t n = args->head_dim_v;
  float max_lse = -INFINITY;
  for (int64_t s = 0; s < args->n_states; s++) {
    const float lse = args->lse_parts[s * args->n_rows + row];
    if (lse > max_lse) max_lse = lse;
  }
  spl_combined sum;
  spl_combine_begin(&sum, kernels, n);
  for (int64_t s = 0; s < args->n_states; s++) {
    const int64_t part = s * args->n_rows + row;
    spl_combine_add(&sum, args->out_parts + part * n, n, 1.0f, args->lse_parts[part], max_lse);
  }
  float out[SPLITKV_MAX_HEAD_DIM];
  const float lse = spl_combine_end(&sum, n, max_lse, out);
  unsigned char *dst = (unsigned char *)args->out + row * n * spl_dtype_bytes(args->dtype_out);
  kernels->store_row[args->dtype_out](dst, out, n);
  if (args->lse != NULL) args->lse[row] = lse;
}

splitkv_status splitkv_merge(const splitkv_merge_args *args, splitkv_error *error) {
  if (args == NULL) return spl_fail_null(error, "args");
  splitkv_status status = spl_check_struct_size(error, "args.struct_size", args->struct_size,
                                                sizeof *args, sizeof *args);
  if (status != SPLITKV_OK) return status;
  status = check_shape(args, error);
  if (status != SPLITKV_OK) return status;
  status = check_pointers(args, error);
  if (status != SPLITKV_OK) return status;
  const spl_kernel_set *kernels = NULL;
  status =
      spl_choose_kernels(SPLITKV_ISA_AUTO, SPLITKV_ARITHMETIC_F32, SPLITKV_F32, 1, &kernels, error);
  if (status != SPLITKV_OK) return status;
  for (int64_t row = 0; row < args->n_rows; row++)
    merge_row(args, kernels, row);
  return SPLITKV_OK;
}
