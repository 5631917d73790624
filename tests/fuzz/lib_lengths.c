/* Fuzzes plan with any batch of lengths for a good problem, and runs what is small.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * K is 0, V is 1: every output of a request with tokens is 1 and its lse ln kv_len, of one without
 * 0 and -inf, however it was cut. */
#define _POSIX_C_SOURCE 200809L /* posix_memalign */
#include "lib_plan_check.h"

#include <math.h>

enum { MAX_REQUESTS = 64, PAGE = 4, MAX_RUN_TOKENS = 3000, HEADS = 4, DIM = 3 };

typedef struct batch {
  splitkv_batch b;
  int64_t lens[MAX_REQUESTS];
  int32_t lens32[MAX_REQUESTS];
  int64_t tokens; /* -1: some length is negative or the sum is large */
} batch;

static void read_batch(fuzz_input *in, batch *x) {
  splitkv_batch_init(&x->b);
  x->b.n_workers = fuzz_range(in, 1, 200);
  x->b.kv_lens_type = (splitkv_index_type)fuzz_range(in, 0, 1);
  x->b.n_requests = fuzz_range(in, 0, MAX_REQUESTS);
  x->b.kv_lens = x->b.kv_lens_type == SPLITKV_I64 ? (const void *)x->lens : (const void *)x->lens32;
  x->tokens = 0;
  for (int64_t i = 0; i < x->b.n_requests; ++i) {
    x->lens[i] = fuzz_number(in);
    x->lens32[i] = (int32_t)(uint32_t)(uint64_t)x->lens[i];
    if (x->b.kv_lens_type == SPLITKV_I32) x->lens[i] = x->lens32[i];
    if (x->lens[i] < 0 || x->lens[i] > INT64_MAX / 4096) x->tokens = -1;
    if (x->tokens >= 0) x->tokens += x->lens[i];
  }
}

static void check_result(const batch *x, const float *out, const float *lse) {
  for (int64_t r = 0; r < x->b.n_requests; ++r)
    for (int64_t h = 0; h < HEADS; ++h) {
      const int64_t row = r * HEADS + h;
      for (int64_t c = 0; c < DIM; ++c)
        FUZZ_CHECK(fabsf(out[row * DIM + c] - (x->lens[r] > 0 ? 1.0F : 0.0F)) <= 0x1p-19F);
      if (x->lens[r] == 0)
        FUZZ_CHECK(isinf(lse[row]) && lse[row] < 0);
      else
        FUZZ_CHECK(fabs((double)lse[row] - log((double)x->lens[r])) <= 0x1p-20);
    }
}

/* One page of zeros and ones for all; workspace, out and lse of exactly their sizes. */
static void run(const splitkv_problem *p, const batch *x, const splitkv_plan *plan) {
  static const float q[MAX_REQUESTS * HEADS * DIM], k[PAGE * 2 * DIM];
  static const int32_t table[MAX_RUN_TOKENS + MAX_REQUESTS];
  float v[PAGE * 2 * DIM];
  int32_t offsets[MAX_REQUESTS + 1] = {0};
  for (size_t i = 0; i < sizeof v / sizeof v[0]; ++i)
    v[i] = 1;
  for (int64_t r = 0; r < x->b.n_requests; ++r)
    offsets[r + 1] = offsets[r] + (int32_t)((x->lens[r] + PAGE - 1) / PAGE);
  const size_t rows = (size_t)(x->b.n_requests * HEADS), bytes = splitkv_plan_workspace_bytes(plan);
  float *out = malloc(rows * DIM * sizeof *out + 1), *lse = malloc(rows * sizeof *lse + 1);
  void *workspace = NULL;
  if (!out || !lse || posix_memalign(&workspace, SPLITKV_ALIGNMENT, bytes + 1) != 0) abort();
  splitkv_tensors t;
  splitkv_tensors_init(&t);
  t.q = q;
  t.k = k;
  t.v = v;
  t.block_table = table;
  t.table_offsets = offsets;
  t.table_entries = offsets[x->b.n_requests];
  t.out = out;
  t.lse = lse;
  FUZZ_CHECK(splitkv_run(plan, p, &t, workspace, bytes, NULL, NULL) == SPLITKV_OK);
  check_result(x, out, lse);
  free(out);
  free(lse);
  free(workspace);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_input in = {data, size};
  splitkv_problem p;
  splitkv_problem_init(&p);
  p.n_heads_q = HEADS;
  p.n_heads_kv = 2;
  p.head_dim = p.head_dim_v = DIM;
  p.page_size_tokens = PAGE;
  p.n_pages = 1;
  p.table_format = SPLITKV_TABLE_CSR;
  p.split_policy = (splitkv_split_policy)fuzz_range(&in, 0, 3);
  const int64_t value = fuzz_number(&in);
  if (p.split_policy == SPLITKV_SPLIT_FIXED_SIZE || p.split_policy == SPLITKV_SPLIT_FIXED_COUNT)
    p.split_value = value > 0 && value <= INT32_MAX ? value : 1;
  batch x;
  read_batch(&in, &x);
  splitkv_error error;
  splitkv_plan *plan = NULL;
  const splitkv_status status = splitkv_plan_create(&p, &x.b, NULL, &plan, &error);
  check_error(status, &error);
  if (status != SPLITKV_OK) {
    FUZZ_CHECK(status == SPLITKV_ERROR_KV_LEN || status == SPLITKV_ERROR_OVERFLOW);
    FUZZ_CHECK(x.tokens < 0 || x.tokens > INT64_MAX / 8192);
    return 0;
  }
  if (x.tokens >= 0) check_plan(plan, x.tokens, p.n_heads_kv);
  if (x.tokens >= 0 && x.tokens <= MAX_RUN_TOKENS) run(&p, &x, plan);
  splitkv_plan_destroy(plan);
  return 0;
}
