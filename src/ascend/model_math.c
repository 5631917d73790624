/* Arithmetic of the model, written so that compilers vectorise it for any machine: no branch
 * depends on a value.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "model_math.h"

#include <string.h>

static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* ── conversions ────────────────────────────────────────────────────────────────────────────── */

/* The bits of an f16 in the place of an f32's are the number times 2^-112, subnormals too. */
static float widen_f16(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = (uint32_t)(h & 0x7fffu) << 13;
  const uint32_t is_special = (uint32_t)0 - (uint32_t)((h & 0x7c00u) == 0x7c00u);
  const uint32_t number = bits_of(float_of(rest) * 0x1p112f);
  return float_of(sign | (number & ~is_special) | ((rest | 0x7f800000u) & is_special));
}

void spl_model_widen(bool is_bf16, const uint16_t *restrict from, int64_t n, float *restrict to) {
  if (is_bf16) {
    for (int64_t i = 0; i < n; i++)
      to[i] = float_of((uint32_t)from[i] << 16);
  } else {
    for (int64_t i = 0; i < n; i++)
      to[i] = widen_f16(from[i]);
  }
}

static uint16_t narrow_f16(float value) {
  const uint32_t bits = bits_of(value), rest = bits & 0x7fffffffu;
  /* Adding a half leaves 24 bits after the point, those of a subnormal; the FPU rounds. */
  const uint32_t small = bits_of(float_of(rest) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (rest - 0x38000000u + 0xfffu + ((rest >> 13) & 1u)) >> 13;
  uint32_t half = rest < 0x38800000u ? small : normal;
  half = rest >= 0x47800000u ? 0x7c00u : half;
  half = rest > 0x7f800000u ? 0x7e00u : half;
  return (uint16_t)(half | (bits >> 16 & 0x8000u));
}

static uint16_t narrow_bf16(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

void spl_model_narrow(bool is_bf16, const float *restrict from, int64_t n, uint16_t *restrict to) {
  if (is_bf16) {
    for (int64_t i = 0; i < n; i++)
      to[i] = narrow_bf16(from[i]);
  } else {
    for (int64_t i = 0; i < n; i++)
      to[i] = narrow_f16(from[i]);
  }
}

/* ── matrices ───────────────────────────────────────────────────────────────────────────────── */

void spl_model_transpose(const float *restrict from, int64_t n_rows, int64_t n_columns,
                         float *restrict to, int64_t to_stride) {
  enum { BLOCK = 8 };
  int64_t r = 0;
  for (; r + BLOCK <= n_rows; r += BLOCK)
    for (int64_t c = 0; c < n_columns; c++)
      for (int64_t i = 0; i < BLOCK; i++)
        to[c * to_stride + r + i] = from[(r + i) * n_columns + c];
  for (; r < n_rows; r++)
    for (int64_t c = 0; c < n_columns; c++)
      to[c * to_stride + r] = from[r * n_columns + c];
}

/* Two rows of c gain four terms each: the row of b is loaded once for both. */
static void add_four(const float *a0, const float *a1, const float *restrict b, int64_t b_stride,
                     int64_t n, float *restrict c0, float *restrict c1) {
  const float *b1 = b + b_stride, *b2 = b + 2 * b_stride, *b3 = b + 3 * b_stride;
  const float p0 = a0[0], p1 = a0[1], p2 = a0[2], p3 = a0[3];
  const float q0 = a1[0], q1 = a1[1], q2 = a1[2], q3 = a1[3];
  for (int64_t j = 0; j < n; j++) {
    c0[j] += (p0 * b[j] + p1 * b1[j]) + (p2 * b2[j] + p3 * b3[j]);
    c1[j] += (q0 * b[j] + q1 * b1[j]) + (q2 * b2[j] + q3 * b3[j]);
  }
}

static void add_one(float a, const float *restrict b, int64_t n, float *restrict c) {
  for (int64_t j = 0; j < n; j++)
    c[j] += a * b[j];
}

void spl_model_multiply(const float *a, int64_t a_stride, const float *b, int64_t b_stride,
                        int64_t n_rows, int64_t n_inner, int64_t n_columns, float *c,
                        int64_t c_stride) {
  for (int64_t i = 0; i < n_rows; i++)
    memset(c + i * c_stride, 0, (size_t)n_columns * sizeof *c);
  int64_t i = 0;
  for (; i + 2 <= n_rows; i += 2) {
    const float *a0 = a + i * a_stride, *a1 = a0 + a_stride;
    float *c0 = c + i * c_stride, *c1 = c0 + c_stride;
    int64_t k = 0;
    for (; k + 4 <= n_inner; k += 4)
      add_four(a0 + k, a1 + k, b + k * b_stride, b_stride, n_columns, c0, c1);
    for (; k < n_inner; k++) {
      add_one(a0[k], b + k * b_stride, n_columns, c0);
      add_one(a1[k], b + k * b_stride, n_columns, c1);
    }
  }
  for (; i < n_rows; i++)
    for (int64_t k = 0; k < n_inner; k++)
      add_one(a[i * a_stride + k], b + k * b_stride, n_columns, c + i * c_stride);
}
