/* The C allocator of the whole program, counted: linked with --wrap for each function.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "track.h"

#include <stdatomic.h>
#include <stddef.h>

static _Atomic int64_t n_calls;

int64_t track_malloc_calls(void) {
  return atomic_load(&n_calls);
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
int __real_posix_memalign(void **memory, size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t size);

void *__wrap_malloc(size_t size) {
  atomic_fetch_add(&n_calls, 1);
  return __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size) {
  atomic_fetch_add(&n_calls, 1);
  return __real_calloc(n, size);
}

void *__wrap_realloc(void *memory, size_t size) {
  atomic_fetch_add(&n_calls, 1);
  return __real_realloc(memory, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size) {
  atomic_fetch_add(&n_calls, 1);
  return __real_aligned_alloc(alignment, size);
}

int __wrap_posix_memalign(void **memory, size_t alignment, size_t size) {
  atomic_fetch_add(&n_calls, 1);
  return __real_posix_memalign(memory, alignment, size);
}
