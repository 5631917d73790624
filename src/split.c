/* The split policies.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "split.h"

#include "checked.h"
#include "rows.h"

/* floor(i * n / count) for 0 <= i <= count, without the product. */
static int64_t share(int64_t n, int64_t count, int64_t i) {
  return n / count * i + n % count * i / count;
}

int64_t spl_n_pieces(const splitkv_problem *problem, int64_t kv_len) {
  if (kv_len == 0) return 0;
  switch (problem->split_policy) {
  case SPLITKV_SPLIT_FIXED_SIZE:
    return spl_ceil_div(kv_len, problem->split_value);
  case SPLITKV_SPLIT_FIXED_COUNT:
    return spl_min(problem->split_value, kv_len);
  default:
    return 1;
  }
}

/* First token of piece i of kv_len tokens; i == spl_n_pieces gives kv_len. */
static int64_t piece_start(const splitkv_problem *problem, int64_t kv_len, int64_t i) {
  const int64_t n = spl_n_pieces(problem, kv_len);
  if (i >= n) return kv_len;
  if (problem->split_policy == SPLITKV_SPLIT_FIXED_SIZE) return i * problem->split_value;
  return share(kv_len, n, i);
}

int64_t spl_piece_at(const splitkv_problem *problem, int64_t kv_len, int64_t token) {
  if (problem->split_policy == SPLITKV_SPLIT_FIXED_SIZE) return token / problem->split_value;
  /* Pieces are `shorter` tokens long or one more, which leaves few places to look at. */
  const int64_t n = spl_n_pieces(problem, kv_len);
  if (n == 1) return 0;
  const int64_t shorter = kv_len / n;
  int64_t low = token / (shorter + 1), high = spl_min(n, token / shorter + 1);
  while (high - low > 1) { /* start(low) <= token < start(high) */
    const int64_t middle = low + (high - low) / 2;
    if (share(kv_len, n, middle) <= token) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

int64_t spl_piece_end(const splitkv_problem *problem, int64_t kv_len, int64_t token) {
  return piece_start(problem, kv_len, spl_piece_at(problem, kv_len, token) + 1);
}

int64_t spl_longest_piece(const splitkv_problem *problem, int64_t kv_len) {
  switch (problem->split_policy) {
  case SPLITKV_SPLIT_FIXED_SIZE:
    return spl_min(kv_len, problem->split_value);
  case SPLITKV_SPLIT_FIXED_COUNT:
    return kv_len == 0 ? 0 : spl_ceil_div(kv_len, spl_n_pieces(problem, kv_len));
  default:
    return kv_len;
  }
}

int64_t spl_longest_piece_in(const splitkv_problem *problem, int64_t kv_len, int64_t first,
                             int64_t end) {
  if (first == end) return 0;
  if (problem->split_policy != SPLITKV_SPLIT_FIXED_COUNT) {
    return spl_min(end - first, spl_longest_piece(problem, kv_len));
  }
  const int64_t n = spl_n_pieces(problem, kv_len), shorter = kv_len / n;
  const int64_t i = spl_piece_at(problem, kv_len, first);
  const int64_t j = end == kv_len ? n : spl_piece_at(problem, kv_len, end);
  return end - first > (j - i) * shorter ? shorter + 1 : shorter;
}

int64_t spl_slotted_before(const splitkv_problem *problem, int64_t kv_len, bool all, int64_t head,
                           int64_t token) {
  const int64_t n = spl_n_pieces(problem, kv_len);
  if (n < 2 && !all) return 0;
  return head * n + (token == 0 ? 0 : spl_piece_at(problem, kv_len, token));
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

/* The same where the rule cuts: the border of pieces nearest to `cost` into the item. */
static int64_t cut_token_rule(const splitkv_problem *problem, int64_t kv_len, int64_t cost) {
  const int64_t n = spl_n_pieces(problem, kv_len);
  if (n < 2) return cost < kv_len + SPL_PIECE_COST - cost ? 0 : kv_len;
  /* The first `low` pieces cost at most `cost`, the first `high` more: all but the last piece cost
   * `least`, or that or 1 more. */
  const bool by_size = problem->split_policy == SPLITKV_SPLIT_FIXED_SIZE;
  const int64_t least = (by_size ? problem->split_value : kv_len / n) + SPL_PIECE_COST;
  const int64_t most = least + (!by_size && kv_len % n > 0);
  int64_t low = spl_min(n - 1, cost / most), high = spl_min(n, cost / least + 1);
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (piece_start(problem, kv_len, middle) + middle * SPL_PIECE_COST <= cost) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const int64_t start = piece_start(problem, kv_len, low);
  const int64_t end = piece_start(problem, kv_len, high);
  const int64_t before = start + low * SPL_PIECE_COST, after = end + high * SPL_PIECE_COST;
  return cost - before < after - cost ? start : end;
}

spl_place spl_cut(const splitkv_problem *problem, int64_t block, int64_t kv_len, int64_t cost,
                  int64_t slack) {
  int64_t each = 0;
  (void)item_cost(kv_len, spl_n_pieces(problem, kv_len), &each); /* fits: the block's cost did */
  spl_place place = {block, cost / each, 0};
  if (place.head >= problem->n_heads_kv) return (spl_place){block + 1, 0, 0};
  if (problem->split_policy == SPLITKV_SPLIT_AUTO) {
    place.token = cut_token_auto(kv_len, spl_min(cost % each, kv_len), slack);
  } else {
    place.token = cut_token_rule(problem, kv_len, cost % each);
  }
  if (kv_len == 0 || place.token < kv_len) return place;
  /* The end of an item is the start of the next one. */
  place.token = 0;
  place.head++;
  if (place.head == problem->n_heads_kv) return (spl_place){block + 1, 0, 0};
  return place;
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

bool spl_slot_bound(const splitkv_problem *problem, const splitkv_limits *limits,
                    int64_t *n_slots) {
  const int64_t longest = spl_min(limits->max_kv_tokens_per_request, limits->max_kv_tokens_total);
  const int64_t rows = limits->max_q_rows_per_request;
  const bool by_size = problem->split_policy == SPLITKV_SPLIT_FIXED_SIZE;
  int64_t n = 0;
  *n_slots = 0;
  if (limits->max_requests == 0 || rows == 0) return true;
  switch (problem->split_policy) {
  case SPLITKV_SPLIT_AUTO: /* each of workers - 1 cuts ends one piece and starts another */
    n = 2 * (limits->max_workers - 1) * spl_min(rows, spl_block_rows(problem));
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
