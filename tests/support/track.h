/* An allocator that counts, remembers what is alive, and fails when told to.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TEST_TRACK_H
#define SPLITKV_TEST_TRACK_H

#include <splitkv/splitkv.h>

enum { TRACK_MAX_ALIVE = 16 };

typedef struct track {
  int64_t n_allocated, n_released, n_failed;
  int64_t fail_at;  /* the allocation (from 1) that returns NULL; 0: none */
  int64_t n_errors; /* releases of what is not alive, alignments that are none */
  size_t last_size, last_alignment;
  void *alive[TRACK_MAX_ALIVE];
} track;

/* An allocator over *t, which it zeroes. */
splitkv_allocator track_allocator(track *t);

/* What is not yet released. */
int64_t track_alive(const track *t);

/* Calls of malloc, calloc, realloc, aligned_alloc and posix_memalign in this program so far, from
 * any thread. Counted only in programs linked with the wrappers (CMake: TRACK_MALLOC). */
int64_t track_malloc_calls(void);

#endif
