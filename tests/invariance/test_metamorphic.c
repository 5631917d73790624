/* Relations that attention has and that need no oracle: order of tokens, scale and sum of V, shift
 * of the scores, V of ones, one token alone.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Arguments: [number of problems [first seed]]. */
#include "batch.h"
#include "check.h"
#include "value.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a changed problem does to the elements of the plain one. */
typedef struct change {
  test_spec plain;
  int v_exponent; /* V times 2^v_exponent */
  double shift;   /* last channel of Q is 1 and of K this; NaN: as it comes */
  int v_part;     /* 0: V; 1, 2: two parts of it that add up exactly; 3: all ones */
} change;

/* V in multiples of 1/8: exact in every dtype, and so are its parts. */
static double coarse(double v) {
  return round(8 * v) / 8;
}

static double changed(const test_spec *spec, char tensor, int64_t source, int64_t head,
                      int64_t token, int64_t channel) {
  const change *c = spec->value_context;
  const double value = test_value_at(&c->plain, tensor, source, head, token, channel);
  if (tensor != 'v') {
    if (!isnan(c->shift) && channel == spec->problem.head_dim - 1)
      return tensor == 'q' ? 1 : c->shift;
    return value;
  }
  const double v = coarse(value), part = coarse(v / 3);
  const double parts[] = {v, part, v - part, 1};
  return ldexp(parts[c->v_part], c->v_exponent);
}

static void build(test_batch *b, const test_spec *plain, change *c) {
  static test_spec spec;
  c->plain = *plain;
  spec = *plain;
  spec.value = changed;
  spec.value_context = c;
  test_batch_build(b, &spec);
}

static double out_at(const test_batch *b, int64_t row, int64_t channel) {
  return ref_load(b->problem.dtype_out, test_out_row(b, row), channel);
}

/* Bound of one f32 channel (docs/numerics.md), from the oracle's facts about the row. */
static double bound_of(const test_batch *b, int64_t row) {
  return ref_row_bounds(&b->problem, b->arithmetic, row, &b->exact).out;
}

static int64_t n_rows(const test_batch *b) {
  return b->spec.n_requests * b->problem.n_heads_q;
}

/* Scaling V by a power of two scales the output exactly and leaves lse. */
static void scaled_v(const test_batch *plain, const test_spec *spec, rng *r) {
  change c = {.v_exponent = (int)rng_range(r, -4, 4), .shift = (double)NAN};
  test_batch b;
  build(&b, spec, &c);
  bool same = test_batch_run(&b, NULL);
  for (int64_t row = 0; same && row < n_rows(&b); ++row) {
    same = memcmp(&b.tensors.lse[row], &plain->tensors.lse[row], sizeof(float)) == 0;
    for (int64_t ch = 0; same && ch < b.problem.head_dim_v; ++ch)
      same = out_at(&b, row, ch) == ldexp(out_at(plain, row, ch), c.v_exponent);
  }
  CHECK_MSG(same, "V scaled by 2^%d", c.v_exponent);
  test_batch_destroy(&b);
}

/* out(V1 + V2) = out(V1) + out(V2). */
static void added_v(const test_batch *plain, const test_spec *spec) {
  test_batch b[2];
  change c[2];
  bool ok = true;
  for (int i = 0; i < 2; ++i) {
    c[i] = (change){.v_part = i + 1, .shift = (double)NAN};
    build(&b[i], spec, &c[i]);
    ok = test_batch_run(&b[i], NULL) && test_batch_compare(&b[i], NULL) && ok;
  }
  for (int64_t row = 0; ok && row < n_rows(plain); ++row)
    for (int64_t ch = 0; ok && ch < plain->problem.head_dim_v; ++ch)
      ok = fabs(out_at(&b[0], row, ch) + out_at(&b[1], row, ch) - out_at(plain, row, ch)) <=
           bound_of(&b[0], row) + bound_of(&b[1], row) + bound_of(plain, row);
  CHECK_MSG(ok, "V in two parts");
  test_batch_destroy(&b[0]);
  test_batch_destroy(&b[1]);
}

/* V of ones: the weights sum to 1. */
static void ones(const test_spec *spec) {
  change c = {.v_part = 3, .shift = (double)NAN};
  test_batch b;
  build(&b, spec, &c);
  bool ok = test_batch_run(&b, NULL) && test_batch_compare(&b, NULL);
  for (int64_t row = 0; ok && row < n_rows(&b); ++row)
    for (int64_t ch = 0; ok && ch < b.problem.head_dim_v; ++ch)
      ok = fabs(out_at(&b, row, ch) - (isinf(b.exact.lse[row]) ? 0 : 1)) <= bound_of(&b, row);
  CHECK_MSG(ok, "V of ones");
  test_batch_destroy(&b);
}

/* All scores shifted by the same amount: out stays, lse shifts. The oracle has to obey too. */
static void shifted_scores(const test_spec *spec, rng *r) {
  test_batch b[2];
  change c[2];
  bool ok = true;
  const double shift = (double)rng_range(r, -40, 40);
  for (int i = 0; i < 2; ++i) {
    c[i] = (change){.shift = i ? shift : 0};
    build(&b[i], spec, &c[i]);
    ok = test_batch_run(&b[i], NULL) && test_batch_compare(&b[i], NULL) && ok;
  }
  const double scale = spec->problem.scale != 0 ? (double)spec->problem.scale
                                                : 1 / sqrt((double)spec->problem.head_dim);
  for (int64_t row = 0; ok && row < n_rows(&b[0]); ++row) {
    const double difference = (double)b[1].tensors.lse[row] - (double)b[0].tensors.lse[row];
    double lse_bound = 0;
    for (int i = 0; i < 2; ++i)
      lse_bound += ref_row_bounds(&b[i].problem, b[i].arithmetic, row, &b[i].exact).lse;
    ok = isinf(b[0].exact.lse[row]) ||
         (fabs(difference - scale * shift) <= lse_bound &&
          fabs(b[1].exact.lse[row] - b[0].exact.lse[row] - scale * shift) <= 1e-11);
    for (int64_t ch = 0; ok && ch < b[0].problem.head_dim_v; ++ch) {
      const int64_t at = row * b[0].problem.head_dim_v + ch;
      ok = fabs(out_at(&b[0], row, ch) - out_at(&b[1], row, ch)) <=
               bound_of(&b[0], row) + bound_of(&b[1], row) &&
           fabs(b[0].exact.out[at] - b[1].exact.out[at]) <= 1e-11 * (1 + b[0].exact.max_abs_v[row]);
    }
  }
  CHECK_MSG(ok, "scores shifted by %g", shift);
  test_batch_destroy(&b[0]);
  test_batch_destroy(&b[1]);
}

/* The order of the tokens is nothing to the sum: the permuted run keeps to the plain oracle. */
static void permuted_tokens(const test_batch *plain, const test_spec *spec, rng *r) {
  static test_spec one;
  static int64_t order[4000];
  one = *spec;
  one.n_requests = 1;
  for (int64_t t = 0; t < one.kv_lens[0]; ++t)
    order[t] = t;
  for (int64_t t = one.kv_lens[0] - 1; t > 0; --t) {
    const int64_t j = rng_range(r, 0, t), kept = order[t];
    order[t] = order[j];
    order[j] = kept;
  }
  one.token_order = order;
  change c = {.shift = (double)NAN};
  test_batch b;
  build(&b, &one, &c);
  c.plain.token_order = NULL;
  if (test_batch_run(&b, NULL)) {
    b.exact = plain->exact;
    CHECK_MSG(test_batch_compare(&b, NULL), "tokens in another order");
    memset(&b.exact, 0, sizeof b.exact);
  }
  test_batch_destroy(&b);
}

static void one_problem(uint64_t seed) {
  const test_ranges ranges = {4, 3000, 300, 3, 12, 20000};
  static test_spec spec;
  rng r = {seed};
  test_spec_random(&spec, &r, &ranges);
  if (spec.n_requests == 0) test_spec_requests(&spec, 1, 77);
  spec.no_lse = spec.v_aliases_k = false;
  spec.data = rng_one_in(&r, 2) ? DATA_NORMAL : DATA_PEAKED;
  spec.problem.dtype_out = SPLITKV_F32;
  change c = {.shift = (double)NAN};
  test_batch plain;
  build(&plain, &spec, &c);
  if (test_batch_run(&plain, NULL) && test_batch_compare(&plain, NULL)) {
    scaled_v(&plain, &spec, &r);
    added_v(&plain, &spec);
    ones(&spec);
    shifted_scores(&spec, &r);
    permuted_tokens(&plain, &spec, &r);
  }
  test_batch_destroy(&plain);
}

int main(int argc, char **argv) {
  const int64_t n = argc > 1 ? strtoll(argv[1], NULL, 10) : 150;
  const uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
  for (int64_t i = 0; i < n && check_failures() == 0; ++i) {
    one_problem(first + (uint64_t)i);
    if (check_failures() > 0)
      fprintf(stderr, "  repeat with: test_metamorphic 1 %" PRIu64 "\n", first + (uint64_t)i);
  }
  return check_report("metamorphic");
}
