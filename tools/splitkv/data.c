/* SPDX-License-Identifier: Apache-2.0 */
#include "data.h"

#include "codes.h"

#include "ref.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Random numbers come from one shared list: a row of K or V is a stretch of it that begins at a
 * place which depends on the row. That is as fast as copying, which matters for gigabytes. */
enum { LIST_LENGTH = 1 << 17, LIST_TAIL = SPLITKV_MAX_HEAD_DIM };

/* Of elements that share a scale with those of other tokens, as bits of floats that are 0 or more,
 * which are in the order of their numbers. */
typedef struct extremes {
  atomic_uint above, below; /* the largest x, and the largest -x */
} extremes;

typedef struct filler {
  const tool_case *c;
  double *list;  /* [LIST_LENGTH + LIST_TAIL] normal deviates */
  void *list_kv; /* the same as dtype_kv; NULL with codes */
  size_t element_bytes;
  uint64_t seed;
  extremes *shared[2]; /* of K and V: one for each scale, where tokens share them */
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

/* ── codes ──────────────────────────────────────────────────────────────────────────────────── */

/* One token of one KV head of K or V. */
typedef struct kv_row {
  uint64_t which;
  int64_t page, token, head, number; /* number: the same for every layout */
  int64_t channels;
} kv_row;

static splitkv_scale_mode mode_of(const filler *f, uint64_t which) {
  const splitkv_problem *p = &f->c->problem;
  return which == ROW_K ? p->k_scale_mode : p->v_scale_mode;
}

static int64_t channels_of(const filler *f, uint64_t which) {
  const splitkv_problem *p = &f->c->problem;
  return which == ROW_K ? p->head_dim : p->head_dim_v;
}

static int64_t scale_place(const filler *f, const kv_row *row, int64_t channel) {
  return codes_scale_index(f->c, mode_of(f, row->which), channels_of(f, row->which), row->page,
                           row->token, row->head, channel);
}

double data_offset(const tool_case *c, int64_t head) {
  return c->spec->zeros ? 0.5 + 0.25 * (double)(head % 3) : 0;
}

static void values_of(const filler *f, const kv_row *row, double *values) {
  const double *noise = list_row(f, row->which, row->number);
  int pattern = pattern_of(f, row->page, row->head);
  for (int64_t ch = 0; ch < row->channels; ch++) {
    double value = f->c->spec->data == DATA_NORMAL ? noise[ch]
                   : row->which == ROW_K
                       ? adversarial_k(f, pattern, row->page, row->token, ch, noise[ch])
                       : adversarial_v(f, pattern, row->token, ch, noise[ch]);
    values[ch] = value + data_offset(f->c, row->head);
  }
}

static void raise(atomic_uint *most, double value) {
  float number = value > 0 ? (float)value : 0;
  unsigned bits, before = atomic_load_explicit(most, memory_order_relaxed);
  memcpy(&bits, &number, sizeof bits);
  while (bits > before && !atomic_compare_exchange_weak(most, &before, bits)) {
  }
}

static double number_of(atomic_uint *most) {
  unsigned bits = atomic_load(most);
  float number;
  memcpy(&number, &bits, sizeof number);
  return (double)number;
}

/* The scale and zero point of elements that share them with those of other tokens, and of those
 * with their own, from the values beside one. */
static code_scale shared_scale(const filler *f, const kv_row *row, int64_t channel) {
  extremes *e = &f->shared[row->which == ROW_V][scale_place(f, row, channel)];
  return codes_scale(f->c, -number_of(&e->below), number_of(&e->above));
}

static code_scale own_scale(const filler *f, const double *values, int64_t n) {
  double least = values[0], most = values[0];
  for (int64_t i = 1; i < n; i++) {
    least = values[i] < least ? values[i] : least;
    most = values[i] > most ? values[i] : most;
  }
  return codes_scale(f->c, least, most);
}

/* As they are stored. */
static code_scale load_scale(const filler *f, const kv_row *row, int64_t channel) {
  const tool_case *c = f->c;
  const zoned *scales = &c->kv[row->which == ROW_K ? KV_K_SCALES : KV_V_SCALES];
  const zoned *zeros = &c->kv[row->which == ROW_K ? KV_K_ZEROS : KV_V_ZEROS];
  int64_t place = scale_place(f, row, channel);
  code_scale s = {1, c->problem.dtype_kv == SPLITKV_INT4 ? 8 : 0};
  if (scales->size_bytes > 0) {
    s.scale = ref_load(c->problem.dtype_scales, scales->data, place);
  }
  if (zeros->size_bytes > 0) {
    s.zero = ((const int8_t *)zeros->data)[place];
  }
  return s;
}

static void store_scale(const filler *f, const kv_row *row, int64_t channel, double scale,
                        int zero) {
  const zoned *scales = &f->c->kv[row->which == ROW_K ? KV_K_SCALES : KV_V_SCALES];
  const zoned *zeros = &f->c->kv[row->which == ROW_K ? KV_K_ZEROS : KV_V_ZEROS];
  int64_t place = scale_place(f, row, channel);
  if (scales->size_bytes > 0) {
    ref_store(f->c->problem.dtype_scales, scales->data, place, scale);
  }
  if (zeros->size_bytes > 0) {
    zeros->data[place] = (unsigned char)zero;
  }
}

static void store_scales(const filler *f, const kv_row *row, int64_t channel, code_scale s) {
  kv_row v_row = *row;
  v_row.which = ROW_V;
  store_scale(f, row, channel, s.scale, s.zero);
  if (f->c->spec->mla && channel < f->c->problem.head_dim_v) {
    store_scale(f, &v_row, channel, s.scale, s.zero);
  }
}

/* A row that nobody attends to. Scales of its own are NaN; a code of FP8 is NaN, the others are the
 * furthest from 0. */
static void poison_codes(const filler *f, const kv_row *row, unsigned char *data, size_t bytes) {
  splitkv_dtype dtype = f->c->problem.dtype_kv;
  memset(data, dtype == SPLITKV_INT8 ? 0x80 : dtype == SPLITKV_INT4 ? 0 : 0xff, bytes);
  for (int64_t ch = 0; ch < row->channels && codes_is_per_token(mode_of(f, row->which)); ch++) {
    store_scales(f, row, ch, (code_scale){NAN, 127});
  }
}

static void code_row(const filler *f, const kv_row *row, unsigned char *data) {
  double values[SPLITKV_MAX_HEAD_DIM];
  splitkv_scale_mode mode = mode_of(f, row->which);
  int64_t width = codes_channels_per_scale(mode, row->channels);
  values_of(f, row, values);
  for (int64_t first = 0; first < row->channels; first += width) {
    int64_t end = row->channels - first < width ? row->channels : first + width;
    if (codes_is_per_token(mode)) {
      store_scales(f, row, first, own_scale(f, values + first, end - first));
    }
    code_scale s = load_scale(f, row, first);
    for (int64_t ch = first; ch < end; ch++) {
      codes_store(f->c->problem.dtype_kv, data, ch, values[ch] / s.scale, s.zero);
    }
  }
}

static int is_read(const filler *f, int64_t page, int64_t token) {
  return token >= f->c->page_begin[page] && token < f->c->page_tokens[page];
}

static kv_row row_at(const filler *f, uint64_t which, int64_t page, int64_t token, int64_t head) {
  const splitkv_problem *p = &f->c->problem;
  return (kv_row){.which = which,
                  .page = page,
                  .token = token,
                  .head = head,
                  .number = (page * p->page_size_tokens + token) * p->n_heads_kv + head,
                  .channels = channels_of(f, which)};
}

static void measure_row(const filler *f, const kv_row *row) {
  double values[SPLITKV_MAX_HEAD_DIM];
  values_of(f, row, values);
  for (int64_t ch = 0; ch < row->channels; ch++) {
    extremes *e = &f->shared[row->which == ROW_V][scale_place(f, row, ch)];
    raise(&e->above, values[ch]);
    raise(&e->below, -values[ch]);
  }
}

static void measure_pages(void *context, int64_t first, int64_t end) {
  const filler *f = context;
  const splitkv_problem *p = &f->c->problem;
  for (int64_t page = first; page < end; page++) {
    for (int64_t token = f->c->page_begin[page]; token < f->c->page_tokens[page]; token++) {
      for (int64_t head = 0; head < p->n_heads_kv; head++) {
        kv_row k = row_at(f, ROW_K, page, token, head), v = row_at(f, ROW_V, page, token, head);
        if (f->shared[0]) {
          measure_row(f, &k);
        }
        if (f->shared[1] && !f->c->spec->mla) {
          measure_row(f, &v);
        }
      }
    }
  }
}

/* Scales that tokens share are known before the first code. */
static void store_shared_scales(const filler *f, uint64_t which) {
  int64_t n = f->shared[which == ROW_V] ? f->c->problem.n_heads_kv : 0;
  for (int64_t head = 0; head < n; head++) {
    kv_row row = row_at(f, which, 0, 0, head);
    for (int64_t ch = 0; ch < row.channels; ch++) {
      store_scales(f, &row, ch, shared_scale(f, &row, ch));
    }
  }
}

/* Returns 0, or -1 when memory is short. */
static int begin_codes(filler *f, const splitkv_pool *pool, int64_t chunk) {
  for (uint64_t which = ROW_K; which <= ROW_V; which++) {
    splitkv_scale_mode mode = mode_of(f, which);
    if (mode == SPLITKV_SCALE_NONE || codes_is_per_token(mode)) {
      continue;
    }
    size_t n = (size_t)codes_n_scales(f->c, mode, channels_of(f, which));
    f->shared[which == ROW_V] = calloc(n, sizeof **f->shared);
    if (!f->shared[which == ROW_V]) {
      return -1;
    }
  }
  if (f->shared[0] || f->shared[1]) {
    data_parallel(pool, f->c->problem.n_pages, chunk, measure_pages, f);
  }
  store_shared_scales(f, ROW_K);
  if (!f->c->spec->mla) { /* else they are those of K */
    store_shared_scales(f, ROW_V);
  }
  return 0;
}

/* ── tensors ────────────────────────────────────────────────────────────────────────────────── */

static void fill_row(const filler *f, uint64_t which, int64_t page, int64_t token, int64_t head) {
  kv_row row = row_at(f, which, page, token, head);
  splitkv_dtype dtype = f->c->problem.dtype_kv;
  const zoned *cache = &f->c->kv[which == ROW_K ? KV_K : KV_V];
  size_t bytes = codes_bytes(dtype, row.channels);
  unsigned char *data = cache->data + (size_t)case_kv_row(f->c, page, token, head) * bytes;
  if (problem_is_quantised(dtype) && !is_read(f, page, token)) {
    poison_codes(f, &row, data, bytes);
  } else if (problem_is_quantised(dtype)) {
    code_row(f, &row, data);
  } else if (!is_read(f, page, token)) {
    memset(data, 0xff, bytes); /* NaN */
  } else if (f->c->spec->data == DATA_NORMAL) {
    normal_row(f, which, row.number, row.channels, data);
  } else {
    adversarial_row(f, which, page, token, head, row.number, row.channels, data);
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

/* The lists. Returns 0, or -1 when memory is short. */
static int begin_lists(filler *f) {
  const splitkv_problem *p = &f->c->problem;
  size_t n = LIST_LENGTH + LIST_TAIL;
  f->list = malloc(n * sizeof *f->list);
  if (!f->list) {
    return -1;
  }
  normal_deviates(f->list, n, f->seed ^ 0x6c697374u);
  if (problem_is_quantised(p->dtype_kv)) {
    return 0;
  }
  f->element_bytes = ref_dtype_size(p->dtype_kv);
  f->list_kv = malloc(n * f->element_bytes);
  for (size_t i = 0; i < n && f->list_kv; i++) {
    ref_store(p->dtype_kv, f->list_kv, (int64_t)i, f->list[i]);
  }
  return f->list_kv ? 0 : -1;
}

int data_fill(tool_case *c, const splitkv_pool *pool) {
  filler f = {.c = c, .seed = (uint64_t)c->spec->seed};
  int64_t page_rows = c->problem.page_size_tokens * c->problem.n_heads_kv;
  int64_t chunk = page_rows < 4096 ? 4096 / page_rows : 1;
  int failed = begin_lists(&f);
  if (!failed && problem_is_quantised(c->problem.dtype_kv)) {
    failed = begin_codes(&f, pool, chunk);
  }
  if (!failed) {
    fill_q(&f);
    data_parallel(pool, c->problem.n_pages, chunk, fill_pages, &f);
  }
  free(f.shared[0]);
  free(f.shared[1]);
  free(f.list);
  free(f.list_kv);
  return failed;
}
