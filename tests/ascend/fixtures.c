/* Libraries that are not what they should be, one for each macro.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <standin.h>

#include <string.h>

#if defined(KERNEL_ECHO)
/* A kernel that writes to out how many bytes it was given behind each of its arguments, in order.
 */
void call_kernel(uint32_t n_groups, void *stream, uint8_t *q, uint8_t *k, uint8_t *v,
                 uint8_t *block_table, uint8_t *mask, uint8_t *deq_scale1, uint8_t *offset1,
                 uint8_t *deq_scale2, uint8_t *offset2, uint8_t *razor_offset, uint8_t *scale,
                 uint8_t *log_n, uint8_t *eye, uint8_t *out, uint8_t *s, uint8_t *p, uint8_t *o_tmp,
                 uint8_t *go, uint8_t *o_core, uint8_t *l, uint8_t *k16, uint8_t *v16,
                 uint8_t *words) {
  const uint8_t *const arguments[] = {
      q,     k,     v,    block_table, mask, deq_scale1, offset1, deq_scale2, offset2, razor_offset,
      scale, log_n, eye,  out,         s,    p,          o_tmp,   go,         o_core,  l,
      k16,   v16,   words};
  enum { N_ARGUMENTS = sizeof arguments / sizeof arguments[0] };
  uint64_t sizes[N_ARGUMENTS + 1];
  for (int i = 0; i < N_ARGUMENTS; i++) {
    sizes[i] = standin_bytes_at(arguments[i], stream);
  }
  sizes[N_ARGUMENTS] = n_groups;
  memcpy(out, sizes, sizeof sizes);
}

#elif defined(RUNTIME_PARTIAL)
/* A runtime that lacks all but one function. */
int aclInit(const char *config_path) {
  (void)config_path;
  return ACL_SUCCESS;
}

#elif defined(RUNTIME_MUTE)
/* A runtime that has no aclGetRecentErrMsg, and whose first call fails. */
#define FAILING(name, ...)                                                                         \
  int name(__VA_ARGS__) {                                                                          \
    return ACL_ERROR_INTERNAL_ERROR;                                                               \
  }
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wunused-parameter"
#else
#pragma GCC diagnostic ignored "-Wunused-parameter"
#endif
FAILING(aclInit, const char *a)
FAILING(aclrtSetDevice, int32_t a)
FAILING(aclrtResetDevice, int32_t a)
FAILING(aclrtGetCurrentContext, void **a)
FAILING(aclrtSetCurrentContext, void *a)
FAILING(aclrtCreateStream, void **a)
FAILING(aclrtDestroyStream, void *a)
FAILING(aclrtSynchronizeStream, void *a)
FAILING(aclrtMalloc, void **a, size_t b, int c)
FAILING(aclrtFree, void *a)
FAILING(aclrtMemcpy, void *a, size_t b, const void *c, size_t d, int e)
FAILING(aclrtMemset, void *a, size_t b, int32_t c, size_t d)
FAILING(aclrtCreateEvent, void **a)
FAILING(aclrtDestroyEvent, void *a)
FAILING(aclrtRecordEvent, void *a, void *b)
FAILING(aclrtEventElapsedTime, float *a, void *b, void *c)
#endif
