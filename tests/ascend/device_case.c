/* SPDX-License-Identifier: Apache-2.0 */
#include "device_case.h"

#include "check.h"
#include "rng.h"

#include <stdlib.h>
#include <string.h>

enum { PAGE = 16 };

uint64_t device_digest(const void *data, uint64_t bytes) {
  const uint8_t *at = data;
  uint64_t sum = 0x9e3779b97f4a7c15ULL;
  for (uint64_t i = 0; i < bytes; i++) {
    sum = (sum ^ at[i]) * 0x100000001b3ULL;
  }
  return sum;
}

void device_set_tensor(device_case *l, splitkv_ascend_buffer buffer, int64_t bytes) {
  l->memory.bytes[buffer] = (uint64_t)bytes;
  l->memory.data[buffer] = malloc((size_t)bytes);
  if (l->memory.data[buffer] == NULL) {
    abort();
  }
  memset(l->memory.data[buffer], 0x5a, (size_t)bytes);
}

/* Numbers between -2 and 2. f16 and bf16 differ in where the exponent ends. */
static void fill_tensor(device_case *l, splitkv_ascend_buffer buffer, splitkv_dtype dtype, rng *r) {
  uint16_t *at = l->memory.data[buffer];
  const unsigned one = dtype == SPLITKV_F16 ? 0x3c00 : 0x3f80;
  for (uint64_t i = 0; i < l->memory.bytes[buffer] / 2; i++) {
    const unsigned below = (unsigned)rng_range(r, 0, dtype == SPLITKV_F16 ? 0xfff : 0x1ff);
    at[i] = (uint16_t)((one - below + (dtype == SPLITKV_F16 ? 0x3ff : 0x7f)) |
                       (unsigned)rng_range(r, 0, 1) << 15);
  }
}

void device_make(const device_shape *s, uint64_t seed, device_case *l) {
  rng r = {seed};
  int64_t lens[MOST_REQUESTS];
  for (int64_t i = 0; i < s->n_requests; i++) {
    lens[i] = s->has_empty && i % 3 == 1 ? 0 : i == 0 ? s->longest : rng_range(&r, 1, s->longest);
  }
  splitkv_problem p;
  splitkv_problem_init(&p);
  p.n_heads_q = s->hq;
  p.n_heads_kv = s->hkv;
  p.head_dim = p.head_dim_v = s->d;
  p.page_size_tokens = PAGE;
  p.table_width = (s->longest + PAGE - 1) / PAGE;
  p.n_pages = s->n_requests * p.table_width;
  p.dtype_q = p.dtype_kv = p.dtype_out = s->dtype;
  splitkv_batch b;
  splitkv_batch_init(&b);
  b.n_requests = s->n_requests;
  b.kv_lens = lens;
  b.kv_lens_type = SPLITKV_I64;
  splitkv_ascend_target t;
  splitkv_ascend_target_init(&t);
  t.n_cores = s->n_cores;
  splitkv_error error = {.message = ""};
  l->info = (splitkv_ascend_info){.struct_size = sizeof l->info};
  splitkv_ascend_sizes sizes = {{0}};
  splitkv_status status = splitkv_ascend_tile(&p, &b, &t, l->words, MOST_WORDS, &l->info, &error);
  CHECK_MSG(status == SPLITKV_OK, "%s", error.message);
  status = splitkv_ascend_get_sizes(l->words, l->info.n_words, t.n_cores, SPLITKV_ASCEND_EXACT,
                                    &sizes, &error);
  CHECK_MSG(status == SPLITKV_OK, "%s", error.message);

  splitkv_ascend_memory_init(&l->memory);
  memcpy(l->memory.bytes, sizes.bytes, sizeof sizes.bytes);
  device_set_tensor(l, SPLITKV_ASCEND_Q, s->n_requests * s->hq * s->d * 2);
  device_set_tensor(l, SPLITKV_ASCEND_K, p.n_pages * PAGE * s->hkv * s->d * 2);
  device_set_tensor(l, SPLITKV_ASCEND_V, p.n_pages * PAGE * s->hkv * s->d * 2);
  device_set_tensor(l, SPLITKV_ASCEND_BLOCK_TABLE, s->n_requests * p.table_width * 4);
  device_set_tensor(l, SPLITKV_ASCEND_OUT, s->n_requests * s->hq * s->d * 2);
  fill_tensor(l, SPLITKV_ASCEND_Q, s->dtype, &r);
  fill_tensor(l, SPLITKV_ASCEND_K, s->dtype, &r);
  fill_tensor(l, SPLITKV_ASCEND_V, s->dtype, &r);
  int32_t *table = l->memory.data[SPLITKV_ASCEND_BLOCK_TABLE];
  for (int64_t i = 0; i < p.n_pages; i++) {
    table[i] = (int32_t)rng_range(&r, 0, p.n_pages - 1);
  }
  l->untouched =
      device_digest(l->memory.data[SPLITKV_ASCEND_OUT], l->memory.bytes[SPLITKV_ASCEND_OUT]);
}

void device_free(device_case *l) {
  for (int b = 0; b < SPLITKV_ASCEND_N_BUFFERS; b++) {
    free(l->memory.data[b]);
  }
}

uint64_t device_out_digest(const device_case *l) {
  return device_digest(l->memory.data[SPLITKV_ASCEND_OUT], l->memory.bytes[SPLITKV_ASCEND_OUT]);
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

splitkv_status device_run(splitkv_ascend_device *device, const device_case *l, int64_t n_launches,
                          float *times, splitkv_error *error) {
  return splitkv_ascend_device_run(device, l->words, l->info.n_words, l->info.n_groups, &l->memory,
                                   n_launches, times, error);
}
