/* Elements of all dtypes as double, and back; of quantised ones the codes.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "ref.h"

#include "ref_internal.h"

#include <math.h>
#include <string.h>

static double double_of_bits(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static uint64_t bits_of_double(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

/* binary16 in the top bits of a binary64 has its exponent 1023 - 15 too low, subnormals included,
 * so one exact multiplication by 2^1008 puts every finite value right. */
static double double_of_f16(uint16_t h) {
  const uint64_t sign = (uint64_t)(h & 0x8000u) << 48;
  const uint64_t rest = (uint64_t)(h & 0x7fffu) << 42;
  if ((h & 0x7c00u) == 0x7c00u) return double_of_bits(sign | (0x7ffULL << 52) | rest);
  return double_of_bits(sign | bits_of_double(double_of_bits(rest) * 0x1p1008));
}

static double double_of_bf16(uint16_t b) {
  const uint32_t bits = (uint32_t)b << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return (double)value;
}

/* Sign, 4 bits of exponent with bias 7, 3 of fraction; all ones are NaN, there is no infinity. */
static double double_of_e4m3(uint8_t code) {
  const int exponent = code >> 3 & 15, fraction = code & 7;
  const double sign = code & 0x80 ? -1 : 1;
  if ((code & 0x7f) == 0x7f) return sign * (double)NAN;
  return sign * (exponent == 0 ? ldexp(fraction, -9) : ldexp(8 + fraction, exponent - 10));
}

static double double_of_fp8(splitkv_dtype dtype, uint8_t code) {
  return dtype == SPLITKV_FP8_E4M3 ? double_of_e4m3(code) : double_of_f16((uint16_t)(code << 8));
}

int ref_dtype_bits(splitkv_dtype dtype) {
  static const int bits[] = {32, 16, 16, 8, 8, 8, 4};
  return bits[dtype];
}

size_t ref_dtype_size(splitkv_dtype dtype) {
  return (size_t)ref_dtype_bits(dtype) / 8;
}

/* The byte that has element i, where an element is at most a byte. */
static int64_t byte_of(splitkv_dtype dtype, int64_t i) {
  return dtype == SPLITKV_INT4 ? i / 2 : i;
}

void ref_load_row(splitkv_dtype dtype, const void *data, int64_t first, int64_t n, double *row) {
  const unsigned char *all = (const unsigned char *)data;
  const unsigned char *bytes = all + first * (int64_t)ref_dtype_size(dtype);
  for (int64_t i = 0; i < n; ++i) {
    float f;
    uint16_t h;
    switch (dtype) {
    case SPLITKV_INT8:
      row[i] = (double)(int8_t)bytes[i];
      break;
    case SPLITKV_FP8_E4M3:
    case SPLITKV_FP8_E5M2:
      row[i] = double_of_fp8(dtype, bytes[i]);
      break;
    case SPLITKV_INT4:
      row[i] = (double)(all[(first + i) / 2] >> (first + i) % 2 * 4 & 15);
      break;
    case SPLITKV_F16:
      memcpy(&h, bytes + 2 * i, sizeof h);
      row[i] = double_of_f16(h);
      break;
    case SPLITKV_BF16:
      memcpy(&h, bytes + 2 * i, sizeof h);
      row[i] = double_of_bf16(h);
      break;
    default:
      memcpy(&f, bytes + 4 * i, sizeof f);
      row[i] = (double)f;
      break;
    }
  }
}

double ref_load(splitkv_dtype dtype, const void *data, int64_t index) {
  double value;
  ref_load_row(dtype, data, index, 1, &value);
  return value;
}

/* Exponent of the unit in the last place at `value` in a format with `fraction_bits` and smallest
 * normal exponent `min_exponent`. */
static int ulp_exponent(double value, int fraction_bits, int min_exponent) {
  const int exponent = (int)((bits_of_double(value) >> 52) & 0x7ff) - 1023;
  return (exponent < min_exponent ? min_exponent : exponent) - fraction_bits;
}

/* Fraction bits, smallest and largest normal exponent of a dtype. */
typedef struct format {
  int fraction_bits, min_exponent, max_exponent;
} format;

static format format_of(splitkv_dtype dtype) {
  static const format formats[] = {{23, -126, 127}, {10, -14, 15}, {7, -126, 127}};
  return formats[dtype];
}

double ref_ulp(splitkv_dtype dtype, double value) {
  const format f = format_of(dtype);
  return ldexp(1.0, ulp_exponent(value, f.fraction_bits, f.min_exponent));
}

double ref_largest_power(splitkv_dtype dtype) {
  return ldexp(1.0, format_of(dtype).max_exponent);
}

double ref_round(splitkv_dtype dtype, double value) {
  if (dtype == SPLITKV_F32) return (double)(float)value;
  if (!isfinite(value) || value == 0) return value;
  const format f = format_of(dtype);
  /* Adding 1.5 * 2^(52 + u) leaves no bits below 2^u; the processor rounds ties to even. */
  const int u = ulp_exponent(value, f.fraction_bits, f.min_exponent);
  const double magic = double_of_bits(((uint64_t)(52 + u + 1023) << 52) | (1ULL << 51));
  const volatile double shifted = value + magic;
  const double rounded = copysign(shifted - magic, value);
  return fabs(rounded) >= 2 * ref_largest_power(dtype) ? copysign(INFINITY, value) : rounded;
}

static uint16_t f16_of_rounded(double value) {
  const uint16_t sign = (uint16_t)(signbit(value) ? 0x8000u : 0u);
  if (isnan(value)) return (uint16_t)(sign | 0x7e00u);
  if (isinf(value)) return (uint16_t)(sign | 0x7c00u);
  return (uint16_t)(sign | (uint16_t)(bits_of_double(fabs(value) * 0x1p-1008) >> 42));
}

static uint16_t bf16_of_rounded(double value) {
  const float narrow = (float)value;
  uint32_t bits;
  memcpy(&bits, &narrow, sizeof bits);
  return (uint16_t)(isnan(value) ? (bits >> 31 << 15) | 0x7fc0u : bits >> 16);
}

/* The nearest of 256 or fewer values, ties to the even code; beyond them the last one. NaN is NaN
 * where there is one, else 0. */
static uint8_t fp8_code(splitkv_dtype dtype, double value) {
  const uint8_t most = dtype == SPLITKV_FP8_E4M3 ? 0x7e : 0x7b, nan = 0x7f;
  const uint8_t sign = signbit(value) ? 0x80 : 0;
  if (isnan(value)) return sign | nan;
  uint8_t low = 0, high = most; /* codes ascend with their values */
  const double size = fmin(fabs(value), double_of_fp8(dtype, most));
  while (high - low > 1) {
    const uint8_t middle = (uint8_t)((low + high) / 2);
    if (double_of_fp8(dtype, middle) <= size) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const double below = size - double_of_fp8(dtype, low), above = double_of_fp8(dtype, high) - size;
  return sign | (below < above || (below == above && low % 2 == 0) ? low : high);
}

static void store_code(splitkv_dtype dtype, unsigned char *data, int64_t index, double value) {
  unsigned char *at = data + byte_of(dtype, index);
  if (dtype == SPLITKV_INT8) {
    *at = (unsigned char)(int8_t)fmin(fmax(isnan(value) ? 0 : nearbyint(value), -128), 127);
  } else if (dtype == SPLITKV_INT4) {
    const unsigned char code =
        (unsigned char)fmin(fmax(isnan(value) ? 0 : nearbyint(value), 0), 15);
    *at =
        index % 2 ? (unsigned char)((*at & 15) | code << 4) : (unsigned char)((*at & 0xf0) | code);
  } else {
    *at = fp8_code(dtype, value);
  }
}

void ref_store(splitkv_dtype dtype, void *data, int64_t index, double value) {
  if (dtype > SPLITKV_BF16) {
    store_code(dtype, (unsigned char *)data, index, value);
    return;
  }
  unsigned char *at = (unsigned char *)data + index * (int64_t)ref_dtype_size(dtype);
  if (dtype == SPLITKV_F32) {
    const float narrow = (float)value;
    memcpy(at, &narrow, sizeof narrow);
    return;
  }
  const double rounded = ref_round(dtype, value);
  const uint16_t bits = dtype == SPLITKV_F16 ? f16_of_rounded(rounded) : bf16_of_rounded(rounded);
  memcpy(at, &bits, sizeof bits);
}
