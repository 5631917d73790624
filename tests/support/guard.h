/* Buffers that lie flush against a page nobody may touch.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TEST_GUARD_H
#define SPLITKV_TEST_GUARD_H

#include <stdbool.h>
#include <stddef.h>

typedef enum guard_side {
  GUARD_RIGHT = 0, /* the byte after the buffer faults */
  GUARD_LEFT = 1   /* the byte before the buffer faults */
} guard_side;

typedef struct guard_buffer {
  unsigned char *data; /* size_bytes bytes; never NULL */
  size_t size_bytes;
  void *map;
  size_t map_bytes;
} guard_buffer;

/* Maps the buffer with a forbidden page at both ends; data is flush with the one on `side`. With
 * alignment > 1 and GUARD_RIGHT the data begins at the last aligned place that holds it, and what
 * is left to the page is part of the canary. Ends the program when memory is short. */
guard_buffer guard_create(size_t size_bytes, guard_side side, size_t alignment);

/* Whether nobody wrote to the rest of the buffer's pages. */
bool guard_is_intact(const guard_buffer *buffer);

void guard_destroy(guard_buffer *buffer);

#endif
