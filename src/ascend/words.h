/* Tiling words: where each stands, and the constants of the kernel that reads them. The facts come
 * from reading the kernel and replaying every address it computes; docs/ascend.md has the table.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_ASCEND_WORDS_H
#define SPL_ASCEND_WORDS_H

#include <splitkv/ascend.h>

#include <stdbool.h>

/* Header words. Those without a name are 0 and not read. */
enum {
  W_BATCH = 0,
  W_N_HEADS = 1,
  W_HEAD_DIM = 2, /* channels; the kernel takes it for V and out too */
  W_N_PAGES = 3,  /* not read */
  W_PAGE_TOKENS = 4,
  W_TABLE_WIDTH = 5,
  W_SCALE = 6, /* bits of an f32 */
  W_N_HEADS_KV = 7,
  W_FORMER_REQUESTS = 8,
  W_FORMER_HEADS = 9, /* heads per task */
  W_TAIL_REQUESTS = 10,
  W_TAIL_HEADS = 11,
  W_HEADS_MOVED = 12, /* MHA: heads per K or V copy, 1 or 2 */
  W_MASK_LENGTH = 13, /* elements of a mask row; 0: no mask */
  W_MASK_STRIDE_REQUEST = 14,
  W_MASK_STRIDE_HEAD = 15,
  W_KEY = 16,
  W_HEADER_WORDS = 17,
  W_REQUEST_WORDS = 18,
  W_GROUP = 19,       /* query heads per KV head, rounded down */
  W_FORMER_ROWS = 20, /* query rows per matrix product */
  W_TAIL_ROWS = 21,
  W_MAX_KV_LEN = 22,   /* not read */
  W_SPLIT_TOKENS = 23, /* tokens per split, a multiple of the page */
  W_N_SPLITS = 24,
  W_TILE_TOKENS = 25,
  W_FIRST_ENTRY = 27,
  W_N_ENTRIES = 28,  /* of the combine */
  W_HEAD_DIM_V = 29, /* not used */
  W_MASK_MODULUS = 30,
  W_MASK_DIVISOR = 31,
  W_N_HEADS_ORIGINAL = 32,
  W_SCALE_TYPE = 36, /* 2: the scale is multiplied by a factor per request */
  W_EMBED_K = 38,    /* 38 to 41: channels per step of K and V; not read */
  W_EMBED_V = 39,
  W_EMBED_V2 = 40,
  W_EMBED_V3 = 41
};

/* Words of a request's entry. Offsets are in elements, upper half first. */
enum {
  E_Q_LEN = 0,
  E_KV_LEN = 1,
  E_ROWS_TILE = 2,   /* not read; 16 */
  E_PAGE_TOKENS = 3, /* not read */
  E_Q_OFFSET = 4,
  E_OUT_OFFSET = 6,
  E_REQUEST = 8, /* row of the block table */
  E_MASK_OFFSET_HI = 10,
  E_L_OFFSET = 11, /* already times the number of splits */
  E_ORDER = 13,    /* entry k: index of the entry that is processed k-th */
  E_MASK_OFFSET_LO = 14,
  E_O_CORE_OFFSET = 15 /* not times the number of splits: the kernel multiplies */
};

static inline const uint32_t *spl_ascend_entry(const uint32_t *words, int64_t index) {
  return words + SPLITKV_ASCEND_HEADER_WORDS + index * SPLITKV_ASCEND_REQUEST_WORDS;
}
static inline uint64_t spl_ascend_offset(const uint32_t *halves) {
  return (uint64_t)halves[0] << 32 | halves[1];
}

/* Keys that the kernel knows; with any other it does nothing. */
enum { KEY_F16 = 0, KEY_BF16 = 1, KEY_SPLIT_F16 = 16, KEY_SPLIT_BF16 = 17 };
static inline bool spl_ascend_knows_key(uint32_t key) {
  return key == KEY_F16 || key == KEY_BF16 || key == KEY_SPLIT_F16 || key == KEY_SPLIT_BF16;
}
/* Bits of a key. */
enum { KEY_BIT_SPLIT = 16, KEY_BIT_SPLIT_PAGE = 128 };

/* Scratch of one group, in elements, and where the second of two tiles in flight begins. */
enum {
  S_GROUP_ELEMENTS = 32768,
  S_STAGE_ELEMENTS = 16384,
  P_GROUP_ELEMENTS = 65536,
  P_STAGE_ELEMENTS = 32768,
  O_TMP_GROUP_ELEMENTS = 65536,
  O_TMP_STAGE_ELEMENTS = 32768
};

#endif
