/* SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"

#include <stdio.h>

#include "checked.h"
#include "error.h"
#include "problem.h"

splitkv_status spl_check_batch(const splitkv_batch *batch, splitkv_error *error) {
  if (batch == NULL) return spl_fail_null(error, "batch");
  const splitkv_status status = spl_check_struct_size(
      error, "batch.struct_size", batch->struct_size, sizeof *batch, sizeof *batch);
  if (status != SPLITKV_OK) return status;
  if (batch->n_requests < 0) {
    return spl_fail(error, SPLITKV_ERROR_N_REQUESTS, "batch.n_requests", batch->n_requests,
                    "%lld is negative", (long long)batch->n_requests);
  }
  if (spl_index_bytes(batch->kv_lens_type) == 0) {
    return spl_fail(error, SPLITKV_ERROR_INDEX_TYPE, "batch.kv_lens_type", (int)batch->kv_lens_type,
                    "%d is no index type", (int)batch->kv_lens_type);
  }
  return spl_check_pointer(error, "batch.kv_lens", batch->kv_lens, batch->n_requests > 0,
                           spl_index_bytes(batch->kv_lens_type));
}

int64_t spl_table_row_tokens(const splitkv_problem *problem) {
  int64_t tokens = INT64_MAX;
  if (problem->table_format == SPLITKV_TABLE_DENSE &&
      !spl_mul(problem->table_width, problem->page_size_tokens, &tokens)) {
    return INT64_MAX;
  }
  return tokens;
}

splitkv_status spl_fail_kv_len(splitkv_error *error, int64_t r, int64_t length, int64_t most) {
  char field[48];
  (void)snprintf(field, sizeof field, "batch.kv_lens[%lld]", (long long)r);
  if (length < 0) {
    return spl_fail(error, SPLITKV_ERROR_KV_LEN, field, length, "%lld is negative",
                    (long long)length);
  }
  return spl_fail(error, SPLITKV_ERROR_KV_LEN_TABLE, field, length,
                  "%lld tokens do not fit in a table row of %lld tokens", (long long)length,
                  (long long)most);
}
