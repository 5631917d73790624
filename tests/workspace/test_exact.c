/* The stated workspace is exactly what run touches: no byte more, no byte less.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each plan runs twice, over two patterns. A byte that was written holds the same value after both
 * runs, so it differs from at least one pattern; a byte that was not holds both. Arguments: [number
 * of plans [first seed]]. */
#include "batch.h"
#include "check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATTERN_A = 0x5a, PATTERN_B = 0xc3, MAX_REGIONS = 16 };

static int64_t n_with_workspace, n_with_scratch, n_rows_with_scratch;

/* Runs over a workspace filled with `pattern`. */
static bool run_over(test_batch *b, const splitkv_plan *plan, guard_buffer *workspace,
                     unsigned char pattern) {
  splitkv_error error;
  memset(&error, 0, sizeof error);
  memset(workspace->data, pattern, workspace->size_bytes);
  memset(b->out.data, pattern, b->out.size_bytes);
  memset(b->lse.data, pattern, b->lse.size_bytes);
  const splitkv_status status =
      splitkv_run(plan, &b->problem, &b->tensors, workspace->size_bytes ? workspace->data : NULL,
                  workspace->size_bytes, NULL, &error);
  return CHECK_MSG(status == SPLITKV_OK, "%s", error.message) && CHECK(guard_is_intact(workspace));
}

/* Marks the bytes of the regions in `covered`; regions ascend, do not overlap, and leave gaps of
 * less than the alignment between them and none after the last. */
static bool check_regions(const splitkv_plan *plan, size_t bytes, unsigned char *covered) {
  splitkv_plan_info info;
  info.struct_size = sizeof info;
  if (!CHECK(splitkv_plan_get_info(plan, &info, NULL) == SPLITKV_OK) ||
      !CHECK(info.n_regions <= MAX_REGIONS && info.workspace_bytes == bytes))
    return false;
  size_t end = 0;
  for (int64_t i = 0; i < info.n_regions; ++i) {
    splitkv_region region;
    region.struct_size = sizeof region;
    if (!CHECK(splitkv_plan_get_region(plan, i, &region, NULL) == SPLITKV_OK) ||
        !CHECK(region.size_bytes > 0 && region.offset_bytes >= end) ||
        !CHECK(region.offset_bytes - end < SPLITKV_ALIGNMENT) ||
        !CHECK(region.offset_bytes + region.size_bytes <= bytes))
      return false;
    memset(covered + region.offset_bytes, 1, region.size_bytes);
    end = region.offset_bytes + region.size_bytes;
    n_with_scratch += strcmp(region.name, "scratch") == 0;
  }
  return CHECK_MSG(end == bytes, "regions end at %zu, workspace at %zu", end, bytes);
}

/* Every byte of a region was written, no byte of a gap. */
static bool check_touched(const unsigned char *covered, const unsigned char *a,
                          const unsigned char *b, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) {
    const bool touched = a[i] != PATTERN_A || b[i] != PATTERN_B;
    if (!CHECK_MSG(touched == (covered[i] != 0), "byte %zu of %zu: %s", i, bytes,
                   touched ? "written outside the regions" : "never written"))
      return false;
  }
  return true;
}

/* One byte less is refused and nothing is touched. */
static bool check_too_small(test_batch *b, const splitkv_plan *plan, guard_buffer *workspace) {
  const size_t bytes = workspace->size_bytes;
  splitkv_error error;
  memset(&error, 0, sizeof error);
  memset(workspace->data, PATTERN_A, bytes);
  memset(b->out.data, PATTERN_A, b->out.size_bytes);
  memset(b->lse.data, PATTERN_A, b->lse.size_bytes);
  const splitkv_status status =
      splitkv_run(plan, &b->problem, &b->tensors, workspace->data, bytes - 1, NULL, &error);
  bool ok = CHECK(status == SPLITKV_ERROR_WORKSPACE_SIZE && error.status == status);
  for (size_t i = 0; ok && i < bytes; ++i)
    ok = workspace->data[i] == PATTERN_A;
  for (size_t i = 0; ok && i < b->out.size_bytes; ++i)
    ok = b->out.data[i] == PATTERN_A;
  for (size_t i = 0; ok && i < b->lse.size_bytes; ++i)
    ok = b->lse.data[i] == PATTERN_A;
  return CHECK_MSG(ok, "one byte less: status %s", splitkv_status_name(status));
}

static bool check_plan(test_batch *b, const splitkv_plan *plan) {
  const size_t bytes = splitkv_plan_workspace_bytes(plan);
  unsigned char *covered = calloc(bytes + 1, 1), *first = malloc(bytes + 1);
  if (!covered || !first) return CHECK(false);
  bool ok = check_regions(plan, bytes, covered);
  guard_buffer workspace = guard_create(bytes, b->spec.side, SPLITKV_ALIGNMENT);
  ok = ok && run_over(b, plan, &workspace, PATTERN_A);
  if (ok) {
    memcpy(first, workspace.data, bytes);
    ok = run_over(b, plan, &workspace, PATTERN_B) &&
         check_touched(covered, first, workspace.data, bytes);
  }
  if (ok && bytes > 0) {
    ++n_with_workspace;
    ok = check_too_small(b, plan, &workspace);
  }
  guard_destroy(&workspace);
  free(covered);
  free(first);
  return ok;
}

/* So many query heads, or KV heads walked by strips, that the scratch of KV heads side by side is
 * in the workspace, with pieces on either side of the length from which sums are folded. */
static void wide_spec(test_spec *spec, rng *r) {
  static const int64_t around[] = {0, 1, 15, 64, 448, 449, 512};
  test_spec_init(spec);
  splitkv_problem *p = &spec->problem;
  const bool by_strips = rng_one_in(r, 3);
  p->n_heads_kv = by_strips ? rng_range(r, 20, 40) : rng_range(r, 3, 16);
  p->n_heads_q = p->n_heads_kv * (by_strips ? rng_range(r, 1, 6) : rng_range(r, 12, 40));
  p->head_dim = by_strips ? rng_range(r, 70, 140) : rng_range(r, 20, 48);
  p->head_dim_v = rng_one_in(r, 2) ? p->head_dim : rng_range(r, 20, 64);
  p->scale = 0.2F;
  p->dtype_q = p->dtype_out = p->dtype_kv = (splitkv_dtype)rng_range(r, 0, 2);
  p->split_policy = (splitkv_split_policy)(rng_one_in(r, 2) ? 0 : rng_range(r, 1, 3));
  if (p->split_policy == SPLITKV_SPLIT_FIXED_SIZE) p->split_value = rng_range(r, 60, 600);
  if (p->split_policy == SPLITKV_SPLIT_FIXED_COUNT) p->split_value = rng_range(r, 1, 3);
  if (rng_one_in(r, 2)) p->arithmetic = SPLITKV_ARITHMETIC_BF16;
  test_spec_requests(spec, rng_range(r, 1, 4), 0);
  const int64_t longest = rng_one_in(r, 3) ? 60 : 700;
  for (int64_t i = 0; i < spec->n_requests; ++i)
    spec->kv_lens[i] = rng_one_in(r, 3) ? RNG_PICK(r, around) : rng_range(r, 0, longest);
  spec->n_workers = rng_range(r, 1, 9);
  spec->side = rng_one_in(r, 2) ? GUARD_LEFT : GUARD_RIGHT;
}

static bool one_plan(uint64_t seed) {
  static const test_ranges small = {8, 700, 40, 4, 64, 1500};
  static const test_ranges wide = {3, 200, SPLITKV_MAX_HEAD_DIM, 2, 64, 3000};
  static test_spec spec;
  rng r = {seed};
  if (seed % 8 == 0) {
    wide_spec(&spec, &r);
  } else {
    test_spec_random(&spec, &r, seed % 5 == 0 ? &wide : &small);
  }
  if (seed % 3 == 0) test_spec_vary(&spec, &r, (int)(seed / 3 % N_VARIANTS));
  const bool has_rows = seed % 4 == 1 || seed % 4 == 2 || seed % 16 == 0;
  if (has_rows) {
    test_spec_rows(&spec, &r, seed % 5 == 2 ? 150 : 25);
    test_spec_mask(&spec, &r, (int)(seed / 4 % N_MASKS));
  }
  if (seed % 5 == 1) test_spec_quantise(&spec, &r);
  test_batch b;
  test_batch_build(&b, &spec);
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n_isas = test_usable_isas(isas);
  test_batch_use(&b, isas[seed % (uint64_t)n_isas]);
  splitkv_plan *plan = NULL;
  splitkv_error error;
  memset(&error, 0, sizeof error);
  bool ok = CHECK_MSG(splitkv_plan_create(&b.problem, &b.batch, NULL, &plan, &error) == SPLITKV_OK,
                      "%s", error.message);
  const int64_t n_before = n_with_scratch;
  ok = ok && check_plan(&b, plan);
  if (has_rows) n_rows_with_scratch += n_with_scratch - n_before;
  if (!ok) test_batch_print(&b);
  splitkv_plan_destroy(plan);
  test_batch_destroy(&b);
  return ok;
}

int main(int argc, char **argv) {
  const int64_t n = argc > 1 ? strtoll(argv[1], NULL, 10) : 4000;
  const uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
  for (int64_t i = 0; i < n && check_failures() < 5; ++i)
    if (!one_plan(first + (uint64_t)i))
      fprintf(stderr, "  repeat with: test_exact 1 %" PRIu64 "\n", first + (uint64_t)i);
  printf("%" PRId64 " plans needed a workspace, %" PRId64 " of them scratch in it, %" PRId64
         " of these for several query rows\n",
         n_with_workspace, n_with_scratch, n_rows_with_scratch);
  if (n >= 800)
    CHECK(n_with_workspace > n / 5 && n_with_scratch > n / 20 && n_rows_with_scratch > n / 40);
  return check_report("exact workspace");
}
