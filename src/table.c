/* SPDX-License-Identifier: Apache-2.0 */
#include "table.h"

#include <stddef.h>

#include "batch.h"
#include "checked.h"
#include "error.h"
#include "problem.h"

splitkv_status spl_import_tensors(const splitkv_tensors *tensors, splitkv_tensors *full,
                                  splitkv_error *error) {
  return spl_import(error, "tensors.struct_size", tensors, offsetof(splitkv_tensors, sinks), full,
                    sizeof *full);
}

splitkv_status spl_check_csr_row(const splitkv_problem *p, const splitkv_tensors *t, int64_t r,
                                 int64_t n_tokens, splitkv_error *error) {
  const int64_t first = spl_load_index(p->table_type, t->table_offsets, r);
  const int64_t end = spl_load_index(p->table_type, t->table_offsets, r + 1);
  if (first < 0 || end < first || end > t->table_entries) {
    return spl_fail(error, SPLITKV_ERROR_TABLE_OFFSETS, "tensors.table_offsets", end,
                    "row %lld is [%lld, %lld) of %lld entries", (long long)r, (long long)first,
                    (long long)end, (long long)t->table_entries);
  }
  const int64_t pages = spl_ceil_div(n_tokens, p->page_size_tokens);
  if (end - first >= pages) return SPLITKV_OK;
  return spl_fail(error, SPLITKV_ERROR_TABLE_SHORT, "tensors.table_offsets", end - first,
                  "row %lld has %lld pages, %lld tokens need %lld", (long long)r,
                  (long long)(end - first), (long long)n_tokens, (long long)pages);
}

/* ── shared prefixes ────────────────────────────────────────────────────────────────────────── */

/* Tokens of request r, as far as a query row may attend to them. */
static int64_t tokens_of(const splitkv_batch *batch, int64_t r) {
  return spl_q_offset(batch, r + 1) > spl_q_offset(batch, r) ? spl_kv_len(batch, r) : 0;
}

/* Lengths, and rows of a table in CSR. */
static splitkv_status check_rows(const splitkv_problem *p, const splitkv_batch *batch,
                                 const splitkv_tensors *t, splitkv_error *error) {
  const int64_t most = spl_table_row_tokens(p), index = spl_index_bytes(p->table_type);
  const bool csr = p->table_format == SPLITKV_TABLE_CSR, any = batch->n_requests > 0;
  splitkv_status status =
      spl_check_pointer(error, "tensors.block_table", t->block_table, any, index);
  if (status != SPLITKV_OK) return status;
  status = spl_check_pointer(error, "tensors.table_offsets", t->table_offsets, any && csr, index);
  if (status == SPLITKV_OK) status = spl_check_q_offsets(batch, error);
  for (int64_t r = 0; r < batch->n_requests && status == SPLITKV_OK; r++) {
    const int64_t kv_len = spl_kv_len(batch, r);
    if (kv_len < 0 || kv_len > most) return spl_fail_kv_len(error, r, kv_len, most);
    if (csr) status = spl_check_csr_row(p, t, r, tokens_of(batch, r), error);
  }
  return status;
}

/* Tokens in whole pages that requests a and b have in common from the first on. */
static int64_t common_tokens(const splitkv_problem *p, const splitkv_batch *batch,
                             const splitkv_tensors *t, int64_t a, int64_t b) {
  const int64_t row_a = spl_table_row(p, t, a), row_b = spl_table_row(p, t, b);
  const int64_t n = spl_min(tokens_of(batch, a), tokens_of(batch, b)) / p->page_size_tokens;
  int64_t i = 0;
  while (i < n && spl_load_index(p->table_type, t->block_table, row_a + i) ==
                      spl_load_index(p->table_type, t->block_table, row_b + i))
    i++;
  return i * p->page_size_tokens;
}

splitkv_status splitkv_find_prefixes(const splitkv_problem *problem, const splitkv_batch *batch,
                                     const splitkv_tensors *tensors, int64_t min_tokens,
                                     splitkv_prefix *prefixes, int64_t capacity,
                                     int64_t *n_prefixes, splitkv_error *error) {
  if (n_prefixes == NULL) return spl_fail_null(error, "n_prefixes");
  if (prefixes == NULL && capacity > 0) return spl_fail_null(error, "prefixes");
  spl_shape shape;
  splitkv_batch lengths;
  splitkv_tensors t;
  splitkv_status status = spl_resolve(problem, &shape, error);
  if (status == SPLITKV_OK) status = spl_import_batch(batch, &lengths, error);
  if (status == SPLITKV_OK) status = spl_import_tensors(tensors, &t, error);
  if (status == SPLITKV_OK) status = check_rows(&shape.problem, &lengths, &t, error);
  if (status != SPLITKV_OK) return status;
  const int64_t least = spl_max(1, min_tokens);
  int64_t n = 0;
  for (int64_t r = 0; r < lengths.n_requests;) {
    splitkv_prefix x = {r, 1, 0};
    for (r++; r < lengths.n_requests; r++, x.n_requests++) {
      const int64_t common = common_tokens(&shape.problem, &lengths, &t, x.first_request, r);
      const int64_t tokens = x.n_requests == 1 ? common : spl_min(x.n_tokens, common);
      /* One more request is welcome unless the others would share much less for it. */
      if (common < least || tokens < x.n_tokens - x.n_tokens / x.n_requests) break;
      x.n_tokens = tokens;
    }
    if (x.n_requests == 1) continue;
    if (n < capacity) prefixes[n] = x;
    n++;
  }
  *n_prefixes = n;
  return SPLITKV_OK;
}
