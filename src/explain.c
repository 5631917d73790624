/* plan → numbers, text, JSON.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>

#include "checked.h"
#include "error.h"
#include "plan.h"

typedef struct task_work {
  int64_t kv_tokens, n_splits;
  double cost; /* as plans are balanced by */
} task_work;

/* What of one block starts before (head, token): a difference of two such is the work between two
 * places, in closed form however many pieces there are. */
static task_work before_place(const splitkv_plan *plan, const spl_place *place) {
  const splitkv_problem *p = spl_rule(plan, place->block);
  const int64_t length = spl_attended(plan, place->block), n = spl_n_pieces(p, length);
  int64_t in_head = 0;
  if (p->split_policy == SPLITKV_SPLIT_AUTO) {
    in_head = place->token > 0;
  } else if (place->token > 0) {
    in_head = spl_piece_at(p, length, place->token);
  }
  const double weight = (double)spl_block_weight(&plan->shape, plan->blocks[place->block].n_rows);
  const int64_t abreast = spl_cut_heads(plan, place->block);
  const int64_t kv_tokens = place->head * length + abreast * place->token;
  const int64_t n_pieces = place->head * spl_max(n, 1) + abreast * in_head;
  return (task_work){.kv_tokens = kv_tokens,
                     .n_splits = place->head * n + abreast * in_head,
                     .cost = weight * ((double)kv_tokens + (double)n_pieces * SPL_PIECE_COST)};
}

static void add_work(task_work *sum, const task_work *part, int64_t sign) {
  sum->kv_tokens += sign * part->kv_tokens;
  sum->n_splits += sign * part->n_splits;
  sum->cost += (double)sign * part->cost;
}

static task_work measure_task(const splitkv_plan *plan, int64_t task) {
  const spl_place start = plan->tasks[task].start, end = plan->tasks[task + 1].start;
  task_work work = {0};
  for (int64_t b = start.block; b < end.block; b++) {
    const spl_place all = {b, plan->shape.problem.n_heads_kv, 0};
    const task_work part = before_place(plan, &all);
    add_work(&work, &part, 1);
  }
  if (end.block < plan->n_blocks) {
    const task_work part = before_place(plan, &end);
    add_work(&work, &part, 1);
  }
  const task_work skipped = before_place(plan, &start);
  add_work(&work, &skipped, -1);
  if (start.token > 0 && spl_rule(plan, start.block)->split_policy == SPLITKV_SPLIT_AUTO) {
    const int64_t n = spl_cut_heads(plan, start.block); /* rests of pieces of another task */
    work.n_splits += n;
    work.cost += SPL_PIECE_COST * (double)n *
                 (double)spl_block_weight(&plan->shape, plan->blocks[start.block].n_rows);
  }
  return work;
}

splitkv_status splitkv_plan_get_info(const splitkv_plan *plan, splitkv_plan_info *info,
                                     splitkv_error *error) {
  if (info == NULL) return spl_fail_null(error, "info");
  splitkv_status status =
      spl_check_struct_size(error, "info.struct_size", info->struct_size,
                            offsetof(splitkv_plan_info, arithmetic), sizeof *info);
  if (status != SPLITKV_OK) return status;
  status = spl_check_plan(plan, error);
  if (status != SPLITKV_OK) return status;

  int64_t n_splits = 0, max_splits = 0, n_regions = 0;
  double cost = 0, most = 0; /* with a share for each piece the sum can pass 2^63 */
  for (int64_t t = 0; t < plan->n_tasks; t++) {
    const task_work work = measure_task(plan, t);
    n_splits += work.n_splits;
    cost += work.cost;
    if (work.cost > most) most = work.cost;
  }
  if (n_splits > 0) max_splits = 1;
  for (int64_t m = 0; m < plan->n_merge_runs; m++) {
    const int64_t prefix = plan->blocks[plan->merges[m].block].prefix;
    const int64_t before =
        prefix < 0 ? 0 : spl_n_pieces(&plan->shared_rule, spl_attended(plan, prefix));
    max_splits = spl_max(max_splits, before + plan->merges[m].n_splits);
  }
  for (int i = 0; i < SPL_N_REGIONS; i++)
    n_regions += plan->workspace.regions[i].bytes > 0;
  const double balance = most > 0 ? cost / (double)plan->n_tasks / most : 1;
  const splitkv_plan_info full = {
      .struct_size = sizeof *info,
      .kernel_set = plan->shape.kernels->name,
      .arithmetic = plan->shape.kernels->arithmetic,
      .policy = plan->shape.problem.split_policy,
      .n_requests = plan->n_requests,
      .n_tasks = plan->n_tasks,
      .n_splits = n_splits,
      .max_splits = max_splits,
      .n_slots = plan->n_slots,
      .n_merges = plan->n_merge_pairs,
      .workspace_bytes = (size_t)plan->workspace.bytes,
      .plan_bytes = (size_t)plan->plan_bytes,
      .stack_bytes = (size_t)plan->stack_bytes,
      .balance = balance < 1 ? balance : 1, /* rounding may pass 1 */
      .n_regions = n_regions,
  };
  spl_export(info, &full, info->struct_size);
  return SPLITKV_OK;
}

splitkv_status splitkv_plan_get_region(const splitkv_plan *plan, int64_t index,
                                       splitkv_region *region, splitkv_error *error) {
  if (region == NULL) return spl_fail_null(error, "region");
  splitkv_status status = spl_check_struct_size(error, "region.struct_size", region->struct_size,
                                                sizeof *region, sizeof *region);
  if (status != SPLITKV_OK) return status;
  status = spl_check_plan(plan, error);
  if (status != SPLITKV_OK) return status;
  int64_t seen = 0;
  for (int i = 0; i < SPL_N_REGIONS; i++) {
    const spl_region *r = &plan->workspace.regions[i];
    if (r->bytes == 0 || seen++ != index) continue;
    const splitkv_region full = {sizeof full, r->name, (size_t)r->offset, (size_t)r->bytes};
    spl_export(region, &full, region->struct_size);
    return SPLITKV_OK;
  }
  return spl_fail(error, SPLITKV_ERROR_INDEX, "index", index, "%lld, but the plan has %lld regions",
                  (long long)index, (long long)seen);
}

splitkv_status splitkv_plan_get_task(const splitkv_plan *plan, int64_t index,
                                     splitkv_task_info *task, splitkv_error *error) {
  if (task == NULL) return spl_fail_null(error, "task");
  splitkv_status status = spl_check_struct_size(error, "task.struct_size", task->struct_size,
                                                sizeof *task, sizeof *task);
  if (status != SPLITKV_OK) return status;
  status = spl_check_plan(plan, error);
  if (status != SPLITKV_OK) return status;
  if (index < 0 || index >= plan->n_tasks) {
    return spl_fail(error, SPLITKV_ERROR_INDEX, "index", index, "%lld, but the plan has %lld tasks",
                    (long long)index, (long long)plan->n_tasks);
  }
  const task_work work = measure_task(plan, index);
  const splitkv_task_info full = {sizeof full, work.kv_tokens, work.n_splits};
  spl_export(task, &full, task->struct_size);
  return SPLITKV_OK;
}

/* ── text ───────────────────────────────────────────────────────────────────────────────────── */

typedef struct writer {
  char *buffer;
  size_t capacity, length;
} writer;

static void put(writer *w, const char *format, ...) SPL_PRINTF(2, 3);

static void put(writer *w, const char *format, ...) {
  const size_t room = w->length < w->capacity ? w->capacity - w->length : 0;
  va_list arguments;
  va_start(arguments, format);
  const int n = vsnprintf(room > 0 ? w->buffer + w->length : NULL, room, format, arguments);
  va_end(arguments);
  if (n > 0) w->length += (size_t)n;
}

static const char *policy_name(splitkv_split_policy policy) {
  static const char *const names[] = {"auto", "fixed_size", "fixed_count", "none"};
  return names[policy];
}

static void put_json(writer *w, const splitkv_plan *plan, const splitkv_plan_info *info) {
  /* In whole numbers: printf's decimal point depends on the locale. */
  const int ten_thousandths = (int)(info->balance * 10000 + 0.5);
  put(w, "{\"kernel_set\":\"%s\",\"policy\":\"%s\",\"split_value\":%lld,", info->kernel_set,
      policy_name(info->policy), (long long)plan->shape.problem.split_value);
  put(w, "\"window_tokens\":%lld,\"attended_tokens\":%lld,",
      (long long)plan->shape.problem.window_tokens, (long long)plan->n_attended);
  put(w, "\"n_requests\":%lld,\"n_workers\":%lld,\"n_tasks\":%lld,\"splits\":%lld,",
      (long long)info->n_requests, (long long)plan->n_workers, (long long)info->n_tasks,
      (long long)info->n_splits);
  put(w, "\"max_splits_per_kv_head\":%lld,\"slots\":%lld,\"merges\":%lld,\"balance\":%d.%04d,",
      (long long)info->max_splits, (long long)info->n_slots, (long long)info->n_merges,
      ten_thousandths / 10000, ten_thousandths % 10000);
  put(w, "\"workspace_bytes\":%zu,\"plan_bytes\":%zu,\"stack_bytes\":%zu,\"regions\":[",
      info->workspace_bytes, info->plan_bytes, info->stack_bytes);
  const char *separator = "";
  for (int i = 0; i < SPL_N_REGIONS; i++) {
    const spl_region *r = &plan->workspace.regions[i];
    if (r->bytes == 0) continue;
    put(w, "%s{\"name\":\"%s\",\"offset\":%lld,\"bytes\":%lld}", separator, r->name,
        (long long)r->offset, (long long)r->bytes);
    separator = ",";
  }
  put(w, "],\"tasks\":[");
  for (int64_t t = 0; t < plan->n_tasks; t++) {
    const task_work work = measure_task(plan, t);
    put(w, "%s{\"kv_tokens\":%lld,\"pieces\":%lld}", t > 0 ? "," : "", (long long)work.kv_tokens,
        (long long)work.n_splits);
  }
  put(w, "]}");
}

static void put_text(writer *w, const splitkv_plan *plan, const splitkv_plan_info *info) {
  put(w, "kernel set   %s\n", info->kernel_set);
  put(w, "policy       %s", policy_name(info->policy));
  if (plan->shape.problem.split_value > 0) {
    put(w, " %lld", (long long)plan->shape.problem.split_value);
  }
  if (plan->shape.problem.window_tokens > 0) {
    put(w, "\nwindow       %lld tokens, %lld in all", (long long)plan->shape.problem.window_tokens,
        (long long)plan->n_attended);
  }
  put(w, "\nsplits       %lld, at most %lld per request and KV head\n", (long long)info->n_splits,
      (long long)info->max_splits);
  put(w, "tasks        %lld for %lld workers, balance %.3f\n", (long long)info->n_tasks,
      (long long)plan->n_workers, info->balance);
  put(w, "slots        %lld, merged into %lld rows of heads\n", (long long)info->n_slots,
      (long long)info->n_merges);
  for (int i = 0; i < SPL_N_REGIONS; i++) {
    const spl_region *r = &plan->workspace.regions[i];
    if (r->bytes > 0) {
      put(w, "  %-14s at %12lld  %12lld bytes\n", r->name, (long long)r->offset,
          (long long)r->bytes);
    }
  }
  put(w, "workspace    %zu bytes, stack %zu bytes per task, plan %zu bytes\n",
      info->workspace_bytes, info->stack_bytes, info->plan_bytes);
}

splitkv_status splitkv_plan_explain(const splitkv_plan *plan, splitkv_text_format format,
                                    char *buffer, size_t capacity, size_t *length,
                                    splitkv_error *error) {
  if (buffer == NULL && capacity > 0) return spl_fail_null(error, "buffer");
  splitkv_plan_info info = {.struct_size = sizeof info};
  const splitkv_status status = splitkv_plan_get_info(plan, &info, error);
  if (status != SPLITKV_OK) return status;
  writer w = {buffer, capacity, 0};
  switch ((int)format) {
  case SPLITKV_TEXT:
    put_text(&w, plan, &info);
    break;
  case SPLITKV_JSON:
    put_json(&w, plan, &info);
    break;
  default:
    return spl_fail(error, SPLITKV_ERROR_FORMAT, "format", (int)format, "%d is no text format",
                    (int)format);
  }
  if (length != NULL) *length = w.length;
  return SPLITKV_OK;
}
