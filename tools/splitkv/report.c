/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include "machine.h"
#include "progress.h"
#include "tool.h"

#include <cjson/cJSON.h>

#include <assert.h>
#include <stdio.h>
#include <string.h>

void case_report_add(case_report *report, cJSON *row, const char *const *cells, int pass) {
  progress_clear();
  cJSON_AddItemToArray(report->list, row);
  if (!report->is_json && report->n_done == 0) {
    table_header(report->shown_columns, report->n_columns);
  }
  if (!report->is_json) {
    table_row(report->shown_columns, report->n_columns, cells);
  }
  report->n_done++;
  report->n_failed += !pass;
}

void case_report_failure(const case_report *report, const char *reason, const char *command,
                         const char *options, const char *problem) {
  if (!report->is_json) {
    printf("  %s\n  repeat with: splitkv %s %s'%s'\n", reason, command, options, problem);
  }
}

/* Returns `status`, or that of the first output that could not be written. */
static int write_report(const cJSON *json, const case_report *report, int status) {
  int printed = report->is_json ? tool_print_json(json) : TOOL_OK;
  int written =
      report->json_path ? tool_write_json(json, "--json-file", report->json_path) : TOOL_OK;
  return status ? status : printed ? printed : written;
}

int case_report_run(case_report *report, const selection *chosen,
                    int (*one)(void *context, const selected_case *entry, case_report *report),
                    void *context) {
  int status = TOOL_OK;
  if (report->json_path) {
    status = tool_probe_output("--json-file", report->json_path);
  }
  if (status) {
    return status;
  }
  assert(report->n_columns <= REPORT_MAX_COLUMNS);
  memcpy(report->shown_columns, report->columns, report->n_columns * sizeof *report->columns);
  report->shown_columns[0].width = selection_name_width(chosen);
  cJSON *json = tool_json_report(report->command);
  report->list = cJSON_AddArrayToObject(json, "cases");
  double start = machine_seconds();
  for (size_t i = 0; i < chosen->n_cases && status == TOOL_OK; i++) {
    progress_show(i + 1, chosen->n_cases, chosen->cases[i].name, report->doing);
    status = one(context, &chosen->cases[i], report);
  }
  progress_clear();
  selection_report(json, report->n_done, report->n_failed, status);
  if (status == TOOL_OK || report->n_done > 0) {
    if (!report->is_json) {
      selection_print_footer(chosen, report->n_done, report->n_failed, machine_seconds() - start);
      putchar('\n');
    }
    status = write_report(json, report, status);
  }
  cJSON_Delete(json);
  return tool_exit_status(report->n_failed, status);
}
