/* A problem, checked and resolved: every default filled in, every product known to fit.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_PROBLEM_H
#define SPL_PROBLEM_H

#include <stdbool.h>

#include <splitkv/splitkv.h>

#include "cpu/kernels.h"

typedef struct spl_cache_strides {
  int64_t page, token, head; /* elements */
} spl_cache_strides;

/* How K or V is quantised: what the codes of each KV head are made of (spl_codes). All 0 where it
 * is not. */
typedef struct spl_quant {
  int form;                        /* SPL_FORM_* */
  float unit;                      /* spl_codes.unit */
  float zero;                      /* the zero point where none are given */
  bool has_zeros;                  /* rows have zero points */
  bool by_token;                   /* scales lie with the tokens of the cache */
  int64_t n_folded, folded_stride; /* scales taken out of the sums, from head to head */
  int64_t n_groups, group_size;    /* scales of a token that a tile holds, and their channels */
} spl_quant;

typedef struct spl_shape {
  splitkv_problem problem; /* the caller's, in this library's full size */
  const spl_kernel_set *kernels;
  int64_t group; /* query heads per KV head */
  int64_t d_padded, dv_padded;
  int64_t q_bytes, out_bytes; /* of one element */
  int64_t kv_bits;            /* of one element; rows and strides are whole bytes */
  int kv_offset;              /* spl_group.kv_offset */
  uint32_t cpu_bits;          /* SPL_CPU_*, of this CPU */
  spl_quant k_quant, v_quant;
  spl_score_rule rule;
  spl_cache_strides k, v;
  bool is_side_by_side; /* the rows of a token's KV heads lie between it and the next token */
  /* Of one query row, K of all heads of a bundle comes before V: of groups of few heads where they
   * lie side by side, and those go by strips of tokens, and of groups of more. */
  bool together, by_strips;
  int64_t q_request, q_head, out_request, out_head; /* strides, elements */
} spl_shape;

/* Bytes of n elements of K or V, an even number where an element is half a byte. */
static inline int64_t spl_kv_bytes(const spl_shape *shape, int64_t n) {
  return shape->kv_bits < 8 ? n / 2 : n * (shape->kv_bits / 8);
}

/* Bytes of one element of a dtype of Q or out; 0 for another one. */
int64_t spl_dtype_bytes(splitkv_dtype dtype);
int64_t spl_index_bytes(splitkv_index_type type);

/* Copies a caller's problem of any known size into *full, zero beyond it. */
splitkv_status spl_import_problem(const splitkv_problem *problem, splitkv_problem *full,
                                  splitkv_error *error);

/* Checks the whole problem and fills *shape. Errors: those of splitkv_describe. */
splitkv_status spl_resolve(const splitkv_problem *problem, spl_shape *shape, splitkv_error *error);

#endif
