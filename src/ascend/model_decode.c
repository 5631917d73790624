/* The model reads words that may hold anything.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "../checked.h"
#include "../error.h"
#include "model.h"
#include "words.h"

/* Entries that a request may want of the block table beyond all that it has: enough to follow a
 * launch out of its memory, and an end to lengths that would take hours. */
enum { EXCESS_PAGES = 1024 };

const uint32_t *spl_model_entry(const spl_model *m, int64_t k, int64_t *index) {
  *index = spl_ascend_entry(m->words, k)[E_ORDER];
  return spl_ascend_entry(m->words, *index);
}

int64_t spl_model_used_splits(const spl_model *m, int64_t kv_len) {
  return spl_ceil_div(spl_ceil_div(kv_len, m->page_tokens) * m->page_tokens, m->split_tokens);
}

static splitkv_status fail_word(splitkv_error *error, int64_t index, int64_t value,
                                const char *why) {
  char field[48];
  (void)snprintf(field, sizeof field, "words[%lld]", (long long)index);
  return spl_fail(error, SPLITKV_ERROR_ASCEND_WORDS, field, value, "%lld: %s", (long long)value,
                  why);
}

/* ── the header ─────────────────────────────────────────────────────────────────────────────── */

static splitkv_status check_header(const uint32_t *words, splitkv_error *error) {
  static const struct {
    int word;
    uint32_t least, most;
    const char *why;
  } ranges[] = {
      {W_HEADER_WORDS, SPLITKV_ASCEND_HEADER_WORDS, SPLITKV_ASCEND_HEADER_WORDS,
       "the header has 44 words"},
      {W_REQUEST_WORDS, SPLITKV_ASCEND_REQUEST_WORDS, SPLITKV_ASCEND_REQUEST_WORDS,
       "an entry has 17 words"},
      {W_N_HEADS, 1, 65535, "heads are 1 .. 65535"},
      {W_N_HEADS_KV, 1, 65535, "KV heads are 1 .. 65535"},
      {W_HEAD_DIM, 1, 256, "channels are 1 .. 256"},
      {W_PAGE_TOKENS, 1, 1024, "tokens of a page are 1 .. 1024"},
      {W_TILE_TOKENS, 1, 1024, "tokens of a tile are 1 .. 1024"},
      {W_FORMER_HEADS, 1, MODEL_MAX_HEADS, "heads of a task are 1 .. 32"},
      {W_HEADS_MOVED, 1, 2, "heads per copy are 1 or 2"},
      {W_GROUP, 1, 65535, "query heads per KV head are 1 .. 65535"},
      {W_FORMER_ROWS, 1, MODEL_MAX_HEADS, "rows of a matrix product are 1 .. 32"},
      {W_SPLIT_TOKENS, 1, INT32_MAX, "tokens of a split are 1 .. 2^31-1"},
      {W_N_SPLITS, 1, MODEL_MAX_SPLITS, "splits are 1 .. 64"},
      {W_SCALE_TYPE, 0, 1, "a scale per request has no tensor here"},
  };
  for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
    const uint32_t value = words[ranges[i].word];
    if (value < ranges[i].least || value > ranges[i].most)
      return fail_word(error, ranges[i].word, value, ranges[i].why);
  }
  if (words[W_TAIL_REQUESTS] > 0) {
    if (words[W_TAIL_HEADS] < 1 || words[W_TAIL_HEADS] > MODEL_MAX_HEADS)
      return fail_word(error, W_TAIL_HEADS, words[W_TAIL_HEADS], "heads of a task are 1 .. 32");
    if (words[W_TAIL_ROWS] < 1 || words[W_TAIL_ROWS] > MODEL_MAX_HEADS)
      return fail_word(error, W_TAIL_ROWS, words[W_TAIL_ROWS],
                       "rows of a matrix product are 1 .. 32");
  }
  if (words[W_TILE_TOKENS] % words[W_PAGE_TOKENS] != 0)
    return fail_word(error, W_TILE_TOKENS, words[W_TILE_TOKENS], "a tile is whole pages");
  if (words[W_SPLIT_TOKENS] % words[W_PAGE_TOKENS] != 0)
    return fail_word(error, W_SPLIT_TOKENS, words[W_SPLIT_TOKENS], "a split is whole pages");
  return SPLITKV_OK;
}

static spl_model_phase phase_of(const uint32_t *words, bool is_tail) {
  spl_model_phase f = {.first = words[W_FIRST_ENTRY],
                       .n_requests = words[is_tail ? W_TAIL_REQUESTS : W_FORMER_REQUESTS],
                       .n_splits = is_tail ? 1 : words[W_N_SPLITS],
                       .heads_per_task = words[is_tail ? W_TAIL_HEADS : W_FORMER_HEADS],
                       .rows = words[is_tail ? W_TAIL_ROWS : W_FORMER_ROWS],
                       .heads_moved = 1};
  if (is_tail) f.first += words[W_FORMER_REQUESTS];
  if (f.n_requests == 0) return (spl_model_phase){.rows = 1, .heads_per_task = 1, .heads_moved = 1};
  f.n_chunks = spl_ceil_div(words[W_N_HEADS], f.heads_per_task);
  f.n_tasks = f.n_requests * f.n_chunks * f.n_splits;
  if (f.heads_per_task > words[W_GROUP] && f.rows == words[W_GROUP])
    f.heads_moved = words[W_HEADS_MOVED];
  return f;
}

static void read_header(const uint32_t *words, spl_model *m) {
  m->n_heads = words[W_N_HEADS];
  m->head_dim = words[W_HEAD_DIM];
  m->channels = (m->head_dim + 15) / 16 * 16;
  m->page_tokens = words[W_PAGE_TOKENS];
  m->tile_tokens = words[W_TILE_TOKENS];
  m->columns = (m->tile_tokens + 15) / 16 * 16;
  m->split_tokens = words[W_SPLIT_TOKENS];
  m->n_splits = words[W_N_SPLITS];
  m->group = words[W_GROUP];
  m->kv_stride = (int64_t)words[W_N_HEADS_KV] * m->head_dim;
  memcpy(&m->scale, &words[W_SCALE], sizeof m->scale);
  m->is_bf16 = words[W_KEY] % 2 == 1;
  m->has_splits = (words[W_KEY] & KEY_BIT_SPLIT) != 0;
  m->first_entry = words[W_FIRST_ENTRY];
  m->phases[0] = phase_of(words, false);
  m->phases[1] = phase_of(words, true);
  m->phases[1].first_task = m->phases[0].n_tasks;
  m->n_items = words[W_N_ENTRIES] * m->n_heads;
}

/* ── what fits on the chip ──────────────────────────────────────────────────────────────────── */

/* Elements of buffers on the chip: docs/ascend.md has their names. */
static splitkv_status check_chip(const spl_model *m, const spl_model_phase *f,
                                 splitkv_error *error) {
  if (f->n_requests == 0) return SPLITKV_OK;
  const int64_t h = f->heads_per_task, h16 = (h + 15) / 16 * 16, half = (h + 1) / 2;
  const int64_t n = m->columns, d = m->channels, m16 = (f->rows + 15) / 16 * 16;
  const struct {
    int64_t used, most;
  } uses[] = {{h * n, 16384},    {h16 * 2 * n, 32768},
              {h * d, 32768},    {half * d, 12288},
              {half * n, 12288}, {f->heads_moved * n * m->head_dim, 65536},
              {n * d, 32768},    {h16 * d, 16384},
              {h16 * n, 16384},  {m16 * spl_max(n, d), 16384}};
  for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++) {
    if (uses[i].used > uses[i].most)
      return fail_word(error, W_TILE_TOKENS, m->tile_tokens, "a tile does not fit on the chip");
  }
  if (m->has_splits && m->n_splits * ((m->head_dim + 7) / 8 * 8) > 8192)
    return fail_word(error, W_N_SPLITS, m->n_splits, "the splits of a head do not fit on the chip");
  return SPLITKV_OK;
}

/* ── the entries ────────────────────────────────────────────────────────────────────────────── */

static splitkv_status check_entries(const spl_model *m, splitkv_error *error) {
  const uint32_t *words = m->words;
  const int64_t table =
      (int64_t)(m->memory->bytes[SPLITKV_ASCEND_BLOCK_TABLE] / 4 & (uint64_t)INT32_MAX);
  const struct {
    int word;
    int64_t end;
  } ends[] = {{W_FORMER_REQUESTS, (int64_t)words[W_FIRST_ENTRY] + words[W_FORMER_REQUESTS]},
              {W_TAIL_REQUESTS,
               (int64_t)words[W_FIRST_ENTRY] + words[W_FORMER_REQUESTS] + words[W_TAIL_REQUESTS]},
              {W_N_ENTRIES, (int64_t)words[W_FIRST_ENTRY] + words[W_N_ENTRIES]}};
  for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
    if (ends[i].end > m->n_entries)
      return fail_word(error, ends[i].word, words[ends[i].word], "there are not so many entries");
  }
  for (int64_t e = 0; e < m->n_entries; e++) {
    const uint32_t *entry = spl_ascend_entry(m->words, e);
    const int64_t at = entry - words;
    if (entry[E_ORDER] >= m->n_entries)
      return fail_word(error, at + E_ORDER, entry[E_ORDER], "there is no such entry");
    if (entry[E_KV_LEN] / m->page_tokens > table + EXCESS_PAGES)
      return fail_word(error, at + E_KV_LEN, entry[E_KV_LEN],
                       "the tokens are many more than the whole block table has pages for");
  }
  return SPLITKV_OK;
}

/* The combine holds the splits of a row on the chip. */
static splitkv_status check_splits(const spl_model *m, splitkv_error *error) {
  if (!m->has_splits) return SPLITKV_OK;
  for (int64_t e = 0; e < m->n_entries; e++) {
    const int64_t kv_len = spl_ascend_entry(m->words, e)[E_KV_LEN];
    if (spl_model_used_splits(m, kv_len) > m->n_splits)
      return fail_word(error, spl_ascend_entry(m->words, e) + E_KV_LEN - m->words, kv_len,
                       "the tokens are more than the splits take");
  }
  return SPLITKV_OK;
}

splitkv_status spl_model_decode(const uint32_t *words, int64_t n_words, int64_t n_groups,
                                const splitkv_ascend_memory *memory, uint32_t flags, spl_model *m,
                                splitkv_error *error) {
  *m = (spl_model){.words = words, .memory = memory, .n_groups = n_groups};
  if (n_groups < 1 || n_groups > SPLITKV_ASCEND_MAX_CORES) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_CORES, "n_groups", n_groups,
                    "%lld is outside 1..%d", (long long)n_groups, SPLITKV_ASCEND_MAX_CORES);
  }
  if (n_words < SPLITKV_ASCEND_HEADER_WORDS + SPLITKV_ASCEND_REQUEST_WORDS || n_words > INT32_MAX) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_WORDS, "n_words", n_words,
                    "%lld are not a header and entries", (long long)n_words);
  }
  m->n_entries = (n_words - SPLITKV_ASCEND_HEADER_WORDS) / SPLITKV_ASCEND_REQUEST_WORDS;
  const uint32_t key = words[W_KEY];
  if (!spl_ascend_knows_key(key)) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_KEY, "words[16]", key,
                    "the kernel does not know key %u and would do nothing", (unsigned)key);
  }
  splitkv_status status = check_header(words, error);
  if (status != SPLITKV_OK) return status;
  read_header(words, m);
  m->n_written = (int64_t)(memory->bytes[SPLITKV_ASCEND_OUT] / (uint64_t)(2 * m->head_dim));
  m->n_written = spl_min(m->n_written, m->n_entries * m->n_heads);
  const bool by_pointer = (flags & SPLITKV_ASCEND_MODEL_MASK_BY_POINTER) != 0;
  m->has_mask =
      memory->data[SPLITKV_ASCEND_MASK] != NULL && (by_pointer || words[W_MASK_LENGTH] != 0);
  for (int w = W_MASK_MODULUS; m->has_mask && w <= W_MASK_DIVISOR; w++) {
    if (words[w] == 0) return fail_word(error, w, 0, "a division by 0");
  }
  for (int i = 0; i < 2; i++) {
    status = check_chip(m, &m->phases[i], error);
    if (status != SPLITKV_OK) return status;
  }
  status = check_entries(m, error);
  return status == SPLITKV_OK ? check_splits(m, error) : status;
}
