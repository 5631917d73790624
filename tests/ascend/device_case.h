/* A batch with everything that a launch needs, for the tests of launching.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TEST_DEVICE_CASE_H
#define SPLITKV_TEST_DEVICE_CASE_H

#include <splitkv/ascend.h>

enum { MOST_REQUESTS = 40, MOST_WORDS = 44 + 17 * MOST_REQUESTS };

typedef struct device_case {
  uint32_t words[MOST_WORDS];
  splitkv_ascend_info info;
  splitkv_ascend_memory memory; /* tensors in host memory, exact sizes of scratch without memory */
  uint64_t untouched;           /* digest of out, before a run */
} device_case;

typedef struct device_shape {
  int64_t n_requests, hq, hkv, d, longest, n_cores;
  splitkv_dtype dtype;
  int has_empty; /* every third request has no tokens */
} device_shape;

void device_make(const device_shape *s, uint64_t seed, device_case *l);
void device_free(device_case *l);

/* Gives a buffer memory of that size, with bytes 0x5a. */
void device_set_tensor(device_case *l, splitkv_ascend_buffer buffer, int64_t bytes);

uint64_t device_digest(const void *data, uint64_t bytes);
uint64_t device_out_digest(const device_case *l);

/* With the stand-in of the runtime. */
splitkv_ascend_device *device_open(const char *kernel, int32_t device_id);
splitkv_status device_run(splitkv_ascend_device *device, const device_case *l, int64_t n_launches,
                          float *times, splitkv_error *error);

#endif
