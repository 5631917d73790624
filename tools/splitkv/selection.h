/* Which problems a command line names.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A problem is one argument with blanks in it, or all arguments without blanks together. Beside a
 * suite, arguments without blanks override words of every case; beside problems with blanks they
 * add words to every problem. */
#ifndef SPLITKV_TOOL_SELECTION_H
#define SPLITKV_TOOL_SELECTION_H

#include "problem_text.h"

#include <stddef.h>

struct cJSON;

typedef struct selected_case {
  char *name;        /* "pr683/b1_h16_kv8_s2048", or the words that were given */
  char *problem;     /* all words: enough to repeat the case */
  problem_spec spec; /* complete */
} selected_case;

typedef struct selection {
  problem_spec words;    /* of the arguments without blanks */
  int n_words;           /* how many such arguments there were */
  const char **problems; /* [n_problems] the arguments with blanks; pointers into argv */
  size_t n_problems;
  const char **suites; /* [n_suites] */
  size_t n_suites;
  selected_case *cases; /* [n_cases], after selection_finish */
  size_t n_cases;
} selection;

/* For the CPU; chosen->words.device may be set to another one then. */
void selection_init(selection *chosen);
void selection_free(selection *chosen);

/* Each returns TOOL_OK, or the status of the error line it printed. */
int selection_add_argument(selection *chosen, const char *argument);
int selection_add_suite(selection *chosen, const char *name);
/* Makes the cases. `uses` are the suite cases wanted (suites.h). Nothing named: one case with the
 * defaults. */
int selection_finish(selection *chosen, unsigned uses);
/* The one case of a command that takes one problem, which has to be given; NULL, with *status that
 * of the error line it printed, where there is none or are several. */
const selected_case *selection_single(const selection *chosen, const char *command, int *status);

/* "3 passed, 1 failed, stopped after 4 of 9 cases in 1.5 s", without a newline. */
void selection_print_footer(const selection *chosen, int n_done, int n_failed, double seconds);

/* Adds to a report of cases how many passed and failed, and, where the status is not TOOL_OK, why
 * the command stopped: the last error line. */
void selection_report(struct cJSON *report, int n_done, int n_failed, int status);

/* Length of the longest name among the cases. */
int selection_name_width(const selection *chosen);

#endif
