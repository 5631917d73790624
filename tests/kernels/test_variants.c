/* Window, soft-cap, sinks and ALiBi, alone and together: against the oracle, the same bits on every
 * kernel set of a class, and what each of them is equal to.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Arguments: [number of problems [first seed]]. Tokens before a window are NaN, pages before it
 * have no id, and with `trim` neither is mapped: the builder of every test sees to that. */
#include "batch.h"
#include "check.h"
#include "equal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool one_problem(uint64_t seed, double *worst) {
  const test_ranges ranges = {8, 1500, 300, 4, 64, 12000};
  static test_spec spec;
  rng r = {seed};
  test_spec_random(&spec, &r, &ranges);
  test_spec_vary(&spec, &r, (int)(seed % N_VARIANTS));
  test_batch b;
  test_batch_build(&b, &spec);
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n_isas = test_usable_isas(isas);
  bool ok = CHECK(n_isas >= 1);
  for (int policy = 0; ok && policy < 4; ++policy) {
    uint64_t digest = 0;
    int n_seen = 0;
    test_set_policy(&b, policy, &r);
    for (int i = 0; ok && i < n_isas; ++i) {
      b.problem.arithmetic = SPLITKV_ARITHMETIC_F32;
      test_batch_use(&b, isas[i]);
      ok = test_batch_run(&b, NULL) && test_batch_compare(&b, worst) &&
           test_same_bits(&b, &digest, &n_seen);
    }
  }
  if (!ok) test_batch_print(&b);
  test_batch_destroy(&b);
  return ok;
}

/* ── what a variant is equal to ─────────────────────────────────────────────────────────────── */

static double special_value; /* of all sinks, or of all slopes */

static double special_heads(const test_spec *spec, char tensor, int64_t source, int64_t head,
                            int64_t token, int64_t channel) {
  if (tensor == 's' || tensor == 'a') return special_value;
  rng r = {spec->seed + (uint64_t)tensor * 977 + (uint64_t)source * 131 + (uint64_t)head * 7};
  r.state += (uint64_t)token * 65537 + (uint64_t)channel;
  return (double)((int64_t)(rng_next(&r) >> 40) % 4001 - 2000) / 1000;
}

static void as_it_is(test_spec *s) {
  (void)s;
}
static void no_window(test_spec *s) {
  s->problem.window_tokens = 0;
}
static void wide_window(test_spec *s) {
  s->problem.window_tokens = 0;
  for (int64_t r = 0; r < s->n_requests; ++r)
    if (s->kv_lens[r] > s->problem.window_tokens) s->problem.window_tokens = s->kv_lens[r];
  s->problem.window_tokens += s->problem.window_tokens == 0 || s->seed % 2 == 0;
}
static void widest_window(test_spec *s) {
  s->problem.window_tokens = INT64_MAX;
}
/* The tokens before the window are not there at all. */
static void cut_off(test_spec *s) {
  for (int64_t r = 0; r < s->n_requests; ++r) {
    const int64_t before = test_tokens_before(s, s->kv_lens[r]);
    s->first_tokens[r] += before;
    s->kv_lens[r] -= before;
  }
  s->problem.window_tokens = 0;
  if (s->table == TABLE_SHARED) s->table = TABLE_SHUFFLED;
}
static void with_special_sinks(test_spec *s) {
  s->value = special_heads;
  s->problem.flags |= SPLITKV_FLAG_SINKS;
}
static void without_sinks(test_spec *s) {
  s->value = special_heads;
  s->problem.flags &= ~SPLITKV_FLAG_SINKS;
}
static void with_special_slopes(test_spec *s) {
  s->value = special_heads;
  s->problem.flags |= SPLITKV_FLAG_ALIBI;
}
static void without_slopes(test_spec *s) {
  s->value = special_heads;
  s->problem.flags &= ~SPLITKV_FLAG_ALIBI;
}

static void equalities(uint64_t seed) {
  const test_ranges ranges = {5, 900, 80, 4, 20, 6000};
  static test_spec spec;
  rng r = {seed};
  test_spec_random(&spec, &r, &ranges);
  test_spec_vary(&spec, &r, (int)(seed % N_VARIANTS));
  test_equal(&spec, no_window, wide_window, 0, "a window that holds all");
  test_equal(&spec, no_window, widest_window, 0, "the widest window");
  test_equal(&spec, as_it_is, cut_off, 0, "a window, and tokens cut off");
  special_value = -(double)INFINITY;
  test_equal(&spec, with_special_sinks, without_sinks, 0, "sinks of -inf");
  special_value = 0;
  test_equal(&spec, with_special_slopes, without_slopes, 0, "slopes of 0");
}

/* A cap far above all scores changes nothing that the bound would see. */
static void huge_cap(uint64_t seed) {
  const test_ranges ranges = {5, 900, 80, 4, 20, 6000};
  static const float caps[] = {0x1p14F, 0x1p20F, 0x1p60F, 0x1p110F};
  static test_spec spec;
  rng r = {seed};
  test_spec_random(&spec, &r, &ranges);
  spec.data = DATA_NORMAL;
  test_spec_vary(&spec, &r, (int)(seed % N_VARIANTS) & ~VARIANT_SOFTCAP);
  test_batch b;
  test_batch_build(&b, &spec);
  if (test_batch_run(&b, NULL) && test_batch_compare(&b, NULL)) /* the oracle's, without a cap */
    for (size_t i = 0; i < sizeof caps / sizeof caps[0]; ++i) {
      b.problem.logit_softcap = caps[i];
      if (!test_batch_run(&b, NULL)) break;
      CHECK_MSG(test_batch_compare(&b, NULL), "a cap of %g", (double)caps[i]);
    }
  test_batch_destroy(&b);
}

/* ── one token: the score itself ────────────────────────────────────────────────────────────── */

enum { SWEEP = 300 };
static double sweep_step; /* request r, head h: score (r * 32 + h) * step, times -1 for odd heads */

static double sweep_value(const test_spec *spec, char tensor, int64_t source, int64_t head,
                          int64_t token, int64_t channel) {
  (void)spec;
  (void)token;
  (void)channel;
  return tensor == 'q' ? (double)(source * 32 + head) * sweep_step * (head % 2 ? -1 : 1) : 1;
}

/* lse of a row of one token is its score: the error of the soft-cap, against what numerics.md says:
 * 3.8 units of the score, and 3 of the exponential and of lse itself. */
static double sweep(float cap, double step) {
  static test_spec spec;
  test_spec_init(&spec);
  test_spec_requests(&spec, SWEEP, 1);
  spec.problem.n_heads_q = 32;
  spec.problem.head_dim = spec.problem.head_dim_v = 1;
  spec.problem.scale = 1;
  spec.problem.logit_softcap = cap;
  spec.value = sweep_value;
  sweep_step = step;
  test_batch b;
  test_batch_build(&b, &spec);
  double worst = 0;
  if (test_batch_run(&b, NULL) && test_batch_compare(&b, NULL))
    for (int64_t row = 0; row < (int64_t)SWEEP * 32; ++row) {
      const double exact = b.exact.lse[row], error = fabs((double)b.tensors.lse[row] - exact);
      const double ratio = error / (0x1p-24 * (3.8 * fabs(exact) + 3));
      if (!(ratio <= worst)) worst = ratio;
    }
  test_batch_destroy(&b);
  return worst;
}

static void sweeps(void) {
  double worst = 0;
  static const float caps[] = {1, 30, 50, 0.3F, 100};
  for (size_t i = 0; i < sizeof caps / sizeof caps[0]; ++i)
    for (int k = 1; k <= 4; ++k)
      worst = fmax(worst, sweep(caps[i], (double)caps[i] * k * k / (SWEEP * 32)));
  printf("soft-capped scores: %.3f of what they may err by\n", worst);
  CHECK_MSG(worst <= 1 && worst > 0.1, "%g", worst);
}

/* So large a scale / cap that a score of any size is +cap or -cap: no part of it may overflow to
 * the other sign. */
static void steep_caps(void) {
  static const float caps[] = {1, 3, 30, 50};
  static const float scales[] = {-3e9F, 3e10F, 3e11F, 3e12F, 3e16F, 3e27F};
  static test_spec spec;
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n_isas = test_usable_isas(isas);
  for (size_t n = 0; n < sizeof caps * sizeof scales / (sizeof *caps * sizeof *scales); ++n)
    for (int i = 0; i < n_isas; ++i) {
      test_spec_init(&spec);
      test_spec_requests(&spec, 2, 1);
      spec.problem.n_heads_q = 32;
      spec.problem.head_dim = spec.problem.head_dim_v = 1;
      spec.problem.logit_softcap = caps[n % 4];
      spec.problem.scale = scales[n / 4];
      spec.value = sweep_value;
      sweep_step = 0x1p121;
      test_batch b;
      test_batch_build(&b, &spec);
      test_batch_use(&b, isas[i]);
      if (test_batch_run(&b, NULL))
        CHECK_MSG(test_batch_compare(&b, NULL), "cap %g, scale %g", (double)caps[n % 4],
                  (double)scales[n / 4]);
      test_batch_destroy(&b);
    }
}

/* ── inf, NaN, and rows without tokens ──────────────────────────────────────────────────────── */

typedef struct corner {
  double q, k, v, sink, slope; /* k and v of token 1 of 3; other k 0.5, other v 1 */
  float cap;
  double want_out, want_lse; /* NaN: NaN; -0.0: whatever is finite */
} corner;

static double corner_value(const test_spec *spec, char tensor, int64_t source, int64_t head,
                           int64_t token, int64_t channel) {
  const corner *c = spec->value_context;
  (void)source;
  (void)head;
  switch (tensor) {
  case 's':
    return c->sink;
  case 'a':
    return c->slope;
  case 'q':
    return channel == 0 ? c->q : 0;
  case 'k':
    return channel > 0 ? 0 : token == 1 ? c->k : 0.5;
  default:
    return token == 1 ? c->v : 1;
  }
}

static bool meets(double got, double want) {
  if (want == 0 && signbit(want)) return isfinite(got);
  return isnan(want) ? isnan(got) : got == want;
}

static void corner_case(const corner *c, int64_t kv_len) {
  static test_spec spec;
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n_isas = test_usable_isas(isas);
  for (int i = 0; i < n_isas; ++i)
    for (int policy = 0; policy < 4; ++policy) {
      test_spec_init(&spec);
      test_spec_requests(&spec, 2, kv_len);
      spec.problem.n_heads_q = 5;
      spec.problem.head_dim = spec.problem.head_dim_v = 20;
      spec.problem.scale = 1;
      spec.problem.dtype_kv = i % 2 ? SPLITKV_F32 : SPLITKV_BF16;
      spec.problem.logit_softcap = c->cap;
      spec.problem.flags = SPLITKV_FLAG_SINKS | (c->slope != 0 ? SPLITKV_FLAG_ALIBI : 0);
      spec.problem.split_policy = (splitkv_split_policy)policy;
      spec.problem.split_value = policy == 1 || policy == 2;
      spec.value = corner_value;
      spec.value_context = c;
      test_batch b;
      test_batch_build(&b, &spec);
      test_batch_use(&b, isas[i]);
      if (test_batch_run(&b, NULL) && test_batch_compare(&b, NULL)) {
        const double out = ref_load(SPLITKV_F32, test_out_row(&b, 7), 3);
        const double lse = (double)b.tensors.lse[7];
        CHECK_MSG(meets(out, c->want_out) && meets(lse, c->want_lse),
                  "q %g k %g v %g sink %g slope %g cap %g: out %g, lse %g", c->q, c->k, c->v,
                  c->sink, c->slope, (double)c->cap, out, lse);
      }
      test_batch_destroy(&b);
    }
}

static void corners(void) {
  const double inf = (double)INFINITY, nan = (double)NAN, some = -0.0;
  const corner with_tokens[] = {
      {1, 1, 1, 0.5, 0, 0, some, some},      {1, 1, 1, inf, 0, 0, 0, inf},
      {1, 1, 1, nan, 0, 0, nan, nan},        {1, inf, 1, 0.5, 0, 0, nan, inf},
      {1, inf, 1, inf, 0, 0, nan, inf},      {1, nan, 1, 0.5, 0, 0, nan, nan},
      {1, nan, 1, inf, 0, 0, nan, nan},      {1, -inf, 1, 0.5, 0, 0, some, some},
      {1, 1, inf, 0.5, 0, 0, inf, some},     {1, 1, inf, inf, 0, 0, nan, inf},
      {1, 1, nan, inf, 0, 0, nan, inf},      {1, 1, 1, 1000, 0, 0, 0, 1000},
      {1, 1, 1, -1000, 0, 0, some, some},    {1, inf, 1, 0.5, 0, 30, some, some},
      {1, -inf, 1, -inf, 0, 2, some, some},  {1, nan, 1, 0.5, 0, 30, nan, nan},
      {1, inf, 1, 0.5, 0, 0.3F, some, some}, {-1, inf, 1, inf, 0, 8, 0, inf},
      {1, inf, 1, 0.5, 1, 0, nan, inf},      {1, 1, 1, 0.5, nan, 0, nan, nan},
      {1, 1, 1, 0.5, inf, 0, nan, nan}, /* inf * 0 at the last token */
      {1, 1, 1, 0.5, 0.125, 4, some, some},
  };
  const corner without[] = {
      {1, 1, 1, 0.5, 0, 0, 0, 0.5},      {1, 1, 1, -inf, 0, 30, 0, -inf},
      {1, 1, 1, inf, 0, 0, 0, inf},      {1, 1, 1, nan, 0, 0, nan, nan},
      {1, 1, 1, -3.25, 1, 30, 0, -3.25},
  };
  for (size_t i = 0; i < sizeof with_tokens / sizeof with_tokens[0]; ++i)
    for (int64_t kv_len = 3; kv_len < 200; kv_len += 98)
      corner_case(&with_tokens[i], kv_len);
  for (size_t i = 0; i < sizeof without / sizeof without[0]; ++i)
    corner_case(&without[i], 0);
}

int main(int argc, char **argv) {
  const int64_t n = argc > 1 ? strtoll(argv[1], NULL, 10) : 480;
  const uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 3000;
  double worst = 0;
  corners();
  sweeps();
  steep_caps();
  for (int64_t i = 0; i < n && check_failures() == 0; ++i)
    if (!one_problem(first + (uint64_t)i, &worst))
      fprintf(stderr, "  repeat with: test_variants 1 %" PRIu64 "\n", first + (uint64_t)i);
  for (int64_t i = 0; i < n / 4 && check_failures() == 0; ++i) {
    equalities(first + (uint64_t)i);
    huge_cap(first + (uint64_t)i);
    if (check_failures() > 0)
      fprintf(stderr, "  equalities of seed %" PRIu64 "\n", first + (uint64_t)i);
  }
  printf("largest error: %.3f of the bound\n", worst);
  return check_report("variants");
}
