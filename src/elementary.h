/* exp and ln in double, as fixed sequences of IEEE operations: the same bits on every platform,
 * whatever its libm. Relative error below 2^-50 (tests/unit).
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_ELEMENTARY_H
#define SPL_ELEMENTARY_H

/* ln x. x > 0 and normal, or 0 (-inf), +inf, NaN. */
double spl_ln(double x);

/* e^x for x <= 0; 0 below -700, NaN for NaN. */
double spl_exp(double x);

#endif
