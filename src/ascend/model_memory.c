/* The model's only way to memory: every access is checked against its buffer and noted.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "model_memory.h"

#include "../checked.h"

/* Further than any buffer, and small enough to add sizes to. */
#define FAR_AWAY ((int64_t)1 << 61)

void spl_model_log_init(spl_model_log *log) {
  memset(log, 0, sizeof *log);
  log->first_order = INT64_MAX;
  for (int i = 0; i < SPLITKV_ASCEND_N_BUFFERS; i++)
    log->lowest_outside[i] = INT64_MAX;
}

void spl_model_log_merge(const spl_model_log *from, splitkv_ascend_report *report,
                         int64_t *first_order) {
  report->n_faults += from->n_faults;
  if (from->n_faults > 0 && from->first_order < *first_order) {
    *first_order = from->first_order;
    report->first = from->first;
  }
  for (int i = 0; i < SPLITKV_ASCEND_N_BUFFERS; i++) {
    report->lowest_outside[i] = spl_min(report->lowest_outside[i], from->lowest_outside[i]);
    if (from->high_water[i] > report->high_water[i]) report->high_water[i] = from->high_water[i];
  }
}

int64_t spl_model_byte(uint64_t element, int64_t element_bytes) {
  const int64_t most = FAR_AWAY / element_bytes;
  if (element <= (uint64_t)most) return (int64_t)element * element_bytes;
  if (element > UINT64_MAX - (uint64_t)most) return -(int64_t)(0 - element) * element_bytes;
  return element >> 63 ? -FAR_AWAY : FAR_AWAY;
}

/* The part of an access that lies inside. */
typedef struct inside {
  int64_t first, end;
} inside;

static inside check(const splitkv_ascend_memory *memory, spl_model_log *log,
                    const spl_model_site *site, splitkv_ascend_buffer buffer, int is_write,
                    int64_t byte, int64_t n) {
  const int64_t end = byte + n;
  const uint64_t bytes = memory->data[buffer] != NULL ? memory->bytes[buffer] : 0;
  const int64_t size = bytes > (uint64_t)INT64_MAX ? INT64_MAX : (int64_t)bytes;
  if (end > 0 && (uint64_t)end > log->high_water[buffer]) log->high_water[buffer] = (uint64_t)end;
  if (byte >= 0 && end <= size) return (inside){byte, end};
  const int64_t outside = byte < 0 ? byte : spl_max(byte, size);
  log->lowest_outside[buffer] = spl_min(log->lowest_outside[buffer], outside);
  log->n_faults++;
  if (site->order < log->first_order) {
    log->first_order = site->order;
    log->first = (splitkv_ascend_fault){buffer,        is_write,    outside,   site->task,
                                        site->request, site->split, site->head};
  }
  const int64_t first = spl_min(spl_max(byte, 0), size);
  return (inside){first, spl_max(first, spl_min(end, size))};
}

void spl_model_read(const splitkv_ascend_memory *memory, spl_model_log *log,
                    const spl_model_site *site, splitkv_ascend_buffer buffer, int64_t byte,
                    int64_t n, void *to) {
  const inside part = check(memory, log, site, buffer, 0, byte, n);
  const int64_t n_inside = part.end - part.first;
  if (n_inside < n) memset(to, 0, (size_t)n);
  if (n_inside == 0) return;
  memcpy((unsigned char *)to + (part.first - byte),
         (const unsigned char *)memory->data[buffer] + part.first, (size_t)n_inside);
}

int spl_model_write(const splitkv_ascend_memory *memory, spl_model_log *log,
                    const spl_model_site *site, splitkv_ascend_buffer buffer, int64_t byte,
                    int64_t n, const void *from) {
  const inside part = check(memory, log, site, buffer, 1, byte, n);
  const int64_t n_inside = part.end - part.first;
  if (n_inside == 0) return 0;
  memcpy((unsigned char *)memory->data[buffer] + part.first,
         (const unsigned char *)from + (part.first - byte), (size_t)n_inside);
  return n_inside == n;
}
