/* SPDX-License-Identifier: Apache-2.0 */
#include "selection.h"

#include "machine.h"
#include "suites.h"
#include "tool.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void selection_init(selection *chosen) {
  *chosen = (selection){0};
  problem_spec_init(&chosen->words);
}

void selection_free(selection *chosen) {
  for (size_t i = 0; i < chosen->n_cases; i++) {
    free(chosen->cases[i].name);
    free(chosen->cases[i].problem);
    problem_spec_free(&chosen->cases[i].spec);
  }
  problem_spec_free(&chosen->words);
  free(chosen->cases);
  free(chosen->problems);
  free(chosen->suites);
  *chosen = (selection){0};
}

static int out_of_memory(void) {
  return tool_unsupported("out of memory");
}

static int push(const char ***list, size_t *n, const char *text) {
  const char **larger = realloc(*list, (*n + 1) * sizeof *larger);
  if (!larger) {
    return out_of_memory();
  }
  larger[(*n)++] = text;
  *list = larger;
  return TOOL_OK;
}

int selection_add_argument(selection *chosen, const char *argument) {
  static const char blanks[] = " \t\r\n";
  if (!argument[strspn(argument, blanks)]) {
    return tool_usage_error("'%.60s': is a problem without a word; 'splitkv help plan' lists the "
                            "words",
                            argument);
  }
  if (strpbrk(argument, blanks)) {
    return push(&chosen->problems, &chosen->n_problems, argument);
  }
  text_error error;
  problem_spec one;
  problem_spec_init(&one);
  one.device = chosen->words.device;
  int is_bad = problem_spec_parse(&one, argument, &error);
  const char *common = is_bad ? NULL : problem_spec_common_word(&one, &chosen->words);
  problem_spec_free(&one);
  if (common) {
    return tool_usage_error("%.60s: '%s' is given twice (a problem that is a single word needs a "
                            "blank: '%s=... ')",
                            argument, common, common);
  }
  if (is_bad || problem_spec_parse(&chosen->words, argument, &error)) {
    return tool_usage_error("%s", error.message);
  }
  chosen->n_words++;
  return TOOL_OK;
}

int selection_add_suite(selection *chosen, const char *name) {
  for (size_t i = 0; i < chosen->n_suites; i++) {
    if (strcmp(chosen->suites[i], name) == 0) {
      return tool_usage_error("--suite %s: is given twice", name);
    }
  }
  unsigned uses = chosen->words.device == PROBLEM_ASCEND ? SUITE_ASCEND : SUITE_BOTH;
  const suite *found = suite_find(name);
  if (found && suite_has(found, uses)) {
    return push(&chosen->suites, &chosen->n_suites, name);
  }
  const char *names[16];
  char list[128] = "";
  size_t length = 0, n = 0;
  for (size_t i = 0; i < n_suites && n < 16 && length < sizeof list; i++) {
    if (suite_has(&suites[i], uses)) {
      length += (size_t)snprintf(list + length, sizeof list - length, "%s%s", n ? ", " : "",
                                 suites[i].name);
      names[n++] = suites[i].name;
    }
  }
  const char *near = tool_near_word(name, names, n);
  return tool_usage_error("--suite %s: must be one of %s%s%s%s", name, list,
                          near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
}

/* "suite/case", or the words given, or all words where none is given. */
static char *case_name(const char *suite_name, const char *name, const problem_spec *spec) {
  if (!suite_name) {
    return problem_spec_format(spec, spec->given != 0);
  }
  size_t size = strlen(suite_name) + strlen(name) + 2;
  char *text = malloc(size);
  if (text) {
    snprintf(text, size, "%s/%s", suite_name, name);
  }
  return text;
}

/* Adds one case: `text` with the overriding words. */
static int add_case(selection *chosen, const char *suite_name, const char *name, const char *text) {
  selected_case *larger = realloc(chosen->cases, (chosen->n_cases + 1) * sizeof *larger);
  if (!larger) {
    return out_of_memory();
  }
  chosen->cases = larger;
  selected_case *entry = &larger[chosen->n_cases];
  *entry = (selected_case){0};
  problem_spec_init(&entry->spec);
  entry->spec.device = chosen->words.device;
  chosen->n_cases++;
  text_error error;
  if (problem_spec_parse(&entry->spec, text, &error)) {
    return tool_usage_error("%s", error.message);
  }
  const char *common = problem_spec_common_word(&entry->spec, &chosen->words);
  if (common && !suite_name) {
    return tool_usage_error("%s: is given in '%.60s' and beside it (a problem that is a single "
                            "word needs a blank: '%s=... ')",
                            common, text, common);
  }
  if (problem_spec_override(&entry->spec, &chosen->words)) {
    return out_of_memory();
  }
  entry->name = case_name(suite_name, name, &entry->spec);
  if (problem_spec_complete(&entry->spec, machine_default_threads(), &error)) {
    return suite_name ? tool_usage_error("%s/%s: %s", suite_name, name, error.message)
                      : tool_usage_error("%s", error.message);
  }
  entry->problem = problem_spec_format(&entry->spec, 0);
  return entry->name && entry->problem ? TOOL_OK : out_of_memory();
}

static int add_suite_cases(selection *chosen, const suite *source, unsigned uses) {
  int status = TOOL_OK;
  for (size_t i = 0; i < source->n_cases && status == TOOL_OK; i++) {
    if (source->cases[i].uses & uses) {
      status = add_case(chosen, source->name, source->cases[i].name, source->cases[i].problem);
    }
  }
  return status;
}

int selection_finish(selection *chosen, unsigned uses) {
  int status = TOOL_OK;
  for (size_t i = 0; i < chosen->n_problems && status == TOOL_OK; i++) {
    status = add_case(chosen, NULL, NULL, chosen->problems[i]);
  }
  for (size_t i = 0; i < chosen->n_suites && status == TOOL_OK; i++) {
    status = add_suite_cases(chosen, suite_find(chosen->suites[i]), uses);
  }
  if (chosen->n_problems == 0 && chosen->n_suites == 0) {
    status = add_case(chosen, NULL, NULL, "");
  }
  return status;
}

const selected_case *selection_single(const selection *chosen, const char *command, int *status) {
  if (chosen->n_words == 0 && chosen->n_problems == 0) {
    *status = tool_usage_error("%s: needs a problem, such as 'b=4 kv=8192'", command);
    return NULL;
  }
  if (chosen->n_cases != 1) {
    *status = tool_usage_error("%s takes one problem, not %zu", command, chosen->n_cases);
    return NULL;
  }
  return &chosen->cases[0];
}

void selection_print_footer(const selection *chosen, int n_done, int n_failed, double seconds) {
  printf("%d passed, %d failed", n_done - n_failed, n_failed);
  if ((size_t)n_done < chosen->n_cases) {
    printf(", stopped after %d of %zu cases", n_done, chosen->n_cases);
  }
  printf(" in %.1f s", seconds);
}

void selection_report(cJSON *report, int n_done, int n_failed, int status) {
  cJSON_AddNumberToObject(report, "passed", n_done - n_failed);
  cJSON_AddNumberToObject(report, "failed", n_failed);
  if (status) {
    cJSON_AddStringToObject(report, "stopped", tool_last_error());
  }
}

int selection_name_width(const selection *chosen) {
  int width = 0;
  for (size_t i = 0; i < chosen->n_cases; i++) {
    int length = (int)strlen(chosen->cases[i].name);
    width = length > width ? length : width;
  }
  return width;
}
