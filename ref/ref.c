/* Naive attention in double: all scores, then their maximum, then the weighted sum.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Doubles hold everything, so the error is some 2^-45 of the result where the contract asks for
 * 2^-20. Each K and V row is converted once for all queries (a query row and a head) that share it,
 * in chunks of queries whose scores fit the memory limit below. */
#include "ref.h"

#include "ref_internal.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

enum {
  PARTIAL_SUMS = 8,   /* of a dot product: independent, so that the processor can overlap them */
  BLOCK_TOKENS = 128, /* tokens summed plainly before the sum goes to the compensated total */
  MAX_QUERIES = 64,   /* done at once */
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

/* One query row and head: what it may attend to. */
typedef struct query {
  int64_t row, head;     /* of Q, out and lse */
  int64_t position;      /* the token that it stands at; negative where rows outnumber tokens */
  int64_t begin, end;    /* the tokens that all rules but the tree mask leave it */
  const uint64_t *words; /* its row of the tree mask, NULL without one */
} query;

/* One KV head of one request, for a chunk of its queries. */
typedef struct work {
  const splitkv_problem *problem;
  const splitkv_tensors *tensors;
  strides at;
  double scale;
  int64_t request, kv_len, kv_head;
  int64_t first_row, n_rows; /* of the request, among all of Q */
  int64_t begin, end;        /* no query of the chunk attends to a token outside */
  int64_t n_queries;
  query queries[MAX_QUERIES];
  double *q;          /* [n_queries, d rounded up] */
  double *scores;     /* [n_queries, end - begin]; weights later */
  double *block;      /* [n_queries, dv] */
  double *total;      /* [n_queries, dv] */
  double *correction; /* [n_queries, dv] */
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

/* Whether a query attends to a token of its request. */
static bool attends(const work *w, const query *q, int64_t token) {
  if (token < q->begin || token >= q->end) return false;
  const int64_t bit = token - (w->kv_len - w->problem->tree_tokens);
  if (q->words == NULL || bit < 0) return true;
  return (q->words[bit / 64] >> (bit % 64) & 1) != 0;
}

static bool any_attends(const work *w, int64_t token) {
  for (int64_t i = 0; i < w->n_queries; ++i)
    if (attends(w, &w->queries[i], token)) return true;
  return false;
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
static double bias_of(const work *w, const query *q, int64_t token) {
  if (!(w->problem->flags & SPLITKV_FLAG_ALIBI)) return 0;
  return (double)w->tensors->alibi_slopes[q->head] * (double)(token - q->position);
}

static double capped(const work *w, double score) {
  const double cap = (double)w->problem->logit_softcap;
  return cap > 0 ? cap * tanh(score / cap) : score;
}

/* The sink of a head, -inf without one. */
static double sink_of(const work *w, int64_t head) {
  if (!(w->problem->flags & SPLITKV_FLAG_SINKS)) return -INFINITY;
  return (double)w->tensors->sinks[head];
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

/* Where a query's numbers stand in the results. */
static int64_t result_row(const work *w, const query *q) {
  return q->row * w->problem->n_heads_q + q->head;
}

static void load_queries(const work *w) {
  const int64_t d = round_up(w->problem->head_dim);
  for (int64_t i = 0; i < w->n_queries; ++i) {
    double *q = w->q + i * d;
    for (int64_t c = w->problem->head_dim; c < d; ++c)
      q[c] = 0;
    ref_load_row(w->problem->dtype_q, w->tensors->q,
                 w->queries[i].row * w->at.q_request + w->queries[i].head * w->at.q_head,
                 w->problem->head_dim, q);
  }
}

/* Scores of tokens that a query does not attend to are -inf. */
static void compute_scores(const work *w, const ref_result *result) {
  const int64_t d = round_up(w->problem->head_dim), n = w->end - w->begin;
  double row[MAX_CHANNELS] = {0};
  load_queries(w);
  for (int64_t i = 0; result->max_products != NULL && i < w->n_queries; ++i)
    result->max_products[result_row(w, &w->queries[i])] = 0;
  for (int64_t i = 0; result->max_spread != NULL && i < w->n_queries; ++i)
    result->max_spread[result_row(w, &w->queries[i])] = 0;
  for (int64_t t = w->begin; t < w->end; ++t) {
    if (any_attends(w, t)) load_k(w, t, row);
    const double size = result->max_spread != NULL ? fabs(w->scale) * sum_of_sizes(row, d) : 0;
    for (int64_t i = 0; i < w->n_queries; ++i) {
      const query *q = &w->queries[i];
      double *score = &w->scores[i * n + t - w->begin];
      *score = -INFINITY;
      if (!attends(w, q, t)) continue;
      *score = capped(w, w->scale * dot(w->q + i * d, row, d)) + bias_of(w, q, t);
      if (result->max_spread != NULL) {
        double *spread = &result->max_spread[result_row(w, q)];
        *spread = fmax(*spread, size);
      }
      if (result->max_products == NULL) continue;
      double *most = &result->max_products[result_row(w, q)];
      *most = fmax(*most, fabs(w->scale) * abs_dot(w->q + i * d, row, d));
    }
  }
  for (int64_t i = 0; result->max_spread != NULL && i < w->n_queries; ++i)
    result->max_spread[result_row(w, &w->queries[i])] *= largest_size(w->q + i * d, d);
}

/* What the error bounds speak of: the largest |score|. With ALiBi the largest |capped score| +
 * |bias|, of tokens whose weight is not negligible (docs/numerics.md). */
static double largest_score(const work *w, const query *q, const double *scores, double max) {
  const bool alibi = (w->problem->flags & SPLITKV_FLAG_ALIBI) != 0;
  const double least = max - 64 * 0.6931471805599453;
  double largest = 0;
  for (int64_t t = q->begin; t < q->end; ++t) {
    const double score = scores[t - w->begin];
    if (!isfinite(score) || (alibi && !(score >= least))) continue;
    const double bias = bias_of(w, q, t);
    const double size = fabs(score - bias) + fabs(bias);
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

/* Scores of query i become weights in place; lse and the largest |score| go to the result. Returns
 * the sum of the weights, and to *divisor the same with the sink. */
static double compute_weights(const work *w, int64_t i, const ref_result *result, double *divisor) {
  const query *q = &w->queries[i];
  const int64_t n = w->end - w->begin, row = result_row(w, q);
  double *scores = w->scores + i * n, max = -INFINITY;
  for (int64_t t = 0; t < n; ++t) {
    if (scores[t] > max || isnan(scores[t])) max = scores[t];
    if (isnan(max)) break;
  }
  result->max_abs_score[row] = largest_score(w, q, scores, max);
  double total = 0, correction = 0;
  const double log2_max = max * 1.4426950408889634;
  const double least = isfinite(max) ? MIN_WEIGHT * exp2(ceil(log2_max) - log2_max) : MIN_WEIGHT;
  for (int64_t t = 0; t < n; ++t) {
    if (!attends(w, q, w->begin + t)) continue;
    const double weight = max == -INFINITY ? 0 : exp(scores[t] - max);
    scores[t] = weight < least ? 0 : weight;
    add_compensated(&total, &correction, scores[t]);
  }
  const double sum = total + correction, sink = sink_of(w, q->head);
  result->lse[row] = log_sum(max, sum, sink);
  *divisor = sink == -INFINITY ? sum : sum + exp(sink - max);
  return sum;
}

static void add_tokens(const work *w, int64_t first, int64_t end, double *max_abs_v) {
  const int64_t dv = w->problem->head_dim_v, n = w->end - w->begin;
  double row[MAX_CHANNELS];
  for (int64_t i = 0; i < w->n_queries * dv; ++i)
    w->block[i] = 0;
  for (int64_t t = first; t < end; ++t) {
    if (!any_attends(w, t)) continue;
    load_v(w, t, row);
    double largest = 0;
    for (int64_t c = 0; c < dv; ++c)
      if (fabs(row[c]) > largest && !isinf(row[c])) largest = fabs(row[c]);
    for (int64_t i = 0; i < w->n_queries; ++i) {
      if (!attends(w, &w->queries[i], t)) continue;
      const double weight = w->scores[i * n + t - w->begin];
      double *sum = w->block + i * dv;
      for (int64_t c = 0; c < dv; ++c)
        sum[c] += weight * row[c];
      max_abs_v[i] = fmax(max_abs_v[i], largest);
    }
  }
  for (int64_t i = 0; i < w->n_queries * dv; ++i)
    add_compensated(&w->total[i], &w->correction[i], w->block[i]);
}

/* The largest |element| that the scales of the tokens of V allow for; 0 where tokens have none. */
static double reach_of(const work *w, int64_t i) {
  double reach = 0;
  for (int64_t t = w->begin; t < w->end; ++t) {
    if (!attends(w, &w->queries[i], t)) continue;
    reach = fmax(reach, ref_reach_v(w->problem, w->tensors, page_of(w, t),
                                    t % w->problem->page_size_tokens, w->kv_head));
  }
  return reach;
}

static void compute_chunk(const work *w, const ref_result *result) {
  const int64_t dv = w->problem->head_dim_v;
  compute_scores(w, result);
  for (int64_t i = 0; i < w->n_queries * dv; ++i)
    w->total[i] = w->correction[i] = 0;
  double sums[MAX_QUERIES], divisors[MAX_QUERIES], max_abs_v[MAX_QUERIES] = {0};
  for (int64_t i = 0; i < w->n_queries; ++i)
    sums[i] = compute_weights(w, i, result, &divisors[i]);
  for (int64_t t = w->begin; t < w->end; t += BLOCK_TOKENS)
    add_tokens(w, t, t + BLOCK_TOKENS < w->end ? t + BLOCK_TOKENS : w->end, max_abs_v);
  for (int64_t i = 0; i < w->n_queries; ++i) {
    const int64_t row = result_row(w, &w->queries[i]);
    result->max_abs_v[row] = max_abs_v[i];
    if (result->max_reach_v != NULL) result->max_reach_v[row] = fmax(max_abs_v[i], reach_of(w, i));
    for (int64_t c = 0; c < dv; ++c) {
      /* No weight at all is 0, whatever V holds; only a sink that is NaN shows. */
      const double sum = w->total[i * dv + c] + w->correction[i * dv + c];
      result->out[row * dv + c] = sums[i] != 0         ? sum / divisors[i]
                                  : isnan(divisors[i]) ? divisors[i]
                                                       : 0;
    }
  }
}

/* Tokens that row `row` of Q may attend to, by all rules but the tree mask. */
static void bound_query(const work *w, query *q) {
  const splitkv_problem *p = w->problem;
  const int64_t position = w->kv_len - w->n_rows + (q->row - w->first_row);
  q->position = position;
  q->begin = 0;
  q->end = w->kv_len;
  const int64_t right = p->flags & SPLITKV_FLAG_CAUSAL ? 1 : p->window_right_tokens;
  if (right > 0 && right < q->end - position) q->end = position + right;
  if (p->window_tokens > 0 && p->window_tokens <= position)
    q->begin = position - p->window_tokens + 1;
  if (p->chunk_tokens > 0) {
    /* Division rounds down: no token has the chunk of a negative position. */
    const int64_t first = position / p->chunk_tokens * p->chunk_tokens;
    if (first > q->begin) q->begin = first;
    if (p->chunk_tokens < q->end - first) q->end = first + p->chunk_tokens;
    if (position < 0) q->end = 0;
  }
  if (q->end < q->begin) q->end = q->begin;
  q->words = p->tree_tokens > 0 ? w->tensors->tree_mask +
                                      q->row * (p->tree_tokens / 64 + (p->tree_tokens % 64 > 0))
                                : NULL;
}

/* Queries first .. first+n-1 of the KV head: all heads of the request's row 0, of row 1 and so on.
 */
static void choose_queries(work *w, int64_t first, int64_t n) {
  const int64_t group = w->problem->n_heads_q / w->problem->n_heads_kv;
  w->n_queries = n;
  w->begin = INT64_MAX;
  w->end = 0;
  for (int64_t i = 0; i < n; ++i) {
    query *q = &w->queries[i];
    q->row = w->first_row + (first + i) / group;
    q->head = w->kv_head * group + (first + i) % group;
    bound_query(w, q);
    if (q->begin < q->end && q->begin < w->begin) w->begin = q->begin;
    if (q->begin < q->end && q->end > w->end) w->end = q->end;
  }
  if (w->begin > w->end) w->begin = w->end;
}

/* Queries done at once: at most MAX_QUERIES, and their scores within the memory limit. */
static int64_t chunk_queries(int64_t n_queries, int64_t n_tokens) {
  const int64_t fit = MAX_SCORE_BYTES / (int64_t)sizeof(double) / (n_tokens > 0 ? n_tokens : 1);
  const int64_t most = fit < MAX_QUERIES ? fit : MAX_QUERIES;
  return most < 1 ? 1 : n_queries < most ? n_queries : most;
}

static bool allocate(work *w, int64_t queries, int64_t n_scores) {
  const int64_t d = round_up(w->problem->head_dim), dv = w->problem->head_dim_v;
  w->q = malloc((size_t)(queries * d) * sizeof(double));
  w->scores = malloc((size_t)(n_scores + 1) * sizeof(double));
  w->block = malloc((size_t)(3 * queries * dv) * sizeof(double));
  if (!w->q || !w->scores || !w->block) return false;
  w->total = w->block + queries * dv;
  w->correction = w->total + queries * dv;
  return true;
}

/* Makes *w stand at a request, and says how many tokens its rows span and how many queries one KV
 * head of it has. */
static void enter_request(work *w, int64_t request, const int64_t *kv_lens,
                          const int64_t *q_offsets, int64_t *span, int64_t *n_queries) {
  w->request = request;
  w->kv_len = kv_lens[request];
  w->first_row = q_offsets != NULL ? q_offsets[request] : request;
  w->n_rows = q_offsets != NULL ? q_offsets[request + 1] - w->first_row : 1;
  *n_queries = w->n_rows * (w->problem->n_heads_q / w->problem->n_heads_kv);
  *span = 0;
  if (w->n_rows == 0) return;
  /* No bound of a row lies before that of the row above it. */
  query first = {.row = w->first_row}, last = {.row = w->first_row + w->n_rows - 1};
  bound_query(w, &first);
  bound_query(w, &last);
  *span = last.end > first.begin ? last.end - first.begin : 0;
}

int ref_attention(const splitkv_problem *problem, const int64_t *kv_lens, const int64_t *q_offsets,
                  int64_t first_request, int64_t n_requests, const splitkv_tensors *tensors,
                  const ref_result *result) {
  work w = {.problem = problem, .tensors = tensors, .at = strides_of(problem)};
  w.scale = problem->scale != 0 ? (double)problem->scale : 1 / sqrt((double)problem->head_dim);
  int64_t most_queries = 1, most_scores = 0, span = 0, n_queries = 0;
  for (int64_t r = first_request; r < first_request + n_requests; ++r) {
    enter_request(&w, r, kv_lens, q_offsets, &span, &n_queries);
    const int64_t chunk = chunk_queries(n_queries, span);
    most_queries = chunk > most_queries ? chunk : most_queries;
    most_scores = chunk * span > most_scores ? chunk * span : most_scores;
  }
  const bool ok = allocate(&w, most_queries, most_scores);
  for (int64_t r = first_request; ok && r < first_request + n_requests; ++r) {
    enter_request(&w, r, kv_lens, q_offsets, &span, &n_queries);
    const int64_t chunk = chunk_queries(n_queries, span);
    for (w.kv_head = 0; w.kv_head < problem->n_heads_kv; ++w.kv_head)
      for (int64_t first = 0; first < n_queries; first += chunk) {
        const int64_t left = n_queries - first;
        choose_queries(&w, first, left < chunk ? left : chunk);
        compute_chunk(&w, result);
      }
  }
  free(w.q);
  free(w.scores);
  free(w.block);
  return ok ? 0 : -1;
}
