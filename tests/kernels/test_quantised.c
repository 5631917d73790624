/* Quantised KV against the oracle: every dtype, scale mode and policy, with and without zero points
 * and variants, on every usable kernel set, whose bits have to be those of the first one.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Arguments: [number of problems [first seed]]. */
#include "batch.h"
#include "check.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t n_seen[SPLITKV_INT4 + 1][SPLITKV_SCALE_GROUP64 + 1];

/* Of the classes that have bounds of their own. */
static double worst_of_class[SPLITKV_ARITHMETIC_INT8 + 1];
static int64_t n_of_class[SPLITKV_ARITHMETIC_INT8 + 1];

static void set_policy(test_batch *b, splitkv_split_policy policy, rng *r) {
  b->problem.split_policy = policy;
  b->problem.split_value = policy == SPLITKV_SPLIT_FIXED_SIZE    ? rng_range(r, 30, 400)
                           : policy == SPLITKV_SPLIT_FIXED_COUNT ? rng_range(r, 1, 9)
                                                                 : 0;
}

/* Runs on every kernel set of the class: the oracle judges the first one, the others are the same.
 */
static bool all_sets(test_batch *b, double *worst) {
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n = test_usable_isas(isas);
  uint64_t digest = 0;
  bool is_first = true, ok = true;
  for (int i = 0; ok && i < n; ++i) {
    test_batch_use(b, isas[i]);
    ok = test_batch_run(b, NULL);
    if (ok && b->arithmetic != SPLITKV_ARITHMETIC_F32) {
      ok = test_batch_compare(b, &worst_of_class[b->arithmetic]);
      ++n_of_class[b->arithmetic];
      continue;
    }
    if (ok && is_first) ok = test_batch_compare(b, worst);
    if (ok && !is_first) {
      ok = CHECK_MSG(test_batch_digest(b) == digest, "%s has other bits", test_isa_name(isas[i]));
      if (!ok) test_batch_print(b);
    }
    digest = test_batch_digest(b);
    is_first = false;
  }
  return ok && CHECK(!is_first);
}

static bool one_problem(uint64_t seed, double *worst) {
  static const test_ranges ranges = {6, 1200, SPLITKV_MAX_HEAD_DIM, 4, 24, 30000};
  static test_spec spec;
  rng r = {seed};
  test_spec_random(&spec, &r, &ranges);
  if (seed % 3 == 0) test_spec_vary(&spec, &r, (int)(seed / 3 % N_VARIANTS));
  test_spec_quantise(&spec, &r);
  ++n_seen[spec.problem.dtype_kv][spec.problem.k_scale_mode];
  test_batch b;
  test_batch_build(&b, &spec);
  bool ok = true;
  for (int policy = 0; ok && policy < 4; ++policy) {
    if (policy > 1 && rng_one_in(&r, 2)) continue;
    set_policy(&b, (splitkv_split_policy)policy, &r);
    b.batch.n_workers = rng_range(&r, 1, 5);
    ok = all_sets(&b, worst);
  }
  test_batch_destroy(&b);
  return ok;
}

/* Every tail of a row, flush against a forbidden page on either side, in a cache that ends with its
 * last attended token; so do the scales. */
static void guards(void) {
  static test_spec spec;
  for (int turn = 0; turn < 560 && check_failures() == 0; ++turn) {
    test_spec_init(&spec);
    test_spec_requests(&spec, 2, 19);
    spec.kv_lens[1] = 7;
    splitkv_problem *p = &spec.problem;
    p->dtype_kv = (splitkv_dtype)(SPLITKV_INT8 + turn % 4);
    p->k_scale_mode = (splitkv_scale_mode)(turn / 4 % 7);
    p->v_scale_mode = (splitkv_scale_mode)((turn / 4 + turn / 28) % 7);
    p->dtype_scales = (splitkv_dtype)(turn / 3 % 2);
    if (turn % 4 % 3 == 0 && turn / 5 % 2) p->flags = SPLITKV_FLAG_ZERO_POINTS;
    p->layout = (splitkv_layout)(turn / 2 % 3);
    spec.stride_kind = (test_stride_kind)(turn / 6 % N_STRIDE_KINDS);
    const int64_t step = turn % 4 == 3 ? 2 : 1;
    p->head_dim = step * (1 + turn % 37);
    p->head_dim_v = step * (1 + turn / 2 % 39);
    p->n_heads_kv = 1 + turn % 2;
    p->n_heads_q = p->n_heads_kv * (1 + turn % 5);
    p->scale = p->k_scale_mode == SPLITKV_SCALE_NONE ? 0x1p-10F : 0.125F;
    spec.side = (guard_side)(turn / 7 % 2);
    spec.trim = true;
    spec.seed = (uint64_t)turn;
    test_batch b;
    test_batch_build(&b, &spec);
    (void)all_sets(&b, NULL);
    test_batch_destroy(&b);
  }
}

/* What a special scale or code does. */
typedef struct special {
  char tensor; /* 'x', 'y': a scale of K, of V; 'k', 'v': a code that is inf or NaN */
  double value;
  int is_row_nan; /* of the head that has it; else only channel 3 is not finite */
  splitkv_dtype dtype;
  splitkv_scale_mode mode;
} special;

enum { SPECIAL_TOKEN = 70, SPECIAL_CHANNEL = 3, SPECIAL_HEAD = 1 };

static double special_value(const test_spec *spec, char tensor, int64_t source, int64_t head,
                            int64_t token, int64_t channel) {
  const special *s = spec->value_context;
  (void)source;
  const bool by_token = s->mode >= SPLITKV_SCALE_TOKEN || tensor == 'k' || tensor == 'v';
  const bool by_channel = s->mode == SPLITKV_SCALE_CHANNEL || tensor == 'k' || tensor == 'v';
  if (tensor == s->tensor && (head == SPECIAL_HEAD || s->mode == SPLITKV_SCALE_TENSOR) &&
      (!by_token || token == SPECIAL_TOKEN) && (!by_channel || channel == SPECIAL_CHANNEL))
    return s->value;
  if (tensor == 'x' || tensor == 'y') return 0.125;
  return (double)((token * 37 + channel * 11) % 23 - 11) / 16;
}

static void judge_special(const special *s) {
  static test_spec spec;
  test_spec_init(&spec);
  test_spec_requests(&spec, 1, 150);
  splitkv_problem *p = &spec.problem;
  p->n_heads_kv = 2;
  p->n_heads_q = 6;
  p->head_dim = p->head_dim_v = 40;
  p->dtype_kv = s->dtype;
  p->k_scale_mode = p->v_scale_mode = s->mode;
  spec.value = special_value;
  spec.value_context = s;
  test_batch b;
  test_batch_build(&b, &spec);
  if (all_sets(&b, NULL)) {
    for (int64_t row = 0; row < 6; ++row) {
      const bool is_hit = row / 3 == SPECIAL_HEAD || s->mode == SPLITKV_SCALE_TENSOR;
      for (int64_t c = 0; c < 40; ++c) {
        const double got = ref_load(SPLITKV_F32, test_out_row(&b, row), c);
        const bool is_nan = is_hit && (s->is_row_nan || c == SPECIAL_CHANNEL);
        const bool ok = is_nan ? isnan(got) || (s->tensor == 'v' && isinf(got)) : isfinite(got);
        if (!CHECK_MSG(ok, "tensor %c value %g dtype %d mode %d: out[%d][%d] is %g", s->tensor,
                       s->value, s->dtype, s->mode, (int)row, (int)c, got))
          break;
      }
    }
  }
  test_batch_destroy(&b);
}

static void specials(void) {
  const double inf = (double)INFINITY, nan = (double)NAN;
  for (int dtype = SPLITKV_INT8; dtype <= SPLITKV_INT4; ++dtype)
    for (int mode = SPLITKV_SCALE_TENSOR; mode <= SPLITKV_SCALE_TOKEN; ++mode)
      for (int i = 0; i < 3; ++i) {
        const double value = i == 0 ? inf : i == 1 ? -inf : nan;
        const bool is_channel = mode == SPLITKV_SCALE_CHANNEL;
        judge_special(&(special){'x', value, 1, (splitkv_dtype)dtype, (splitkv_scale_mode)mode});
        judge_special(
            &(special){'y', value, !is_channel, (splitkv_dtype)dtype, (splitkv_scale_mode)mode});
      }
  for (int mode = SPLITKV_SCALE_NONE; mode <= SPLITKV_SCALE_GROUP64; ++mode) {
    const splitkv_scale_mode m = (splitkv_scale_mode)mode;
    judge_special(&(special){'k', nan, 1, SPLITKV_FP8_E4M3, m});
    judge_special(&(special){'v', nan, 0, SPLITKV_FP8_E4M3, m});
    judge_special(&(special){'v', -nan, 0, SPLITKV_FP8_E4M3, m});
    judge_special(&(special){'k', nan, 1, SPLITKV_FP8_E5M2, m});
    judge_special(&(special){'v', nan, 0, SPLITKV_FP8_E5M2, m});
    judge_special(&(special){'k', -inf, 1, SPLITKV_FP8_E5M2, m});
    judge_special(&(special){'v', inf, 0, SPLITKV_FP8_E5M2, m});
    judge_special(&(special){'v', -inf, 0, SPLITKV_FP8_E5M2, m});
  }
}

/* Seven heads of one Q are blocks of 4, 2 and 1 heads, or of 4, 3 or others: their rows are the
 * same bits. With V that is constant out is V, however weights are rounded. */
static double same_q(const test_spec *spec, char tensor, int64_t source, int64_t head,
                     int64_t token, int64_t channel) {
  (void)head;
  const uint64_t h = rng_mix((uint64_t)((source * 4099 + token) * 1031 + channel) + spec->seed +
                             (tensor == 'q' ? 7 : 0));
  if (tensor == 'x' || tensor == 'y') return 0.0117;
  if (tensor == 'v' && spec->seed % 2) return 0.5;
  return (double)((int64_t)(h >> 40) % 4001 - 2000) / 1000;
}

static void blocks_of_heads(void) {
  static test_spec spec;
  for (int turn = 0; turn < 24; ++turn) {
    test_spec_init(&spec);
    test_spec_requests(&spec, 1, 70 + 61 * turn);
    spec.seed = (uint64_t)turn;
    splitkv_problem *p = &spec.problem;
    p->n_heads_q = 7;
    p->head_dim = 4 + 52 * (turn % 12);
    p->head_dim_v = 30 + 6 * turn;
    p->scale = 0.125F;
    p->dtype_kv = turn % 3 ? SPLITKV_INT8 : SPLITKV_INT4;
    p->k_scale_mode = p->v_scale_mode = turn % 4 < 2 ? SPLITKV_SCALE_TOKEN : SPLITKV_SCALE_TENSOR;
    spec.value = same_q;
    test_batch b;
    test_batch_build(&b, &spec);
    splitkv_isa isas[TEST_MAX_ISAS];
    const int n = test_usable_isas(isas);
    for (int i = 0; i < n; ++i) {
      test_batch_use(&b, isas[i]);
      if (!test_batch_run(&b, NULL) || !test_batch_compare(&b, NULL)) break;
      bool same = true;
      for (int64_t row = 1; row < 7; ++row)
        same = same && b.tensors.lse[row] == b.tensors.lse[0] &&
               memcmp(test_out_row(&b, row), test_out_row(&b, 0), test_row_bytes(&b)) == 0;
      CHECK_MSG(same, "%s: heads of one Q differ, d %d", test_isa_name(isas[i]), (int)p->head_dim);
      const float out = *(const float *)(const void *)b.out.data;
      const double v = (double)0.0117F * (p->dtype_kv == SPLITKV_INT4 ? 7 : 43);
      CHECK_MSG(!(turn % 2) || p->v_scale_mode != SPLITKV_SCALE_TENSOR ||
                    fabs((double)out - v) <= v * 0x1p-20,
                "constant V: %g instead of %g", (double)out, v);
    }
    test_batch_destroy(&b);
  }
}

/* Every code of every dtype stands for what its definition says: one token, whose V is out. */
static double code_value(const test_spec *spec, char tensor, int64_t source, int64_t head,
                         int64_t token, int64_t channel) {
  (void)spec, (void)source, (void)head, (void)token, (void)channel;
  return tensor == 'y' ? 1 : 0;
}

static void codes(void) {
  static test_spec spec;
  for (int dtype = SPLITKV_INT8; dtype <= SPLITKV_INT4; ++dtype) {
    test_spec_init(&spec);
    test_spec_requests(&spec, 1, 1);
    spec.problem.dtype_kv = (splitkv_dtype)dtype;
    spec.problem.head_dim = 2;
    spec.problem.head_dim_v = dtype == SPLITKV_INT4 ? 512 : 256;
    spec.problem.scale = 1;
    spec.value = code_value;
    test_batch b;
    test_batch_build(&b, &spec);
    unsigned char v[256];
    for (int i = 0; i < 256; ++i)
      v[i] = (unsigned char)i;
    const uint32_t *page = (const uint32_t *)(const void *)b.table.data;
    b.tensors.v = (const void *)((uintptr_t)v - (uintptr_t)*page * 16 * 256);
    if (all_sets(&b, NULL)) {
      const float *out = (const float *)(const void *)b.out.data;
      for (int i = 0; i < 256; ++i) {
        if (dtype == SPLITKV_INT8) CHECK(out[i] == (float)(i < 128 ? i : i - 256));
        if (dtype == SPLITKV_INT4)
          CHECK(out[2 * i] == (float)(i % 16 - 8) && out[2 * i + 1] == (float)(i / 16 - 8));
      }
      static const struct {
        int dtype, code;
        float value;
      } known[] = {{SPLITKV_FP8_E4M3, 0x01, 0x1p-9F},  {SPLITKV_FP8_E4M3, 0x07, 0x7p-9F},
                   {SPLITKV_FP8_E4M3, 0x08, 0x1p-6F},  {SPLITKV_FP8_E4M3, 0x38, 1},
                   {SPLITKV_FP8_E4M3, 0x7e, 448},      {SPLITKV_FP8_E4M3, 0xfe, -448},
                   {SPLITKV_FP8_E5M2, 0x01, 0x1p-16F}, {SPLITKV_FP8_E5M2, 0x3c, 1},
                   {SPLITKV_FP8_E5M2, 0x7b, 57344},    {SPLITKV_FP8_E5M2, 0x7c, INFINITY},
                   {SPLITKV_FP8_E5M2, 0xfc, -INFINITY}};
      for (size_t i = 0; i < sizeof known / sizeof known[0]; ++i)
        CHECK_MSG(known[i].dtype != dtype || out[known[i].code] == known[i].value,
                  "dtype %d code %#x is %g", dtype, known[i].code, (double)out[known[i].code]);
      for (int i = 0; i < 256; ++i)
        CHECK_MSG(dtype != SPLITKV_FP8_E4M3 || isnan(out[i]) == (i % 128 == 127), "code %d", i);
      for (int i = 0; i < 256; ++i)
        CHECK_MSG(dtype != SPLITKV_FP8_E5M2 || isnan(out[i]) == (i % 128 > 124), "code %d", i);
    }
    test_batch_destroy(&b);
  }
}

int main(int argc, char **argv) {
  const int64_t n = argc > 1 ? strtoll(argv[1], NULL, 10) : 400;
  const uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
  double worst = 0;
  codes();
  blocks_of_heads();
  specials();
  guards();
  for (int64_t i = 0; i < n && check_failures() < 5; ++i)
    if (!one_problem(first + (uint64_t)i, &worst))
      fprintf(stderr, "  repeat with: test_quantised 1 %" PRIu64 "\n", first + (uint64_t)i);
  for (int dtype = SPLITKV_INT8; dtype <= SPLITKV_INT4 && n >= 400; ++dtype)
    for (int mode = 0; mode <= SPLITKV_SCALE_GROUP64; ++mode)
      CHECK_MSG(n_seen[dtype][mode] > 0, "dtype %d with mode %d was never tried", dtype, mode);
  printf("largest error: %.3f of the bound\n", worst);
  for (int class = SPLITKV_ARITHMETIC_BF16; class <= SPLITKV_ARITHMETIC_INT8; ++class)
    printf("class %s, %" PRId64 " runs: %.3f\n", class == SPLITKV_ARITHMETIC_INT8 ? "int8" : "bf16",
           n_of_class[class], worst_of_class[class]);
  return check_report("quantised");
}
