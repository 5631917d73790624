/* SPDX-License-Identifier: Apache-2.0 */
#include "track.h"

#include <stdlib.h>
#include <string.h>

static void *track_allocate(void *context, size_t size, size_t alignment) {
  track *t = context;
  ++t->n_allocated;
  t->last_size = size;
  t->last_alignment = alignment;
  if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > SPLITKV_ALIGNMENT)
    ++t->n_errors;
  if (t->n_allocated == t->fail_at) {
    ++t->n_failed;
    return NULL;
  }
  /* aligned_alloc wants a multiple of the alignment; the caller gets what was asked for. */
  void *memory = aligned_alloc(SPLITKV_ALIGNMENT, (size + SPLITKV_ALIGNMENT - 1) /
                                                      SPLITKV_ALIGNMENT * SPLITKV_ALIGNMENT);
  for (int i = 0; memory && i < TRACK_MAX_ALIVE; ++i)
    if (!t->alive[i]) {
      t->alive[i] = memory;
      return memory;
    }
  free(memory);
  ++t->n_errors;
  return NULL;
}

static void track_release(void *context, void *memory) {
  track *t = context;
  ++t->n_released;
  for (int i = 0; i < TRACK_MAX_ALIVE; ++i)
    if (memory && t->alive[i] == memory) {
      t->alive[i] = NULL;
      free(memory);
      return;
    }
  ++t->n_errors;
}

splitkv_allocator track_allocator(track *t) {
  memset(t, 0, sizeof *t);
  splitkv_allocator a;
  memset(&a, 0, sizeof a);
  a.struct_size = sizeof a;
  a.allocate = track_allocate;
  a.release = track_release;
  a.context = t;
  return a;
}

int64_t track_alive(const track *t) {
  int64_t n = 0;
  for (int i = 0; i < TRACK_MAX_ALIVE; ++i)
    n += t->alive[i] != NULL;
  return n;
}
