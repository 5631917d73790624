/* SPDX-License-Identifier: Apache-2.0 */
#include "codes.h"

#include "ref.h"

#include <math.h>

/* ── elements ───────────────────────────────────────────────────────────────────────────────── */

size_t codes_bytes(splitkv_dtype dtype, int64_t n) {
  size_t count = (size_t)n;
  if (n < 0 || count > SIZE_MAX / sizeof(float)) {
    return SIZE_MAX;
  }
  switch (dtype) {
  case SPLITKV_F32:
    return 4 * count;
  case SPLITKV_F16:
  case SPLITKV_BF16:
    return 2 * count;
  case SPLITKV_INT4:
    return (count + 1) / 2;
  default:
    return count;
  }
}

typedef struct fp8_format {
  int fraction_bits, bias;
  uint8_t largest_code;
  double largest;
} fp8_format;

static fp8_format fp8_of(splitkv_dtype dtype) {
  return dtype == SPLITKV_FP8_E4M3 ? (fp8_format){3, 7, 0x7e, 448}
                                   : (fp8_format){2, 15, 0x7b, 57344};
}

static uint8_t fp8_code(splitkv_dtype dtype, double value) {
  fp8_format f = fp8_of(dtype);
  uint8_t sign = signbit(value) ? 0x80 : 0;
  double size = fabs(value);
  if (isnan(value) || size >= f.largest) {
    return sign | (isnan(value) ? 0x7f : f.largest_code);
  }
  int exponent = size > 0 ? ilogb(size) : -f.bias;
  exponent = exponent > -f.bias ? exponent : 1 - f.bias; /* of subnormal numbers */
  /* Units of the last place; a carry past the fraction is the next exponent. */
  int units = (int)nearbyint(ldexp(size, f.fraction_bits - exponent));
  int code = ((exponent + f.bias - 1) * (1 << f.fraction_bits)) + units;
  return (uint8_t)(sign | code);
}

static int rounded(double value, int zero, int least, int most) {
  double code = nearbyint(value) + zero;
  return code < least ? least : code > most ? most : (int)code;
}

void codes_store(splitkv_dtype dtype, void *data, int64_t index, double value, int zero) {
  uint8_t *bytes = data;
  if (dtype == SPLITKV_INT8) {
    bytes[index] = (uint8_t)rounded(value, zero, -128, 127);
  } else if (dtype == SPLITKV_INT4) {
    int shift = index % 2 ? 4 : 0;
    int code = rounded(value, zero, 0, 15);
    bytes[index / 2] = (uint8_t)((bytes[index / 2] & ~(15 << shift)) | code << shift);
  } else {
    bytes[index] = fp8_code(dtype, value);
  }
}

/* ── scales ─────────────────────────────────────────────────────────────────────────────────── */

static double stored_scale(const tool_case *c, double scale) {
  double buffer = 0;
  ref_store(c->problem.dtype_scales, &buffer, 0, scale);
  double stored = ref_load(c->problem.dtype_scales, &buffer, 0);
  /* Numbers so small have no scale of that type: all codes are near 0 then. */
  return stored > 0 ? stored : c->problem.dtype_scales == SPLITKV_F16 ? 0x1p-24 : 0x1p-126;
}

code_scale codes_scale(const tool_case *c, double least, double most) {
  splitkv_dtype dtype = c->problem.dtype_kv;
  int is_int8 = dtype == SPLITKV_INT8, is_int4 = dtype == SPLITKV_INT4;
  code_scale s = {1, is_int4 ? 8 : 0};
  double size = fmax(fabs(least), fabs(most));
  if (!c->spec->zeros || !(is_int8 || is_int4)) {
    double largest = is_int8 ? 127 : is_int4 ? 7 : fp8_of(dtype).largest;
    s.scale = stored_scale(c, size / largest);
    return s;
  }
  /* 0 has a code, so that zero points are codes. */
  double low = fmin(least, 0), high = fmax(most, 0);
  int first = is_int8 ? -128 : 0, last = is_int8 ? 127 : 15;
  s.scale = stored_scale(c, (high - low) / (last - first));
  s.zero = rounded(-low / s.scale, first, first, last);
  return s;
}

int64_t codes_channels_per_scale(splitkv_scale_mode mode, int64_t channels) {
  return mode == SPLITKV_SCALE_CHANNEL   ? 1
         : mode == SPLITKV_SCALE_GROUP32 ? 32
         : mode == SPLITKV_SCALE_GROUP64 ? 64
                                         : channels;
}

int codes_is_per_token(splitkv_scale_mode mode) {
  return mode >= SPLITKV_SCALE_TOKEN;
}

/* Of a token's own scales. */
static int64_t scales_per_row(splitkv_scale_mode mode, int64_t channels) {
  int64_t width = codes_channels_per_scale(mode, channels);
  return (channels + width - 1) / width;
}

int64_t codes_n_scales(const tool_case *c, splitkv_scale_mode mode, int64_t channels) {
  const splitkv_problem *p = &c->problem;
  switch (mode) {
  case SPLITKV_SCALE_NONE:
    return 0;
  case SPLITKV_SCALE_TENSOR:
    return 1;
  case SPLITKV_SCALE_HEAD:
    return p->n_heads_kv;
  case SPLITKV_SCALE_CHANNEL:
    return p->n_heads_kv * channels;
  default:
    return p->n_pages * p->page_size_tokens * p->n_heads_kv * scales_per_row(mode, channels);
  }
}

int64_t codes_scale_index(const tool_case *c, splitkv_scale_mode mode, int64_t channels,
                          int64_t page, int64_t token, int64_t head, int64_t channel) {
  const splitkv_problem *p = &c->problem;
  int64_t n = scales_per_row(mode, channels);
  int64_t row = p->layout == SPLITKV_LAYOUT_HND
                    ? (page * p->n_heads_kv + head) * p->page_size_tokens + token
                    : (page * p->page_size_tokens + token) * p->n_heads_kv + head;
  switch (mode) {
  case SPLITKV_SCALE_HEAD:
    return head;
  case SPLITKV_SCALE_CHANNEL:
    return head * channels + channel;
  case SPLITKV_SCALE_TOKEN:
  case SPLITKV_SCALE_GROUP32:
  case SPLITKV_SCALE_GROUP64:
    return row * n + channel / codes_channels_per_scale(mode, channels);
  default:
    return 0;
  }
}
