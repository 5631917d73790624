/* splitkv bench: times problems beside the machine's roof.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"

#include "array.h"
#include "bench.h"
#include "case.h"
#include "machine.h"
#include "options.h"
#include "plot.h"
#include "progress.h"
#include "selection.h"
#include "suites.h"
#include "table.h"
#include "tool.h"
#include "verify.h"
#include "versus.h"

#include <splitkv/threads.h>

#include <cjson/cJSON.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char cmd_bench_help[] =
    "Times each problem and compares the outputs of the timed runs with the oracle.\n"
    "The roof of a case is the larger of two times, measured in turn with the runs:\n"
    "reading its KV bytes once with all threads, and doing its multiply-adds at the\n"
    "peak rate of the kernel set's own arithmetic. Bytes are those of tokens that\n"
    "some row attends to, with their scales; multiply-adds are those of each row with\n"
    "the tokens that it attends to, and no others. One line per case:\n"
    "  time       median of the runs, over copies of the KV cache that no CPU cache\n"
    "             can hold together\n"
    "  spread     (90th - 10th percentile) / median\n"
    "  of roof    roof / time\n"
    "  bound by   which of the two times the roof is\n"
    "A measurement with a spread above 25% or with threads that ran less than 90% of\n"
    "the time is taken again, and called noisy if that does not help.\n"
    "\n"
    "With --vs, the peers named run in turn with all that, each in a process of its\n"
    "own, on the same data, with as many threads. One more line for each of them:\n"
    "  ratio      the peer's time / our time\n"
    "  result     'in bound' where its error is within our bound, else the largest\n"
    "             error / bound, and WRONG where it is no attention at all\n"
    "\n"
    "  --suite NAME      pr683, ragged, odd, long, variants, prefix, models or\n"
    "                    quant; may be repeated\n"
    "  --vs PEER         ggml, onnxruntime, openvino, torch or what else bench/peers\n"
    "                    has; PEER:f32, PEER:f16 or PEER:bf16 is the peer with KV of\n"
    "                    that type. May be repeated. They take decode; torch takes\n"
    "                    q= too, causal or not; none takes another variant\n"
    "  --vs-timeout S    time for one answer of a peer, 120 where left out\n"
    "  --warm            all runs read the same KV cache\n"
    "  --small-pages     do not ask the system for huge pages for the KV cache\n"
    "  --seconds S       time to spend on one measurement, 0.5 where left out\n"
    "  --plot FILE.svg   bars of 'of roof', drawn by gnuplot\n"
    "  --json            one JSON object instead of the table\n"
    "  --json-file FILE  the JSON object to FILE, beside the table\n"
    "\n"
    "Words beside a suite override its cases; beside quoted problems they add:\n"
    "  splitkv bench --suite pr683 dtype=bf16 threads=2 --json\n";

typedef struct bench_options {
  int is_json, has_small_pages;
  const char *json_path, *plot_path;
  bench_settings settings;
  option_list peer_names;
  versus peers;
} bench_options;

/* What one case came to. */
typedef struct outcome {
  bench_result result;
  verdict verdict;
  double roof, roof_fraction; /* seconds; roof / time */
  double bytes_per_second, flop_per_second, rows_per_second;
  int64_t n_rows;
  size_t workspace_bytes;
  const char *kernel_set; /* static */
} outcome;

/* All cases. */
typedef struct results {
  outcome *cases;                         /* [n_cases] */
  peer_outcome (*peers)[BENCH_MAX_PEERS]; /* [n_cases] */
} results;

/* The column of ratios is there only where there are peers. */
static const table_column fixed_columns[] = {
    {"case", 0, 1},      {"threads", 0, 0},     {"time", 8, 0},    {"spread", 0, 0},
    {"GB/s", 6, 0},      {"GFLOP/s", 7, 0},     {"of roof", 0, 0}, {"bound by", 0, 1},
    {"workspace", 9, 0}, {"max abs err", 0, 0}, {"ratio", 6, 0},   {"result", 0, 1}};
enum { N_COLUMNS = sizeof fixed_columns / sizeof fixed_columns[0], RATIO_COLUMN = N_COLUMNS - 2 };

static int parse_arguments(int argc, char **argv, bench_options *options, selection *chosen) {
  const option_rule rules[] = {{"--json", OPTION_FLAG, &options->is_json},
                               {"--json-file", OPTION_TEXT, &options->json_path},
                               {"--plot", OPTION_TEXT, &options->plot_path},
                               {"--seconds", OPTION_SECONDS, &options->settings.seconds},
                               {"--vs", OPTION_LIST, &options->peer_names},
                               {"--vs-timeout", OPTION_SECONDS, &options->peers.settings.timeout},
                               {"--warm", OPTION_FLAG, &options->settings.is_warm},
                               {"--small-pages", OPTION_FLAG, &options->has_small_pages},
                               {"--suite", OPTION_SUITE, NULL}};
  int status = options_parse(argc, argv, rules, sizeof rules / sizeof rules[0], chosen);
  status = status ? status : selection_finish(chosen, SUITE_BENCH);
  options->peers.settings.is_warm = options->settings.is_warm;
  if (options->has_small_pages) {
    machine_use_small_pages();
  }
  return status ? status : versus_choose(&options->peers, &options->peer_names);
}

/* ── one case ───────────────────────────────────────────────────────────────────────────────── */

static void fill_outcome(const tool_case *c, outcome *o) {
  const bench_result *r = &o->result;
  o->roof = r->compute_roof > r->memory_roof ? r->compute_roof : r->memory_roof;
  o->roof_fraction = r->time > 0 ? o->roof / r->time : 0;
  o->bytes_per_second = r->time > 0 ? case_kv_bytes(c) / r->time : 0;
  o->flop_per_second = r->time > 0 ? 2 * case_multiply_adds(c) / r->time : 0;
  o->n_rows = c->n_rows;
  o->rows_per_second = r->time > 0 ? (double)c->n_rows / r->time : 0;
  o->workspace_bytes = c->info.workspace_bytes;
  o->kernel_set = c->info.kernel_set;
}

/* Where the run itself failed, nothing is compared with anything. */
static int judge_results(tool_case *c, const char *name, const splitkv_pool *pool, versus_case *vc,
                         outcome *o, peer_outcome *peers) {
  oracle expected = {0};
  int status = oracle_compute(&expected, c, name, pool);
  if (!status) {
    o->verdict = oracle_compare(&expected, c);
    versus_judge(vc, c, &o->result, &expected, peers);
  }
  oracle_free(&expected);
  return status;
}

static int measure_built(tool_case *c, const char *name, const splitkv_pool *pool,
                         const bench_options *options, outcome *o, peer_outcome *peers) {
  versus_case vc;
  int status = versus_begin(&vc, &options->peers, c, name);
  if (!status) {
    status = bench_measure(c, name, pool, &options->settings, vc.peers, vc.n, &o->result);
  }
  if (!status) {
    fill_outcome(c, o);
    o->verdict = (verdict){.worst_row = -1};
    memcpy(o->verdict.reason, o->result.failure, sizeof o->verdict.reason);
  }
  if (!status && !o->result.failure[0]) {
    status = judge_results(c, name, pool, &vc, o, peers);
  }
  versus_end(&vc);
  return status;
}

static int bench_case(const selected_case *entry, const bench_options *options, outcome *o,
                      peer_outcome *peers) {
  tool_case c = {0};
  splitkv_threads *threads = NULL;
  *o = (outcome){0};
  int status = case_prepare(&c, &entry->spec, entry->name, &threads);
  if (!status) {
    status = measure_built(&c, entry->name, splitkv_threads_pool(threads), options, o, peers);
  }
  splitkv_threads_destroy(threads);
  case_free(&c);
  return status;
}

/* A peer that broke is no reason to stop: the others are measured. Returns TOOL_OK, or the status
 * of the last error line it printed. */
static int complain_of_peers(const selected_case *entry, const versus *v,
                             const peer_outcome *peers) {
  int status = TOOL_OK;
  for (size_t i = 0; i < v->n; i++) {
    if (peers[i].state == PEER_BROKEN) {
      status =
          tool_unsupported("%s: --vs %s: %s", entry->name, v->choices[i].text, peers[i].reason);
    }
  }
  return status;
}

/* ── output ─────────────────────────────────────────────────────────────────────────────────── */

static const char *bound_by(const outcome *o) {
  return o->result.compute_roof > o->result.memory_roof ? "compute" : "memory";
}

/* cells[N_COLUMNS]; without peers, a table has no ratios. NULL prints the titles. */
static void print_cells(const table_column *columns, const char *const *cells, int has_peers) {
  table_column shown_columns[N_COLUMNS];
  const char *shown[N_COLUMNS];
  size_t n = 0;
  for (int i = 0; i < N_COLUMNS; i++) {
    if (i != RATIO_COLUMN || has_peers) {
      shown_columns[n] = columns[i];
      shown[n++] = cells ? cells[i] : "";
    }
  }
  if (cells) {
    table_row(shown_columns, n, shown);
  } else {
    table_header(shown_columns, n);
  }
}

static void print_case(const table_column *columns, const selected_case *entry, const outcome *o,
                       int has_peers) {
  char text[9][32];
  snprintf(text[0], sizeof text[0], "%lld", (long long)entry->spec.threads);
  table_time_text(o->result.time, text[1], sizeof text[1]);
  snprintf(text[2], sizeof text[2], "%.0f%%", 100 * o->result.spread);
  snprintf(text[3], sizeof text[3], "%.1f", o->bytes_per_second * 1e-9);
  snprintf(text[4], sizeof text[4], "%.1f", o->flop_per_second * 1e-9);
  snprintf(text[5], sizeof text[5], "%.1f%%", 100 * o->roof_fraction);
  table_bytes_text((double)o->workspace_bytes, text[6], sizeof text[6]);
  snprintf(text[7], sizeof text[7], "%.2e", o->verdict.max_abs_err);
  snprintf(text[8], sizeof text[8], "%s%s", o->verdict.pass ? "PASS" : "FAIL",
           o->result.is_noisy ? " noisy" : "");
  const char *cells[N_COLUMNS] = {entry->name, text[0],     text[1], text[2], text[3], text[4],
                                  text[5],     bound_by(o), text[6], text[7], "",      text[8]};
  print_cells(columns, cells, has_peers);
  if (!o->verdict.pass) {
    printf("  %s\n  repeat with: splitkv bench '%s'\n", o->verdict.reason, entry->problem);
  }
}

/* GB/s and the fraction of the roof are of the same work as ours, whatever bytes the peer reads. */
static void print_peer(const table_column *columns, const peer_choice *choice, const outcome *o,
                       const peer_outcome *p) {
  char name[90], text[7][32], result[300], kv[32];
  snprintf(name, sizeof name, "  vs %.80s", choice->text);
  versus_result_text(p, result, sizeof result);
  if (p->state != PEER_READY) {
    const char *cells[N_COLUMNS] = {name, "", "", "", "", "", "", "", "", "", "", result};
    print_cells(columns, cells, 1);
    return;
  }
  double share = p->ratio > 0 ? 1 / p->ratio : 0;
  table_time_text(p->times.time, text[0], sizeof text[0]);
  snprintf(text[1], sizeof text[1], "%.0f%%", 100 * p->times.spread);
  snprintf(text[2], sizeof text[2], "%.1f", o->bytes_per_second * share * 1e-9);
  snprintf(text[3], sizeof text[3], "%.1f", o->flop_per_second * share * 1e-9);
  snprintf(text[4], sizeof text[4], "%.1f%%", 100 * o->roof_fraction * share);
  snprintf(text[5], sizeof text[5], "%.2e", p->verdict.max_abs_err);
  snprintf(text[6], sizeof text[6], "%.2fx", p->ratio);
  snprintf(kv, sizeof kv, "%.12s KV", p->kv_dtype);
  const char *cells[N_COLUMNS] = {name,    "", text[0], text[1], text[2], text[3],
                                  text[4], kv, "",      text[5], text[6], result};
  print_cells(columns, cells, 1);
}

static cJSON *add_json_case(cJSON *list, const selected_case *entry, const outcome *o) {
  const bench_result *r = &o->result;
  cJSON *row = cJSON_CreateObject();
  cJSON_AddItemToArray(list, row);
  cJSON_AddStringToObject(row, "case", entry->name);
  cJSON_AddBoolToObject(row, "pass", o->verdict.pass);
  cJSON_AddStringToObject(row, "bound_by", bound_by(o));
  cJSON_AddStringToObject(row, "kernel_set", o->kernel_set);
  cJSON_AddBoolToObject(row, "noisy", r->is_noisy);
  const struct {
    const char *key;
    double value;
  } numbers[] = {{"threads", (double)entry->spec.threads},
                 {"rows", (double)o->n_rows},
                 {"tokens_per_s", o->rows_per_second},
                 {"time_ms", r->time * 1e3},
                 {"time_ms_min", r->time_min * 1e3},
                 {"time_ms_max", r->time_max * 1e3},
                 {"spread", r->spread},
                 {"cpu_ms", r->cpu_time * 1e3},
                 {"roof_ms", o->roof * 1e3},
                 {"roof_fraction", o->roof_fraction},
                 {"memory_roof_ms", r->memory_roof * 1e3},
                 {"compute_roof_ms", r->compute_roof * 1e3},
                 {"read_gb_per_s", r->read_rate * 1e-9},
                 {"peak_gflop_per_s", 2 * r->multiply_rate * 1e-9},
                 {"gb_per_s", o->bytes_per_second * 1e-9},
                 {"gflop_per_s", o->flop_per_second * 1e-9},
                 {"workspace_bytes", (double)o->workspace_bytes},
                 {"max_abs_err", o->verdict.max_abs_err},
                 {"max_ulp_err", o->verdict.max_ulp_err},
                 {"lse_err", o->verdict.lse_err},
                 {"worst", o->verdict.worst},
                 {"rounds", (double)r->n_rounds},
                 {"kv_copies", (double)r->n_copies},
                 {"seed", (double)entry->spec.seed}};
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    cJSON_AddNumberToObject(row, numbers[i].key, numbers[i].value);
  }
  cJSON_AddStringToObject(row, "problem", entry->problem);
  if (r->is_noisy) {
    cJSON_AddStringToObject(row, "noise", r->noise);
  }
  if (!o->verdict.pass) {
    cJSON_AddStringToObject(row, "reason", o->verdict.reason);
  }
  return row;
}

/* A case's name without its suite: the axis has little room. */
static const char *short_name(const char *name) {
  const char *slash = strrchr(name, '/');
  return slash && !strchr(name, '=') ? slash + 1 : name;
}

/* "kernel set avx512, 2 threads" where that is so of all cases, else "". */
static void common_setting(const selection *chosen, const outcome *outcomes, size_t n_done,
                           char *text, size_t capacity) {
  text[0] = '\0';
  for (size_t i = 1; i < n_done; i++) {
    if (outcomes[i].kernel_set != outcomes[0].kernel_set ||
        chosen->cases[i].spec.threads != chosen->cases[0].spec.threads) {
      return;
    }
  }
  snprintf(text, capacity, ", kernel set %s, %lld threads", outcomes[0].kernel_set,
           (long long)chosen->cases[0].spec.threads);
}

static int draw_plot(const selection *chosen, const outcome *outcomes, size_t n_done,
                     const char *path) {
  plot_bar *bars = calloc(n_done + 1, sizeof *bars);
  if (!bars) {
    return tool_unsupported("--plot: out of memory");
  }
  for (size_t i = 0; i < n_done; i++) {
    bars[i] = (plot_bar){.name = short_name(chosen->cases[i].name),
                         .roof_fraction = outcomes[i].roof_fraction,
                         .time = outcomes[i].result.time,
                         .is_compute_bound = strcmp(bound_by(&outcomes[i]), "compute") == 0};
  }
  char setting[64], title[256];
  common_setting(chosen, outcomes, n_done, setting, sizeof setting);
  snprintf(title, sizeof title, "splitkv %s on %.100s%s", splitkv_version(), machine_cpu_name(),
           setting);
  int status = plot_bars(path, title, bars, n_done);
  free(bars);
  return status;
}

static int name_width(const selection *chosen, const versus *v) {
  int width = selection_name_width(chosen);
  for (size_t i = 0; i < v->n; i++) {
    int length = (int)strlen(v->choices[i].text) + 5;
    width = length > width ? length : width;
  }
  return width;
}

static void print_footer(const selection *chosen, int n_done, int n_failed, int n_noisy,
                         double seconds) {
  selection_print_footer(chosen, n_done, n_failed, seconds);
  if (n_noisy > 0) {
    printf("; %d noisy: the machine did other work, times are upper bounds", n_noisy);
  }
  putchar('\n');
}

/* ── the command ────────────────────────────────────────────────────────────────────────────── */

/* Returns `status`, or that of the first output that could not be written. */
static int write_report(const cJSON *report, const selection *chosen, const outcome *outcomes,
                        size_t n_done, const bench_options *options, int status) {
  int printed = options->is_json ? tool_print_json(report) : TOOL_OK;
  int written =
      options->json_path ? tool_write_json(report, "--json-file", options->json_path) : TOOL_OK;
  int drawn =
      options->plot_path ? draw_plot(chosen, outcomes, n_done, options->plot_path) : TOOL_OK;
  return status ? status : printed ? printed : written ? written : drawn;
}

static void show_case(const table_column *columns, const selected_case *entry, const versus *v,
                      const outcome *o, const peer_outcome *peers) {
  print_case(columns, entry, o, v->n > 0);
  for (size_t i = 0; i < v->n && !o->result.failure[0]; i++) {
    print_peer(columns, &v->choices[i], o, &peers[i]);
  }
}

/* What was done before a stop is reported, too: it took its time, and may have failed. */
static int bench_all(const selection *chosen, const bench_options *options, results *all) {
  table_column columns[N_COLUMNS];
  memcpy(columns, fixed_columns, sizeof columns);
  const versus *v = &options->peers;
  columns[0].width = name_width(chosen, v);
  cJSON *report = tool_json_report("bench");
  cJSON *list = cJSON_AddArrayToObject(report, "cases");
  int n_failed = 0, n_noisy = 0, n_done = 0, status = TOOL_OK, broken = TOOL_OK;
  double start = machine_seconds();
  for (size_t i = 0; i < chosen->n_cases && status == TOOL_OK; i++) {
    const selected_case *entry = &chosen->cases[i];
    outcome *o = &all->cases[i];
    progress_show(i + 1, chosen->n_cases, entry->name, "measuring");
    status = bench_case(entry, options, o, all->peers[i]);
    progress_clear();
    if (status) {
      break;
    }
    n_done++;
    n_failed += !o->verdict.pass;
    n_noisy += o->result.is_noisy;
    versus_add_json_case(add_json_case(list, entry, o), v, all->peers[i]);
    if (!options->is_json && i == 0) {
      print_cells(columns, NULL, v->n > 0);
    }
    if (!options->is_json) {
      show_case(columns, entry, v, o, all->peers[i]);
    }
    int complaint = complain_of_peers(entry, v, all->peers[i]);
    broken = complaint ? complaint : broken;
  }
  versus_add_json_means(report, v, all->peers, (size_t)n_done);
  selection_report(report, n_done, n_failed, status);
  if (status == TOOL_OK || n_done > 0) {
    if (!options->is_json) {
      versus_print_means(v, all->peers, (size_t)n_done);
      print_footer(chosen, n_done, n_failed, n_noisy, machine_seconds() - start);
    }
    status = write_report(report, chosen, all->cases, (size_t)n_done, options, status);
  }
  cJSON_Delete(report);
  return tool_exit_status(n_failed, status ? status : broken);
}

/* Before the long work: what comes of it can be written. */
static int check_outputs(const bench_options *options) {
  const char *json = options->json_path, *plot = options->plot_path;
  int status = plot ? plot_is_possible(plot) : TOOL_OK;
  if (status == TOOL_OK && json) {
    status = tool_probe_output("--json-file", json);
  }
  if (status == TOOL_OK && plot) {
    status = tool_probe_output("--plot", plot);
  }
  if (status == TOOL_OK && json && plot && output_same(json, plot)) {
    status = tool_usage_error("--plot %s: is the file of --json-file", plot);
  }
  return status;
}

int cmd_bench(int argc, char **argv) {
  bench_options options = {.settings = {.seconds = 0.5}, .peers = {.settings = {.timeout = 120}}};
  selection chosen;
  selection_init(&chosen);
  int status = parse_arguments(argc, argv, &options, &chosen);
  status = status ? status : check_outputs(&options);
  if (status == TOOL_OK) {
    results all = {.cases = calloc(chosen.n_cases + 1, sizeof *all.cases),
                   .peers = calloc(chosen.n_cases + 1, sizeof *all.peers)};
    status = all.cases && all.peers ? bench_all(&chosen, &options, &all)
                                    : tool_unsupported("out of memory");
    free(all.cases);
    free(all.peers);
  }
  selection_free(&chosen);
  return status;
}
