/* splitkv plan: how a problem would run. Makes no tensors.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"

#include "case.h"
#include "options.h"
#include "table.h"
#include "tool.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <string.h>

const char cmd_plan_help[] =
    "Shows how a problem would run: kernel set, where requests are cut, the work of\n"
    "each task and its balance, and every region of the workspace with its offset and\n"
    "size. 'total' is what a run takes, exactly; 'bound' is what splitkv_get_sizes\n"
    "says for limits that are this batch's own numbers. No tensor is made.\n"
    "\n"
    "  --json  one JSON object instead\n"
    "\n"
    "  splitkv plan b=256 hq=16 hkv=1 d=128 page=128 kv=8192 dtype=f16 threads=24\n";

enum { MAX_TASKS_SHOWN = 64 };

static int get_region(const tool_case *c, int64_t index, splitkv_region *region) {
  splitkv_error error = {0};
  *region = (splitkv_region){.struct_size = sizeof *region};
  splitkv_status status = splitkv_plan_get_region(c->plan, index, region, &error);
  return status == SPLITKV_OK ? TOOL_OK : tool_library_error("region", status, &error);
}

static int get_task(const tool_case *c, int64_t index, splitkv_task_info *task) {
  splitkv_error error = {0};
  *task = (splitkv_task_info){.struct_size = sizeof *task};
  splitkv_status status = splitkv_plan_get_task(c->plan, index, task, &error);
  return status == SPLITKV_OK ? TOOL_OK : tool_library_error("task", status, &error);
}

/* ── for people ─────────────────────────────────────────────────────────────────────────────── */

static void print_summary(const tool_case *c, const selected_case *entry) {
  const splitkv_plan_info *info = &c->info;
  char split[40];
  problem_split_text(entry->spec.split, entry->spec.split_value, split, sizeof split);
  printf("problem     %s\n", entry->problem);
  if (!problem_spec_is_decode(c->spec)) {
    printf("query rows  %lld in all, at most %lld of one request\n", (long long)c->n_rows,
           (long long)c->max_q_rows);
  }
  printf("kernel set  %s\n", info->kernel_set);
  printf("policy      %s\n", split);
  printf("splits      %lld in all, at most %lld of one request and KV head\n",
         (long long)info->n_splits, (long long)info->max_splits);
  printf("partials    %lld in the workspace, merged into %lld results\n", (long long)info->n_slots,
         (long long)info->n_merges);
  printf("tasks       %lld, balance %.4f (mean work / most work)\n", (long long)info->n_tasks,
         info->balance);
}

static int print_tasks(const tool_case *c) {
  static const table_column columns[] = {
      {"task", 6, 0}, {"tokens x KV heads", 0, 0}, {"pieces", 8, 0}};
  if (c->info.n_tasks > MAX_TASKS_SHOWN) {
    printf("\n(the first %d tasks; --json has all)\n", MAX_TASKS_SHOWN);
  } else {
    putchar('\n');
  }
  table_header(columns, 3);
  for (int64_t i = 0; i < c->info.n_tasks && i < MAX_TASKS_SHOWN; i++) {
    splitkv_task_info task;
    int failed = get_task(c, i, &task);
    if (failed) {
      return failed;
    }
    char text[3][24];
    snprintf(text[0], sizeof text[0], "%lld", (long long)i);
    snprintf(text[1], sizeof text[1], "%lld", (long long)task.kv_tokens);
    snprintf(text[2], sizeof text[2], "%lld", (long long)task.n_pieces);
    const char *cells[] = {text[0], text[1], text[2]};
    table_row(columns, 3, cells);
  }
  return TOOL_OK;
}

static void print_size(const table_column *columns, const char *name, const char *offset,
                       size_t bytes) {
  char text[24];
  snprintf(text, sizeof text, "%zu", bytes);
  const char *cells[] = {name, offset, text};
  table_row(columns, 3, cells);
}

static int print_regions(const tool_case *c) {
  static const table_column columns[] = {{"workspace", 14, 1}, {"offset", 14, 0}, {"bytes", 16, 0}};
  putchar('\n');
  table_header(columns, 3);
  for (int64_t i = 0; i < c->info.n_regions; i++) {
    splitkv_region region;
    int failed = get_region(c, i, &region);
    if (failed) {
      return failed;
    }
    char offset[24];
    snprintf(offset, sizeof offset, "%zu", region.offset_bytes);
    print_size(columns, region.name, offset, region.size_bytes);
  }
  print_size(columns, "total", "", c->info.workspace_bytes);
  print_size(columns, "bound", "", c->bound_bytes);
  printf("\nThe plan itself takes %zu bytes, each running task %zu bytes of stack for scratch.\n",
         c->info.plan_bytes, c->info.stack_bytes);
  return TOOL_OK;
}

static int print_for_people(const tool_case *c, const selected_case *entry) {
  print_summary(c, entry);
  int status = print_tasks(c);
  return status ? status : print_regions(c);
}

/* ── for machines ───────────────────────────────────────────────────────────────────────────── */

static int add_regions(cJSON *report, const tool_case *c) {
  cJSON *list = cJSON_AddArrayToObject(report, "regions");
  for (int64_t i = 0; i < c->info.n_regions; i++) {
    splitkv_region region;
    int failed = get_region(c, i, &region);
    if (failed) {
      return failed;
    }
    cJSON *entry = cJSON_CreateObject();
    cJSON_AddItemToArray(list, entry);
    cJSON_AddStringToObject(entry, "name", region.name);
    cJSON_AddNumberToObject(entry, "offset", (double)region.offset_bytes);
    cJSON_AddNumberToObject(entry, "bytes", (double)region.size_bytes);
  }
  return TOOL_OK;
}

static int add_tasks(cJSON *report, const tool_case *c) {
  cJSON *list = cJSON_AddArrayToObject(report, "tasks");
  for (int64_t i = 0; i < c->info.n_tasks; i++) {
    splitkv_task_info task;
    int failed = get_task(c, i, &task);
    if (failed) {
      return failed;
    }
    cJSON *entry = cJSON_CreateObject();
    cJSON_AddItemToArray(list, entry);
    cJSON_AddNumberToObject(entry, "kv_tokens", (double)task.kv_tokens);
    cJSON_AddNumberToObject(entry, "pieces", (double)task.n_pieces);
  }
  return TOOL_OK;
}

static int print_for_machines(const tool_case *c, const selected_case *entry) {
  const splitkv_plan_info *info = &c->info;
  char split[40];
  problem_split_text(entry->spec.split, entry->spec.split_value, split, sizeof split);
  cJSON *report = tool_json_report("plan");
  cJSON_AddStringToObject(report, "problem", entry->problem);
  cJSON_AddNumberToObject(report, "rows", (double)c->n_rows);
  cJSON_AddStringToObject(report, "kernel_set", info->kernel_set);
  cJSON_AddStringToObject(report, "policy", split);
  cJSON_AddNumberToObject(report, "splits", (double)info->n_splits);
  cJSON_AddNumberToObject(report, "max_splits", (double)info->max_splits);
  cJSON_AddNumberToObject(report, "slots", (double)info->n_slots);
  cJSON_AddNumberToObject(report, "merges", (double)info->n_merges);
  cJSON_AddNumberToObject(report, "threads", (double)entry->spec.threads);
  cJSON_AddNumberToObject(report, "workspace_bytes", (double)info->workspace_bytes);
  cJSON_AddNumberToObject(report, "bound_bytes", (double)c->bound_bytes);
  cJSON_AddNumberToObject(report, "plan_bytes", (double)info->plan_bytes);
  cJSON_AddNumberToObject(report, "stack_bytes", (double)info->stack_bytes);
  cJSON_AddNumberToObject(report, "balance", info->balance);
  int status = add_regions(report, c);
  status = status ? status : add_tasks(report, c);
  status = status ? status : tool_print_json(report);
  cJSON_Delete(report);
  return status;
}

/* ── the command ────────────────────────────────────────────────────────────────────────────── */

static int plan_chosen(const selection *chosen, int is_json) {
  int status = TOOL_OK;
  const selected_case *entry = selection_single(chosen, "plan", &status);
  if (!entry) {
    return status;
  }
  tool_case c = {0};
  status = case_plan(&c, &entry->spec, "");
  if (status == TOOL_OK) {
    status = is_json ? print_for_machines(&c, entry) : print_for_people(&c, entry);
  }
  case_free(&c);
  return status;
}

int cmd_plan(int argc, char **argv) {
  int is_json = 0;
  const option_rule rules[] = {{"--json", OPTION_FLAG, &is_json}};
  selection chosen;
  selection_init(&chosen);
  int status = options_parse(argc, argv, rules, sizeof rules / sizeof rules[0], &chosen);
  status = status ? status : selection_finish(&chosen, 0);
  status = status ? status : plan_chosen(&chosen, is_json);
  selection_free(&chosen);
  return status;
}
