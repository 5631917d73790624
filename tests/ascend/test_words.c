/* Tiling words and allocated bytes against what the reference computes: `test_words PR683 GUARDED`,
 * a file of cases for each rule. A case is five lines: its numbers as name=value, kv_lens, result,
 * workspace, words.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <splitkv/ascend.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINE = 1 << 17, MAX_NUMBERS = 1 << 14 };

typedef struct reader {
  FILE *file;
  char line[MAX_LINE];
} reader;

/* The next line that begins with `word`; false at the end of the file. */
static bool next_line(reader *in, const char *word) {
  while (fgets(in->line, sizeof in->line, in->file)) {
    if (strncmp(in->line, word, strlen(word)) == 0 && in->line[strlen(word)] == ' ') return true;
  }
  return false;
}

/* The number behind "name=" in the line; -1 where it is not there. */
static int64_t number(const reader *in, const char *name) {
  char key[64];
  snprintf(key, sizeof key, " %s=", name);
  const char *at = strstr(in->line, key);
  return at ? strtoll(at + strlen(key), NULL, 10) : -1;
}

static int64_t read_numbers(const reader *in, int64_t *numbers) {
  int64_t n = 0;
  char *end = NULL;
  const char *at = strchr(in->line, ' ');
  for (; at && n < MAX_NUMBERS; at = end) {
    const long long value = strtoll(at, &end, 10);
    if (end == at) break;
    numbers[n++] = value;
  }
  return n;
}

static void read_case(const reader *in, splitkv_problem *p, splitkv_ascend_target *target) {
  splitkv_problem_init(p);
  p->n_heads_q = number(in, "num_heads");
  p->n_heads_kv = number(in, "kv_heads");
  p->head_dim = number(in, "head_dim");
  p->head_dim_v = number(in, "head_dim_v");
  p->n_pages = number(in, "num_blocks");
  p->page_size_tokens = number(in, "block_size");
  p->table_width = number(in, "max_blocks_per_query");
  p->dtype_q = strstr(in->line, " dtype=bf16") ? SPLITKV_BF16 : SPLITKV_F16;
  p->dtype_kv = p->dtype_out = p->dtype_q;
  const char *scale = strstr(in->line, " scale=");
  p->scale = (float)strtod(scale + strlen(" scale="), NULL);
  target->n_cores = number(in, "block_dim");
}

static void compare_words(const uint32_t *words, int64_t n, const int64_t *want, int64_t n_want,
                          const char *name) {
  CHECK_MSG(n == n_want, "%s: %lld words instead of %lld", name, (long long)n, (long long)n_want);
  for (int64_t i = 0; i < n && i < n_want; ++i) {
    if (!CHECK_MSG((int64_t)words[i] == want[i], "%s: words[%lld] is %lld instead of %lld", name,
                   (long long)i, (long long)words[i], (long long)want[i]))
      return;
  }
}

static void compare_sizes(const reader *in, const uint32_t *words, int64_t n_words, int64_t n_cores,
                          const char *name) {
  static const char *const names[] = {"s", "p", "o_tmp", "go", "o_core_tmp", "l", "k16", "v16"};
  splitkv_ascend_sizes after, exact;
  if (!CHECK(splitkv_ascend_get_sizes(words, n_words, n_cores, SPLITKV_ASCEND_AFTER, &after,
                                      NULL) == SPLITKV_OK) ||
      !CHECK(splitkv_ascend_get_sizes(words, n_words, n_cores, SPLITKV_ASCEND_EXACT, &exact,
                                      NULL) == SPLITKV_OK))
    return;
  for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; ++i) {
    CHECK_MSG((int64_t)after.bytes[i] == number(in, names[i]), "%s: %s takes %lld instead of %lld",
              name, names[i], (long long)after.bytes[i], (long long)number(in, names[i]));
    CHECK_MSG(exact.bytes[i] <= after.bytes[i], "%s: %s needs %lld but has %lld", name, names[i],
              (long long)exact.bytes[i], (long long)after.bytes[i]);
  }
}

/* One file of 70 cases. */
static void compare_file(const char *path, splitkv_ascend_rule rule) {
  static reader in;
  static int64_t lens[MAX_NUMBERS], want[MAX_NUMBERS];
  static uint32_t words[MAX_NUMBERS];
  in.file = fopen(path, "r");
  if (!CHECK_MSG(in.file != NULL, "%s", path)) return;
  int n_cases = 0;
  for (; next_line(&in, "case"); ++n_cases) {
    splitkv_problem p;
    splitkv_ascend_target target;
    splitkv_ascend_target_init(&target);
    target.rule = rule;
    /* The reference makes words also for what its kernel cannot do. */
    target.flags = SPLITKV_ASCEND_UNCHECKED;
    read_case(&in, &p, &target);
    char name[64];
    snprintf(name, sizeof name, "%.60s", in.line);
    splitkv_batch batch;
    splitkv_batch_init(&batch);
    batch.kv_lens_type = SPLITKV_I64;
    batch.kv_lens = lens;
    if (!CHECK(next_line(&in, "kv_lens"))) break;
    batch.n_requests = read_numbers(&in, lens);
    splitkv_ascend_info info = {.struct_size = sizeof info};
    splitkv_error error;
    const splitkv_status status =
        splitkv_ascend_tile(&p, &batch, &target, words, MAX_NUMBERS, &info, &error);
    if (!CHECK_MSG(status == SPLITKV_OK, "%s: %s", name, error.message)) continue;
    CHECK(next_line(&in, "result"));
    CHECK_MSG(number(&in, "effective_block_dim") == info.n_groups, "%s", name);
    CHECK_MSG(number(&in, "kv_split_core_num") == info.n_splits, "%s", name);
    CHECK(next_line(&in, "workspace"));
    compare_sizes(&in, words, info.n_words, target.n_cores, name);
    CHECK(next_line(&in, "words"));
    const int64_t n_want = read_numbers(&in, want);
    compare_words(words, info.n_words, want, n_want, name);
  }
  (void)fclose(in.file);
  CHECK_MSG(n_cases == 70, "%s: %d cases instead of 70", path, n_cases);
}

/* The borders of the rules' comparisons, by hand; the reference's cases are on none of them. */
static void compare_borders(void) {
  static const struct {
    int64_t n_cores, n, hq, hkv, tokens;
    int64_t n_splits, heads_former, requests_tail;
  } cases[] = {
      {5, 3, 1, 1, 32, 2, 1, 0},     /* 3 < 0.8 x 5: few enough heads to split */
      {5, 4, 1, 1, 32, 1, 1, 0},     /* 4 is not */
      {10, 1, 4, 1, 128, 8, 2, 0},   /* 8 < 0.9 x 10 parts: two cores for each */
      {10, 1, 4, 1, 144, 9, 4, 0},   /* 9 are not */
      {24, 36, 8, 2, 100, 1, 8, 12}, /* 12 requests are left, half of the cores */
      {24, 37, 8, 2, 100, 1, 8, 0},  /* 13 are too many */
      {24, 37, 8, 8, 100, 1, 8, 13}, /* but not for MHA */
      {24, 39, 8, 1, 100, 1, 8, 15}, /* and MQA */
      {24, 40, 8, 1, 100, 1, 8, 0},  /* 16 tasks are too many for all */
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    static int64_t lens[64];
    for (int r = 0; r < 64; ++r)
      lens[r] = cases[i].tokens;
    splitkv_problem p;
    splitkv_problem_init(&p);
    p.n_heads_q = cases[i].hq;
    p.n_heads_kv = cases[i].hkv;
    p.head_dim = p.head_dim_v = 64;
    p.page_size_tokens = 16;
    p.n_pages = p.table_width = 1000;
    p.dtype_q = p.dtype_kv = p.dtype_out = SPLITKV_F16;
    splitkv_batch batch;
    splitkv_batch_init(&batch);
    batch.kv_lens_type = SPLITKV_I64;
    batch.kv_lens = lens;
    batch.n_requests = cases[i].n;
    splitkv_ascend_target target;
    splitkv_ascend_target_init(&target);
    target.n_cores = cases[i].n_cores;
    splitkv_ascend_info info = {.struct_size = sizeof info};
    CHECK(splitkv_ascend_tile(&p, &batch, &target, NULL, 0, &info, NULL) == SPLITKV_OK);
    CHECK_MSG(info.n_splits == cases[i].n_splits &&
                  info.heads_per_task_former == cases[i].heads_former &&
                  info.n_requests_tail == cases[i].requests_tail,
              "border %zu: %lld splits, %lld heads, tail of %lld", i, (long long)info.n_splits,
              (long long)info.heads_per_task_former, (long long)info.n_requests_tail);
  }
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  compare_borders();
  compare_file(argv[1], SPLITKV_ASCEND_PR683);
  compare_file(argv[2], SPLITKV_ASCEND_GUARDED);
  return check_report("words");
}
