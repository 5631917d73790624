/* A batch as its caller gives it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_BATCH_H
#define SPL_BATCH_H

#include <splitkv/splitkv.h>

/* Checks everything but the lengths themselves and the number of workers. Errors: NULL_POINTER,
 * STRUCT_SIZE, N_REQUESTS, INDEX_TYPE, TENSOR_ALIGNMENT. */
splitkv_status spl_check_batch(const splitkv_batch *batch, splitkv_error *error);

/* The length of request r; the batch has been checked. */
static inline int64_t spl_kv_len(const splitkv_batch *batch, int64_t r) {
  return batch->kv_lens_type == SPLITKV_I32 ? ((const int32_t *)batch->kv_lens)[r]
                                            : ((const int64_t *)batch->kv_lens)[r];
}

/* Tokens that a row of the block table has pages for; INT64_MAX for tables without rows. */
int64_t spl_table_row_tokens(const splitkv_problem *problem);

/* Refuses length `length` of request r: KV_LEN where it is negative, else KV_LEN_TABLE. */
splitkv_status spl_fail_kv_len(splitkv_error *error, int64_t r, int64_t length, int64_t most);

#endif
