/* exp and ln of the library against long double, and the scalar building blocks of the arithmetic:
 * conversions for every 16-bit value, fused multiply-add against the C library's.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <math.h>
#include <string.h>

#include "../../ref/ref.h"
#include "../../src/cpu/vec_scalar.h"
#include "../../src/elementary.h"

static const double largest_error = 0x1p-50;

static void ln_is_close(double x) {
  const long double exact = logl((long double)x);
  const double got = spl_ln(x);
  const long double error = fabsl((long double)got - exact);
  /* Near 1 the result is small: relative to the larger of it and of x - 1. */
  CHECK_MSG(error <= largest_error * fmaxl(fabsl(exact), 1e-300L), "ln %a is %a, not %La", x, got,
            exact);
}

static void exp_is_close(double x) {
  const long double exact = expl((long double)x);
  const double got = spl_exp(x);
  CHECK_MSG(fabsl((long double)got - exact) <= largest_error * exact, "exp %a is %a, not %La", x,
            got, exact);
}

static void test_ln_and_exp(void) {
  uint64_t state = 11;
  for (int i = 0; i < 300000; ++i) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    const double unit = (double)(state >> 11) * 0x1p-53;
    ln_is_close(ldexp(0.5 + unit / 2, (int)(state % 300) - 150));
    ln_is_close(1 + (unit - 0.5) * ldexp(1, -(int)(state % 40)));
    exp_is_close(-unit * 699);
    exp_is_close(-unit * ldexp(1, -(int)(state % 60)));
  }
  CHECK(spl_ln(1) == 0 && spl_exp(0) == 1 && spl_exp(-0.0) == 1);
  CHECK(spl_ln(0) == -INFINITY && spl_ln(INFINITY) == INFINITY && isnan(spl_ln(NAN)));
  CHECK(spl_exp(-701) == 0 && spl_exp(-INFINITY) == 0 && isnan(spl_exp(NAN)));
}

static bool same_or_nan(float a, double b) {
  return isnan(a) ? isnan(b) : (double)a == b;
}

static void test_conversions(void) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const uint16_t half = (uint16_t)bits;
    const float f16 = scalar_from_f16(half), bf16 = scalar_from_bits(bits << 16);
    CHECK_MSG(same_or_nan(f16, ref_load(SPLITKV_F16, &half, 0)), "f16 0x%04x", bits);
    CHECK_MSG(same_or_nan(bf16, ref_load(SPLITKV_BF16, &half, 0)), "bf16 0x%04x", bits);
    CHECK_MSG(isnan(f16) ? scalar_to_f16(f16) == 0x7e00 : scalar_to_f16(f16) == half,
              "f16 0x%04x and back", bits);
    CHECK_MSG(isnan(bf16) ? scalar_to_bf16(bf16) == 0x7fc0 : scalar_to_bf16(bf16) == half,
              "bf16 0x%04x and back", bits);
  }
  /* Rounding: every exponent, mantissas around all ties. */
  static const uint32_t low_bits[] = {
      0,      1,      0xfff,  0x1000,  0x1001,  0x1fff,  0x2fff,   0x3000,   0x3001,   0x7fff,
      0x8000, 0x8001, 0xffff, 0x17fff, 0x18000, 0x18001, 0x7fe000, 0x7fefff, 0x7ff000, 0x7fffff};
  for (uint32_t top = 0; top < 512; ++top) {
    for (size_t i = 0; i < sizeof low_bits / sizeof low_bits[0]; ++i) {
      const float x = scalar_from_bits(top << 23 | low_bits[i]);
      if (isnan(x)) continue;
      uint16_t f16, bf16;
      ref_store(SPLITKV_F16, &f16, 0, (double)x);
      ref_store(SPLITKV_BF16, &bf16, 0, (double)x);
      CHECK_MSG(scalar_to_f16(x) == f16, "f16 of %a is 0x%04x, not 0x%04x", (double)x,
                scalar_to_f16(x), f16);
      CHECK_MSG(scalar_to_bf16(x) == bf16, "bf16 of %a is 0x%04x, not 0x%04x", (double)x,
                scalar_to_bf16(x), bf16);
    }
  }
}

static void test_fma(void) {
  uint64_t state = 5;
  for (int i = 0; i < 2000000; ++i) {
    uint32_t u[3];
    for (int k = 0; k < 3; ++k) {
      state ^= state << 13, state ^= state >> 7, state ^= state << 17;
      u[k] = (uint32_t)(state >> 20);
    }
    if (i & 1) { /* near each other, so that sums cancel and round */
      u[0] = (u[0] & 0x81ffffffu) | 0x3e000000u;
      u[1] = (u[1] & 0x81ffffffu) | 0x3e000000u;
      u[2] = (u[2] & 0x83ffffffu) | 0x3c000000u;
    }
    const float a = scalar_from_bits(u[0]), b = scalar_from_bits(u[1]), c = scalar_from_bits(u[2]);
    const float got = scalar_fma(a, b, c), right = fmaf(a, b, c);
    CHECK_MSG(isnan(right) ? isnan(got) : memcmp(&got, &right, sizeof got) == 0,
              "fma(%a, %a, %a) is %a, not %a", (double)a, (double)b, (double)c, (double)got,
              (double)right);
  }
}

int main(void) {
  test_ln_and_exp();
  test_conversions();
  test_fma();
  return check_report("elementary");
}
