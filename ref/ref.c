/* Naive attention in double: all scores, then their maximum, then the weighted sum.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Doubles hold everything, so the error is some 2^-45 of the result where the contract asks for
 * 2^-20. Each K and V row is converted once for all query heads that share it, in chunks of heads
 * whose scores fit the memory limit below. */
#include "ref.h"

#include "ref_internal.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

enum {
  PARTIAL_SUMS = 8,   /* of a dot product: independent, so that the processor can overlap them */
  BLOCK_TOKENS = 128, /* tokens summed plainly before the sum goes to the compensated total */
  MAX_CHANNELS = 576 + PARTIAL_SUMS
};
#define MAX_SCORE_BYTES ((int64_t)1 << 26)

/* Weights below this part of the power of two above the largest count as 0 (docs/numerics.md). */
#define MIN_WEIGHT 0x1p-125

/* Where elements of q, k and v lie. */
typedef struct strides {
  int64_t q_request, q_head;
  int64_t k_page, k_token, k_head;
  int64_t v_page, v_token, v_head;
} strides;

/* One KV head of one request, for a chunk of its query heads. */
typedef struct work {
  const splitkv_problem *problem;
  const splitkv_tensors *tensors;
  strides at;
  double scale;
  int64_t request, kv_head, first_head, n_heads;
  int64_t first, kv_len; /* tokens first .. kv_len-1 are attended to */
  double *q;             /* [n_heads, d rounded up] */
  double *scores;        /* [n_heads, kv_len - first]; weights later */
  double *block;         /* [n_heads, dv] */
  double *total;         /* [n_heads, dv] */
  double *correction;    /* [n_heads, dv] */
} work;

static int64_t round_up(int64_t n) {
  return (n + PARTIAL_SUMS - 1) / PARTIAL_SUMS * PARTIAL_SUMS;
}

static strides strides_of(const splitkv_problem *p) {
  const int64_t d = p->head_dim, dv = p->head_dim_v, heads = p->n_heads_kv;
  const int64_t page = p->page_size_tokens;
  strides s;
  switch (p->layout) {
  case SPLITKV_LAYOUT_STRIDES:
    s = (strides){0,
                  0,
                  p->k_stride_page,
                  p->k_stride_token,
                  p->k_stride_head,
                  p->v_stride_page,
                  p->v_stride_token,
                  p->v_stride_head};
    break;
  case SPLITKV_LAYOUT_HND:
    s = (strides){0, 0, heads * page * d, d, page * d, heads * page * dv, dv, page * dv};
    break;
  default:
    s = (strides){0, 0, page * heads * d, heads * d, d, page * heads * dv, heads * dv, dv};
    break;
  }
  s.q_head = p->q_stride_head ? p->q_stride_head : d;
  s.q_request = p->q_stride_request ? p->q_stride_request : p->n_heads_q * s.q_head;
  return s;
}

static int64_t load_index(splitkv_index_type type, const void *data, int64_t index) {
  return type == SPLITKV_I64 ? ((const int64_t *)data)[index]
                             : (int64_t)((const int32_t *)data)[index];
}

/* The physical page that holds token `token`. */
static int64_t page_of(const work *w, int64_t token) {
  const splitkv_problem *p = w->problem;
  const int64_t row = p->table_format == SPLITKV_TABLE_CSR
                          ? load_index(p->table_type, w->tensors->table_offsets, w->request)
                          : w->request * p->table_width;
  return load_index(p->table_type, w->tensors->block_table, row + token / p->page_size_tokens);
}

static void load_k(const work *w, int64_t token, double *row) {
  const int64_t page = page_of(w, token), slot = token % w->problem->page_size_tokens;
  const int64_t first = page * w->at.k_page + slot * w->at.k_token + w->kv_head * w->at.k_head;
  ref_load_row(w->problem->dtype_kv, w->tensors->k, first, w->problem->head_dim, row);
  ref_dequantise(w->problem, w->tensors, 0, page, slot, w->kv_head, row);
}

static void load_v(const work *w, int64_t token, double *row) {
  const int64_t page = page_of(w, token), slot = token % w->problem->page_size_tokens;
  const int64_t first = page * w->at.v_page + slot * w->at.v_token + w->kv_head * w->at.v_head;
  ref_load_row(w->problem->dtype_kv, w->tensors->v, first, w->problem->head_dim_v, row);
  ref_dequantise(w->problem, w->tensors, 1, page, slot, w->kv_head, row);
}

/* n is a multiple of PARTIAL_SUMS. */
static double dot(const double *a, const double *b, int64_t n) {
  double sums[PARTIAL_SUMS] = {0};
  for (int64_t i = 0; i < n; i += PARTIAL_SUMS)
    for (int64_t j = 0; j < PARTIAL_SUMS; ++j)
      sums[j] += a[i + j] * b[i + j];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/* Neumaier: *total + *correction gains `value`. Inf and NaN pass through *total alone. */
static void add_compensated(double *total, double *correction, double value) {
  const double sum = *total + value;
  if (isfinite(sum))
    *correction += fabs(*total) >= fabs(value) ? (*total - sum) + value : (value - sum) + *total;
  *total = sum;
}

/* scale * sum |a b|: what the rounding of a dot product is in proportion to. */
static double abs_dot(const double *a, const double *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i)
    sum += fabs(a[i] * b[i]);
  return sum;
}

/* What ALiBi adds to the score of a token; 0 without it. */
static double bias_of(const work *w, int64_t h, int64_t token) {
  if (!(w->problem->flags & SPLITKV_FLAG_ALIBI)) return 0;
  return (double)w->tensors->alibi_slopes[w->first_head + h] * (double)(token - (w->kv_len - 1));
}

static double capped(const work *w, double score) {
  const double cap = (double)w->problem->logit_softcap;
  return cap > 0 ? cap * tanh(score / cap) : score;
}

/* The sink of a head, -inf without one. */
static double sink_of(const work *w, int64_t h) {
  if (!(w->problem->flags & SPLITKV_FLAG_SINKS)) return -INFINITY;
  return (double)w->tensors->sinks[w->first_head + h];
}

static double largest_size(const double *x, int64_t n) {
  double largest = 0;
  for (int64_t i = 0; i < n; ++i)
    largest = fmax(largest, fabs(x[i]));
  return largest;
}

static double sum_of_sizes(const double *x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i)
    sum += fabs(x[i]);
  return sum;
}

/* max_products and max_spread: NULL, or one for each head of the chunk. */
static void compute_scores(const work *w, double *max_products, double *max_spread) {
  const int64_t d = round_up(w->problem->head_dim), n = w->kv_len - w->first;
  double row[MAX_CHANNELS] = {0};
  for (int64_t h = 0; h < w->n_heads; ++h) {
    double *q = w->q + h * d;
    for (int64_t c = w->problem->head_dim; c < d; ++c)
      q[c] = 0;
    ref_load_row(w->problem->dtype_q, w->tensors->q,
                 w->request * w->at.q_request + (w->first_head + h) * w->at.q_head,
                 w->problem->head_dim, q);
  }
  for (int64_t t = 0; t < n; ++t) {
    load_k(w, w->first + t, row);
    for (int64_t h = 0; h < w->n_heads; ++h)
      w->scores[h * n + t] =
          capped(w, w->scale * dot(w->q + h * d, row, d)) + bias_of(w, h, w->first + t);
    for (int64_t h = 0; max_products != NULL && h < w->n_heads; ++h)
      max_products[h] = fmax(max_products[h], fabs(w->scale) * abs_dot(w->q + h * d, row, d));
    const double size = max_spread != NULL ? fabs(w->scale) * sum_of_sizes(row, d) : 0;
    for (int64_t h = 0; max_spread != NULL && h < w->n_heads; ++h)
      max_spread[h] = fmax(max_spread[h], size * largest_size(w->q + h * d, d));
  }
}

/* What the error bounds speak of: the largest |score|. With ALiBi the largest |capped score| +
 * |bias|, of tokens whose weight is not negligible (docs/numerics.md). */
static double largest_score(const work *w, int64_t h, const double *scores, int64_t n, double max) {
  const bool alibi = (w->problem->flags & SPLITKV_FLAG_ALIBI) != 0;
  const double least = max - 64 * 0.6931471805599453;
  double largest = 0;
  for (int64_t t = 0; t < n; ++t) {
    if (!isfinite(scores[t]) || (alibi && !(scores[t] >= least))) continue;
    const double bias = bias_of(w, h, w->first + t);
    const double size = fabs(scores[t] - bias) + fabs(bias);
    if (size > largest) largest = size;
  }
  return largest;
}

/* ln(total * exp(max) + exp(sink)). */
static double log_sum(double max, double total, double sink) {
  /* max +inf: exp(inf - inf) made the total NaN, but the sum of exp(score) is +inf. */
  if (sink == -INFINITY) return max == INFINITY ? INFINITY : max + log(total);
  if (isnan(sink) || isnan(max)) return NAN;
  const double most = sink > max ? sink : max;
  if (most == INFINITY) return INFINITY;
  return most + log((total > 0 ? total * exp(max - most) : 0) + exp(sink - most));
}

/* Scores become weights in place; lse and the largest |score| go to the result. Returns the sum of
 * the weights, and to *divisor the same with the sink. */
static double compute_weights(const work *w, int64_t h, const ref_result *result, double *divisor) {
  const int64_t n = w->kv_len - w->first;
  const int64_t row = w->request * w->problem->n_heads_q + w->first_head + h;
  double *scores = w->scores + h * n, max = -INFINITY;
  for (int64_t t = 0; t < n; ++t) {
    if (scores[t] > max || isnan(scores[t])) max = scores[t];
    if (isnan(max)) break;
  }
  result->max_abs_score[row] = largest_score(w, h, scores, n, max);
  double total = 0, correction = 0;
  const double log2_max = max * 1.4426950408889634;
  const double least = isfinite(max) ? MIN_WEIGHT * exp2(ceil(log2_max) - log2_max) : MIN_WEIGHT;
  for (int64_t t = 0; t < n; ++t) {
    const double weight = max == -INFINITY ? 0 : exp(scores[t] - max);
    scores[t] = weight < least ? 0 : weight;
    add_compensated(&total, &correction, scores[t]);
  }
  const double sum = total + correction, sink = sink_of(w, h);
  result->lse[row] = log_sum(max, sum, sink);
  *divisor = sink == -INFINITY ? sum : sum + exp(sink - max);
  return sum;
}

static void add_tokens(const work *w, int64_t first, int64_t end, double *max_abs_v) {
  const int64_t dv = w->problem->head_dim_v, n = w->kv_len - w->first;
  double row[MAX_CHANNELS];
  for (int64_t i = 0; i < w->n_heads * dv; ++i)
    w->block[i] = 0;
  for (int64_t t = first; t < end; ++t) {
    load_v(w, t, row);
    for (int64_t c = 0; c < dv; ++c)
      if (fabs(row[c]) > *max_abs_v && !isinf(row[c])) *max_abs_v = fabs(row[c]);
    for (int64_t h = 0; h < w->n_heads; ++h) {
      const double weight = w->scores[h * n + t - w->first];
      double *sum = w->block + h * dv;
      for (int64_t c = 0; c < dv; ++c)
        sum[c] += weight * row[c];
    }
  }
  for (int64_t i = 0; i < w->n_heads * dv; ++i)
    add_compensated(&w->total[i], &w->correction[i], w->block[i]);
}

static void compute_chunk(const work *w, const ref_result *result) {
  const int64_t dv = w->problem->head_dim_v;
  const int64_t first_row = w->request * w->problem->n_heads_q + w->first_head;
  double *max_products = result->max_products ? result->max_products + first_row : NULL;
  double *max_spread = result->max_spread ? result->max_spread + first_row : NULL;
  for (int64_t h = 0; max_products != NULL && h < w->n_heads; ++h)
    max_products[h] = 0;
  for (int64_t h = 0; max_spread != NULL && h < w->n_heads; ++h)
    max_spread[h] = 0;
  compute_scores(w, max_products, max_spread);
  for (int64_t i = 0; i < w->n_heads * dv; ++i)
    w->total[i] = w->correction[i] = 0;
  double sums[64], divisors[64];
  for (int64_t h = 0; h < w->n_heads; ++h)
    sums[h] = compute_weights(w, h, result, &divisors[h]);
  double max_abs_v = 0;
  for (int64_t t = w->first; t < w->kv_len; t += BLOCK_TOKENS)
    add_tokens(w, t, t + BLOCK_TOKENS < w->kv_len ? t + BLOCK_TOKENS : w->kv_len, &max_abs_v);
  double reach = max_abs_v;
  for (int64_t t = w->first; t < w->kv_len && result->max_reach_v != NULL; ++t)
    reach = fmax(reach, ref_reach_v(w->problem, w->tensors, page_of(w, t),
                                    t % w->problem->page_size_tokens, w->kv_head));
  for (int64_t h = 0; h < w->n_heads; ++h) {
    if (result->max_reach_v != NULL) result->max_reach_v[first_row + h] = reach;
    result->max_abs_v[first_row + h] = max_abs_v;
    for (int64_t c = 0; c < dv; ++c) {
      /* No weight at all is 0, whatever V holds; only a sink that is NaN shows. */
      const double sum = w->total[h * dv + c] + w->correction[h * dv + c];
      result->out[(first_row + h) * dv + c] = sums[h] != 0         ? sum / divisors[h]
                                              : isnan(divisors[h]) ? divisors[h]
                                                                   : 0;
    }
  }
}

/* Query heads done at once: at most 64, and their scores within the memory limit. */
static int64_t chunk_heads(int64_t group, int64_t kv_len) {
  const int64_t fit = MAX_SCORE_BYTES / (int64_t)sizeof(double) / (kv_len > 0 ? kv_len : 1);
  const int64_t most = fit < 64 ? fit : 64;
  return most < 1 ? 1 : group < most ? group : most;
}

static bool allocate(work *w, int64_t heads, int64_t kv_len) {
  const int64_t d = round_up(w->problem->head_dim), dv = w->problem->head_dim_v;
  w->q = malloc((size_t)(heads * d) * sizeof(double));
  w->scores = malloc((size_t)(heads * kv_len + 1) * sizeof(double));
  w->block = malloc((size_t)(3 * heads * dv) * sizeof(double));
  if (!w->q || !w->scores || !w->block) return false;
  w->total = w->block + heads * dv;
  w->correction = w->total + heads * dv;
  return true;
}

/* Tokens that a request attends to. */
static int64_t attended(const splitkv_problem *problem, int64_t kv_len) {
  const int64_t window = problem->window_tokens;
  return window > 0 && window < kv_len ? window : kv_len;
}

int ref_attention(const splitkv_problem *problem, const int64_t *kv_lens, int64_t first_request,
                  int64_t n_requests, const splitkv_tensors *tensors, const ref_result *result) {
  const int64_t group = problem->n_heads_q / problem->n_heads_kv;
  int64_t longest = 0, most_heads = 1;
  for (int64_t r = first_request; r < first_request + n_requests; ++r) {
    const int64_t n = attended(problem, kv_lens[r]), heads = chunk_heads(group, n);
    longest = n > longest ? n : longest;
    most_heads = heads > most_heads ? heads : most_heads;
  }
  /* Chunks shrink as lengths grow: chunk * length stays within the limit or is one head. */
  const int64_t limit = MAX_SCORE_BYTES / (int64_t)sizeof(double);
  const int64_t scores = most_heads * longest < limit || longest > limit ? longest : limit;
  work w = {.problem = problem, .tensors = tensors, .at = strides_of(problem)};
  w.scale = problem->scale != 0 ? (double)problem->scale : 1 / sqrt((double)problem->head_dim);
  const bool ok = allocate(&w, most_heads, scores);
  for (int64_t r = first_request; ok && r < first_request + n_requests; ++r) {
    w.request = r;
    w.kv_len = kv_lens[r];
    w.first = w.kv_len - attended(problem, w.kv_len);
    const int64_t chunk = chunk_heads(group, w.kv_len - w.first);
    for (int64_t h = 0; h < problem->n_heads_q; h += w.n_heads) {
      w.kv_head = h / group;
      w.first_head = h;
      const int64_t left = (w.kv_head + 1) * group - h;
      w.n_heads = left < chunk ? left : chunk;
      compute_chunk(&w, result);
    }
  }
  free(w.q);
  free(w.scores);
  free(w.block);
  return ok ? 0 : -1;
}
