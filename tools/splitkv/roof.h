/* What this machine could do at best, measured with the library's own probes.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_ROOF_H
#define SPLITKV_TOOL_ROOF_H

#include <splitkv/splitkv.h>

#include <stddef.h>

typedef struct roof_machine {
  const splitkv_pool *pool;
  int64_t n_threads;
  splitkv_isa isa; /* of the kernel set whose vectors are used */
} roof_machine;

/* The isa of a kernel set by its name; SPLITKV_ISA_SCALAR where there is none. */
splitkv_isa roof_isa(const char *kernel_set);

/* Pieces of memory, some of which may be empty. */
enum { ROOF_PIECES = 6 };
typedef struct roof_memory {
  const void *data[ROOF_PIECES];
  size_t size_bytes[ROOF_PIECES];
} roof_memory;

/* Seconds to read all pieces once with all threads. prefetch_bytes: see splitkv_probe_read. */
double roof_read(const roof_machine *machine, const roof_memory *memory, size_t prefetch_bytes);

/* Multiply-adds per second of all threads together, over n_per_thread each. */
double roof_multiply_adds(const roof_machine *machine, int64_t n_per_thread);

#endif
