/* SPDX-License-Identifier: Apache-2.0 */
#include "versus.h"

#include "tool.h"

#include <cjson/cJSON.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Relative to the norm of all outputs. Accumulating in f16 is far below, another formula far
 * above. */
#define WRONG_RELATIVE_L2 0.25

int versus_choose(versus *v, const option_list *names) {
  int status = TOOL_OK;
  for (size_t i = 0; i < names->n && status == TOOL_OK; i++) {
    status = peer_find(names->items[i], &v->choices[i]);
    v->n = i + 1;
  }
  return status;
}

/* ── one case ───────────────────────────────────────────────────────────────────────────────── */

int versus_begin(versus_case *vc, const versus *v, const tool_case *c, const char *name) {
  *vc = (versus_case){.data = {.fd = -1}};
  if (v->n == 0) {
    return TOOL_OK;
  }
  const char *word = problem_spec_variant(c->spec);
  if (word) {
    return tool_unsupported("--vs: %s: peers have no word for %s, they take q= and causal, and K "
                            "and V in f32, f16 or bf16",
                            name, word);
  }
  int status = peer_data_create(&vc->data, c, name);
  for (size_t i = 0; i < v->n && status == TOOL_OK; i++) {
    peer *p = &vc->peers[i];
    peer_begin(p, &v->choices[i], c, &vc->data, &v->settings);
    vc->n = i + 1;
    peer_calm(p);
    if (p->state == PEER_MISSING) {
      status = tool_unsupported("--vs %s: %s", p->choice->text, p->reason);
    }
  }
  return status;
}

void versus_end(versus_case *vc) {
  for (size_t i = 0; i < vc->n; i++) {
    peer_end(&vc->peers[i]);
  }
  vc->n = 0;
  peer_data_free(&vc->data);
}

static void judge(peer *p, const peer_data *data, const tool_case *c, double our_time,
                  const bench_peer_result *times, const oracle *expected, peer_outcome *o) {
  if (p->state == PEER_READY) {
    peer_fetch_out(p, data);
  }
  *o = (peer_outcome){.state = p->state, .n_copies = p->n_copies};
  memcpy(o->reason, p->reason, sizeof o->reason);
  memcpy(o->version, p->version, sizeof o->version);
  memcpy(o->path, p->path, sizeof o->path);
  memcpy(o->layout, p->layout, sizeof o->layout);
  memcpy(o->kv_dtype, p->kv_dtype, sizeof o->kv_dtype);
  if (p->state != PEER_READY) {
    return;
  }
  o->times = *times;
  o->ratio = our_time > 0 ? times->time / our_time : 0;
  o->verdict = oracle_compare_peer(expected, c, p->out, &o->relative_l2);
  o->is_wrong = !(o->relative_l2 <= WRONG_RELATIVE_L2);
}

void versus_judge(versus_case *vc, const tool_case *c, const bench_result *result,
                  const oracle *expected, peer_outcome *outcomes) {
  for (size_t i = 0; i < vc->n; i++) {
    judge(&vc->peers[i], &vc->data, c, result->time, &result->peers[i], expected, &outcomes[i]);
  }
}

void versus_result_text(const peer_outcome *o, char *text, size_t capacity) {
  switch (o->state) {
  case PEER_UNSUPPORTED:
    snprintf(text, capacity, "unsupported: %s", o->reason);
    return;
  case PEER_MISSING:
  case PEER_BROKEN:
    snprintf(text, capacity, "BROKEN: %s", o->reason);
    return;
  case PEER_UNTRIED:
  case PEER_READY:
    break;
  }
  const char *noisy = o->times.is_noisy ? " noisy" : "";
  if (o->is_wrong) {
    snprintf(text, capacity, "WRONG%s", noisy);
  } else if (o->verdict.pass) {
    snprintf(text, capacity, "in bound%s", noisy);
  } else {
    snprintf(text, capacity, "%.3gx bound%s", o->verdict.worst, noisy);
  }
}

static void add_json_peer(cJSON *list, const peer_choice *choice, const peer_outcome *o) {
  cJSON *row = cJSON_CreateObject();
  cJSON_AddItemToArray(list, row);
  cJSON_AddStringToObject(row, "name", choice->text);
  if (o->state == PEER_UNTRIED) {
    return;
  }
  if (o->state != PEER_READY) {
    cJSON_AddStringToObject(row, o->state == PEER_UNSUPPORTED ? "unsupported" : "broken",
                            o->reason);
    return;
  }
  cJSON_AddStringToObject(row, "version", o->version);
  cJSON_AddStringToObject(row, "path", o->path);
  cJSON_AddStringToObject(row, "layout", o->layout);
  cJSON_AddStringToObject(row, "kv_dtype", o->kv_dtype);
  const struct {
    const char *key;
    double value;
  } numbers[] = {{"time_ms", o->times.time * 1e3},         {"time_ms_min", o->times.time_min * 1e3},
                 {"time_ms_max", o->times.time_max * 1e3}, {"spread", o->times.spread},
                 {"cpu_ms", o->times.cpu_time * 1e3},      {"ratio", o->ratio},
                 {"max_abs_err", o->verdict.max_abs_err},  {"max_ulp_err", o->verdict.max_ulp_err},
                 {"relative_l2_err", o->relative_l2},      {"worst", o->verdict.worst},
                 {"kv_copies", (double)o->n_copies}};
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    cJSON_AddNumberToObject(row, numbers[i].key, numbers[i].value);
  }
  cJSON_AddBoolToObject(row, "within_bound", o->verdict.pass);
  cJSON_AddBoolToObject(row, "wrong", o->is_wrong);
  cJSON_AddBoolToObject(row, "noisy", o->times.is_noisy);
  if (o->times.is_noisy) {
    cJSON_AddStringToObject(row, "noise", o->times.noise);
  }
}

void versus_add_json_case(cJSON *row, const versus *v, const peer_outcome *outcomes) {
  cJSON *list = v->n > 0 ? cJSON_AddArrayToObject(row, "peers") : NULL;
  for (size_t i = 0; i < v->n; i++) {
    add_json_peer(list, &v->choices[i], &outcomes[i]);
  }
}

/* ── all cases ──────────────────────────────────────────────────────────────────────────────── */

typedef struct mean {
  double log_sum;
  size_t n;
} mean;

static void mean_add(mean *m, double ratio) {
  m->log_sum += log(ratio);
  m->n++;
}

static double mean_value(const mean *m) {
  return m->n > 0 ? exp(m->log_sum / (double)m->n) : 0;
}

/* Of one peer: all results that are attention, and those as accurate as ours have to be. */
typedef struct peer_means {
  mean any, within_bound;
  size_t n_wrong, n_unsupported, n_broken;
} peer_means;

static peer_means collect_means(size_t i, peer_outcome (*outcomes)[BENCH_MAX_PEERS],
                                size_t n_cases) {
  peer_means m = {0};
  for (size_t k = 0; k < n_cases; k++) {
    const peer_outcome *o = &outcomes[k][i];
    m.n_unsupported += o->state == PEER_UNSUPPORTED;
    m.n_broken += o->state == PEER_BROKEN;
    if (o->state != PEER_READY) {
      continue;
    }
    m.n_wrong += (size_t)o->is_wrong;
    if (!o->is_wrong && o->ratio > 0) {
      mean_add(&m.any, o->ratio);
      if (o->verdict.pass) {
        mean_add(&m.within_bound, o->ratio);
      }
    }
  }
  return m;
}

void versus_add_json_means(cJSON *report, const versus *v,
                           peer_outcome (*outcomes)[BENCH_MAX_PEERS], size_t n_cases) {
  cJSON *list = v->n > 0 ? cJSON_AddArrayToObject(report, "peers") : NULL;
  for (size_t i = 0; i < v->n; i++) {
    peer_means m = collect_means(i, outcomes, n_cases);
    cJSON *row = cJSON_CreateObject();
    cJSON_AddItemToArray(list, row);
    cJSON_AddStringToObject(row, "name", v->choices[i].text);
    const struct {
      const char *key;
      double value;
    } numbers[] = {{"cases", (double)m.any.n},
                   {"ratio_mean", mean_value(&m.any)},
                   {"cases_within_bound", (double)m.within_bound.n},
                   {"ratio_mean_within_bound", mean_value(&m.within_bound)},
                   {"wrong", (double)m.n_wrong},
                   {"unsupported", (double)m.n_unsupported},
                   {"broken", (double)m.n_broken}};
    for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++) {
      cJSON_AddNumberToObject(row, numbers[k].key, numbers[k].value);
    }
  }
}

static void print_count(size_t n, const char *what) {
  if (n > 0) {
    printf(", %zu %s", n, what);
  }
}

void versus_print_means(const versus *v, peer_outcome (*outcomes)[BENCH_MAX_PEERS],
                        size_t n_cases) {
  for (size_t i = 0; i < v->n; i++) {
    peer_means m = collect_means(i, outcomes, n_cases);
    printf("vs %s: ", v->choices[i].text);
    if (m.any.n > 0) {
      printf("%.2fx over %zu case%s", mean_value(&m.any), m.any.n, m.any.n == 1 ? "" : "s");
    } else {
      printf("no ratio");
    }
    if (m.within_bound.n > 0 && m.within_bound.n < m.any.n) {
      printf(", %.2fx over the %zu within our error bound", mean_value(&m.within_bound),
             m.within_bound.n);
    } else if (m.any.n > 0) {
      printf(", %s within our error bound", m.within_bound.n > 0 ? "all" : "none");
    }
    print_count(m.n_wrong, "wrong");
    print_count(m.n_unsupported, "unsupported");
    print_count(m.n_broken, "broken");
    putchar('\n');
  }
}
