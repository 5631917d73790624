/* SPDX-License-Identifier: Apache-2.0 */
#include "ascend_case.h"

#include "tool.h"

#include <cjson/cJSON.h>

#include <stdlib.h>
#include <string.h>

/* ── words and bytes ────────────────────────────────────────────────────────────────────────── */

static splitkv_status measure(ascend_tiling *t, splitkv_error *error) {
  const struct {
    splitkv_ascend_sizing sizing;
    splitkv_ascend_sizes *sizes;
  } all[] = {{SPLITKV_ASCEND_EXACT, &t->exact},
             {SPLITKV_ASCEND_BEFORE, &t->before},
             {SPLITKV_ASCEND_AFTER, &t->after}};
  splitkv_status status = SPLITKV_OK;
  for (size_t i = 0; i < sizeof all / sizeof all[0] && status == SPLITKV_OK; i++) {
    status = splitkv_ascend_get_sizes(t->words, t->info.n_words, t->target.n_cores, all[i].sizing,
                                      all[i].sizes, error);
  }
  return status;
}

splitkv_status ascend_tiling_make(ascend_tiling *t, const splitkv_problem *problem,
                                  const splitkv_batch *batch, const splitkv_ascend_target *target,
                                  splitkv_error *error) {
  *t = (ascend_tiling){.target = *target, .info = {.struct_size = sizeof t->info}};
  splitkv_status status = splitkv_ascend_tile(problem, batch, target, NULL, 0, &t->info, error);
  if (status != SPLITKV_OK) {
    return status;
  }
  t->words = calloc((size_t)t->info.n_words, sizeof *t->words);
  if (!t->words) {
    *error = (splitkv_error){.status = SPLITKV_ERROR_OUT_OF_MEMORY};
    return SPLITKV_ERROR_OUT_OF_MEMORY;
  }
  status = splitkv_ascend_tile(problem, batch, target, t->words, t->info.n_words, &t->info, error);
  return status == SPLITKV_OK ? measure(t, error) : status;
}

void ascend_tiling_free(ascend_tiling *t) {
  free(t->words);
  *t = (ascend_tiling){0};
}

splitkv_status ascend_tiling_spoil(ascend_tiling *t, const splitkv_problem *problem,
                                   const splitkv_batch *batch, uint32_t flags,
                                   splitkv_error *error) {
  t->target.flags |= flags;
  return splitkv_ascend_tile(problem, batch, &t->target, t->words, t->info.n_words, &t->info,
                             error);
}

int ascend_case_plan(tool_case *c, ascend_tiling *t, const problem_spec *spec, uint32_t flags,
                     const char *name) {
  int failed = case_describe(c, spec, name);
  if (failed) {
    return failed;
  }
  splitkv_error error = {0};
  splitkv_ascend_target target;
  splitkv_ascend_target_init(&target);
  target.n_cores = spec->cores;
  target.rule = (splitkv_ascend_rule)spec->rule;
  target.flags = flags;
  splitkv_status status = ascend_tiling_make(t, &c->problem, &c->batch, &target, &error);
  return status == SPLITKV_OK ? TOOL_OK : case_library_error(name, status, &error);
}

int ascend_case_bound(const tool_case *c, const ascend_tiling *t, splitkv_ascend_sizes *bound) {
  splitkv_limits limits;
  splitkv_limits_init(&limits);
  limits.max_requests = c->batch.n_requests;
  limits.max_kv_tokens_per_request = c->max_kv_len;
  splitkv_error error = {0};
  splitkv_status status = splitkv_ascend_get_bound(&c->problem, &limits, &t->target, bound, &error);
  return status == SPLITKV_OK ? TOOL_OK : case_library_error("", status, &error);
}

/* ── work ───────────────────────────────────────────────────────────────────────────────────── */

typedef struct request_length {
  int64_t kv_len, request;
} request_length;

static int compare_lengths(const void *a, const void *b) {
  const request_length *x = a, *y = b;
  return x->kv_len != y->kv_len ? (x->kv_len > y->kv_len) - (x->kv_len < y->kv_len)
                                : (x->request > y->request) - (x->request < y->request);
}

/* Requests by length, as the kernel takes them; NULL when memory is short. */
static request_length *sort_requests(const tool_case *c) {
  size_t n = (size_t)c->batch.n_requests;
  request_length *order = calloc(n + 1, sizeof *order);
  for (size_t r = 0; order && r < n; r++) {
    order[r] = (request_length){c->kv_lens[r], (int64_t)r};
  }
  if (order) {
    qsort(order, n, sizeof *order, compare_lengths);
  }
  return order;
}

static int64_t divide_up(int64_t a, int64_t b) {
  return a / b + (a % b > 0);
}

typedef struct phase {
  int64_t first, n_requests, n_heads, n_splits, split_tokens; /* n_heads of a task */
  int is_tail;
} phase;

static void walk_phase(const tool_case *c, const ascend_tiling *t, const request_length *order,
                       const phase *p, void (*visit)(void *context, const ascend_task *task),
                       void *context) {
  int64_t hq = c->problem.n_heads_q, id = 0;
  for (int64_t k = p->first; k < p->first + p->n_requests; k++) {
    for (int64_t head = 0; head < hq; head += p->n_heads) {
      for (int64_t split = 0; split < p->n_splits; split++, id++) {
        int64_t left = order[k].kv_len - split * p->split_tokens;
        if (left <= 0) {
          continue;
        }
        ascend_task task = {.core = id % t->info.n_groups,
                            .request = order[k].request,
                            .split = split,
                            .first_head = head,
                            .n_heads = hq - head < p->n_heads ? hq - head : p->n_heads,
                            .n_tokens =
                                p->n_splits > 1 && left > p->split_tokens ? p->split_tokens : left,
                            .is_tail = p->is_tail};
        visit(context, &task);
      }
    }
  }
}

int ascend_walk(const tool_case *c, const ascend_tiling *t,
                void (*visit)(void *context, const ascend_task *task), void *context) {
  const splitkv_ascend_info *info = &t->info;
  request_length *order = sort_requests(c);
  if (!order) {
    return tool_unsupported("out of memory for %lld requests", (long long)c->batch.n_requests);
  }
  const phase phases[] = {
      {0, info->n_requests_former, info->heads_per_task_former, info->n_splits, info->split_tokens,
       0},
      {info->n_requests_former, info->n_requests_tail, info->heads_per_task_tail, 1, 0, 1}};
  for (size_t i = 0; i < sizeof phases / sizeof phases[0] && info->n_groups > 0; i++) {
    if (phases[i].n_heads > 0) {
      walk_phase(c, t, order, &phases[i], visit, context);
    }
  }
  free(order);
  return TOOL_OK;
}

typedef struct measuring {
  ascend_work *work;
  const splitkv_problem *problem;
  const splitkv_ascend_info *info;
} measuring;

static void measure_task(void *context, const ascend_task *task) {
  measuring *m = context;
  ascend_work *w = m->work;
  const splitkv_problem *p = m->problem;
  int64_t group = p->n_heads_q / p->n_heads_kv;
  int64_t last_head = task->first_head + task->n_heads - 1;
  double kv_heads = (double)(last_head / group - task->first_head / group + 1);
  double tokens = (double)task->n_tokens, heads = (double)task->n_heads, d = (double)p->head_dim;
  double tiles = (double)divide_up(task->n_tokens, m->info->tile_tokens);
  w->core_work[task->core] += tokens * heads;
  w->total += tokens * heads;
  w->n_tasks++;
  w->kv_read_bytes += 2 * tokens * kv_heads * d * 2; /* K and V of two bytes an element */
  /* Scores in f32 and weights of two bytes, P.V in f32 for each tile, each written and read. */
  w->tile_bytes += 2 * heads * (tokens * (4 + 2) + tiles * d * 4);
  if (m->info->key & ASCEND_KEY_SPLIT && !task->is_tail) {
    w->o_core_write_bytes += heads * d * 4;
    w->l_write_bytes += heads * 4;
  }
}

int ascend_work_measure(ascend_work *w, const tool_case *c, const ascend_tiling *t) {
  const splitkv_problem *p = &c->problem;
  *w = (ascend_work){0};
  w->core_work = calloc((size_t)t->target.n_cores, sizeof *w->core_work);
  if (!w->core_work) {
    return tool_unsupported("out of memory for %lld cores", (long long)t->target.n_cores);
  }
  measuring m = {w, p, &t->info};
  int status = ascend_walk(c, t, measure_task, &m);
  for (int64_t core = 0; core < t->target.n_cores; core++) {
    w->most = w->core_work[core] > w->most ? w->core_work[core] : w->most;
  }
  w->balance = w->most > 0 ? w->total / (double)t->target.n_cores / w->most : 1;
  w->kv_bytes = 2 * (double)c->n_tokens * (double)p->n_heads_kv * (double)p->head_dim * 2;
  w->o_core_read_bytes = 2 * w->o_core_write_bytes;
  w->l_read_bytes = 2 * w->l_write_bytes;
  return status;
}

void ascend_work_free(ascend_work *w) {
  free(w->core_work);
  *w = (ascend_work){0};
}

/* ── words for people and machines ──────────────────────────────────────────────────────────── */

const char *ascend_key_text(int64_t key) {
  static const struct {
    int64_t key;
    const char *text;
  } keys[] = {{0, "f16, whole requests"},
              {1, "bf16, whole requests"},
              {16, "f16, with splits"},
              {17, "bf16, with splits"}};
  for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
    if (keys[i].key == key) {
      return keys[i].text;
    }
  }
  return "unknown to the kernel, which would do nothing";
}

void ascend_add_bytes(cJSON *object, const char *key, uint64_t bytes) {
  cJSON_AddNumberToObject(object, key, (double)bytes);
}

static void add_buffers(cJSON *report, const ascend_tiling *t, const splitkv_ascend_sizes *bound) {
  cJSON *list = cJSON_AddArrayToObject(report, "buffers");
  for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; i++) {
    cJSON *row = cJSON_CreateObject();
    cJSON_AddItemToArray(list, row);
    cJSON_AddStringToObject(row, "name", splitkv_ascend_buffer_name((splitkv_ascend_buffer)i));
    ascend_add_bytes(row, "exact_bytes", t->exact.bytes[i]);
    ascend_add_bytes(row, "before_bytes", t->before.bytes[i]);
    ascend_add_bytes(row, "after_bytes", t->after.bytes[i]);
    if (bound) {
      ascend_add_bytes(row, "bound_bytes", bound->bytes[i]);
    }
  }
}

void ascend_add_json(cJSON *report, const selected_case *entry, const ascend_tiling *t,
                     const ascend_work *w, const splitkv_ascend_sizes *bound) {
  const splitkv_ascend_info *info = &t->info;
  cJSON_AddStringToObject(report, "problem", entry->problem);
  cJSON_AddStringToObject(report, "rule", problem_rule_name(t->target.rule));
  const struct {
    const char *key;
    double value;
  } numbers[] = {{"cores", (double)t->target.n_cores},
                 {"key", (double)info->key},
                 {"groups", (double)info->n_groups},
                 {"splits", (double)info->n_splits},
                 {"split_tokens", (double)info->split_tokens},
                 {"tile_tokens", (double)info->tile_tokens},
                 {"tasks", (double)info->n_tasks},
                 {"tasks_with_tokens", (double)w->n_tasks},
                 {"former_requests", (double)info->n_requests_former},
                 {"former_heads", (double)info->heads_per_task_former},
                 {"tail_requests", (double)info->n_requests_tail},
                 {"tail_heads", (double)info->heads_per_task_tail},
                 {"balance", w->balance}};
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    cJSON_AddNumberToObject(report, numbers[i].key, numbers[i].value);
  }
  cJSON *words = cJSON_AddArrayToObject(report, "words");
  for (int64_t i = 0; i < info->n_words; i++) {
    cJSON_AddItemToArray(words, cJSON_CreateNumber((double)t->words[i]));
  }
  add_buffers(report, t, bound);
  const struct {
    const char *key;
    double bytes;
  } traffic[] = {{"kv_bytes", w->kv_bytes},
                 {"kv_read_bytes", w->kv_read_bytes},
                 {"o_core_write_bytes", w->o_core_write_bytes},
                 {"o_core_read_bytes", w->o_core_read_bytes},
                 {"l_write_bytes", w->l_write_bytes},
                 {"l_read_bytes", w->l_read_bytes},
                 {"tile_bytes", w->tile_bytes}};
  cJSON *bytes = cJSON_AddObjectToObject(report, "traffic");
  for (size_t i = 0; i < sizeof traffic / sizeof traffic[0]; i++) {
    cJSON_AddNumberToObject(bytes, traffic[i].key, traffic[i].bytes);
  }
}
