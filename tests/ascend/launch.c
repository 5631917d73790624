/* SPDX-License-Identifier: Apache-2.0 */
#include "launch.h"

#include "check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void *memory_of(size_t bytes) {
  void *memory = malloc(bytes > 0 ? bytes : 1);
  if (memory == NULL) abort();
  return memory;
}

static void set(launch *l, splitkv_ascend_buffer buffer, void *data, size_t bytes) {
  l->memory.data[buffer] = data;
  l->memory.bytes[buffer] = bytes;
}

bool launch_open(launch *l, const test_spec *spec, const splitkv_ascend_target *target,
                 splitkv_ascend_sizing sizing, splitkv_error *error) {
  memset(l, 0, sizeof *l);
  l->target = *target;
  l->info.struct_size = sizeof l->info;
  test_batch_build(&l->batch, spec);
  const test_batch *b = &l->batch;
  const int64_t n_words =
      SPLITKV_ASCEND_HEADER_WORDS + SPLITKV_ASCEND_REQUEST_WORDS * spec->n_requests;
  l->words = memory_of((size_t)n_words * sizeof(uint32_t));
  if (splitkv_ascend_tile(&b->problem, &b->batch, target, l->words, n_words, &l->info, error) !=
      SPLITKV_OK) {
    launch_close(l);
    return false;
  }
  splitkv_ascend_memory_init(&l->memory);
  splitkv_ascend_sizes sizes;
  if (!CHECK(splitkv_ascend_get_sizes(l->words, n_words, target->n_cores, SPLITKV_ASCEND_EXACT,
                                      &l->sizes, error) == SPLITKV_OK) ||
      !CHECK(splitkv_ascend_get_sizes(l->words, n_words, target->n_cores, sizing, &sizes, error) ==
             SPLITKV_OK)) {
    launch_close(l);
    return false;
  }
  for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; i++) {
    const bool is_used = sizes.bytes[i] > 0;
    set(l, (splitkv_ascend_buffer)i, is_used ? memory_of(sizes.bytes[i]) : NULL, sizes.bytes[i]);
  }
  /* The kernel reads Q in blocks of 16 channels. */
  l->q = memory_of(b->q.size_bytes + 32);
  memset(l->q, 0xff, b->q.size_bytes + 32);
  memcpy(l->q, b->q.data, b->q.size_bytes);
  set(l, SPLITKV_ASCEND_Q, l->q,
      b->q.size_bytes + (size_t)(-b->problem.head_dim & 15) * sizeof(uint16_t));
  set(l, SPLITKV_ASCEND_K, b->k.data, b->k.size_bytes);
  set(l, SPLITKV_ASCEND_V, b->v.data, b->v.size_bytes);
  set(l, SPLITKV_ASCEND_BLOCK_TABLE, b->table.data, b->table.size_bytes);
  set(l, SPLITKV_ASCEND_OUT, b->out.data, b->out.size_bytes);
  launch_fill(l, 0xff);
  return true;
}

void launch_close(launch *l) {
  for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; i++)
    free(l->memory.data[i]);
  free(l->q);
  free(l->words);
  free(l->exact.out);
  test_batch_destroy(&l->batch);
}

void launch_fill(launch *l, int byte) {
  for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; i++) {
    if (l->memory.data[i] != NULL) memset(l->memory.data[i], byte, l->memory.bytes[i]);
  }
  memset(l->memory.data[SPLITKV_ASCEND_OUT], byte, l->memory.bytes[SPLITKV_ASCEND_OUT]);
}

splitkv_status launch_run(launch *l, uint32_t flags, const splitkv_pool *pool,
                          splitkv_ascend_report *report, splitkv_error *error) {
  memset(report, 0, sizeof *report);
  report->struct_size = sizeof *report;
  return splitkv_ascend_model_run(l->words, l->info.n_words, l->info.n_groups, &l->memory, flags,
                                  pool, NULL, report, error);
}

static bool make_exact(launch *l) {
  const test_batch *b = &l->batch;
  const int64_t rows = b->spec.n_requests * b->problem.n_heads_q;
  double *memory = memory_of((size_t)(rows * (b->problem.head_dim_v + 4)) * sizeof(double));
  l->exact.out = memory;
  l->exact.lse = memory + rows * b->problem.head_dim_v;
  l->exact.max_abs_score = l->exact.lse + rows;
  l->exact.max_abs_v = l->exact.max_abs_score + rows;
  l->exact.max_products = l->exact.max_abs_v + rows;
  return ref_attention(&b->problem, b->spec.kv_lens, NULL, 0, b->spec.n_requests, &b->tensors,
                       &l->exact) == 0;
}

bool launch_compare(launch *l, double *worst) {
  const test_batch *b = &l->batch;
  if (l->exact.out == NULL && !CHECK(make_exact(l))) return false;
  for (int64_t row = 0; row < b->spec.n_requests * b->problem.n_heads_q; row++) {
    const ref_ascend_errors e = ref_ascend_compare_row(
        &b->problem, b->spec.kv_lens[row / b->problem.n_heads_q], row, b->out.data, &l->exact);
    if (worst != NULL && e.worst > *worst) *worst = e.worst;
    if (!CHECK_MSG(e.pass, "row %" PRId64 ": abs %g ulp %g, %g of the bound", row, e.max_abs_err,
                   e.max_ulp_err, e.worst)) {
      test_batch_print(b);
      (void)fprintf(stderr, "  %" PRId64 " cores, rule %d\n", l->target.n_cores,
                    (int)l->target.rule);
      return false;
    }
  }
  return true;
}

static int64_t random_dim(rng *r, int64_t most) {
  static const int64_t dims[] = {16, 32, 40, 64, 72, 96, 128, 256};
  const int64_t d = RNG_PICK(r, dims);
  return d < most ? d : most;
}

void launch_random(test_spec *spec, splitkv_ascend_target *target, rng *r,
                   const launch_ranges *ranges) {
  static const int64_t pages[] = {16, 16, 32, 48, 64, 80, 128, 256, 512, 1024, 7, 13};
  test_spec_init(spec);
  splitkv_problem *p = &spec->problem;
  const splitkv_dtype dtype = rng_one_in(r, 2) ? SPLITKV_F16 : SPLITKV_BF16;
  p->dtype_q = p->dtype_kv = p->dtype_out = dtype;
  p->head_dim = p->head_dim_v = random_dim(r, ranges->max_head_dim);
  p->page_size_tokens = RNG_PICK(r, pages);
  p->n_heads_kv = rng_range(r, 1, ranges->max_heads_kv);
  p->n_heads_q = p->n_heads_kv * rng_range(r, 1, ranges->max_group);
  splitkv_ascend_target_init(target);
  target->n_cores = rng_range(r, 1, 48);
  target->rule = rng_one_in(r, 2) ? SPLITKV_ASCEND_PR683 : SPLITKV_ASCEND_GUARDED;
  test_spec_requests(spec, rng_range(r, 1, ranges->max_requests), 0);
  const int64_t longest = rng_range(r, 1, ranges->max_tokens);
  for (int64_t i = 0; i < spec->n_requests; i++)
    spec->kv_lens[i] = rng_one_in(r, 6) ? 0 : rng_range(r, 1, longest);
  spec->table = (test_table)rng_range(r, 0, 2);
  if (spec->table == TABLE_SHARED)
    for (int64_t i = 0; i < spec->n_requests; i++)
      spec->sources[i] = rng_range(r, 0, 1 + i / 2);
  spec->data = (test_data)rng_range(r, 0, N_TEST_DATA - 1);
  spec->seed = rng_next(r);
  spec->extra_pages = rng_range(r, 0, 3);
  spec->extra_width = rng_range(r, 0, 3);
}
