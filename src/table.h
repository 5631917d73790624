/* The block table as its caller gives it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_TABLE_H
#define SPL_TABLE_H

#include <splitkv/splitkv.h>

static inline int64_t spl_load_index(splitkv_index_type type, const void *array, int64_t i) {
  return type == SPLITKV_I32 ? ((const int32_t *)array)[i] : ((const int64_t *)array)[i];
}

/* Index in block_table of the first page of request r. */
static inline int64_t spl_table_row(const splitkv_problem *p, const splitkv_tensors *t, int64_t r) {
  return p->table_format == SPLITKV_TABLE_DENSE
             ? r * p->table_width
             : spl_load_index(p->table_type, t->table_offsets, r);
}

/* Copies a caller's tensors of any known size into *full, zero beyond it. Errors: NULL_POINTER,
 * STRUCT_SIZE. */
splitkv_status spl_import_tensors(const splitkv_tensors *tensors, splitkv_tensors *full,
                                  splitkv_error *error);

/* CSR: the row of request r lies in the table, behind the row before it, and has the pages of
 * n_tokens. Errors: TABLE_OFFSETS, TABLE_SHORT. */
splitkv_status spl_check_csr_row(const splitkv_problem *problem, const splitkv_tensors *tensors,
                                 int64_t r, int64_t n_tokens, splitkv_error *error);

#endif
