/* SPDX-License-Identifier: Apache-2.0 */
#include "roof.h"

#include "machine.h"

#include <splitkv/probe.h>

#include <stdatomic.h>
#include <string.h>

/* Each task reads this much in one stretch: enough to stream, little enough to balance. */
enum { READ_BYTES = 1 << 20 };

splitkv_isa roof_isa(const char *kernel_set) {
  for (int64_t i = 0; i < splitkv_kernel_set_count(); i++) {
    splitkv_kernel_set_info info = {.struct_size = sizeof info};
    if (splitkv_kernel_set_get(i, &info, NULL) == SPLITKV_OK &&
        strcmp(info.name, kernel_set) == 0) {
      return info.isa;
    }
  }
  return SPLITKV_ISA_SCALAR;
}

typedef struct read_job {
  splitkv_isa isa;
  const roof_memory *memory;
  int64_t n_tasks[ROOF_PIECES]; /* of each piece */
  size_t prefetch_bytes;
  _Atomic uint32_t sink; /* keeps the reads alive */
} read_job;

static void read_stretch(void *context, int64_t i) {
  read_job *job = context;
  int piece = 0;
  for (; i >= job->n_tasks[piece]; piece++) {
    i -= job->n_tasks[piece];
  }
  size_t n = (size_t)job->n_tasks[piece], index = (size_t)i;
  size_t size = job->memory->size_bytes[piece];
  /* Whole cache lines: first byte of stretch k. */
  size_t step = (size / n + 63) / 64 * 64;
  size_t first = index * step < size ? index * step : size;
  size_t bytes = index + 1 == n || size - first < step ? size - first : step;
  uint32_t sink = 0;
  splitkv_probe_read(job->isa, (const char *)job->memory->data[piece] + first, bytes,
                     job->prefetch_bytes, &sink);
  atomic_fetch_xor_explicit(&job->sink, sink, memory_order_relaxed);
}

double roof_read(const roof_machine *machine, const roof_memory *memory, size_t prefetch_bytes) {
  read_job job = {.isa = machine->isa, .memory = memory, .prefetch_bytes = prefetch_bytes};
  int64_t n_all = 0;
  for (int piece = 0; piece < ROOF_PIECES; piece++) {
    size_t size = memory->size_bytes[piece];
    int64_t n = (int64_t)(size / READ_BYTES);
    n = n < machine->n_threads ? machine->n_threads : n;
    job.n_tasks[piece] = size == 0 ? 0 : n;
    n_all += job.n_tasks[piece];
  }
  double start = machine_seconds();
  machine->pool->parallel_for(machine->pool->context, n_all, read_stretch, &job);
  return machine_seconds() - start;
}

typedef struct multiply_job {
  splitkv_isa isa;
  int64_t n_per_thread;
  _Atomic int64_t n_done;
} multiply_job;

static void multiply(void *context, int64_t i) {
  multiply_job *job = context;
  (void)i;
  float sink = 0;
  int64_t n = splitkv_probe_multiply_add(job->isa, job->n_per_thread, &sink);
  atomic_fetch_add_explicit(&job->n_done, n, memory_order_relaxed);
}

double roof_multiply_adds(const roof_machine *machine, int64_t n_per_thread) {
  multiply_job job = {.isa = machine->isa, .n_per_thread = n_per_thread};
  double start = machine_seconds();
  machine->pool->parallel_for(machine->pool->context, machine->n_threads, multiply, &job);
  double seconds = machine_seconds() - start;
  return seconds > 0 ? (double)atomic_load(&job.n_done) / seconds : 0;
}
