/* Bounds from limits alone: never below any plan within the limits, monotone, and exact formulas
 * where the contract gives them.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "check.h"
#include "rng.h"

#include <splitkv/splitkv.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_REQUESTS = 300 };

static void random_problem(splitkv_problem *p, rng *r) {
  static const int64_t widths[] = {1, 17, 64, 128, 192, 256, 512, 576};
  splitkv_problem_init(p);
  p->n_heads_kv = rng_range(r, 1, 9);
  p->n_heads_q = p->n_heads_kv * rng_range(r, 1, rng_one_in(r, 5) ? 128 : 17);
  p->head_dim = RNG_PICK(r, widths);
  p->head_dim_v = RNG_PICK(r, widths);
  p->scale = 0.5F;
  p->page_size_tokens = rng_range(r, 1, 300);
  p->n_pages = rng_range(r, 0, 1000);
  p->table_format = SPLITKV_TABLE_CSR;
  p->split_policy = (splitkv_split_policy)rng_range(r, 0, 3);
  if (p->split_policy == SPLITKV_SPLIT_FIXED_SIZE)
    p->split_value = rng_one_in(r, 3) ? rng_range(r, 1, 20000) : rng_range(r, 16, 400);
  if (p->split_policy == SPLITKV_SPLIT_FIXED_COUNT) p->split_value = rng_range(r, 1, 40);
  if (rng_one_in(r, 3)) p->window_tokens = rng_range(r, 1, rng_one_in(r, 2) ? 200 : 20000);
  if (rng_one_in(r, 3)) p->flags |= SPLITKV_FLAG_CAUSAL;
  if (!(p->flags & SPLITKV_FLAG_CAUSAL) && rng_one_in(r, 3))
    p->window_right_tokens = rng_range(r, 1, rng_one_in(r, 2) ? 50 : 5000);
  if (rng_one_in(r, 4)) p->chunk_tokens = rng_range(r, 1, rng_one_in(r, 2) ? 200 : 20000);
  if (rng_one_in(r, 4)) p->tree_tokens = rng_range(r, 1, 200);
  if (rng_one_in(r, 2)) { /* the class bf16 where there is one: its Q does not grow evenly */
    p->dtype_kv = SPLITKV_BF16;
    p->dtype_q = rng_one_in(r, 2) ? SPLITKV_BF16 : SPLITKV_F32;
    p->arithmetic = SPLITKV_ARITHMETIC_BF16;
  } else if (rng_one_in(r, 3)) {
    p->dtype_kv = (splitkv_dtype)rng_range(r, SPLITKV_INT8, SPLITKV_FP8_E5M2);
    p->k_scale_mode = (splitkv_scale_mode)rng_range(r, 0, SPLITKV_SCALE_GROUP64);
    p->v_scale_mode = (splitkv_scale_mode)rng_range(r, 0, SPLITKV_SCALE_GROUP64);
  }
}

/* Tokens that the one query row of a request reaches: it stands at the last one. */
static int64_t inside(const splitkv_problem *p, int64_t kv_len) {
  const int64_t n = p->window_tokens > 0 && p->window_tokens < kv_len ? p->window_tokens : kv_len;
  const int64_t in_chunk =
      p->chunk_tokens > 0 && kv_len > 0 ? (kv_len - 1) % p->chunk_tokens + 1 : kv_len;
  return in_chunk < n ? in_chunk : n;
}

/* Query rows of each request; offsets has one number more than requests. */
static void random_offsets(int64_t *offsets, int64_t n, rng *r) {
  const int64_t most = rng_one_in(r, 3) ? 400 : 12, kind = rng_range(r, 0, 2);
  offsets[0] = 0;
  for (int64_t i = 0; i < n; ++i)
    offsets[i + 1] = offsets[i] + (kind == 0                       ? rng_range(r, 0, most)
                                   : kind == 1 && rng_one_in(r, n) ? most
                                                                   : rng_range(r, 0, 2));
}

/* Lengths of many kinds: all equal, ragged, one long among short, many empty. */
static int64_t random_lens(int64_t *lens, rng *r) {
  const int64_t n = rng_one_in(r, 10) ? 0 : rng_range(r, 1, rng_one_in(r, 4) ? MAX_REQUESTS : 20);
  const int64_t most = rng_one_in(r, 3) ? 3000 : 100;
  const int64_t kind = rng_range(r, 0, 3);
  for (int64_t i = 0; i < n; ++i)
    lens[i] = kind == 0          ? most
              : kind == 1        ? rng_range(r, 0, most)
              : rng_one_in(r, n) ? 40 * most
              : kind == 2        ? rng_range(r, 0, 3)
                                 : 0;
  return n;
}

/* offsets: NULL, or of query rows. */
static splitkv_limits tight_limits(const int64_t *lens, const int64_t *offsets, int64_t n,
                                   int64_t n_workers) {
  splitkv_limits limits;
  splitkv_limits_init(&limits);
  limits.max_requests = n;
  limits.max_workers = n_workers;
  for (int64_t i = 0; i < n; ++i) {
    limits.max_kv_tokens_total += lens[i];
    if (lens[i] > limits.max_kv_tokens_per_request) limits.max_kv_tokens_per_request = lens[i];
    const int64_t rows = offsets != NULL ? offsets[i + 1] - offsets[i] : 0;
    limits.max_q_rows_total += rows;
    if (rows > limits.max_q_rows_per_request) limits.max_q_rows_per_request = rows;
  }
  return limits;
}

static splitkv_limits widened(splitkv_limits limits, rng *r) {
  int64_t *const fields[] = {&limits.max_requests, &limits.max_kv_tokens_total,
                             &limits.max_kv_tokens_per_request};
  for (int i = 0; i < 3; ++i)
    if (rng_one_in(r, 2)) *fields[i] += rng_range(r, 0, rng_one_in(r, 3) ? 1000000 : 40);
  if (rng_one_in(r, 2) && limits.max_workers < 60000) limits.max_workers += rng_range(r, 0, 100);
  int64_t *const rows[] = {&limits.max_q_rows_total, &limits.max_q_rows_per_request};
  for (int i = 0; i < 2; ++i) /* 0 is no small number here */
    if (*rows[i] > 0 && rng_one_in(r, 2)) *rows[i] += rng_range(r, 0, rng_one_in(r, 3) ? 5000 : 9);
  return limits;
}

/* Most slots of AUTO: two for each worker, where cuts go through all KV heads at one token of each
 * of them. That is so in decode where the heads of a token lie side by side and a task has 512
 * tokens of all of them, what a request costs beside its tokens counted as 16. */
static int64_t most_slots(const splitkv_problem *p, int64_t tokens, int64_t n_requests,
                          int64_t n_tasks, int64_t n_workers) {
  const bool abreast = p->layout == SPLITKV_LAYOUT_NHD && p->n_heads_kv > 1;
  const bool is_level = abreast && n_tasks > 0 && (tokens + 16 * n_requests) / n_tasks >= 512;
  return 2 * n_workers * (is_level ? p->n_heads_kv : 1);
}

static void check_policy(const splitkv_problem *p, const int64_t *lens, int64_t n,
                         int64_t n_workers, const splitkv_plan_info *info) {
  int64_t pieces = 0, tokens = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t length = inside(p, lens[i]);
    tokens += length;
    if (length > 0)
      pieces += p->split_policy == SPLITKV_SPLIT_FIXED_SIZE
                    ? (length + p->split_value - 1) / p->split_value
                : p->split_policy == SPLITKV_SPLIT_FIXED_COUNT
                    ? (length < p->split_value ? length : p->split_value)
                    : 1;
  }
  if (p->split_policy == SPLITKV_SPLIT_AUTO)
    CHECK_MSG(info->n_slots <= most_slots(p, tokens, n, info->n_tasks, n_workers),
              "%" PRId64 " slots, %" PRId64 " workers", info->n_slots, n_workers);
  else
    CHECK_MSG(info->n_splits == pieces * p->n_heads_kv, "%" PRId64 " splits, %" PRId64 " wanted",
              info->n_splits, pieces * p->n_heads_kv);
  if (p->split_policy == SPLITKV_SPLIT_FIXED_SIZE) CHECK(info->n_slots <= pieces * p->n_heads_kv);
}

static void check_slots(const splitkv_problem *p, const splitkv_plan_info *info) {
  const int64_t group = p->n_heads_q / p->n_heads_kv;
  if (p->split_policy == SPLITKV_SPLIT_NONE) CHECK(info->n_slots == 0 && info->n_merges == 0);
  const size_t slots = (size_t)info->n_slots * (size_t)(group * (p->head_dim_v + 2)) * 4;
  CHECK(info->workspace_bytes >= slots);
  if (info->stack_bytes > 0) /* scratch lies on the stack: slots and one alignment gap at most */
    CHECK(info->workspace_bytes - slots < SPLITKV_ALIGNMENT);
}

/* Work of all tasks is the work of the batch. */
static void check_tasks(const splitkv_plan *plan, const splitkv_problem *p, const int64_t *lens,
                        const splitkv_limits *tight, const splitkv_plan_info *info) {
  int64_t tokens = 0, most = 0, wanted = 0;
  for (int64_t i = 0; i < info->n_requests; ++i)
    wanted += inside(p, lens[i]) * p->n_heads_kv;
  for (int64_t i = 0; i < info->n_tasks; ++i) {
    splitkv_task_info task;
    task.struct_size = sizeof task;
    if (!CHECK(splitkv_plan_get_task(plan, i, &task, NULL) == SPLITKV_OK)) return;
    tokens += task.kv_tokens;
    most = task.kv_tokens > most ? task.kv_tokens : most;
  }
  CHECK_MSG(tokens == wanted, "tasks read %" PRId64 " of %" PRId64, tokens, wanted);
  CHECK(info->n_tasks <= tight->max_workers);
  /* AUTO: equal cost. Where tokens are nearly all of it, no task has much more than its share. */
  const int64_t items = tight->max_requests * p->n_heads_kv;
  if (p->split_policy == SPLITKV_SPLIT_AUTO && tokens >= 2000 * info->n_tasks &&
      items * 200 <= tokens)
    CHECK_MSG(most * info->n_tasks <= tokens + tokens / 4,
              "largest task %" PRId64 " of %" PRId64 " tokens, %" PRId64 " tasks", most, tokens,
              info->n_tasks);
}

static void one_batch(uint64_t seed) {
  static int64_t lens[MAX_REQUESTS], offsets[MAX_REQUESTS + 1];
  rng r = {seed};
  splitkv_problem p;
  random_problem(&p, &r);
  const int64_t n = random_lens(lens, &r);
  splitkv_batch batch;
  splitkv_batch_init(&batch);
  batch.n_requests = n;
  batch.kv_lens = lens;
  batch.kv_lens_type = SPLITKV_I64;
  batch.n_workers = rng_range(&r, 1, rng_one_in(&r, 8) ? 2000 : 40);
  if (rng_one_in(&r, 2)) {
    random_offsets(offsets, n, &r);
    batch.q_offsets = offsets;
    batch.q_offsets_type = SPLITKV_I64;
  }
  splitkv_plan *plan = NULL;
  splitkv_error error;
  memset(&error, 0, sizeof error);
  if (!CHECK_MSG(splitkv_plan_create(&p, &batch, NULL, &plan, &error) == SPLITKV_OK,
                 "seed %" PRIu64 ": %s", seed, error.message))
    return;
  splitkv_plan_info info;
  info.struct_size = sizeof info;
  CHECK(splitkv_plan_get_info(plan, &info, NULL) == SPLITKV_OK);
  size_t plan_bytes = 0;
  CHECK(splitkv_plan_size(&p, &batch, &plan_bytes, NULL) == SPLITKV_OK);
  CHECK(plan_bytes == info.plan_bytes);
  const splitkv_limits tight = tight_limits(lens, batch.q_offsets, n, batch.n_workers);
  if (batch.q_offsets == NULL) {
    check_policy(&p, lens, n, batch.n_workers, &info);
    check_tasks(plan, &p, lens, &tight, &info);
  }
  check_slots(&p, &info);
  splitkv_sizes last = {0, 0};
  last.plan_bytes = info.plan_bytes;
  last.workspace_bytes = info.workspace_bytes;
  splitkv_limits limits = tight;
  for (int i = 0; i < 6; ++i) {
    splitkv_sizes sizes;
    memset(&sizes, 0, sizeof sizes);
    if (!CHECK_MSG(splitkv_get_sizes(&p, &limits, &sizes, &error) == SPLITKV_OK, "%s",
                   error.message))
      break;
    CHECK_MSG(sizes.plan_bytes >= last.plan_bytes && sizes.workspace_bytes >= last.workspace_bytes,
              "seed %" PRIu64 " step %d: plan %zu after %zu, workspace %zu after %zu", seed, i,
              sizes.plan_bytes, last.plan_bytes, sizes.workspace_bytes, last.workspace_bytes);
    last = sizes;
    limits = widened(limits, &r);
  }
  splitkv_plan_destroy(plan);
}

/* The pull request's largest case: 46 MB of partials there, to the byte here with the same cuts,
 * and kilobytes with AUTO. */
static void largest_case(void) {
  static int64_t lens[256];
  for (int i = 0; i < 256; ++i)
    lens[i] = 8192;
  splitkv_problem p;
  splitkv_problem_init(&p);
  p.n_heads_q = 16;
  p.n_heads_kv = 1;
  p.head_dim = p.head_dim_v = 128;
  p.page_size_tokens = 128;
  p.n_pages = 256 * 64;
  p.table_width = 64;
  p.dtype_q = p.dtype_kv = p.dtype_out = SPLITKV_F16;
  splitkv_batch batch;
  splitkv_batch_init(&batch);
  batch.n_requests = 256;
  batch.kv_lens = lens;
  batch.kv_lens_type = SPLITKV_I64;
  batch.n_workers = 24;
  for (int64_t count = 2; count <= 22; count += 5) {
    p.split_policy = SPLITKV_SPLIT_FIXED_COUNT;
    p.split_value = count;
    splitkv_plan *plan = NULL;
    if (!CHECK(splitkv_plan_create(&p, &batch, NULL, &plan, NULL) == SPLITKV_OK)) return;
    CHECK_MSG(splitkv_plan_workspace_bytes(plan) == (size_t)(256 * count * 16 * (128 + 2) * 4),
              "count %" PRId64 ": %zu bytes", count, splitkv_plan_workspace_bytes(plan));
    splitkv_plan_destroy(plan);
  }
  p.split_policy = SPLITKV_SPLIT_AUTO;
  p.split_value = 0;
  splitkv_plan *plan = NULL;
  if (!CHECK(splitkv_plan_create(&p, &batch, NULL, &plan, NULL) == SPLITKV_OK)) return;
  CHECK_MSG(splitkv_plan_workspace_bytes(plan) <= 400 * 1024, "AUTO: %zu bytes",
            splitkv_plan_workspace_bytes(plan));
  splitkv_plan_info info;
  info.struct_size = sizeof info;
  CHECK(splitkv_plan_get_info(plan, &info, NULL) == SPLITKV_OK);
  CHECK_MSG(info.balance > 0.98 && info.balance <= 1, "balance %g", info.balance);
  splitkv_plan_destroy(plan);
}

/* Heads 32/8 of 128 channels, with a CSR table. */
static splitkv_problem gqa_problem(void) {
  splitkv_problem p;
  splitkv_problem_init(&p);
  p.n_heads_q = 32;
  p.n_heads_kv = 8;
  p.head_dim = p.head_dim_v = 128;
  p.page_size_tokens = 64;
  p.n_pages = 100000;
  p.table_format = SPLITKV_TABLE_CSR;
  return p;
}

static splitkv_batch batch_of(const int64_t *lens, int64_t n) {
  splitkv_batch batch;
  splitkv_batch_init(&batch);
  batch.n_requests = n;
  batch.kv_lens = lens;
  batch.kv_lens_type = SPLITKV_I64;
  return batch;
}

/* One long request among short ones is shared by all workers. */
static void ragged_case(void) {
  static int64_t lens[64];
  for (int i = 0; i < 64; ++i)
    lens[i] = 512;
  lens[17] = 131072;
  splitkv_problem p = gqa_problem();
  splitkv_batch batch = batch_of(lens, 64);
  for (int64_t i = 0; i < 14; ++i) {
    const int64_t workers = 1 << i % 7, heads = i < 7 ? p.n_heads_kv : 1; /* of a cut */
    p.layout = i < 7 ? SPLITKV_LAYOUT_NHD : SPLITKV_LAYOUT_HND;
    batch.n_workers = workers;
    splitkv_plan *plan = NULL;
    if (!CHECK(splitkv_plan_create(&p, &batch, NULL, &plan, NULL) == SPLITKV_OK)) return;
    splitkv_plan_info info;
    info.struct_size = sizeof info;
    CHECK(splitkv_plan_get_info(plan, &info, NULL) == SPLITKV_OK);
    CHECK_MSG(info.balance > 0.95, "%" PRId64 " workers: balance %g", workers, info.balance);
    CHECK(info.n_tasks == workers && info.n_slots <= 2 * (workers - 1) * heads);
    splitkv_plan_destroy(plan);
  }
}

/* What a window leaves out costs nothing: the plan and the bound are those of the window. */
static void windowed_case(void) {
  static int64_t lens[64];
  splitkv_problem p = gqa_problem();
  splitkv_batch batch = batch_of(lens, 64);
  batch.n_workers = 24;
  for (int policy = 0; policy < 4; ++policy) {
    size_t bytes[2] = {0, 0}, bound[2] = {0, 0};
    p.split_policy = (splitkv_split_policy)policy;
    p.split_value = policy == 1 ? 1000 : policy == 2 ? 7 : 0;
    for (int windowed = 0; windowed < 2; ++windowed) {
      for (int i = 0; i < 64; ++i)
        lens[i] = windowed ? 4096 + i * i * 100 : 4096;
      p.window_tokens = windowed ? 4096 : 0;
      splitkv_plan *plan = NULL;
      if (!CHECK(splitkv_plan_create(&p, &batch, NULL, &plan, NULL) == SPLITKV_OK)) return;
      bytes[windowed] = splitkv_plan_workspace_bytes(plan);
      splitkv_plan_destroy(plan);
      const splitkv_limits limits = tight_limits(lens, NULL, 64, batch.n_workers);
      splitkv_sizes sizes;
      CHECK(splitkv_get_sizes(&p, &limits, &sizes, NULL) == SPLITKV_OK);
      bound[windowed] = sizes.workspace_bytes;
    }
    CHECK_MSG(bytes[0] == bytes[1] && bound[0] == bound[1], "policy %d: %zu and %zu, %zu and %zu",
              policy, bytes[0], bytes[1], bound[0], bound[1]);
  }
}

int main(void) {
  for (uint64_t seed = 1; seed <= 4000 && check_failures() < 10; ++seed)
    one_batch(seed);
  largest_case();
  ragged_case();
  windowed_case();
  return check_report("bound");
}
