/* Fuzzes run with any block table and CSR offsets: what is needed is checked, what is not is not
 * looked at, and nothing is touched when it is refused.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#define _POSIX_C_SOURCE 200809L /* posix_memalign */
#include "lib_plan_check.h"

enum { MAX_REQUESTS = 8, MAX_ENTRIES = 64, PAGE = 3, PAGES = 5, DIM = 2, POISON = 0x6b };

typedef struct scene {
  splitkv_problem p;
  splitkv_batch b;
  int64_t lens[MAX_REQUESTS];
  int64_t ids[MAX_ENTRIES], offsets[MAX_REQUESTS + 1]; /* as int64, whatever the type */
  int64_t n_entries;
} scene;

static void read_scene(fuzz_input *in, scene *s) {
  splitkv_problem_init(&s->p);
  s->p.n_heads_q = s->p.n_heads_kv = 1;
  s->p.head_dim = s->p.head_dim_v = DIM;
  s->p.page_size_tokens = PAGE;
  s->p.n_pages = PAGES;
  s->p.table_format = (splitkv_table_format)fuzz_range(in, 0, 1);
  s->p.table_type = (splitkv_index_type)fuzz_range(in, 0, 1);
  s->p.split_policy = SPLITKV_SPLIT_FIXED_SIZE;
  s->p.split_value = fuzz_range(in, 1, 9);
  splitkv_batch_init(&s->b);
  s->b.n_requests = fuzz_range(in, 0, MAX_REQUESTS);
  s->b.kv_lens = s->lens;
  s->b.kv_lens_type = SPLITKV_I64;
  s->b.n_workers = fuzz_range(in, 1, 5);
  s->n_entries = fuzz_range(in, 0, MAX_ENTRIES);
  if (s->p.table_format == SPLITKV_TABLE_DENSE) {
    s->p.table_width = s->b.n_requests > 0 ? s->n_entries / s->b.n_requests : 0;
    s->n_entries = s->p.table_width * s->b.n_requests;
  }
  for (int64_t r = 0; r < s->b.n_requests; ++r)
    s->lens[r] = fuzz_range(in, 0, 20);
  for (int64_t r = 0; r <= s->b.n_requests; ++r)
    s->offsets[r] = fuzz_byte(in) < 230 ? fuzz_range(in, 0, MAX_ENTRIES) : fuzz_number(in);
  for (int64_t i = 0; i < s->n_entries; ++i)
    s->ids[i] = fuzz_byte(in) < 230 ? fuzz_range(in, 0, PAGES - 1) : fuzz_number(in);
  s->p.window_tokens = fuzz_range(in, 0, 23);
}

/* The first token that request r attends to. */
static int64_t first_token(const scene *s, int64_t r) {
  const int64_t window = s->p.window_tokens;
  return window > 0 && window < s->lens[r] ? s->lens[r] - window : 0;
}

/* The n numbers in memory of exactly their size; in int32 they wrap, in `numbers` too. */
static void *encode(splitkv_index_type type, int64_t *numbers, int64_t n) {
  const size_t size = type == SPLITKV_I64 ? 8 : 4;
  unsigned char *memory = malloc((size_t)n * size);
  if (!memory && n > 0) abort();
  for (int64_t i = 0; i < n; ++i) {
    const int32_t narrow = (int32_t)(uint32_t)(uint64_t)numbers[i];
    if (type == SPLITKV_I64) {
      memcpy(memory + 8 * i, &numbers[i], 8);
      continue;
    }
    memcpy(memory + 4 * i, &narrow, 4);
    numbers[i] = narrow;
  }
  return memory;
}

static int any_tokens(const scene *s) {
  for (int64_t r = 0; r < s->b.n_requests; ++r)
    if (s->lens[r] > 0) return 1;
  return 0;
}

/* What run should say. */
static splitkv_status wanted(const scene *s) {
  const int csr = s->p.table_format == SPLITKV_TABLE_CSR;
  if (!any_tokens(s)) return SPLITKV_OK;
  for (int64_t r = 0; csr && r < s->b.n_requests; ++r) {
    const int64_t first = s->offsets[r], end = s->offsets[r + 1];
    if (first < 0 || end < first || end > s->n_entries) return SPLITKV_ERROR_TABLE_OFFSETS;
    if (end - first < (s->lens[r] + PAGE - 1) / PAGE) return SPLITKV_ERROR_TABLE_SHORT;
  }
  for (int64_t r = 0; r < s->b.n_requests; ++r)
    for (int64_t i = first_token(s, r) / PAGE; i * PAGE < s->lens[r]; ++i) {
      const int64_t id = s->ids[(csr ? s->offsets[r] : r * s->p.table_width) + i];
      if (id < 0 || id >= PAGES) return SPLITKV_ERROR_PAGE_ID;
    }
  return SPLITKV_OK;
}

static int all_poison(const void *memory, size_t n) {
  const unsigned char *bytes = memory;
  for (size_t i = 0; i < n; ++i)
    if (bytes[i] != POISON) return 0;
  return 1;
}

/* Every V is its page's number + 1: the outputs stand for the pages that were read. */
static void check_out(const scene *s, const float *out) {
  for (int64_t r = 0; r < s->b.n_requests; ++r) {
    double sum = 0;
    const int64_t row =
        s->p.table_format == SPLITKV_TABLE_CSR ? s->offsets[r] : r * s->p.table_width;
    const int64_t first = first_token(s, r);
    for (int64_t t = first; t < s->lens[r]; ++t)
      sum += (double)s->ids[row + t / PAGE] + 1;
    const double want = s->lens[r] > 0 ? sum / (double)(s->lens[r] - first) : 0;
    const double got = (double)out[r * DIM];
    FUZZ_CHECK(got - want <= 1e-5 && want - got <= 1e-5);
  }
}

static void run(scene *s, const splitkv_plan *plan) {
  static const float q[MAX_REQUESTS * DIM], k[PAGES * PAGE * DIM];
  float v[PAGES * PAGE * DIM];
  for (int i = 0; i < PAGES * PAGE * DIM; ++i)
    v[i] = (float)(i / (PAGE * DIM) + 1);
  const int csr = s->p.table_format == SPLITKV_TABLE_CSR;
  void *ids = encode(s->p.table_type, s->ids, s->n_entries);
  void *offsets = encode(s->p.table_type, s->offsets, s->b.n_requests + 1);
  const size_t bytes = splitkv_plan_workspace_bytes(plan);
  const size_t out_bytes = (size_t)s->b.n_requests * DIM * sizeof(float);
  void *workspace = NULL;
  float *out = malloc(out_bytes);
  if (posix_memalign(&workspace, SPLITKV_ALIGNMENT, bytes + 1) != 0 || (!out && out_bytes > 0))
    abort();
  if (out_bytes > 0) memset(out, POISON, out_bytes);
  memset(workspace, POISON, bytes);
  splitkv_tensors t;
  splitkv_tensors_init(&t);
  t.q = q;
  t.k = k;
  t.v = v;
  t.block_table = ids;
  t.table_offsets = csr ? offsets : NULL;
  t.table_entries = csr ? s->n_entries : 0;
  t.out = out;
  splitkv_error error;
  const splitkv_status status = splitkv_run(plan, &s->p, &t, workspace, bytes, NULL, &error);
  check_error(status, &error);
  if (ids || s->n_entries > 0 || !any_tokens(s)) FUZZ_CHECK(status == wanted(s));
  if (status == SPLITKV_OK)
    check_out(s, out);
  else
    FUZZ_CHECK(all_poison(out, out_bytes) && all_poison(workspace, bytes));
  free(ids);
  free(offsets);
  free(out);
  free(workspace);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_input in = {data, size};
  scene s;
  memset(&s, 0, sizeof s);
  read_scene(&in, &s);
  splitkv_plan *plan = NULL;
  splitkv_error error;
  const splitkv_status status = splitkv_plan_create(&s.p, &s.b, NULL, &plan, &error);
  check_error(status, &error);
  if (status == SPLITKV_OK) {
    run(&s, plan);
    splitkv_plan_destroy(plan);
    return 0;
  }
  FUZZ_CHECK(status == SPLITKV_ERROR_KV_LEN_TABLE && s.p.table_format == SPLITKV_TABLE_DENSE);
  return 0;
}
