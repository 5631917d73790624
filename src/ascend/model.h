/* The functional model: what its parts know of each other.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * It is the independent witness of tiling and sizes: of src/ascend/ it takes words.h alone. */
#ifndef SPL_ASCEND_MODEL_H
#define SPL_ASCEND_MODEL_H

#include <splitkv/ascend.h>

#include <stdbool.h>

#include "model_memory.h"

enum {
  MODEL_MAX_HEADS = 32,  /* of a task */
  MODEL_MAX_SPLITS = 64, /* of a request */
  MODEL_STAGES = 2       /* tiles in flight */
};

/* One of the two loops over tasks. */
typedef struct spl_model_phase {
  int64_t first;                    /* place in the order of its first request */
  int64_t n_requests, n_splits;     /* split slots: 1 in the tail */
  int64_t heads_per_task, n_chunks; /* of heads */
  int64_t rows;                     /* query rows per matrix product */
  int64_t heads_moved;              /* KV heads per copy */
  int64_t first_task, n_tasks;
} spl_model_phase;

/* The launch as the words say. */
typedef struct spl_model {
  const uint32_t *words;
  const splitkv_ascend_memory *memory;
  int64_t n_groups, n_entries;
  int64_t n_heads, head_dim, channels; /* channels: head_dim rounded up to 16 */
  int64_t page_tokens, tile_tokens, columns, split_tokens, n_splits, group, kv_stride;
  float scale;
  bool is_bf16, has_splits, has_mask;
  spl_model_phase phases[2];
  int64_t n_items, first_entry; /* of the combine */
  unsigned char *written;       /* [n_written]: rows of out, by their place in it */
  int64_t n_written;
  struct spl_model_core *cores; /* [n_groups] */
} spl_model;

/* On-chip memory of one group, and what it touched. Rows are query heads of a task. */
typedef struct spl_model_core {
  spl_model_log log;
  int64_t n_tasks; /* with tokens */
  spl_model_site site;
  /* Scratch that belongs to one thing at a time. */
  uint16_t *raw;    /* K or V as loaded: [tile_tokens, heads_moved, head_dim]; Q and P too */
  float *wide;      /* [tile_tokens, channels], of one KV head */
  float *matrix;    /* K turned: [channels, columns], or V: [tile_tokens, channels] */
  float *q;         /* [MODEL_MAX_HEADS, channels] */
  float *s;         /* [MODEL_MAX_HEADS, columns] */
  float *p;         /* [MODEL_MAX_HEADS, columns] */
  float *o_tile;    /* [MODEL_MAX_HEADS, channels] */
  float *o;         /* [MODEL_MAX_HEADS, channels] */
  float *splits;    /* [n_splits, head_dim] */
  uint16_t *narrow; /* [MODEL_MAX_HEADS, columns or channels] */
  float m[MODEL_MAX_HEADS], l[MODEL_MAX_HEADS];
  float m_change[MODEL_STAGES][MODEL_MAX_HEADS], l_tile[MODEL_STAGES][MODEL_MAX_HEADS];
} spl_model_core;

/* Bytes of one group's on-chip memory; where core is not NULL its pointers are set into `memory`.
 */
int64_t spl_model_place(const spl_model *model, spl_model_core *core, unsigned char *memory);

/* Words → *model, or ASCEND_WORDS, ASCEND_KEY: whatever a launch could not be made of, or what
 * would not fit in the buffers on the chip. */
splitkv_status spl_model_decode(const uint32_t *words, int64_t n_words, int64_t n_groups,
                                const splitkv_ascend_memory *memory, uint32_t flags,
                                spl_model *model, splitkv_error *error);

/* Entry of the order's k-th request, and the index of that entry. */
const uint32_t *spl_model_entry(const spl_model *model, int64_t k, int64_t *index);

/* Splits of a request that have tokens. */
int64_t spl_model_used_splits(const spl_model *model, int64_t kv_len);

/* All tasks of a group, and after all groups have done so, its items of the combine. */
void spl_model_run_tasks(const spl_model *model, spl_model_core *core, int64_t group);
void spl_model_run_combine(const spl_model *model, spl_model_core *core, int64_t group);

#endif
