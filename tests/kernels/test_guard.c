/* Every buffer flush against a forbidden page, right and left, at every tail length, on every
 * usable kernel set: no load or store leaves what it was given. The cache holds no byte outside its
 * attended tokens.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"
#include "check.h"

#include <string.h>

static void judge(test_spec *spec, uint64_t turn) {
  static const splitkv_split_policy policies[] = {SPLITKV_SPLIT_NONE, SPLITKV_SPLIT_FIXED_SIZE,
                                                  SPLITKV_SPLIT_AUTO};
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n_isas = test_usable_isas(isas);
  for (int side = 0; side < 2; ++side) {
    spec->side = (guard_side)side;
    spec->trim = true;
    spec->seed = turn;
    spec->problem.dtype_q = (splitkv_dtype)(turn % 3);
    spec->problem.dtype_kv = (splitkv_dtype)(turn / 3 % 3);
    spec->problem.dtype_out = (splitkv_dtype)(turn / 9 % 3);
    spec->problem.layout = (splitkv_layout)(turn / 2 % 3);
    spec->stride_kind = (test_stride_kind)(turn / 6 % N_STRIDE_KINDS);
    spec->problem.table_format = (splitkv_table_format)(turn / 5 % 2);
    spec->problem.table_type = (splitkv_index_type)(turn / 7 % 2);
    spec->kv_lens_type = (splitkv_index_type)(turn / 11 % 2);
    spec->problem.split_policy = policies[turn % 3];
    spec->problem.split_value = turn % 3 == 1 ? 21 : 0;
    test_batch b;
    test_batch_build(&b, spec);
    for (int i = 0; i < n_isas; ++i) {
      test_batch_use(&b, isas[i]);
      if (!test_batch_run(&b, NULL) || !test_batch_compare(&b, NULL)) break;
    }
    test_batch_destroy(&b);
  }
}

static void spec_of(test_spec *spec, int64_t d, int64_t dv, int64_t kv_len) {
  test_spec_init(spec);
  test_spec_requests(spec, 2, kv_len);
  spec->kv_lens[1] = kv_len / 2;
  spec->table = kv_len % 2 ? TABLE_IDENTITY : TABLE_SHUFFLED;
  spec->problem.head_dim = d;
  spec->problem.head_dim_v = dv;
  spec->problem.scale = 0.125F;
  spec->n_workers = 2;
}

int main(void) {
  static test_spec spec;
  uint64_t turn = 0;
  for (int64_t d = 1; d <= 130; d += d == 40 ? 60 : 1)
    for (int64_t group = 1; group <= 4; group += 3) {
      spec_of(&spec, d, d, 19);
      spec.problem.n_heads_q = group;
      judge(&spec, turn++);
      judge(&spec, turn++);
    }
  for (int64_t dv = 1; dv <= 130; dv += dv == 40 ? 60 : 1) {
    spec_of(&spec, 17, dv, 21);
    spec.problem.n_heads_q = 1 + dv % 5;
    judge(&spec, turn++);
    spec_of(&spec, dv, 17, 21);
    judge(&spec, turn++);
  }
  for (int64_t kv_len = 1; kv_len <= 130; ++kv_len)
    for (int64_t page = 1; page <= 256; page *= 16) {
      spec_of(&spec, 8 + kv_len % 29, 8 + kv_len % 29, kv_len);
      spec.problem.page_size_tokens = page;
      spec.problem.n_heads_q = 1 + kv_len % 9;
      judge(&spec, turn++);
    }
  static const int64_t widths[] = {64, 80, 96, 112, 128, 192, 256, 512, 576};
  for (size_t i = 0; i < sizeof widths / sizeof widths[0]; ++i)
    for (int64_t kv_len = 1; kv_len < 80; kv_len += 13) {
      spec_of(&spec, widths[i], widths[i], kv_len);
      judge(&spec, turn++);
      spec_of(&spec, 576, widths[i], kv_len);
      judge(&spec, turn++);
    }
  return check_report("guard");
}
