/* One heavy token before many light, equal ones: the pattern of an attention sink, and the worst
 * one for a running sum, which can lose half a unit of the heavy term at every step in one
 * direction.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "check.h"
#include "ref.h"
#include "rng.h"

#include <math.h>
#include <stdlib.h>

enum { DIM = 16, N_TRIES = 3000 };

typedef struct sink {
  splitkv_problem problem;
  splitkv_plan *plan;
  splitkv_tensors tensors;
  int64_t kv_len;
  float *k, *v, q, out[DIM], lse;
  int32_t table;
} sink;

static bool sink_create(sink *s, int64_t kv_len) {
  splitkv_problem_init(&s->problem);
  s->problem.n_heads_q = s->problem.n_heads_kv = s->problem.head_dim = 1;
  s->problem.head_dim_v = DIM;
  s->problem.scale = 1;
  s->problem.page_size_tokens = kv_len;
  s->problem.n_pages = s->problem.table_width = 1;
  s->problem.split_policy = SPLITKV_SPLIT_NONE;
  s->kv_len = kv_len;
  s->q = 1;
  s->table = 0;
  s->k = calloc((size_t)kv_len, sizeof *s->k);
  s->v = calloc((size_t)kv_len * DIM, sizeof *s->v);
  splitkv_batch batch;
  splitkv_batch_init(&batch);
  batch.n_requests = 1;
  batch.kv_lens = &s->kv_len;
  batch.kv_lens_type = SPLITKV_I64;
  splitkv_tensors_init(&s->tensors);
  s->tensors.q = &s->q;
  s->tensors.k = s->k;
  s->tensors.v = s->v;
  s->tensors.block_table = &s->table;
  s->tensors.out = s->out;
  s->tensors.lse = &s->lse;
  return CHECK(s->k && s->v) &&
         CHECK(splitkv_plan_create(&s->problem, &batch, NULL, &s->plan, NULL) == SPLITKV_OK);
}

/* The heavy score lies just below an integer in base 2, so that its weight has a full mantissa. */
static void fill(sink *s, rng *r, int try) {
  const double gap = 3 + 9 * (double)(rng_next(r) >> 11) * 0x1p-53;
  const float top = ceilf((float)gap / 2 * 1.4427f);
  float heavy = top / 1.4426950408889634f;
  while (heavy * 1.4426950408889634f > top)
    heavy = nextafterf(heavy, 0);
  for (int64_t t = 0; t < s->kv_len; ++t) {
    s->k[t] = t == 0 ? heavy : (float)((double)heavy - gap);
    for (int c = 0; c < DIM; ++c) {
      s->v[t * DIM + c] = t == 0 ? 1.0f : 1.0f - (float)(c * (try % 7)) * 0x1p-10f;
    }
  }
}

static void check_length(int64_t kv_len) {
  sink s = {0};
  rng r = {(uint64_t)kv_len};
  double out[DIM], lse, max_abs_score, max_abs_v, worst = 0;
  const ref_result result = {
      .out = out, .lse = &lse, .max_abs_score = &max_abs_score, .max_abs_v = &max_abs_v};
  const int tries = (int)(N_TRIES * 64 / (kv_len + 64));
  if (!sink_create(&s, kv_len)) return;
  for (int i = 0; i < tries; ++i) {
    fill(&s, &r, i);
    CHECK(splitkv_run(s.plan, &s.problem, &s.tensors, NULL, 0, NULL, NULL) == SPLITKV_OK);
    CHECK(ref_attention(&s.problem, &s.kv_len, NULL, 0, 1, &s.tensors, &result) == 0);
    const ref_row_errors errors =
        ref_compare_row(&s.problem, SPLITKV_ARITHMETIC_F32, 0, s.out, &s.lse, &result);
    worst = fmax(worst, errors.worst);
    if (!CHECK_MSG(errors.pass, "kv_len %lld, try %d: %g of the bound", (long long)kv_len, i,
                   errors.worst)) {
      break;
    }
  }
  splitkv_plan_destroy(s.plan);
  free(s.k);
  free(s.v);
  /* The pattern is hard: a test that comes nowhere near the bound would test nothing. */
  CHECK_MSG(worst > 0.1, "kv_len %lld: worst is %g of the bound", (long long)kv_len, worst);
}

int main(void) {
  static const int64_t lengths[] = {16, 64, 100, 512, 1024, 4096, 20000};
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; ++i)
    check_length(lengths[i]);
  return check_report("sink");
}
