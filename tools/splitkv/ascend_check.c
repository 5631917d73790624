/* splitkv ascend check: runs the model of the kernel with every access watched, and compares it
 * with the oracle.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "ascend.h"

#include "ascend_launch.h"
#include "report.h"
#include "suites.h"
#include "tool.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <string.h>

/* By splitkv_ascend_sizing. */
static const char *const sizing_names[] = {"exact", "before", "after", NULL};

typedef struct check_options {
  option_choice sizing;
  int scaled_offsets, mask_by_pointer, keep_empty_rows;
} check_options;

/* Everything is zero before and owned after. */
typedef struct checked {
  const selected_case *entry;
  tool_case c;
  ascend_tiling t;
  ascend_launch l;
  splitkv_threads *threads;
  splitkv_status status; /* of the model */
  splitkv_ascend_report report;
  int is_compared; /* the verdict has errors */
  ascend_verdict v;
} checked;

static const table_column columns[] = {
    {"case", 0, 1},         {"rule", 7, 1},   {"key", 3, 0},      {"splits", 0, 0},
    {"max abs err", 11, 0}, {"bound", 9, 0},  {"of bound", 8, 0}, {"tolerance", 9, 0},
    {"touched", 12, 0},     {"exact", 12, 0}, {"result", 0, 1}};
enum { N_COLUMNS = sizeof columns / sizeof columns[0] };

static uint64_t sum_scratch(const uint64_t *bytes) {
  uint64_t sum = 0;
  for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; i++) {
    sum += bytes[i];
  }
  return sum;
}

/* ── one case ───────────────────────────────────────────────────────────────────────────────── */

static int prepare(checked *k, const check_options *options) {
  const splitkv_ascend_sizes *by_sizing[] = {&k->t.exact, &k->t.before, &k->t.after};
  splitkv_error error = {0};
  const char *name = k->entry->name;
  int status = ascend_case_plan(&k->c, &k->t, &k->entry->spec, 0, name);
  if (!status && options->scaled_offsets) {
    splitkv_status spoiled = ascend_tiling_spoil(&k->t, &k->c.problem, &k->c.batch,
                                                 SPLITKV_ASCEND_SCALED_OFFSETS, &error);
    status = spoiled == SPLITKV_OK ? TOOL_OK : case_library_error(name, spoiled, &error);
  }
  status = status ? status : case_build_threads(&k->c, name, &k->threads);
  if (!status) {
    ascend_launch_init(&k->l, by_sizing[options->sizing.value]);
    status = ascend_launch_case(&k->l, &k->c);
    status = status ? status : ascend_launch_allocate(&k->l, &k->t.exact);
  }
  return status;
}

/* " o_core from byte 3,735,552 up to 46,137,344 (42,401,792 past its end)", for each buffer that
 * the launch would have left. */
static void list_reaches(const checked *k, char *text, size_t capacity) {
  size_t length = 0;
  text[0] = '\0';
  for (int i = 0; i < SPLITKV_ASCEND_N_BUFFERS && length < capacity; i++) {
    uint64_t bytes = k->l.memory.bytes[i], end = k->report.high_water[i];
    int64_t low = k->report.lowest_outside[i];
    char from[32], reach[32], past[32];
    const char *name = splitkv_ascend_buffer_name((splitkv_ascend_buffer)i);
    const char *separator = length ? "," : "";
    if (low == INT64_MAX) {
      continue;
    }
    if (end > bytes) {
      table_count_text((uint64_t)low, from, sizeof from);
      table_count_text(end, reach, sizeof reach);
      table_count_text(end - bytes, past, sizeof past);
      length += (size_t)snprintf(text + length, capacity - length,
                                 "%s %s from byte %s up to %s (%s past its end)", separator, name,
                                 from, reach, past);
    } else {
      length += (size_t)snprintf(text + length, capacity - length, "%s %s down to byte %lld",
                                 separator, name, (long long)low);
    }
  }
}

static void explain_fault(checked *k) {
  const splitkv_ascend_fault *f = &k->report.first;
  char where[48] = "in the combine", byte[32], n_faults[32], bytes[32], reaches[240];
  if (f->task >= 0) {
    snprintf(where, sizeof where, "in task %lld", (long long)f->task);
  }
  if (f->byte < 0) {
    snprintf(byte, sizeof byte, "%lld", (long long)f->byte);
  } else {
    table_count_text((uint64_t)f->byte, byte, sizeof byte);
  }
  table_count_text((uint64_t)k->report.n_faults, n_faults, sizeof n_faults);
  table_count_text(k->l.memory.bytes[f->buffer], bytes, sizeof bytes);
  list_reaches(k, reaches, sizeof reaches);
  snprintf(k->v.reason, sizeof k->v.reason,
           "%s: %s at byte %s of %s %s, request %lld, split %lld, head %lld; "
           "%s accesses lie outside:%s",
           splitkv_ascend_buffer_name(f->buffer), f->is_write ? "write" : "read", byte, bytes,
           where, (long long)f->request, (long long)f->split, (long long)f->head, n_faults,
           reaches);
}

/* What has to hold beside the results. Returns 0, with a reason, where it does not. */
static int check_memory(checked *k, const check_options *options) {
  if (k->report.n_rows_unwritten > 0) {
    snprintf(k->v.reason, sizeof k->v.reason,
             "%lld rows of out were not written and hold what they held before",
             (long long)k->report.n_rows_unwritten);
    return 0;
  }
  for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; i++) {
    const char *name = splitkv_ascend_buffer_name((splitkv_ascend_buffer)i);
    unsigned long long touched = k->report.high_water[i], exact = k->t.exact.bytes[i];
    if (!zoned_is_intact(&k->l.scratch[i])) {
      snprintf(k->v.reason, sizeof k->v.reason, "memory outside of %s was written", name);
      return 0;
    }
    if (touched != exact && !options->scaled_offsets) {
      snprintf(k->v.reason, sizeof k->v.reason,
               "%s: %llu bytes are touched, and the exact size is %llu", name, touched, exact);
      return 0;
    }
  }
  if (case_find_overrun(&k->c)) {
    snprintf(k->v.reason, sizeof k->v.reason, "memory outside of out was written");
    return 0;
  }
  return 1;
}

static int run_model(checked *k, const check_options *options) {
  static unsigned char mask[1]; /* what stands for "no mask" where the pull request tests */
  uint32_t flags = 0;
  splitkv_error error = {0};
  if (options->mask_by_pointer) {
    flags |= SPLITKV_ASCEND_MODEL_MASK_BY_POINTER;
    ascend_launch_tensor(&k->l, SPLITKV_ASCEND_MASK, mask, sizeof mask);
  }
  if (options->keep_empty_rows) {
    flags |= SPLITKV_ASCEND_MODEL_KEEP_EMPTY_ROWS;
  }
  const splitkv_pool *pool = splitkv_threads_pool(k->threads);
  k->report = (splitkv_ascend_report){.struct_size = sizeof k->report};
  k->status = splitkv_ascend_model_run(k->t.words, k->t.info.n_words, k->t.info.n_groups,
                                       &k->l.memory, flags, pool, NULL, &k->report, &error);
  if (k->status == SPLITKV_ERROR_ASCEND_BOUNDS) {
    explain_fault(k);
    return TOOL_OK;
  }
  if (k->status != SPLITKV_OK) {
    return tool_library_error(k->entry->name, k->status, &error);
  }
  k->is_compared = 1;
  int status = ascend_judge(&k->c, k->entry->name, pool, &k->v);
  k->v.pass = check_memory(k, options) && k->v.pass;
  return status;
}

/* ── output ─────────────────────────────────────────────────────────────────────────────────── */

static void add_json_reach(cJSON *row, const checked *k) {
  cJSON *list = cJSON_AddArrayToObject(row, "outside");
  for (int i = 0; i < SPLITKV_ASCEND_N_BUFFERS; i++) {
    if (k->report.lowest_outside[i] == INT64_MAX) {
      continue;
    }
    cJSON *buffer = cJSON_CreateObject();
    cJSON_AddItemToArray(list, buffer);
    cJSON_AddStringToObject(buffer, "name", splitkv_ascend_buffer_name((splitkv_ascend_buffer)i));
    ascend_add_bytes(buffer, "bytes", k->l.memory.bytes[i]);
    ascend_add_bytes(buffer, "reached_bytes", k->report.high_water[i]);
    cJSON_AddNumberToObject(buffer, "lowest_byte", (double)k->report.lowest_outside[i]);
  }
}

static void add_json_fault(cJSON *row, const checked *k) {
  const splitkv_ascend_fault *f = &k->report.first;
  cJSON *fault = cJSON_AddObjectToObject(row, "fault");
  cJSON_AddStringToObject(fault, "buffer", splitkv_ascend_buffer_name(f->buffer));
  cJSON_AddBoolToObject(fault, "write", f->is_write);
  const struct {
    const char *key;
    double value;
  } numbers[] = {
      {"byte", (double)f->byte},       {"task", (double)f->task},
      {"request", (double)f->request}, {"split", (double)f->split},
      {"head", (double)f->head},       {"reached_bytes", (double)k->report.high_water[f->buffer]}};
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    cJSON_AddNumberToObject(fault, numbers[i].key, numbers[i].value);
  }
}

static cJSON *json_case(const checked *k) {
  cJSON *row = ascend_json_case(k->entry, &k->t, &k->v);
  const struct {
    const char *key;
    double value;
  } numbers[] = {{"tasks", (double)k->report.n_tasks},
                 {"touched_bytes", (double)sum_scratch(k->report.high_water)},
                 {"exact_bytes", (double)sum_scratch(k->t.exact.bytes)},
                 {"faults", (double)k->report.n_faults},
                 {"rows_unwritten", (double)k->report.n_rows_unwritten},
                 {"threads", (double)k->entry->spec.threads}};
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    cJSON_AddNumberToObject(row, numbers[i].key, numbers[i].value);
  }
  if (k->is_compared) {
    ascend_json_errors(row, &k->v);
  }
  if (k->report.n_faults > 0) {
    add_json_fault(row, k);
    add_json_reach(row, k);
  }
  return row;
}

static void repeat_options(const check_options *options, char *text, size_t capacity) {
  const struct {
    int is_given;
    const char *option;
  } flags[] = {{options->scaled_offsets, "--offsets-times-splits "},
               {options->mask_by_pointer, "--mask-by-pointer "},
               {options->keep_empty_rows, "--keep-empty-rows "}};
  size_t length = 0;
  text[0] = '\0';
  if (options->sizing.value != SPLITKV_ASCEND_EXACT) {
    length = (size_t)snprintf(text, capacity, "--sizes %s ", sizing_names[options->sizing.value]);
  }
  for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
    if (flags[i].is_given) {
      length += (size_t)snprintf(text + length, capacity - length, "%s", flags[i].option);
    }
  }
}

static void report_case(case_report *report, const checked *k, const check_options *options) {
  char text[8][32] = {{0}}, given[120];
  snprintf(text[0], sizeof text[0], "%lld", (long long)k->t.info.key);
  snprintf(text[1], sizeof text[1], "%lld", (long long)k->t.info.n_splits);
  if (k->is_compared) {
    snprintf(text[2], sizeof text[2], "%.3g", k->v.max_abs_err);
    snprintf(text[3], sizeof text[3], "%.3g", k->v.bound);
    snprintf(text[4], sizeof text[4], "%.3f", k->v.worst);
    snprintf(text[5], sizeof text[5], "%s", k->v.of_tolerance <= 1 ? "within" : "outside");
  }
  table_count_text(sum_scratch(k->report.high_water), text[6], sizeof text[6]);
  table_count_text(sum_scratch(k->t.exact.bytes), text[7], sizeof text[7]);
  const char *cells[N_COLUMNS] = {k->entry->name,
                                  problem_rule_name(k->entry->spec.rule),
                                  text[0],
                                  text[1],
                                  text[2],
                                  text[3],
                                  text[4],
                                  text[5],
                                  text[6],
                                  text[7],
                                  k->v.pass ? "PASS" : "FAIL"};
  case_report_add(report, json_case(k), cells, k->v.pass);
  if (!k->v.pass) {
    repeat_options(options, given, sizeof given);
    case_report_failure(report, k->v.reason, "ascend check", given, k->entry->problem);
  }
}

static int check_case(void *context, const selected_case *entry, case_report *report) {
  const check_options *options = context;
  checked k = {.entry = entry};
  int status = prepare(&k, options);
  status = status ? status : run_model(&k, options);
  if (!status) {
    report_case(report, &k, options);
  }
  ascend_launch_free(&k.l);
  ascend_tiling_free(&k.t);
  splitkv_threads_destroy(k.threads);
  case_free(&k.c);
  return status;
}

int ascend_check(int argc, char **argv) {
  check_options options = {.sizing = {sizing_names, SPLITKV_ASCEND_EXACT}};
  case_report report = {
      .command = "ascend check", .doing = "checking", .columns = columns, .n_columns = N_COLUMNS};
  const option_rule rules[] = {{"--json", OPTION_FLAG, &report.is_json},
                               {"--json-file", OPTION_TEXT, &report.json_path},
                               {"--sizes", OPTION_CHOICE, &options.sizing},
                               {"--offsets-times-splits", OPTION_FLAG, &options.scaled_offsets},
                               {"--mask-by-pointer", OPTION_FLAG, &options.mask_by_pointer},
                               {"--keep-empty-rows", OPTION_FLAG, &options.keep_empty_rows},
                               {"--suite", OPTION_SUITE, NULL}};
  selection chosen;
  selection_init(&chosen);
  chosen.words.device = PROBLEM_ASCEND;
  int status = options_parse(argc, argv, rules, sizeof rules / sizeof rules[0], &chosen);
  status = status ? status : selection_finish(&chosen, SUITE_ASCEND_CHECK);
  status = status ? status : case_report_run(&report, &chosen, check_case, &options);
  selection_free(&chosen);
  return status;
}
