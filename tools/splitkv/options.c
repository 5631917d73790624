/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include "tool.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RULES = 32 }; /* a bit for each in options_parse */

/* takes_words: arguments of the command have words of the problem. */
static int unknown_option(const char *argument, const option_rule *rules, size_t n_rules,
                          bool takes_words) {
  const char *names[MAX_RULES];
  char name[40];
  snprintf(name, sizeof name, "%.*s", (int)strcspn(argument, "="), argument);
  const char *word = name + strspn(name, "-");
  if (takes_words && problem_has_word(word)) {
    return tool_usage_error("%.60s: unknown option, '%s' is a word of the problem: '%s=...'",
                            argument, word, word);
  }
  for (size_t i = 0; i < n_rules && i < MAX_RULES; i++) {
    names[i] = rules[i].name;
  }
  const char *near = tool_near_word(name, names, n_rules < MAX_RULES ? n_rules : MAX_RULES);
  return near ? tool_usage_error("%.60s: unknown option, did you mean %s?", argument, near)
              : tool_usage_error("%.60s: unknown option, 'splitkv help' tells more", argument);
}

/* The rule whose name the argument has, up to a '='. */
static const option_rule *find_rule(const char *argument, const option_rule *rules,
                                    size_t n_rules) {
  size_t length = strcspn(argument, "=");
  for (size_t i = 0; i < n_rules; i++) {
    if (strlen(rules[i].name) == length && strncmp(rules[i].name, argument, length) == 0) {
      return &rules[i];
    }
  }
  return NULL;
}

static int store_seconds(const option_rule *rule, const char *value) {
  char *end = NULL;
  double seconds = strtod(value, &end);
  if (end == value || *end || !isfinite(seconds) || seconds <= 0) {
    return tool_usage_error("%s %.40s: must be a number of seconds above 0", rule->name, value);
  }
  *(double *)rule->target = seconds;
  return TOOL_OK;
}

static int store_number(const option_rule *rule, const char *value) {
  option_number *number = rule->target;
  char *end = NULL;
  errno = 0;
  long long n = strtoll(value, &end, 10);
  if (end == value || *end || errno || n < number->low || n > number->high) {
    return tool_usage_error("%s %.40s: must be a whole number %lld .. %lld", rule->name, value,
                            (long long)number->low, (long long)number->high);
  }
  number->value = n;
  return TOOL_OK;
}

static int store_choice(const option_rule *rule, const char *value) {
  option_choice *choice = rule->target;
  char list[96] = "";
  size_t length = 0;
  int n = 0;
  for (; choice->names[n]; n++) {
    if (strcmp(choice->names[n], value) == 0) {
      choice->value = n;
      return TOOL_OK;
    }
    const char *separator = n == 0 ? "" : choice->names[n + 1] ? ", " : " or ";
    length += (size_t)snprintf(list + length, length < sizeof list ? sizeof list - length : 0,
                               "%s%s", separator, choice->names[n]);
  }
  return tool_usage_error("%s %.40s: must be %s", rule->name, value, list);
}

int options_read_word(problem_spec *spec, const char *option, const char *word, const char *value) {
  char text[96];
  text_error error = {{0}};
  int n = snprintf(text, sizeof text, "%s=%s", word, value);
  /* One word only; nothing that the grammar knows is as long as the buffer. */
  if (value[strcspn(value, " \t\r\n\v\f")] || n < 0 || (size_t)n >= sizeof text) {
    return tool_usage_error("%s '%.40s': is no value for this option", option, value);
  }
  if (problem_spec_parse(spec, text, &error) == 0) {
    return TOOL_OK;
  }
  /* "split=foo: must be ..." becomes "--split foo: must be ...". */
  const char *sentence = strstr(error.message, ": ");
  return tool_usage_error("%s %.40s: %s", option, value, sentence ? sentence + 2 : error.message);
}

static int store_item(const option_rule *rule, const char *value) {
  option_list *list = rule->target;
  for (size_t i = 0; i < list->n; i++) {
    if (strcmp(list->items[i], value) == 0) {
      return tool_usage_error("%s %.80s: is given twice", rule->name, value);
    }
  }
  if (list->n == OPTION_LIST_CAPACITY) {
    return tool_usage_error("%s %.80s: at most %d may be given", rule->name, value,
                            OPTION_LIST_CAPACITY);
  }
  list->items[list->n++] = value;
  return TOOL_OK;
}

static int store_value(const option_rule *rule, const char *value, selection *chosen) {
  switch (rule->kind) {
  case OPTION_TEXT:
    *(const char **)rule->target = value;
    return TOOL_OK;
  case OPTION_LIST:
    return store_item(rule, value);
  case OPTION_SECONDS:
    return store_seconds(rule, value);
  case OPTION_NUMBER:
    return store_number(rule, value);
  case OPTION_CHOICE:
    return store_choice(rule, value);
  case OPTION_WORD:
    return options_read_word(rule->target, rule->name, rule->name + 2, value);
  case OPTION_SUITE:
    return selection_add_suite(chosen, value);
  case OPTION_FLAG:
    break;
  }
  return tool_usage_error("%s: takes no value", rule->name);
}

int options_parse(int argc, char **argv, const option_rule *rules, size_t n_rules,
                  selection *chosen) {
  int status = TOOL_OK;
  unsigned given = 0; /* a bit for each rule */
  for (int i = 0; i < argc && status == TOOL_OK; i++) {
    const char *argument = argv[i];
    if (argument[0] != '-') {
      status = chosen ? selection_add_argument(chosen, argument)
                      : tool_usage_error("%.60s: is no option; this command takes options only",
                                         argument);
      continue;
    }
    const option_rule *rule = find_rule(argument, rules, n_rules);
    const char *equals = strchr(argument, '=');
    if (!rule) {
      return unknown_option(argument, rules, n_rules, chosen != NULL);
    }
    unsigned bit = 1u << (rule - rules);
    int may_repeat =
        rule->kind == OPTION_FLAG || rule->kind == OPTION_LIST || rule->kind == OPTION_SUITE;
    if (given & bit && !may_repeat) {
      return tool_usage_error("%s: is given twice", rule->name);
    }
    given |= bit;
    if (rule->kind == OPTION_FLAG && !equals) {
      *(int *)rule->target = 1;
      continue;
    }
    const char *value = equals ? equals + 1 : tool_option_value(argc, argv, &i);
    status = value ? store_value(rule, value, chosen) : TOOL_USAGE;
  }
  return status;
}
