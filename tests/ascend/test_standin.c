/* Launching on a device, by way of both stand-ins: the same bits as the model, times, and what is
 * said of memory that is too small.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "check.h"
#include "device_case.h"

#include <standin.h>

#include <stdlib.h>
#include <string.h>

/* What the model gives for the same words, in the same memory. */
static uint64_t model_digest(device_case *c) {
  launch_fill(&c->launch, 0xff);
  splitkv_ascend_report report;
  splitkv_error error = {.message = ""};
  const splitkv_status status = launch_run(&c->launch, 0, NULL, &report, &error);
  CHECK_MSG(status == SPLITKV_OK, "%s", error.message);
  return device_out_digest(c);
}

static void same_bits_as_the_model(void) {
  static const device_shape shapes[] = {
      {4, 8, 2, 32, 100, 8, SPLITKV_F16, true},     {4, 8, 2, 32, 100, 8, SPLITKV_BF16, true},
      {2, 8, 1, 64, 700, 24, SPLITKV_F16, false},   {2, 8, 1, 64, 700, 24, SPLITKV_BF16, false},
      {3, 4, 4, 16, 600, 24, SPLITKV_F16, true},    {40, 8, 8, 16, 60, 24, SPLITKV_BF16, true},
      {1, 16, 2, 128, 2000, 4, SPLITKV_F16, false},
  };
  int n_split = 0;
  splitkv_ascend_device *device = device_open(STANDIN_KERNEL, 0);
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
    device_case c;
    device_make(&shapes[i], 100 + i, &c);
    n_split += c.launch.info.key >= 16;
    enum { N = 3 };
    float times[N] = {0};
    splitkv_error error = {.message = ""};
    CHECK_MSG(device_run(device, &c, 1, NULL, &error) == SPLITKV_OK, "shape %zu: %s", i,
              error.message);
    CHECK_MSG(launch_compare(&c.launch, NULL), "shape %zu", i);
    const uint64_t once = device_out_digest(&c);
    CHECK_MSG(device_run(device, &c, N, times, &error) == SPLITKV_OK, "shape %zu: %s", i,
              error.message);
    const uint64_t often = device_out_digest(&c);
    CHECK_MSG(once == often && often == model_digest(&c), "shape %zu", i);
    CHECK_MSG(times[0] > 0 && times[1] > 0 && times[2] > 0, "%g %g %g", (double)times[0],
              (double)times[1], (double)times[2]);
    device_free(&c);
  }
  CHECK(n_split >= 2 && n_split < (int)(sizeof shapes / sizeof shapes[0]));
  splitkv_ascend_device_close(device);
  CHECK(standin_n_taken() == 0);
}

/* Every buffer that the kernel touches, a little too small, and a mask of one byte, which is what
 * the pull request passes for none. */
static void too_small(void) {
  static const device_shape split = {2, 8, 1, 64, 700, 24, SPLITKV_F16, false};
  static const splitkv_ascend_buffer buffers[] = {
      SPLITKV_ASCEND_S,           SPLITKV_ASCEND_P,   SPLITKV_ASCEND_O_TMP,
      SPLITKV_ASCEND_O_CORE,      SPLITKV_ASCEND_L,   SPLITKV_ASCEND_Q,
      SPLITKV_ASCEND_BLOCK_TABLE, SPLITKV_ASCEND_OUT, SPLITKV_ASCEND_MASK};
  uint8_t mask = 0;
  splitkv_ascend_device *device = device_open(STANDIN_KERNEL, 0);
  for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
    device_case c;
    device_make(&split, 5, &c);
    const int b = (int)buffers[i];
    const char *name = splitkv_ascend_buffer_name(buffers[i]);
    if (b == SPLITKV_ASCEND_MASK) {
      c.launch.memory.data[SPLITKV_ASCEND_MASK] = &mask;
      c.launch.memory.bytes[SPLITKV_ASCEND_MASK] = sizeof mask;
    } else if (CHECK_MSG(c.launch.memory.bytes[b] > 4, "%s", name)) {
      c.launch.memory.bytes[b] -= 4;
    }
    c.untouched = device_out_digest(&c);
    float time = 0;
    splitkv_error error = {.message = ""};
    const splitkv_status status = device_run(device, &c, 1, &time, &error);
    CHECK_MSG(status == SPLITKV_ERROR_ASCEND_RUNTIME &&
                  error.value == ACL_ERROR_RT_AICORE_EXCEPTION &&
                  strcmp(error.field, "aclrtSynchronizeStream") == 0 &&
                  strstr(error.message, name) != NULL,
              "%s: status %d, %s", name, (int)status, error.message);
    CHECK(device_out_digest(&c) == c.untouched && time == 0);
    device_free(&c);
  }
  splitkv_ascend_device_close(device);
  CHECK(standin_n_taken() == 0);
}

int main(void) {
  same_bits_as_the_model();
  too_small();
  return check_report("ascend/test_standin");
}
