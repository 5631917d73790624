/* Append on every kernel set: the bytes of the oracle, and the same bytes as ever.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Usage: test_append FILE [--write]. FILE has one line per case: its number and the digest of all
 * that append writes. --write makes it anew. */
#include "append_case.h"
#include "batch.h"
#include "check.h"
#include "digests.h"
#include "ref.h"

#include <splitkv/threads.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { N_CASES = 600 };

/* ── values that stand in no formula ────────────────────────────────────────────────────────── */

/* One row of f32 into a cache of one token without scales. */
static void store_row(splitkv_dtype dtype, const float *row, int64_t n, unsigned char *bytes,
                      splitkv_isa isa) {
  splitkv_problem p;
  splitkv_problem_init(&p);
  p.n_heads_q = p.n_heads_kv = p.page_size_tokens = p.n_pages = 1;
  p.head_dim = p.head_dim_v = n;
  p.dtype_kv = dtype;
  append_use(&p, isa);
  splitkv_append_args a;
  splitkv_append_args_init(&a);
  const int32_t slot = 0;
  a.n_tokens = 1;
  a.k_new = row;
  a.k = bytes;
  a.slot_mapping = &slot;
  CHECK(splitkv_append(&p, &a, NULL, NULL) == SPLITKV_OK);
}

static void known_codes(splitkv_isa isa) {
  static const float numbers[] = {0,   -0.0F, 1,   -1,     448,  464,    -465,      0x1p-9F,
                                  300, 1e30F, 0.5, 1.0625, -240, 1.1875, -INFINITY, NAN};
  /* OCP OFP8, section 5: 448 is S.1111.110, 2^-9 the least subnormal number. Ties go to even. */
  static const unsigned char e4m3[] = {0x00, 0x80, 0x38, 0xb8, 0x7e, 0x7e, 0xfe, 0x01,
                                       0x79, 0x7e, 0x30, 0x38, 0xf7, 0x3a, 0xfe, 0x7f};
  static const unsigned char e5m2[] = {0x00, 0x80, 0x3c, 0xbc, 0x5f, 0x5f, 0xdf, 0x18,
                                       0x5d, 0x7b, 0x38, 0x3c, 0xdc, 0x3d, 0xfb, 0x7f};
  /* 0.5 goes to 0, NaN is 0. */
  static const signed char int8[] = {0,   0,   1, -1, 127,  127, -128, 0,
                                     127, 127, 0, 1,  -128, 1,   -128, 0};
  /* Two to a byte, 0 is 8: the first in the lower half. */
  static const unsigned char int4[] = {0x88, 0x79, 0xff, 0x80, 0xff, 0x98, 0x90, 0x80};
  static const uint16_t f16[] = {0,      0x8000, 0x3c00, 0xbc00, 0x5f00, 0x5f40, 0xdf44, 0x1800,
                                 0x5cb0, 0x7c00, 0x3800, 0x3c40, 0xdb80, 0x3cc0, 0xfc00, 0x7e00};
  unsigned char bytes[32];
  store_row(SPLITKV_FP8_E4M3, numbers, 16, bytes, isa);
  CHECK_MSG(memcmp(bytes, e4m3, 16) == 0, "%s", test_isa_name(isa));
  store_row(SPLITKV_FP8_E5M2, numbers, 16, bytes, isa);
  CHECK_MSG(memcmp(bytes, e5m2, 16) == 0, "%s", test_isa_name(isa));
  store_row(SPLITKV_INT8, numbers, 16, bytes, isa);
  CHECK_MSG(memcmp(bytes, int8, 16) == 0, "%s", test_isa_name(isa));
  store_row(SPLITKV_INT4, numbers, 16, bytes, isa);
  CHECK_MSG(memcmp(bytes, int4, 8) == 0, "%s", test_isa_name(isa));
  store_row(SPLITKV_F16, numbers, 16, bytes, isa);
  CHECK_MSG(memcmp(bytes, f16, 32) == 0, "%s", test_isa_name(isa));
}

/* A quarter turn takes (x, y) to (-y, x), in each style with its own partner; the rest stays. */
static void quarter_turn(splitkv_isa isa) {
  splitkv_problem p;
  splitkv_problem_init(&p);
  p.n_heads_q = p.n_heads_kv = p.page_size_tokens = 1;
  p.n_pages = 2;
  p.head_dim = p.head_dim_v = 6;
  append_use(&p, isa);
  static const float rows[2][6] = {{1, 2, 3, 4, 5, 6}, {7, 8, 9, 10, 11, 12}};
  static const float cosines[2][2] = {{1, 1}, {0, 0}}, sines[2][2] = {{0, 0}, {1, 1}};
  static const int32_t slots[2] = {1, 0};
  static const int64_t positions[2] = {1, 0};
  static const float want[2][2][6] = {{{7, 8, 9, 10, 11, 12}, {-3, -4, 1, 2, 5, 6}},
                                      {{7, 8, 9, 10, 11, 12}, {-2, 1, -4, 3, 5, 6}}};
  for (int style = 0; style < 2; ++style) {
    float k[2][6] = {{0}}, v[2][6] = {{0}};
    splitkv_append_args a;
    splitkv_append_args_init(&a);
    a.n_tokens = 2;
    a.k_new = a.v_new = rows;
    a.k = k;
    a.v = v;
    a.slot_mapping = slots;
    a.rotary_dim = 4;
    a.rotary_style = (splitkv_rotary_style)style;
    a.position_type = SPLITKV_I64;
    a.positions = positions;
    a.n_positions = 2;
    a.cos = cosines[0];
    a.sin = sines[0];
    CHECK(splitkv_append(&p, &a, NULL, NULL) == SPLITKV_OK);
    CHECK_MSG(memcmp(k, want[style], sizeof k) == 0, "%s style %d", test_isa_name(isa), style);
    CHECK(memcmp(v[1], rows[0], sizeof v[1]) == 0 && memcmp(v[0], rows[1], sizeof v[0]) == 0);
  }
}

/* ── computed scales ────────────────────────────────────────────────────────────────────────── */

/* How far a number may be from what is stored of it, with a scale that was computed for it. */
static double allowed(splitkv_dtype dtype, double x, double scale) {
  if (dtype == SPLITKV_INT8 || dtype == SPLITKV_INT4) return scale * 0.5001;
  const int fraction_bits = dtype == SPLITKV_FP8_E4M3 ? 3 : 2;
  const unsigned char least = 1;
  const double step = ref_load(dtype, &least, 0);
  return (fabs(x) * ldexp(0.5, -fraction_bits) + scale * step / 2) * 1.001;
}

/* Rows come back within half a step of their own scale, and 0 comes back as 0. */
static void comes_back(splitkv_dtype dtype, bool has_zeros, splitkv_dtype dtype_scales, double size,
                       rng *r) {
  enum { D = 70, GROUPS = 3, TOKENS = 20 };
  float rows[TOKENS][D], scales32[TOKENS][GROUPS];
  uint16_t scales16[TOKENS][GROUPS];
  int8_t zeros[TOKENS][GROUPS];
  unsigned char codes[TOKENS][D];
  int32_t slots[TOKENS];
  for (int t = 0; t < TOKENS; ++t) {
    slots[t] = t;
    for (int c = 0; c < D; ++c)
      rows[t][c] = (float)(size * (double)rng_range(r, t % 3 == 0 ? 0 : -1000, 1000) / 1000);
    rows[t][t] = 0;
  }
  splitkv_problem p;
  splitkv_problem_init(&p);
  p.n_heads_q = p.n_heads_kv = 1;
  p.head_dim = p.head_dim_v = D;
  p.page_size_tokens = TOKENS, p.n_pages = 1;
  p.dtype_kv = dtype, p.dtype_scales = dtype_scales;
  p.k_scale_mode = SPLITKV_SCALE_GROUP32;
  p.flags = has_zeros ? SPLITKV_FLAG_ZERO_POINTS : 0;
  splitkv_append_args a;
  splitkv_append_args_init(&a);
  a.n_tokens = TOKENS;
  a.k_new = rows, a.k = codes, a.slot_mapping = slots;
  a.k_scales = dtype_scales == SPLITKV_F16 ? (void *)scales16 : (void *)scales32;
  a.k_zeros = has_zeros ? zeros[0] : NULL;
  a.flags = SPLITKV_APPEND_COMPUTE_K_SCALES;
  if (!CHECK(splitkv_append(&p, &a, NULL, NULL) == SPLITKV_OK)) return;
  for (int t = 0; t < TOKENS; ++t)
    for (int c = 0; c < D; ++c) {
      const int zero = has_zeros ? zeros[t][c / 32] : dtype == SPLITKV_INT4 ? 8 : 0;
      const double scale = ref_load(dtype_scales, a.k_scales, t * GROUPS + c / 32);
      const double x = (double)rows[t][c];
      const double got = scale * (ref_load(dtype, codes, t * D + c) - zero);
      CHECK_MSG(fabs(got - x) <= allowed(dtype, x, scale) && (x != 0 || got == 0),
                "dtype %d zeros %d scales %d: %g of %g, scale %g", (int)dtype, has_zeros,
                (int)dtype_scales, got, x, scale);
    }
}

static void come_back(void) {
  rng r = {11};
  static const double sizes[] = {1, 1e-6, 1e-3, 300, 20000};
  for (int dtype = SPLITKV_INT8; dtype <= SPLITKV_INT4; ++dtype)
    for (int i = 0; i < 5 * 4; ++i) {
      const bool has_zeros = i % 2 && (dtype == SPLITKV_INT8 || dtype == SPLITKV_INT4);
      comes_back((splitkv_dtype)dtype, has_zeros, i / 2 % 2 ? SPLITKV_F16 : SPLITKV_F32,
                 sizes[i / 4], &r);
    }
}

/* ── against the oracle ─────────────────────────────────────────────────────────────────────── */

static uint64_t one_case(int number) {
  rng r = {(uint64_t)number * 104729 + 3};
  append_spec spec;
  append_spec_random(&spec, &r);
  append_case c;
  append_case_build(&c, &spec, &r);
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n = test_usable_isas(isas);
  const splitkv_pool reversed = test_pool_reversed();
  char name[32];
  snprintf(name, sizeof name, "case %d", number);
  for (int i = 0; i < n; ++i) {
    if (!append_case_run(&c, isas[i], i % 2 ? &reversed : NULL, name)) break;
  }
  const uint64_t digest = append_case_digest(&c);
  append_case_destroy(&c);
  return digest;
}

/* So much that lines go past the caches, on a pool of threads, with caches on whole lines and not.
 */
static void large(splitkv_pool const *pool, int turn) {
  static const splitkv_dtype kv[] = {SPLITKV_F16, SPLITKV_F32, SPLITKV_INT8, SPLITKV_BF16};
  rng r = {(uint64_t)turn + 99};
  append_spec spec;
  memset(&spec, 0, sizeof spec);
  splitkv_problem *p = &spec.problem;
  splitkv_problem_init(p);
  p->dtype_kv = kv[turn % 4];
  spec.dtype_new = turn % 3 == 0 ? SPLITKV_F16 : SPLITKV_F32;
  p->n_heads_q = p->n_heads_kv = 8;
  p->head_dim = turn % 2 ? 72 : 128;
  p->head_dim_v = 128;
  p->scale = 1;
  p->page_size_tokens = turn % 2 ? 16 : 128;
  p->layout = (splitkv_layout)(turn % 3);
  spec.n_tokens = p->dtype_kv == SPLITKV_INT8 ? 2700 : 1400;
  p->n_pages = 3000 / p->page_size_tokens + 1;
  spec.stores_v = true;
  spec.side = GUARD_LEFT;
  spec.misaligned = turn % 4 == 3 ? 0 : 16 * (turn % 4);
  if (p->dtype_kv == SPLITKV_INT8) {
    p->k_scale_mode = p->v_scale_mode = SPLITKV_SCALE_TOKEN;
    spec.flags = SPLITKV_APPEND_COMPUTE_K_SCALES | SPLITKV_APPEND_COMPUTE_V_SCALES;
  }
  spec.rotary_dim = turn % 2 ? 64 : 0;
  append_case c;
  append_case_build(&c, &spec, &r);
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n = test_usable_isas(isas);
  for (int i = 0; i < n; ++i) {
    if (!append_case_run(&c, isas[i], pool, "large")) break;
  }
  append_case_destroy(&c);
}

int main(int argc, char **argv) {
  const bool write = argc == 3 && strcmp(argv[2], "--write") == 0;
  if (argc != 2 && !write) {
    fputs("usage: test_append FILE [--write]\n", stderr);
    return 2;
  }
  test_digests(argv[1], write, "case, FNV-1a of what append writes; made by test_append --write",
               N_CASES, one_case);

  splitkv_isa isas[TEST_MAX_ISAS];
  const int n = test_usable_isas(isas);
  for (int i = 0; i < n; ++i) {
    known_codes(isas[i]);
    quarter_turn(isas[i]);
  }
  come_back();
  splitkv_threads *threads = NULL;
  if (CHECK(splitkv_threads_create(3, &threads, NULL) == SPLITKV_OK)) {
    for (int turn = 0; turn < 8; ++turn)
      large(splitkv_threads_pool(threads), turn);
  }
  splitkv_threads_destroy(threads);
  return check_report("append");
}
