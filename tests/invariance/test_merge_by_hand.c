/* Cutting requests by hand, running the pieces as requests of their own and merging them gives
 * FIXED_SIZE's bits: of what is inside a window, and with the sinks as one more state at the end.
 * (Not with ALiBi: a piece counts its positions from its own end.)
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

/* Request r of `whole` becomes a batch of its own with one request per piece of `size` tokens, and
 * `n_empty` requests without tokens at random places. */
static void cut(const test_spec *whole, int64_t r, int64_t size, int64_t n_empty, rng *random,
                test_spec *pieces) {
  *pieces = *whole;
  pieces->n_requests = 0;
  int64_t at = test_tokens_before(whole, whole->kv_lens[r]);
  while (at < whole->kv_lens[r] || n_empty > 0) {
    const int64_t i = pieces->n_requests++;
    const int64_t left = whole->kv_lens[r] - at;
    const bool empty = n_empty > 0 && (left == 0 || rng_one_in(random, 4));
    pieces->sources[i] = whole->sources[r];
    pieces->first_tokens[i] = whole->first_tokens[r] + at;
    pieces->kv_lens[i] = empty ? 0 : left < size ? left : size;
    at += pieces->kv_lens[i];
    n_empty -= empty;
  }
  pieces->problem.window_tokens = 0;
  pieces->problem.flags &= ~SPLITKV_FLAG_SINKS;
  pieces->problem.split_policy = SPLITKV_SPLIT_NONE;
  pieces->problem.split_value = 0;
  pieces->problem.dtype_out = SPLITKV_F32;
  pieces->problem.out_stride_head = pieces->problem.out_stride_request = 0;
}

/* The states of the pieces, and where there are sinks one more: out 0 and lse the sink. */
static int64_t gather(const test_batch *whole, const test_batch *pieces, float **out, float **lse) {
  const int64_t heads = whole->problem.n_heads_q, n = pieces->spec.n_requests;
  const size_t row = (size_t)whole->problem.head_dim_v;
  *out = calloc((size_t)((n + 1) * heads) * row, sizeof **out);
  *lse = calloc((size_t)((n + 1) * heads), sizeof **lse);
  if (!*out || !*lse) exit(2);
  if (n > 0) {
    memcpy(*out, pieces->out.data, pieces->out.size_bytes);
    memcpy(*lse, pieces->lse.data, pieces->lse.size_bytes);
  }
  if (!whole->tensors.sinks) return n;
  memcpy(*lse + n * heads, whole->tensors.sinks, (size_t)heads * sizeof **lse);
  return n + 1;
}

/* Merges what the pieces gave and compares with the rows of request r. */
static void merge_and_compare(const test_batch *whole, int64_t r, const test_batch *pieces) {
  const int64_t heads = whole->problem.n_heads_q, dv = whole->problem.head_dim_v;
  const size_t row = test_row_bytes(whole);
  guard_buffer out = guard_create((size_t)heads * row, whole->spec.side, 1);
  guard_buffer lse = guard_create((size_t)heads * sizeof(float), whole->spec.side, 1);
  memset(out.data, 0xee, out.size_bytes);
  splitkv_merge_args args;
  splitkv_merge_args_init(&args);
  float *out_parts = NULL, *lse_parts = NULL;
  args.n_states = gather(whole, pieces, &out_parts, &lse_parts);
  args.n_rows = heads;
  args.head_dim_v = dv;
  args.out_parts = out_parts;
  args.lse_parts = lse_parts;
  args.dtype_out = whole->problem.dtype_out;
  args.out = out.data;
  args.lse = (float *)(void *)lse.data;
  splitkv_error error;
  memset(&error, 0, sizeof error);
  const splitkv_status status = splitkv_merge(&args, &error);
  bool same = CHECK_MSG(status == SPLITKV_OK, "%s", error.message);
  for (int64_t h = 0; same && h < heads; ++h)
    same = memcmp(out.data + (size_t)h * row, test_out_row(whole, r * heads + h), row) == 0 &&
           memcmp(args.lse + h, whole->tensors.lse + r * heads + h, sizeof(float)) == 0;
  if (!CHECK_MSG(same, "request %" PRId64 " in %" PRId64 " pieces", r, args.n_states))
    test_batch_print(whole);
  CHECK(guard_is_intact(&out) && guard_is_intact(&lse));
  guard_destroy(&out);
  guard_destroy(&lse);
  free(out_parts);
  free(lse_parts);
}

static void one_problem(uint64_t seed) {
  const test_ranges ranges = {4, 1500, 300, 3, 12, 20000};
  static test_spec spec, piece_spec;
  rng r = {seed};
  test_spec_random(&spec, &r, &ranges);
  if (seed % 2) test_spec_vary(&spec, &r, (int)(seed / 2 % N_VARIANTS) & ~VARIANT_ALIBI);
  if (seed % 5 == 2) test_spec_quantise(&spec, &r);
  spec.no_lse = false;
  spec.problem.split_policy = SPLITKV_SPLIT_FIXED_SIZE;
  spec.problem.split_value = rng_range(&r, 8, 500);
  test_batch whole;
  test_batch_build(&whole, &spec);
  if (test_batch_run(&whole, NULL))
    for (int64_t i = 0; i < spec.n_requests; ++i) {
      test_batch pieces;
      cut(&spec, i, spec.problem.split_value, rng_one_in(&r, 2) ? 0 : rng_range(&r, 1, 3), &r,
          &piece_spec);
      test_batch_build(&pieces, &piece_spec);
      if (test_batch_run(&pieces, NULL)) merge_and_compare(&whole, i, &pieces);
      test_batch_destroy(&pieces);
    }
  test_batch_destroy(&whole);
}

int main(int argc, char **argv) {
  const int64_t n = argc > 1 ? strtoll(argv[1], NULL, 10) : 300;
  const uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
  for (int64_t i = 0; i < n && check_failures() == 0; ++i) {
    one_problem(first + (uint64_t)i);
    if (check_failures() > 0)
      fprintf(stderr, "  repeat with: test_merge_by_hand 1 %" PRIu64 "\n", first + (uint64_t)i);
  }
  return check_report("merge by hand");
}
