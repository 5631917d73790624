/* Stand-ins for a machine without an NPU: the functions of the Ascend runtime that splitkv calls,
 * on the host's memory, and the kernel's library, which runs the functional model.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The runtime's functions have the types and codes of its documentation. The ones named standin_*
 * exist here only: for the kernel's stand-in and for tests. */
#ifndef STANDIN_H
#define STANDIN_H

#include <stddef.h>
#include <stdint.h>

enum { STANDIN_N_DEVICES = 8 };

/* Codes of the runtime, a few of them. */
enum {
  ACL_SUCCESS = 0,
  ACL_ERROR_UNINITIALIZE = 100001,
  ACL_ERROR_REPEAT_INITIALIZE = 100002,
  ACL_ERROR_RT_PARAM_INVALID = 107000,
  ACL_ERROR_RT_INVALID_DEVICEID = 107001,
  ACL_ERROR_RT_CONTEXT_NULL = 107002,
  ACL_ERROR_RT_STREAM_CONTEXT = 107003,
  ACL_ERROR_RT_EVENT_TIMESTAMP_INVALID = 107006,
  ACL_ERROR_RT_MEMORY_ALLOCATION = 207001,
  ACL_ERROR_INTERNAL_ERROR = 500000,
  ACL_ERROR_RT_AICORE_EXCEPTION = 507015
};
enum { ACL_MEMCPY_HOST_TO_DEVICE = 1, ACL_MEMCPY_DEVICE_TO_HOST = 2 };

/* ── the runtime ────────────────────────────────────────────────────────────────────────────── */

int aclInit(const char *config_path);
int aclrtSetDevice(int32_t device_id);
int aclrtResetDevice(int32_t device_id);
int aclrtGetCurrentContext(void **context);
int aclrtSetCurrentContext(void *context);
int aclrtCreateStream(void **stream);
int aclrtDestroyStream(void *stream);
int aclrtSynchronizeStream(void *stream);
int aclrtMalloc(void **address, size_t size, int policy);
int aclrtFree(void *address);
int aclrtMemcpy(void *dst, size_t dst_size, const void *src, size_t size, int kind);
int aclrtMemset(void *dst, size_t dst_size, int32_t value, size_t size);
int aclrtCreateEvent(void **event);
int aclrtDestroyEvent(void *event);
int aclrtRecordEvent(void *event, void *stream);
int aclrtEventElapsedTime(float *milliseconds, void *start, void *end);
/* What the calling thread's last failure was, once; NULL when there is nothing new. */
const char *aclGetRecentErrMsg(void);

/* ── for the kernel ─────────────────────────────────────────────────────────────────────────── */

/* Bytes from `address` to the end of its allocation on the device of the stream; 0 where it lies in
 * none. */
uint64_t standin_bytes_at(const void *address, void *stream);

/* What the stream's next synchronisation returns, as when a core has met an exception. */
void standin_fail_stream(void *stream, int code, const char *message);

/* ── for tests ──────────────────────────────────────────────────────────────────────────────── */

/* Makes the k-th call from now of a function fail, 1 the next one; function NULL: the k-th call of
 * any. k 0: none. What gives something back gives it back and fails all the same. The environment
 * variable SPLITKV_STANDIN_FAIL=function:k does this once for a process. */
void standin_fail_call(const char *function, int64_t k);

/* Calls since the last standin_fail_call of a function, NULL: of all. */
int64_t standin_n_calls(const char *function);

/* Allocations, streams and events that nobody has given back, and the times a device was set and
 * not reset. */
int64_t standin_n_taken(void);

/* ── the kernel's library ───────────────────────────────────────────────────────────────────── */

void get_ffts_info(uint64_t *address, uint32_t *length);
void call_kernel(uint32_t n_groups, void *stream, uint8_t *q, uint8_t *k, uint8_t *v,
                 uint8_t *block_table, uint8_t *mask, uint8_t *deq_scale1, uint8_t *offset1,
                 uint8_t *deq_scale2, uint8_t *offset2, uint8_t *razor_offset, uint8_t *scale,
                 uint8_t *log_n, uint8_t *eye, uint8_t *out, uint8_t *s, uint8_t *p, uint8_t *o_tmp,
                 uint8_t *go, uint8_t *o_core, uint8_t *l, uint8_t *k16, uint8_t *v16,
                 uint8_t *words);

#endif
