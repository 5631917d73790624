/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "guard.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CANARY = 0xa5 };

static size_t page_bytes(void) {
  return (size_t)sysconf(_SC_PAGESIZE);
}

guard_buffer guard_create(size_t size_bytes, guard_side side, size_t alignment) {
  const size_t page = page_bytes();
  const size_t inner = (size_bytes + page - 1) / page * page;
  guard_buffer b = {0};
  b.map_bytes = inner + 2 * page;
  b.size_bytes = size_bytes;
  unsigned char *map =
      mmap(NULL, b.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED ||
      (inner > 0 && mprotect(map + page, inner, PROT_READ | PROT_WRITE) != 0)) {
    perror("guard_create");
    exit(2);
  }
  b.map = map;
  size_t offset = side == GUARD_LEFT ? 0 : inner - size_bytes;
  offset -= offset % (alignment > 0 ? alignment : 1);
  b.data = map + page + offset;
  memset(map + page, CANARY, offset);
  if (size_bytes > 0) memset(b.data + size_bytes, CANARY, inner - offset - size_bytes);
  return b;
}

static bool all_canary(const unsigned char *from, const unsigned char *to) {
  for (; from < to; ++from)
    if (*from != CANARY) return false;
  return true;
}

bool guard_is_intact(const guard_buffer *b) {
  const size_t page = page_bytes();
  const unsigned char *first = (const unsigned char *)b->map + page;
  const unsigned char *end = (const unsigned char *)b->map + b->map_bytes - page;
  return all_canary(first, b->data) &&
         (b->size_bytes == 0 || all_canary(b->data + b->size_bytes, end));
}

void guard_destroy(guard_buffer *b) {
  if (b->map) munmap(b->map, b->map_bytes);
  memset(b, 0, sizeof *b);
}
