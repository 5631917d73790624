/* The model's cores at work: tasks, tiles, and the combine.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * What the cube core does is named cube_*, what the two vector cores do vector_*. On the device
 * they run side by side and wait for each other where this file goes from one to the other. On-chip
 * memory that nobody filled is NaN here, so that a result that depended on it would show. */
#include <math.h>

#include "../checked.h"
#include "model.h"
#include "model_math.h"
#include "words.h"

/* One task that has tokens. */
typedef struct task {
  const uint32_t *entry;
  int64_t first_head, n_heads;
  int64_t split, first_token, n_tokens;
  int64_t rows, heads_moved; /* per matrix product, per copy */
} task;

/* One tile of it. */
typedef struct tile {
  int64_t index, first_page, n_tokens, columns;
  int stage;
} tile;

typedef struct place {
  const spl_model *m;
  spl_model_core *core;
  int64_t group;
} place;

static void read(const place *at, splitkv_ascend_buffer buffer, int64_t byte, int64_t n, void *to) {
  spl_model_read(at->m->memory, &at->core->log, &at->core->site, buffer, byte, n, to);
}

static int write(const place *at, splitkv_ascend_buffer buffer, int64_t byte, int64_t n,
                 const void *from) {
  return spl_model_write(at->m->memory, &at->core->log, &at->core->site, buffer, byte, n, from);
}

static void fill_nan(float *row, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    row[i] = NAN;
}

static tile tile_of(const spl_model *m, const task *t, int64_t index) {
  const int64_t n = spl_min(m->tile_tokens, t->n_tokens - index * m->tile_tokens);
  return (tile){.index = index,
                .first_page =
                    t->first_token / m->page_tokens + index * (m->tile_tokens / m->page_tokens),
                .n_tokens = n,
                .columns = (n + 15) / 16 * 16,
                .stage = (int)(index % MODEL_STAGES)};
}

/* Where row `row` of a tile begins in the group's part of a scratch buffer. */
static int64_t s_byte(const place *at, const tile *i, int64_t row) {
  return 4 * (at->group * S_GROUP_ELEMENTS + i->stage * S_STAGE_ELEMENTS + row * i->columns);
}
static int64_t p_byte(const place *at, const tile *i, int64_t row) {
  return 2 * (at->group * P_GROUP_ELEMENTS + i->stage * P_STAGE_ELEMENTS + row * i->columns);
}
static int64_t o_tmp_byte(const place *at, const tile *i, int64_t row) {
  return 4 * (at->group * O_TMP_GROUP_ELEMENTS + i->stage * O_TMP_STAGE_ELEMENTS +
              row * at->m->channels);
}

/* ── the cube core ──────────────────────────────────────────────────────────────────────────── */

static void cube_load_q(const place *at, const task *t) {
  const spl_model *m = at->m;
  spl_model_core *core = at->core;
  /* Rows for products of single rows are copied in whole blocks of 16 channels, past the end of a
   * row where its channels are no multiple. */
  const int64_t n = t->rows > 1 ? m->head_dim : m->channels;
  const uint64_t first =
      spl_ascend_offset(t->entry + E_Q_OFFSET) + (uint64_t)(t->first_head * m->head_dim);
  for (int64_t i = 0; i < t->n_heads; i++) {
    core->site.head = t->first_head + i;
    const int64_t byte = spl_model_byte((uint32_t)first, 2) + i * m->head_dim * 2;
    read(at, SPLITKV_ASCEND_Q, byte, n * 2, core->raw);
    spl_model_widen(m->is_bf16, core->raw, m->head_dim, core->q + i * m->channels);
  }
}

/* First byte of a token of K or V. */
static int64_t token_byte(const spl_model *m, uint32_t page, int64_t token, int64_t head) {
  int64_t element = 0;
  if (!spl_mul((int64_t)page * m->page_tokens + token, m->kv_stride, &element))
    return spl_model_byte((uint64_t)INT64_MAX, 1);
  return spl_model_byte((uint64_t)element + (uint64_t)(head * m->head_dim), 2);
}

/* The tokens of a tile, of n_heads KV heads side by side, to core->raw. */
static void cube_load_kv(const place *at, const task *t, const tile *i,
                         splitkv_ascend_buffer buffer, int64_t head, int64_t n_heads) {
  const spl_model *m = at->m;
  const int64_t row = n_heads * m->head_dim;
  for (int64_t first = 0; first < i->n_tokens; first += m->page_tokens) {
    const uint32_t index = t->entry[E_REQUEST] * m->words[W_TABLE_WIDTH] +
                           (uint32_t)(i->first_page + first / m->page_tokens);
    uint32_t page = 0;
    read(at, SPLITKV_ASCEND_BLOCK_TABLE, spl_model_byte(index, 4), 4, &page);
    const int64_t n = spl_min(m->page_tokens, i->n_tokens - first);
    for (int64_t k = 0; k < n; k++)
      read(at, buffer, token_byte(m, page, k, head), row * 2, at->core->raw + (first + k) * row);
  }
}

/* KV head `index` of those in core->raw becomes the right side of products: K turned, V not. */
static void cube_widen(const place *at, const tile *i, splitkv_ascend_buffer buffer, int64_t index,
                       int64_t n_heads) {
  const spl_model *m = at->m;
  spl_model_core *core = at->core;
  const bool is_k = buffer == SPLITKV_ASCEND_K;
  const int64_t stride = is_k ? m->head_dim : m->channels;
  float *wide = is_k ? core->wide : core->matrix;
  for (int64_t k = 0; k < i->n_tokens; k++) {
    spl_model_widen(m->is_bf16, core->raw + (k * n_heads + index) * m->head_dim, m->head_dim,
                    wide + k * stride);
    for (int64_t c = m->head_dim; c < stride; c++)
      wide[k * stride + c] = NAN;
  }
  if (!is_k) return;
  spl_model_transpose(wide, i->n_tokens, m->head_dim, core->matrix, i->columns);
  for (int64_t c = 0; c < m->head_dim; c++)
    fill_nan(core->matrix + c * i->columns + i->n_tokens, i->columns - i->n_tokens);
}

/* Rows [row, row + n) of S or O_tmp: the left side has them from row `left` on, as far as the task
 * has heads; what is beyond is whatever the chip holds. */
static void cube_multiply(const place *at, const task *t, const tile *i,
                          splitkv_ascend_buffer buffer, int64_t left, int64_t row, int64_t n) {
  const spl_model *m = at->m;
  spl_model_core *core = at->core;
  const bool is_k = buffer == SPLITKV_ASCEND_K;
  const int64_t width = is_k ? i->columns : m->channels;
  float *result = is_k ? core->s : core->o_tile;
  const int64_t real = spl_max(0, spl_min(n, t->n_heads - left));
  spl_model_multiply((is_k ? core->q : core->p) + left * (is_k ? m->channels : i->columns),
                     is_k ? m->channels : i->columns, core->matrix, width, real,
                     is_k ? m->head_dim : i->n_tokens, width, result, width);
  fill_nan(result + real * width, (n - real) * width);
  core->site.head = t->first_head + row;
  write(at, is_k ? SPLITKV_ASCEND_S : SPLITKV_ASCEND_O_TMP,
        is_k ? s_byte(at, i, row) : o_tmp_byte(at, i, row), n * width * 4, result);
}

/* Q.K or P.V of one tile, some rows at a time. */
static void cube_products(const place *at, const task *t, const tile *i,
                          splitkv_ascend_buffer buffer) {
  const spl_model *m = at->m;
  const bool is_mha = m->group == 1;
  const int64_t step = t->heads_moved * t->rows, n_steps = spl_ceil_div(t->n_heads, step);
  for (int64_t s = 0; s < n_steps; s++) {
    /* The last copy of single rows has no more heads than are left. */
    const bool is_short = t->rows == 1 && s == n_steps - 1;
    const int64_t n_heads = is_short ? t->n_heads - s * step : t->heads_moved;
    const int64_t head = t->first_head + s * step;
    at->core->site.head = head;
    if (is_mha || s == 0 || (t->first_head + s * t->rows) % m->group == 0) {
      cube_load_kv(at, t, i, buffer, head / m->group, n_heads);
      cube_widen(at, i, buffer, 0, n_heads);
    }
    const int64_t left = t->rows > 1 ? s * t->rows : s * t->heads_moved;
    if (!is_mha) {
      cube_multiply(at, t, i, buffer, left, s * step, t->rows);
      continue;
    }
    for (int64_t k = 0; k < n_heads; k++) {
      if (k > 0) cube_widen(at, i, buffer, k, n_heads);
      cube_multiply(at, t, i, buffer, left + k, s * step + k * t->rows, 1);
    }
  }
}

/* All rows of P of a tile. */
static void cube_load_p(const place *at, const task *t, const tile *i) {
  const int64_t n = t->n_heads * i->columns;
  at->core->site.head = t->first_head;
  read(at, SPLITKV_ASCEND_P, p_byte(at, i, 0), n * 2, at->core->narrow);
  spl_model_widen(at->m->is_bf16, at->core->narrow, n, at->core->p);
}

/* ── the vector cores ───────────────────────────────────────────────────────────────────────── */

/* The heads [first, first + n) of a task that one of a group's two vector cores has. */
typedef struct share {
  int64_t first, n;
} share;

static share share_of(const task *t, int sub) {
  const int64_t half = t->n_heads / 2;
  return sub == 0 ? (share){0, half} : (share){half, t->n_heads - half};
}

static void vector_add_mask(const place *at, const task *t, const tile *i, const share *rows) {
  const spl_model *m = at->m;
  spl_model_core *core = at->core;
  const uint32_t *w = m->words;
  const uint32_t head = (uint32_t)(t->first_head + rows->first);
  const uint32_t base =
      t->entry[E_REQUEST] % w[W_MASK_MODULUS] / w[W_MASK_DIVISOR] * w[W_MASK_STRIDE_REQUEST] +
      head * w[W_MASK_STRIDE_HEAD];
  const uint64_t halves = (uint64_t)t->entry[E_MASK_OFFSET_HI] << 32 | t->entry[E_MASK_OFFSET_LO];
  const uint64_t first = halves + base + (uint64_t)(t->first_token + i->index * m->tile_tokens);
  const int64_t n_rows = w[W_MASK_STRIDE_HEAD] == 0 ? 1 : rows->n;
  for (int64_t r = 0; r < n_rows; r++) {
    core->site.head = t->first_head + rows->first + r;
    const int64_t byte = spl_model_byte(first, 2) + r * (int64_t)w[W_MASK_LENGTH] * 2;
    read(at, SPLITKV_ASCEND_MASK, byte, i->n_tokens * 2, core->raw);
    spl_model_widen(m->is_bf16, core->raw, i->n_tokens, core->wide);
    for (int64_t k = n_rows == 1 ? 0 : r; k < (n_rows == 1 ? rows->n : r + 1); k++)
      for (int64_t j = 0; j < i->n_tokens; j++)
        core->s[k * i->columns + j] += core->wide[j];
  }
}

/* One row of weights and their sum, in 16 lanes. */
static float vector_exp(float *s, int64_t n, float max) {
  enum { LANES = 16 };
  float sums[LANES] = {0};
  for (int64_t j = 0; j < n; j++) {
    s[j] = expf(s[j] - max);
    sums[j % LANES] += s[j];
  }
  float sum = 0;
  for (int l = 0; l < LANES; l++)
    sum += sums[l];
  return sum;
}

static void vector_softmax(const place *at, const task *t, const tile *i, int sub) {
  const spl_model *m = at->m;
  spl_model_core *core = at->core;
  const share rows = share_of(t, sub);
  if (rows.n == 0) return;
  const int64_t n = rows.n * i->columns;
  core->site.head = t->first_head + rows.first;
  read(at, SPLITKV_ASCEND_S, s_byte(at, i, rows.first), n * 4, core->s);
  for (int64_t j = 0; j < n; j++)
    core->s[j] *= m->scale;
  if (m->has_mask) vector_add_mask(at, t, i, &rows);
  for (int64_t r = 0; r < rows.n; r++) {
    const int64_t h = rows.first + r;
    float *s = core->s + r * i->columns;
    float max = s[0];
    for (int64_t j = 1; j < i->n_tokens; j++)
      max = s[j] > max ? s[j] : max;
    if (i->index > 0 && core->m[h] > max) max = core->m[h];
    core->m_change[i->stage][h] = core->m[h] - max;
    core->m[h] = max;
    core->l_tile[i->stage][h] = vector_exp(s, i->n_tokens, max);
    fill_nan(s + i->n_tokens, i->columns - i->n_tokens);
  }
  spl_model_narrow(m->is_bf16, core->s, n, core->narrow);
  core->site.head = t->first_head + rows.first;
  write(at, SPLITKV_ASCEND_P, p_byte(at, i, rows.first), n * 2, core->narrow);
}

/* Adds the tile to what the core holds of the rows so far. */
static void vector_update(const place *at, const task *t, const tile *i, int sub) {
  const spl_model *m = at->m;
  spl_model_core *core = at->core;
  const share rows = share_of(t, sub);
  if (rows.n == 0) return;
  core->site.head = t->first_head + rows.first;
  read(at, SPLITKV_ASCEND_O_TMP, o_tmp_byte(at, i, rows.first), rows.n * m->channels * 4,
       core->o_tile);
  for (int64_t r = 0; r < rows.n; r++) {
    const int64_t h = rows.first + r;
    const float *tile_o = core->o_tile + r * m->channels;
    float *o = core->o + h * m->channels;
    if (i->index == 0) {
      core->l[h] = core->l_tile[i->stage][h];
      memcpy(o, tile_o, (size_t)m->channels * sizeof *o);
      continue;
    }
    const float factor = expf(core->m_change[i->stage][h]);
    core->l[h] = core->l[h] * factor + core->l_tile[i->stage][h];
    for (int64_t c = 0; c < m->channels; c++)
      o[c] = o[c] * factor + tile_o[c];
  }
}

/* A row of out, and that somebody wrote it. */
static void store_out(const place *at, int64_t byte, const float *o) {
  const spl_model *m = at->m;
  const int64_t row = m->head_dim * 2;
  spl_model_narrow(m->is_bf16, o, m->head_dim, at->core->narrow);
  if (!write(at, SPLITKV_ASCEND_OUT, byte, row, at->core->narrow)) return;
  if (byte % row == 0 && byte / row < m->n_written) m->written[byte / row] = 1;
}

static void vector_store(const place *at, const task *t, int sub) {
  const spl_model *m = at->m;
  spl_model_core *core = at->core;
  const share rows = share_of(t, sub);
  const int64_t d = m->head_dim, n = m->n_splits;
  const int64_t head = t->first_head + rows.first;
  const uint32_t heads = (uint32_t)head * m->words[W_N_SPLITS] + (uint32_t)t->split;
  /* The kernel keeps both offsets of a split in 32 bits here, but not in the combine. */
  const uint32_t l = (uint32_t)(spl_ascend_offset(t->entry + E_L_OFFSET) + heads);
  const uint32_t o_core = (uint32_t)(spl_ascend_offset(t->entry + E_O_CORE_OFFSET) * (uint64_t)n +
                                     (uint64_t)heads * (uint64_t)d);
  const uint64_t out = spl_ascend_offset(t->entry + E_OUT_OFFSET) + (uint64_t)(head * d);
  for (int64_t r = 0; r < rows.n; r++) {
    const int64_t h = rows.first + r;
    float *o = core->o + h * m->channels;
    core->site.head = t->first_head + h;
    for (int64_t c = 0; c < d; c++)
      o[c] /= core->l[h];
    if (m->has_splits) {
      const float lse = logf(core->l[h]) + core->m[h];
      write(at, SPLITKV_ASCEND_L, spl_model_byte(l, 4) + r * n * 4, 4, &lse);
      write(at, SPLITKV_ASCEND_O_CORE, spl_model_byte(o_core, 4) + r * n * d * 4, d * 4, o);
    } else {
      store_out(at, spl_model_byte(out, 2) + r * d * 2, o);
    }
  }
}

/* ── tasks ──────────────────────────────────────────────────────────────────────────────────── */

/* Two tiles at a time, in different halves of the group's scratch. */
static void run_task(const place *at, const task *t) {
  const int64_t n_tiles = spl_ceil_div(t->n_tokens, at->m->tile_tokens);
  cube_load_q(at, t);
  for (int64_t first = 0; first < n_tiles; first += MODEL_STAGES) {
    const int64_t n = spl_min(MODEL_STAGES, n_tiles - first);
    tile tiles[MODEL_STAGES];
    for (int64_t k = 0; k < n; k++) {
      tiles[k] = tile_of(at->m, t, first + k);
      cube_products(at, t, &tiles[k], SPLITKV_ASCEND_K);
    }
    for (int64_t k = 0; k < n; k++)
      for (int sub = 0; sub < 2; sub++)
        vector_softmax(at, t, &tiles[k], sub);
    for (int64_t k = 0; k < n; k++) {
      cube_load_p(at, t, &tiles[k]);
      cube_products(at, t, &tiles[k], SPLITKV_ASCEND_V);
    }
    for (int64_t k = 0; k < n; k++)
      for (int sub = 0; sub < 2; sub++)
        vector_update(at, t, &tiles[k], sub);
  }
  for (int sub = 0; sub < 2; sub++)
    vector_store(at, t, sub);
}

/* Task `id` of a phase; false where it has no tokens. *rows is the cube core's own number, which a
 * short last chunk of heads makes smaller for good. */
static bool find_task(const place *at, const spl_model_phase *f, int64_t id, int64_t *rows,
                      task *t) {
  const spl_model *m = at->m;
  const bool is_tail = f == &m->phases[1];
  int64_t index = 0;
  *t = (task){.split = id % f->n_splits, .heads_moved = f->heads_moved};
  t->entry = spl_model_entry(m, f->first + id / (f->n_chunks * f->n_splits), &index);
  const int64_t kv_len = t->entry[E_KV_LEN];
  const int64_t used = is_tail ? 1 : spl_model_used_splits(m, kv_len);
  if (kv_len == 0 || t->split >= used) return false;
  t->first_token = is_tail ? 0 : t->split * m->split_tokens;
  t->n_tokens = t->split == used - 1 ? kv_len - t->first_token : m->split_tokens;
  const int64_t chunk = id / f->n_splits % f->n_chunks;
  t->first_head = chunk * f->heads_per_task;
  t->n_heads = f->heads_per_task;
  if (chunk == f->n_chunks - 1) {
    t->n_heads = m->n_heads - t->first_head;
    *rows = spl_min(*rows, t->n_heads);
  }
  t->rows = *rows;
  at->core->site =
      (spl_model_site){f->first_task + id, f->first_task + id, index, t->split, t->first_head};
  return true;
}

void spl_model_run_tasks(const spl_model *m, spl_model_core *core, int64_t group) {
  const place at = {m, core, group};
  for (int p = 0; p < 2; p++) {
    const spl_model_phase *f = &m->phases[p];
    int64_t rows = f->rows;
    for (int64_t id = group; id < f->n_tasks; id += m->n_groups) {
      task t;
      if (!find_task(&at, f, id, &rows, &t)) continue;
      core->n_tasks++;
      run_task(&at, &t);
    }
  }
}

/* ── the combine ────────────────────────────────────────────────────────────────────────────── */

/* Both vector cores of a group do the same and write the same; here it is done once. */
static void combine_row(const place *at, const uint32_t *entry, int64_t head) {
  const spl_model *m = at->m;
  spl_model_core *core = at->core;
  const int64_t d = m->head_dim, n = spl_model_used_splits(m, entry[E_KV_LEN]);
  const uint32_t first = (uint32_t)head * m->words[W_N_SPLITS];
  float lse[MODEL_MAX_SPLITS], out[256] = {0};
  read(at, SPLITKV_ASCEND_L, spl_model_byte(spl_ascend_offset(entry + E_L_OFFSET) + first, 4),
       n * 4, lse);
  float max = lse[0], sum = 0;
  for (int64_t s = 1; s < n; s++)
    max = lse[s] > max ? lse[s] : max;
  for (int64_t s = 0; s < n; s++)
    sum += expf(lse[s] - max);
  const float all = logf(sum) + max;
  const uint64_t o_core = spl_ascend_offset(entry + E_O_CORE_OFFSET) * (uint64_t)m->n_splits +
                          (uint64_t)first * (uint64_t)d;
  read(at, SPLITKV_ASCEND_O_CORE, spl_model_byte(o_core, 4), n * d * 4, core->splits);
  for (int64_t s = 0; s < n; s++) {
    const float weight = expf(lse[s] - all);
    for (int64_t c = 0; c < d; c++)
      out[c] += weight * core->splits[s * d + c];
  }
  const uint64_t place_of_out = spl_ascend_offset(entry + E_OUT_OFFSET) + (uint64_t)(head * d);
  store_out(at, spl_model_byte(place_of_out, 2), out);
}

void spl_model_run_combine(const spl_model *m, spl_model_core *core, int64_t group) {
  const place at = {m, core, group};
  const int64_t n_tasks = m->phases[0].n_tasks + m->phases[1].n_tasks;
  for (int64_t id = group; id < m->n_items; id += m->n_groups) {
    int64_t index = 0;
    const int64_t head = id % m->n_heads;
    const uint32_t *entry = spl_model_entry(m, m->first_entry + id / m->n_heads, &index);
    if (entry[E_KV_LEN] == 0) continue;
    core->site = (spl_model_site){n_tasks + id, -1, index, -1, head};
    combine_row(&at, entry, head);
  }
}
