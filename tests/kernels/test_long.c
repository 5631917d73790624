/* Sums over up to a million tokens: the error bound does not grow with the length.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Argument: the longest length (default 1048576). */
#include "batch.h"
#include "check.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHANNELS = 4 };

typedef enum shape {
  CONSTANT_V,  /* q = 0: a plain mean of numbers whose rounding errors have one sign */
  ALTERNATING, /* V alternates between large numbers of both signs: sums cancel */
  ASCENDING,   /* each score larger than all before: the maximum moves all the time */
  DESCENDING,
  SAWTOOTH,  /* the maximum moves, and comes back */
  TINY_TAIL, /* one heavy token, a million light ones that together matter */
  N_SHAPES
} shape;

typedef struct context {
  shape shape;
  int64_t n;
} context;

static double score_at(const context *x, int64_t t) {
  const double place = (double)t / (double)x->n;
  switch (x->shape) {
  case ASCENDING:
    return 24 * place;
  case DESCENDING:
    return -24 * place;
  case SAWTOOTH:
    return (double)(t % 1000) / 128 + 4 * place;
  case TINY_TAIL:
    return t == x->n / 3 ? 14 : 0;
  default:
    return 0;
  }
}

static double value_at(const test_spec *spec, char tensor, int64_t source, int64_t head,
                       int64_t token, int64_t channel) {
  const context *x = spec->value_context;
  (void)source;
  (void)head;
  if (tensor == 'q')
    return channel == 0 ? (x->shape == CONSTANT_V || x->shape == ALTERNATING ? 0 : 1) : 0;
  if (tensor == 'k') return channel == 0 ? score_at(x, token) : 0;
  const double one_sign = 1 + (double)channel / 3;
  if (x->shape == ALTERNATING)
    return (token % 2 ? -1000 : 1000) * one_sign + (double)(token % 7) / 64;
  return x->shape == CONSTANT_V ? one_sign : one_sign + (double)(token % 5) / 8;
}

static void judge(shape kind, int64_t n, splitkv_dtype kv, splitkv_dtype out) {
  static test_spec spec;
  const context x = {kind, n};
  test_spec_init(&spec);
  test_spec_requests(&spec, 1, n);
  spec.problem.head_dim = spec.problem.head_dim_v = CHANNELS;
  spec.problem.n_heads_q = 3;
  spec.problem.scale = 1;
  spec.problem.page_size_tokens = 1000;
  spec.problem.dtype_kv = kv;
  spec.problem.dtype_out = out;
  spec.value = value_at;
  spec.value_context = &x;
  test_batch b;
  test_batch_build(&b, &spec);
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n_isas = test_usable_isas(isas);
  double worst = 0;
  for (int i = 0; i < n_isas; ++i) {
    test_batch_use(&b, isas[i]);
    b.problem.split_policy = SPLITKV_SPLIT_NONE;
    b.problem.split_value = 0;
    bool ok = test_batch_run(&b, NULL) && test_batch_compare(&b, &worst);
    b.problem.split_policy = SPLITKV_SPLIT_FIXED_SIZE;
    b.problem.split_value = 1000; /* a thousand partials to merge */
    ok = ok && test_batch_run(&b, NULL) && test_batch_compare(&b, &worst);
    if (!ok) fprintf(stderr, "  shape %d, %" PRId64 " tokens\n", (int)kind, n);
  }
  printf("shape %d tokens %8" PRId64 " kv %d out %d: %.3f of the bound\n", (int)kind, n, (int)kv,
         (int)out, worst);
  test_batch_destroy(&b);
}

int main(int argc, char **argv) {
  const int64_t longest = argc > 1 ? strtoll(argv[1], NULL, 10) : 1048576;
  for (int kind = 0; kind < N_SHAPES; ++kind) {
    judge((shape)kind, longest, SPLITKV_F32, SPLITKV_F32);
    judge((shape)kind, longest / 8 + 3, SPLITKV_F16, SPLITKV_F32);
    judge((shape)kind, longest / 32 + 1, SPLITKV_BF16, SPLITKV_F16);
    judge((shape)kind, longest / 8 + 1, SPLITKV_BF16, SPLITKV_F32);
  }
  return check_report("long");
}
