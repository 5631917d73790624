/* Fuzz target: the problem grammar on any text.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * What it accepts is in range and comes back the same from its own text; what it refuses comes with
 * a sentence. */
#include "problem_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition, const char *what) {
  if (condition) {
    return;
  }
  fprintf(stderr, "tool_text: not so: %s\n", what);
  abort();
}

/* Parses and completes. Returns 0 and leaves nothing allocated when the text is refused. */
static int read_text(problem_spec *spec, const char *text) {
  text_error error = {{0}};
  problem_spec_init(spec);
  if (problem_spec_parse(spec, text, &error) || problem_spec_complete(spec, 3, &error)) {
    require(error.message[0] != 0, "a refusal has a message");
    require(memchr(error.message, 0, sizeof error.message) != NULL, "the message has an end");
    problem_spec_free(spec);
    return 0;
  }
  return 1;
}

static void check_ranges(const problem_spec *s) {
  require(s->b >= 0 && s->b <= (1 << 24), "b is in range");
  require(s->hq >= 1 && s->hkv >= 1 && s->page >= 1, "counts are positive");
  require(s->d >= 1 && s->d <= SPLITKV_MAX_HEAD_DIM, "d is in range");
  require(s->dv >= 1 && s->dv <= SPLITKV_MAX_HEAD_DIM, "dv is in range");
  require(s->threads >= 1 && s->threads <= SPLITKV_MAX_WORKERS, "threads is in range");
  require((float)s->scale != 0 && s->scale - s->scale == 0, "scale is finite and not 0");
  require(s->kv.low >= 0 && s->kv.low <= s->kv.high, "lengths are in range");
  require(s->q.low >= 0 && s->q.low <= s->q.high, "query rows are in range");
  require(!s->mla || s->dv <= s->d, "V is inside K");
  int is_fixed = s->split == SPLITKV_SPLIT_FIXED_SIZE || s->split == SPLITKV_SPLIT_FIXED_COUNT;
  require(is_fixed ? s->split_value >= 1 : s->split_value == 0, "split has the value it needs");
}

static void check_lengths(const problem_spec *s) {
  if (s->b > 4096) {
    return; /* nothing new, only slower */
  }
  int64_t *lengths = problem_spec_lengths(s), *rows = problem_spec_q_rows(s);
  require(lengths != NULL && rows != NULL, "there is memory for a few lengths");
  for (int64_t r = 0; r < s->b; r++) {
    int is_in_range =
        s->kv.kind == COUNTS_LIST || (lengths[r] >= s->kv.low && lengths[r] <= s->kv.high);
    require(lengths[r] >= 0 && is_in_range, "each length is in its range");
    is_in_range = s->q.kind == COUNTS_LIST || (rows[r] >= s->q.low && rows[r] <= s->q.high);
    require(rows[r] >= 0 && is_in_range, "each number of rows is in its range");
  }
  free(rows);
  free(lengths);
}

static void check_round_trip(const problem_spec *s) {
  char *text = problem_spec_format(s, 0);
  require(text != NULL, "there is memory for a text");
  problem_spec again;
  require(read_text(&again, text), "what format wrote is read");
  char *text_again = problem_spec_format(&again, 0);
  require(text_again != NULL && strcmp(text, text_again) == 0, "it is the same problem");
  free(text);
  free(text_again);
  problem_spec_free(&again);
}

/* The words given, over the defaults, are the problem. */
static void check_override(const problem_spec *s) {
  problem_spec base;
  text_error error;
  problem_spec_init(&base);
  require(problem_spec_override(&base, s) == 0, "there is memory to override");
  require(problem_spec_complete(&base, 3, &error) == 0, "an override is complete as well");
  char *text = problem_spec_format(s, 0), *same = problem_spec_format(&base, 0);
  require(text != NULL && same != NULL && strcmp(text, same) == 0, "overriding defaults is giving");
  free(text);
  free(same);
  problem_spec_free(&base);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *text = malloc(size + 1);
  if (text == NULL) {
    return 0;
  }
  memcpy(text, data, size);
  text[size] = '\0';
  problem_spec spec;
  if (read_text(&spec, text)) {
    check_ranges(&spec);
    check_lengths(&spec);
    check_round_trip(&spec);
    check_override(&spec);
    problem_spec_free(&spec);
  }
  free(text);
  return 0;
}
