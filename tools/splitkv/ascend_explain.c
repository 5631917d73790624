/* splitkv ascend explain: what the kernel would do with a problem, in words and as a picture.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "ascend.h"

#include "ascend_case.h"
#include "ascend_picture.h"
#include "options.h"
#include "table.h"
#include "tool.h"

#include <cjson/cJSON.h>

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct explain_options {
  int is_json;
  const char *svg_path;
} explain_options;

/* A problem under its own rule and under the other one. */
typedef struct explained {
  const selected_case *entry;
  tool_case c;
  ascend_tiling own, other;
  ascend_work own_work, other_work;
  splitkv_status other_status; /* the other rule may make what the kernel cannot do */
  splitkv_error other_error;
} explained;

static splitkv_ascend_rule other_rule(const explained *e) {
  return e->own.target.rule == SPLITKV_ASCEND_GUARDED ? SPLITKV_ASCEND_PR683
                                                      : SPLITKV_ASCEND_GUARDED;
}

/* ── text ───────────────────────────────────────────────────────────────────────────────────── */

enum { LINE_WIDTH = 80, INDENT = 2 };

/* Prints a paragraph in lines of at most LINE_WIDTH. */
static void say(const char *format, ...) {
  char text[1200];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  size_t column = 0;
  for (const char *word = text; *word;) {
    size_t length = strcspn(word, " ");
    if (column == 0 || column + 1 + length > LINE_WIDTH) {
      printf("%s%*s", column ? "\n" : "", INDENT, "");
      column = INDENT;
    } else {
      putchar(' ');
      column++;
    }
    printf("%.*s", (int)length, word);
    column += length;
    word += length + strspn(word + length, " ");
  }
  putchar('\n');
}

/* A number with separators, in one of a few buffers that are used in turn: enough for the arguments
 * of one call. */
typedef struct number_text {
  char text[32];
} number_text;

static const char *count(number_text *buffer, double n) {
  table_count_text((uint64_t)(n + 0.5), buffer->text, sizeof buffer->text);
  return buffer->text;
}

/* ── why ────────────────────────────────────────────────────────────────────────────────────── */

typedef enum reason {
  REASON_LONG_SPLIT,    /* long, and few enough requests or nobody asks */
  REASON_GUARD,         /* long, but the batch alone keeps the cores busy */
  REASON_ENOUGH_HEADS,  /* not long */
  REASON_TOO_FEW_HEADS, /* not long, but the heads of the batch are fewer than the cores */
  REASON_UNKNOWN        /* the words say otherwise */
} reason;

/* 256 x cores tokens are long; 0.8 x cores requests, or heads, are enough. */
static int is_long(const explained *e) {
  return e->c.max_kv_len / 256 >= e->own.target.n_cores;
}

static int is_enough(int64_t n, int64_t n_cores) {
  return 5 * n >= 4 * n_cores;
}

static int is_in_guard(int64_t n_requests, int64_t n_cores) {
  return 5 * n_requests <= 4 * n_cores;
}

static reason find_reason(const explained *e, const ascend_tiling *t) {
  int64_t n = e->c.batch.n_requests, cores = t->target.n_cores;
  int splits = (t->info.key & ASCEND_KEY_SPLIT) != 0;
  int guard_allows = t->target.rule == SPLITKV_ASCEND_PR683 || is_in_guard(n, cores);
  reason found = is_long(e) && guard_allows                      ? REASON_LONG_SPLIT
                 : !is_enough(n * e->c.problem.n_heads_q, cores) ? REASON_TOO_FEW_HEADS
                 : is_long(e)                                    ? REASON_GUARD
                                                                 : REASON_ENOUGH_HEADS;
  int should_split = found == REASON_LONG_SPLIT || found == REASON_TOO_FEW_HEADS;
  /* One split in all is none. */
  return should_split == splits || t->info.n_splits == 1 ? found : REASON_UNKNOWN;
}

static void say_reason(const explained *e, const ascend_tiling *t) {
  number_text a, b, c;
  const char *rule = problem_rule_name(t->target.rule);
  double cores = (double)t->target.n_cores, n = (double)e->c.batch.n_requests;
  const char *longest = count(&a, (double)e->c.max_kv_len);
  const char *threshold = count(&b, 256 * cores);
  const char *batch = count(&c, n);
  switch (find_reason(e, t)) {
  case REASON_LONG_SPLIT:
    if (t->target.rule == SPLITKV_ASCEND_PR683) {
      say("The longest request has %s tokens; from 256 x cores = %s on that is long, and %s splits "
          "long requests over the cores whatever the batch.",
          longest, threshold, rule);
    } else {
      say("The longest request has %s tokens; from 256 x cores = %s on that is long, and batch %s "
          "<= 0.8 x %.0f cores = %.1f: too few requests to keep the cores busy, so %s splits "
          "them.",
          longest, threshold, batch, cores, 0.8 * cores, rule);
    }
    break;
  case REASON_GUARD:
    say("Batch %s > 0.8 x %.0f cores = %.1f: %s does not split. There are enough requests to keep "
        "every core busy, although the longest has %s tokens and %s are called long.",
        batch, cores, 0.8 * cores, rule, longest, threshold);
    break;
  case REASON_ENOUGH_HEADS:
    say("The longest request has %s tokens; below 256 x cores = %s that is not long, and batch x "
        "heads = %s x %lld is at least 0.8 x %.0f cores: %s does not split.",
        longest, threshold, batch, (long long)e->c.problem.n_heads_q, cores, rule);
    break;
  case REASON_TOO_FEW_HEADS:
    say("Batch x heads = %s x %lld is below 0.8 x %.0f cores = %.1f: too few to keep the cores "
        "busy, so %s splits requests.",
        batch, (long long)e->c.problem.n_heads_q, cores, 0.8 * cores, rule);
    break;
  case REASON_UNKNOWN:
    say("%s has its own reasons.", rule);
    break;
  }
}

static void print_way(const explained *e) {
  const ascend_tiling *t = &e->own;
  const splitkv_ascend_info *info = &t->info;
  number_text a, b;
  printf("\nWhich way\n");
  say_reason(e, t);
  say("key %lld: %s.", (long long)info->key, ascend_key_text(info->key));
  if (info->key & ASCEND_KEY_SPLIT) {
    say("%s split%s of %s tokens: each is attended to on its own, its result and log-sum-exp go to "
        "o_core and l, and when all cores are done, the results of a request are combined.",
        count(&a, (double)info->n_splits), info->n_splits == 1 ? "" : "s",
        count(&b, (double)info->split_tokens));
  } else {
    reason found = find_reason(e, t);
    int is_one = found == REASON_LONG_SPLIT || found == REASON_TOO_FEW_HEADS;
    say("%s: each task attends to all tokens of its request and writes the result itself.",
        is_one ? "One split takes all tokens, which is no split" : "No split");
  }
}

/* ── work ───────────────────────────────────────────────────────────────────────────────────── */

static void print_work(const explained *e) {
  const splitkv_ascend_info *info = &e->own.info;
  const ascend_work *w = &e->own_work;
  number_text a, b, c, d;
  printf("\nWork\n");
  say("%s tasks, %s of them with tokens, go to %s of %s cores in turn. A task is %lld of %lld "
      "heads of one request%s, in tiles of %lld tokens.",
      count(&a, (double)info->n_tasks), count(&b, (double)w->n_tasks),
      count(&c, (double)info->n_groups), count(&d, (double)e->own.target.n_cores),
      (long long)info->heads_per_task_former, (long long)e->c.problem.n_heads_q,
      info->n_splits > 1 ? " and one split" : "", (long long)info->tile_tokens);
  if (info->n_requests_tail > 0) {
    say("The %s longest requests come last, in tasks of %lld heads: smaller tasks even out the "
        "end.",
        count(&a, (double)info->n_requests_tail), (long long)info->heads_per_task_tail);
  }
  say("Balance %.1f %%: the busiest core has %s tokens x heads, the mean of all cores is %s.",
      100 * w->balance, count(&a, w->most), count(&b, w->total / (double)e->own.target.n_cores));
}

/* ── memory ─────────────────────────────────────────────────────────────────────────────────── */

static void print_buffers(const explained *e) {
  char other_title[40];
  snprintf(other_title, sizeof other_title, "under %s", problem_rule_name(other_rule(e)));
  const table_column columns[] = {{"  buffer", 8, 1},
                                  {"before", 15, 0},
                                  {"after", 15, 0},
                                  {"touched", 15, 0},
                                  {other_title, 15, 0}};
  printf("\nScratch memory in bytes: allocated before the pull request's change, after it,\n"
         "touched under %s, and touched under %s\n",
         problem_rule_name(e->own.target.rule), problem_rule_name(other_rule(e)));
  table_header(columns, 5);
  for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; i++) {
    char name[24], text[4][32];
    const uint64_t bytes[] = {e->own.before.bytes[i], e->own.after.bytes[i], e->own.exact.bytes[i],
                              e->other.exact.bytes[i]};
    for (int j = 0; j < 4; j++) {
      table_count_text(bytes[j], text[j], sizeof text[j]);
    }
    snprintf(name, sizeof name, "  %s", splitkv_ascend_buffer_name((splitkv_ascend_buffer)i));
    const char *cells[] = {name, text[0], text[1], text[2],
                           e->other_status == SPLITKV_OK ? text[3] : "-"};
    table_row(columns, 5, cells);
  }
}

/* Warns of each buffer that is too small. */
static void print_warnings(const explained *e) {
  const struct {
    const char *when;
    const splitkv_ascend_sizes *sizes;
  } sizings[] = {{"before the change", &e->own.before}, {"after the change", &e->own.after}};
  int n = 0;
  for (size_t i = 0; i < sizeof sizings / sizeof sizings[0]; i++) {
    for (int j = 0; j < SPLITKV_ASCEND_N_SCRATCH; j++) {
      double needed = (double)e->own.exact.bytes[j], given = (double)sizings[i].sizes->bytes[j];
      number_text a, b, c;
      if (needed <= given) {
        continue;
      }
      if (n++ == 0) {
        putchar('\n');
      }
      say("WARNING: %s is %s bytes too small %s: %s allocated, %s needed (%.2f x).",
          splitkv_ascend_buffer_name((splitkv_ascend_buffer)j), count(&a, needed - given),
          sizings[i].when, count(&b, given), count(&c, needed), given > 0 ? needed / given : 0);
    }
  }
}

/* ── traffic and the other rule ─────────────────────────────────────────────────────────────── */

static double split_share(const ascend_work *w) {
  double extra = w->o_core_write_bytes + w->o_core_read_bytes;
  return w->kv_read_bytes > 0 ? extra / w->kv_read_bytes : 0;
}

static void print_traffic(const explained *e) {
  const ascend_work *w = &e->own_work;
  number_text a, b, c;
  printf("\nMemory traffic\n");
  say("K and V: %s bytes%s.", count(&a, w->kv_read_bytes),
      w->kv_read_bytes > w->kv_bytes ? ", where several tasks read the same heads" : "");
  if (w->kv_read_bytes > w->kv_bytes) {
    say("Read once they would be %s bytes.", count(&a, w->kv_bytes));
  }
  if (w->o_core_write_bytes > 0) {
    say("Splits add %.1f %%: o_core is written once, %s bytes, and read twice, %s bytes, since "
        "both vector cores of a group combine every row; l adds %s bytes to that.",
        100 * split_share(w), count(&a, w->o_core_write_bytes), count(&b, w->o_core_read_bytes),
        count(&c, w->l_write_bytes + w->l_read_bytes));
  }
  say("Scores, weights and P.V between cube and vector cores: about %s bytes, which mostly stay in "
      "the cache.",
      count(&a, w->tile_bytes));
}

static void print_other(const explained *e) {
  const char *rule = problem_rule_name(other_rule(e));
  const splitkv_ascend_info *info = &e->other.info;
  number_text a, b;
  printf("\nThe other rule, %s\n", rule);
  if (e->other_status != SPLITKV_OK) {
    say("Not possible: %s",
        e->other_error.message[0] ? e->other_error.message : splitkv_status_text(e->other_status));
    return;
  }
  if (memcmp(e->own.words, e->other.words, (size_t)info->n_words * sizeof *e->own.words) == 0) {
    say("The same words, to the bit.");
    return;
  }
  say_reason(e, &e->other);
  char splits[80] = "no split";
  if (info->key & ASCEND_KEY_SPLIT) {
    snprintf(splits, sizeof splits, "%lld splits of %s tokens", (long long)info->n_splits,
             count(&a, (double)info->split_tokens));
  }
  say("key %lld, %s, %s tasks, balance %.1f %%; o_core and l touch %s bytes in all, and splits "
      "add %.1f %% of traffic.",
      (long long)info->key, splits, count(&a, (double)info->n_tasks), 100 * e->other_work.balance,
      count(&b, (double)(e->other.exact.bytes[SPLITKV_ASCEND_O_CORE] +
                         e->other.exact.bytes[SPLITKV_ASCEND_L])),
      100 * split_share(&e->other_work));
}

static void print_for_people(const explained *e) {
  printf("%s\n", e->entry->name);
  print_way(e);
  print_work(e);
  print_buffers(e);
  print_warnings(e);
  print_traffic(e);
  print_other(e);
}

/* ── for machines ───────────────────────────────────────────────────────────────────────────── */

static void add_warnings(cJSON *report, const explained *e) {
  cJSON *list = cJSON_AddArrayToObject(report, "too_small");
  for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; i++) {
    uint64_t needed = e->own.exact.bytes[i], given = e->own.before.bytes[i];
    if (needed <= given) {
      continue;
    }
    cJSON *row = cJSON_CreateObject();
    cJSON_AddItemToArray(list, row);
    cJSON_AddStringToObject(row, "name", splitkv_ascend_buffer_name((splitkv_ascend_buffer)i));
    ascend_add_bytes(row, "exact_bytes", needed);
    ascend_add_bytes(row, "before_bytes", given);
    ascend_add_bytes(row, "short_bytes", needed - given);
  }
}

static int print_for_machines(const explained *e) {
  cJSON *report = tool_json_report("ascend explain");
  ascend_add_json(report, e->entry, &e->own, &e->own_work, NULL);
  cJSON_AddNumberToObject(report, "split_traffic_fraction", split_share(&e->own_work));
  add_warnings(report, e);
  cJSON *other = cJSON_AddObjectToObject(report, "other");
  if (e->other_status == SPLITKV_OK) {
    ascend_add_json(other, e->entry, &e->other, &e->other_work, NULL);
    cJSON_AddNumberToObject(other, "split_traffic_fraction", split_share(&e->other_work));
  } else {
    cJSON_AddStringToObject(other, "rule", problem_rule_name(other_rule(e)));
    cJSON_AddStringToObject(other, "error", e->other_error.message);
  }
  int status = tool_print_json(report);
  cJSON_Delete(report);
  return status;
}

/* ── the command ────────────────────────────────────────────────────────────────────────────── */

static int prepare(explained *e) {
  int status = ascend_case_plan(&e->c, &e->own, &e->entry->spec, 0, "");
  status = status ? status : ascend_work_measure(&e->own_work, &e->c, &e->own);
  if (status) {
    return status;
  }
  splitkv_ascend_target target = e->own.target;
  target.rule = other_rule(e);
  e->other_status =
      ascend_tiling_make(&e->other, &e->c.problem, &e->c.batch, &target, &e->other_error);
  return e->other_status == SPLITKV_OK ? ascend_work_measure(&e->other_work, &e->c, &e->other)
                                       : TOOL_OK;
}

static int explain_chosen(const selection *chosen, const explain_options *options) {
  int status = TOOL_OK;
  explained e = {.entry = selection_single(chosen, "ascend explain", &status)};
  if (!e.entry) {
    return status;
  }
  status = prepare(&e);
  if (!status && options->svg_path) {
    status = ascend_draw(options->svg_path, e.entry, &e.c, &e.own, &e.own_work);
  }
  if (!status && options->is_json) {
    status = print_for_machines(&e);
  } else if (!status) {
    print_for_people(&e);
  }
  ascend_work_free(&e.own_work);
  ascend_work_free(&e.other_work);
  ascend_tiling_free(&e.own);
  ascend_tiling_free(&e.other);
  case_free(&e.c);
  return status;
}

int ascend_explain(int argc, char **argv) {
  explain_options options = {0};
  const option_rule rules[] = {{"--json", OPTION_FLAG, &options.is_json},
                               {"--svg", OPTION_TEXT, &options.svg_path}};
  selection chosen;
  selection_init(&chosen);
  chosen.words.device = PROBLEM_ASCEND;
  int status = options_parse(argc, argv, rules, sizeof rules / sizeof rules[0], &chosen);
  status = status ? status : selection_finish(&chosen, 0);
  if (!status && options.svg_path) {
    status = tool_probe_output("--svg", options.svg_path);
  }
  status = status ? status : explain_chosen(&chosen, &options);
  selection_free(&chosen);
  return status;
}
