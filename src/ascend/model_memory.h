/* The model's only way to memory: every access is checked against its buffer and noted.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_ASCEND_MODEL_MEMORY_H
#define SPL_ASCEND_MODEL_MEMORY_H

#include <splitkv/ascend.h>

/* Who accesses: what a fault says, and where it stands in the order of tasks and the combine. */
typedef struct spl_model_site {
  int64_t order; /* tasks in their order, then items of the combine */
  int64_t task, request, split, head;
} spl_model_site;

/* What one group touched. */
typedef struct spl_model_log {
  int64_t n_faults, first_order;
  splitkv_ascend_fault first;
  int64_t lowest_outside[SPLITKV_ASCEND_N_BUFFERS];
  uint64_t high_water[SPLITKV_ASCEND_N_BUFFERS];
} spl_model_log;

void spl_model_log_init(spl_model_log *log);

/* Adds what `from` touched to the report. *first_order is the order of report->first. */
void spl_model_log_merge(const spl_model_log *from, splitkv_ascend_report *report,
                         int64_t *first_order);

/* A buffer's byte of an element at an offset of words: those that no memory has are far outside,
 * above, or below where the offset is negative as a signed number. */
int64_t spl_model_byte(uint64_t element, int64_t element_bytes);

/* Bytes [byte, byte + n) of a buffer. What lies outside reads as zeros and is not written. */
void spl_model_read(const splitkv_ascend_memory *memory, spl_model_log *log,
                    const spl_model_site *site, splitkv_ascend_buffer buffer, int64_t byte,
                    int64_t n, void *to);
/* Whether all of it lies inside. */
int spl_model_write(const splitkv_ascend_memory *memory, spl_model_log *log,
                    const spl_model_site *site, splitkv_ascend_buffer buffer, int64_t byte,
                    int64_t n, const void *from);

#endif
