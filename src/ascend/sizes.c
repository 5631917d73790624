/* Bytes of the eight scratch buffers.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * EXACT is counted from the words: which group does which tasks, how many tiles each has, and how
 * far the last row that it writes reaches. Groups of the kernel take tasks in turn, so the last
 * group that has one with tokens decides, unless an earlier one reaches as far. */
#include <string.h>

#include "../checked.h"
#include "../error.h"
#include "tiling.h"
#include "words.h"

/* ── words as numbers ───────────────────────────────────────────────────────────────────────── */

typedef struct phase {
  int64_t first, n_requests, n_heads, n_splits;
  int64_t rows; /* per matrix product */
} phase;

typedef struct launch {
  const uint32_t *words;
  int64_t n_requests, n_heads, n_heads_kv, head_dim, head_dim_v, page_tokens, tile_tokens;
  int64_t split_tokens, n_splits;
  int64_t n_groups;
  phase phases[2];
} launch;

static splitkv_status fail_word(splitkv_error *error, const char *field, int64_t value) {
  return spl_fail(error, SPLITKV_ERROR_ASCEND_WORDS, field, value,
                  "%lld: no word of splitkv_ascend_tile", (long long)value);
}

/* Words of splitkv_ascend_tile hold all of this, and the sums below fit in 64 bits. */
static splitkv_status check_words(const uint32_t *words, int64_t n_words, splitkv_error *error) {
  const splitkv_status status = spl_check_pointer(error, "words", words, 1, sizeof *words);
  if (status != SPLITKV_OK) return status;
  if (n_words < SPLITKV_ASCEND_HEADER_WORDS) return fail_word(error, "n_words", n_words);
  const struct {
    const char *field;
    int word;
    uint32_t least, most;
  } ranges[] = {
      {"words[0] (batch)", W_BATCH, 1, INT32_MAX},
      {"words[1] (heads)", W_N_HEADS, 1, INT32_MAX},
      {"words[2] (head_dim)", W_HEAD_DIM, 1, SPLITKV_MAX_HEAD_DIM},
      {"words[4] (page)", W_PAGE_TOKENS, 1, INT32_MAX},
      {"words[7] (KV heads)", W_N_HEADS_KV, 1, INT32_MAX},
      {"words[8] (former requests)", W_FORMER_REQUESTS, 0, words[W_BATCH]},
      {"words[9] (former heads)", W_FORMER_HEADS, 1, INT32_MAX},
      {"words[10] (tail requests)", W_TAIL_REQUESTS, words[W_BATCH] - words[W_FORMER_REQUESTS],
       words[W_BATCH] - words[W_FORMER_REQUESTS]},
      {"words[11] (tail heads)", W_TAIL_HEADS, words[W_TAIL_REQUESTS] > 0, INT32_MAX},
      {"words[17] (header)", W_HEADER_WORDS, SPLITKV_ASCEND_HEADER_WORDS,
       SPLITKV_ASCEND_HEADER_WORDS},
      {"words[18] (entry)", W_REQUEST_WORDS, SPLITKV_ASCEND_REQUEST_WORDS,
       SPLITKV_ASCEND_REQUEST_WORDS},
      {"words[20] (former rows)", W_FORMER_ROWS, 1, SPL_ASCEND_TASK_HEADS},
      {"words[21] (tail rows)", W_TAIL_ROWS, 1, SPL_ASCEND_TASK_HEADS},
      {"words[23] (split tokens)", W_SPLIT_TOKENS, 1, INT32_MAX},
      {"words[24] (splits)", W_N_SPLITS, 1, SPLITKV_ASCEND_MAX_CORES},
      {"words[25] (tile)", W_TILE_TOKENS, 1, INT32_MAX},
      {"words[27] (first entry)", W_FIRST_ENTRY, 0, 0},
      {"words[28] (entries)", W_N_ENTRIES, words[W_BATCH], words[W_BATCH]},
      {"words[29] (head_dim_v)", W_HEAD_DIM_V, 1, SPLITKV_MAX_HEAD_DIM},
  };
  for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
    const uint32_t value = words[ranges[i].word];
    if (value >= ranges[i].least && value <= ranges[i].most) continue;
    return fail_word(error, ranges[i].field, value);
  }
  const int64_t heads = spl_max(words[W_FORMER_HEADS], words[W_TAIL_HEADS]);
  if (heads > SPL_ASCEND_TASK_HEADS) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_TASK_HEADS, "words[9], words[11]", heads,
                    "%lld heads in a task are more than %d", (long long)heads,
                    SPL_ASCEND_TASK_HEADS);
  }
  const int64_t n = words[W_BATCH];
  if (n_words < SPLITKV_ASCEND_HEADER_WORDS + n * SPLITKV_ASCEND_REQUEST_WORDS) {
    return fail_word(error, "n_words", n_words);
  }
  if ((int64_t)words[W_N_HEADS] * words[W_HEAD_DIM] > UINT32_MAX / n) {
    return fail_word(error, "words[1] (heads)", words[W_N_HEADS]);
  }
  const uint32_t *entries = words + SPLITKV_ASCEND_HEADER_WORDS;
  for (int64_t k = 0; k < n; k++, entries += SPLITKV_ASCEND_REQUEST_WORDS) {
    if (entries[E_ORDER] >= n) return fail_word(error, "order of an entry", entries[E_ORDER]);
    if (entries[E_KV_LEN] > INT32_MAX) {
      return fail_word(error, "length of an entry", entries[E_KV_LEN]);
    }
    if (entries[E_L_OFFSET] > INT16_MAX || entries[E_O_CORE_OFFSET] > INT16_MAX) {
      return fail_word(error, "offset of an entry",
                       (int64_t)spl_ascend_offset(entries + E_O_CORE_OFFSET));
    }
  }
  return SPLITKV_OK;
}

static void read_words(const uint32_t *words, int64_t n_cores, launch *l) {
  *l = (launch){.words = words,
                .n_requests = words[W_BATCH],
                .n_heads = words[W_N_HEADS],
                .n_heads_kv = words[W_N_HEADS_KV],
                .head_dim = words[W_HEAD_DIM],
                .head_dim_v = words[W_HEAD_DIM_V],
                .page_tokens = words[W_PAGE_TOKENS],
                .tile_tokens = words[W_TILE_TOKENS],
                .split_tokens = words[W_SPLIT_TOKENS],
                .n_splits = words[W_N_SPLITS]};
  const int64_t former_heads = words[W_FORMER_HEADS];
  l->n_groups =
      spl_min(n_cores, spl_ceil_div(l->n_heads, former_heads) * l->n_requests * l->n_splits);
  l->phases[0] =
      (phase){0, words[W_FORMER_REQUESTS], former_heads, l->n_splits, words[W_FORMER_ROWS]};
  l->phases[1] = (phase){words[W_FORMER_REQUESTS], words[W_TAIL_REQUESTS], words[W_TAIL_HEADS], 1,
                         words[W_TAIL_ROWS]};
}

/* Splits of a request that have tokens. */
static int64_t used_splits(const launch *l, int64_t kv_len) {
  return spl_ceil_div(spl_ceil_div(kv_len, l->page_tokens) * l->page_tokens, l->split_tokens);
}

/* ── how far a group reaches ────────────────────────────────────────────────────────────────── */

/* Elements of S, P and O_tmp that one group touches, from its own first one on. */
typedef struct reach {
  int64_t s, p, o_tmp;
} reach;

static void extend(reach *r, const launch *l, int64_t heads, int64_t rows, int64_t tokens) {
  const int64_t channels = spl_ascend_round16(l->head_dim);
  const int64_t columns = spl_ascend_round16(spl_min(tokens, l->tile_tokens));
  r->s = spl_max(r->s, rows * columns);
  r->p = spl_max(r->p, heads * columns);
  r->o_tmp = spl_max(r->o_tmp, rows * channels);
  if (tokens <= l->tile_tokens) return;
  /* The second tile lies in the second half; later ones are no wider than the first two. */
  const int64_t columns2 = spl_ascend_round16(spl_min(tokens - l->tile_tokens, l->tile_tokens));
  r->s = spl_max(r->s, S_STAGE_ELEMENTS + rows * columns2);
  r->p = spl_max(r->p, P_STAGE_ELEMENTS + heads * columns2);
  r->o_tmp = spl_max(r->o_tmp, O_TMP_STAGE_ELEMENTS + rows * channels);
}

static void extend_by_phase(reach *r, const launch *l, const phase *f, int64_t group) {
  if (f->n_requests == 0) return;
  const int64_t chunks = spl_ceil_div(l->n_heads, f->n_heads);
  const int64_t each = chunks * f->n_splits;
  int64_t rows_at_once = f->rows;
  for (int64_t task = group; task < f->n_requests * each; task += l->n_groups) {
    const uint32_t order = spl_ascend_entry(l->words, f->first + task / each)[E_ORDER];
    const int64_t kv_len = spl_ascend_entry(l->words, order)[E_KV_LEN];
    const int64_t split = task % f->n_splits, chunk = task / f->n_splits % chunks;
    int64_t tokens = kv_len;
    if (f == &l->phases[0]) {
      const int64_t used = used_splits(l, kv_len);
      if (split >= used) continue;
      tokens = split == used - 1 ? kv_len - split * l->split_tokens : l->split_tokens;
    }
    if (kv_len == 0) continue;
    int64_t heads = f->n_heads;
    if (chunk == chunks - 1) {
      heads = l->n_heads - chunk * f->n_heads;
      /* The cube core keeps the smaller number for its later tasks: products of fewer rows, which
       * then no longer divide the heads of a task, so that rows beyond them are written. */
      rows_at_once = spl_min(rows_at_once, heads);
    }
    extend(r, l, heads, spl_ceil_div(heads, rows_at_once) * rows_at_once, tokens);
  }
}

/* Bytes of S, P and O_tmp up to where group `group` reaches. */
typedef struct extent {
  int64_t s, p, o_tmp;
} extent;

static extent bytes_of(int64_t group, const reach *r) {
  return (extent){(group * S_GROUP_ELEMENTS + r->s) * 4, (group * P_GROUP_ELEMENTS + r->p) * 2,
                  (group * O_TMP_GROUP_ELEMENTS + r->o_tmp) * 4};
}

static void count_tiles(const launch *l, splitkv_ascend_sizes *sizes) {
  reach most = {0, 0, 0};
  extend(&most, l, SPL_ASCEND_TASK_HEADS, 2 * SPL_ASCEND_TASK_HEADS, 2 * l->tile_tokens);
  extent all = {0, 0, 0};
  for (int64_t group = l->n_groups - 1; group >= 0; group--) {
    const extent possible = bytes_of(group, &most);
    if (all.s >= possible.s && all.p >= possible.p && all.o_tmp >= possible.o_tmp) break;
    reach r = {0, 0, 0};
    extend_by_phase(&r, l, &l->phases[0], group);
    extend_by_phase(&r, l, &l->phases[1], group);
    if (r.s == 0) continue; /* no task of it has tokens */
    const extent e = bytes_of(group, &r);
    all = (extent){spl_max(all.s, e.s), spl_max(all.p, e.p), spl_max(all.o_tmp, e.o_tmp)};
  }
  sizes->bytes[SPLITKV_ASCEND_S] = (uint64_t)all.s;
  sizes->bytes[SPLITKV_ASCEND_P] = (uint64_t)all.p;
  sizes->bytes[SPLITKV_ASCEND_O_TMP] = (uint64_t)all.o_tmp;
}

/* The last head of each request, and the last split of it that has tokens. */
static bool count_splits(const launch *l, splitkv_ascend_sizes *sizes) {
  int64_t o_core = 0, lse = 0;
  if (l->n_splits == 1) return true;
  for (int64_t r = 0; r < l->n_requests; r++) {
    const uint32_t *entry = spl_ascend_entry(l->words, r);
    if (entry[E_KV_LEN] == 0) continue;
    const int64_t last = (l->n_heads - 1) * l->n_splits + used_splits(l, entry[E_KV_LEN]);
    int64_t end = last * l->head_dim;
    if (!spl_mul_add((int64_t)spl_ascend_offset(entry + E_O_CORE_OFFSET), l->n_splits, &end))
      return false;
    o_core = spl_max(o_core, end);
    lse = spl_max(lse, (int64_t)spl_ascend_offset(entry + E_L_OFFSET) + last);
  }
  if (!spl_mul(o_core, 4, &o_core) || !spl_mul(lse, 4, &lse)) return false;
  sizes->bytes[SPLITKV_ASCEND_O_CORE] = (uint64_t)o_core;
  sizes->bytes[SPLITKV_ASCEND_L] = (uint64_t)lse;
  return true;
}

/* ── what the pull request allocates ────────────────────────────────────────────────────────── */

static bool count_allocated(const launch *l, int64_t n_cores, bool is_after,
                            splitkv_ascend_sizes *sizes) {
  const int64_t tile_floats = n_cores * 65536 * 4;
  /* Rows of all heads: of each split of each request, or of what the rule for splitting was meant
   * to let through. Their rows, and those of 16-bit K and V, of 512 tokens a core. */
  int64_t rows = 0, o_core = 0, k16 = 0, v16 = 0;
  const int64_t states = is_after ? l->n_requests * l->n_splits : n_cores * 8 / 10 * n_cores;
  if (!spl_mul(states, l->n_heads, &rows) || !spl_mul(rows, 4, &rows) ||
      !spl_mul(rows, l->head_dim, &o_core) || !spl_mul(n_cores * 1024, l->n_heads, &k16) ||
      !spl_mul(k16, l->head_dim_v, &v16) || !spl_mul(k16, l->head_dim, &k16)) {
    return false;
  }
  const int64_t bytes[SPLITKV_ASCEND_N_SCRATCH] = {[SPLITKV_ASCEND_S] = tile_floats,
                                                   [SPLITKV_ASCEND_P] = tile_floats / 2,
                                                   [SPLITKV_ASCEND_O_TMP] = 2 * tile_floats,
                                                   [SPLITKV_ASCEND_GO] = tile_floats,
                                                   [SPLITKV_ASCEND_O_CORE] = o_core,
                                                   [SPLITKV_ASCEND_L] = rows,
                                                   [SPLITKV_ASCEND_K16] = k16,
                                                   [SPLITKV_ASCEND_V16] = v16};
  for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; i++) {
    sizes->bytes[i] = (uint64_t)spl_max(16, bytes[i]);
  }
  return true;
}

splitkv_status splitkv_ascend_get_sizes(const uint32_t *words, int64_t n_words, int64_t n_cores,
                                        splitkv_ascend_sizing sizing, splitkv_ascend_sizes *sizes,
                                        splitkv_error *error) {
  if (sizes == NULL) return spl_fail_null(error, "sizes");
  const splitkv_status status = check_words(words, n_words, error);
  if (status != SPLITKV_OK) return status;
  if (n_cores < 1 || n_cores > SPLITKV_ASCEND_MAX_CORES) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_CORES, "n_cores", n_cores, "%lld is outside 1..%d",
                    (long long)n_cores, SPLITKV_ASCEND_MAX_CORES);
  }
  launch l;
  read_words(words, n_cores, &l);
  splitkv_ascend_sizes counted;
  memset(&counted, 0, sizeof counted);
  bool fits = true;
  if ((int)sizing == SPLITKV_ASCEND_EXACT) {
    count_tiles(&l, &counted);
    fits = count_splits(&l, &counted);
  } else if ((int)sizing == SPLITKV_ASCEND_BEFORE || (int)sizing == SPLITKV_ASCEND_AFTER) {
    fits = count_allocated(&l, n_cores, (int)sizing == SPLITKV_ASCEND_AFTER, &counted);
  } else {
    return spl_fail(error, SPLITKV_ERROR_FORMAT, "sizing", (int)sizing, "%d is no sizing",
                    (int)sizing);
  }
  if (!fits) {
    return spl_fail(error, SPLITKV_ERROR_OVERFLOW, "words[1] (heads)", l.n_heads,
                    "with %lld a size does not fit in 64 bits", (long long)l.n_heads);
  }
  *sizes = counted;
  return SPLITKV_OK;
}

/* ── the bound ──────────────────────────────────────────────────────────────────────────────── */

/* Most split slots of a batch of at most max_requests requests: over every number of requests, as
 * fewer requests may be cut into more splits. Only the shorter rule depends on it finely, and holds
 * for fewer requests than there are cores. */
static int64_t most_slots(const spl_ascend_case *c, const splitkv_limits *limits) {
  const int64_t cores = c->target.n_cores, max_kv = limits->max_kv_tokens_per_request;
  const int64_t pages = spl_ceil_div(max_kv, c->problem.page_size_tokens);
  int64_t most = 0;
  if (max_kv >= SPL_ASCEND_LONG_TOKENS * cores && spl_min(cores, pages) > 1) {
    int64_t n = limits->max_requests;
    if (!spl_ascend_may_split_long(c, n)) n = spl_min(n, cores);
    while (n > 0 && !spl_ascend_may_split_long(c, n))
      n--;
    most = n * spl_min(cores, pages);
  }
  for (int64_t n = 1; n <= limits->max_requests && spl_ascend_may_split_short(c, n); n++) {
    const int64_t splits = spl_min(spl_ceil_div(cores, n), pages);
    if (splits > 1) most = spl_max(most, n * splits);
  }
  return most;
}

splitkv_status splitkv_ascend_get_bound(const splitkv_problem *problem,
                                        const splitkv_limits *limits,
                                        const splitkv_ascend_target *target,
                                        splitkv_ascend_sizes *sizes, splitkv_error *error) {
  spl_ascend_case c;
  splitkv_status status = spl_ascend_import(problem, target, &c, error);
  if (status != SPLITKV_OK) return status;
  if (limits == NULL) return spl_fail_null(error, "limits");
  if (sizes == NULL) return spl_fail_null(error, "sizes");
  status = spl_check_struct_size(error, "limits.struct_size", limits->struct_size, sizeof *limits,
                                 sizeof *limits);
  if (status != SPLITKV_OK) return status;
  const struct {
    const char *field;
    int64_t value;
  } counts[] = {{"limits.max_requests", limits->max_requests},
                {"limits.max_kv_tokens_per_request", limits->max_kv_tokens_per_request}};
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
    if (counts[i].value >= 0 && counts[i].value <= INT32_MAX) continue;
    return spl_fail(error, SPLITKV_ERROR_LIMITS, counts[i].field, counts[i].value,
                    "%lld is outside 0..%d", (long long)counts[i].value, INT32_MAX);
  }
  splitkv_ascend_sizes bound;
  memset(&bound, 0, sizeof bound);
  if (limits->max_requests > 0 && limits->max_kv_tokens_per_request > 0) {
    const splitkv_problem *p = &c.problem;
    const int64_t heads = spl_min(p->n_heads_q, SPL_ASCEND_TASK_HEADS);
    /* Rows beyond the heads of a task are written only where all heads share one KV head and do
     * not divide evenly: fewer than as many again. */
    const int64_t rows = p->n_heads_kv == 1 && p->n_heads_q > 1 ? 2 * heads - 2 : heads;
    const launch l = {.head_dim = p->head_dim, .tile_tokens = spl_ascend_tile_tokens(p)};
    reach r = {0, 0, 0};
    extend(&r, &l, heads, rows, limits->max_kv_tokens_per_request);
    const extent e = bytes_of(c.target.n_cores - 1, &r);
    bound.bytes[SPLITKV_ASCEND_S] = (uint64_t)e.s;
    bound.bytes[SPLITKV_ASCEND_P] = (uint64_t)e.p;
    bound.bytes[SPLITKV_ASCEND_O_TMP] = (uint64_t)e.o_tmp;
    int64_t rows_bytes = 0, o_core = 0;
    if (!spl_mul(most_slots(&c, limits), 4 * p->n_heads_q, &rows_bytes) ||
        !spl_mul(rows_bytes, p->head_dim, &o_core)) {
      return spl_fail(error, SPLITKV_ERROR_OVERFLOW, "limits.max_requests", limits->max_requests,
                      "with %lld a size does not fit in 64 bits", (long long)limits->max_requests);
    }
    bound.bytes[SPLITKV_ASCEND_O_CORE] = (uint64_t)o_core;
    bound.bytes[SPLITKV_ASCEND_L] = (uint64_t)rows_bytes;
  }
  *sizes = bound;
  return SPLITKV_OK;
}

const char *splitkv_ascend_buffer_name(splitkv_ascend_buffer buffer) {
  static const char *const names[SPLITKV_ASCEND_N_BUFFERS] = {
      "s", "p", "o_tmp", "go",          "o_core", "l",   "k16",  "v16",
      "q", "k", "v",     "block_table", "mask",   "out", "words"};
  return (int)buffer >= 0 && (int)buffer < SPLITKV_ASCEND_N_BUFFERS ? names[buffer]
                                                                    : "unknown buffer";
}
