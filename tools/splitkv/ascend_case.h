/* A problem for the Ascend kernel: its tiling words, the bytes they take, and who works on what.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_ASCEND_CASE_H
#define SPLITKV_TOOL_ASCEND_CASE_H

#include "case.h"
#include "selection.h"

#include <splitkv/ascend.h>

struct cJSON;

/* ── words and bytes ────────────────────────────────────────────────────────────────────────── */

/* Everything is zero before and owned after. */
typedef struct ascend_tiling {
  splitkv_ascend_target target;
  splitkv_ascend_info info;
  uint32_t *words; /* [info.n_words] */
  splitkv_ascend_sizes exact, before, after;
} ascend_tiling;

/* Makes the words and their sizes. ascend_tiling_free is due in either case. */
splitkv_status ascend_tiling_make(ascend_tiling *t, const splitkv_problem *problem,
                                  const splitkv_batch *batch, const splitkv_ascend_target *target,
                                  splitkv_error *error);
void ascend_tiling_free(ascend_tiling *t);

/* The same words with the flags added to those of the target; sizes stay as they are. */
splitkv_status ascend_tiling_spoil(ascend_tiling *t, const splitkv_problem *problem,
                                   const splitkv_batch *batch, uint32_t flags,
                                   splitkv_error *error);

/* case_describe and the words. Returns TOOL_OK, or the status of the error line it printed, which
 * begins with `name` where that is not "". case_free and ascend_tiling_free are due in either case.
 */
int ascend_case_plan(tool_case *c, ascend_tiling *t, const problem_spec *spec, uint32_t flags,
                     const char *name);

/* What no batch of as many requests that are as long exceeds. Exit status as above. */
int ascend_case_bound(const tool_case *c, const ascend_tiling *t, splitkv_ascend_sizes *bound);

/* ── work ───────────────────────────────────────────────────────────────────────────────────── */

/* One task: some heads of one request, and one split of its tokens or all of them. */
typedef struct ascend_task {
  int64_t core, request, split; /* split: 0 where there are none */
  int64_t first_head, n_heads, n_tokens;
  int is_tail;
} ascend_task;

/* Calls visit for each task that has tokens, in the order in which cores take them in turn. Returns
 * TOOL_OK, or the status of the error line it printed. */
int ascend_walk(const tool_case *c, const ascend_tiling *t,
                void (*visit)(void *context, const ascend_task *task), void *context);

/* Everything is zero before and owned after. Work is counted in tokens x heads. */
typedef struct ascend_work {
  double *core_work; /* [n_cores] */
  int64_t n_tasks;   /* with tokens */
  double most, total;
  double balance; /* mean work of all cores / most work; 1 where there is none */
  /* Bytes through memory: K and V once, and as the tasks read them, where several read the same; of
   * the partial results of splits, which both vector cores of a group read; of scores, weights and
   * P.V on their way between cube and vector cores. */
  double kv_bytes, kv_read_bytes;
  double o_core_write_bytes, o_core_read_bytes, l_write_bytes, l_read_bytes, tile_bytes;
} ascend_work;

int ascend_work_measure(ascend_work *w, const tool_case *c, const ascend_tiling *t);
void ascend_work_free(ascend_work *w);

/* ── words for people and machines ──────────────────────────────────────────────────────────── */

/* The bit of a key with which tasks leave partial results, which are combined in the end. */
enum { ASCEND_KEY_SPLIT = 16 };
/* "f16, with splits" */
const char *ascend_key_text(int64_t key);

/* Adds the keys of `splitkv ascend plan --json`. `bound` may be NULL. */
void ascend_add_json(struct cJSON *report, const selected_case *entry, const ascend_tiling *t,
                     const ascend_work *w, const splitkv_ascend_sizes *bound);

/* Bytes as a JSON number under a key of its own name. */
void ascend_add_bytes(struct cJSON *object, const char *key, uint64_t bytes);

#endif
