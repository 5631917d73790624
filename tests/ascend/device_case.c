/* SPDX-License-Identifier: Apache-2.0 */
#include "device_case.h"

#include "check.h"

#include <stdlib.h>

void device_make(const device_shape *s, uint64_t seed, device_case *c) {
  rng r = {seed};
  test_spec spec;
  test_spec_init(&spec);
  splitkv_problem *p = &spec.problem;
  p->dtype_q = p->dtype_kv = p->dtype_out = s->dtype;
  p->head_dim = p->head_dim_v = s->d;
  p->n_heads_q = s->hq;
  p->n_heads_kv = s->hkv;
  p->page_size_tokens = 16;
  test_spec_requests(&spec, s->n_requests, s->longest);
  for (int64_t i = 0; i < s->n_requests; i++) {
    if (s->has_empty && i % 3 == 1) {
      spec.kv_lens[i] = 0;
    } else if (i > 0 && i < s->n_requests - 1) {
      spec.kv_lens[i] = rng_range(&r, 1, s->longest);
    }
  }
  spec.table = TABLE_SHUFFLED;
  spec.seed = seed;
  splitkv_ascend_target target;
  splitkv_ascend_target_init(&target);
  target.n_cores = s->n_cores;
  splitkv_error error = {.message = ""};
  if (!CHECK_MSG(launch_open(&c->launch, &spec, &target, SPLITKV_ASCEND_EXACT, &error), "%s",
                 error.message)) {
    abort();
  }
  launch_fill(&c->launch, 0x5a);
  c->untouched = device_out_digest(c);
}

void device_free(device_case *c) {
  launch_close(&c->launch);
}

uint64_t device_out_digest(const device_case *c) {
  return test_batch_digest(&c->launch.batch);
}

splitkv_ascend_device *device_open(const char *kernel, int32_t device_id) {
  splitkv_ascend_device_options o;
  splitkv_ascend_device_options_init(&o);
  o.kernel_path = kernel;
  o.runtime_path = STANDIN_RUNTIME;
  o.device_id = device_id;
  splitkv_ascend_device *device = NULL;
  splitkv_error error = {.message = ""};
  const splitkv_status status = splitkv_ascend_device_open(&o, &device, &error);
  CHECK_MSG(status == SPLITKV_OK, "%s", error.message);
  return device;
}

splitkv_status device_run(splitkv_ascend_device *device, const device_case *c, int64_t n_launches,
                          float *times, splitkv_error *error) {
  const launch *l = &c->launch;
  return splitkv_ascend_device_run(device, l->words, l->info.n_words, l->info.n_groups, &l->memory,
                                   n_launches, times, error);
}
