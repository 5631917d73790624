/* Problem + lengths + cores → tiling words.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The rules are those of the host program of pull request 683 and of the library that it was ported
 * from, as facts: docs/ascend.md. Comparisons with 0.8 and 0.9 are in double, as there. */
#include "tiling.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../batch.h"
#include "../checked.h"
#include "../error.h"
#include "../problem.h"
#include "words.h"

#define SPLIT_RATIO 0.8
#define SPLIT_HEADS_RATIO 0.9

/* ── the decisions ──────────────────────────────────────────────────────────────────────────── */

static int64_t group_of(const splitkv_problem *p) {
  return p->n_heads_q / p->n_heads_kv;
}

static bool is_latent(const splitkv_problem *p) {
  return p->head_dim > 256 || p->head_dim_v > 256 || p->head_dim != p->head_dim_v;
}

/* Head dimensions and pages for which the kernel's library has a path of its own. */
static bool splits_pages(const splitkv_problem *p) {
  return p->page_size_tokens >= 128 && p->head_dim == 256 && p->head_dim_v == 256;
}

bool spl_ascend_may_split_long(const spl_ascend_case *c, int64_t n_requests) {
  return !is_latent(&c->problem) && (c->target.rule == SPLITKV_ASCEND_PR683 ||
                                     (double)n_requests <= SPLIT_RATIO * (double)c->target.n_cores);
}

bool spl_ascend_may_split_short(const spl_ascend_case *c, int64_t n_requests) {
  return !is_latent(&c->problem) &&
         (double)(n_requests * c->problem.n_heads_q) < SPLIT_RATIO * (double)c->target.n_cores;
}

int64_t spl_ascend_tile_tokens(const splitkv_problem *p) {
  const int64_t page = p->page_size_tokens, d = spl_min(p->head_dim, 256);
  const int64_t dv = spl_min(p->head_dim_v, 256);
  if (page <= 64 && 2 * page * spl_max(d, dv) <= 16384) return 2 * page;
  return splits_pages(p) ? 128 : page;
}

int64_t spl_ascend_rows(const splitkv_problem *p, int64_t n_heads) {
  const int64_t group = group_of(p);
  if (n_heads == 0) return 1;
  if (n_heads % group == 0) return group;
  if (n_heads < group && (p->n_heads_kv == 1 || group % n_heads == 0)) return n_heads;
  return 1;
}

/* Whole sequences: requests and heads are shared out over the cores. */
static void share_heads(const spl_ascend_case *c, splitkv_ascend_info *t) {
  const splitkv_problem *p = &c->problem;
  const int64_t n = c->n_requests, cores = c->target.n_cores, hq = p->n_heads_q;
  int64_t heads = spl_min(spl_ceil_div(hq, spl_ceil_div(cores, n)), SPL_ASCEND_TASK_HEADS);
  if (n == 16 && hq == 32) heads = 8; /* a case that the rule names */
  const int64_t tasks_each = spl_ceil_div(hq, heads), n_tasks = tasks_each * n;
  t->n_splits = 1;
  t->split_tokens = spl_ceil_div(c->max_kv_len, p->page_size_tokens) * p->page_size_tokens;
  t->heads_per_task_former = heads;
  t->n_requests_former = n;
  t->n_groups = spl_min(cores, n_tasks);
  if (n_tasks <= cores) return;
  /* What is left after the full rounds may be cut finer. */
  const int64_t former = n_tasks / cores * cores / tasks_each, tail = n - former;
  const bool is_grouped = hq != p->n_heads_kv && p->n_heads_kv != 1;
  if (tail == 0 || tail * tasks_each >= 16 || (is_grouped && tail > cores / 2)) return;
  t->n_requests_former = former;
  t->n_requests_tail = tail;
  t->heads_per_task_tail =
      spl_min(spl_ceil_div(hq, spl_ceil_div(cores, tail)), SPL_ASCEND_TASK_HEADS);
}

/* Sequences are cut, and shared out together with requests and heads. */
static void share_splits(const spl_ascend_case *c, bool is_long, splitkv_ascend_info *t) {
  const splitkv_problem *p = &c->problem;
  const int64_t n = c->n_requests, cores = c->target.n_cores, hq = p->n_heads_q;
  const int64_t pages = spl_max(1, spl_ceil_div(c->max_kv_len, p->page_size_tokens));
  const int64_t pages_each = spl_ceil_div(pages, is_long ? cores : spl_ceil_div(cores, n));
  t->n_splits = spl_ceil_div(pages, pages_each);
  t->split_tokens = pages_each * p->page_size_tokens;
  const int64_t parts = n * t->n_splits;
  const bool has_room = (double)parts < SPLIT_HEADS_RATIO * (double)cores;
  const int64_t cores_each = has_room ? spl_ceil_div(cores, parts) : 1;
  t->heads_per_task_former = spl_min(spl_ceil_div(hq, cores_each), SPL_ASCEND_TASK_HEADS);
  t->n_requests_former = n;
  t->n_groups = spl_min(cores, spl_ceil_div(hq, t->heads_per_task_former) * parts);
}

static void decide(const spl_ascend_case *c, splitkv_ascend_info *t) {
  const splitkv_problem *p = &c->problem;
  *t = (splitkv_ascend_info){.struct_size = sizeof *t};
  const bool is_long = c->max_kv_len >= SPL_ASCEND_LONG_TOKENS * c->target.n_cores &&
                       spl_ascend_may_split_long(c, c->n_requests);
  if (is_long || spl_ascend_may_split_short(c, c->n_requests)) {
    share_splits(c, is_long, t);
  } else {
    share_heads(c, t);
  }
  t->n_words = SPLITKV_ASCEND_HEADER_WORDS + SPLITKV_ASCEND_REQUEST_WORDS * c->n_requests;
  t->tile_tokens = spl_ascend_tile_tokens(p);
  t->key = (p->dtype_q == SPLITKV_BF16) + (t->n_splits > 1 ? KEY_BIT_SPLIT : 0) +
           (splits_pages(p) ? KEY_BIT_SPLIT_PAGE : 0);
  t->n_tasks =
      t->n_requests_former * spl_ceil_div(p->n_heads_q, t->heads_per_task_former) * t->n_splits;
  if (t->n_requests_tail > 0) {
    t->n_tasks += t->n_requests_tail * spl_ceil_div(p->n_heads_q, t->heads_per_task_tail);
  }
}

/* ── what the kernel can do ─────────────────────────────────────────────────────────────────── */

/* One number that must not be above its limit. */
typedef struct limit {
  splitkv_status status;
  const char *field;
  int64_t field_value; /* of that field */
  int64_t value, most;
  const char *what; /* the value, in words */
} limit;

enum { MAX_LIMITS = 8 };

/* Fills limits[0 .. MAX_LIMITS) and returns how many there are. Tasks have at most 32 heads by the
 * rules above; with that, the first two cover every other buffer on the chip. */
static int list_limits(const spl_ascend_case *c, const splitkv_ascend_info *t, limit *limits) {
  const splitkv_problem *p = &c->problem;
  const int64_t page = p->page_size_tokens, n = c->n_requests, cores = c->target.n_cores;
  const int64_t d16 = spl_ascend_round16(p->head_dim), n16 = spl_ascend_round16(t->tile_tokens);
  const int64_t heads16 =
      spl_ascend_round16(spl_max(t->heads_per_task_former, t->heads_per_task_tail));
  const int64_t splits = t->n_splits > 1 ? t->n_splits : 0;
  const int64_t rows = c->n_nonempty * p->n_heads_q * splits;
  const limit all[] = {
      {SPLITKV_ERROR_ASCEND_TILE, "problem.page_size_tokens", page, n16 * d16, 32768,
       "tile tokens x head_dim"},
      {SPLITKV_ERROR_ASCEND_TILE, "problem.page_size_tokens", page, heads16 * n16, 16384,
       "heads of a task (in sixteens) x tile tokens"},
      {SPLITKV_ERROR_ASCEND_SPLITS, "target.n_cores", cores, splits, 64, "splits"},
      {SPLITKV_ERROR_ASCEND_COMBINE, "target.n_cores", cores, splits * ((p->head_dim + 7) / 8 * 8),
       8192, "splits x head_dim"},
      {SPLITKV_ERROR_ASCEND_OFFSET, "batch.n_requests", n, rows * p->head_dim, UINT32_MAX,
       "elements of o_core"},
      {SPLITKV_ERROR_ASCEND_OFFSET, "batch.n_requests", n, t->n_tasks, UINT32_MAX, "tasks"},
      {SPLITKV_ERROR_ASCEND_OFFSET, "batch.n_requests", n, n * p->table_width, UINT32_MAX,
       "entries of the block table"},
  };
  enum { N = sizeof all / sizeof all[0] };
  _Static_assert((int)N <= (int)MAX_LIMITS, "room for all limits");
  memcpy(limits, all, sizeof all);
  return N;
}

/* The first limit that is passed; false where the kernel can do it. */
static bool find_broken_limit(const spl_ascend_case *c, const splitkv_ascend_info *t,
                              limit *broken) {
  limit limits[MAX_LIMITS];
  const int n = list_limits(c, t, limits);
  for (int i = 0; i < n; i++) {
    if (limits[i].value > limits[i].most) {
      *broken = limits[i];
      return true;
    }
  }
  return false;
}

static bool is_possible(const spl_ascend_case *c) {
  splitkv_ascend_info t;
  limit broken;
  decide(c, &t);
  return !splits_pages(&c->problem) && !find_broken_limit(c, &t, &broken);
}

/* A change of one number that makes the case possible; false where there is none. */
static bool find_change(const spl_ascend_case *c, const char **field, int64_t *value) {
  spl_ascend_case other = *c;
  *field = "target.n_cores";
  for (*value = spl_min(c->target.n_cores - 1, 64); *value >= 1; --*value) {
    other.target.n_cores = *value;
    if (is_possible(&other)) return true;
  }
  other = *c;
  *field = "problem.page_size_tokens";
  for (*value = 512; *value >= 16; *value /= 2) {
    other.problem.page_size_tokens = *value;
    if (*value < c->problem.page_size_tokens && is_possible(&other)) return true;
  }
  return false;
}

/* What would do instead: another rule, fewer cores or smaller pages, "" where none of them would.
 */
static void advise(const spl_ascend_case *c, char *advice, size_t capacity) {
  const char *field = NULL;
  int64_t value = 0;
  spl_ascend_case guarded = *c;
  guarded.target.rule = SPLITKV_ASCEND_GUARDED;
  if (is_possible(&guarded)) {
    (void)snprintf(advice, capacity, "; the rule GUARDED would do");
  } else if (find_change(c, &field, &value)) {
    (void)snprintf(advice, capacity, "; %s=%lld would do", field, (long long)value);
  } else if (find_change(&guarded, &field, &value)) {
    (void)snprintf(advice, capacity, "; %s=%lld and GUARDED would do", field, (long long)value);
  } else {
    advice[0] = '\0';
  }
}

static splitkv_status check_limits(const spl_ascend_case *c, const splitkv_ascend_info *t,
                                   splitkv_error *error) {
  char advice[80];
  limit broken;
  if (splits_pages(&c->problem)) {
    advise(c, advice, sizeof advice);
    const int64_t page = c->problem.page_size_tokens;
    return spl_fail(error, SPLITKV_ERROR_ASCEND_KEY, "problem.page_size_tokens", page,
                    "%lld with head_dim 256 is key %lld, at which the kernel does nothing%s",
                    (long long)page, (long long)t->key, advice);
  }
  if (!find_broken_limit(c, t, &broken)) return SPLITKV_OK;
  advise(c, advice, sizeof advice);
  return spl_fail(error, broken.status, broken.field, broken.field_value,
                  "%lld gives %lld %s, the kernel takes %lld%s", (long long)broken.field_value,
                  (long long)broken.value, broken.what, (long long)broken.most, advice);
}

/* ── problem and target ─────────────────────────────────────────────────────────────────────── */

static splitkv_status check_target(const splitkv_ascend_target *target, splitkv_error *error) {
  if (target == NULL) return spl_fail_null(error, "target");
  const splitkv_status status = spl_check_struct_size(
      error, "target.struct_size", target->struct_size, sizeof *target, sizeof *target);
  if (status != SPLITKV_OK) return status;
  if (target->n_cores < 1 || target->n_cores > SPLITKV_ASCEND_MAX_CORES) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_CORES, "target.n_cores", target->n_cores,
                    "%lld is outside 1..%d", (long long)target->n_cores, SPLITKV_ASCEND_MAX_CORES);
  }
  if ((int)target->rule != SPLITKV_ASCEND_GUARDED && (int)target->rule != SPLITKV_ASCEND_PR683) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_RULE, "target.rule", (int)target->rule,
                    "%d is no rule", (int)target->rule);
  }
  const uint32_t known = SPLITKV_ASCEND_UNCHECKED | SPLITKV_ASCEND_SCALED_OFFSETS;
  if ((target->flags & ~known) != 0) {
    return spl_fail(error, SPLITKV_ERROR_FLAGS, "target.flags", target->flags,
                    "0x%x has bits that this library does not know", (unsigned)target->flags);
  }
  return SPLITKV_OK;
}

/* Numbers that stand in one word each. */
static splitkv_status check_word_sizes(const splitkv_problem *p, splitkv_error *error) {
  const struct {
    const char *field;
    int64_t value;
  } words[] = {{"problem.n_heads_q", p->n_heads_q * p->head_dim},
               {"problem.n_pages", p->n_pages},
               {"problem.page_size_tokens", p->page_size_tokens},
               {"problem.table_width", p->table_width}};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
    if (words[i].value <= INT32_MAX) continue;
    return spl_fail(error, SPLITKV_ERROR_ASCEND_OFFSET, words[i].field,
                    i == 0 ? p->n_heads_q : words[i].value,
                    "%lld does not fit in a word of 32 bits",
                    (long long)(i == 0 ? p->n_heads_q : words[i].value));
  }
  return SPLITKV_OK;
}

static splitkv_status check_form(const splitkv_problem *p, splitkv_error *error) {
  if (p->dtype_q == SPLITKV_F32 || p->dtype_kv != p->dtype_q || p->dtype_out != p->dtype_q) {
    const bool is_kv = p->dtype_q != SPLITKV_F32 && p->dtype_kv != p->dtype_q;
    const bool is_out = p->dtype_q != SPLITKV_F32 && !is_kv;
    const int64_t dtype = (int)(is_kv ? p->dtype_kv : is_out ? p->dtype_out : p->dtype_q);
    static const char *const names[] = {"f32",      "f16",      "bf16", "int8",
                                        "fp8_e4m3", "fp8_e5m2", "int4"};
    return spl_fail(error, SPLITKV_ERROR_ASCEND_DTYPE,
                    is_kv    ? "problem.dtype_kv"
                    : is_out ? "problem.dtype_out"
                             : "problem.dtype_q",
                    dtype, "%lld (%s): q, KV and out must all be f16 or all be bf16",
                    (long long)dtype, names[dtype]);
  }
  const int64_t row = p->n_heads_q * p->head_dim, out_row = p->n_heads_q * p->head_dim_v;
  const struct {
    const char *field;
    int64_t value, plain;
  } strides[] = {{"problem.q_stride_request", p->q_stride_request, row},
                 {"problem.q_stride_head", p->q_stride_head, p->head_dim},
                 {"problem.out_stride_request", p->out_stride_request, out_row},
                 {"problem.out_stride_head", p->out_stride_head, p->head_dim_v},
                 {"problem.layout", (int)p->layout, SPLITKV_LAYOUT_NHD}};
  for (size_t i = 0; i < sizeof strides / sizeof strides[0]; i++) {
    if (strides[i].value == 0 || strides[i].value == strides[i].plain) continue;
    return spl_fail(error, SPLITKV_ERROR_ASCEND_LAYOUT, strides[i].field, strides[i].value,
                    "%lld: must be %lld, contiguous rows and [pages, page, heads, channels]",
                    (long long)strides[i].value, (long long)strides[i].plain);
  }
  if (p->table_format != SPLITKV_TABLE_DENSE || p->table_type != SPLITKV_I32) {
    const bool is_csr = p->table_format != SPLITKV_TABLE_DENSE;
    return spl_fail(error, SPLITKV_ERROR_ASCEND_TABLE,
                    is_csr ? "problem.table_format" : "problem.table_type", 1,
                    "1: the block table must be dense and its ids int32");
  }
  if (p->split_policy != SPLITKV_SPLIT_AUTO) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_POLICY, "problem.split_policy",
                    (int)p->split_policy, "%d: must be AUTO (0), the target's rule decides",
                    (int)p->split_policy);
  }
  return SPLITKV_OK;
}

/* The kernel computes plain attention and no other. */
static splitkv_status check_variant(const splitkv_problem *p, splitkv_error *error) {
  const uint32_t flags = p->flags & (SPLITKV_FLAG_SINKS | SPLITKV_FLAG_ALIBI | SPLITKV_FLAG_CAUSAL);
  const struct {
    const char *field;
    int64_t value;
    double number;
  } variants[] = {
      {"problem.window_tokens", p->window_tokens, (double)p->window_tokens},
      {"problem.logit_softcap", 0, (double)p->logit_softcap},
      {"problem.window_right_tokens", p->window_right_tokens, (double)p->window_right_tokens},
      {"problem.chunk_tokens", p->chunk_tokens, (double)p->chunk_tokens},
      {"problem.tree_tokens", p->tree_tokens, (double)p->tree_tokens},
      {"problem.flags", flags, (double)flags}};
  for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
    if (variants[i].number == 0) continue;
    return spl_fail(error, SPLITKV_ERROR_ASCEND_VARIANT, variants[i].field, variants[i].value,
                    "%.17g asks for a variant; the kernel has no window, soft-cap, sinks or ALiBi",
                    variants[i].number);
  }
  return SPLITKV_OK;
}

splitkv_status spl_ascend_import(const splitkv_problem *problem,
                                 const splitkv_ascend_target *target, spl_ascend_case *c,
                                 splitkv_error *error) {
  splitkv_status status = spl_import_problem(problem, &c->problem, error);
  if (status != SPLITKV_OK) return status;
  status = check_target(target, error);
  if (status != SPLITKV_OK) return status;
  c->target = *target;
  /* The CPU's kernels do not matter here. */
  c->problem.isa = SPLITKV_ISA_AUTO;
  c->problem.arithmetic = SPLITKV_ARITHMETIC_F32;
  splitkv_problem described = c->problem;
  /* Where head dimensions differ, that is refused below, and not that scale 0 means nothing then.
   */
  if (described.scale == 0 && (target->flags & SPLITKV_ASCEND_UNCHECKED) == 0) described.scale = 1;
  status = splitkv_describe(&described, error);
  if (status != SPLITKV_OK) return status;
  status = check_form(&c->problem, error);
  if (status != SPLITKV_OK) return status;
  status = check_variant(&c->problem, error);
  if (status != SPLITKV_OK) return status;
  status = check_word_sizes(&c->problem, error);
  if (status != SPLITKV_OK || (target->flags & SPLITKV_ASCEND_UNCHECKED) != 0) return status;
  const splitkv_problem *p = &c->problem;
  if (p->head_dim != p->head_dim_v) {
    return spl_fail(
        error, SPLITKV_ERROR_ASCEND_HEAD_DIMS, "problem.head_dim_v", p->head_dim_v,
        "%lld differs from head_dim %lld: the kernel would stride V and out by head_dim",
        (long long)p->head_dim_v, (long long)p->head_dim);
  }
  if (p->head_dim > 256) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_HEAD_DIM, "problem.head_dim", p->head_dim,
                    "%lld is above 256", (long long)p->head_dim);
  }
  return SPLITKV_OK;
}

/* ── the batch ──────────────────────────────────────────────────────────────────────────────── */

static splitkv_status measure(const splitkv_batch *batch, spl_ascend_case *c,
                              splitkv_error *error) {
  splitkv_batch full;
  const splitkv_status status = spl_import_batch(batch, &full, error);
  if (status != SPLITKV_OK) return status;
  if (full.q_offsets != NULL) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_VARIANT, "batch.q_offsets", 0,
                    "is given, but the kernel takes one query row of each request");
  }
  if (batch->n_requests < 1 || batch->n_requests > INT32_MAX) {
    return spl_fail(error, SPLITKV_ERROR_N_REQUESTS, "batch.n_requests", batch->n_requests,
                    "%lld is outside 1..%d", (long long)batch->n_requests, INT32_MAX);
  }
  const splitkv_problem *p = &c->problem;
  if (p->n_heads_q * p->head_dim > UINT32_MAX / batch->n_requests) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_OFFSET, "batch.n_requests", batch->n_requests,
                    "%lld requests of %lld elements: the kernel's offsets of q have 32 bits",
                    (long long)batch->n_requests, (long long)(p->n_heads_q * p->head_dim));
  }
  const int64_t most = spl_table_row_tokens(p);
  c->n_requests = batch->n_requests;
  c->n_nonempty = 0;
  c->max_kv_len = 0;
  for (int64_t r = 0; r < batch->n_requests; r++) {
    const int64_t length = spl_kv_len(batch, r);
    if (length < 0 || length > most) return spl_fail_kv_len(error, r, length, most);
    c->n_nonempty += length > 0;
    c->max_kv_len = spl_max(c->max_kv_len, length);
  }
  if (c->max_kv_len > INT32_MAX - p->page_size_tokens) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_OFFSET, "batch.kv_lens", c->max_kv_len,
                    "%lld tokens do not fit in a word of 32 bits", (long long)c->max_kv_len);
  }
  if (c->n_nonempty == 0 && (c->target.flags & SPLITKV_ASCEND_UNCHECKED) == 0) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_EMPTY, "batch.kv_lens", 0,
                    "all lengths are 0: write zeros to out instead of a launch");
  }
  return SPLITKV_OK;
}

/* ── the words ──────────────────────────────────────────────────────────────────────────────── */

static uint32_t scale_bits(const splitkv_problem *p) {
  const float scale = p->scale != 0 ? p->scale : (float)(1.0 / sqrt((double)p->head_dim));
  uint32_t bits = 0;
  memcpy(&bits, &scale, sizeof bits);
  return bits;
}

static void write_header(const spl_ascend_case *c, const splitkv_ascend_info *t, uint32_t *words) {
  const splitkv_problem *p = &c->problem;
  const bool is_small = p->head_dim <= 128 && p->head_dim_v <= 128;
  const bool is_whole = p->head_dim % 16 == 0 && p->head_dim_v % 16 == 0;
  const struct {
    int word;
    int64_t value;
  } header[] = {
      {W_BATCH, c->n_requests},
      {W_N_HEADS, p->n_heads_q},
      {W_HEAD_DIM, p->head_dim},
      {W_N_PAGES, p->n_pages},
      {W_PAGE_TOKENS, p->page_size_tokens},
      {W_TABLE_WIDTH, p->table_width},
      {W_SCALE, scale_bits(p)},
      {W_N_HEADS_KV, p->n_heads_kv},
      {W_FORMER_REQUESTS, t->n_requests_former},
      {W_FORMER_HEADS, t->heads_per_task_former},
      {W_TAIL_REQUESTS, t->n_requests_tail},
      {W_TAIL_HEADS, t->heads_per_task_tail},
      {W_HEADS_MOVED, p->n_heads_kv == p->n_heads_q && is_small && is_whole ? 2 : 1},
      {W_KEY, t->key},
      {W_HEADER_WORDS, SPLITKV_ASCEND_HEADER_WORDS},
      {W_REQUEST_WORDS, SPLITKV_ASCEND_REQUEST_WORDS},
      {W_GROUP, group_of(p)},
      {W_FORMER_ROWS, spl_ascend_rows(p, t->heads_per_task_former)},
      {W_TAIL_ROWS, spl_ascend_rows(p, t->heads_per_task_tail)},
      {W_MAX_KV_LEN, c->max_kv_len},
      {W_SPLIT_TOKENS, t->split_tokens},
      {W_N_SPLITS, t->n_splits},
      {W_TILE_TOKENS, t->tile_tokens},
      {W_N_ENTRIES, c->n_requests},
      {W_HEAD_DIM_V, p->head_dim_v},
      {W_MASK_MODULUS, UINT32_MAX},
      {W_MASK_DIVISOR, 1},
      {W_N_HEADS_ORIGINAL, p->n_heads_q},
      {W_EMBED_K, spl_min(p->head_dim, 256)},
      {W_EMBED_V, spl_min(p->head_dim_v, 256)},
      /* For products of up to 64 rows: tasks have 32 heads at most. */
      {W_EMBED_V2, spl_min(p->head_dim_v, 256)},
      {W_EMBED_V3, spl_min(p->head_dim_v, 256)},
  };
  memset(words, 0, SPLITKV_ASCEND_HEADER_WORDS * sizeof *words);
  for (size_t i = 0; i < sizeof header / sizeof header[0]; i++) {
    words[header[i].word] = (uint32_t)header[i].value;
  }
}

static void write_offset(uint32_t *words, int64_t offset) {
  words[0] = (uint32_t)(offset >> 32);
  words[1] = (uint32_t)offset;
}

static void write_entries(const spl_ascend_case *c, const splitkv_ascend_info *t,
                          const splitkv_batch *batch, uint32_t *entries) {
  const splitkv_problem *p = &c->problem;
  const bool scaled = (c->target.flags & SPLITKV_ASCEND_SCALED_OFFSETS) != 0;
  const int64_t q_row = p->n_heads_q * p->head_dim, out_row = p->n_heads_q * p->head_dim_v;
  const int64_t l_row = p->n_heads_q * t->n_splits, o_row = scaled ? q_row * t->n_splits : q_row;
  int64_t rank = 0; /* among the requests with tokens */
  for (int64_t r = 0; r < c->n_requests; r++) {
    uint32_t *entry = entries + r * SPLITKV_ASCEND_REQUEST_WORDS;
    const int64_t length = spl_kv_len(batch, r);
    memset(entry, 0, SPLITKV_ASCEND_REQUEST_WORDS * sizeof *entry);
    entry[E_Q_LEN] = 1;
    entry[E_KV_LEN] = (uint32_t)length;
    entry[E_ROWS_TILE] = 16;
    entry[E_PAGE_TOKENS] = (uint32_t)p->page_size_tokens;
    entry[E_REQUEST] = (uint32_t)r;
    write_offset(entry + E_Q_OFFSET, r * q_row);
    write_offset(entry + E_OUT_OFFSET, r * out_row);
    if (length == 0) continue;
    write_offset(entry + E_L_OFFSET, rank * l_row);
    write_offset(entry + E_O_CORE_OFFSET, rank * o_row);
    rank++;
  }
}

/* ── the order: shortest first, equal lengths as they come ──────────────────────────────────── */

static uint32_t *order_of(uint32_t *entries, int64_t k) {
  return entries + k * SPLITKV_ASCEND_REQUEST_WORDS + E_ORDER;
}

static bool goes_after(const uint32_t *entries, uint32_t a, uint32_t b) {
  const uint32_t length_a = entries[(size_t)a * SPLITKV_ASCEND_REQUEST_WORDS + E_KV_LEN];
  const uint32_t length_b = entries[(size_t)b * SPLITKV_ASCEND_REQUEST_WORDS + E_KV_LEN];
  return length_a != length_b ? length_a > length_b : a > b;
}

static void sift_down(uint32_t *entries, int64_t root, int64_t n) {
  for (int64_t child = 2 * root + 1; child < n; root = child, child = 2 * root + 1) {
    if (child + 1 < n &&
        goes_after(entries, *order_of(entries, child + 1), *order_of(entries, child)))
      child++;
    uint32_t *above = order_of(entries, root), *below = order_of(entries, child);
    if (!goes_after(entries, *below, *above)) return;
    const uint32_t swapped = *above;
    *above = *below;
    *below = swapped;
  }
}

/* Heap sort in the words themselves: no memory beside them, and no input that it is slow for. The
 * index breaks ties, which makes it stable. */
static void write_order(uint32_t *entries, int64_t n) {
  bool is_sorted = true;
  for (int64_t k = 0; k < n; k++) {
    *order_of(entries, k) = (uint32_t)k;
    is_sorted = is_sorted && (k == 0 || goes_after(entries, (uint32_t)k, (uint32_t)(k - 1)));
  }
  if (is_sorted) return;
  for (int64_t root = n / 2; root-- > 0;)
    sift_down(entries, root, n);
  for (int64_t end = n - 1; end > 0; end--) {
    uint32_t *first = order_of(entries, 0), *last = order_of(entries, end);
    const uint32_t longest = *first;
    *first = *last;
    *last = longest;
    sift_down(entries, 0, end);
  }
}

splitkv_status splitkv_ascend_tile(const splitkv_problem *problem, const splitkv_batch *batch,
                                   const splitkv_ascend_target *target, uint32_t *words,
                                   int64_t n_words, splitkv_ascend_info *info,
                                   splitkv_error *error) {
  spl_ascend_case c;
  splitkv_ascend_info t;
  splitkv_status status = spl_ascend_import(problem, target, &c, error);
  if (status != SPLITKV_OK) return status;
  status = measure(batch, &c, error);
  if (status != SPLITKV_OK) return status;
  decide(&c, &t);
  if ((c.target.flags & SPLITKV_ASCEND_UNCHECKED) == 0) {
    status = check_limits(&c, &t, error);
    if (status != SPLITKV_OK) return status;
  }
  if (info != NULL) {
    status = spl_check_struct_size(error, "info.struct_size", info->struct_size, sizeof *info,
                                   sizeof *info);
    if (status != SPLITKV_OK) return status;
  }
  status = spl_check_pointer(error, "words", words, n_words != 0, sizeof *words);
  if (status != SPLITKV_OK) return status;
  if (words != NULL && n_words < t.n_words) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_WORDS, "n_words", n_words, "%lld is less than %lld",
                    (long long)n_words, (long long)t.n_words);
  }
  if (words != NULL) {
    uint32_t *entries = words + SPLITKV_ASCEND_HEADER_WORDS;
    write_header(&c, &t, words);
    write_entries(&c, &t, batch, entries);
    write_order(entries, c.n_requests);
  }
  if (info != NULL) spl_export(info, &t, info->struct_size);
  return SPLITKV_OK;
}
