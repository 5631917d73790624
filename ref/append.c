/* The oracle of append.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "ref_append.h"

#include "ref.h"

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

double ref_code_value(splitkv_dtype dtype, int code, int zero_point) {
  if (dtype == SPLITKV_INT8) return (code > 127 ? code - 256 : code) - zero_point;
  if (dtype == SPLITKV_INT4) return code - zero_point;
  const int fraction_bits = dtype == SPLITKV_FP8_E4M3 ? 3 : 2;
  const int bias = dtype == SPLITKV_FP8_E4M3 ? 7 : 15;
  const int exponent = (code & 0x7f) >> fraction_bits, fraction = code & ((1 << fraction_bits) - 1);
  const double sign = code & 0x80 ? -1 : 1;
  if (dtype == SPLITKV_FP8_E4M3 && (code & 0x7f) == 0x7f) return NAN;
  if (dtype == SPLITKV_FP8_E5M2 && exponent == 31) return fraction != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * ldexp(fraction, 1 - bias - fraction_bits);
  return sign * ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
}

/* The nearest finite code of eight bits, the even one of two that are as near. */
static int fp8_code(splitkv_dtype dtype, float value) {
  if (isnan(value)) return dtype == SPLITKV_FP8_E4M3 ? 0x7f : 0x7e;
  const int largest = dtype == SPLITKV_FP8_E4M3 ? 0x7e : 0x7b;
  const double magnitude = fmin(fabs((double)value), ref_code_value(dtype, largest, 0));
  int best = 0;
  double least = INFINITY;
  for (int code = 0; code <= largest; ++code) {
    const double distance = fabs(magnitude - ref_code_value(dtype, code, 0));
    if (distance > least || (distance == least && code % 2 != 0)) continue;
    best = code;
    least = distance;
  }
  return best | (signbit(value) ? 0x80 : 0);
}

static int integer_code(splitkv_dtype dtype, float value, int zero_point) {
  const int lowest = dtype == SPLITKV_INT8 ? -128 : 0, highest = dtype == SPLITKV_INT8 ? 127 : 15;
  const double code = (isnan(value) ? 0 : nearbyint((double)value)) + zero_point;
  return (int)(code < lowest ? lowest : code > highest ? highest : code);
}

/* Number of the scale of one channel in its array. */
static int64_t scale_index(const splitkv_problem *p, const half *s, const place *at, int64_t c) {
  const int64_t shared = s->mode == SPLITKV_SCALE_GROUP32   ? 32
                         : s->mode == SPLITKV_SCALE_GROUP64 ? 64
                                                            : s->n_channels;
  const int64_t n = (s->n_channels + shared - 1) / shared;
  const int64_t hnd = (at->page * p->n_heads_kv + at->head) * p->page_size_tokens + at->token;
  const int64_t nhd = (at->page * p->page_size_tokens + at->token) * p->n_heads_kv + at->head;
  switch (s->mode) {
  case SPLITKV_SCALE_TENSOR:
    return 0;
  case SPLITKV_SCALE_HEAD:
    return at->head;
  case SPLITKV_SCALE_CHANNEL:
    return at->head * s->n_channels + c;
  default:
    return (p->layout == SPLITKV_LAYOUT_HND ? hnd : nhd) * n + c / shared;
  }
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
    compute(p, s, scale_index(p, s, at, c), row, c, end);
  }
  for (int64_t c = 0; c < s->n_channels; ++c) {
    double scale = 1;
    int zero = p->dtype_kv == SPLITKV_INT4 ? 8 : 0;
    if (s->mode != SPLITKV_SCALE_NONE) {
      const int64_t i = scale_index(p, s, at, c);
      scale = ref_load(p->dtype_scales, s->scales, i);
      if (p->flags & SPLITKV_FLAG_ZERO_POINTS) zero = s->zeros[i];
    }
    const float quotient = (float)((double)row[c] / scale);
    const int code = p->dtype_kv == SPLITKV_INT8 || p->dtype_kv == SPLITKV_INT4
                         ? integer_code(p->dtype_kv, quotient, zero)
                         : fp8_code(p->dtype_kv, quotient);
    if (p->dtype_kv != SPLITKV_INT4) {
      s->cache[element + c] = (unsigned char)code;
      continue;
    }
    unsigned char *byte = &s->cache[(element + c) / 2];
    *byte = (unsigned char)(c % 2 ? (*byte & 0x0f) | code << 4 : (*byte & 0xf0) | code);
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
