/* Query rows of a case: how many each request has, and which tokens each attends to.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_ROWS_H
#define SPLITKV_TOOL_ROWS_H

#include "case.h"

/* Tokens [first, end) of a request; none where the two are equal. */
typedef struct token_span {
  int64_t first, end;
} token_span;

/* The tokens between the first and the last one that row i of request r may attend to by all rules
 * but the tree. */
token_span rows_span_of_row(const tool_case *c, int64_t r, int64_t i);
/* The same of all rows of the request together: each token in it is attended to by some row. */
token_span rows_span_of_request(const tool_case *c, int64_t r);

/* Query rows of request r. */
int64_t rows_of_request(const tool_case *c, int64_t r);
/* The request of query row `row` of the batch. */
int64_t rows_request_of(const tool_case *c, int64_t row);

/* Fills q_offsets, n_rows and max_q_rows of a case that has its lengths. Returns 0, or -1 when
 * memory is short or the rows are too many to count. */
int rows_describe(tool_case *c);

/* Makes the tree mask, where the problem has one, and counts n_attended. Returns 0, or -1 when
 * memory is short. */
int rows_build(tool_case *c);

/* Bytes of the tree mask; SIZE_MAX where that is no number. */
size_t rows_tree_bytes(const tool_case *c);

#endif
