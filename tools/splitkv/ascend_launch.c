/* SPDX-License-Identifier: Apache-2.0 */
#include "ascend_launch.h"

#include "tool.h"

#include "ref.h"

#include <cjson/cJSON.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ── memory ─────────────────────────────────────────────────────────────────────────────────── */

void ascend_launch_init(ascend_launch *l, const splitkv_ascend_sizes *sizes) {
  *l = (ascend_launch){0};
  splitkv_ascend_memory_init(&l->memory);
  memcpy(l->memory.bytes, sizes->bytes, sizeof sizes->bytes);
}

void ascend_launch_free(ascend_launch *l) {
  for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; i++) {
    zoned_free(&l->scratch[i]);
  }
  free(l->q);
  *l = (ascend_launch){0};
}

int ascend_launch_allocate(ascend_launch *l, const splitkv_ascend_sizes *touched) {
  for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; i++) {
    uint64_t bytes = l->memory.bytes[i], n = touched->bytes[i] < bytes ? touched->bytes[i] : bytes;
    l->scratch[i] = zoned_allocate((size_t)bytes);
    l->memory.data[i] = l->scratch[i].data;
    if (!l->memory.data[i]) {
      return tool_unsupported("no memory for the %llu bytes of %s", (unsigned long long)bytes,
                              splitkv_ascend_buffer_name((splitkv_ascend_buffer)i));
    }
    memset(l->memory.data[i], 0xff, (size_t)n);
  }
  return TOOL_OK;
}

void ascend_launch_tensor(ascend_launch *l, splitkv_ascend_buffer buffer, const void *data,
                          size_t size_bytes) {
  l->memory.data[buffer] = (void *)(uintptr_t)data; /* all but out are only read */
  l->memory.bytes[buffer] = size_bytes;
}

int ascend_launch_q(ascend_launch *l, const void *data, size_t size_bytes, int64_t head_dim) {
  enum { BLOCK = 16, ELEMENT_BYTES = 2 };
  size_t room = (size_t)((BLOCK - head_dim % BLOCK) % BLOCK) * ELEMENT_BYTES;
  if (room == 0) {
    ascend_launch_tensor(l, SPLITKV_ASCEND_Q, data, size_bytes);
    return TOOL_OK;
  }
  l->q = malloc(size_bytes + room);
  if (!l->q) {
    return tool_unsupported("no memory for the %zu bytes of q", size_bytes + room);
  }
  memcpy(l->q, data, size_bytes);
  memset(l->q + size_bytes, 0xff, room); /* NaN: nothing uses it */
  ascend_launch_tensor(l, SPLITKV_ASCEND_Q, l->q, size_bytes + room);
  return TOOL_OK;
}

int ascend_launch_case(ascend_launch *l, const tool_case *c) {
  const struct {
    splitkv_ascend_buffer buffer;
    const zoned *tensor;
  } tensors[] = {{SPLITKV_ASCEND_K, &c->kv[KV_K]},
                 {SPLITKV_ASCEND_V, &c->kv[KV_V]},
                 {SPLITKV_ASCEND_OUT, &c->out}};
  for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
    ascend_launch_tensor(l, tensors[i].buffer, tensors[i].tensor->data,
                         tensors[i].tensor->size_bytes);
  }
  size_t n = (size_t)(c->batch.n_requests * c->problem.table_width);
  ascend_launch_tensor(l, SPLITKV_ASCEND_BLOCK_TABLE, c->block_table, n * sizeof(int32_t));
  return ascend_launch_q(l, c->q.data, c->q.size_bytes, c->problem.head_dim);
}

/* ── device ─────────────────────────────────────────────────────────────────────────────────── */

int ascend_open_device(const ascend_device_choice *choice, splitkv_ascend_device **device) {
  char here[600] = "";
  splitkv_ascend_device_options options;
  splitkv_ascend_device_options_init(&options);
  options.kernel_path = choice->kernel_path;
  options.runtime_path = choice->runtime_path;
  options.device_id = (int32_t)choice->device.value;
  /* The loader looks for a bare name in its own places only; people mean the file beside them. */
  if (!strchr(choice->kernel_path, '/') && access(choice->kernel_path, F_OK) == 0 &&
      (size_t)snprintf(here, sizeof here, "./%s", choice->kernel_path) < sizeof here) {
    options.kernel_path = here;
  }
  splitkv_error error = {0};
  splitkv_status status = splitkv_ascend_device_open(&options, device, &error);
  const char *option = strcmp(error.field, "options.kernel_path") == 0    ? "--kernel"
                       : strcmp(error.field, "options.runtime_path") == 0 ? "--runtime"
                                                                          : "";
  return status == SPLITKV_OK ? TOOL_OK : tool_library_error(option, status, &error);
}

/* ── verdict ────────────────────────────────────────────────────────────────────────────────── */

ascend_verdict ascend_compare(const oracle *o, const tool_case *c) {
  ascend_verdict v = {.pass = 1};
  int64_t hq = c->problem.n_heads_q, n_rows = c->batch.n_requests * hq;
  int64_t n_bad = 0, worst_row = 0;
  for (int64_t row = 0; row < n_rows; row++) {
    int64_t kv_len = c->kv_lens[row / hq];
    ref_ascend_errors e =
        ref_ascend_compare_row(&c->problem, kv_len, row, c->tensors.out, o->result);
    if (e.worst > v.worst) {
      v.worst = e.worst;
      worst_row = row;
    }
    v.bound = fmax(v.bound, ref_ascend_bound(&c->problem, kv_len, row, o->result));
    v.max_abs_err = fmax(v.max_abs_err, e.max_abs_err);
    v.max_ulp_err = fmax(v.max_ulp_err, e.max_ulp_err);
    v.of_tolerance = fmax(v.of_tolerance, e.worst_pr683);
    n_bad += !e.pass;
  }
  if (n_bad > 0) {
    snprintf(v.reason, sizeof v.reason,
             "%lld of %lld rows are out of bounds, the worst %.3g times, request %lld head %lld",
             (long long)n_bad, (long long)n_rows, v.worst, (long long)(worst_row / hq),
             (long long)(worst_row % hq));
  }
  v.pass = n_bad == 0;
  return v;
}

int ascend_judge(const tool_case *c, const char *name, const splitkv_pool *pool,
                 ascend_verdict *v) {
  oracle o = {0};
  int status = oracle_compute(&o, c, name, pool);
  if (!status) {
    *v = ascend_compare(&o, c);
  }
  oracle_free(&o);
  return status;
}

cJSON *ascend_json_case(const selected_case *entry, const ascend_tiling *t,
                        const ascend_verdict *v) {
  const problem_spec *spec = &entry->spec;
  cJSON *row = cJSON_CreateObject();
  cJSON_AddStringToObject(row, "case", entry->name);
  cJSON_AddBoolToObject(row, "pass", v->pass);
  cJSON_AddStringToObject(row, "rule", problem_rule_name(spec->rule));
  cJSON_AddNumberToObject(row, "cores", (double)spec->cores);
  cJSON_AddNumberToObject(row, "key", (double)t->info.key);
  cJSON_AddNumberToObject(row, "splits", (double)t->info.n_splits);
  cJSON_AddNumberToObject(row, "seed", (double)spec->seed);
  cJSON_AddStringToObject(row, "problem", entry->problem);
  if (!v->pass) {
    cJSON_AddStringToObject(row, "reason", v->reason);
  }
  return row;
}

void ascend_json_errors(cJSON *row, const ascend_verdict *v) {
  cJSON_AddNumberToObject(row, "max_abs_err", v->max_abs_err);
  cJSON_AddNumberToObject(row, "max_ulp_err", v->max_ulp_err);
  cJSON_AddNumberToObject(row, "bound", v->bound);
  cJSON_AddNumberToObject(row, "worst", v->worst);
  cJSON_AddNumberToObject(row, "of_tolerance", v->of_tolerance);
}
