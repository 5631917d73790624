/* SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "checked.h"
#include "error.h"
#include "problem.h"

static splitkv_status check_index_array(const char *field, const char *type_field,
                                        const void *array, splitkv_index_type type, bool needed,
                                        splitkv_error *error) {
  if (spl_index_bytes(type) == 0) {
    return spl_fail(error, SPLITKV_ERROR_INDEX_TYPE, type_field, (int)type, "%d is no index type",
                    (int)type);
  }
  return spl_check_pointer(error, field, array, needed, spl_index_bytes(type));
}

splitkv_status spl_import_batch(const splitkv_batch *batch, splitkv_batch *full,
                                splitkv_error *error) {
  splitkv_status status = spl_import(error, "batch.struct_size", batch,
                                     offsetof(splitkv_batch, q_offsets), full, sizeof *full);
  if (status != SPLITKV_OK) return status;
  if (full->n_requests < 0) {
    return spl_fail(error, SPLITKV_ERROR_N_REQUESTS, "batch.n_requests", full->n_requests,
                    "%lld is negative", (long long)full->n_requests);
  }
  if (full->reserved != 0) {
    return spl_fail(error, SPLITKV_ERROR_RESERVED, "batch.reserved", full->reserved,
                    "%u is not zero", (unsigned)full->reserved);
  }
  status = check_index_array("batch.kv_lens", "batch.kv_lens_type", full->kv_lens,
                             full->kv_lens_type, full->n_requests > 0, error);
  if (status != SPLITKV_OK) return status;
  status = check_index_array("batch.q_offsets", "batch.q_offsets_type", full->q_offsets,
                             full->q_offsets_type, false, error);
  if (status != SPLITKV_OK) return status;
  if (full->n_prefixes < 0) {
    return spl_fail(error, SPLITKV_ERROR_PREFIX, "batch.n_prefixes", full->n_prefixes,
                    "%lld is negative", (long long)full->n_prefixes);
  }
  return spl_check_pointer(error, "batch.prefixes", full->prefixes, full->n_prefixes > 0,
                           (int64_t)sizeof(int64_t));
}

splitkv_status spl_check_prefixes(const splitkv_batch *batch, splitkv_error *error) {
  int64_t free = 0; /* requests from here on have had none */
  for (int64_t i = 0; i < batch->n_prefixes; i++) {
    const splitkv_prefix *x = &batch->prefixes[i];
    char field[48];
    (void)snprintf(field, sizeof field, "batch.prefixes[%lld]", (long long)i);
    if (x->first_request < free || x->n_requests < 1 ||
        x->n_requests > batch->n_requests - x->first_request) {
      return spl_fail(error, SPLITKV_ERROR_PREFIX, field, x->first_request,
                      "%lld requests from %lld on are not requests %lld..%lld, each once",
                      (long long)x->n_requests, (long long)x->first_request, (long long)free,
                      (long long)batch->n_requests - 1);
    }
    free = x->first_request + x->n_requests;
    for (int64_t r = x->first_request; r < free; r++) {
      if (x->n_tokens >= 0 && x->n_tokens <= spl_kv_len(batch, r)) continue;
      return spl_fail(error, SPLITKV_ERROR_PREFIX, field, x->n_tokens,
                      "%lld tokens are not 0..%lld, the length of request %lld",
                      (long long)x->n_tokens, (long long)spl_kv_len(batch, r), (long long)r);
    }
  }
  return SPLITKV_OK;
}

splitkv_status spl_check_q_offsets(const splitkv_batch *batch, splitkv_error *error) {
  int64_t before = 0;
  for (int64_t r = 0; batch->q_offsets != NULL && r <= batch->n_requests; r++) {
    const int64_t offset = spl_q_offset(batch, r);
    if (r == 0 ? offset == 0 : offset >= before) {
      before = offset;
      continue;
    }
    char field[48];
    (void)snprintf(field, sizeof field, "batch.q_offsets[%lld]", (long long)r);
    return spl_fail(error, SPLITKV_ERROR_Q_OFFSETS, field, offset, "%lld is not %s%lld",
                    (long long)offset, r == 0 ? "" : "at least the one before it, ",
                    (long long)before);
  }
  return SPLITKV_OK;
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
