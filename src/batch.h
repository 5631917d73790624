/* A batch as its caller gives it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_BATCH_H
#define SPL_BATCH_H

#include <splitkv/splitkv.h>

/* Copies a caller's batch of any known size into *full, zero beyond it, and checks everything but
 * the lengths and offsets themselves and the number of workers. Errors: NULL_POINTER, STRUCT_SIZE,
 * N_REQUESTS, INDEX_TYPE, TENSOR_ALIGNMENT, RESERVED. */
splitkv_status spl_import_batch(const splitkv_batch *batch, splitkv_batch *full,
                                splitkv_error *error);

/* The length of request r; the batch has been checked. */
static inline int64_t spl_kv_len(const splitkv_batch *batch, int64_t r) {
  return batch->kv_lens_type == SPLITKV_I32 ? ((const int32_t *)batch->kv_lens)[r]
                                            : ((const int64_t *)batch->kv_lens)[r];
}

/* The first query row of request r, 0 <= r <= n_requests. */
static inline int64_t spl_q_offset(const splitkv_batch *batch, int64_t r) {
  if (batch->q_offsets == NULL) return r;
  return batch->q_offsets_type == SPLITKV_I32 ? ((const int32_t *)batch->q_offsets)[r]
                                              : ((const int64_t *)batch->q_offsets)[r];
}

/* Refuses offsets that do not begin at 0 or do not ascend, and prefixes out of range or order. The
 * lengths have been checked. */
splitkv_status spl_check_q_offsets(const splitkv_batch *batch, splitkv_error *error);
splitkv_status spl_check_prefixes(const splitkv_batch *batch, splitkv_error *error);

/* Tokens that a row of the block table has pages for; INT64_MAX for tables without rows. */
int64_t spl_table_row_tokens(const splitkv_problem *problem);

/* Refuses length `length` of request r: KV_LEN where it is negative, else KV_LEN_TABLE. */
splitkv_status spl_fail_kv_len(splitkv_error *error, int64_t r, int64_t length, int64_t most);

#endif
