/* The functional model: a launch from words to report.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "model.h"

#include "../caller.h"
#include "../checked.h"
#include "../error.h"
#include "words.h"

/* ── memory of the groups ───────────────────────────────────────────────────────────────────── */

int64_t spl_model_place(const spl_model *m, spl_model_core *core, unsigned char *memory) {
  const int64_t heads_moved = spl_max(m->phases[0].heads_moved, m->phases[1].heads_moved);
  const int64_t tile = m->columns * m->channels;
  const int64_t row = spl_max(m->columns, m->channels);
  const int64_t raw = spl_max(m->columns * heads_moved * m->head_dim, MODEL_MAX_HEADS * row);
  const struct {
    int64_t n_floats;
    float **place;
  } parts[] = {{raw / 2, core ? (float **)NULL : NULL},
               {tile, core ? &core->wide : NULL},
               {tile, core ? &core->matrix : NULL},
               {MODEL_MAX_HEADS * m->channels, core ? &core->q : NULL},
               {MODEL_MAX_HEADS * m->columns, core ? &core->s : NULL},
               {MODEL_MAX_HEADS * m->columns, core ? &core->p : NULL},
               {MODEL_MAX_HEADS * m->channels, core ? &core->o_tile : NULL},
               {MODEL_MAX_HEADS * m->channels, core ? &core->o : NULL},
               {m->has_splits ? m->n_splits * m->head_dim : 0, core ? &core->splits : NULL}};
  int64_t used = 0;
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    if (parts[i].place) *parts[i].place = (float *)(void *)(memory + used);
    used += (parts[i].n_floats * (int64_t)sizeof(float) + 63) / 64 * 64;
  }
  if (core) {
    core->raw = (uint16_t *)(void *)memory;
    core->narrow = (uint16_t *)(void *)(memory + used);
  }
  return used + (MODEL_MAX_HEADS * row * (int64_t)sizeof(uint16_t) + 63) / 64 * 64;
}

/* Groups without a task need no memory. */
static int64_t count_busy(const spl_model *m) {
  const int64_t tasks = spl_max(m->phases[0].n_tasks, m->phases[1].n_tasks);
  return spl_min(m->n_groups, spl_max(1, spl_max(tasks, m->has_splits ? m->n_items : 0)));
}

static bool measure(const spl_model *m, int64_t n_busy, int64_t *cores_at, int64_t *chips_at,
                    int64_t *bytes) {
  *cores_at = (m->n_written + 63) / 64 * 64;
  *chips_at = *cores_at + (n_busy * (int64_t)sizeof(spl_model_core) + 63) / 64 * 64;
  *bytes = *chips_at;
  return spl_mul_add(n_busy, spl_model_place(m, NULL, NULL), bytes);
}

/* ── the host's part ────────────────────────────────────────────────────────────────────────── */

/* Rows of out of requests without tokens. */
static void zero_empty_rows(const spl_model *m) {
  const int64_t row = m->head_dim * 2;
  const int64_t out_bytes = m->n_written * row;
  for (int64_t e = 0; e < m->n_entries; e++) {
    const uint32_t *entry = spl_ascend_entry(m->words, e);
    if (entry[E_KV_LEN] != 0) continue;
    for (int64_t h = 0; h < m->n_heads; h++) {
      const int64_t byte = spl_model_byte(spl_ascend_offset(entry + E_OUT_OFFSET), 2) + h * row;
      if (byte < 0 || byte > out_bytes - row) continue;
      memset((unsigned char *)m->memory->data[SPLITKV_ASCEND_OUT] + byte, 0, (size_t)row);
      if (byte % row == 0) m->written[byte / row] = 1;
    }
  }
}

/* ── the run ────────────────────────────────────────────────────────────────────────────────── */

static void run_tasks(void *context, int64_t group) {
  const spl_model *m = context;
  spl_model_run_tasks(m, &m->cores[group], group);
}

static void run_combine(void *context, int64_t group) {
  const spl_model *m = context;
  spl_model_run_combine(m, &m->cores[group], group);
}

static splitkv_ascend_report make_report(const spl_model *m, int64_t n_busy) {
  splitkv_ascend_report report = {.struct_size = sizeof report};
  for (int i = 0; i < SPLITKV_ASCEND_N_BUFFERS; i++)
    report.lowest_outside[i] = INT64_MAX;
  int64_t first_order = INT64_MAX;
  for (int64_t g = 0; g < n_busy; g++) {
    spl_model_log_merge(&m->cores[g].log, &report, &first_order);
    report.n_tasks += m->cores[g].n_tasks;
  }
  report.n_rows_unwritten = m->n_entries * m->n_heads;
  for (int64_t i = 0; i < m->n_written; i++)
    report.n_rows_unwritten -= m->written[i];
  return report;
}

static splitkv_status fail_bounds(const splitkv_ascend_report *report,
                                  const splitkv_ascend_memory *memory, splitkv_error *error) {
  const splitkv_ascend_fault *f = &report->first;
  const char *name = splitkv_ascend_buffer_name(f->buffer);
  const char *what = f->is_write ? "written" : "read";
  const unsigned long long bytes = memory->bytes[f->buffer];
  if (f->task < 0) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_BOUNDS, name, f->byte,
                    "byte %lld is %s by the combine of request %lld, head %lld, the buffer has "
                    "%llu; %lld accesses are outside",
                    (long long)f->byte, what, (long long)f->request, (long long)f->head, bytes,
                    (long long)report->n_faults);
  }
  return spl_fail(error, SPLITKV_ERROR_ASCEND_BOUNDS, name, f->byte,
                  "byte %lld is %s by task %lld (request %lld, split %lld, head %lld), the buffer "
                  "has %llu; %lld accesses are outside",
                  (long long)f->byte, what, (long long)f->task, (long long)f->request,
                  (long long)f->split, (long long)f->head, bytes, (long long)report->n_faults);
}

static splitkv_status check_arguments(const uint32_t *words, const splitkv_ascend_memory *memory,
                                      uint32_t flags, const splitkv_pool *pool,
                                      const splitkv_ascend_report *report, splitkv_error *error) {
  splitkv_status status = spl_check_pointer(error, "words", words, 1, sizeof *words);
  if (status != SPLITKV_OK) return status;
  if (memory == NULL) return spl_fail_null(error, "memory");
  status = spl_check_struct_size(error, "memory.struct_size", memory->struct_size, sizeof *memory,
                                 sizeof *memory);
  if (status != SPLITKV_OK) return status;
  if (report != NULL) {
    status = spl_check_struct_size(error, "report.struct_size", report->struct_size, sizeof *report,
                                   sizeof *report);
    if (status != SPLITKV_OK) return status;
  }
  for (int i = 0; i < SPLITKV_ASCEND_WORDS; i++) {
    if (memory->data[i] == NULL && memory->bytes[i] > 0) {
      return spl_fail(error, SPLITKV_ERROR_NULL_POINTER, "memory.data", i,
                      "%s has %llu bytes but no data",
                      splitkv_ascend_buffer_name((splitkv_ascend_buffer)i),
                      (unsigned long long)memory->bytes[i]);
    }
  }
  const uint32_t known =
      SPLITKV_ASCEND_MODEL_MASK_BY_POINTER | SPLITKV_ASCEND_MODEL_KEEP_EMPTY_ROWS;
  if ((flags & ~known) != 0) {
    return spl_fail(error, SPLITKV_ERROR_FLAGS, "flags", flags, "%u has unknown bits",
                    (unsigned)flags);
  }
  return spl_check_pool(pool, error);
}

splitkv_status splitkv_ascend_model_run(const uint32_t *words, int64_t n_words, int64_t n_groups,
                                        const splitkv_ascend_memory *memory, uint32_t flags,
                                        const splitkv_pool *pool,
                                        const splitkv_allocator *allocator,
                                        splitkv_ascend_report *report, splitkv_error *error) {
  splitkv_status status = check_arguments(words, memory, flags, pool, report, error);
  if (status != SPLITKV_OK) return status;
  splitkv_allocator chosen;
  status = spl_choose_allocator(allocator, &chosen, error);
  if (status != SPLITKV_OK) return status;
  spl_model m;
  status = spl_model_decode(words, n_words, n_groups, memory, flags, &m, error);
  if (status != SPLITKV_OK) return status;

  const int64_t n_busy = count_busy(&m);
  int64_t cores_at = 0, chips_at = 0, bytes = INT64_MAX;
  const bool fits = measure(&m, n_busy, &cores_at, &chips_at, &bytes);
  unsigned char *chips =
      fits ? chosen.allocate(chosen.context, (size_t)bytes, SPLITKV_ALIGNMENT) : NULL;
  if (chips == NULL) {
    return spl_fail(error, SPLITKV_ERROR_OUT_OF_MEMORY, "n_groups", n_groups,
                    "the allocator has no %lld bytes for them", (long long)bytes);
  }
  memset(chips, 0, (size_t)chips_at);
  m.written = chips;
  m.cores = (spl_model_core *)(void *)(chips + cores_at);
  const int64_t chip_bytes = spl_model_place(&m, NULL, NULL);
  for (int64_t g = 0; g < n_busy; g++) {
    spl_model_log_init(&m.cores[g].log);
    (void)spl_model_place(&m, &m.cores[g], chips + chips_at + g * chip_bytes);
  }
  if ((flags & SPLITKV_ASCEND_MODEL_KEEP_EMPTY_ROWS) == 0) zero_empty_rows(&m);
  spl_parallel_for(pool, n_busy, run_tasks, &m);
  if (m.has_splits) spl_parallel_for(pool, n_busy, run_combine, &m);

  const splitkv_ascend_report made = make_report(&m, n_busy);
  chosen.release(chosen.context, chips);
  if (report != NULL) *report = made;
  return made.n_faults > 0 ? fail_bounds(&made, memory, error) : SPLITKV_OK;
}
