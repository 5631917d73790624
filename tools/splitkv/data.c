/* SPDX-License-Identifier: Apache-2.0 */
#include "data.h"

#include "ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Random numbers come from one shared list: a row of K or V is a stretch of it that begins at a
 * place which depends on the row. That is as fast as copying, which matters for gigabytes. */
enum { LIST_LENGTH = 1 << 17, LIST_TAIL = SPLITKV_MAX_HEAD_DIM };

typedef struct filler {
  const tool_case *c;
  double *list;  /* [LIST_LENGTH + LIST_TAIL] normal deviates */
  void *list_kv; /* the same as dtype_kv */
  size_t element_bytes;
  uint64_t seed;
} filler;

/* ── chunks on a pool ───────────────────────────────────────────────────────────────────────── */

typedef struct chunks {
  int64_t n, chunk;
  void (*body)(void *context, int64_t first, int64_t end);
  void *context;
} chunks;

static void run_chunk(void *context, int64_t i) {
  const chunks *all = context;
  int64_t first = i * all->chunk;
  int64_t end = all->n - first < all->chunk ? all->n : first + all->chunk;
  all->body(all->context, first, end);
}

void data_parallel(const splitkv_pool *pool, int64_t n, int64_t chunk,
                   void (*body)(void *context, int64_t first, int64_t end), void *context) {
  if (n <= 0) {
    return;
  }
  if (!pool) {
    body(context, 0, n);
    return;
  }
  chunks all = {n, chunk, body, context};
  pool->parallel_for(pool->context, n / chunk + (n % chunk > 0), run_chunk, &all);
}

/* ── random rows ────────────────────────────────────────────────────────────────────────────── */

static uint64_t hash(uint64_t seed, uint64_t which, uint64_t row) {
  uint64_t state = seed ^ (which << 56) ^ row * 0xd6e8feb86659fd93u;
  return random_next(&state);
}

static void normal_deviates(double *list, size_t n, uint64_t seed) {
  const double two_pi = 6.283185307179586;
  for (size_t i = 0; i + 1 < n; i += 2) {
    double a = ((double)(random_next(&seed) >> 11) + 1) * 0x1p-53;
    double b = (double)(random_next(&seed) >> 11) * 0x1p-53;
    double radius = sqrt(-2 * log(a));
    list[i] = radius * cos(two_pi * b);
    list[i + 1] = radius * sin(two_pi * b);
  }
}

static const double *list_row(const filler *f, uint64_t which, int64_t row) {
  return f->list + (hash(f->seed, which, (uint64_t)row) & (LIST_LENGTH - 1));
}

static void normal_row(const filler *f, uint64_t which, int64_t row, int64_t channels, void *data) {
  size_t offset = hash(f->seed, which, (uint64_t)row) & (LIST_LENGTH - 1);
  memcpy(data, (const char *)f->list_kv + offset * f->element_bytes,
         (size_t)channels * f->element_bytes);
}

/* ── adversarial rows ───────────────────────────────────────────────────────────────────────── */

/* Each fifth of the cache's pages gets one of these, in turn per KV head:
 *   RAMP       scores rise steadily, so that the running maximum changes all the time
 *   SPIKES     one token in 97 outweighs all others
 *   CANCEL     values of +-1000 that cancel
 *   TINY       keys near 0 and values among the subnormal numbers of f16
 *   TIES       equal keys and equal values: the output is that value */
enum { RAMP, SPIKES, CANCEL, TINY, TIES, N_PATTERNS };

static double sign_of_channel(const filler *f, int64_t channel) {
  return hash(f->seed, 9, (uint64_t)channel) & 1 ? 1 : -1;
}

static int pattern_of(const filler *f, int64_t page, int64_t head) {
  int64_t fifth = page * N_PATTERNS / f->c->problem.n_pages;
  return (int)((fifth + head + f->c->spec->seed) % N_PATTERNS);
}

static double adversarial_k(const filler *f, int pattern, int64_t page, int64_t token,
                            int64_t channel, double noise) {
  const splitkv_problem *p = &f->c->problem;
  double place = ((double)page + (double)token / (double)p->page_size_tokens) / (double)p->n_pages;
  double sign = sign_of_channel(f, channel);
  switch (pattern) {
  case RAMP:
    return sign * (16 * place - 8) + 0.1 * noise;
  case SPIKES:
    return (page * p->page_size_tokens + token) % 97 == 5 ? 6 * sign : noise;
  case TINY:
    return noise * 0x1p-20;
  case TIES:
    return 0.5 * sign;
  default:
    return noise;
  }
}

static double adversarial_v(const filler *f, int pattern, int64_t token, int64_t channel,
                            double noise) {
  switch (pattern) {
  case CANCEL:
    return (token & 1 ? 1000 : -1000) + noise;
  case TINY:
    return noise * 0x1p-16;
  case TIES:
    return f->list[channel];
  default:
    return noise;
  }
}

enum { ROW_Q = 1, ROW_K = 2, ROW_V = 3 };

static void adversarial_row(const filler *f, uint64_t which, int64_t page, int64_t token,
                            int64_t head, int64_t row, int64_t channels, void *data) {
  const double *noise = list_row(f, which, row);
  int pattern = pattern_of(f, page, head);
  for (int64_t ch = 0; ch < channels; ch++) {
    double value = which == ROW_K ? adversarial_k(f, pattern, page, token, ch, noise[ch])
                                  : adversarial_v(f, pattern, token, ch, noise[ch]);
    ref_store(f->c->problem.dtype_kv, data, ch, value);
  }
}

/* ── tensors ────────────────────────────────────────────────────────────────────────────────── */

static void fill_row(const filler *f, uint64_t which, int64_t page, int64_t token, int64_t head) {
  const splitkv_problem *p = &f->c->problem;
  int64_t channels = which == ROW_K ? p->head_dim : p->head_dim_v;
  const zoned *cache = which == ROW_K ? &f->c->k : &f->c->v;
  int64_t row = case_kv_row(f->c, page, token, head);
  /* Data does not depend on the layout. */
  int64_t number = (page * p->page_size_tokens + token) * p->n_heads_kv + head;
  size_t bytes = (size_t)channels * f->element_bytes;
  unsigned char *data = cache->data + (size_t)row * bytes;
  if (token < f->c->page_begin[page] || token >= f->c->page_tokens[page]) {
    memset(data, 0xff, bytes); /* NaN: nobody attends to it */
  } else if (f->c->spec->data == DATA_NORMAL) {
    normal_row(f, which, number, channels, data);
  } else {
    adversarial_row(f, which, page, token, head, number, channels, data);
  }
}

static void fill_pages(void *context, int64_t first, int64_t end) {
  const filler *f = context;
  const splitkv_problem *p = &f->c->problem;
  for (int64_t page = first; page < end; page++) {
    for (int64_t token = 0; token < p->page_size_tokens; token++) {
      for (int64_t head = 0; head < p->n_heads_kv; head++) {
        fill_row(f, ROW_K, page, token, head);
        if (!f->c->spec->mla) {
          fill_row(f, ROW_V, page, token, head);
        }
      }
    }
  }
}

static void fill_q(const filler *f) {
  const splitkv_problem *p = &f->c->problem;
  int64_t d = p->head_dim;
  int is_adversarial = f->c->spec->data == DATA_ADVERSARIAL;
  for (int64_t row = 0; row < f->c->n_rows * p->n_heads_q; row++) {
    const double *noise = list_row(f, ROW_Q, row);
    for (int64_t ch = 0; ch < d; ch++) {
      double value = is_adversarial ? sign_of_channel(f, ch) + 0.25 * noise[ch] : noise[ch];
      ref_store(p->dtype_q, f->c->q.data, row * d + ch, value);
    }
  }
}

int data_fill(tool_case *c, const splitkv_pool *pool) {
  filler f = {.c = c,
              .element_bytes = ref_dtype_size(c->problem.dtype_kv),
              .seed = (uint64_t)c->spec->seed};
  size_t n = LIST_LENGTH + LIST_TAIL;
  f.list = malloc(n * sizeof *f.list);
  f.list_kv = malloc(n * f.element_bytes);
  if (!f.list || !f.list_kv) {
    free(f.list);
    free(f.list_kv);
    return -1;
  }
  normal_deviates(f.list, n, f.seed ^ 0x6c697374u);
  for (size_t i = 0; i < n; i++) {
    ref_store(c->problem.dtype_kv, f.list_kv, (int64_t)i, f.list[i]);
  }
  fill_q(&f);
  int64_t page_rows = c->problem.page_size_tokens * c->problem.n_heads_kv;
  int64_t chunk = page_rows < 4096 ? 4096 / page_rows : 1;
  data_parallel(pool, c->problem.n_pages, chunk, fill_pages, &f);
  free(f.list);
  free(f.list_kv);
  return 0;
}
