/* splitkv ascend bench: times launches of the kernel on a device.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "ascend.h"

#include "ascend_launch.h"
#include "report.h"
#include "suites.h"
#include "tool.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <stdlib.h>

enum { MAX_LAUNCHES = 100000 };

typedef struct bench_options {
  ascend_device_choice choice;
  option_number launches;
  splitkv_ascend_device *device;
} bench_options;

/* Everything is zero before and owned after. */
typedef struct timed {
  const selected_case *entry;
  tool_case c;
  ascend_tiling t;
  ascend_launch l;
  splitkv_threads *threads;
  float *milliseconds; /* [n launches], sorted after the run */
  double median, spread, gb_per_s;
  ascend_verdict v;
} timed;

static const table_column columns[] = {
    {"case", 0, 1},         {"rule", 7, 1},     {"key", 3, 0},       {"splits", 0, 0},
    {"launches", 0, 0},     {"time", 9, 0},     {"spread", 0, 0},    {"GB/s", 7, 0},
    {"max abs err", 11, 0}, {"of bound", 8, 0}, {"tolerance", 9, 0}, {"result", 0, 1}};
enum { N_COLUMNS = sizeof columns / sizeof columns[0] };

static int compare_floats(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

/* Median, (90th - 10th percentile) / median, and the bandwidth of K and V read once. */
static void summarise(timed *m, size_t n) {
  const float *ms = m->milliseconds;
  qsort(m->milliseconds, n, sizeof *ms, compare_floats);
  m->median = ((double)ms[(n - 1) / 2] + (double)ms[n / 2]) / 2;
  double range = (double)ms[(n - 1) * 9 / 10] - (double)ms[(n - 1) / 10];
  m->spread = m->median > 0 ? range / m->median : 0;
  m->gb_per_s = m->median > 0 ? case_kv_bytes(&m->c) / m->median * 1e-6 : 0;
}

static int measure(timed *m, const bench_options *options) {
  const char *name = m->entry->name;
  int64_t n = options->launches.value;
  splitkv_error error = {0};
  int status = ascend_case_plan(&m->c, &m->t, &m->entry->spec, 0, name);
  status = status ? status : case_build_threads(&m->c, name, &m->threads);
  if (status) {
    return status;
  }
  m->milliseconds = calloc((size_t)n, sizeof *m->milliseconds);
  if (!m->milliseconds) {
    return tool_unsupported("%s: out of memory for %lld launches", name, (long long)n);
  }
  ascend_launch_init(&m->l, &m->t.exact);
  status = ascend_launch_case(&m->l, &m->c);
  if (status) {
    return status;
  }
  splitkv_status ran =
      splitkv_ascend_device_run(options->device, m->t.words, m->t.info.n_words, m->t.info.n_groups,
                                &m->l.memory, n, m->milliseconds, &error);
  if (ran != SPLITKV_OK) {
    return tool_library_error(name, ran, &error);
  }
  summarise(m, (size_t)n);
  return ascend_judge(&m->c, name, splitkv_threads_pool(m->threads), &m->v);
}

static cJSON *json_case(const timed *m, const bench_options *options) {
  size_t n = (size_t)options->launches.value;
  cJSON *row = ascend_json_case(m->entry, &m->t, &m->v);
  const struct {
    const char *key;
    double value;
  } numbers[] = {{"launches", (double)n},
                 {"time_ms", m->median},
                 {"time_ms_min", (double)m->milliseconds[0]},
                 {"time_ms_max", (double)m->milliseconds[n - 1]},
                 {"spread", m->spread},
                 {"gb_per_s", m->gb_per_s}};
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    cJSON_AddNumberToObject(row, numbers[i].key, numbers[i].value);
  }
  ascend_json_errors(row, &m->v);
  return row;
}

static void report_case(case_report *report, const timed *m, const bench_options *options) {
  char text[8][32];
  snprintf(text[0], sizeof text[0], "%lld", (long long)m->t.info.key);
  snprintf(text[1], sizeof text[1], "%lld", (long long)m->t.info.n_splits);
  snprintf(text[2], sizeof text[2], "%lld", (long long)options->launches.value);
  table_time_text(m->median * 1e-3, text[3], sizeof text[3]);
  snprintf(text[4], sizeof text[4], "%.0f%%", 100 * m->spread);
  snprintf(text[5], sizeof text[5], "%.1f", m->gb_per_s);
  snprintf(text[6], sizeof text[6], "%.3g", m->v.max_abs_err);
  snprintf(text[7], sizeof text[7], "%.3f", m->v.worst);
  const char *cells[N_COLUMNS] = {m->entry->name,
                                  problem_rule_name(m->entry->spec.rule),
                                  text[0],
                                  text[1],
                                  text[2],
                                  text[3],
                                  text[4],
                                  text[5],
                                  text[6],
                                  text[7],
                                  m->v.of_tolerance <= 1 ? "within" : "outside",
                                  m->v.pass ? "PASS" : "FAIL"};
  case_report_add(report, json_case(m, options), cells, m->v.pass);
  if (!m->v.pass) {
    char given[600];
    snprintf(given, sizeof given, "--kernel %.500s ", options->choice.kernel_path);
    case_report_failure(report, m->v.reason, "ascend bench", given, m->entry->problem);
  }
}

static int bench_case(void *context, const selected_case *entry, case_report *report) {
  const bench_options *options = context;
  timed m = {.entry = entry};
  int status = measure(&m, options);
  if (!status) {
    report_case(report, &m, options);
  }
  free(m.milliseconds);
  ascend_launch_free(&m.l);
  ascend_tiling_free(&m.t);
  splitkv_threads_destroy(m.threads);
  case_free(&m.c);
  return status;
}

int ascend_bench(int argc, char **argv) {
  bench_options options = {.choice = ASCEND_DEVICE_CHOICE, .launches = {1, MAX_LAUNCHES, 20}};
  case_report report = {
      .command = "ascend bench", .doing = "measuring", .columns = columns, .n_columns = N_COLUMNS};
  const option_rule rules[] = {{"--json", OPTION_FLAG, &report.is_json},
                               {"--json-file", OPTION_TEXT, &report.json_path},
                               {"--kernel", OPTION_TEXT, &options.choice.kernel_path},
                               {"--runtime", OPTION_TEXT, &options.choice.runtime_path},
                               {"--device", OPTION_NUMBER, &options.choice.device},
                               {"--launches", OPTION_NUMBER, &options.launches},
                               {"--suite", OPTION_SUITE, NULL}};
  selection chosen;
  selection_init(&chosen);
  chosen.words.device = PROBLEM_ASCEND;
  int status = options_parse(argc, argv, rules, sizeof rules / sizeof rules[0], &chosen);
  status = status ? status : selection_finish(&chosen, SUITE_ASCEND_BENCH);
  if (!status && !options.choice.kernel_path) {
    status = tool_usage_error("--kernel FILE.so is missing: the kernel's library");
  }
  status = status ? status : ascend_open_device(&options.choice, &options.device);
  status = status ? status : case_report_run(&report, &chosen, bench_case, &options);
  splitkv_ascend_device_close(options.device);
  selection_free(&chosen);
  return status;
}
