/* exp and ln by range reduction and a series.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "elementary.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

static uint64_t bits_of(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static double from_bits(uint64_t bits) {
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* ln 2 in two parts, the first with 32 bits: small multiples of it are exact. */
static const double ln2_hi = 0x1.62e42feep-1, ln2_lo = 0x1.a39ef35793c76p-33;

double spl_ln(double x) {
  if (x != x || x == INFINITY) return x;
  if (x == 0) return -INFINITY;
  /* x = 2^e * m with m in [1/sqrt 2, sqrt 2) */
  const uint64_t sqrt_half = UINT64_C(0x3fe6a09e667f3bcd);
  const uint64_t bits = bits_of(x);
  const int64_t e = (int64_t)(bits - sqrt_half) >> 52;
  const double m = from_bits(bits - ((uint64_t)e << 52));
  /* ln m = 2 artanh s = 2 (s + s^3/3 + s^5/5 + ...), |s| < 0.1716 */
  const double s = (m - 1) / (m + 1), s2 = s * s;
  static const double odd[] = {1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13,
                               1.0 / 11, 1.0 / 9,  1.0 / 7,  1.0 / 5,  1.0 / 3};
  double series = 0;
  for (int k = 0; k < 10; k++)
    series = series * s2 + odd[k];
  const double ln_m = 2 * (s + s * s2 * series);
  return (double)e * ln2_hi + ((double)e * ln2_lo + ln_m);
}

double spl_exp(double x) {
  if (x != x) return x;
  if (x < -700) return 0;
  const double magic = 0x1.8p52, log2e = 0x1.71547652b82fep0;
  const double n = (x * log2e + magic) - magic;
  const double r = (x - n * ln2_hi) - n * ln2_lo; /* |r| <= ln 2 / 2 */
  static const double inverse[] = {1.0 / 13, 1.0 / 12, 1.0 / 11, 1.0 / 10, 1.0 / 9,
                                   1.0 / 8,  1.0 / 7,  1.0 / 6,  1.0 / 5,  1.0 / 4,
                                   1.0 / 3,  1.0 / 2,  1.0};
  double series = 1;
  for (int k = 0; k < 13; k++)
    series = 1 + series * (r * inverse[k]);
  return series * from_bits((uint64_t)(1023 + (int64_t)n) << 52);
}
