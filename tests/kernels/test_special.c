/* Inf, NaN and extreme numbers in attended tokens, and rows without any weight.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The oracle says what the formula gives; here the same is also written down by hand. */
#include "batch.h"
#include "check.h"

#include <math.h>
#include <string.h>

enum { KV_LEN = 150, CHANNELS = 24 };

/* One token (or all: token -1) of one tensor is replaced, V too where v is not 0. */
typedef struct special {
  char tensor;
  int64_t token;
  int64_t channel; /* -1: all */
  double value;
  double q0; /* q is q0 in channel 0 and 0 elsewhere */
  double v;
} special;

static double value_at(const test_spec *spec, char tensor, int64_t source, int64_t head,
                       int64_t token, int64_t channel) {
  const special *s = spec->value_context;
  (void)source;
  (void)head;
  if (tensor == s->tensor && (s->token < 0 || token == s->token) &&
      (s->channel < 0 || channel == s->channel))
    return s->value;
  if (tensor == 'v' && s->v != 0 && (s->token < 0 || token == s->token)) return s->v;
  if (tensor == 'q') return channel == 0 ? s->q0 : 0;
  return (double)((token * 37 + channel * 11) % 23 - 11) / 16;
}

typedef enum expected { ANY, ZERO, ALL_NAN, CHANNEL_INF, CHANNEL_NAN, FINITE } expected;

static bool as_expected(const test_batch *b, int64_t row, const special *s, expected want) {
  const unsigned char *out = test_out_row(b, row);
  for (int64_t c = 0; c < b->problem.head_dim_v; ++c) {
    const double got = ref_load(b->problem.dtype_out, out, c);
    const bool hit = s->channel < 0 || c == s->channel;
    const bool ok = want == ANY           ? true
                    : want == ZERO        ? got == 0
                    : want == ALL_NAN     ? isnan(got)
                    : want == FINITE      ? isfinite(got)
                    : !hit                ? isfinite(got)
                    : want == CHANNEL_INF ? isinf(got)
                                          : isnan(got);
    if (!ok) return false;
  }
  return true;
}

static void judge(special s, expected want, double want_lse) {
  static test_spec spec;
  static const splitkv_dtype dtypes[] = {SPLITKV_F32, SPLITKV_F16, SPLITKV_BF16};
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n_isas = test_usable_isas(isas);
  for (int64_t group = 1; group <= 5; group += 4)
    for (int i = 0; i < 9; ++i) {
      test_spec_init(&spec);
      test_spec_requests(&spec, 1, KV_LEN);
      spec.problem.n_heads_q = group;
      spec.problem.head_dim = spec.problem.head_dim_v = CHANNELS;
      spec.problem.dtype_q = spec.problem.dtype_kv = dtypes[i % 3];
      spec.problem.dtype_out = dtypes[i / 3];
      spec.problem.scale = 1;
      spec.value = value_at;
      spec.value_context = &s;
      test_batch b;
      test_batch_build(&b, &spec);
      for (int k = 0; k < n_isas; ++k)
        for (int policy = 0; policy < 2; ++policy) {
          test_batch_use(&b, isas[k]);
          b.problem.split_policy = policy ? SPLITKV_SPLIT_FIXED_SIZE : SPLITKV_SPLIT_NONE;
          b.problem.split_value = policy ? 40 : 0;
          if (!test_batch_run(&b, NULL) || !test_batch_compare(&b, NULL)) continue;
          const double lse = (double)b.tensors.lse[0];
          const bool lse_ok = isnan(want_lse)   ? isnan(lse)
                              : isinf(want_lse) ? lse == want_lse
                                                : isfinite(lse);
          if (!CHECK_MSG(as_expected(&b, 0, &s, want), "tensor %c token %d value %g", s.tensor,
                         (int)s.token, s.value) ||
              !CHECK_MSG(lse_ok, "tensor %c value %g: lse %g, want %g", s.tensor, s.value, lse,
                         want_lse))
            test_batch_print(&b);
        }
      test_batch_destroy(&b);
    }
}

int main(void) {
  const double inf = (double)INFINITY, nan = (double)NAN;
  static const int64_t tokens[] = {0, 1, 63, 64, 65, 128, KV_LEN - 1};
  for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; ++i) {
    const int64_t t = tokens[i];
    /* A score of -inf is a token that is not there; +inf and NaN are the whole row. */
    judge((special){'k', t, 0, -inf, 1, 0}, FINITE, 0);
    judge((special){'k', t, 0, inf, 1, 0}, ALL_NAN, inf);
    judge((special){'k', t, 0, nan, 1, 0}, ALL_NAN, nan);
    /* inf in K against q = 0 is NaN by the formula. */
    judge((special){'k', t, 3, inf, 1, 0}, ALL_NAN, nan);
    /* V reaches its own channel only, and not lse. */
    judge((special){'v', t, 5, inf, 1, 0}, CHANNEL_INF, 0);
    judge((special){'v', t, 5, -inf, 1, 0}, CHANNEL_INF, 0);
    judge((special){'v', t, 5, nan, 1, 0}, CHANNEL_NAN, 0);
    judge((special){'v', t, CHANNELS - 1, nan, 1, 0}, CHANNEL_NAN, 0);
    judge((special){'v', t, -1, nan, 1, 0}, ALL_NAN, 0);
  }
  judge((special){'k', -1, 0, -inf, 1, 0}, ZERO, -inf);
  judge((special){'k', -1, 0, inf, 1, 0}, ALL_NAN, inf);
  judge((special){'k', -1, 0, inf, -1, 0}, ZERO, -inf);
  /* A row without weight is 0 and a token without score is nothing, V may be what it likes. */
  judge((special){'k', -1, 0, -inf, 1, nan}, ZERO, -inf);
  judge((special){'k', -1, 0, -inf, 1, inf}, ZERO, -inf);
  judge((special){'k', -1, -1, nan, 1, 0}, ALL_NAN, nan);
  judge((special){'q', -1, 0, nan, 1, 0}, ALL_NAN, nan);
  judge((special){'q', -1, 0, inf, 1, 0}, ALL_NAN, nan); /* K has a 0 in channel 0: inf * 0 */
  /* Scores far from 0, and one token that outweighs all others by hundreds of powers of two. */
  judge((special){'k', -1, 0, 60000, 1, 0}, FINITE, 60000);
  judge((special){'k', -1, 0, -60000, 1, 0}, FINITE, -60000);
  judge((special){'k', 70, 0, 30000, 1, 0}, FINITE, 30000);
  judge((special){'k', 70, 0, -30000, 1, 0}, FINITE, 0);
  judge((special){'v', 70, 2, 60000, 1, 0}, FINITE, 0);
  judge((special){'k', 70, 0, 200, 1, 0}, FINITE, 200);
  return check_report("special");
}
