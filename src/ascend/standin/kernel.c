/* pa_lib.so for a machine without an NPU: the functional model behind the kernel's own interface.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * It behaves as the kernel does, not as one might wish: a mask is read wherever there is a pointer,
 * rows of empty requests keep what they held, an unknown key does nothing. What it has over the
 * device is that an access outside of a buffer is always noticed, and said on stderr. */
#include "standin.h"

#include <splitkv/ascend.h>
#include <splitkv/threads.h>

#include <stdio.h>

void get_ffts_info(uint64_t *address, uint32_t *length) {
  *address = 0; /* there are no flags between cores to set up */
  *length = 0;
}

static void set_buffer(splitkv_ascend_memory *memory, splitkv_ascend_buffer buffer, void *address,
                       void *stream) {
  memory->data[buffer] = address;
  memory->bytes[buffer] = address != NULL ? standin_bytes_at(address, stream) : 0;
}

static void run_model(uint32_t n_groups, void *stream, const splitkv_ascend_memory *memory) {
  splitkv_error error = {.status = SPLITKV_OK};
  splitkv_threads *threads = NULL;
  /* Without a pool the calling thread does all, with the same result. */
  (void)splitkv_threads_create(splitkv_threads_cpus(), &threads, NULL);
  splitkv_status status = splitkv_ascend_model_run(
      memory->data[SPLITKV_ASCEND_WORDS],
      (int64_t)(memory->bytes[SPLITKV_ASCEND_WORDS] / sizeof(uint32_t)), n_groups, memory,
      SPLITKV_ASCEND_MODEL_MASK_BY_POINTER | SPLITKV_ASCEND_MODEL_KEEP_EMPTY_ROWS,
      splitkv_threads_pool(threads), NULL, NULL, &error);
  splitkv_threads_destroy(threads);
  if (status == SPLITKV_OK) {
    return;
  }
  (void)fprintf(stderr, "pa_lib.so (stand-in): %s\n", error.message);
  if (status != SPLITKV_ERROR_ASCEND_KEY) {
    standin_fail_stream(stream, ACL_ERROR_RT_AICORE_EXCEPTION, error.message);
  }
}

void call_kernel(uint32_t n_groups, void *stream, uint8_t *q, uint8_t *k, uint8_t *v,
                 uint8_t *block_table, uint8_t *mask, uint8_t *deq_scale1, uint8_t *offset1,
                 uint8_t *deq_scale2, uint8_t *offset2, uint8_t *razor_offset, uint8_t *scale,
                 uint8_t *log_n, uint8_t *eye, uint8_t *out, uint8_t *s, uint8_t *p, uint8_t *o_tmp,
                 uint8_t *go, uint8_t *o_core, uint8_t *l, uint8_t *k16, uint8_t *v16,
                 uint8_t *words) {
  (void)deq_scale1, (void)offset1, (void)deq_scale2, (void)offset2;
  (void)razor_offset, (void)scale, (void)log_n, (void)eye;
  splitkv_ascend_memory memory;
  splitkv_ascend_memory_init(&memory);
  set_buffer(&memory, SPLITKV_ASCEND_S, s, stream);
  set_buffer(&memory, SPLITKV_ASCEND_P, p, stream);
  set_buffer(&memory, SPLITKV_ASCEND_O_TMP, o_tmp, stream);
  set_buffer(&memory, SPLITKV_ASCEND_GO, go, stream);
  set_buffer(&memory, SPLITKV_ASCEND_O_CORE, o_core, stream);
  set_buffer(&memory, SPLITKV_ASCEND_L, l, stream);
  set_buffer(&memory, SPLITKV_ASCEND_K16, k16, stream);
  set_buffer(&memory, SPLITKV_ASCEND_V16, v16, stream);
  set_buffer(&memory, SPLITKV_ASCEND_Q, q, stream);
  set_buffer(&memory, SPLITKV_ASCEND_K, k, stream);
  set_buffer(&memory, SPLITKV_ASCEND_V, v, stream);
  set_buffer(&memory, SPLITKV_ASCEND_BLOCK_TABLE, block_table, stream);
  set_buffer(&memory, SPLITKV_ASCEND_MASK, mask, stream);
  set_buffer(&memory, SPLITKV_ASCEND_OUT, out, stream);
  set_buffer(&memory, SPLITKV_ASCEND_WORDS, words, stream);
  run_model(n_groups, stream, &memory);
}
