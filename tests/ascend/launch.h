/* A batch with everything that a launch needs, for the tests of launching.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TEST_LAUNCH_H
#define SPLITKV_TEST_LAUNCH_H

#include <splitkv/ascend.h>

enum { MOST_REQUESTS = 40, MOST_WORDS = 44 + 17 * MOST_REQUESTS };

typedef struct launch {
  uint32_t words[MOST_WORDS];
  splitkv_ascend_info info;
  splitkv_ascend_memory memory; /* tensors in host memory, exact sizes of scratch without memory */
  uint64_t untouched;           /* digest of out, before a run */
} launch;

typedef struct launch_shape {
  int64_t n_requests, hq, hkv, d, longest, n_cores;
  splitkv_dtype dtype;
  int has_empty; /* every third request has no tokens */
} launch_shape;

void launch_make(const launch_shape *s, uint64_t seed, launch *l);
void launch_free(launch *l);

/* Gives a buffer memory of that size, with bytes 0x5a. */
void launch_set_tensor(launch *l, splitkv_ascend_buffer buffer, int64_t bytes);

uint64_t launch_digest(const void *data, uint64_t bytes);
uint64_t launch_out_digest(const launch *l);

/* With the stand-in of the runtime. */
splitkv_ascend_device *launch_open(const char *kernel, int32_t device_id);
splitkv_status launch_run(splitkv_ascend_device *device, const launch *l, int64_t n_launches,
                          float *times, splitkv_error *error);

#endif
