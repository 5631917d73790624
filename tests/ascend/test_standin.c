/* Launching on a device, by way of both stand-ins: the same bits as the model, times, and what is
 * said of memory that is too small.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "check.h"
#include "device_case.h"

#include <standin.h>

#include <stdlib.h>
#include <string.h>

/* What the model gives for the same words, in memory of its own. */
static uint64_t model_digest(const device_case *l) {
  splitkv_ascend_memory memory = l->memory;
  for (int b = 0; b < SPLITKV_ASCEND_N_BUFFERS; b++) {
    if (b < SPLITKV_ASCEND_N_SCRATCH || b == SPLITKV_ASCEND_OUT) {
      memory.data[b] = memory.bytes[b] > 0 ? malloc((size_t)memory.bytes[b]) : NULL;
    }
  }
  splitkv_error error = {.message = ""};
  const splitkv_status status = splitkv_ascend_model_run(
      l->words, l->info.n_words, l->info.n_groups, &memory, 0, NULL, NULL, NULL, &error);
  CHECK_MSG(status == SPLITKV_OK, "%s", error.message);
  const uint64_t sum =
      device_digest(memory.data[SPLITKV_ASCEND_OUT], memory.bytes[SPLITKV_ASCEND_OUT]);
  for (int b = 0; b < SPLITKV_ASCEND_N_BUFFERS; b++) {
    if (b < SPLITKV_ASCEND_N_SCRATCH || b == SPLITKV_ASCEND_OUT) {
      free(memory.data[b]);
    }
  }
  return sum;
}

static void same_bits_as_the_model(void) {
  static const device_shape shapes[] = {
      {4, 8, 2, 32, 100, 8, SPLITKV_F16, 1},    {4, 8, 2, 32, 100, 8, SPLITKV_BF16, 1},
      {2, 8, 1, 64, 700, 24, SPLITKV_F16, 0},   {2, 8, 1, 64, 700, 24, SPLITKV_BF16, 0},
      {3, 4, 4, 16, 600, 24, SPLITKV_F16, 1},   {40, 8, 8, 16, 60, 24, SPLITKV_BF16, 1},
      {1, 16, 2, 128, 2000, 4, SPLITKV_F16, 0},
  };
  int n_split = 0;
  splitkv_ascend_device *device = device_open(STANDIN_KERNEL, 0);
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
    device_case l;
    device_make(&shapes[i], 100 + i, &l);
    n_split += l.info.key >= 16;
    enum { N = 3 };
    float times[N] = {0};
    splitkv_error error = {.message = ""};
    CHECK_MSG(device_run(device, &l, 1, NULL, &error) == SPLITKV_OK, "shape %zu: %s", i,
              error.message);
    CHECK_MSG(device_out_digest(&l) == model_digest(&l), "shape %zu", i);
    CHECK_MSG(device_run(device, &l, N, times, &error) == SPLITKV_OK, "shape %zu: %s", i,
              error.message);
    CHECK_MSG(device_out_digest(&l) == model_digest(&l), "shape %zu, several launches", i);
    CHECK_MSG(times[0] > 0 && times[1] > 0 && times[2] > 0, "%g %g %g", (double)times[0],
              (double)times[1], (double)times[2]);
    device_free(&l);
  }
  CHECK(n_split >= 2 && n_split < (int)(sizeof shapes / sizeof shapes[0]));
  splitkv_ascend_device_close(device);
  CHECK(standin_n_taken() == 0);
}

/* Every buffer that the kernel touches, a little too small, and a mask of one byte, which is what
 * the pull request passes for none. */
static void too_small(void) {
  static const device_shape split = {2, 8, 1, 64, 700, 24, SPLITKV_F16, 0};
  static const splitkv_ascend_buffer buffers[] = {
      SPLITKV_ASCEND_S,           SPLITKV_ASCEND_P,   SPLITKV_ASCEND_O_TMP,
      SPLITKV_ASCEND_O_CORE,      SPLITKV_ASCEND_L,   SPLITKV_ASCEND_Q,
      SPLITKV_ASCEND_BLOCK_TABLE, SPLITKV_ASCEND_OUT, SPLITKV_ASCEND_MASK};
  splitkv_ascend_device *device = device_open(STANDIN_KERNEL, 0);
  for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
    device_case l;
    device_make(&split, 5, &l);
    const int b = (int)buffers[i];
    const char *name = splitkv_ascend_buffer_name(buffers[i]);
    if (b == SPLITKV_ASCEND_MASK) {
      device_set_tensor(&l, SPLITKV_ASCEND_MASK, 1);
    } else if (CHECK_MSG(l.memory.bytes[b] > 4, "%s", name)) {
      l.memory.bytes[b] -= 4;
    }
    l.untouched = device_out_digest(&l);
    float time = 0;
    splitkv_error error = {.message = ""};
    const splitkv_status status = device_run(device, &l, 1, &time, &error);
    CHECK_MSG(status == SPLITKV_ERROR_ASCEND_RUNTIME &&
                  error.value == ACL_ERROR_RT_AICORE_EXCEPTION &&
                  strcmp(error.field, "aclrtSynchronizeStream") == 0 &&
                  strstr(error.message, name) != NULL,
              "%s: status %d, %s", name, (int)status, error.message);
    CHECK(device_out_digest(&l) == l.untouched && time == 0);
    device_free(&l);
  }
  splitkv_ascend_device_close(device);
  CHECK(standin_n_taken() == 0);
}

int main(void) {
  same_bits_as_the_model();
  too_small();
  return check_report("ascend/test_standin");
}
