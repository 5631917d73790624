/* Appending: K and V of new tokens go into the paged cache, converted or quantised to its dtype.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 *   splitkv_append(problem, args, pool, error)
 *
 * stores row t of k_new and v_new at slot_mapping[t], in the dtype, the layout and the scale modes
 * that the problem says, K rotated before where a rotary embedding is given. What run reads
 * afterwards is what append wrote; docs/append.md shows both together, and docs/numerics.md has
 * each operation.
 *
 * Everything is checked before the first byte is written: on an error nothing is touched. Rows go
 * where the mapping says and nowhere else. Nothing is allocated. The bits that are written depend
 * on the arguments alone: not on the kernel set, the pool or its threads. */
#ifndef SPLITKV_APPEND_H
#define SPLITKV_APPEND_H

#include <splitkv/splitkv.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Which channels of K a rotation turns against each other, with i = 0 .. rotary_dim / 2 - 1:
 *   first  = first * cos[position][i] - second * sin[position][i]
 *   second = second * cos[position][i] + first * sin[position][i] */
typedef enum splitkv_rotary_style {
  SPLITKV_ROTARY_HALF_SPLIT = 0, /* channels i and i + rotary_dim / 2 (NeoX, Llama) */
  SPLITKV_ROTARY_INTERLEAVED = 1 /* channels 2 i and 2 i + 1 (GPT-J) */
} splitkv_rotary_style;

/* args.flags. Scales of modes TOKEN, GROUP32 and GROUP64 are computed from the new rows and stored
 * beside them, and the zero points where the problem has them; else those that lie there are used.
 */
#define SPLITKV_APPEND_COMPUTE_K_SCALES 1u
#define SPLITKV_APPEND_COMPUTE_V_SCALES 2u

/* New tokens and where they go. The caller owns everything; nothing is kept. Tensors are aligned to
 * their element. Caches, scales and zero points that are written must not overlap what is read, nor
 * each other. */
typedef struct splitkv_append_args {
  size_t struct_size;
  int64_t n_tokens; /* >= 0 */

  /* [n_tokens, n_heads_kv, head_dim] and [.., head_dim_v] of dtype_new, channels adjacent. Strides
   * in elements, >= 0; 0: contiguous. v_new is NULL where V aliases K (MLA): only K is stored. */
  const void *k_new, *v_new;
  int64_t k_new_stride_token, k_new_stride_head;
  int64_t v_new_stride_token, v_new_stride_head;
  splitkv_dtype dtype_new; /* F32, F16 or BF16 */

  /* [n_tokens]: slot = page * page_size_tokens + place in the page. -1: this token is not stored.
   * A slot that two tokens of one call name holds either of them, or parts of both. */
  splitkv_index_type slot_type;
  const void *slot_mapping;

  /* The caches: what splitkv_tensors has, writable. v is NULL or k where v_new is NULL. */
  void *k, *v;
  /* In the shapes of the problem's scale modes, of dtype_scales; NULL with SCALE_NONE. Zero points
   * in the same shapes with SPLITKV_FLAG_ZERO_POINTS, else NULL. Written only where they are
   * computed, and only those of tokens that are stored. NULL for V where v_new is NULL. */
  void *k_scales, *v_scales;
  int8_t *k_zeros, *v_zeros;

  /* Rotary embedding of K. 0: none, and the tables and positions are NULL. Else even, at most
   * head_dim: the channels from rotary_dim on stay as they are. */
  int64_t rotary_dim;
  splitkv_rotary_style rotary_style;
  splitkv_index_type position_type; /* of positions */
  const float *cos, *sin;           /* [n_positions, rotary_dim / 2] */
  /* Floats between positions, of both tables; 0: contiguous. One table of [cos | sin] has sin = cos
   * + rotary_dim / 2 and a stride of rotary_dim. */
  int64_t rotary_stride;
  int64_t n_positions;
  const void *positions; /* [n_tokens], 0 .. n_positions-1; anything where the slot is -1 */

  uint32_t flags;    /* SPLITKV_APPEND_* */
  uint32_t reserved; /* 0 */
} splitkv_append_args;

/* Zeroes *args and sets struct_size. */
static inline void splitkv_append_args_init(splitkv_append_args *args) {
  memset(args, 0, sizeof *args);
  args->struct_size = sizeof *args;
}

/* Stores the new tokens. `problem` is the one that run is called with; what it says of queries,
 * tables and splits has no influence. pool NULL: the calling thread does all; else its function is
 * called at most once, for tasks of about 256 KiB of memory each. A task takes up to about 10 KB of
 * stack. With no tokens no pointer is needed.
 * Errors: those of splitkv_describe; NULL_POINTER, STRUCT_SIZE, APPEND_TOKENS (n_tokens), DTYPE
 * (dtype_new), INDEX_TYPE, STRIDE, OVERFLOW, TENSOR_ALIGNMENT, TENSOR_UNUSED (a tensor that nothing
 * asks for, or a V beside a cache that is K's), FLAGS, RESERVED, POOL; APPEND_SLOT: a slot is
 * neither -1 nor in the cache; APPEND_ROTARY: rotary_dim is odd or beyond head_dim, the style is
 * unknown, n_positions negative; APPEND_POSITION: a token that is stored has a position outside the
 * tables; APPEND_SCALES: scales are to be computed in a mode that is not TOKEN, GROUP32 or GROUP64,
 * or of a V that is not stored. */
SPLITKV_API splitkv_status splitkv_append(const splitkv_problem *problem,
                                          const splitkv_append_args *args, const splitkv_pool *pool,
                                          splitkv_error *error);

#ifdef __cplusplus
}
#endif
#endif
