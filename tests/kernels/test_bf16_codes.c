/* KV in fp8 in the arithmetic class bf16: every group, pair of scale modes and set of masks against
 * the oracle, the bits of KV in bf16 that holds the same numbers, and bits that depend on their own
 * request alone.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * On a CPU without a kernel set of the class the same problems run in the class f32. */
#include "batch.h"
#include "check.h"
#include "equal.h"

#include <inttypes.h>
#include <stdio.h>

enum { MAX_GROUP = 17, N_MODES = SPLITKV_SCALE_GROUP64 + 1, N_FORMATS = 2 };

/* By the name of its set if there is one here. */
static void use_class(test_batch *b) {
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n = test_usable_isas(isas);
  b->problem.arithmetic = SPLITKV_ARITHMETIC_BF16;
  for (int i = 0; i < n; ++i)
    if (test_isa_arithmetic(isas[i]) == SPLITKV_ARITHMETIC_BF16) test_batch_use(b, isas[i]);
}

static bool has_class(void) {
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n = test_usable_isas(isas);
  for (int i = 0; i < n; ++i)
    if (test_isa_arithmetic(isas[i]) == SPLITKV_ARITHMETIC_BF16) return true;
  return false;
}

/* Small shapes of any width, with variants, rows and masks. */
static void make_spec(test_spec *spec, rng *r, int turn, int64_t group) {
  test_spec_init(spec);
  test_spec_requests(spec, 3, 0);
  for (int i = 0; i < 3; ++i)
    spec->kv_lens[i] = rng_one_in(r, 6) ? 0 : rng_range(r, 1, 190);
  splitkv_problem *p = &spec->problem;
  spec->seed = rng_next(r);
  spec->table = TABLE_SHUFFLED;
  p->n_heads_kv = rng_range(r, 1, 2);
  p->n_heads_q = p->n_heads_kv * group;
  p->head_dim = rng_one_in(r, 3) ? rng_range(r, 65, 290) : rng_range(r, 1, 70);
  p->head_dim_v = rng_one_in(r, 3) ? rng_range(r, 65, 290) : rng_range(r, 1, 70);
  p->scale = rng_one_in(r, 2) ? 0.125F : -0.0625F;
  p->dtype_q = (splitkv_dtype)rng_range(r, 0, 2);
  p->dtype_kv = turn % N_FORMATS ? SPLITKV_FP8_E5M2 : SPLITKV_FP8_E4M3;
  p->dtype_out = (splitkv_dtype)rng_range(r, 0, 2);
  p->layout = (splitkv_layout)rng_range(r, 0, 2);
  spec->stride_pad = rng_range(r, 0, 3);
  spec->side = rng_one_in(r, 2) ? GUARD_LEFT : GUARD_RIGHT;
  test_spec_vary(spec, r, turn % N_VARIANTS);
  if (rng_one_in(r, 3)) return;
  test_spec_rows(spec, r, 30);
  test_spec_mask(spec, r, (int)rng_range(r, 0, N_MASKS - 1));
  /* Behind masks there are scales that are NaN too. */
  spec->specials = !(p->flags & SPLITKV_FLAG_ALIBI) && rng_one_in(r, 2);
}

/* Under FIXED_SIZE a request has the bits that it has alone, whoever runs it. */
static bool same_alone(const test_batch *b) {
  static test_spec alone;
  alone = b->spec;
  alone.n_requests = 1;
  alone.n_workers = 1 + b->batch.n_workers % 5;
  alone.problem.out_stride_head = alone.problem.out_stride_request = 0;
  test_batch one;
  test_batch_build(&one, &alone);
  one.problem.split_policy = b->problem.split_policy;
  one.problem.split_value = b->problem.split_value;
  use_class(&one);
  const splitkv_pool reversed = test_pool_reversed();
  bool ok = test_batch_run(&one, &reversed);
  const int64_t n = test_rows_of(&alone, 0) * alone.problem.n_heads_q;
  for (int64_t row = 0; ok && row < n; ++row)
    ok = CHECK_MSG(test_same_row(b, row, &one, row), "row %" PRId64 " alone", row);
  test_batch_destroy(&one);
  return ok;
}

/* Where the scales of K are by channel or group, or those of V by group, the class f32 takes over.
 */
static bool class_does(splitkv_scale_mode k, splitkv_scale_mode v) {
  return k <= SPLITKV_SCALE_TOKEN && k != SPLITKV_SCALE_CHANNEL && v <= SPLITKV_SCALE_TOKEN;
}

static bool judge(int turn, int64_t group, int k_mode, int v_mode, double *worst) {
  static test_spec spec;
  rng r = {(uint64_t)turn};
  make_spec(&spec, &r, turn, group);
  splitkv_problem *p = &spec.problem;
  p->k_scale_mode = (splitkv_scale_mode)k_mode;
  p->v_scale_mode = (splitkv_scale_mode)v_mode;
  p->dtype_scales = (splitkv_dtype)(turn / 3 % 2);
  test_batch b;
  test_batch_build(&b, &spec);
  test_set_policy(&b, turn % N_TEST_POLICIES, &r);
  use_class(&b);
  bool ok = test_batch_run(&b, NULL) &&
            test_batch_compare(&b, p->dtype_out == SPLITKV_F32 ? worst : NULL);
  const bool is_of_class = has_class() && class_does(p->k_scale_mode, p->v_scale_mode);
  ok = ok && CHECK((b.arithmetic == SPLITKV_ARITHMETIC_BF16) == is_of_class);
  if (ok && b.problem.split_policy == SPLITKV_SPLIT_FIXED_SIZE) ok = same_alone(&b);
  if (!ok) test_batch_print(&b);
  test_batch_destroy(&b);
  return ok;
}

/* Pieces of few tokens, of an odd number as a rule, of which the tree mask may hide the last one:
 * its scale, which is NaN then, is that of the lanes behind it, too. */
static void hidden_ends(uint64_t seed, double *worst) {
  static test_spec spec;
  test_spec_init(&spec);
  test_spec_requests(&spec, 2, 100);
  splitkv_problem *p = &spec.problem;
  spec.seed = seed;
  spec.has_rows = true;
  spec.tree = TREE_RANDOM;
  p->tree_tokens = 100;
  p->n_heads_q = 1 + (int64_t)seed % MAX_GROUP;
  p->dtype_kv = seed % N_FORMATS ? SPLITKV_FP8_E5M2 : SPLITKV_FP8_E4M3;
  p->k_scale_mode = p->v_scale_mode = SPLITKV_SCALE_TOKEN;
  p->split_policy = SPLITKV_SPLIT_FIXED_SIZE;
  p->split_value = 1 + (int64_t)seed * 2 % 64;
  test_batch b;
  test_batch_build(&b, &spec);
  use_class(&b);
  if (!test_batch_run(&b, NULL) || !test_batch_compare(&b, worst)) test_batch_print(&b);
  test_batch_destroy(&b);
}

/* ── the same numbers in bf16 ───────────────────────────────────────────────────────────────── */

/* Numbers that spec->value_context, a format, holds: subnormal ones of it, too. */
static double in_format(const test_spec *spec, char tensor, int64_t source, int64_t head,
                        int64_t token, int64_t channel) {
  const splitkv_dtype *format = spec->value_context;
  const int64_t element = ((source * 7 + head) * 4099 + token) * 1031 + channel;
  const uint64_t h = rng_mix(spec->seed + (uint64_t)element * 256 + (unsigned char)tensor);
  const double x = (double)((int64_t)(h >> 40 & 0xffff) - 0x8000) / 0x4000;
  if (tensor != 'k' && tensor != 'v') return x;
  unsigned char code;
  ref_store(*format, &code, 0, h % 8 == 0 ? x * 0x1p-9 : x);
  return ref_load(*format, &code, 0);
}

static void as_codes(test_spec *spec) {
  spec->problem.dtype_kv = *(const splitkv_dtype *)spec->value_context;
}
static void as_bf16(test_spec *spec) {
  spec->problem.dtype_kv = SPLITKV_BF16;
}

static void same_as_bf16(int turn, int64_t group) {
  static test_spec spec;
  rng r = {(uint64_t)turn};
  make_spec(&spec, &r, turn, group);
  const splitkv_dtype format = spec.problem.dtype_kv;
  spec.problem.arithmetic = SPLITKV_ARITHMETIC_BF16;
  spec.value = in_format;
  spec.value_context = &format;
  if (format == SPLITKV_FP8_E4M3) spec.specials = false; /* it has no infinity */
  test_equal(&spec, as_codes, as_bf16, EQUAL_BY_ROW, "codes and bf16 of the same numbers");
}

int main(void) {
  double worst = 0;
  int turn = 0;
  for (int modes = 0; modes < N_MODES * N_MODES; ++modes)
    for (int64_t group = 1; group <= MAX_GROUP && check_failures() == 0; ++group, ++turn)
      if (!judge(turn, group, modes % N_MODES, modes / N_MODES, &worst))
        fprintf(stderr, "  turn %d\n", turn);
  for (uint64_t seed = 0; seed < 200 && check_failures() == 0; ++seed)
    hidden_ends(seed, &worst);
  printf("largest error of f32 results: %.3f of the bound\n", worst);
  for (int64_t group = 1; group <= MAX_GROUP; ++group)
    for (int i = 0; i < 8 && check_failures() == 0; ++i)
      same_as_bf16(turn++, group);
  if (!has_class()) puts("no kernel set of the class bf16 is usable here");
  return check_report("fp8 in the class bf16");
}
