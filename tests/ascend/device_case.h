/* A launch on a device, for tests: the batch of launch.h and how out was before.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TEST_DEVICE_CASE_H
#define SPLITKV_TEST_DEVICE_CASE_H

#include "launch.h"

typedef struct device_case {
  launch launch;
  uint64_t untouched; /* digest of out, before a run */
} device_case;

typedef struct device_shape {
  int64_t n_requests, hq, hkv, d, longest, n_cores;
  splitkv_dtype dtype;
  bool has_empty; /* every third request has no tokens */
} device_shape;

/* Pages of 16 tokens; the first and the last request are the longest where they have tokens. */
void device_make(const device_shape *s, uint64_t seed, device_case *c);
void device_free(device_case *c);

uint64_t device_out_digest(const device_case *c);

/* With the stand-in of the runtime. */
splitkv_ascend_device *device_open(const char *kernel, int32_t device_id);
splitkv_status device_run(splitkv_ascend_device *device, const device_case *c, int64_t n_launches,
                          float *times, splitkv_error *error);

#endif
