/* The oracle of append.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "ref_append.h"

#include "ref.h"
#include "ref_internal.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* K or V. */
typedef struct half {
  int is_k;
  int64_t n_channels;
  const void *rows;
  int64_t row_token, row_head; /* elements */
  unsigned char *cache;
  unsigned char *scales;
  int8_t *zeros;
  splitkv_scale_mode mode;
  int computes;
} half;

/* One row on its way: token, head, where it goes. */
typedef struct place {
  int64_t page, token, head;
} place;

static int64_t index_at(splitkv_index_type type, const void *array, int64_t i) {
  return type == SPLITKV_I64 ? ((const int64_t *)array)[i] : (int64_t)((const int32_t *)array)[i];
}

/* The code of a quotient. NaN is 0 where there is none, and has no sign. */
static void store_code(const splitkv_problem *p, const half *s, int64_t element, float quotient,
                       int zero_point) {
  double code = (double)quotient;
  if (p->dtype_kv == SPLITKV_INT8 || p->dtype_kv == SPLITKV_INT4)
    code = (isnan(quotient) ? 0 : nearbyint(code)) + zero_point;
  /* E5M2 has infinities, but they are not stored: quantising saturates. */
  const double most = p->dtype_kv == SPLITKV_FP8_E5M2 && isinf(code) ? 57344 : INFINITY;
  ref_store(p->dtype_kv, s->cache, element,
            isnan(code) ? fabs(code) : copysign(fmin(fabs(code), most), code));
}

/* Scale and zero point of the channels [first, end) of a row, computed and stored. */
static void compute(const splitkv_problem *p, const half *s, int64_t index, const float *row,
                    int64_t first, int64_t end) {
  const int has_zeros = (p->flags & SPLITKV_FLAG_ZERO_POINTS) != 0;
  float low = 0, high = 0;
  for (int64_t c = first; c < end; ++c) {
    if (isnan(row[c])) continue;
    low = row[c] < low ? row[c] : low;
    high = row[c] > high ? row[c] : high;
  }
  const int is_int8 = p->dtype_kv == SPLITKV_INT8;
  const double symmetric = is_int8                           ? 127
                           : p->dtype_kv == SPLITKV_INT4     ? 7
                           : p->dtype_kv == SPLITKV_FP8_E4M3 ? 448
                                                             : 57344;
  float span = has_zeros ? high - low : (high > -low ? high : -low);
  if (span > FLT_MAX) span = FLT_MAX;
  const double steps = has_zeros ? (is_int8 ? 255 : 15) : symmetric;
  float scale = (float)((double)span / steps);
  if (scale < FLT_MIN) scale = FLT_MIN;
  if (p->dtype_scales == SPLITKV_F16) { /* the first of all f16 numbers that is not below */
    uint16_t h = 0;
    ref_store(SPLITKV_F16, &h, 0, (double)scale);
    while (h > 1 && ref_load(SPLITKV_F16, &h, 0) >= (double)scale)
      --h;
    while (h < 0x7bff && ref_load(SPLITKV_F16, &h, 0) < (double)scale)
      ++h;
    if (h > 0x7bff) h = 0x7bff;
    memcpy(s->scales + 2 * index, &h, sizeof h);
    scale = (float)ref_load(SPLITKV_F16, &h, 0);
  } else {
    memcpy(s->scales + 4 * index, &scale, sizeof scale);
  }
  if (!has_zeros) return;
  double below = nearbyint((double)(float)((double)low / (double)scale));
  if (below < -steps) below = -steps;
  s->zeros[index] = (int8_t)((is_int8 ? -128 : 0) - below);
}

static void quantise(const splitkv_problem *p, const half *s, const place *at, int64_t element,
                     const float *row) {
  const int64_t shared = s->mode == SPLITKV_SCALE_GROUP32   ? 32
                         : s->mode == SPLITKV_SCALE_GROUP64 ? 64
                                                            : s->n_channels;
  for (int64_t c = 0; c < s->n_channels && s->computes; c += shared) {
    const int64_t end = c + shared < s->n_channels ? c + shared : s->n_channels;
    compute(p, s, ref_scale_index(p, s->mode, s->n_channels, at->page, at->token, at->head, c), row,
            c, end);
  }
  for (int64_t c = 0; c < s->n_channels; ++c) {
    double scale = 1;
    int zero = p->dtype_kv == SPLITKV_INT4 ? 8 : 0;
    if (s->mode != SPLITKV_SCALE_NONE) {
      const int64_t i =
          ref_scale_index(p, s->mode, s->n_channels, at->page, at->token, at->head, c);
      scale = ref_load(p->dtype_scales, s->scales, i);
      if (p->flags & SPLITKV_FLAG_ZERO_POINTS) zero = s->zeros[i];
    }
    const float quotient = (float)((double)row[c] / scale);
    store_code(p, s, element + c, quotient, zero);
  }
}

static void store(splitkv_dtype dtype, unsigned char *cache, int64_t element, float value) {
  static const uint32_t nan32 = 0x7fc00000U;
  static const uint16_t nan16[] = {0, 0x7e00, 0x7fc0};
  if (!isnan(value)) {
    ref_store(dtype, cache, element, (double)value);
  } else if (dtype == SPLITKV_F32) {
    memcpy(cache + 4 * element, &nan32, sizeof nan32);
  } else {
    memcpy(cache + 2 * element, &nan16[dtype], sizeof nan16[dtype]);
  }
}

/* The partner of channel c, and whether c is the first of both. */
static int64_t partner(const splitkv_append_args *a, int64_t c, int *is_first) {
  if (a->rotary_style == SPLITKV_ROTARY_INTERLEAVED) {
    *is_first = c % 2 == 0;
    return *is_first ? c + 1 : c - 1;
  }
  *is_first = c < a->rotary_dim / 2;
  return *is_first ? c + a->rotary_dim / 2 : c - a->rotary_dim / 2;
}

static float rotated(const splitkv_append_args *a, int64_t position, const float *row, int64_t c) {
  int is_first = 0;
  const int64_t other = partner(a, c, &is_first), first = is_first ? c : other;
  const int64_t stride = a->rotary_stride ? a->rotary_stride : a->rotary_dim / 2;
  const int64_t i = a->rotary_style == SPLITKV_ROTARY_INTERLEAVED ? first / 2 : first;
  const float cosine = a->cos[position * stride + i], sine = a->sin[position * stride + i];
  const float product = (float)((double)row[other] * (double)(is_first ? -sine : sine));
  return fmaf(row[c], cosine, product);
}

/* Element of the cache where a row begins. */
static int64_t row_element(const splitkv_problem *p, const half *s, const place *at) {
  const int64_t n = s->n_channels;
  if (p->layout == SPLITKV_LAYOUT_STRIDES) {
    return s->is_k ? at->page * p->k_stride_page + at->token * p->k_stride_token +
                         at->head * p->k_stride_head
                   : at->page * p->v_stride_page + at->token * p->v_stride_token +
                         at->head * p->v_stride_head;
  }
  return p->layout == SPLITKV_LAYOUT_NHD
             ? ((at->page * p->page_size_tokens + at->token) * p->n_heads_kv + at->head) * n
             : ((at->page * p->n_heads_kv + at->head) * p->page_size_tokens + at->token) * n;
}

static void append_row(const splitkv_problem *p, const splitkv_append_args *a, const half *s,
                       int64_t t, const place *at) {
  float row[SPLITKV_MAX_HEAD_DIM], turned[SPLITKV_MAX_HEAD_DIM];
  const int64_t from = t * s->row_token + at->head * s->row_head;
  const int64_t n_rotated = s->is_k ? a->rotary_dim : 0;
  for (int64_t c = 0; c < s->n_channels; ++c)
    row[c] = (float)ref_load(a->dtype_new, s->rows, from + c);
  for (int64_t c = 0; c < s->n_channels; ++c)
    turned[c] =
        c < n_rotated ? rotated(a, index_at(a->position_type, a->positions, t), row, c) : row[c];
  const int64_t element = row_element(p, s, at);
  if (p->dtype_kv > SPLITKV_BF16) {
    quantise(p, s, at, element, turned);
    return;
  }
  const int64_t bytes = (int64_t)ref_dtype_size(p->dtype_kv);
  for (int64_t c = 0; c < s->n_channels; ++c) {
    if (c >= n_rotated && a->dtype_new == p->dtype_kv) {
      memcpy(s->cache + (element + c) * bytes, (const unsigned char *)s->rows + (from + c) * bytes,
             (size_t)bytes);
    } else {
      store(p->dtype_kv, s->cache, element + c, turned[c]);
    }
  }
}

void ref_append(const splitkv_problem *p, const splitkv_append_args *a) {
  half k = {1,
            p->head_dim,
            a->k_new,
            a->k_new_stride_token,
            a->k_new_stride_head,
            a->k,
            a->k_scales,
            a->k_zeros,
            p->k_scale_mode,
            (a->flags & SPLITKV_APPEND_COMPUTE_K_SCALES) != 0};
  half v = {0,
            p->head_dim_v,
            a->v_new,
            a->v_new_stride_token,
            a->v_new_stride_head,
            a->v,
            a->v_scales,
            a->v_zeros,
            p->v_scale_mode,
            (a->flags & SPLITKV_APPEND_COMPUTE_V_SCALES) != 0};
  for (half *s = &k; s; s = s == &k ? &v : NULL) {
    if (!s->rows) continue;
    if (s->row_head == 0) s->row_head = s->n_channels;
    if (s->row_token == 0) s->row_token = p->n_heads_kv * s->row_head;
    for (int64_t t = 0; t < a->n_tokens; ++t) {
      const int64_t slot = index_at(a->slot_type, a->slot_mapping, t);
      if (slot < 0) continue;
      for (int64_t h = 0; h < p->n_heads_kv; ++h) {
        const place at = {slot / p->page_size_tokens, slot % p->page_size_tokens, h};
        append_row(p, a, s, t, &at);
      }
    }
  }
}
