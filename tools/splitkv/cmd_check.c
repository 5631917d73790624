/* splitkv check: runs problems and compares them with the oracle.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"

#include "case.h"
#include "options.h"
#include "report.h"
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
    "  --suite NAME      pr683, ragged, odd, long, variants, models or quant; may\n"
    "                    be repeated\n"
    "  --json            one JSON object instead of the table\n"
    "  --json-file FILE  the JSON object to FILE, beside the table\n"
    "\n"
    "Words beside a suite override its cases; beside quoted problems they add:\n"
    "  splitkv check 'b=4 kv=100..900 hq=40' 'kv=5,0,17 table=shared' dtype=bf16\n"
    "  splitkv check --suite odd dtype=f32 isa=scalar threads=2\n";

static const table_column fixed_columns[] = {
    {"case", 0, 1},       {"kernels", 10, 1},     {"threads", 0, 0},
    {"workspace", 10, 0}, {"max abs err", 11, 0}, {"max ulp err", 11, 0},
    {"lse err", 9, 0},    {"of bound", 8, 0},     {"result", 0, 1}};
enum { N_COLUMNS = sizeof fixed_columns / sizeof fixed_columns[0] };

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

static cJSON *json_case(const selected_case *entry, const tool_case *c, const verdict *v) {
  cJSON *row = cJSON_CreateObject();
  cJSON_AddStringToObject(row, "case", entry->name);
  cJSON_AddBoolToObject(row, "pass", v->pass);
  cJSON_AddNumberToObject(row, "max_abs_err", v->max_abs_err);
  cJSON_AddNumberToObject(row, "max_ulp_err", v->max_ulp_err);
  cJSON_AddNumberToObject(row, "lse_err", v->lse_err);
  cJSON_AddNumberToObject(row, "worst", v->worst);
  cJSON_AddStringToObject(row, "kernel_set", c->info.kernel_set);
  cJSON_AddNumberToObject(row, "threads", (double)entry->spec.threads);
  cJSON_AddNumberToObject(row, "rows", (double)c->n_rows);
  cJSON_AddNumberToObject(row, "workspace_bytes", (double)c->info.workspace_bytes);
  cJSON_AddNumberToObject(row, "seed", (double)entry->spec.seed);
  cJSON_AddStringToObject(row, "problem", entry->problem);
  if (!v->pass) {
    cJSON_AddStringToObject(row, "reason", v->reason);
  }
  return row;
}

static void report_case(case_report *report, const selected_case *entry, const tool_case *c,
                        const verdict *v) {
  char text[6][24];
  snprintf(text[0], sizeof text[0], "%lld", (long long)entry->spec.threads);
  table_bytes_text((double)c->info.workspace_bytes, text[1], sizeof text[1]);
  snprintf(text[2], sizeof text[2], "%.3g", v->max_abs_err);
  snprintf(text[3], sizeof text[3], "%.3g", v->max_ulp_err);
  snprintf(text[4], sizeof text[4], "%.3g", v->lse_err);
  snprintf(text[5], sizeof text[5], "%.3f", v->worst);
  const char *cells[N_COLUMNS] = {
      entry->name, c->info.kernel_set,       text[0], text[1], text[2], text[3], text[4],
      text[5],     v->pass ? "PASS" : "FAIL"};
  case_report_add(report, json_case(entry, c, v), cells, v->pass);
  if (!v->pass) {
    case_report_failure(report, v->reason, "check", "", entry->problem);
  }
}

static int check_case(void *context, const selected_case *entry, case_report *report) {
  (void)context;
  tool_case c = {0};
  verdict v = {0};
  splitkv_threads *threads = NULL;
  int status = case_prepare(&c, &entry->spec, entry->name, &threads);
  if (!status) {
    status = check_built(&c, entry->name, splitkv_threads_pool(threads), &v);
  }
  if (!status) {
    report_case(report, entry, &c, &v);
  }
  splitkv_threads_destroy(threads);
  case_free(&c);
  return status;
}

int cmd_check(int argc, char **argv) {
  case_report report = {
      .command = "check", .doing = "checking", .columns = fixed_columns, .n_columns = N_COLUMNS};
  const option_rule rules[] = {{"--json", OPTION_FLAG, &report.is_json},
                               {"--json-file", OPTION_TEXT, &report.json_path},
                               {"--suite", OPTION_SUITE, NULL}};
  selection chosen;
  selection_init(&chosen);
  int status = options_parse(argc, argv, rules, sizeof rules / sizeof rules[0], &chosen);
  status = status ? status : selection_finish(&chosen, SUITE_CHECK);
  status = status ? status : case_report_run(&report, &chosen, check_case, NULL);
  selection_free(&chosen);
  return status;
}
