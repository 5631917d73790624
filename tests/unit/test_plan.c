/* What a plan says about itself, planning again into the same bytes, and merge on its own.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whole text at any capacity: cut off, ended with a zero, nothing behind it written. */
static void explain_truncates(const splitkv_plan *plan, splitkv_text_format format) {
  size_t length = 0;
  CHECK(splitkv_plan_explain(plan, format, NULL, 0, &length, NULL) == SPLITKV_OK && length > 20);
  char *whole = malloc(length + 1), *part = malloc(length + 9);
  if (!CHECK(whole && part)) return;
  CHECK(splitkv_plan_explain(plan, format, whole, length + 1, NULL, NULL) == SPLITKV_OK);
  CHECK(strlen(whole) == length);
  for (size_t capacity = 0; capacity <= length + 1; capacity += capacity < 40 ? 1 : 37) {
    size_t said = 0;
    memset(part, 0x55, length + 9);
    CHECK(splitkv_plan_explain(plan, format, part, capacity, &said, NULL) == SPLITKV_OK);
    const size_t kept = capacity == 0 ? 0 : capacity - 1 < length ? capacity - 1 : length;
    CHECK(said == length && memcmp(part, whole, kept) == 0);
    CHECK(capacity == 0 || part[kept] == '\0');
    CHECK(part[capacity] == 0x55);
  }
  free(whole);
  free(part);
}

/* Brackets balance outside strings, and the keys of the contract are there. */
static void json_is_whole(const splitkv_plan *plan) {
  static char json[65536];
  static const char *const keys[] = {"\"kernel_set\"",      "\"policy\"",  "\"splits\"",
                                     "\"workspace_bytes\"", "\"regions\"", "\"balance\""};
  CHECK(splitkv_plan_explain(plan, SPLITKV_JSON, json, sizeof json, NULL, NULL) == SPLITKV_OK);
  for (size_t i = 0; i < sizeof keys / sizeof keys[0]; ++i)
    CHECK_MSG(strstr(json, keys[i]) != NULL, "%s in %s", keys[i], json);
  int depth = 0, lowest = 1;
  bool in_string = false;
  for (const char *c = json; *c; ++c) {
    if (*c == '"' && (c == json || c[-1] != '\\')) in_string = !in_string;
    depth += in_string ? 0 : (*c == '{' || *c == '[') - (*c == '}' || *c == ']');
    if (depth < lowest && c[1] != '\0' && c[1] != '\n') lowest = depth;
  }
  CHECK(depth == 0 && !in_string && lowest == 1 && json[0] == '{');
}

/* The same batch gives the same plan, also in storage that held something else; init writes the
 * stated bytes at most. */
static void plans_are_pure(const test_batch *b) {
  static char before[65536], after[65536];
  size_t bytes = 0;
  CHECK(splitkv_plan_size(&b->problem, &b->batch, &bytes, NULL) == SPLITKV_OK);
  guard_buffer storage = guard_create(bytes, b->spec.side, SPLITKV_ALIGNMENT);
  for (int fill = 0; fill < 3; ++fill) {
    splitkv_plan *plan = NULL;
    if (fill < 2) memset(storage.data, fill ? 0xff : 0, bytes);
    CHECK(splitkv_plan_init(storage.data, bytes, &b->problem, &b->batch, &plan, NULL) ==
          SPLITKV_OK);
    CHECK((void *)plan == (void *)storage.data && guard_is_intact(&storage));
    CHECK(splitkv_plan_explain(plan, SPLITKV_JSON, fill ? after : before, sizeof before, NULL,
                               NULL) == SPLITKV_OK);
    CHECK(fill == 0 || strcmp(before, after) == 0);
    splitkv_plan_destroy(plan); /* leaves the caller's storage alone */
  }
  guard_destroy(&storage);
}

/* A decode loop: lengths grow by a token each step, every plan goes into the storage that sizes
 * asked for, every run into the workspace that sizes asked for. */
static void decode_loop(void) {
  enum { STEPS = 70, REQUESTS = 5 };
  static test_spec spec;
  static const int64_t starts[REQUESTS] = {0, 1, 60, 127, 300};
  test_spec_init(&spec);
  test_spec_requests(&spec, REQUESTS, 0);
  spec.problem.n_heads_q = 4;
  spec.problem.n_heads_kv = 2;
  spec.problem.head_dim = spec.problem.head_dim_v = 32;
  spec.n_workers = 4;
  splitkv_limits limits;
  splitkv_limits_init(&limits);
  limits.max_requests = REQUESTS;
  limits.max_workers = spec.n_workers;
  for (int i = 0; i < REQUESTS; ++i)
    limits.max_kv_tokens_total += starts[i] + STEPS;
  limits.max_kv_tokens_per_request = 300 + STEPS;
  guard_buffer storage = {0}, workspace = {0};
  for (int64_t step = 0; step <= STEPS; ++step) {
    for (int i = 0; i < REQUESTS; ++i)
      spec.kv_lens[i] = starts[i] + step;
    test_batch b;
    test_batch_build(&b, &spec);
    if (step == 0) {
      splitkv_sizes sizes;
      memset(&sizes, 0, sizeof sizes);
      CHECK(splitkv_get_sizes(&b.problem, &limits, &sizes, NULL) == SPLITKV_OK);
      storage = guard_create(sizes.plan_bytes, GUARD_LEFT, SPLITKV_ALIGNMENT);
      workspace = guard_create(sizes.workspace_bytes, GUARD_LEFT, SPLITKV_ALIGNMENT);
    }
    splitkv_plan *plan = NULL;
    CHECK(splitkv_plan_init(storage.data, storage.size_bytes, &b.problem, &b.batch, &plan, NULL) ==
          SPLITKV_OK);
    CHECK(splitkv_run(plan, &b.problem, &b.tensors, workspace.data, workspace.size_bytes, NULL,
                      NULL) == SPLITKV_OK);
    CHECK(test_batch_compare(&b, NULL));
    test_batch_destroy(&b);
  }
  CHECK(guard_is_intact(&storage) && guard_is_intact(&workspace));
  guard_destroy(&storage);
  guard_destroy(&workspace);
}

static void kernel_sets(void) {
  int n_default = 0;
  const int64_t n = splitkv_kernel_set_count();
  CHECK(n >= 1);
  for (int64_t i = 0; i < n; ++i) {
    splitkv_kernel_set_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    if (!CHECK(splitkv_kernel_set_get(i, &info, NULL) == SPLITKV_OK)) return;
    CHECK(info.name && info.arithmetic && info.needs && info.missing);
    CHECK(strcmp(info.arithmetic, "f32") == 0 ||
          (strcmp(info.arithmetic, "bf16") == 0 && !info.is_default) ||
          (strcmp(info.arithmetic, "int8") == 0 && !info.is_default));
    CHECK((info.is_usable != 0) == (info.missing[0] == '\0'));
    CHECK(!info.is_default || (info.is_usable && n_default == 0));
    n_default += info.is_default != 0;
    if (info.is_default) { /* and it is the one that a plan takes */
      splitkv_problem p;
      splitkv_problem_init(&p);
      p.n_heads_q = p.n_heads_kv = p.head_dim = p.head_dim_v = p.page_size_tokens = 1;
      splitkv_batch batch;
      splitkv_batch_init(&batch);
      splitkv_plan *plan = NULL;
      splitkv_plan_info plan_info;
      plan_info.struct_size = sizeof plan_info;
      CHECK(splitkv_plan_create(&p, &batch, NULL, &plan, NULL) == SPLITKV_OK);
      CHECK(splitkv_plan_get_info(plan, &plan_info, NULL) == SPLITKV_OK);
      CHECK(strcmp(plan_info.kernel_set, info.name) == 0);
      splitkv_plan_destroy(plan);
    }
  }
  CHECK(n_default == 1);
}

/* ── merge ──────────────────────────────────────────────────────────────────────────────────── */

static void merge_of(int64_t n_states, const float *parts, const float *lse_parts, float *out,
                     float *lse) {
  splitkv_merge_args a;
  splitkv_merge_args_init(&a);
  a.n_states = n_states;
  a.n_rows = 1;
  a.head_dim_v = 3;
  a.out_parts = parts;
  a.lse_parts = lse_parts;
  a.out = out;
  a.lse = lse;
  CHECK(splitkv_merge(&a, NULL) == SPLITKV_OK);
}

static void merge_cases(void) {
  const float inf = INFINITY;
  float out[3], lse;
  const float parts[] = {1, 2, -3, 5, 6, 7};
  merge_of(0, NULL, NULL, out, &lse);
  CHECK(out[0] == 0 && out[1] == 0 && out[2] == 0 && lse == -inf);
  const float empty[] = {-inf, -inf};
  merge_of(2, parts, empty, out, &lse);
  CHECK(out[0] == 0 && out[1] == 0 && out[2] == 0 && lse == -inf);
  /* One partial is the result itself; an empty one beside it changes nothing, whatever it holds. */
  const float one[] = {1.75F, -inf};
  merge_of(1, parts, one, out, &lse);
  CHECK(memcmp(out, parts, sizeof out) == 0 && lse == 1.75F);
  const float garbage[] = {1, 2, -3, NAN, NAN, NAN};
  merge_of(2, garbage, one, out, &lse);
  CHECK(memcmp(out, parts, sizeof out) == 0 && lse == 1.75F);
  /* Equal weights: the mean, and ln 2 more. */
  const float equal[] = {10, 10};
  merge_of(2, parts, equal, out, &lse);
  CHECK(out[0] == 3 && out[1] == 4 && out[2] == 2);
  CHECK(fabs((double)lse - 10 - log(2.0)) <= 0x1p-20 * 11);
  /* Far apart: the light one is nothing, and nothing overflows. */
  const float apart[] = {-1000, 3000};
  merge_of(2, parts, apart, out, &lse);
  CHECK(out[0] == 5 && out[1] == 6 && out[2] == 7 && lse == 3000);
  /* NaN goes through, and so does +inf as NaN with lse +inf. */
  const float nan_lse[] = {NAN, 1};
  merge_of(2, parts, nan_lse, out, &lse);
  CHECK(isnan(out[0]) && isnan(out[2]) && isnan(lse));
  const float inf_lse[] = {inf, 1};
  merge_of(2, parts, inf_lse, out, &lse);
  CHECK(lse == inf && isnan(out[0]) && isnan(out[1]));
}

/* No row, and rows of many partials against double. */
static void merge_sums(void) {
  enum { STATES = 1000, ROWS = 3, CHANNELS = 21 };
  static float parts[STATES * ROWS * CHANNELS], lse_parts[STATES * ROWS];
  static float out[ROWS * CHANNELS], lse[ROWS];
  rng r = {5};
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; ++i)
    parts[i] = (float)rng_range(&r, -1000, 1000) / 256;
  for (size_t i = 0; i < sizeof lse_parts / sizeof lse_parts[0]; ++i)
    lse_parts[i] = rng_one_in(&r, 9) ? -INFINITY : (float)rng_range(&r, -2000, 2000) / 256;
  splitkv_merge_args a;
  splitkv_merge_args_init(&a);
  a.n_states = STATES;
  a.n_rows = ROWS;
  a.head_dim_v = CHANNELS;
  a.out_parts = parts;
  a.lse_parts = lse_parts;
  a.out = out;
  a.lse = lse;
  CHECK(splitkv_merge(&a, NULL) == SPLITKV_OK);
  for (int i = 0; i < ROWS; ++i)
    for (int c = 0; c < CHANNELS; ++c) {
      double sum = 0, weight = 0;
      for (int s = 0; s < STATES; ++s) {
        const double w = exp((double)lse_parts[s * ROWS + i]);
        weight += w;
        sum += w * (double)parts[(s * ROWS + i) * CHANNELS + c];
      }
      CHECK_MSG(fabs((double)out[i * CHANNELS + c] - sum / weight) <= 0x1p-19 * 2 * 4,
                "row %d channel %d: %g, %g wanted", i, c, (double)out[i * CHANNELS + c],
                sum / weight);
      CHECK(fabs((double)lse[i] - log(weight)) <= 0x1p-20 * 9);
    }
  a.n_rows = 0;
  CHECK(splitkv_merge(&a, NULL) == SPLITKV_OK);
}

int main(void) {
  const test_ranges ranges = {8, 700, 64, 4, 16, 3000};
  static test_spec spec;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    rng r = {seed};
    test_spec_random(&spec, &r, &ranges);
    test_batch b;
    test_batch_build(&b, &spec);
    splitkv_plan *plan = NULL;
    if (CHECK(splitkv_plan_create(&b.problem, &b.batch, NULL, &plan, NULL) == SPLITKV_OK)) {
      explain_truncates(plan, SPLITKV_TEXT);
      explain_truncates(plan, SPLITKV_JSON);
      json_is_whole(plan);
      plans_are_pure(&b);
    }
    splitkv_plan_destroy(plan);
    test_batch_destroy(&b);
  }
  decode_loop();
  kernel_sets();
  merge_cases();
  merge_sums();
  return check_report("plan");
}
