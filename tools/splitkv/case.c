/* SPDX-License-Identifier: Apache-2.0 */
#include "case.h"

#include "codes.h"
#include "data.h"
#include "machine.h"
#include "prefix.h"
#include "rows.h"
#include "tool.h"

#include "ref.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* POISON is a NaN in every dtype, and nothing that arithmetic leaves behind. */
enum { POISON = 0xff };
#define ZONE_BYTES ((size_t)4096)

/* ── zoned memory ───────────────────────────────────────────────────────────────────────────── */

zoned zoned_allocate(size_t size_bytes) {
  zoned buffer = {0};
  size_t overhead = 2 * ZONE_BYTES + SPLITKV_ALIGNMENT;
  if (size_bytes > SIZE_MAX - overhead) {
    return buffer;
  }
  buffer.memory = machine_allocate(size_bytes + overhead);
  if (!buffer.memory) {
    return buffer;
  }
  size_t misaligned = (size_t)((uintptr_t)buffer.memory % SPLITKV_ALIGNMENT);
  buffer.data = buffer.memory + ZONE_BYTES + (SPLITKV_ALIGNMENT - misaligned);
  buffer.size_bytes = size_bytes;
  memset(buffer.data - ZONE_BYTES, POISON, ZONE_BYTES);
  memset(buffer.data + size_bytes, POISON, ZONE_BYTES);
  return buffer;
}

void zoned_free(zoned *buffer) {
  free(buffer->memory);
  *buffer = (zoned){0};
}

int zoned_is_intact(const zoned *buffer) {
  for (size_t i = 0; i < ZONE_BYTES; i++) {
    if (buffer->data[i - ZONE_BYTES] != POISON || buffer->data[buffer->size_bytes + i] != POISON) {
      return 0;
    }
  }
  return 1;
}

/* ── numbers ────────────────────────────────────────────────────────────────────────────────── */

static int64_t pages_of(int64_t kv_len, int64_t page) {
  return kv_len / page + (kv_len % page > 0);
}

/* Pages of request r that hold a token which some row attends to: [*first, *end). */
static void pages_attended(const tool_case *c, int64_t r, int64_t *first, int64_t *end) {
  token_span span = rows_span_of_request(c, r);
  *first = span.first / c->spec->page;
  *end = span.first < span.end ? pages_of(span.end, c->spec->page) : *first;
}

/* Pages in the cache: what the table needs; with spare ones among them when shuffled; half when
 * requests share them. */
static int64_t cache_pages(int64_t n_table_pages, int64_t table) {
  if (n_table_pages == 0) {
    return 0;
  }
  switch (table) {
  case TABLE_SHUFFLED:
    return n_table_pages + n_table_pages / 8 + 1;
  case TABLE_SHARED:
    return n_table_pages / 2 + 1;
  default:
    return n_table_pages;
  }
}

/* The cache and the table of the Ascend kernel are of the sizes that its words say. */
static int describe_cache(tool_case *c, int64_t widest, const char *name) {
  const problem_spec *s = c->spec;
  splitkv_problem *p = &c->problem;
  if (s->device != PROBLEM_ASCEND) {
    p->n_pages = cache_pages(c->n_table_pages, s->table);
    /* One entry more than any row needs, to hold an invalid id that nobody may look at. */
    p->table_width = s->format == SPLITKV_TABLE_DENSE ? widest + 1 : 0;
    return TOOL_OK;
  }
  int64_t width = s->width ? s->width : widest;
  p->table_width = s->format == SPLITKV_TABLE_DENSE ? width : 0;
  if (s->b && width > INT64_MAX / s->b) {
    return tool_usage_error("%s%swidth=%lld: a table of %lld such rows is too large", name,
                            *name ? ": " : "", (long long)s->width, (long long)s->b);
  }
  int64_t all_pages = s->b * width;
  p->n_pages = s->pages ? s->pages : all_pages;
  int64_t needed = s->table == TABLE_IDENTITY   ? all_pages
                   : s->table == TABLE_SHUFFLED ? c->n_table_pages
                                                : c->n_table_pages > 0;
  if (p->n_pages < needed) {
    return tool_usage_error("%s%spages=%lld: this table names %lld pages", name, *name ? ": " : "",
                            (long long)p->n_pages, (long long)needed);
  }
  return TOOL_OK;
}

/* V is the first channels of K: both have K's strides. */
static void alias_v(splitkv_problem *p) {
  int64_t token = p->head_dim, head = p->head_dim;
  if (p->layout == SPLITKV_LAYOUT_HND) {
    head *= p->page_size_tokens;
  } else {
    token *= p->n_heads_kv;
  }
  p->k_stride_page = p->v_stride_page = p->page_size_tokens * p->n_heads_kv * p->head_dim;
  p->k_stride_token = p->v_stride_token = token;
  p->k_stride_head = p->v_stride_head = head;
  p->layout = SPLITKV_LAYOUT_STRIDES;
}

int64_t case_kv_row(const tool_case *c, int64_t page, int64_t token, int64_t head) {
  int64_t n_tokens = c->problem.page_size_tokens, n_heads = c->problem.n_heads_kv;
  return c->spec->layout == SPLITKV_LAYOUT_HND ? (page * n_heads + head) * n_tokens + token
                                               : (page * n_tokens + token) * n_heads + head;
}

static int64_t longest(const tool_case *c) {
  int64_t most = 0;
  for (int64_t r = 0; r < c->spec->b; r++) {
    most = c->kv_lens[r] > most ? c->kv_lens[r] : most;
  }
  return most;
}

static int describe(tool_case *c, const char *name) {
  const problem_spec *s = c->spec;
  int64_t widest = 0, n_prefix = prefix_pages(s);
  c->n_table_pages = n_prefix > 0 && n_prefix * s->page <= longest(c) ? n_prefix : 0;
  for (int64_t r = 0; r < s->b; r++) {
    int64_t pages = pages_of(c->kv_lens[r], s->page);
    widest = pages > widest ? pages : widest;
    c->n_table_entries += pages;
    int64_t first = 0, end = 0;
    pages_attended(c, r, &first, &end);
    if (prefix_has(c, r)) { /* counted below */
      first = first < n_prefix ? n_prefix : first;
    }
    c->n_table_pages += end > first ? end - first : 0;
    c->n_tokens += c->kv_lens[r];
    c->max_kv_len = c->kv_lens[r] > c->max_kv_len ? c->kv_lens[r] : c->max_kv_len;
  }
  splitkv_problem *p = &c->problem;
  splitkv_problem_init(p);
  p->n_heads_q = s->hq;
  p->n_heads_kv = s->hkv;
  p->head_dim = s->d;
  p->head_dim_v = s->dv;
  p->page_size_tokens = s->page;
  p->dtype_q = (splitkv_dtype)s->dtype_q;
  p->dtype_kv = (splitkv_dtype)s->dtype_kv;
  p->dtype_out = (splitkv_dtype)s->dtype_out;
  p->layout = (splitkv_layout)s->layout;
  p->table_format = (splitkv_table_format)s->format;
  p->table_type = (splitkv_index_type)s->index;
  p->split_policy = (splitkv_split_policy)s->split;
  p->split_value = s->split_value;
  p->isa = (splitkv_isa)s->isa;
  p->arithmetic = (splitkv_arithmetic)s->arithmetic;
  p->scale = (float)s->scale;
  p->window_tokens = s->window;
  p->logit_softcap = (float)s->softcap;
  p->flags = (s->sinks ? SPLITKV_FLAG_SINKS : 0) | (s->alibi ? SPLITKV_FLAG_ALIBI : 0) |
             (s->causal ? SPLITKV_FLAG_CAUSAL : 0) | (s->zeros ? SPLITKV_FLAG_ZERO_POINTS : 0);
  p->window_right_tokens = s->window_right;
  p->chunk_tokens = s->chunk;
  p->tree_tokens = s->tree;
  p->k_scale_mode = (splitkv_scale_mode)s->k_scales;
  p->v_scale_mode = (splitkv_scale_mode)s->v_scales;
  p->dtype_scales = (splitkv_dtype)s->scales_dtype;
  if (s->mla) {
    alias_v(p);
  }
  return describe_cache(c, widest, name);
}

/* The numbers with 32 bits; NULL when memory is short. */
static int32_t *narrow(const int64_t *numbers, int64_t n) {
  int32_t *narrowed = calloc((size_t)n + 1, sizeof *narrowed);
  for (int64_t i = 0; narrowed && i < n; i++) {
    narrowed[i] = (int32_t)numbers[i];
  }
  return narrowed;
}

static int describe_batch(tool_case *c) {
  int64_t b = c->spec->b;
  splitkv_batch *batch = &c->batch;
  splitkv_batch_init(batch);
  batch->n_requests = b;
  batch->n_workers = c->spec->threads;
  batch->kv_lens = c->kv_lens;
  batch->kv_lens_type = SPLITKV_I64;
  if (c->spec->index == SPLITKV_I32 && c->max_kv_len <= INT32_MAX) {
    batch->kv_lens = c->kv_lens32 = narrow(c->kv_lens, b);
    batch->kv_lens_type = SPLITKV_I32;
  }
  if (!problem_spec_is_decode(c->spec)) {
    batch->q_offsets = c->q_offsets;
    batch->q_offsets_type = SPLITKV_I64;
  }
  if (batch->q_offsets && c->spec->index == SPLITKV_I32 && c->n_rows <= INT32_MAX) {
    batch->q_offsets = c->q_offsets32 = narrow(c->q_offsets, b + 1);
    batch->q_offsets_type = SPLITKV_I32;
  }
  return batch->kv_lens && (batch->q_offsets || problem_spec_is_decode(c->spec))
             ? TOOL_OK
             : tool_unsupported("out of memory for %lld lengths", (long long)b);
}

int case_library_error(const char *name, splitkv_status status, const splitkv_error *error) {
  static const struct {
    const char *field, *word;
  } map[] = {{"problem.n_heads_q", "hq"},
             {"problem.n_heads_kv", "hkv"},
             {"problem.head_dim_v", "dv"},
             {"problem.head_dim", "d"},
             {"problem.page_size_tokens", "page"},
             {"problem.n_pages", "kv"},
             {"problem.table_width", "kv"},
             {"problem.split_value", "split"},
             {"problem.scale", "scale"},
             {"problem.isa", "isa"},
             {"problem.arithmetic", "arithmetic"},
             {"problem.window_tokens", "window"},
             {"problem.logit_softcap", "softcap"},
             {"problem.dtype_kv", "dtype_kv"},
             {"problem.layout", "layout"},
             {"problem.split_policy", "split"},
             {"problem.table_format", "format"},
             {"problem.table_type", "index"},
             {"problem.dtype_q", "dtype_q"},
             {"problem.dtype_out", "dtype_out"},
             {"batch.n_workers", "threads"},
             {"batch.n_requests", "b"},
             {"batch.kv_lens", "kv"},
             {"batch.q_offsets", "q"},
             {"problem.window_right_tokens", "window_right"},
             {"problem.chunk_tokens", "chunk"},
             {"problem.tree_tokens", "tree"},
             {"batch.prefixes", "prefix"},
             {"problem.k_scale_mode", "scales"},
             {"problem.v_scale_mode", "scales"},
             {"problem.dtype_scales", "scales_dtype"},
             {"target.n_cores", "cores"},
             {"target.rule", "rule"}};
  const char *word = status == SPLITKV_ERROR_ZERO_POINTS ? "zeros" : "";
  for (size_t i = 0; i < sizeof map / sizeof map[0] && !*word; i++) {
    if (strcmp(error->field, map[i].field) == 0) {
      word = map[i].word;
    }
  }
  char context[160];
  snprintf(context, sizeof context, "%.120s%s%s", name, *name && *word ? ": " : "", word);
  return tool_library_error(context, status, error);
}

int case_describe(tool_case *c, const problem_spec *spec, const char *name) {
  *c = (tool_case){.spec = spec};
  c->kv_lens = problem_spec_lengths(spec);
  if (!c->kv_lens || rows_describe(c)) {
    return tool_unsupported("out of memory for %lld lengths", (long long)spec->b);
  }
  int status = describe(c, name);
  status = status ? status : describe_batch(c);
  if (status == TOOL_OK && prefix_describe(c)) {
    return tool_unsupported("out of memory for %lld requests", (long long)spec->b);
  }
  return status;
}

int case_plan(tool_case *c, const problem_spec *spec, const char *name) {
  int failed = case_describe(c, spec, name);
  if (failed) {
    return failed;
  }
  splitkv_error error = {0};
  splitkv_status status = splitkv_plan_create(&c->problem, &c->batch, NULL, &c->plan, &error);
  if (status != SPLITKV_OK) {
    return case_library_error(name, status, &error);
  }
  c->info.struct_size = sizeof c->info;
  status = splitkv_plan_get_info(c->plan, &c->info, &error);
  if (status != SPLITKV_OK) {
    return case_library_error(name, status, &error);
  }
  splitkv_limits limits;
  splitkv_limits_init(&limits);
  limits.max_requests = spec->b;
  limits.max_kv_tokens_total = c->n_tokens;
  limits.max_kv_tokens_per_request = c->max_kv_len;
  limits.max_workers = spec->threads;
  if (c->batch.q_offsets) {
    limits.max_q_rows_total = c->n_rows;
    limits.max_q_rows_per_request = c->max_q_rows;
  }
  limits.max_prefix_rows = c->n_prefix_rows;
  splitkv_sizes sizes = {0};
  status = splitkv_get_sizes(&c->problem, &limits, &sizes, &error);
  c->bound_bytes = sizes.workspace_bytes;
  return status == SPLITKV_OK ? TOOL_OK : case_library_error(name, status, &error);
}

/* ── sizes ──────────────────────────────────────────────────────────────────────────────────── */

/* n[0] * n[1] * ...; SIZE_MAX when it does not fit, and for factors that are SIZE_MAX. */
static size_t product(const int64_t *n, size_t n_factors, size_t unit) {
  size_t size = unit;
  for (size_t i = 0; i < n_factors; i++) {
    size_t factor = (size_t)n[i];
    if (factor && size > (SIZE_MAX - 1) / factor) {
      return SIZE_MAX;
    }
    size *= factor;
  }
  return size;
}

static size_t sum(size_t a, size_t b) {
  return a > SIZE_MAX - b ? SIZE_MAX : a + b;
}

/* Rows of channels that a cache holds. */
static size_t cache_rows(const tool_case *c) {
  const splitkv_problem *p = &c->problem;
  int64_t n[] = {p->n_pages, p->page_size_tokens, p->n_heads_kv};
  return product(n, 3, 1);
}

/* Bytes of a part of a cache with so many rows; SIZE_MAX when that is no number. */
static size_t part_bytes(const tool_case *c, kv_part part, size_t rows) {
  const splitkv_problem *p = &c->problem;
  int is_k = part == KV_K || part == KV_K_SCALES || part == KV_K_ZEROS;
  int64_t channels = is_k ? p->head_dim : p->head_dim_v;
  if (rows > (size_t)INT64_MAX / SPLITKV_MAX_HEAD_DIM / sizeof(float)) {
    return SIZE_MAX;
  }
  if (part == KV_K || part == KV_V) {
    return part == KV_V && c->spec->mla ? 0 : codes_bytes(p->dtype_kv, (int64_t)rows * channels);
  }
  splitkv_scale_mode mode = is_k ? p->k_scale_mode : p->v_scale_mode;
  int64_t n = codes_n_scales(c, mode, channels);
  if (codes_is_per_token(mode)) { /* of as many rows */
    n = cache_rows(c) > 0 ? n / (int64_t)cache_rows(c) * (int64_t)rows : 0;
  }
  size_t element_bytes = part == KV_K_SCALES || part == KV_V_SCALES
                             ? ref_dtype_size(p->dtype_scales)
                         : c->spec->zeros ? 1
                                          : 0;
  return (size_t)n * element_bytes;
}

static size_t row_bytes(const tool_case *c, int64_t channels, size_t element_bytes) {
  int64_t n[] = {c->n_rows, c->problem.n_heads_q, channels};
  return product(n, 3, element_bytes);
}

static size_t index_bytes(const tool_case *c) {
  return c->problem.table_type == SPLITKV_I64 ? 8 : 4;
}

static size_t table_bytes(const tool_case *c) {
  int64_t dense[] = {c->batch.n_requests, c->problem.table_width};
  int64_t csr[] = {c->n_table_entries + c->batch.n_requests};
  return c->problem.table_format == SPLITKV_TABLE_DENSE ? product(dense, 2, index_bytes(c))
                                                        : product(csr, 1, index_bytes(c));
}

size_t case_memory_bytes(const tool_case *c) {
  const splitkv_problem *p = &c->problem;
  int64_t pages[] = {p->n_pages};
  size_t parts[] = {row_bytes(c, p->head_dim, ref_dtype_size(p->dtype_q)),
                    row_bytes(c, p->head_dim_v, ref_dtype_size(p->dtype_out)),
                    row_bytes(c, 1, sizeof(float)),
                    table_bytes(c),
                    rows_tree_bytes(c),
                    product(pages, 1, 3 * sizeof(int64_t)),
                    c->info.workspace_bytes};
  size_t total = 0;
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    total = sum(total, parts[i]);
  }
  for (int part = 0; part < N_KV_PARTS; part++) {
    total = sum(total, part_bytes(c, (kv_part)part, cache_rows(c)));
  }
  return total;
}

size_t case_read_bytes(const tool_case *c, kv_part part) {
  return c->n_unique_tokens > 0
             ? part_bytes(c, part, (size_t)(c->n_unique_tokens * c->problem.n_heads_kv))
             : 0;
}

double case_kv_bytes(const tool_case *c) {
  double bytes = 0;
  for (int part = 0; part < N_KV_PARTS; part++) {
    bytes += (double)case_read_bytes(c, (kv_part)part);
  }
  return bytes;
}

double case_multiply_adds(const tool_case *c) {
  const splitkv_problem *p = &c->problem;
  return (double)c->n_attended * (double)p->n_heads_q * (double)(p->head_dim + p->head_dim_v);
}

/* ── the block table ────────────────────────────────────────────────────────────────────────── */

static void store_index(const tool_case *c, void *array, int64_t i, int64_t value) {
  if (c->problem.table_type == SPLITKV_I64) {
    ((int64_t *)array)[i] = value;
  } else {
    ((int32_t *)array)[i] = (int32_t)value;
  }
}

/* A random order of 0 .. n-1, NULL when memory is short. */
static int64_t *permutation(int64_t n, uint64_t seed) {
  int64_t *order = calloc((size_t)n + 1, sizeof *order);
  if (!order) {
    return NULL;
  }
  for (int64_t i = 0; i < n; i++) {
    int64_t j = (int64_t)(random_next(&seed) % (uint64_t)(i + 1));
    order[i] = order[j];
    order[j] = i;
  }
  return order;
}

static int64_t invalid_id(const tool_case *c, int64_t i) {
  const int64_t ids[] = {-1, c->problem.n_pages, INT32_MIN, INT32_MAX};
  return ids[i % 4];
}

typedef struct page_source {
  int64_t kind, next, n_pages;
  int64_t row_pages;    /* of the Ascend kernel's identity: each row begins at such a multiple */
  const int64_t *order; /* TABLE_SHUFFLED */
  uint64_t state;       /* TABLE_SHARED */
  int64_t *prefix;      /* pages of the prefix, -1 until one is named */
} page_source;

static int64_t next_page(page_source *source) {
  if (source->kind == TABLE_SHARED) {
    return (int64_t)(random_next(&source->state) % (uint64_t)source->n_pages);
  }
  int64_t i = source->next++;
  return source->order ? source->order[i] : i;
}

/* Page i of a request; is_shared: of the prefix. */
static int64_t page_of_request(page_source *source, int64_t i, int is_shared) {
  if (!is_shared) {
    return next_page(source);
  }
  if (source->prefix[i] < 0) {
    source->prefix[i] = next_page(source);
  }
  return source->prefix[i];
}

/* Some request attends to tokens [begin, end) of a page. */
static void note_page(tool_case *c, int64_t page, int64_t begin, int64_t end) {
  int64_t before = c->page_tokens[page] - c->page_begin[page];
  if (before == 0 || begin < c->page_begin[page]) {
    c->page_begin[page] = begin;
  }
  if (end > c->page_tokens[page]) {
    c->page_tokens[page] = end;
  }
  c->n_unique_tokens += c->page_tokens[page] - c->page_begin[page] - before;
}

/* Writes the table, with invalid ids before and after each row's used part, and notes for every
 * page which of its tokens some request attends to. */
static void fill_table(tool_case *c, page_source *source) {
  const splitkv_problem *p = &c->problem;
  int64_t entry = 0, n_prefix = prefix_pages(c->spec);
  for (int64_t r = 0; r < c->batch.n_requests; r++) {
    int64_t n = pages_of(c->kv_lens[r], p->page_size_tokens);
    if (c->table_offsets) {
      store_index(c, c->table_offsets, r, entry);
    }
    if (source->row_pages) {
      source->next = r * source->row_pages;
    }
    int64_t first_page = 0, end_page = 0, first = rows_span_of_request(c, r).first;
    pages_attended(c, r, &first_page, &end_page);
    for (int64_t i = 0; i < n; i++, entry++) {
      if (i < first_page || i >= end_page) {
        store_index(c, c->block_table, entry, invalid_id(c, entry));
        continue;
      }
      int64_t page = page_of_request(source, i, i < n_prefix && prefix_has(c, r));
      int64_t left = c->kv_lens[r] - i * p->page_size_tokens;
      int64_t tokens = left < p->page_size_tokens ? left : p->page_size_tokens;
      store_index(c, c->block_table, entry, page);
      note_page(c, page, i == first_page ? first % p->page_size_tokens : 0, tokens);
    }
    int64_t end = c->table_offsets ? entry + 1 : (r + 1) * p->table_width;
    while (entry < end) {
      store_index(c, c->block_table, entry, invalid_id(c, entry));
      entry++;
    }
  }
  if (c->table_offsets) {
    store_index(c, c->table_offsets, c->batch.n_requests, entry);
    c->tensors.table_entries = entry;
  }
}

/* Returns 0, or -1 when memory is short. */
static int build_table(tool_case *c) {
  const splitkv_problem *p = &c->problem;
  size_t bytes = table_bytes(c);
  if (bytes > PTRDIFF_MAX) {
    return -1;
  }
  c->page_tokens = calloc((size_t)p->n_pages + 1, sizeof *c->page_tokens);
  c->page_begin = calloc((size_t)p->n_pages + 1, sizeof *c->page_begin);
  c->block_table = calloc(bytes ? bytes : 1, 1);
  if (p->table_format == SPLITKV_TABLE_CSR) {
    c->table_offsets = calloc((size_t)c->batch.n_requests + 1, index_bytes(c));
  }
  if (!c->page_tokens || !c->page_begin || !c->block_table ||
      (p->table_format == SPLITKV_TABLE_CSR && !c->table_offsets)) {
    return -1;
  }
  uint64_t seed = (uint64_t)c->spec->seed ^ 0x7461626c65u;
  page_source source = {.kind = c->spec->table, .n_pages = p->n_pages, .state = seed};
  int64_t *order = NULL;
  if (c->spec->table == TABLE_SHUFFLED) {
    order = permutation(p->n_pages, seed);
    if (!order) {
      return -1;
    }
  }
  source.order = order;
  if (c->spec->device == PROBLEM_ASCEND && c->spec->table == TABLE_IDENTITY) {
    source.row_pages = p->table_width;
  }
  int64_t n_prefix = prefix_pages(c->spec);
  if (n_prefix * c->spec->page > c->max_kv_len) { /* nobody has it */
    n_prefix = 0;
  }
  source.prefix = calloc((size_t)n_prefix + 1, sizeof *source.prefix);
  if (!source.prefix) {
    free(order);
    return -1;
  }
  for (int64_t i = 0; i < n_prefix; i++) {
    source.prefix[i] = -1;
  }
  fill_table(c, &source);
  free(order);
  free(source.prefix);
  return 0;
}

/* ── tensors and runs ───────────────────────────────────────────────────────────────────────── */

static int allocate_tensors(tool_case *c) {
  const splitkv_problem *p = &c->problem;
  c->q = zoned_allocate(row_bytes(c, p->head_dim, ref_dtype_size(p->dtype_q)));
  c->out = zoned_allocate(row_bytes(c, p->head_dim_v, ref_dtype_size(p->dtype_out)));
  c->lse = zoned_allocate(row_bytes(c, 1, sizeof(float)));
  c->workspace = zoned_allocate(c->info.workspace_bytes);
  int failed = !c->q.data || !c->out.data || !c->lse.data || !c->workspace.data;
  for (int part = 0; part < N_KV_PARTS && !failed; part++) {
    c->kv[part] = zoned_allocate(part_bytes(c, (kv_part)part, cache_rows(c)));
    failed = !c->kv[part].data;
  }
  return failed ? -1 : 0;
}

void case_use_kv(tool_case *c, void *const parts[N_KV_PARTS]) {
  splitkv_tensors *t = &c->tensors;
  t->k = parts[KV_K];
  t->v = c->spec->mla ? parts[KV_K] : parts[KV_V];
  t->k_scales = c->spec->k_scales ? parts[KV_K_SCALES] : NULL;
  t->v_scales = c->spec->v_scales ? parts[KV_V_SCALES] : NULL;
  t->k_zeros = c->spec->zeros && t->k_scales ? parts[KV_K_ZEROS] : NULL;
  t->v_zeros = c->spec->zeros && t->v_scales ? parts[KV_V_ZEROS] : NULL;
}

void case_use_own_kv(tool_case *c) {
  void *parts[N_KV_PARTS];
  for (int part = 0; part < N_KV_PARTS; part++) {
    parts[part] = c->kv[part].data;
  }
  case_use_kv(c, parts);
}

/* Numbers of the query heads. Returns 0, or -1 when memory is short. */
static int fill_heads(tool_case *c) {
  int64_t n = c->problem.n_heads_q;
  if (c->spec->sinks) {
    c->sinks = calloc((size_t)n, sizeof *c->sinks);
  }
  if (c->spec->alibi) {
    c->slopes = calloc((size_t)n, sizeof *c->slopes);
  }
  if ((c->spec->sinks && !c->sinks) || (c->spec->alibi && !c->slopes)) {
    return -1;
  }
  uint64_t state = (uint64_t)c->spec->seed ^ 0x73696e6bu;
  for (int64_t h = 0; c->sinks && h < n; h++) { /* -4 .. 4 */
    c->sinks[h] = (float)(random_next(&state) >> 40) * 0x1p-21f - 4;
  }
  for (int64_t h = 0; c->slopes && h < n; h++) {
    c->slopes[h] = exp2f(-8 * (float)(h + 1) / (float)n);
  }
  c->tensors.sinks = c->sinks;
  c->tensors.alibi_slopes = c->slopes;
  return 0;
}

static int fail_memory(const tool_case *c, const char *name) {
  return tool_unsupported("%s%sthe case needs %.1f GB of memory, free are %.1f GB", name,
                          *name ? ": " : "", (double)case_memory_bytes(c) / 1e9,
                          (double)machine_available_bytes() / 1e9);
}

int case_build(tool_case *c, const char *name, const splitkv_pool *pool) {
  size_t needed = case_memory_bytes(c);
  if (needed == SIZE_MAX || needed > machine_available_bytes()) {
    return fail_memory(c, name);
  }
  splitkv_tensors_init(&c->tensors);
  if (build_table(c) || rows_build(c) || allocate_tensors(c) || data_fill(c, pool) ||
      fill_heads(c)) {
    return fail_memory(c, name);
  }
  c->tensors.q = c->q.data;
  case_use_own_kv(c);
  c->tensors.block_table = c->block_table;
  c->tensors.table_offsets = c->table_offsets;
  c->tensors.out = c->out.data;
  c->tensors.lse = (float *)(void *)c->lse.data;
  case_poison(c);
  return TOOL_OK;
}

int case_build_threads(tool_case *c, const char *name, splitkv_threads **threads) {
  splitkv_error error = {0};
  splitkv_status started = splitkv_threads_create(c->spec->threads, threads, &error);
  if (started != SPLITKV_OK) {
    return tool_library_error("threads", started, &error);
  }
  return case_build(c, name, splitkv_threads_pool(*threads));
}

int case_prepare(tool_case *c, const problem_spec *spec, const char *name,
                 splitkv_threads **threads) {
  int status = case_plan(c, spec, name);
  return status ? status : case_build_threads(c, name, threads);
}

void case_poison(tool_case *c) {
  zoned *const written[] = {&c->out, &c->lse, &c->workspace};
  for (size_t i = 0; i < sizeof written / sizeof written[0]; i++) {
    memset(written[i]->data - ZONE_BYTES, POISON, written[i]->size_bytes + 2 * ZONE_BYTES);
  }
}

const char *case_find_overrun(const tool_case *c) {
  return !zoned_is_intact(&c->workspace) ? "workspace"
         : !zoned_is_intact(&c->out)     ? "out"
         : !zoned_is_intact(&c->lse)     ? "lse"
                                         : NULL;
}

splitkv_status case_run(tool_case *c, const splitkv_pool *pool, splitkv_error *error) {
  return splitkv_run(c->plan, &c->problem, &c->tensors, c->workspace.data, c->workspace.size_bytes,
                     pool, error);
}

void case_free(tool_case *c) {
  zoned *const buffers[] = {&c->q, &c->out, &c->lse, &c->workspace};
  for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
    zoned_free(buffers[i]);
  }
  for (int part = 0; part < N_KV_PARTS; part++) {
    zoned_free(&c->kv[part]);
  }
  free(c->prefixes);
  free(c->kv_lens);
  free(c->kv_lens32);
  free(c->q_offsets);
  free(c->q_offsets32);
  free(c->tree_mask);
  free(c->page_begin);
  free(c->page_tokens);
  free(c->sinks);
  free(c->slopes);
  free(c->block_table);
  free(c->table_offsets);
  splitkv_plan_destroy(c->plan);
  *c = (tool_case){0};
}
