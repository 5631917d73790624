/* ggml's flash_attn_ext behind four flat functions, compiled by the adapter `ggml` against the
 * headers of the library that it measures.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "ggml.h"
#if __has_include("ggml-cpu.h")
#include "ggml-cpu.h"
#define SHIM_HAS_THREADPOOL 1
#else
#define SHIM_HAS_THREADPOOL 0
#endif

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct shim_sizes {
  int64_t d, dv, heads_q, heads_kv, tokens, requests, threads, copies;
  float scale;
  int kv_type;    /* 0 f32, 1 f16, 2 bf16 */
  int needs_mask; /* F16, one row for each 64 queries */
} shim_sizes;

typedef struct shim {
  struct ggml_context *context;
  struct ggml_tensor **outs;
  struct ggml_cgraph **graphs;
  struct ggml_cplan *plans;
  int64_t copies;
} shim;

shim *shim_open(const shim_sizes *s, const float *q, const void *k, const void *v);
int shim_run(shim *m, int64_t copy);
const void *shim_key(const shim *m, int64_t copy);
const float *shim_out(const shim *m, int64_t copy);
void shim_close(shim *m);

enum { MASK_ROWS = 64, GRAPH_NODES = 8 };

static struct ggml_tensor *filled(struct ggml_context *context, enum ggml_type type,
                                  const int64_t *n, const void *data) {
  struct ggml_tensor *t = ggml_new_tensor(context, type, 4, n);
  memcpy(t->data, data, ggml_nbytes(t));
  return t;
}

static struct ggml_tensor *zero_mask(struct ggml_context *context, const shim_sizes *s) {
  if (!s->needs_mask) {
    return NULL;
  }
  struct ggml_tensor *mask = ggml_new_tensor_2d(context, GGML_TYPE_F16, s->tokens, MASK_ROWS);
  memset(mask->data, 0, ggml_nbytes(mask));
  return mask;
}

static struct ggml_context *make_context(const shim_sizes *s, size_t kv_bytes) {
  size_t copies = (size_t)s->copies;
  size_t rows = (size_t)(s->requests * s->heads_q * (s->d + s->dv)) * sizeof(float);
  size_t graph = ggml_graph_overhead_custom(GRAPH_NODES, false) + 16 * ggml_tensor_overhead();
  size_t mask = (size_t)s->tokens * MASK_ROWS * 2;
  struct ggml_init_params params = {.mem_size = copies * (kv_bytes + rows + graph + 4096) + rows +
                                                mask + (1 << 20)};
  return ggml_init(params);
}

shim *shim_open(const shim_sizes *s, const float *q, const void *k, const void *v) {
  static const enum ggml_type types[] = {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16};
  enum ggml_type type = types[s->kv_type];
  const int64_t q_n[] = {s->d, 1, s->heads_q, s->requests};
  const int64_t k_n[] = {s->d, s->tokens, s->heads_kv, s->requests};
  const int64_t v_n[] = {s->dv, s->tokens, s->heads_kv, s->requests};
  size_t kv_bytes =
      (size_t)(s->requests * s->heads_kv * s->tokens * (s->d + s->dv)) * ggml_type_size(type);
  size_t n = (size_t)s->copies;
  shim *m = calloc(1, sizeof *m);
  if (!m) {
    return NULL;
  }
  *m = (shim){.context = make_context(s, kv_bytes),
              .outs = calloc(n, sizeof *m->outs),
              .graphs = calloc(n, sizeof *m->graphs),
              .plans = calloc(n, sizeof *m->plans),
              .copies = s->copies};
  if (!m->context || !m->outs || !m->graphs || !m->plans) {
    return NULL;
  }
  struct ggml_tensor *query = filled(m->context, GGML_TYPE_F32, q_n, q);
  struct ggml_tensor *mask = zero_mask(m->context, s);
  void *work = NULL;
#if SHIM_HAS_THREADPOOL
  struct ggml_threadpool_params params = ggml_threadpool_params_default((int)s->threads);
  struct ggml_threadpool *pool = ggml_threadpool_new(&params);
#endif
  for (size_t i = 0; i < n; i++) {
    struct ggml_tensor *key = filled(m->context, type, k_n, k);
    struct ggml_tensor *value = filled(m->context, type, v_n, v);
    m->outs[i] = ggml_flash_attn_ext(m->context, query, key, value, mask, s->scale, 0, 0);
    m->graphs[i] = ggml_new_graph_custom(m->context, GRAPH_NODES, false);
    ggml_build_forward_expand(m->graphs[i], m->outs[i]);
#if SHIM_HAS_THREADPOOL
    m->plans[i] = ggml_graph_plan(m->graphs[i], (int)s->threads, pool);
#else
    m->plans[i] = ggml_graph_plan(m->graphs[i], (int)s->threads);
#endif
    if (!work && m->plans[i].work_size > 0) {
      work = malloc(m->plans[i].work_size); /* all graphs are alike */
    }
    m->plans[i].work_data = work;
  }
  return m;
}

int shim_run(shim *m, int64_t copy) {
  return (int)ggml_graph_compute(m->graphs[copy], &m->plans[copy]);
}

const void *shim_key(const shim *m, int64_t copy) {
  return m->outs[copy]->src[1]->data;
}

const float *shim_out(const shim *m, int64_t copy) {
  return m->outs[copy]->data;
}

/* The process ends with it: its context is the large part. */
void shim_close(shim *m) {
  ggml_free(m->context);
  free(m->outs);
  free(m->graphs);
  free(m->plans);
  free(m);
}
