/* Every shape that could go its own way through the kernels, against the oracle: head dimensions,
 * groups, page sizes, lengths around the tile, dtypes, on every usable kernel set.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"
#include "check.h"

#include <stdio.h>
#include <string.h>

static double worst;

/* Runs on every usable kernel set, f32, f16 or bf16 in turn, all 27 mixes when `all_dtypes`. */
static void judge(test_spec *spec, bool all_dtypes) {
  static unsigned turn;
  const unsigned first = all_dtypes ? 0 : turn++ * 7 % 27, last = all_dtypes ? 26 : first;
  for (unsigned mix = first; mix <= last; ++mix) {
    spec->problem.dtype_q = (splitkv_dtype)(mix % 3);
    spec->problem.dtype_kv = (splitkv_dtype)(mix / 3 % 3);
    spec->problem.dtype_out = (splitkv_dtype)(mix / 9);
    spec->seed = 77 + turn * 31 + mix;
    spec->problem.layout = turn % 2 ? SPLITKV_LAYOUT_HND : SPLITKV_LAYOUT_NHD;
    test_batch b;
    test_batch_build(&b, spec);
    splitkv_isa isas[TEST_MAX_ISAS];
    const int n = test_usable_isas(isas);
    for (int i = 0; i < n; ++i) {
      test_batch_use(&b, isas[i]);
      if (!test_batch_run(&b, NULL) || !test_batch_compare(&b, &worst)) break;
    }
    test_batch_destroy(&b);
  }
}

static void spec_of(test_spec *spec, int64_t group, int64_t d, int64_t dv, int64_t page) {
  test_spec_init(spec);
  test_spec_requests(spec, 3, 0);
  spec->kv_lens[0] = 131;
  spec->kv_lens[2] = 67;
  spec->n_workers = 2;
  spec->problem.n_heads_kv = 2;
  spec->problem.n_heads_q = 2 * group;
  spec->problem.head_dim = d;
  spec->problem.head_dim_v = dv;
  spec->problem.page_size_tokens = page;
  spec->problem.scale = d == dv ? 0.0F : 0.09375F;
}

static void head_dims(test_spec *spec) {
  for (int64_t d = 1; d <= SPLITKV_MAX_HEAD_DIM; d += d < 140 ? 1 : 29) {
    spec_of(spec, 1 + d % 3, d, d, 16);
    judge(spec, false);
  }
  static const int64_t widths[] = {1, 3, 8, 15, 16, 17, 64, 80, 96, 112, 128, 192, 256, 512, 576};
  for (size_t i = 0; i < sizeof widths / sizeof widths[0]; ++i)
    for (size_t j = 0; j < sizeof widths / sizeof widths[0]; ++j) {
      spec_of(spec, 2, widths[i], widths[j], 64);
      judge(spec, false);
    }
}

static void groups(test_spec *spec) {
  static const int64_t all[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 20, 33, 64, 71};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) {
    spec_of(spec, all[i], 64, 64, 16);
    judge(spec, false);
    spec_of(spec, all[i], 40, 24, 16);
    judge(spec, false);
    spec_of(spec, all[i], 576, 512, 64);
    judge(spec, false);
  }
}

static void page_sizes(test_spec *spec) {
  static const int64_t all[] = {1, 2, 3, 7, 16, 19, 48, 63, 64, 65, 100, 127, 128, 256, 528, 10000};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) {
    spec_of(spec, 4, 32, 32, all[i]);
    spec->kv_lens[1] = 1100;
    judge(spec, false);
    spec->table = TABLE_SHARED;
    spec->sources[2] = 0;
    judge(spec, false);
  }
}

static void lengths(test_spec *spec) {
  for (int64_t n = 0; n <= 260; n += n < 140 ? 1 : 11) {
    spec_of(spec, 2, 16, 16, 7);
    spec->kv_lens[0] = n;
    spec->kv_lens[1] = n + 1;
    judge(spec, false);
  }
}

static void dtypes(test_spec *spec) {
  static const int64_t widths[] = {1, 31, 64, 128, 200};
  for (size_t i = 0; i < sizeof widths / sizeof widths[0]; ++i)
    for (int64_t group = 1; group <= 5; group += 2) {
      spec_of(spec, group, widths[i], widths[i], 16);
      judge(spec, true);
    }
}

/* The batch sizes 0 and 1, no KV anywhere, and a cache without pages. */
static void empty(test_spec *spec) {
  for (int policy = 0; policy < 4; ++policy)
    for (int64_t n = 0; n <= 3; ++n) {
      spec_of(spec, 3, 48, 20, 16);
      spec->problem.split_policy = (splitkv_split_policy)policy;
      spec->problem.split_value =
          policy == SPLITKV_SPLIT_FIXED_SIZE || policy == SPLITKV_SPLIT_FIXED_COUNT ? 5 : 0;
      test_spec_requests(spec, n, 0);
      judge(spec, false);
      spec->problem.table_format = SPLITKV_TABLE_CSR;
      judge(spec, false);
    }
}

int main(void) {
  static test_spec spec;
  head_dims(&spec);
  groups(&spec);
  page_sizes(&spec);
  lengths(&spec);
  dtypes(&spec);
  empty(&spec);
  printf("largest error: %.3f of the bound\n", worst);
  return check_report("shapes");
}
