/* splitkv check: runs problems and compares them with the oracle.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"

#include "case.h"
#include "machine.h"
#include "options.h"
#include "progress.h"
#include "selection.h"
#include "suites.h"
#include "table.h"
#include "tool.h"
#include "verify.h"

#include <splitkv/threads.h>

#include <cjson/cJSON.h>

#include <stdio.h>
#include <string.h>

const char cmd_check_help[] =
    "Runs each problem with exactly the workspace that its plan states and compares\n"
    "every output with an oracle in double precision. Memory that nobody may read is\n"
    "filled with NaN, unused table entries with invalid ids, and a workspace that is\n"
    "one byte short has to be refused with nothing touched. One line per case:\n"
    "  max abs err   largest |out - exact|\n"
    "  max ulp err   the same in units in the last place of the output type\n"
    "  lse err       largest |lse - exact|\n"
    "  of bound      largest error as a part of its bound; up to 1 passes\n"
    "\n"
    "  --suite NAME      pr683, ragged, odd, long or variants; also several\n"
    "  --json            one JSON object instead of the table\n"
    "  --json-file FILE  the JSON object to FILE, beside the table\n"
    "\n"
    "Words beside a suite override its cases; beside quoted problems they add:\n"
    "  splitkv check 'b=4 kv=100..900 hq=40' 'kv=5,0,17 table=shared' dtype=bf16\n"
    "  splitkv check --suite odd dtype=f32 isa=scalar threads=2\n";

typedef struct check_options {
  int is_json;
  const char *json_path;
} check_options;

static const table_column fixed_columns[] = {
    {"case", 0, 1},       {"kernels", 10, 1},     {"threads", 0, 0},
    {"workspace", 10, 0}, {"max abs err", 11, 0}, {"max ulp err", 11, 0},
    {"lse err", 9, 0},    {"of bound", 8, 0},     {"result", 0, 1}};
enum { N_COLUMNS = sizeof fixed_columns / sizeof fixed_columns[0] };

static int parse_arguments(int argc, char **argv, check_options *options, selection *chosen) {
  const option_rule rules[] = {{"--json", OPTION_FLAG, &options->is_json},
                               {"--json-file", OPTION_TEXT, &options->json_path},
                               {"--suite", OPTION_SUITE, NULL}};
  int status = options_parse(argc, argv, rules, sizeof rules / sizeof rules[0], chosen);
  return status ? status : selection_finish(chosen, SUITE_CHECK);
}

/* Runs and compares one planned case. A run that fails is a failed check. */
static int check_built(tool_case *c, const char *name, const splitkv_pool *pool, verdict *v) {
  *v = (verdict){.worst_row = -1};
  if (!verify_memory_contract(c, pool, v->reason, sizeof v->reason)) {
    return TOOL_OK;
  }
  case_poison(c);
  splitkv_error error = {0};
  splitkv_status status = case_run(c, pool, &error);
  if (status != SPLITKV_OK) {
    snprintf(v->reason, sizeof v->reason, "the run got %s: %.100s", splitkv_status_name(status),
             error.message);
    return TOOL_OK;
  }
  oracle o = {0};
  int failed = oracle_compute(&o, c, name, pool);
  if (!failed) {
    *v = oracle_compare(&o, c);
  }
  oracle_free(&o);
  return failed;
}

static void add_json_case(cJSON *list, const selected_case *entry, const tool_case *c,
                          const verdict *v) {
  cJSON *row = cJSON_CreateObject();
  cJSON_AddStringToObject(row, "case", entry->name);
  cJSON_AddBoolToObject(row, "pass", v->pass);
  cJSON_AddNumberToObject(row, "max_abs_err", v->max_abs_err);
  cJSON_AddNumberToObject(row, "max_ulp_err", v->max_ulp_err);
  cJSON_AddNumberToObject(row, "lse_err", v->lse_err);
  cJSON_AddNumberToObject(row, "worst", v->worst);
  cJSON_AddStringToObject(row, "kernel_set", c->info.kernel_set);
  cJSON_AddNumberToObject(row, "threads", (double)entry->spec.threads);
  cJSON_AddNumberToObject(row, "workspace_bytes", (double)c->info.workspace_bytes);
  cJSON_AddNumberToObject(row, "seed", (double)entry->spec.seed);
  cJSON_AddStringToObject(row, "problem", entry->problem);
  if (!v->pass) {
    cJSON_AddStringToObject(row, "reason", v->reason);
  }
  cJSON_AddItemToArray(list, row);
}

static void print_case(const table_column *columns, const selected_case *entry, const tool_case *c,
                       const verdict *v) {
  char text[7][24];
  snprintf(text[0], sizeof text[0], "%lld", (long long)entry->spec.threads);
  table_bytes_text((double)c->info.workspace_bytes, text[1], sizeof text[1]);
  snprintf(text[2], sizeof text[2], "%.3g", v->max_abs_err);
  snprintf(text[3], sizeof text[3], "%.3g", v->max_ulp_err);
  snprintf(text[4], sizeof text[4], "%.3g", v->lse_err);
  snprintf(text[5], sizeof text[5], "%.3f", v->worst);
  snprintf(text[6], sizeof text[6], "%s", v->pass ? "PASS" : "FAIL");
  const char *cells[N_COLUMNS] = {
      entry->name, c->info.kernel_set, text[0], text[1], text[2], text[3], text[4], text[5],
      text[6]};
  table_row(columns, N_COLUMNS, cells);
  if (!v->pass) {
    printf("  %s\n  repeat with: splitkv check '%s'\n", v->reason, entry->problem);
  }
}

static int check_case(const selected_case *entry, cJSON *list, const table_column *columns,
                      int *has_failed) {
  tool_case c = {0};
  verdict v = {0};
  splitkv_threads *threads = NULL;
  int status = case_prepare(&c, &entry->spec, entry->name, &threads);
  if (!status) {
    status = check_built(&c, entry->name, splitkv_threads_pool(threads), &v);
  }
  if (!status) {
    progress_clear();
    add_json_case(list, entry, &c, &v);
    if (columns && cJSON_GetArraySize(list) == 1) {
      table_header(columns, N_COLUMNS);
    }
    if (columns) {
      print_case(columns, entry, &c, &v);
    }
    *has_failed |= !v.pass;
  }
  splitkv_threads_destroy(threads);
  case_free(&c);
  return status;
}

/* Returns `status`, or that of the first output that could not be written. */
static int write_report(const cJSON *report, const check_options *options, int status) {
  int printed = options->is_json ? tool_print_json(report) : TOOL_OK;
  int written =
      options->json_path ? tool_write_json(report, "--json-file", options->json_path) : TOOL_OK;
  return status ? status : printed ? printed : written;
}

/* What was done before a stop is reported, too: it took its time, and may have failed. */
static int check_all(const selection *chosen, const check_options *options) {
  table_column columns[N_COLUMNS];
  memcpy(columns, fixed_columns, sizeof columns);
  columns[0].width = selection_name_width(chosen);
  cJSON *report = tool_json_report("check");
  cJSON *list = cJSON_AddArrayToObject(report, "cases");
  int n_failed = 0, n_done = 0, status = TOOL_OK;
  double start = machine_seconds();
  for (size_t i = 0; i < chosen->n_cases && status == TOOL_OK; i++) {
    int has_failed = 0;
    progress_show(i + 1, chosen->n_cases, chosen->cases[i].name, "checking");
    status = check_case(&chosen->cases[i], list, options->is_json ? NULL : columns, &has_failed);
    n_failed += has_failed;
    n_done += status == TOOL_OK;
  }
  progress_clear();
  selection_report(report, n_done, n_failed, status);
  if (status == TOOL_OK || n_done > 0) {
    if (!options->is_json) {
      selection_print_footer(chosen, n_done, n_failed, machine_seconds() - start);
      putchar('\n');
    }
    status = write_report(report, options, status);
  }
  cJSON_Delete(report);
  return tool_exit_status(n_failed, status);
}

int cmd_check(int argc, char **argv) {
  check_options options = {0};
  selection chosen;
  selection_init(&chosen);
  int status = parse_arguments(argc, argv, &options, &chosen);
  if (status == TOOL_OK && options.json_path) {
    status = tool_probe_output("--json-file", options.json_path);
  }
  if (status == TOOL_OK) {
    status = check_all(&chosen, &options);
  }
  selection_free(&chosen);
  return status;
}
