/* One problem made real: numbers, plan, tensors, a run.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_CASE_H
#define SPLITKV_TOOL_CASE_H

#include "problem_text.h"

#include <splitkv/threads.h>

#include <stddef.h>
#include <stdint.h>

/* Memory with a red zone right before and right after it. */
typedef struct zoned {
  unsigned char *memory; /* what malloc returned */
  unsigned char *data;   /* aligned to SPLITKV_ALIGNMENT */
  size_t size_bytes;
} zoned;

/* The parts of a cache. Scales are there with codes, zero points where the problem has them. */
typedef enum kv_part {
  KV_K,
  KV_V, /* empty with mla */
  KV_K_SCALES,
  KV_V_SCALES,
  KV_K_ZEROS,
  KV_V_ZEROS,
  N_KV_PARTS
} kv_part;

/* Everything is zero before and owned after. */
typedef struct tool_case {
  const problem_spec *spec; /* the caller's, complete */
  splitkv_problem problem;
  splitkv_batch batch;
  int64_t *kv_lens;   /* [b] */
  int32_t *kv_lens32; /* the same with 32 bits, where index=i32 and they fit; else NULL */
  int64_t n_tokens;   /* sum of kv_lens */
  int64_t max_kv_len;
  int64_t *q_offsets;   /* [b + 1] query rows of request r: q_offsets[r] .. q_offsets[r + 1] - 1 */
  int32_t *q_offsets32; /* the same with 32 bits, where index=i32 and they fit; else NULL */
  int64_t n_rows, max_q_rows; /* in all, and of one request */
  int64_t n_table_pages;      /* pages that the used part of the table names, repeats counted */
  int64_t n_table_entries;    /* the same with pages of tokens that nobody attends to */

  splitkv_prefix *prefixes; /* that batch has */
  int64_t n_prefix_rows;    /* query rows of their requests */

  splitkv_plan *plan;
  splitkv_plan_info info;
  size_t bound_bytes; /* workspace bound from limits that are this batch's own numbers */

  /* From here on only after case_build. */
  int64_t *page_begin;     /* [n_pages] first token of the page that some request attends to, */
  int64_t *page_tokens;    /* [n_pages] and the end of those */
  int64_t n_unique_tokens; /* how many they are in all */
  int64_t n_attended;      /* sum over the query rows of the tokens that each attends to */
  uint64_t *tree_mask;     /* [n_rows, tree / 64 rounded up], where the problem has one */
  float *sinks, *slopes;   /* [hq], where the problem has them */
  void *block_table, *table_offsets;
  zoned q, out, lse, workspace;
  zoned kv[N_KV_PARTS];
  splitkv_tensors tensors;
} tool_case;

/* Lengths and problem, as far as a problem for the Ascend kernel goes: no plan, no tensors. Returns
 * TOOL_OK, or the status of the error line it printed, which begins with `name` where that is not
 * "". Call case_free in either case. */
int case_describe(tool_case *c, const problem_spec *spec, const char *name);

/* Lengths, problem and plan; no tensors. Returns TOOL_OK, or the status of the error line it
 * printed, which begins with `name` where that is not "". Call case_free in either case. */
int case_plan(tool_case *c, const problem_spec *spec, const char *name);

/* Block table, tensors with random data and NaN where nobody may read, and the workspace, exactly
 * as large as the plan says. The pool only makes it faster. */
int case_build(tool_case *c, const char *name, const splitkv_pool *pool);

/* The tensors of a planned or described case, and its threads, which are to be destroyed in either
 * case. */
int case_build_threads(tool_case *c, const char *name, splitkv_threads **threads);

/* All of the above: what check and bench begin with. The case and *threads are to be released in
 * either case. */
int case_prepare(tool_case *c, const problem_spec *spec, const char *name,
                 splitkv_threads **threads);

/* The library's message as an error line, after the word of the grammar that it is about. Returns
 * the exit status. */
int case_library_error(const char *name, splitkv_status status, const splitkv_error *error);

/* Which row of the K and V caches a token of a page and a KV head is. */
int64_t case_kv_row(const tool_case *c, int64_t page, int64_t token, int64_t head);

/* Bytes that case_build takes; SIZE_MAX when that is no number. */
size_t case_memory_bytes(const tool_case *c);

/* Fills out, lse and the workspace with NaN patterns and the red zones with theirs. */
void case_poison(tool_case *c);
/* NULL, or what was written outside of its bounds: "workspace", "out" or "lse". */
const char *case_find_overrun(const tool_case *c);

splitkv_status case_run(tool_case *c, const splitkv_pool *pool, splitkv_error *error);

/* Lets the tensors be these parts of a cache: the case's own, or a copy. */
void case_use_kv(tool_case *c, void *const parts[N_KV_PARTS]);
void case_use_own_kv(tool_case *c);

/* Bytes of a part of the cache, and of all of them, that the run has to read at least once, and its
 * multiply-adds. */
size_t case_read_bytes(const tool_case *c, kv_part part);
double case_kv_bytes(const tool_case *c);
double case_multiply_adds(const tool_case *c);

void case_free(tool_case *c);

/* NULL when memory is short. */
zoned zoned_allocate(size_t size_bytes);
void zoned_free(zoned *buffer);
/* Are the red zones as they were? */
int zoned_is_intact(const zoned *buffer);

#endif
