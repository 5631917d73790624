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
  OPTION_NUMBER,  /* option_number * */
  OPTION_CHOICE,  /* option_choice * */
  OPTION_WORD,    /* problem_spec *: "--name X" is the word "name=X" of the problem grammar */
  OPTION_SUITE    /* goes to the selection; target is not used */
} option_kind;

enum { OPTION_LIST_CAPACITY = 8 };

typedef struct option_list {
  const char *items[OPTION_LIST_CAPACITY];
  size_t n;
} option_list;

typedef struct option_number {
  int64_t low, high; /* a whole number in this range */
  int64_t value;     /* stays as it is where the option is left out */
} option_number;

typedef struct option_choice {
  const char *const *names; /* ends with NULL */
  int value;                /* index of the name given */
} option_choice;

typedef struct option_rule {
  const char *name; /* "--json" */
  option_kind kind;
  void *target;
} option_rule;

/* Reads "--name", "--name value" and "--name=value", an option that has a value once (suites
 * and lists apart, whose values differ); all other arguments go to the selection, or are errors
 * where that is NULL. Returns TOOL_OK, or the status of the error line it printed. */
int options_parse(int argc, char **argv, const option_rule *rules, size_t n_rules,
                  selection *chosen);

/* Reads the value of an option that is a word of the problem grammar. The error line names the
 * option. Returns TOOL_OK or its status. */
int options_read_word(problem_spec *spec, const char *option, const char *word, const char *value);

#endif
