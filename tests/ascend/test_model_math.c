/* The model's conversions against the oracle's, over every 16-bit number and what lies between, and
 * its matrix product against the plain one.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>

#include "../../src/ascend/model_math.h"
#include "check.h"
#include "ref.h"
#include "rng.h"

static bool same(float a, double b) {
  return isnan(b) ? isnan(a) != 0 : (double)a == b && !signbit(a) == !signbit(b);
}

static void check_narrow(splitkv_dtype dtype, float value) {
  uint16_t got = 0, wanted = 0;
  spl_model_narrow(dtype == SPLITKV_BF16, &value, 1, &got);
  ref_store(dtype, &wanted, 0, (double)value);
  CHECK_MSG(isnan(value) ? isnan(ref_load(dtype, &got, 0)) : got == wanted,
            "%a becomes %#x, not %#x", (double)value, (unsigned)got, (unsigned)wanted);
}

/* A number, the middle to the next one, and its neighbours. */
static void test_conversions(splitkv_dtype dtype) {
  for (uint32_t i = 0; i < 65536; i++) {
    const uint16_t h = (uint16_t)i, next = (uint16_t)(i + 1);
    float value = 0, after = 0;
    spl_model_widen(dtype == SPLITKV_BF16, &h, 1, &value);
    spl_model_widen(dtype == SPLITKV_BF16, &next, 1, &after);
    CHECK(same(value, ref_load(dtype, &h, 0)));
    check_narrow(dtype, value);
    if (!isfinite(value) || !isfinite(after)) continue;
    const float middle = value / 2 + after / 2;
    check_narrow(dtype, middle);
    check_narrow(dtype, nextafterf(middle, INFINITY));
    check_narrow(dtype, nextafterf(middle, -INFINITY));
  }
  const float special[] = {65504, 65519, 65520, 1e6f, 3.4e38f, INFINITY, -INFINITY, NAN, 0x1p-149f};
  for (size_t i = 0; i < sizeof special / sizeof special[0]; i++)
    check_narrow(dtype, special[i]);
}

/* Small integers, so that every order gives the same. */
static void test_products(void) {
  enum { MOST = 24, STRIDE = 32 };
  static float a[MOST * STRIDE], b[MOST * STRIDE], c[MOST * STRIDE], turned[STRIDE * STRIDE];
  rng r = {1};
  for (int round = 0; round < 300; round++) {
    const int64_t rows = rng_range(&r, 0, 9), inner = rng_range(&r, 0, MOST);
    const int64_t columns = 4 * rng_range(&r, 1, 6);
    for (int i = 0; i < MOST * STRIDE; i++) {
      a[i] = (float)rng_range(&r, -8, 8);
      b[i] = (float)rng_range(&r, -8, 8);
      c[i] = -1;
    }
    spl_model_multiply(a, STRIDE, b, STRIDE, rows, inner, columns, c, STRIDE);
    bool ok = true;
    for (int64_t i = 0; i < MOST; i++)
      for (int64_t j = 0; j < STRIDE; j++) {
        float sum = 0;
        for (int64_t k = 0; k < inner; k++)
          sum += a[i * STRIDE + k] * b[k * STRIDE + j];
        ok = ok && c[i * STRIDE + j] == (i < rows && j < columns ? sum : -1);
      }
    CHECK(ok);
    spl_model_transpose(a, inner, columns, turned, STRIDE);
    for (int64_t i = 0; i < inner; i++)
      for (int64_t j = 0; j < columns; j++)
        ok = ok && turned[j * STRIDE + i] == a[i * columns + j];
    CHECK(ok);
  }
}

int main(void) {
  test_conversions(SPLITKV_F16);
  test_conversions(SPLITKV_BF16);
  test_products();
  return check_report("test_model_math");
}
