/* The options of a command that takes problems.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_OPTIONS_H
#define SPLITKV_TOOL_OPTIONS_H

#include "selection.h"

typedef enum option_kind {
  OPTION_FLAG,    /* int *: becomes 1 */
  OPTION_TEXT,    /* const char **: a pointer into argv */
  OPTION_LIST,    /* option_list *: pointers into argv, in the order given */
  OPTION_SECONDS, /* double *: above 0 */
  OPTION_SUITE    /* goes to the selection; target is not used */
} option_kind;

enum { OPTION_LIST_CAPACITY = 8 };

typedef struct option_list {
  const char *items[OPTION_LIST_CAPACITY];
  size_t n;
} option_list;

typedef struct option_rule {
  const char *name; /* "--json" */
  option_kind kind;
  void *target;
} option_rule;

/* Reads "--name", "--name value" and "--name=value", an option that has a value once (suites
 * and lists apart, whose values differ); all other arguments go to the selection.
 * Returns TOOL_OK, or the status of the error line it printed. */
int options_parse(int argc, char **argv, const option_rule *rules, size_t n_rules,
                  selection *chosen);

#endif
