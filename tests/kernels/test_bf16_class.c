/* What the arithmetic class bf16 does to numbers: the worst pattern of rounded weights, sums of
 * weights that are not rounded, Q in two terms, subnormals.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * On a CPU without a kernel set of the class the same problems run in the class f32. */
#include "batch.h"
#include "check.h"

#include <math.h>
#include <stdio.h>

typedef struct pattern {
  double q, q_rest;           /* q in channel 0 and 1 */
  double k_first, k, k_other; /* token 0 and the others in channel 0; all in channel 1 */
  double v_first, v;          /* V likewise */
} pattern;

static double value_at(const test_spec *spec, char tensor, int64_t source, int64_t head,
                       int64_t token, int64_t channel) {
  const pattern *x = spec->value_context;
  (void)source;
  (void)head;
  if (tensor == 'v') return token == 0 ? x->v_first : x->v;
  if (tensor == 'q') return channel == 0 ? x->q : channel == 1 ? x->q_rest : 0;
  return channel == 0 ? (token == 0 ? x->k_first : x->k) : channel == 1 ? x->k_other : 0;
}

/* Error over bound, the largest of all kernel sets, KV in bf16 and Q in f32. */
static double judge(const pattern *x, int64_t kv_len, int64_t group, bool *is_rounded) {
  static test_spec spec;
  test_spec_init(&spec);
  test_spec_requests(&spec, 1, kv_len);
  spec.problem.n_heads_q = group;
  spec.problem.head_dim = spec.problem.head_dim_v = 20;
  spec.problem.scale = 1;
  spec.problem.dtype_kv = SPLITKV_BF16;
  spec.value = value_at;
  spec.value_context = x;
  test_batch b;
  test_batch_build(&b, &spec);
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n_isas = test_usable_isas(isas);
  double worst = 0;
  for (int i = 0; i < n_isas; ++i) {
    double worst_here = 0;
    test_batch_use(&b, isas[i]);
    if (!test_batch_run(&b, NULL) || !test_batch_compare(&b, &worst_here)) break;
    if (b.arithmetic != SPLITKV_ARITHMETIC_BF16) continue;
    *is_rounded = true;
    worst = fmax(worst, worst_here);
    /* A V that is the same everywhere comes out as it is, however the weights were rounded. */
    if (x->v == x->v_first && isfinite(b.exact.lse[0])) {
      const double out = ref_load(b.problem.dtype_out, test_out_row(&b, 0), 0);
      CHECK_MSG(fabs(out - x->v) <= fabs(x->v) * 0x1p-20, "%g instead of %g", out, x->v);
    }
  }
  test_batch_destroy(&b);
  return worst;
}

/* Products of one sign, so that each addition rounds a large sum. */
static double one_sign(const test_spec *spec, char tensor, int64_t source, int64_t head,
                       int64_t token, int64_t channel) {
  (void)spec;
  const uint64_t h = rng_mix((uint64_t)(((source * 131 + head) * 4099 + token) * 1031 + channel));
  return tensor == 'v' ? 1 : 0.5 + (double)(h >> 40) * 0x1p-25;
}

/* Largest error over bound of lse where one token has nearly all weight, Q in bf16. */
static double long_dot_products(int64_t d) {
  static test_spec spec;
  test_spec_init(&spec);
  test_spec_requests(&spec, 40, 2);
  spec.problem.n_heads_q = 31;
  spec.problem.head_dim = spec.problem.head_dim_v = d;
  spec.problem.scale = 0.25F;
  spec.problem.dtype_q = spec.problem.dtype_kv = SPLITKV_BF16;
  spec.value = one_sign;
  test_batch b;
  test_batch_build(&b, &spec);
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n_isas = test_usable_isas(isas);
  double worst = 0;
  for (int i = 0; i < n_isas; ++i) {
    test_batch_use(&b, isas[i]);
    if (!test_batch_run(&b, NULL) || !test_batch_compare(&b, NULL)) break;
    for (int64_t row = 0; row < spec.n_requests * spec.problem.n_heads_q; ++row)
      worst = fmax(
          worst, ref_compare_row(&b.problem, b.arithmetic, row, b.out.data, b.tensors.lse, &b.exact)
                         .lse_err /
                     ref_row_bounds(&b.problem, b.arithmetic, row, &b.exact).lse);
  }
  test_batch_destroy(&b);
  return worst;
}

int main(void) {
  bool is_rounded = false;
  double worst = 0;
  /* Token 0 has weight 1 and V 1; the others have V -1 and together its weight, and their one
   * weight is rounded by up to a part in 2^8: the mean moves by half of that. */
  static const int64_t lengths[] = {2, 3, 17, 64, 100, 1000, 5000};
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; ++i)
    for (int step = 0; step < 100; ++step) {
      const double gap = log((double)(lengths[i] - 1)) + (step - 50) / 70.0;
      const pattern x = {gap, 0, 0, -1, 0, 1, -1};
      worst = fmax(worst, judge(&x, lengths[i], 1 + step % 20, &is_rounded));
      const pattern constant = {gap, 0, 0, -1, 0, 0.625, 0.625};
      judge(&constant, lengths[i], 1, &is_rounded);
    }
  printf("rounded weights: %.3f of the bound\n", worst);
  CHECK_MSG(!is_rounded || worst > 0.4, "%g of the bound", worst);

  /* Q that is no bf16, beside K that magnifies what a second term leaves out. */
  worst = 0;
  for (int step = 0; step < 200; ++step) {
    const double q = 1 + step / 200.0 + 0x1p-16;
    const pattern x = {q, -q / 3, 60, 58 + step % 4, 30 * (step % 2), 1, -1};
    worst = fmax(worst, judge(&x, 2 + step % 40, 1 + step % 20, &is_rounded));
  }
  printf("Q in two terms: %.3f of the bound\n", worst);

  worst = fmax(long_dot_products(SPLITKV_MAX_HEAD_DIM), long_dot_products(128));
  printf("long dot products: %.3f of the bound of lse\n", worst);

  /* The largest f32 rounds to an infinite bf16; an infinite K meets a rest of 0, and one of the
   * other sign; NaN; products and elements below 2^-126. */
  const double huge = 0x1.fffffep127, inf = (double)INFINITY, third = (double)(1 / 3.0F);
  const pattern patterns[] = {
      {huge, 0, 0x1p-125, 0x1p-126, 0, 1, -1},
      {-huge, huge, 0x1p-125, 0x1p-126, 0x1p-126, 1, -1},
      {1, 0, -inf, 1, 0, 1, 2},
      {third, 0, -inf, 1, 0, 1, 2},
      {-third, 0, -inf, 1, 0, 1, 2},
      {third, 0, inf, 1, 1, 1, 2},
      {-third, third, 1, inf, 1, 1, 2},
      {0, 1, inf, 1, 1, 1, 2},
      {(double)NAN, 0, 1, 1, 1, 1, 2},
      {inf, 0, 1, 2, 0, 1, 2},
      {inf, 0, -1, -2, 0, 1, 2},
      {1, 1, 1, 2, -inf, 1, 2},
      {0x1p-130, 0x1p-140, 1, 2, 3, 1, 2},
      {1, 1, 0x1p-130, 0x1p-133, 0, 1, 2},
      {1, 0, 1, 2, 0, 0x1p-130, 0x1p-128},
      {1, 0, 100, 10, 0, 0x1p-100, 0x1p-110},
      {1, 0, 90, 10, 0, 1, inf},
      {1, 0, 1, 10, 0, 1, (double)NAN},
  };
  for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; ++i)
    for (int64_t group = 1; group <= 21; group += 4)
      for (int64_t kv_len = 1; kv_len <= 131; kv_len += 13)
        judge(&patterns[i], kv_len, group, &is_rounded);
  if (!is_rounded) puts("no kernel set of the class bf16 is usable here");
  return check_report("bf16 class");
}
