/* Launching on a device, by way of the runtime's stand-in and a kernel that only says what it was
 * given: arguments in the kernel's order, every call of the runtime failed in turn with nothing
 * left behind, libraries that are none, several devices and threads.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "check.h"
#include "device_case.h"

#include <standin.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const device_shape plain_f16 = {4, 8, 2, 32, 100, 8, SPLITKV_F16, true};

static splitkv_status open_device(const char *kernel, const char *runtime, int32_t id,
                                  splitkv_ascend_device **device, splitkv_error *error) {
  splitkv_ascend_device_options o;
  splitkv_ascend_device_options_init(&o);
  o.kernel_path = kernel;
  o.runtime_path = runtime;
  o.device_id = id;
  return splitkv_ascend_device_open(&o, device, error);
}

/* ── what the kernel is given ───────────────────────────────────────────────────────────────── */

/* The echo writes 24 numbers into the row of request 0. Request 1 has no tokens: its row is zeroed.
 * Request 2 has, but the echo leaves its row: that is what the memory held. */
static void arguments_in_order(void) {
  device_case c;
  device_make(&plain_f16, 1, &c);
  for (int b = 0; b < SPLITKV_ASCEND_N_SCRATCH; b++) {
    c.launch.memory.bytes[b] = b == SPLITKV_ASCEND_GO ? 0 : 1000 + 16 * (uint64_t)b;
  }
  static const int order[] = {SPLITKV_ASCEND_Q,
                              SPLITKV_ASCEND_K,
                              SPLITKV_ASCEND_V,
                              SPLITKV_ASCEND_BLOCK_TABLE,
                              SPLITKV_ASCEND_MASK,
                              -1,
                              -1,
                              -1,
                              -1,
                              -1,
                              -1,
                              -1,
                              -1,
                              SPLITKV_ASCEND_OUT,
                              SPLITKV_ASCEND_S,
                              SPLITKV_ASCEND_P,
                              SPLITKV_ASCEND_O_TMP,
                              SPLITKV_ASCEND_GO,
                              SPLITKV_ASCEND_O_CORE,
                              SPLITKV_ASCEND_L,
                              SPLITKV_ASCEND_K16,
                              SPLITKV_ASCEND_V16,
                              SPLITKV_ASCEND_WORDS};
  enum { N = sizeof order / sizeof order[0] };
  uint8_t mask[77] = {0};
  splitkv_ascend_device *device = device_open(KERNEL_ECHO, 0);
  for (int with_mask = 0; with_mask < 2; with_mask++) {
    if (with_mask) {
      c.launch.memory.data[SPLITKV_ASCEND_MASK] = mask;
      c.launch.memory.bytes[SPLITKV_ASCEND_MASK] = sizeof mask;
    }
    splitkv_error error = {.message = ""};
    CHECK_MSG(device_run(device, &c, 1, NULL, &error) == SPLITKV_OK, "%s", error.message);
    uint64_t sizes[N + 1];
    memcpy(sizes, c.launch.memory.data[SPLITKV_ASCEND_OUT], sizeof sizes);
    for (int i = 0; i < N; i++) {
      const uint64_t wanted = order[i] < 0 ? 0
                              : order[i] == SPLITKV_ASCEND_WORDS
                                  ? (uint64_t)c.launch.info.n_words * 4
                                  : c.launch.memory.bytes[order[i]];
      CHECK_MSG(sizes[i] == wanted, "argument %d has %llu bytes, not %llu", i,
                (unsigned long long)sizes[i], (unsigned long long)wanted);
    }
    CHECK(sizes[N] == (uint64_t)c.launch.info.n_groups);
  }
  const uint8_t *out = c.launch.memory.data[SPLITKV_ASCEND_OUT];
  const size_t row = 8 * 32 * 2;
  for (size_t i = 0; i < row; i++) {
    if (!CHECK(out[row + i] == 0) || !CHECK(out[2 * row + i] == 0xff)) {
      break;
    }
  }
  splitkv_ascend_device_close(device);
  CHECK(standin_n_taken() == 0);
  device_free(&c);
}

/* ── failures ───────────────────────────────────────────────────────────────────────────────── */

/* One life of a device; the k-th call of the runtime fails, 0: none. */
static splitkv_status live(const device_case *c, int64_t k, int64_t n_launches, float *times,
                           int64_t *n_calls, splitkv_error *error) {
  standin_fail_call(NULL, k);
  splitkv_ascend_device *device = NULL;
  splitkv_status status = open_device(KERNEL_ECHO, STANDIN_RUNTIME, 3, &device, error);
  CHECK((status == SPLITKV_OK) == (device != NULL));
  if (status == SPLITKV_OK) {
    status = device_run(device, c, n_launches, times, error);
  }
  if (n_calls != NULL) {
    *n_calls = standin_n_calls(NULL);
  }
  standin_fail_call(NULL, 0);
  splitkv_ascend_device_close(device);
  return status;
}

static void every_call_fails(void) {
  enum { N_LAUNCHES = 40 }; /* more than are queued at once */
  float times[N_LAUNCHES];
  device_case c;
  device_make(&plain_f16, 2, &c);
  int64_t n_calls = 0;
  splitkv_error error = {.message = ""};
  CHECK_MSG(live(&c, 0, N_LAUNCHES, times, &n_calls, &error) == SPLITKV_OK, "%s", error.message);
  CHECK(n_calls > 100 && device_out_digest(&c) != c.untouched && standin_n_taken() == 0);
  launch_fill(&c.launch, 0x5a);
  for (int64_t k = 1; k <= n_calls; k++) {
    memset(times, 0, sizeof times);
    memset(&error, 0, sizeof error);
    splitkv_status status = live(&c, k, N_LAUNCHES, times, NULL, &error);
    const int64_t code = strcmp(error.field, "aclrtMalloc") == 0 ? ACL_ERROR_RT_MEMORY_ALLOCATION
                                                                 : ACL_ERROR_INTERNAL_ERROR;
    char wanted[80];
    (void)snprintf(wanted, sizeof wanted, "%s was made to fail.", error.field);
    const char *end = strstr(error.message, wanted);
    CHECK_MSG(status == SPLITKV_ERROR_ASCEND_RUNTIME && error.status == status &&
                  error.value == code && end != NULL && end[strlen(wanted)] == '\0',
              "call %lld: status %d, field %s, value %lld, %s", (long long)k, (int)status,
              error.field, (long long)error.value, error.message);
    CHECK_MSG(standin_n_taken() == 0, "call %lld (%s): %lld left", (long long)k, error.field,
              (long long)standin_n_taken());
    CHECK_MSG(device_out_digest(&c) == c.untouched && times[0] == 0 && times[N_LAUNCHES - 1] == 0,
              "call %lld (%s)", (long long)k, error.field);
  }
  device_free(&c);
}

static void check_open(const char *kernel, const char *runtime, splitkv_status status,
                       const char *field, const char *text) {
  splitkv_ascend_device *device = NULL;
  splitkv_error error = {.message = ""};
  const splitkv_status got = open_device(kernel, runtime, 0, &device, &error);
  CHECK_MSG(got == status && device == NULL && strcmp(error.field, field) == 0 &&
                strstr(error.message, text) != NULL,
            "status %d, field %s, %s", (int)got, error.field, error.message);
  CHECK(standin_n_taken() == 0);
}

static void libraries_that_are_none(void) {
  static const char missing[] = "./no-such-library.so";
  check_open(missing, STANDIN_RUNTIME, SPLITKV_ERROR_ASCEND_LIBRARY, "options.kernel_path",
             missing);
  check_open(KERNEL_ECHO, missing, SPLITKV_ERROR_ASCEND_LIBRARY, "options.runtime_path", missing);
  check_open("", STANDIN_RUNTIME, SPLITKV_ERROR_ASCEND_LIBRARY, "options.kernel_path", "empty");
  check_open(KERNEL_ECHO, "", SPLITKV_ERROR_ASCEND_LIBRARY, "options.runtime_path", "empty");
  check_open(NO_LIBRARY, STANDIN_RUNTIME, SPLITKV_ERROR_ASCEND_LIBRARY, "options.kernel_path", "");
  check_open(KERNEL_ECHO, NO_LIBRARY, SPLITKV_ERROR_ASCEND_LIBRARY, "options.runtime_path", "");
  check_open(RUNTIME_PARTIAL, STANDIN_RUNTIME, SPLITKV_ERROR_ASCEND_SYMBOL, "call_kernel",
             "runtime_partial");
  check_open(KERNEL_ECHO, RUNTIME_PARTIAL, SPLITKV_ERROR_ASCEND_SYMBOL, "aclrtSetDevice",
             "runtime_partial");
  check_open(KERNEL_ECHO, RUNTIME_MUTE, SPLITKV_ERROR_ASCEND_RUNTIME, "aclInit", "code 500000");
  check_open(NULL, STANDIN_RUNTIME, SPLITKV_ERROR_NULL_POINTER, "options.kernel_path", "null");
  splitkv_ascend_device *device = NULL;
  splitkv_error error = {.message = ""};
  CHECK(open_device(KERNEL_ECHO, STANDIN_RUNTIME, STANDIN_N_DEVICES, &device, &error) ==
        SPLITKV_ERROR_ASCEND_RUNTIME);
  CHECK(error.value == ACL_ERROR_RT_INVALID_DEVICEID && device == NULL);
  CHECK(splitkv_ascend_device_open(NULL, &device, &error) == SPLITKV_ERROR_NULL_POINTER);
  splitkv_ascend_device_options o = {.struct_size = 4, .kernel_path = KERNEL_ECHO};
  CHECK(splitkv_ascend_device_open(&o, &device, &error) == SPLITKV_ERROR_STRUCT_SIZE);
  CHECK(splitkv_ascend_device_open(&o, NULL, &error) == SPLITKV_ERROR_NULL_POINTER);
  splitkv_ascend_device_close(NULL);
}

/* More launches than are queued at once, and exactly as many: each has its time. */
static void every_launch_is_timed(void) {
  enum { MOST = 70 };
  static const int counts[] = {1, 31, 32, 33, 64, 70};
  device_case c;
  device_make(&plain_f16, 4, &c);
  splitkv_ascend_device *device = device_open(KERNEL_ECHO, 0);
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
    float times[MOST + 1];
    for (int t = 0; t <= MOST; t++) {
      times[t] = -1;
    }
    standin_fail_call(NULL, 0);
    CHECK(device_run(device, &c, counts[i], times, NULL) == SPLITKV_OK);
    CHECK(standin_n_calls("aclrtEventElapsedTime") == counts[i]);
    CHECK(standin_n_calls("aclrtSynchronizeStream") == (counts[i] + 31) / 32);
    for (int t = 0; t <= MOST; t++) {
      CHECK_MSG((times[t] > 0) == (t < counts[i]), "%d launches: time %d is %g", counts[i], t,
                (double)times[t]);
    }
  }
  splitkv_ascend_device_close(device);
  CHECK(standin_n_taken() == 0);
  device_free(&c);
}

/* ── arguments ──────────────────────────────────────────────────────────────────────────────── */

static void change_key(device_case *c) {
  c->launch.words[16] = 128;
}
static void change_header(device_case *c) {
  c->launch.words[17] = 43;
}
static void change_requests(device_case *c) {
  c->launch.words[0]++;
}
static void change_offset(device_case *c) {
  c->launch.words[44 + 17 + 7] += 2 * 8 * 32 + 1; /* request 1, empty: one element too far */
}
static void change_offset_much(device_case *c) {
  c->launch.words[44 + 17 + 6] = UINT32_MAX;
}
static void change_row(device_case *c) {
  c->launch.words[1] = c->launch.words[2] = UINT32_MAX;
}
static void change_n_words(device_case *c) {
  c->launch.info.n_words = 20;
}
static void change_groups(device_case *c) {
  c->launch.info.n_groups = 0;
}
static void change_groups_much(device_case *c) {
  c->launch.info.n_groups = SPLITKV_ASCEND_MAX_CORES + 1;
}
static void change_data(device_case *c) {
  c->launch.memory.data[SPLITKV_ASCEND_K] = NULL;
}
static void change_size(device_case *c) {
  c->launch.memory.struct_size = 8;
}

static void arguments_refused(void) {
  static const struct {
    void (*change)(device_case *c);
    splitkv_status status;
  } cases[] = {
      {change_key, SPLITKV_ERROR_ASCEND_KEY},           {change_header, SPLITKV_ERROR_ASCEND_WORDS},
      {change_requests, SPLITKV_ERROR_ASCEND_WORDS},    {change_offset, SPLITKV_ERROR_ASCEND_WORDS},
      {change_offset_much, SPLITKV_ERROR_ASCEND_WORDS}, {change_row, SPLITKV_ERROR_ASCEND_WORDS},
      {change_n_words, SPLITKV_ERROR_ASCEND_WORDS},     {change_groups, SPLITKV_ERROR_ASCEND_CORES},
      {change_groups_much, SPLITKV_ERROR_ASCEND_CORES}, {change_data, SPLITKV_ERROR_NULL_POINTER},
      {change_size, SPLITKV_ERROR_STRUCT_SIZE},
  };
  splitkv_ascend_device *device = device_open(KERNEL_ECHO, 0);
  device_case c;
  splitkv_error error = {.message = ""};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    device_make(&plain_f16, 3, &c);
    cases[i].change(&c);
    standin_fail_call(NULL, 0);
    const splitkv_status status = device_run(device, &c, 1, NULL, &error);
    CHECK_MSG(status == cases[i].status, "case %zu: status %d, %s", i, (int)status, error.message);
    CHECK(standin_n_calls(NULL) == 0 && device_out_digest(&c) == c.untouched);
    device_free(&c);
  }
  device_make(&plain_f16, 3, &c);
  CHECK(device_run(device, &c, 0, NULL, &error) == SPLITKV_ERROR_INDEX);
  CHECK(device_run(device, &c, INT64_MAX, NULL, &error) == SPLITKV_ERROR_OUT_OF_MEMORY);
  CHECK(device_run(NULL, &c, 1, NULL, &error) == SPLITKV_ERROR_NULL_POINTER);
  CHECK(splitkv_ascend_device_run(device, (uint32_t *)((uintptr_t)c.launch.words + 1), 61, 1,
                                  &c.launch.memory, 1, NULL,
                                  NULL) == SPLITKV_ERROR_TENSOR_ALIGNMENT);
  CHECK(splitkv_ascend_device_run(device, NULL, 61, 1, &c.launch.memory, 1, NULL, NULL) ==
        SPLITKV_ERROR_NULL_POINTER);
  CHECK(splitkv_ascend_device_run(device, c.launch.words, 61, 1, NULL, 1, NULL, NULL) ==
        SPLITKV_ERROR_NULL_POINTER);
  CHECK(standin_n_calls(NULL) == 0 && device_out_digest(&c) == c.untouched);
  device_free(&c);
  splitkv_ascend_device_close(device);
}

/* ── several devices, several threads ───────────────────────────────────────────────────────── */

typedef struct elsewhere {
  splitkv_ascend_device *device;
  const device_case *c;
  splitkv_status status;
} elsewhere;

static void *run_elsewhere(void *argument) {
  elsewhere *e = argument;
  e->status = device_run(e->device, e->c, 1, NULL, NULL);
  return NULL;
}

static void two_devices(void) {
  device_case c[2];
  splitkv_ascend_device *devices[2];
  for (int i = 0; i < 2; i++) {
    device_make(&plain_f16, 10 + (uint64_t)i, &c[i]);
    devices[i] = device_open(KERNEL_ECHO, i);
  }
  splitkv_ascend_device *again = device_open(KERNEL_ECHO, 1);
  splitkv_error error = {.message = ""};
  for (int i = 0; i < 4; i++) {
    CHECK_MSG(device_run(devices[i % 2], &c[i % 2], 2, NULL, &error) == SPLITKV_OK, "%s",
              error.message);
  }
  /* A thread that has set no device. */
  elsewhere e[2];
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) {
    e[i] = (elsewhere){devices[i], &c[i], SPLITKV_ERROR_THREADS};
    CHECK(pthread_create(&threads[i], NULL, run_elsewhere, &e[i]) == 0);
  }
  for (int i = 0; i < 2; i++) {
    CHECK(pthread_join(threads[i], NULL) == 0 && e[i].status == SPLITKV_OK);
  }
  splitkv_ascend_device_close(devices[1]);
  CHECK_MSG(device_run(again, &c[1], 1, NULL, &error) == SPLITKV_OK, "%s", error.message);
  CHECK_MSG(device_run(devices[0], &c[0], 1, NULL, &error) == SPLITKV_OK, "%s", error.message);
  splitkv_ascend_device_close(again);
  splitkv_ascend_device_close(devices[0]);
  CHECK(standin_n_taken() == 0);
  device_free(&c[0]);
  device_free(&c[1]);
}

int main(void) {
  arguments_in_order();
  libraries_that_are_none();
  every_call_fails();
  every_launch_is_timed();
  arguments_refused();
  two_devices();
  return check_report("ascend/test_device");
}
