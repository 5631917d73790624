/* The functional model: what is wrong in the pull request shows as a fault, and results do not
 * depend on who runs the groups.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <splitkv/threads.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "launch.h"
#include "track.h"

enum {
  WORD_FORMER_REQUESTS = 8,
  WORD_MASK_LENGTH = 13,
  WORD_MASK_STRIDE_REQUEST = 14,
  WORD_KEY = 16,
  WORD_HEADER_WORDS = 17,
  WORD_SPLIT_TOKENS = 23,
  WORD_MASK_DIVISOR = 31
};

static test_spec spec;
static splitkv_ascend_target target;
static launch l;
static splitkv_ascend_report report;
static splitkv_error error;

static void begin(splitkv_dtype dtype, int64_t n_heads_q, int64_t n_heads_kv, int64_t head_dim,
                  int64_t page) {
  test_spec_init(&spec);
  splitkv_problem *p = &spec.problem;
  p->dtype_q = p->dtype_kv = p->dtype_out = dtype;
  p->head_dim = p->head_dim_v = head_dim;
  p->page_size_tokens = page;
  p->n_heads_kv = n_heads_kv;
  p->n_heads_q = n_heads_q;
  splitkv_ascend_target_init(&target);
}

static bool open_launch(splitkv_ascend_sizing sizing) {
  memset(&error, 0, sizeof error);
  return CHECK_MSG(launch_open(&l, &spec, &target, sizing, &error), "%s", error.message);
}

static splitkv_status run(uint32_t flags) {
  return launch_run(&l, flags, NULL, &report, &error);
}

/* ── the pull request ───────────────────────────────────────────────────────────────────────── */

/* Its case: 256 requests of 8192 tokens, 16 heads on one KV head. All have the same pages here. */
static void begin_pr683(void) {
  begin(SPLITKV_F16, 16, 1, 128, 128);
  test_spec_requests(&spec, 256, 8192);
  spec.table = TABLE_SHARED;
  memset(spec.sources, 0, sizeof spec.sources);
  target.rule = SPLITKV_ASCEND_PR683;
}

static void check_others_inside(int a, int b) {
  for (int i = 0; i < SPLITKV_ASCEND_N_BUFFERS; i++)
    if (i != a && i != b) CHECK(report.lowest_outside[i] == INT64_MAX);
}

static void test_old_sizes(void) {
  begin_pr683();
  if (!open_launch(SPLITKV_ASCEND_BEFORE)) return;
  CHECK(run(0) == SPLITKV_ERROR_ASCEND_BOUNDS);
  CHECK(strcmp(error.field, "l") == 0 && error.value == 29216);
  CHECK(report.lowest_outside[SPLITKV_ASCEND_O_CORE] == 3735552);
  CHECK(report.lowest_outside[SPLITKV_ASCEND_L] == 29184);
  check_others_inside(SPLITKV_ASCEND_O_CORE, SPLITKV_ASCEND_L);
  CHECK(report.high_water[SPLITKV_ASCEND_O_CORE] == 46137344);
  CHECK(report.high_water[SPLITKV_ASCEND_L] == 360448);
  CHECK(report.high_water[SPLITKV_ASCEND_S] == 3088384);
  CHECK(report.high_water[SPLITKV_ASCEND_P] == 3084288);
  CHECK(report.high_water[SPLITKV_ASCEND_O_TMP] == 6168576);
  CHECK(report.n_tasks == 5632);
  CHECK(report.first.buffer == SPLITKV_ASCEND_L && report.first.is_write == 1);
  /* The first task that reaches it is not the one that reaches its end. */
  CHECK(report.first.byte == 29216 && report.first.task == 20 * 22);
  CHECK(report.first.request == 20 && report.first.split == 0 && report.first.head == 12);
  launch_close(&l);
}

static void test_new_sizes(void) {
  begin_pr683();
  if (!open_launch(SPLITKV_ASCEND_AFTER)) return;
  CHECK(run(0) == SPLITKV_OK);
  double worst = 0;
  launch_compare(&l, &worst);
  launch_close(&l);
}

/* The offset of o_core in the words times the number of splits: 22 times too far. */
static void test_scaled_offsets(void) {
  begin_pr683();
  target.flags = SPLITKV_ASCEND_SCALED_OFFSETS;
  if (!open_launch(SPLITKV_ASCEND_AFTER)) return;
  CHECK(run(0) == SPLITKV_ERROR_ASCEND_BOUNDS);
  CHECK(report.high_water[SPLITKV_ASCEND_O_CORE] == 1011236864);
  CHECK(report.lowest_outside[SPLITKV_ASCEND_O_CORE] >= 46137344);
  check_others_inside(SPLITKV_ASCEND_O_CORE, SPLITKV_ASCEND_O_CORE);
  launch_close(&l);
}

/* ── masks ──────────────────────────────────────────────────────────────────────────────────── */

/* A tensor of one byte where a null pointer was meant. */
static void test_mask_by_pointer(void) {
  begin(SPLITKV_F16, 8, 2, 64, 32);
  test_spec_requests(&spec, 3, 100);
  if (!open_launch(SPLITKV_ASCEND_EXACT)) return;
  unsigned char byte = 0;
  l.memory.data[SPLITKV_ASCEND_MASK] = &byte;
  l.memory.bytes[SPLITKV_ASCEND_MASK] = 1;
  CHECK(run(0) == SPLITKV_OK && report.high_water[SPLITKV_ASCEND_MASK] == 0);
  CHECK(run(SPLITKV_ASCEND_MODEL_MASK_BY_POINTER) == SPLITKV_ERROR_ASCEND_BOUNDS);
  CHECK(report.first.buffer == SPLITKV_ASCEND_MASK && !report.first.is_write);
  CHECK(report.lowest_outside[SPLITKV_ASCEND_MASK] == 1);
  CHECK(report.high_water[SPLITKV_ASCEND_MASK] == 200);
  check_others_inside(SPLITKV_ASCEND_MASK, SPLITKV_ASCEND_MASK);
  launch_close(&l);
}

/* Tokens that a mask of -inf takes out are as if they were not there. */
static void test_mask(void) {
  enum { N = 3, LENGTH = 100, LEFT = 37 };
  begin(SPLITKV_F16, 8, 2, 64, 32);
  test_spec_requests(&spec, N, LENGTH);
  if (!open_launch(SPLITKV_ASCEND_EXACT)) return;
  static uint16_t mask[N * LENGTH];
  for (int i = 0; i < N * LENGTH; i++)
    mask[i] = i % LENGTH < LEFT ? 0 : 0xfc00;
  l.memory.data[SPLITKV_ASCEND_MASK] = mask;
  l.memory.bytes[SPLITKV_ASCEND_MASK] = sizeof mask;
  l.words[WORD_MASK_LENGTH] = LENGTH;
  l.words[WORD_MASK_STRIDE_REQUEST] = LENGTH;
  CHECK_MSG(run(0) == SPLITKV_OK, "%s", error.message);
  CHECK(report.high_water[SPLITKV_ASCEND_MASK] == sizeof mask);
  for (int r = 0; r < N; r++)
    l.batch.spec.kv_lens[r] = LEFT;
  launch_compare(&l, NULL);
  l.words[WORD_MASK_DIVISOR] = 0;
  CHECK(run(0) == SPLITKV_ERROR_ASCEND_WORDS && strcmp(error.field, "words[31]") == 0);
  launch_close(&l);
}

/* ── rows without tokens, pages outside, pools ──────────────────────────────────────────────── */

static int64_t count_bytes(const unsigned char *bytes, size_t n, unsigned char value) {
  int64_t count = 0;
  for (size_t i = 0; i < n; i++)
    count += bytes[i] == value;
  return count;
}

static void test_empty_rows(void) {
  enum { HEADS = 8, DIM = 64 };
  begin(SPLITKV_BF16, HEADS, 2, DIM, 16);
  test_spec_requests(&spec, 4, 50);
  spec.kv_lens[1] = 0;
  if (!open_launch(SPLITKV_ASCEND_EXACT)) return;
  const unsigned char *row = (unsigned char *)l.memory.data[SPLITKV_ASCEND_OUT] + HEADS * DIM * 2;
  launch_fill(&l, 0xa5);
  CHECK(run(SPLITKV_ASCEND_MODEL_KEEP_EMPTY_ROWS) == SPLITKV_OK);
  CHECK(report.n_rows_unwritten == HEADS);
  CHECK(count_bytes(row, HEADS * DIM * 2, 0xa5) == HEADS * DIM * 2);
  CHECK(run(0) == SPLITKV_OK && report.n_rows_unwritten == 0);
  CHECK(count_bytes(row, HEADS * DIM * 2, 0) == HEADS * DIM * 2);
  launch_compare(&l, NULL);
  launch_close(&l);
}

static void test_page_outside(void) {
  begin(SPLITKV_F16, 4, 4, 32, 16);
  test_spec_requests(&spec, 2, 40);
  spec.table = TABLE_IDENTITY;
  if (!open_launch(SPLITKV_ASCEND_EXACT)) return;
  int32_t *table = (int32_t *)(void *)l.batch.table.data;
  const int64_t width = l.batch.problem.table_width, n_pages = l.batch.problem.n_pages;
  const int64_t page_bytes = 16 * 4 * 32 * 2;
  const int32_t kept = table[width + 1];
  table[width + 1] = (int32_t)n_pages;
  CHECK(run(0) == SPLITKV_ERROR_ASCEND_BOUNDS);
  CHECK(report.first.buffer == SPLITKV_ASCEND_K && report.first.request == 1);
  CHECK(report.lowest_outside[SPLITKV_ASCEND_K] == n_pages * page_bytes);
  CHECK(report.lowest_outside[SPLITKV_ASCEND_V] == n_pages * page_bytes);
  table[width + 1] = -1; /* the kernel takes ids as unsigned */
  CHECK(run(0) == SPLITKV_ERROR_ASCEND_BOUNDS);
  CHECK(report.lowest_outside[SPLITKV_ASCEND_K] == (int64_t)UINT32_MAX * page_bytes);
  table[width + 1] = kept;
  CHECK(run(0) == SPLITKV_OK);
  launch_close(&l);
}

/* Where channels are no multiple of 16 and a product has one row, Q is read in whole blocks. */
static void test_q_blocks(void) {
  begin(SPLITKV_F16, 4, 4, 40, 16);
  test_spec_requests(&spec, 1, 20);
  if (!open_launch(SPLITKV_ASCEND_EXACT)) return;
  CHECK(run(0) == SPLITKV_OK);
  CHECK(report.high_water[SPLITKV_ASCEND_Q] == (4 * 40 + 8) * 2);
  launch_close(&l);
}

static void check_same(const splitkv_ascend_report *first, const unsigned char *out,
                       const splitkv_pool *pool) {
  launch_fill(&l, 0x5a);
  (void)launch_run(&l, 0, pool, &report, &error);
  CHECK(memcmp(first, &report, sizeof report) == 0);
  CHECK(memcmp(out, l.memory.data[SPLITKV_ASCEND_OUT], l.memory.bytes[SPLITKV_ASCEND_OUT]) == 0);
}

/* Also with faults, which every group has. */
static void test_pools(void) {
  const splitkv_pool reversed = test_pool_reversed();
  splitkv_threads *threads = NULL;
  CHECK(splitkv_threads_create(2, &threads, NULL) == SPLITKV_OK);
  for (int is_small = 0; is_small < 2; is_small++) {
    begin(SPLITKV_BF16, 16, 2, 64, 32);
    test_spec_requests(&spec, 3, 1100);
    target.rule = SPLITKV_ASCEND_PR683;
    target.n_cores = 4;
    if (!open_launch(SPLITKV_ASCEND_EXACT)) return;
    CHECK(l.info.n_splits > 1);
    if (is_small) l.memory.bytes[SPLITKV_ASCEND_O_CORE] /= 3;
    launch_fill(&l, 0x5a);
    CHECK(run(0) == (is_small ? SPLITKV_ERROR_ASCEND_BOUNDS : SPLITKV_OK));
    const splitkv_ascend_report first = report;
    const size_t bytes = l.memory.bytes[SPLITKV_ASCEND_OUT];
    unsigned char *out = malloc(bytes);
    if (!CHECK(out != NULL)) return;
    memcpy(out, l.memory.data[SPLITKV_ASCEND_OUT], bytes);
    check_same(&first, out, &reversed);
    check_same(&first, out, splitkv_threads_pool(threads));
    free(out);
    launch_close(&l);
  }
  splitkv_threads_destroy(threads);
}

/* ── refusals ───────────────────────────────────────────────────────────────────────────────── */

static void test_allocator(void) {
  track t;
  splitkv_allocator allocator = track_allocator(&t);
  const int64_t n = l.info.n_words, groups = l.info.n_groups;
  CHECK(splitkv_ascend_model_run(l.words, n, groups, &l.memory, 0, NULL, &allocator, NULL, NULL) ==
        SPLITKV_OK);
  CHECK(t.n_allocated == 1 && track_alive(&t) == 0 && t.n_errors == 0);
  t.fail_at = 2;
  CHECK(splitkv_ascend_model_run(l.words, n, groups, &l.memory, 0, NULL, &allocator, NULL, NULL) ==
        SPLITKV_ERROR_OUT_OF_MEMORY);
  allocator.release = NULL;
  CHECK(splitkv_ascend_model_run(l.words, n, groups, &l.memory, 0, NULL, &allocator, NULL, NULL) ==
        SPLITKV_ERROR_ALLOCATOR);
}

static void check_word(int64_t word, uint32_t value, splitkv_status status) {
  const uint32_t kept = l.words[word];
  char field[32];
  (void)snprintf(field, sizeof field, "words[%" PRId64 "]", word);
  l.words[word] = value;
  CHECK_MSG(run(0) == status && strcmp(error.field, field) == 0 && error.value == value,
            "%s = %u: %s", field, (unsigned)value, error.message);
  l.words[word] = kept;
}

static void test_refused_words(void) {
  const int64_t entry = SPLITKV_ASCEND_HEADER_WORDS;
  check_word(WORD_KEY, 128, SPLITKV_ERROR_ASCEND_KEY);
  check_word(WORD_KEY, 2, SPLITKV_ERROR_ASCEND_KEY);
  check_word(WORD_HEADER_WORDS, 43, SPLITKV_ERROR_ASCEND_WORDS);
  check_word(WORD_SPLIT_TOKENS, 0, SPLITKV_ERROR_ASCEND_WORDS);
  check_word(WORD_SPLIT_TOKENS, 17, SPLITKV_ERROR_ASCEND_WORDS);
  check_word(WORD_FORMER_REQUESTS, 3, SPLITKV_ERROR_ASCEND_WORDS);
  check_word(entry + 13, 2, SPLITKV_ERROR_ASCEND_WORDS);
  check_word(entry + 1, UINT32_MAX, SPLITKV_ERROR_ASCEND_WORDS);
}

static void test_refusals(void) {
  begin(SPLITKV_F16, 4, 1, 32, 16);
  test_spec_requests(&spec, 2, 40);
  if (!open_launch(SPLITKV_ASCEND_EXACT)) return;
  const int64_t n = l.info.n_words;
#define RUN(words, n_words, groups, memory, flags, pool)                                           \
  splitkv_ascend_model_run(words, n_words, groups, memory, flags, pool, NULL, NULL, &error)
  CHECK(RUN(NULL, n, 1, &l.memory, 0, NULL) == SPLITKV_ERROR_NULL_POINTER);
  CHECK(RUN((uint32_t *)((uintptr_t)l.words + 1), n, 1, &l.memory, 0, NULL) ==
        SPLITKV_ERROR_TENSOR_ALIGNMENT);
  CHECK(RUN(l.words, n, 1, NULL, 0, NULL) == SPLITKV_ERROR_NULL_POINTER);
  CHECK(RUN(l.words, n, 1, &l.memory, 4, NULL) == SPLITKV_ERROR_FLAGS);
  CHECK(RUN(l.words, n, 0, &l.memory, 0, NULL) == SPLITKV_ERROR_ASCEND_CORES);
  CHECK(RUN(l.words, n, 65536, &l.memory, 0, NULL) == SPLITKV_ERROR_ASCEND_CORES);
  CHECK(RUN(l.words, 60, 1, &l.memory, 0, NULL) == SPLITKV_ERROR_ASCEND_WORDS);
  CHECK(RUN(l.words, n - 1, 1, &l.memory, 0, NULL) == SPLITKV_ERROR_ASCEND_WORDS);
  const splitkv_pool pool = {.struct_size = sizeof pool};
  CHECK(RUN(l.words, n, 1, &l.memory, 0, &pool) == SPLITKV_ERROR_POOL);
  splitkv_ascend_memory memory = l.memory;
  memory.struct_size++;
  CHECK(RUN(l.words, n, 1, &memory, 0, NULL) == SPLITKV_ERROR_STRUCT_SIZE);
  memory = l.memory;
  memory.data[SPLITKV_ASCEND_K] = NULL;
  CHECK(RUN(l.words, n, 1, &memory, 0, NULL) == SPLITKV_ERROR_NULL_POINTER);
  CHECK(error.value == SPLITKV_ASCEND_K && strstr(error.message, "k has") != NULL);
#undef RUN
  test_refused_words();
  test_allocator();
  launch_close(&l);
}

/* With an argument the pull request's case, of 17 billion operations a run, is left out. */
int main(int argc, char **argv) {
  (void)argv;
  if (argc == 1) {
    test_old_sizes();
    test_new_sizes();
    test_scaled_offsets();
  }
  test_mask_by_pointer();
  test_mask();
  test_empty_rows();
  test_page_outside();
  test_q_blocks();
  test_pools();
  test_refusals();
  return check_report("test_model");
}
