/* Where KV is cut: pure functions of the problem, the lengths and the policy.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Work lies in one line: blocks of query rows ascending, in each its KV heads, in each its tokens.
 * A piece is a contiguous range of tokens of one (block, KV head); a task is a contiguous range of
 * pieces. In a level block the heads lie abreast, and a cut goes through all of them at one token:
 * where rows of KV hold all heads of a token, each task then reads whole rows. */
#ifndef SPL_SPLIT_H
#define SPL_SPLIT_H

#include <stdbool.h>

#include "checked.h"
#include "problem.h"

/* Tokens that AUTO's cuts are multiples of, and the least that a cut leaves on either side. */
#define SPL_CUT_TOKENS 64
/* What a piece costs beside its tokens, in tokens. */
#define SPL_PIECE_COST 16
/* Tokens that level cuts are multiples of, and the least that one leaves on either side: fewer, as
 * they count for all KV heads. And the tokens of all heads that a task should have at least: a cut
 * is off by less than SPL_LEVEL_GRID, 3 % of them. */
#define SPL_LEVEL_GRID 16
#define SPL_LEVEL_TOKENS 512

/* A place in the line: before token `token` of KV head `head` of block `block`; of a level block,
 * of all its heads, with head 0. */
typedef struct spl_place {
  int64_t block, head, token;
} spl_place;

/* Pieces that the policy cuts kv_len tokens into by rule: 0 for 0 tokens, 1 for AUTO and NONE (AUTO
 * cuts by tasks instead). */
static inline int64_t spl_n_pieces(const splitkv_problem *problem, int64_t kv_len) {
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

/* The piece that holds `token`, 0 <= token < kv_len, by rule alone. */
int64_t spl_piece_at(const splitkv_problem *problem, int64_t kv_len, int64_t token);

/* End of the piece that starts at `token`, by rule alone. */
int64_t spl_piece_end(const splitkv_problem *problem, int64_t kv_len, int64_t token);

/* Most tokens of one piece of kv_len tokens, by rule alone; grows with kv_len. */
static inline int64_t spl_longest_piece(const splitkv_problem *problem, int64_t kv_len) {
  switch (problem->split_policy) {
  case SPLITKV_SPLIT_FIXED_SIZE:
    return spl_min(kv_len, problem->split_value);
  case SPLITKV_SPLIT_FIXED_COUNT:
    return kv_len == 0 ? 0 : spl_ceil_div(kv_len, spl_n_pieces(problem, kv_len));
  default:
    return kv_len;
  }
}

/* The same of the pieces in [first, end), which are borders of pieces. */
int64_t spl_longest_piece_in(const splitkv_problem *problem, int64_t kv_len, int64_t first,
                             int64_t end);

/* Cost of all KV heads of one block, in tokens of a block of one row; n_pieces: spl_n_pieces,
 * weight: spl_block_weight. */
bool spl_block_cost(const splitkv_problem *problem, int64_t kv_len, int64_t n_pieces,
                    int64_t weight, int64_t *cost);

/* The place nearest to `cost` / weight tokens into block `block` that the policy can cut at, and to
 * *n_before the pieces by rule that its block has before it. AUTO takes the end of an item that is
 * at most `slack` tokens away instead of cutting the item. */
void spl_cut(const splitkv_problem *problem, int64_t block, int64_t kv_len, int64_t cost,
             int64_t slack, spl_place *cut, int64_t *n_before);

/* The same in a level block, which AUTO alone has. */
void spl_cut_level(const splitkv_problem *problem, int64_t block, int64_t kv_len, int64_t cost,
                   int64_t slack, spl_place *cut);

/* Whether AUTO cuts blocks level that can be: where a task of this cost has at least
 * SPL_LEVEL_TOKENS of all KV heads. */
bool spl_cuts_level(const splitkv_problem *problem, int64_t task_cost);

/* How many tasks work of this cost is worth, at most n_workers. */
int64_t spl_n_tasks(const spl_shape *shape, int64_t total_cost, int64_t n_workers);

/* Most partial slots that any batch within the limits needs, in closed form; false on overflow. The
 * limits are of tokens attended to, and their counts of query rows are filled in. */
bool spl_slot_bound(const splitkv_problem *problem, const splitkv_limits *limits, bool can_be_level,
                    int64_t *n_slots);

#endif
