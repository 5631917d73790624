/* splitkv ascend plan: the tiling of a problem and the memory it takes. Makes no tensors.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "ascend.h"

#include "ascend_case.h"
#include "options.h"
#include "table.h"
#include "tool.h"

#include <cjson/cJSON.h>

#include <stdio.h>

typedef struct plan_options {
  int is_json, is_words, is_unchecked;
} plan_options;

static void print_words(const ascend_tiling *t) {
  for (int64_t i = 0; i < t->info.n_words; i++) {
    printf("%s%lu", i ? " " : "", (unsigned long)t->words[i]);
  }
  putchar('\n');
}

static void print_count(const char *label, int64_t n, const char *rest) {
  char text[32];
  table_count_text((uint64_t)n, text, sizeof text);
  printf("%-12s%s%s\n", label, text, rest);
}

static void print_summary(const selected_case *entry, const ascend_tiling *t,
                          const ascend_work *w) {
  const splitkv_ascend_info *info = &t->info;
  char text[4][32], rest[160];
  printf("problem     %s\n", entry->problem);
  printf("rule        %s\n", problem_rule_name(t->target.rule));
  printf("key         %lld: %s\n", (long long)info->key, ascend_key_text(info->key));
  snprintf(rest, sizeof rest, " on %lld cores", (long long)t->target.n_cores);
  print_count("groups", info->n_groups, rest);
  table_count_text((uint64_t)info->split_tokens, text[0], sizeof text[0]);
  snprintf(rest, sizeof rest, " of %s tokens", text[0]);
  print_count("splits", info->n_splits, rest);
  print_count("tile", info->tile_tokens, " tokens");
  snprintf(rest, sizeof rest, " requests, %lld heads a task",
           (long long)info->heads_per_task_former);
  print_count("former", info->n_requests_former, rest);
  snprintf(rest, sizeof rest, " requests, %lld heads a task", (long long)info->heads_per_task_tail);
  print_count("tail", info->n_requests_tail, info->n_requests_tail ? rest : " requests");
  table_count_text((uint64_t)w->n_tasks, text[1], sizeof text[1]);
  snprintf(rest, sizeof rest, ", %s with tokens", text[1]);
  print_count("tasks", info->n_tasks, rest);
  printf("balance     %.4f (mean work of the cores / most work)\n", w->balance);
  print_count("words", info->n_words, "\n");
}

static void print_buffers(const ascend_tiling *t, const splitkv_ascend_sizes *bound) {
  static const table_column columns[] = {{"buffer", 0, 1},
                                         {"exact bytes", 15, 0},
                                         {"before", 15, 0},
                                         {"after", 15, 0},
                                         {"bound", 15, 0}};
  table_header(columns, 5);
  for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; i++) {
    char text[4][32];
    const uint64_t bytes[] = {t->exact.bytes[i], t->before.bytes[i], t->after.bytes[i],
                              bound->bytes[i]};
    for (int j = 0; j < 4; j++) {
      table_count_text(bytes[j], text[j], sizeof text[j]);
    }
    const char *cells[] = {splitkv_ascend_buffer_name((splitkv_ascend_buffer)i), text[0], text[1],
                           text[2], text[3]};
    table_row(columns, 5, cells);
  }
  printf("\nexact: one past the last byte touched. before, after: what the pull request allocated\n"
         "before its change and after it. bound: what no batch of as many requests that are as\n"
         "long exceeds.\n");
}

static int print_plan(const selected_case *entry, const tool_case *c, const ascend_tiling *t,
                      int is_json) {
  ascend_work work = {0};
  splitkv_ascend_sizes bound;
  int status = ascend_work_measure(&work, c, t);
  status = status ? status : ascend_case_bound(c, t, &bound);
  if (!status && is_json) {
    cJSON *report = tool_json_report("ascend plan");
    ascend_add_json(report, entry, t, &work, &bound);
    status = tool_print_json(report);
    cJSON_Delete(report);
  } else if (!status) {
    print_summary(entry, t, &work);
    print_buffers(t, &bound);
  }
  ascend_work_free(&work);
  return status;
}

static int plan_chosen(const selection *chosen, const plan_options *options) {
  int status = TOOL_OK;
  const selected_case *entry = selection_single(chosen, "ascend plan", &status);
  if (!entry) {
    return status;
  }
  tool_case c = {0};
  ascend_tiling t = {0};
  status = ascend_case_plan(&c, &t, &entry->spec,
                            options->is_unchecked ? SPLITKV_ASCEND_UNCHECKED : 0, "");
  if (!status && options->is_words) {
    print_words(&t);
  } else if (!status) {
    status = print_plan(entry, &c, &t, options->is_json);
  }
  ascend_tiling_free(&t);
  case_free(&c);
  return status;
}

int ascend_plan(int argc, char **argv) {
  plan_options options = {0};
  const option_rule rules[] = {{"--json", OPTION_FLAG, &options.is_json},
                               {"--words", OPTION_FLAG, &options.is_words},
                               {"--unchecked", OPTION_FLAG, &options.is_unchecked}};
  selection chosen;
  selection_init(&chosen);
  chosen.words.device = PROBLEM_ASCEND;
  int status = options_parse(argc, argv, rules, sizeof rules / sizeof rules[0], &chosen);
  status = status ? status : selection_finish(&chosen, 0);
  if (!status && options.is_json && options.is_words) {
    status = tool_usage_error("--words: is plain text; --json has the words, too");
  }
  status = status ? status : plan_chosen(&chosen, &options);
  selection_free(&chosen);
  return status;
}
