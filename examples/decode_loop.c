/* A decode loop: all memory is taken once, before the first batch is known. Every step appends one
 * token to each request's cache, its K rotated to its position, plans into the same bytes and runs
 * on a pool of two threads.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <splitkv/append.h>
#include <splitkv/threads.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { REQUESTS = 4, HEADS_Q = 8, HEADS_KV = 2, DIM = 64, PAGE = 16, ROW_PAGES = 16 };
enum { PAGES = REQUESTS * ROW_PAGES, MAX_TOKENS = ROW_PAGES * PAGE, STEPS = 200, THREADS = 2 };

static float k[PAGES * PAGE][HEADS_KV * DIM], v[PAGES * PAGE][HEADS_KV * DIM];
static float q[REQUESTS * HEADS_Q * DIM], out[REQUESTS * HEADS_Q * DIM];
static int32_t table[REQUESTS][ROW_PAGES];
static int64_t kv_lens[REQUESTS] = {1, 40, 7, 0};
static float k_new[REQUESTS * HEADS_KV * DIM], v_new[REQUESTS * HEADS_KV * DIM];
static float cosines[MAX_TOKENS][DIM / 2], sines[MAX_TOKENS][DIM / 2];

static void must(splitkv_status status, const splitkv_error *error) {
  if (status != SPLITKV_OK) {
    fprintf(stderr, "%s: %s\n", splitkv_status_name(status), error->message);
    exit(1);
  }
}

static void fill(float *x, int n) { /* stands for the model: numbers in -0.5 .. 0.5 */
  static uint32_t state = 1;
  for (int i = 0; i < n; i++) {
    state = state * 1664525u + 1013904223u;
    x[i] = (float)(state >> 8) / 16777216.0f - 0.5f;
  }
}

int main(void) {
  splitkv_error error;
  splitkv_problem problem; /* f32, [pages, page_size, heads, dim], dense int32 table */
  splitkv_problem_init(&problem);
  problem.n_heads_q = HEADS_Q, problem.n_heads_kv = HEADS_KV;
  problem.head_dim = problem.head_dim_v = DIM;
  problem.page_size_tokens = PAGE, problem.n_pages = PAGES, problem.table_width = ROW_PAGES;
  splitkv_limits limits;
  splitkv_limits_init(&limits);
  limits.max_requests = REQUESTS, limits.max_workers = THREADS;
  limits.max_kv_tokens_per_request = MAX_TOKENS;
  limits.max_kv_tokens_total = REQUESTS * MAX_TOKENS;

  splitkv_sizes sizes;
  must(splitkv_get_sizes(&problem, &limits, &sizes, &error), &error);
  size_t plan_room = (sizes.plan_bytes + 63) / 64 * 64; /* aligned_alloc wants whole multiples */
  char *memory = aligned_alloc(SPLITKV_ALIGNMENT, plan_room + sizes.workspace_bytes / 64 * 64 + 64);
  if (memory == NULL) {
    return 1;
  }
  splitkv_threads *threads;
  must(splitkv_threads_create(THREADS, &threads, &error), &error);

  splitkv_batch batch;
  splitkv_batch_init(&batch);
  batch.n_requests = REQUESTS, batch.n_workers = THREADS;
  batch.kv_lens = kv_lens, batch.kv_lens_type = SPLITKV_I64;
  splitkv_tensors tensors;
  splitkv_tensors_init(&tensors);
  tensors.q = q, tensors.k = k, tensors.v = v, tensors.block_table = table, tensors.out = out;

  for (int t = 0; t < MAX_TOKENS; t++) {
    for (int i = 0; i < DIM / 2; i++) {
      double angle = t * pow(10000, -2.0 * i / DIM);
      cosines[t][i] = (float)cos(angle), sines[t][i] = (float)sin(angle);
    }
  }
  int64_t slots[REQUESTS], positions[REQUESTS];
  splitkv_append_args args;
  splitkv_append_args_init(&args);
  args.n_tokens = REQUESTS, args.k_new = k_new, args.v_new = v_new, args.k = k, args.v = v;
  args.slot_mapping = slots, args.slot_type = SPLITKV_I64;
  args.rotary_dim = DIM, args.cos = cosines[0], args.sin = sines[0], args.n_positions = MAX_TOKENS;
  args.positions = positions, args.position_type = SPLITKV_I64;

  for (int i = 0; i < PAGES; i++) {
    table[i / ROW_PAGES][i % ROW_PAGES] = (i * 37 + 11) % PAGES; /* pages in no order */
  }
  double checksum = 0;
  for (int step = 0; step < STEPS; step++) {
    fill(q, REQUESTS * HEADS_Q * DIM); /* rotated as K is, where a model makes it */
    fill(k_new, REQUESTS * HEADS_KV * DIM);
    fill(v_new, REQUESTS * HEADS_KV * DIM);
    for (int r = 0; r < REQUESTS; r++) { /* one token goes to the request's last page */
      positions[r] = kv_lens[r]++;
      slots[r] = table[r][positions[r] / PAGE] * (int64_t)PAGE + positions[r] % PAGE;
    }
    must(splitkv_append(&problem, &args, splitkv_threads_pool(threads), &error), &error);
    splitkv_plan *plan;
    must(splitkv_plan_init(memory, plan_room, &problem, &batch, &plan, &error), &error);
    must(splitkv_run(plan, &problem, &tensors, memory + plan_room, sizes.workspace_bytes,
                     splitkv_threads_pool(threads), &error),
         &error);
    for (int i = 0; i < REQUESTS * HEADS_Q * DIM; i++) {
      checksum += (double)out[i];
    }
  }
  printf("%d steps, plan %zu bytes, workspace %zu bytes, checksum %.9f\n", STEPS, sizes.plan_bytes,
         sizes.workspace_bytes, checksum);
  splitkv_threads_destroy(threads);
  free(memory);
}
