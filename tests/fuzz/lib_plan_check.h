/* What holds for every plan, whatever it was made of.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_FUZZ_LIB_PLAN_CHECK_H
#define SPLITKV_FUZZ_LIB_PLAN_CHECK_H

#include <splitkv/splitkv.h>

#include "lib_input.h"

/* A refusal names itself. */
static inline void check_error(splitkv_status status, const splitkv_error *error) {
  if (status == SPLITKV_OK) return;
  FUZZ_CHECK(error->status == status);
  FUZZ_CHECK(memchr(error->field, 0, sizeof error->field) && error->field[0] != 0);
  FUZZ_CHECK(memchr(error->message, 0, sizeof error->message));
  FUZZ_CHECK(strstr(error->message, error->field) == error->message);
  FUZZ_CHECK(strcmp(splitkv_status_name(status), "unknown status") != 0);
}

static inline void check_regions(const splitkv_plan *plan, const splitkv_plan_info *info) {
  size_t end = 0;
  for (int64_t i = 0; i < info->n_regions; ++i) {
    splitkv_region region;
    region.struct_size = sizeof region;
    FUZZ_CHECK(splitkv_plan_get_region(plan, i, &region, NULL) == SPLITKV_OK);
    FUZZ_CHECK(region.offset_bytes >= end && region.offset_bytes - end < SPLITKV_ALIGNMENT);
    end = region.offset_bytes + region.size_bytes;
    FUZZ_CHECK(end > region.offset_bytes);
  }
  FUZZ_CHECK(end == info->workspace_bytes);
}

/* Regions, tasks and text of a plan whose rows attend to `tokens` in all. */
static inline void check_plan(const splitkv_plan *plan, int64_t tokens, int64_t n_heads_kv) {
  splitkv_plan_info info;
  info.struct_size = sizeof info;
  FUZZ_CHECK(splitkv_plan_get_info(plan, &info, NULL) == SPLITKV_OK);
  FUZZ_CHECK(info.workspace_bytes == splitkv_plan_workspace_bytes(plan));
  FUZZ_CHECK((info.n_tasks >= 1) == (info.n_requests >= 1) && info.n_slots >= 0 &&
             info.n_merges >= 0);
  FUZZ_CHECK(info.balance > 0 && info.balance <= 1);
  FUZZ_CHECK((info.n_slots == 0) == (info.n_merges == 0));
  FUZZ_CHECK(info.max_splits <= info.n_splits || info.n_splits == 0);
  check_regions(plan, &info);
  int64_t read = 0, splits = 0;
  for (int64_t i = 0; i < info.n_tasks; ++i) {
    splitkv_task_info task;
    task.struct_size = sizeof task;
    FUZZ_CHECK(splitkv_plan_get_task(plan, i, &task, NULL) == SPLITKV_OK);
    FUZZ_CHECK(task.kv_tokens >= 0 && task.n_pieces >= 0);
    read += task.kv_tokens;
    splits += task.n_pieces;
  }
  FUZZ_CHECK(read == tokens * n_heads_kv);
  FUZZ_CHECK(splits >= info.n_splits);
  char text[64];
  for (int format = 0; format < 2; ++format) {
    size_t length = 0;
    FUZZ_CHECK(splitkv_plan_explain(plan, (splitkv_text_format)format, text, sizeof text, &length,
                                    NULL) == SPLITKV_OK);
    FUZZ_CHECK(memchr(text, 0, sizeof text) && length >= strlen(text));
  }
}

#endif
