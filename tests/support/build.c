/* From a test_spec to tensors.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"
#include "scales.h"
#include "value.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Element strides of a cache. */
typedef struct cache_strides {
  int64_t page, token, head;
} cache_strides;

/* Which physical pages hold what: requests of one slot have their pages in common. */
typedef struct page_map {
  int64_t n_slots;
  int64_t slot_of[TEST_MAX_REQUESTS];
  int64_t begin[TEST_MAX_REQUESTS], end[TEST_MAX_REQUESTS]; /* what test_span says */
  int64_t owner[TEST_MAX_REQUESTS];                         /* a request of the slot */
  int64_t slot_tokens[TEST_MAX_REQUESTS]; /* one past the last token that a row reaches, */
  int64_t slot_begin[TEST_MAX_REQUESTS];  /* and the first one; 0 if none */
  int64_t slot_rows[TEST_MAX_REQUESTS];   /* query rows of all its requests */
  int64_t slot_first[TEST_MAX_REQUESTS];  /* index of its first page in `physical` */
  int64_t n_named, n_pages;
  int64_t *physical; /* [n_pages], a permutation */
} page_map;

static void *allocate(size_t size) {
  void *memory = calloc(size > 0 ? size : 1, 1);
  if (!memory) {
    fputs("test: out of memory\n", stderr);
    exit(2);
  }
  return memory;
}

static int64_t pages_of(const test_spec *s, int64_t tokens) {
  return (tokens + s->problem.page_size_tokens - 1) / s->problem.page_size_tokens;
}

static int64_t find_slot(const test_spec *s, const page_map *m, int64_t r) {
  for (int64_t i = 0; s->table == TABLE_SHARED && i < m->n_slots; ++i)
    if (s->sources[m->owner[i]] == s->sources[r] &&
        s->first_tokens[m->owner[i]] == s->first_tokens[r])
      return i;
  return m->n_slots;
}

static void map_pages(const test_spec *s, page_map *m) {
  memset(m, 0, sizeof *m);
  for (int64_t r = 0; r < s->n_requests; ++r) {
    const int64_t slot = find_slot(s, m, r);
    test_span(s, r, &m->begin[r], &m->end[r]);
    if (slot == m->n_slots) m->owner[m->n_slots++] = r;
    m->slot_of[r] = slot;
    m->slot_rows[slot] += test_rows_of(s, r);
    if (m->end[r] == 0) continue;
    if (m->slot_tokens[slot] == 0 || m->begin[r] < m->slot_begin[slot])
      m->slot_begin[slot] = m->begin[r];
    if (m->end[r] > m->slot_tokens[slot]) m->slot_tokens[slot] = m->end[r];
  }
  for (int64_t i = 0; i < m->n_slots; ++i) {
    m->slot_first[i] = m->n_named;
    m->n_named += pages_of(s, m->slot_tokens[i]);
  }
  m->n_pages = m->n_named + s->extra_pages;
  m->physical = allocate((size_t)m->n_pages * sizeof *m->physical);
  for (int64_t i = 0; i < m->n_pages; ++i)
    m->physical[i] = i;
  rng r = {s->seed ^ 0x7061676573ULL};
  for (int64_t i = m->n_pages - 1; s->table != TABLE_IDENTITY && i > 0; --i) {
    const int64_t j = rng_range(&r, 0, i), page = m->physical[i];
    m->physical[i] = m->physical[j];
    m->physical[j] = page;
  }
}

static cache_strides padded_strides(const test_spec *s, int64_t d, int64_t n_pages) {
  const int64_t pad = s->stride_pad, row = d + pad, heads = s->problem.n_heads_kv;
  const int64_t page = s->problem.page_size_tokens, pages = n_pages > 0 ? n_pages : 1;
  cache_strides at = {0, 0, 0};
  switch (s->stride_kind) {
  case STRIDES_HND:
    at.token = row;
    at.head = page * row + pad;
    at.page = heads * at.head + pad;
    break;
  case STRIDES_HEAD_OUTER:
    at.token = row;
    at.page = page * row + pad;
    at.head = pages * at.page + pad;
    break;
  case STRIDES_TOKEN_OUTER:
    at.page = row;
    at.head = pages * row;
    at.token = heads * at.head + pad;
    break;
  default:
    at.head = row;
    at.token = heads * row + pad;
    at.page = page * at.token + pad;
    break;
  }
  return at;
}

static cache_strides strides_for(const test_spec *s, int64_t d, int64_t n_pages) {
  const int64_t heads = s->problem.n_heads_kv, page = s->problem.page_size_tokens;
  if (s->problem.layout == SPLITKV_LAYOUT_STRIDES) return padded_strides(s, d, n_pages);
  if (s->problem.layout == SPLITKV_LAYOUT_HND)
    return (cache_strides){heads * page * d, d, page * d};
  return (cache_strides){page * heads * d, heads * d, d};
}

static size_t bytes_of(splitkv_dtype dtype, int64_t count) {
  return (size_t)count * (size_t)ref_dtype_bits(dtype) / 8;
}

/* `count` elements of NaN, or of codes with scales of NaN. */
static void fill_nan(splitkv_dtype dtype, unsigned char *data, int64_t count) {
  const size_t size = ref_dtype_size(dtype);
  if (count == 0) return;
  if (dtype == SPLITKV_INT4 || dtype == SPLITKV_INT8) {
    memset(data, 0x96, bytes_of(dtype, count));
    return;
  }
  ref_store(dtype, data, 0, (double)NAN);
  for (int64_t i = 1; i < count; ++i)
    memcpy(data + (size_t)i * size, data, size);
}

/* First and one past the last element that any attended token occupies. */
static void attended_range(const test_spec *s, const page_map *m, cache_strides at, int64_t d,
                           int64_t *first, int64_t *end) {
  const int64_t page_size = s->problem.page_size_tokens;
  *first = INT64_MAX;
  *end = 0;
  for (int64_t i = 0; i < m->n_slots; ++i)
    for (int64_t p = m->slot_begin[i] / page_size; p * page_size < m->slot_tokens[i]; ++p) {
      const int64_t left = m->slot_tokens[i] - p * page_size;
      const int64_t last = (left < page_size ? left : page_size) - 1;
      const int64_t before = m->slot_begin[i] - p * page_size;
      const int64_t page = m->physical[m->slot_first[i] + p] * at.page;
      const int64_t begin = page + (before > 0 ? before : 0) * at.token;
      const int64_t stop = page + last * at.token + (s->problem.n_heads_kv - 1) * at.head + d;
      *first = begin < *first ? begin : *first;
      *end = stop > *end ? stop : *end;
    }
  if (*first > *end) *first = *end;
}

/* How many rows of the slot's requests attend to a token. */
static int64_t slot_attending(const test_spec *s, const page_map *m, int64_t slot, int64_t token) {
  int64_t n = 0;
  for (int64_t r = 0; r < s->n_requests; ++r)
    if (m->slot_of[r] == slot && token < s->kv_lens[r]) n += test_attending(s, r, token);
  return n;
}

/* Of a token that only some rows attend to: a NaN or an infinity, in an element or in the scale of
 * its channels. False where there is none. */
static bool store_special(const test_spec *s, char of, splitkv_dtype dtype, unsigned char *data,
                          int64_t row, char tensor, int64_t c, int64_t size, int64_t source,
                          int64_t head, int64_t token) {
  const bool is_scale = tensor == 'x' || tensor == 'y';
  if (!is_scale && (tensor != of || dtype == SPLITKV_INT8 || dtype == SPLITKV_INT4)) return false;
  double value = 0;
  for (int64_t i = is_scale ? c * size : c; i < (is_scale ? (c + 1) * size : c + 1); ++i) {
    if (!test_special_at(s, of, source, head, token, i, &value)) continue;
    ref_store(dtype, data, row + c, is_scale ? (double)NAN : value);
    return true;
  }
  return false;
}

/* What stands for K ('k') and V, and for their scales ('x', 'y') and zero points ('m', 'n') where
 * these lie with the tokens: rows of d elements. */
static void store_row(const test_spec *s, char tensor, splitkv_dtype dtype, unsigned char *data,
                      int64_t row, int64_t d, int64_t source, int64_t head, int64_t token,
                      bool special) {
  const char of = strchr("kxm", tensor) ? 'k' : 'v';
  const int64_t size = test_group_size(&s->problem, of);
  for (int64_t c = 0; c < d; ++c) {
    if (special && store_special(s, of, dtype, data, row, tensor, c, size, source, head, token))
      continue;
    if (tensor == 'x' || tensor == 'y') {
      ref_store(dtype, data, row + c, test_scale_at(s, of, source, head, token, c * size));
    } else if (tensor == 'm' || tensor == 'n') {
      ref_store(dtype, data, row + c, test_zero_at(s, of, source, head, token, c * size));
    } else if (dtype > SPLITKV_BF16) {
      test_store_code(s, data, row + c, tensor, source, head, token, c);
    } else {
      ref_store(dtype, data, row + c, test_value_at(s, tensor, source, head, token, c));
    }
  }
}

/* Makes one cache and returns what its element 0 would be at. */
static const void *fill_cache(const test_spec *s, const page_map *m, char tensor,
                              splitkv_dtype dtype, int64_t d, cache_strides at,
                              guard_buffer *buffer) {
  const splitkv_problem *p = &s->problem;
  int64_t first = 0, end = 0;
  if (s->trim)
    attended_range(s, m, at, d, &first, &end);
  else if (m->n_pages > 0)
    end = (m->n_pages - 1) * at.page + (p->page_size_tokens - 1) * at.token +
          (p->n_heads_kv - 1) * at.head + d;
  *buffer = guard_create(bytes_of(dtype, end - first), s->side, 1);
  fill_nan(dtype, buffer->data, end - first);
  for (int64_t i = 0; i < m->n_slots; ++i)
    for (int64_t t = m->slot_begin[i]; t < m->slot_tokens[i]; ++t) {
      const int64_t page = m->physical[m->slot_first[i] + t / p->page_size_tokens];
      const int64_t n_rows = slot_attending(s, m, i, t);
      if (n_rows == 0) continue;
      const int64_t source = s->sources[m->owner[i]];
      const int64_t token = s->first_tokens[m->owner[i]] + (s->token_order ? s->token_order[t] : t);
      for (int64_t g = 0; g < p->n_heads_kv; ++g) {
        const int64_t row =
            page * at.page + t % p->page_size_tokens * at.token + g * at.head - first;
        store_row(s, tensor, dtype, buffer->data, row, d, source, g, token,
                  n_rows < m->slot_rows[i]);
      }
    }
  return (const void *)((uintptr_t)buffer->data - (uintptr_t)bytes_of(dtype, first));
}

/* Scales and zero points of K ('k') or V. */
static void fill_scales(test_batch *b, const page_map *m, char tensor) {
  const splitkv_problem *p = &b->problem;
  const bool is_k = tensor == 'k', has_zeros = test_has_zeros(p, tensor);
  guard_buffer *scales = is_k ? &b->k_scales : &b->v_scales;
  guard_buffer *zeros = is_k ? &b->k_zeros : &b->v_zeros;
  const void *first_scale = NULL, *first_zero = NULL;
  if (!test_has_scales(p, tensor)) return;
  if (test_scales_by_token(p, tensor)) {
    const int64_t n = test_scale_count(p, tensor), heads = p->n_heads_kv;
    const int64_t page = p->page_size_tokens;
    const cache_strides at = p->layout == SPLITKV_LAYOUT_HND
                                 ? (cache_strides){heads * page * n, n, page * n}
                                 : (cache_strides){page * heads * n, heads * n, n};
    first_scale = fill_cache(&b->spec, m, is_k ? 'x' : 'y', p->dtype_scales, n, at, scales);
    if (has_zeros)
      first_zero = fill_cache(&b->spec, m, is_k ? 'm' : 'n', SPLITKV_INT8, n, at, zeros);
  } else {
    test_fill_fixed_scales(b, tensor);
    first_scale = scales->data;
    if (has_zeros) first_zero = zeros->data;
  }
  *(is_k ? &b->tensors.k_scales : &b->tensors.v_scales) = first_scale;
  *(is_k ? &b->tensors.k_zeros : &b->tensors.v_zeros) = (const int8_t *)first_zero;
}

static void fill_q(test_batch *b) {
  const test_spec *s = &b->spec;
  const splitkv_problem *p = &b->problem;
  const int64_t head = p->q_stride_head ? p->q_stride_head : p->head_dim;
  const int64_t request = p->q_stride_request ? p->q_stride_request : p->n_heads_q * head;
  const int64_t n_rows = b->first_rows[s->n_requests];
  const int64_t count =
      n_rows == 0 ? 0 : (n_rows - 1) * request + (p->n_heads_q - 1) * head + p->head_dim;
  b->q = guard_create((size_t)count * ref_dtype_size(p->dtype_q), s->side, 1);
  fill_nan(p->dtype_q, b->q.data, count);
  for (int64_t r = 0; r < s->n_requests; ++r)
    for (int64_t row = b->first_rows[r]; row < b->first_rows[r + 1]; ++row)
      for (int64_t h = 0; h < p->n_heads_q; ++h)
        for (int64_t c = 0; c < p->head_dim; ++c)
          ref_store(p->dtype_q, b->q.data, row * request + h * head + c,
                    test_value_at(s, 'q', s->sources[r], h,
                                  s->q_ages[r] + b->first_rows[r + 1] - 1 - row, c));
  b->tensors.q = b->q.data;
}

static void store_index(splitkv_index_type type, unsigned char *data, int64_t index,
                        int64_t value) {
  if (type == SPLITKV_I64) {
    memcpy(data + 8 * index, &value, sizeof value);
    return;
  }
  const int32_t narrow = (int32_t)value;
  memcpy(data + 4 * index, &narrow, sizeof narrow);
}

/* No page: what stands in table entries that nobody needs. */
static int64_t bad_id(const test_batch *b, int64_t index) {
  const int64_t ids[] = {-1, b->problem.n_pages, INT32_MIN, INT32_MAX};
  return ids[index % 4];
}

/* Entries of row r begin at `first`; there are `width` of them. */
static void fill_table_row(test_batch *b, const page_map *m, int64_t r, int64_t first,
                           int64_t width) {
  const int64_t used = pages_of(&b->spec, m->end[r]);
  const int64_t before = m->begin[r] / b->problem.page_size_tokens;
  for (int64_t i = 0; i < width; ++i)
    store_index(b->problem.table_type, b->table.data, first + i,
                i >= before && i < used ? m->physical[m->slot_first[m->slot_of[r]] + i]
                                        : bad_id(b, first + i));
}

static void fill_table(test_batch *b, const page_map *m) {
  const test_spec *s = &b->spec;
  const size_t size = b->problem.table_type == SPLITKV_I64 ? 8 : 4;
  int64_t widest = 0, total = 0;
  for (int64_t r = 0; r < s->n_requests; ++r) {
    const int64_t pages = pages_of(s, s->kv_lens[r]);
    widest = pages > widest ? pages : widest;
    total += pages + s->extra_width;
  }
  const bool csr = b->problem.table_format == SPLITKV_TABLE_CSR;
  const int64_t lead = csr ? (int64_t)(s->seed % 3) : 0; /* CSR rows need not begin at 0 */
  const int64_t width = widest + s->extra_width;
  const int64_t entries = csr ? total + lead : s->n_requests * width;
  b->table = guard_create((size_t)entries * size, s->side, 1);
  b->tensors.block_table = b->table.data;
  if (!csr) {
    b->problem.table_width = width;
    for (int64_t r = 0; r < s->n_requests; ++r)
      fill_table_row(b, m, r, r * width, width);
    return;
  }
  b->offsets = guard_create((size_t)(s->n_requests + 1) * size, s->side, 1);
  int64_t at = lead;
  for (int64_t i = 0; i < lead; ++i)
    store_index(b->problem.table_type, b->table.data, i, bad_id(b, i));
  for (int64_t r = 0; r < s->n_requests; ++r) {
    const int64_t row = pages_of(s, s->kv_lens[r]) + s->extra_width;
    store_index(b->problem.table_type, b->offsets.data, r, at);
    fill_table_row(b, m, r, at, row);
    at += row;
  }
  store_index(b->problem.table_type, b->offsets.data, s->n_requests, at);
  b->problem.table_width = 0;
  b->tensors.table_offsets = b->offsets.data;
  b->tensors.table_entries = entries;
}

static void fill_batch(test_batch *b) {
  const test_spec *s = &b->spec;
  const size_t size = s->kv_lens_type == SPLITKV_I64 ? 8 : 4;
  b->kv_lens = guard_create((size_t)s->n_requests * size, s->side, 1);
  for (int64_t r = 0; r < s->n_requests; ++r)
    store_index(s->kv_lens_type, b->kv_lens.data, r, s->kv_lens[r]);
  splitkv_batch_init(&b->batch);
  b->batch.n_requests = s->n_requests;
  b->batch.kv_lens = b->kv_lens.data;
  b->batch.kv_lens_type = s->kv_lens_type;
  b->batch.n_workers = s->n_workers;
  const int64_t n_offsets = s->has_rows ? s->n_requests + 1 : 0;
  b->q_offsets =
      guard_create((size_t)n_offsets * (s->q_offsets_type == SPLITKV_I64 ? 8 : 4), s->side, 1);
  for (int64_t r = 0; r < n_offsets; ++r)
    store_index(s->q_offsets_type, b->q_offsets.data, r, b->first_rows[r]);
  b->batch.q_offsets = s->has_rows ? b->q_offsets.data : NULL;
  b->batch.q_offsets_type = s->q_offsets_type;
}

static void fill_tree(test_batch *b) {
  const int64_t n_words = (b->problem.tree_tokens + 63) / 64;
  const int64_t n = b->first_rows[b->spec.n_requests] * n_words;
  b->tree = guard_create((size_t)n * sizeof(uint64_t), b->spec.side, 1);
  for (int64_t r = 0; r < b->spec.n_requests; ++r)
    for (int64_t row = b->first_rows[r]; row < b->first_rows[r + 1]; ++row)
      for (int64_t w = 0; w < n_words; ++w) {
        uint64_t word = 0;
        for (int64_t bit = 0; bit < 64; ++bit)
          word |= (uint64_t)test_tree_bit(&b->spec, r, row - b->first_rows[r], 64 * w + bit) << bit;
        memcpy(b->tree.data + (size_t)(row * n_words + w) * sizeof word, &word, sizeof word);
      }
  b->tensors.tree_mask = n_words > 0 ? (const uint64_t *)(const void *)b->tree.data : NULL;
}

static void make_outputs(test_batch *b) {
  const test_spec *s = &b->spec;
  const splitkv_problem *p = &b->problem;
  const int64_t head = p->out_stride_head ? p->out_stride_head : p->head_dim_v;
  const int64_t request = p->out_stride_request ? p->out_stride_request : p->n_heads_q * head;
  const int64_t n_rows = b->first_rows[s->n_requests];
  const int64_t count =
      n_rows == 0 ? 0 : (n_rows - 1) * request + (p->n_heads_q - 1) * head + p->head_dim_v;
  b->out = guard_create((size_t)count * ref_dtype_size(p->dtype_out), s->side, 1);
  b->lse = guard_create((size_t)(n_rows * p->n_heads_q) * sizeof(float), s->side, 1);
  b->tensors.out = b->out.data;
  b->tensors.lse = s->no_lse ? NULL : (float *)(void *)b->lse.data;
}

/* Numbers of the query heads, if the problem has the flag. */
static const float *fill_heads(const test_batch *b, uint32_t flag, char tensor,
                               guard_buffer *buffer) {
  const int64_t n = b->problem.flags & flag ? b->problem.n_heads_q : 0;
  *buffer = guard_create((size_t)n * sizeof(float), b->spec.side, 1);
  for (int64_t h = 0; h < n; ++h)
    ref_store(SPLITKV_F32, buffer->data, h, test_value_at(&b->spec, tensor, 0, h, 0, 0));
  return n > 0 ? (const float *)(const void *)buffer->data : NULL;
}

void test_batch_build(test_batch *b, const test_spec *spec) {
  memset(b, 0, sizeof *b);
  b->spec = *spec;
  for (int64_t r = 0; r < spec->n_requests; ++r)
    b->first_rows[r + 1] = b->first_rows[r] + test_rows_of(spec, r);
  page_map *m = allocate(sizeof *m);
  map_pages(&b->spec, m);
  b->problem = spec->problem;
  b->problem.n_pages = m->n_pages;
  splitkv_tensors_init(&b->tensors);
  const cache_strides k = strides_for(spec, spec->problem.head_dim, m->n_pages);
  const cache_strides v =
      spec->v_aliases_k ? k : strides_for(spec, spec->problem.head_dim_v, m->n_pages);
  if (spec->problem.layout == SPLITKV_LAYOUT_STRIDES) {
    b->problem.k_stride_page = k.page;
    b->problem.k_stride_token = k.token;
    b->problem.k_stride_head = k.head;
    b->problem.v_stride_page = v.page;
    b->problem.v_stride_token = v.token;
    b->problem.v_stride_head = v.head;
  }
  const splitkv_dtype dtype = spec->problem.dtype_kv;
  b->tensors.k = fill_cache(&b->spec, m, 'k', dtype, spec->problem.head_dim, k, &b->k);
  b->tensors.v = spec->v_aliases_k
                     ? b->tensors.k
                     : fill_cache(&b->spec, m, 'v', dtype, spec->problem.head_dim_v, v, &b->v);
  fill_scales(b, m, 'k');
  fill_scales(b, m, 'v');
  fill_q(b);
  fill_table(b, m);
  fill_batch(b);
  fill_tree(b);
  make_outputs(b);
  b->tensors.sinks = fill_heads(b, SPLITKV_FLAG_SINKS, 's', &b->sinks);
  b->tensors.alibi_slopes = fill_heads(b, SPLITKV_FLAG_ALIBI, 'a', &b->slopes);
  free(m->physical);
  free(m);
}

void test_batch_destroy(test_batch *b) {
  guard_buffer *buffers[] = {&b->q,        &b->k,        &b->v,         &b->table,
                             &b->offsets,  &b->kv_lens,  &b->q_offsets, &b->out,
                             &b->lse,      &b->sinks,    &b->slopes,    &b->tree,
                             &b->k_scales, &b->v_scales, &b->k_zeros,   &b->v_zeros};
  for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; ++i)
    guard_destroy(buffers[i]);
  free(b->exact.out);
  free(b->exact.lse);
  free(b->exact.max_abs_score);
  free(b->exact.max_abs_v);
  free(b->exact.max_spread);
  free(b->exact.max_reach_v);
  memset(b, 0, sizeof *b);
}
