/* The split policies.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "split.h"

#include "checked.h"
#include "rows.h"

/* Pieces by rule of more than 0 tokens: piece i < n begins at i * each + floor(i * rest / n). A
 * rest that happens to be 0 has no shorter way: planning one token later should take as long. */
typedef struct piece_rule {
  int64_t n, each, rest;
  bool by_size; /* rest is always 0 */
} piece_rule;

static piece_rule rule_of(const splitkv_problem *problem, int64_t kv_len) {
  const int64_t n = spl_n_pieces(problem, kv_len);
  if (problem->split_policy == SPLITKV_SPLIT_FIXED_SIZE)
    return (piece_rule){n, problem->split_value, 0, true};
  return (piece_rule){n, kv_len / n, kv_len % n, false};
}

/* First token of piece i of kv_len tokens; i == n gives kv_len. */
static int64_t piece_start(const piece_rule *rule, int64_t kv_len, int64_t i) {
  if (i >= rule->n) return kv_len;
  return i * rule->each + (rule->by_size ? 0 : i * rule->rest / rule->n);
}

static int64_t piece_at(const piece_rule *rule, int64_t token) {
  if (rule->n == 1) return 0;
  if (rule->by_size) return token / rule->each;
  /* Pieces are `each` tokens long or one more, which leaves few places to look at. */
  int64_t low = token / (rule->each + 1), high = spl_min(rule->n, token / rule->each + 1);
  while (high - low > 1) { /* start(low) <= token < start(high) */
    const int64_t middle = low + (high - low) / 2;
    if (piece_start(rule, INT64_MAX, middle) <= token) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

int64_t spl_piece_at(const splitkv_problem *problem, int64_t kv_len, int64_t token) {
  const piece_rule rule = rule_of(problem, kv_len);
  return piece_at(&rule, token);
}

int64_t spl_piece_end(const splitkv_problem *problem, int64_t kv_len, int64_t token) {
  const piece_rule rule = rule_of(problem, kv_len);
  return piece_start(&rule, kv_len, piece_at(&rule, token) + 1);
}

int64_t spl_longest_piece_in(const splitkv_problem *problem, int64_t kv_len, int64_t first,
                             int64_t end) {
  if (first == end) return 0;
  if (problem->split_policy != SPLITKV_SPLIT_FIXED_COUNT) {
    return spl_min(end - first, spl_longest_piece(problem, kv_len));
  }
  const piece_rule rule = rule_of(problem, kv_len);
  const int64_t i = piece_at(&rule, first);
  const int64_t j = end == kv_len ? rule.n : piece_at(&rule, end);
  return end - first > (j - i) * rule.each ? rule.each + 1 : rule.each;
}

/* Cost of one (block, KV head) per weight: its tokens, and a share for each piece; an empty row
 * counts as one. */
static bool item_cost(int64_t kv_len, int64_t n_pieces, int64_t *cost) {
  *cost = kv_len;
  return spl_mul_add(spl_max(n_pieces, 1), SPL_PIECE_COST, cost);
}

bool spl_block_cost(const splitkv_problem *problem, int64_t kv_len, int64_t n_pieces,
                    int64_t weight, int64_t *cost) {
  int64_t item = 0;
  return item_cost(kv_len, n_pieces, &item) && spl_mul(item, problem->n_heads_kv * weight, cost);
}

/* The token in 0 .. kv_len nearest to `token` that AUTO may cut at, or an end within `slack`. */
static int64_t cut_token_auto(int64_t kv_len, int64_t token, int64_t slack) {
  if (spl_min(token, kv_len - token) <= slack) return token < kv_len - token ? 0 : kv_len;
  const int64_t near = (token + SPL_CUT_TOKENS / 2) / SPL_CUT_TOKENS * SPL_CUT_TOKENS;
  if (near < SPL_CUT_TOKENS) return 0;
  if (near > kv_len - SPL_CUT_TOKENS) return token < kv_len / 2 ? 0 : kv_len;
  return near;
}

/* The same where the rule cuts: the border of pieces nearest to `cost` into the item, and to *piece
 * the number of the one that begins there. */
static int64_t cut_token_rule(const splitkv_problem *problem, int64_t kv_len, int64_t cost,
                              int64_t *piece) {
  *piece = 0;
  if (kv_len == 0 || spl_n_pieces(problem, kv_len) < 2)
    return cost < kv_len + SPL_PIECE_COST - cost ? 0 : kv_len;
  /* The first `low` pieces cost at most `cost`, the first `high` more: all but the last piece cost
   * `least`, or that or 1 more. */
  const piece_rule rule = rule_of(problem, kv_len);
  const int64_t least = rule.each + SPL_PIECE_COST, n_least = cost / least;
  int64_t low = spl_min(rule.n - 1, rule.by_size ? n_least : cost / (least + (rule.rest > 0)));
  int64_t high = spl_min(rule.n, n_least + 1);
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (piece_start(&rule, kv_len, middle) + middle * SPL_PIECE_COST <= cost) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const int64_t start = piece_start(&rule, kv_len, low), end = piece_start(&rule, kv_len, high);
  const int64_t before = start + low * SPL_PIECE_COST, after = end + high * SPL_PIECE_COST;
  *piece = cost - before < after - cost ? low : high;
  return *piece == low ? start : end;
}

void spl_cut(const splitkv_problem *problem, int64_t block, int64_t kv_len, int64_t cost,
             int64_t slack, spl_place *cut, int64_t *n_before) {
  const int64_t n_pieces = spl_n_pieces(problem, kv_len);
  int64_t each = 0, token = 0, piece = 0;
  (void)item_cost(kv_len, n_pieces, &each); /* fits: the block's cost did */
  int64_t head = cost / each;
  if (head < problem->n_heads_kv) {
    token = problem->split_policy == SPLITKV_SPLIT_AUTO
                ? cut_token_auto(kv_len, spl_min(cost % each, kv_len), slack)
                : cut_token_rule(problem, kv_len, cost % each, &piece);
    if (kv_len > 0 && token == kv_len) { /* the end of an item is the start of the next one */
      token = piece = 0;
      head++;
    }
  }
  const bool is_behind = head >= problem->n_heads_kv;
  cut->block = is_behind ? block + 1 : block;
  cut->head = is_behind ? 0 : head;
  cut->token = is_behind ? 0 : token;
  *n_before = is_behind ? 0 : head * n_pieces + piece;
}

/* The token in 0 .. kv_len nearest to `token` that all heads may be cut at, or an end within
 * `slack`. */
static int64_t cut_token_level(int64_t kv_len, int64_t token, int64_t slack) {
  const int64_t left = kv_len - token, last = (kv_len / SPL_LEVEL_GRID - 1) * SPL_LEVEL_GRID;
  if (spl_min(token, left) <= slack || last < SPL_LEVEL_GRID) return token <= left ? 0 : kv_len;
  const int64_t near = (token + SPL_LEVEL_GRID / 2) / SPL_LEVEL_GRID * SPL_LEVEL_GRID;
  if (near <= last) return near;
  return left < token - last ? kv_len : last;
}

void spl_cut_level(const splitkv_problem *problem, int64_t block, int64_t kv_len, int64_t cost,
                   int64_t slack, spl_place *cut) {
  const int64_t n = problem->n_heads_kv;
  const int64_t token = cut_token_level(kv_len, spl_min(cost / n, kv_len), slack / n);
  const bool is_behind = kv_len > 0 && token == kv_len;
  cut->block = is_behind ? block + 1 : block;
  cut->head = 0;
  cut->token = is_behind ? 0 : token;
}

bool spl_cuts_level(const splitkv_problem *problem, int64_t task_cost) {
  return problem->split_policy == SPLITKV_SPLIT_AUTO && problem->n_heads_kv > 1 &&
         task_cost / problem->n_heads_kv >= SPL_LEVEL_TOKENS;
}

int64_t spl_n_tasks(const spl_shape *shape, int64_t total_cost, int64_t n_workers) {
  /* A task should be worth waking a thread for: some microseconds, which is about 64 KiB of reading
   * or a million multiply-adds. */
  const splitkv_problem *p = &shape->problem;
  const int64_t channels = p->head_dim + p->head_dim_v;
  const int64_t by_bytes = 65536 / spl_kv_bytes(shape, channels);
  const int64_t by_flops = 1000000 / channels / shape->group;
  const int64_t least = spl_max(SPL_CUT_TOKENS, spl_min(by_bytes, by_flops));
  return spl_max(1, spl_min(n_workers, total_cost / least));
}

/* Requests longer than `size`, each cut into ceil(len/size): k of them make at most
 * floor((total - k) / size) + k pieces, which grows with k. */
static int64_t fixed_size_bound(const splitkv_limits *limits, int64_t size) {
  const int64_t total = limits->max_kv_tokens_total;
  if (limits->max_kv_tokens_per_request <= size || total <= size) return 0;
  const int64_t k = spl_min(limits->max_requests, total / (size + 1));
  const int64_t by_total = (total - k) / size + k;
  int64_t by_requests = 0;
  const int64_t each = spl_ceil_div(limits->max_kv_tokens_per_request, size);
  return spl_mul(limits->max_requests, each, &by_requests) ? spl_min(by_total, by_requests)
                                                           : by_total;
}

/* Requests of two tokens or more, each cut into at most min(count, len). */
static int64_t fixed_count_bound(const splitkv_limits *limits, int64_t count) {
  const int64_t longest = spl_min(limits->max_kv_tokens_per_request, limits->max_kv_tokens_total);
  const int64_t each = spl_min(count, longest);
  if (each < 2) return 0;
  int64_t all = 0;
  if (!spl_mul(limits->max_requests, each, &all)) return limits->max_kv_tokens_total;
  return spl_min(all, limits->max_kv_tokens_total);
}

/* Pieces that a row of kv_len tokens makes; 0 where it is not cut. */
static int64_t pieces_if_cut(const splitkv_problem *problem, int64_t kv_len) {
  const int64_t n = spl_n_pieces(problem, kv_len);
  return n > 1 ? n : 0;
}

/* Most slots of AUTO's cuts: each of workers - 1 ends one piece and starts another, of all query
 * rows of a block or, in a level block, of all KV heads; tasks of level blocks have a least size.
 */
static int64_t auto_bound(const splitkv_problem *problem, const splitkv_limits *limits,
                          bool can_be_level) {
  const int64_t rows = limits->max_q_rows_per_request, workers = limits->max_workers;
  const int64_t n = 2 * (workers - 1) * spl_min(rows, spl_block_rows(problem));
  if (!can_be_level || !spl_cuts_level(problem, INT64_MAX)) return n;
  int64_t tokens = limits->max_kv_tokens_total;
  if (rows > 1 || limits->max_prefix_rows > 0 ||
      !spl_mul_add(limits->max_requests, SPL_PIECE_COST, &tokens))
    tokens = INT64_MAX; /* whose blocks may weigh more */
  const int64_t tasks = spl_max(1, spl_min(workers, tokens / SPL_LEVEL_TOKENS));
  return spl_max(n, 2 * (tasks - 1) * problem->n_heads_kv);
}

bool spl_slot_bound(const splitkv_problem *problem, const splitkv_limits *limits, bool can_be_level,
                    int64_t *n_slots) {
  const int64_t longest = spl_min(limits->max_kv_tokens_per_request, limits->max_kv_tokens_total);
  const int64_t rows = limits->max_q_rows_per_request;
  const bool by_size = problem->split_policy == SPLITKV_SPLIT_FIXED_SIZE;
  int64_t n = 0;
  *n_slots = 0;
  if (limits->max_requests == 0 || rows == 0) return true;
  switch (problem->split_policy) {
  case SPLITKV_SPLIT_AUTO:
    n = auto_bound(problem, limits, can_be_level);
    if (longest <= SPL_CUT_TOKENS) return true;
    if (!spl_prefix_slots(problem, limits->max_prefix_rows, limits->max_workers, n_slots))
      return false;
    return longest < 2 * SPL_CUT_TOKENS || spl_add(*n_slots, n, n_slots);
  case SPLITKV_SPLIT_FIXED_SIZE:
  case SPLITKV_SPLIT_FIXED_COUNT:
    if (rows == 1) {
      n = by_size ? fixed_size_bound(limits, problem->split_value)
                  : fixed_count_bound(limits, problem->split_value);
    } else if (!spl_mul(limits->max_q_rows_total, pieces_if_cut(problem, longest), &n)) {
      return false;
    }
    return spl_mul(n, problem->n_heads_kv, n_slots);
  default:
    return true;
  }
}
