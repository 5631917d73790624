/* A command that does one thing with each case: the table for people, the JSON, the footer.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_REPORT_H
#define SPLITKV_TOOL_REPORT_H

#include "selection.h"
#include "table.h"

struct cJSON;

enum { REPORT_MAX_COLUMNS = 16 };

/* The first fields are the command's, zero where it says nothing; the others belong to the run. */
typedef struct case_report {
  const char *command;         /* "check", of the JSON */
  const char *doing;           /* "checking", of the progress line */
  const table_column *columns; /* [n_columns], the first is the case's name */
  size_t n_columns;
  int is_json;
  const char *json_path; /* or NULL */

  table_column shown_columns[REPORT_MAX_COLUMNS]; /* with widths */
  struct cJSON *list;
  int n_done, n_failed;
} case_report;

/* Calls one(context, case, report) for each case, which reports it with case_report_add and returns
 * TOOL_OK, or the status of the error line it printed: then the rest is left out. What was done
 * before a stop is reported, too: it took its time, and may have failed. Returns the exit status of
 * the command. */
int case_report_run(case_report *report, const selection *chosen,
                    int (*one)(void *context, const selected_case *entry, case_report *report),
                    void *context);

/* Adds a case: its JSON, which the report owns then, and its cells, [n_columns]. */
void case_report_add(case_report *report, struct cJSON *row, const char *const *cells, int pass);

/* Prints, for people, why the case failed and the command that repeats it: `options` are "" or end
 * with a blank. */
void case_report_failure(const case_report *report, const char *reason, const char *command,
                         const char *options, const char *problem);

#endif
