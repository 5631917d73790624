/* The kernel contract: what a kernel set offers, and what holds before and after each call.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Kernels know rows, heads and tokens of one KV head. They know no batch, no page and no plan.
 * Rules for all of them:
 *  - No kernel reads or writes a byte outside the elements named here: vector tails are masked.
 *  - No alignment beyond the element's own is needed.
 *  - Kernels hold no state, allocate nothing, and may run on any number of threads at once.
 *  - Sets of one arithmetic class give the same bits for the same arguments (docs/numerics.md). */
#ifndef SPL_CPU_KERNELS_H
#define SPL_CPU_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Lanes of the vectors that the arithmetic is written in, whatever the machine has: of rows and of
 * weights, and of dot products. */
#define SPL_LANES 16
#define SPL_DOT_LANES 8
/* Most tokens of one tile. Softmax state moves once per tile. */
#define SPL_TILE_TOKENS 64
/* Tokens whose weighted V rows are added in one chain; chunks are added to a tile's sum. */
#define SPL_CHUNK_TOKENS 16
/* Tokens of one strip, where memory is walked strip by strip: half of a chunk. */
#define SPL_STRIP_TOKENS 8
/* Most groups that are walked together, and most heads of each: with more, multiplications are all
 * there is to wait for. And most heads of a group that any kernels walk by strips. */
#define SPL_MAX_TOGETHER 32
#define SPL_TOGETHER_HEADS 39
#define SPL_MOST_STRIP_HEADS 6
/* Tiles whose sums are added plainly before they are folded into the compensated sum. */
#define SPL_FOLD_TILES 8

/* Index of kernels by storage type; the values of splitkv_dtype. */
enum {
  SPL_DTYPE_F32,
  SPL_DTYPE_F16,
  SPL_DTYPE_BF16,
  SPL_N_PLAIN_DTYPES, /* of Q and out */
  SPL_DTYPE_INT8 = SPL_N_PLAIN_DTYPES,
  SPL_DTYPE_FP8_E4M3,
  SPL_DTYPE_FP8_E5M2,
  SPL_DTYPE_INT4,
  SPL_N_DTYPES /* of KV */
};
/* Most scales that a token of one KV head has: one for each 32 channels. */
#define SPL_MAX_ROW_SCALES 18

/* How a kernel makes elements of codes (docs/numerics.md).
 *  PLAIN     the code itself: scales are taken out of the sums
 *  ROWS      (code - zero) * scale, both by token and group of channels
 *  CHANNELS  code - zero by channel: scales are taken out of the sums */
enum { SPL_FORM_PLAIN, SPL_FORM_ROWS, SPL_FORM_CHANNELS };

/* The scales and zero points of K or V of one KV head. All 0 where KV is not quantised. */
typedef struct spl_codes {
  int form;
  int has_f16_scales;
  float unit;          /* what the 1 of a kernel's codes stands for, a power of two */
  int64_t n_scales;    /* that are taken out of the sums: 1 or one for each channel; 0: none */
  const void *scales;  /* [n_scales] */
  const int8_t *zeros; /* CHANNELS: one for each channel */
  int64_t n_groups;    /* ROWS: groups of channels; PLAIN: 1 if tokens have scales, else 0 */
  int64_t group_size;  /* channels of a group, a multiple of SPL_LANES */
  float *row_scales;   /* [tokens of the tile, rounded up to SPL_LANES][n_groups], times unit */
  float *row_zeros;    /* the same of zero points: ROWS, unless the dtype takes none */
} spl_codes;

/* How a dot product becomes a score in base 2:
 *   x = dot * scale
 *   capped: x = (outer_hi + outer_lo) * tanh((inner_hi + inner_lo) * x), the constants in two parts
 * and x += slope * log2(e) * position with ALiBi (docs/numerics.md has the operations). */
typedef struct spl_score_rule {
  float scale; /* scale * log2(e); 1 where capped */
  int is_capped;
  float inner_hi, inner_lo; /* scale / cap */
  float outer_hi, outer_lo; /* cap * log2(e) */
} spl_score_rule;

/* Running attention state of the query heads that share one KV head, of one query row or of
 * several: n_heads counts them all, the heads of a query row lie side by side. Rows are d_padded or
 * dv_padded floats apart: head_dim rounded up to SPL_LANES. All pointers to caller memory. */
typedef struct spl_group {
  int64_t n_heads;   /* >= 1 */
  int64_t row_heads; /* of each query row */
  int64_t d, dv;     /* channels of K and of V */
  int64_t d_padded, dv_padded;
  spl_score_rule rule;      /* of scores */
  const float *slopes;      /* [row_heads] of ALiBi, natural, or NULL */
  const int64_t *positions; /* [n_heads / row_heads] where the query rows stand */
  int64_t score_stride;     /* floats per row of scores, a multiple of SPL_LANES */
  spl_codes k_codes, v_codes;
  int kv_offset;          /* what stands for 0 in a code as an unsigned byte, INT8 with 128 added */
  int q_dtype;            /* whose load_q filled q */
  int is_wide, asks_near; /* SPL_CPU_WIDE, SPL_CPU_NEAR: for speed alone */
  float *q;               /* q_floats of the kernel set, in the order of its load_q */
  float *acc;             /* [n_heads][dv_padded] sum of p * v since the last fold */
  float *sum_hi, *sum_lo; /* [n_heads][dv_padded] folded sums; unset while n_folds == 0 */
  float *scores;          /* [n_heads][score_stride] of one tile */
  float *part;            /* [n_heads][dv_padded] sum of p * v of a tile's first chunks, or NULL */
  float *chunk;           /* the same of the chunk at hand, or NULL: both where walked by strips */
  float *wide;            /* wide_floats of the kernel set: K of one strip, or NULL */
  double *max;            /* [n_heads] integer m, an f32 value: weights are 2^(score - m) */
  double *weight;         /* [n_heads] sum of the weights */
  double *rounded;        /* [n_heads] and of the rounded ones, if the set rounds them, else NULL */
  int64_t n_tiles;        /* since the last fold */
  int64_t n_folds;
} spl_group;

/* Stretches of memory that will be read soon: n of them, `bytes` each. They are asked for while the
 * tile at hand is computed, and never read. */
typedef struct spl_stretches {
  const unsigned char *const *starts;
  int64_t n, bytes;
} spl_stretches;

/* The tokens of one tile. Row t of K begins k_offset bytes behind k_rows[t] (so that neighbouring
 * KV heads share the addresses), and so for V. Entries of k_rows up to n_tokens rounded up to
 * SPL_LANES are addresses of attended rows (the last one repeats). */
typedef struct spl_tile {
  int64_t n_tokens; /* 1 .. SPL_TILE_TOKENS, at most score_stride */
  int64_t position; /* of the first token */
  /* [n_heads / row_heads] bit t: the query row attends to token t. NULL: all rows to all tokens.
   * What a row does not attend to does not touch it, inf and NaN included. */
  const uint64_t *masks;
  const unsigned char *const *k_rows, *const *v_rows;
  int64_t k_offset, v_offset;
  spl_stretches next_k, next_v;
} spl_tile;

/* How the rows of new tokens are stored: what is the same for all tokens of a call; of K or of V.
 * Channel c of head h has the scale number h * scale_head + c / scale_channels, and the zero point
 * of the same number. */
typedef struct spl_append_rule {
  int64_t n_heads, n_channels;
  int dtype_new, dtype_kv;   /* values of splitkv_dtype */
  int64_t new_head, kv_head; /* bytes from one head's row to the next: of the new, in the cache */
  int64_t rotary_dim;        /* channels that are rotated, from the first on */
  int is_interleaved;        /* pairs are neighbours, not halves */
  int64_t scale_channels;    /* that share one: 1, or a multiple of SPL_LANES */
  int64_t scale_head;        /* scales from one head to the next */
  int has_scales, has_zeros; /* without scales all are 1 */
  int has_f16_scales;        /* else f32 */
  int computes_scales;       /* from the row, and its zero points */
  int passes_caches;         /* whole lines go to memory past the caches */
} spl_append_rule;

/* One token: its first head's row, where it goes, its first scale and zero point, its row of the
 * rotary tables. */
typedef struct spl_append_token {
  const unsigned char *row;
  unsigned char *kv;
  void *scales;
  int8_t *zeros;
  const float *cos, *sin;
} spl_append_token;

typedef struct spl_kernel_set {
  const char *name;
  const char *arithmetic;
  int arithmetic_class;  /* splitkv_arithmetic */
  int isa;               /* splitkv_isa */
  uint32_t cpu_bits;     /* SPL_CPU_* that it needs */
  int rounds_weights;    /* P.V takes weights of fewer bits: there are two sums of them */
  int needs_plain_codes; /* of K and V the form PLAIN alone, and no scales of channels of K */

  /* Floats that spl_group.q has. */
  int64_t (*q_floats)(int64_t n_heads, int64_t d_padded, int q_dtype);
  /* From so many heads on Q has an order that may take less room; 0: it has one order. */
  int64_t packed_heads;
  /* Floats that spl_group.wide has for n_heads and pieces of n_tokens > 0, for K of d channels of
   * this storage type. NULL: none. */
  int64_t (*wide_floats)(int64_t n_heads, int64_t d, int dtype_kv, int64_t n_tokens);
  /* Adds one tile to the state. Scores, softmax, P.V; folds after SPL_FOLD_TILES tiles. NULL: the
   * set does not do this storage type. */
  void (*attend[SPL_N_DTYPES])(spl_group *group, const spl_tile *tile);
  /* The same for n groups of as many heads each, at most SPL_TOGETHER_HEADS, K of all before V: so
   * lines are asked for half a tile ahead, and not all of two tiles have to stay in a cache. The
   * tile's offsets are those of the first group, k_step and v_step are from one to the next. Groups
   * of at most strip_heads heads go strip of tokens by strip and in each all groups: memory is read
   * in the order of whole rows. Each group has scores of its own, by strips a chunk and, if its
   * pieces have more than SPL_CHUNK_TOKENS, part; masks are of one query row. KV is not quantised.
   * NULL: the set has none. */
  int64_t strip_heads;
  void (*attend_together[SPL_N_PLAIN_DTYPES])(spl_group *groups, int64_t n, const spl_tile *tile,
                                              int64_t k_step, int64_t v_step);
  /* Ends the sum of head h: acc row = all of sum p * v, in f32, with the scales that were taken out
   * of it. Once per head, no tile after it. */
  void (*finish)(const spl_group *group, int64_t h);
  /* row[c] /= weight for c < n_padded, unless weight is 0. */
  void (*normalize)(float *row, int64_t n_padded, float weight);
  /* sum[c] += weight * (partial[c] / divisor) for c < n: the quotient in f32, the product exact. */
  void (*add_partial)(double *sum, const float *partial, int64_t n, float divisor, double weight);
  /* out[c] = sum[c] / weight for c < n, then rounded to f32. */
  void (*end_sum)(float *out, const double *sum, int64_t n, double weight);
  /* Head h of q from d elements at src, times the scales that were taken out of dot products; zero
   * beyond them. */
  void (*load_q[SPL_N_PLAIN_DTYPES])(const spl_group *group, int64_t h, const void *src);
  /* dst[0..n) = src rounded to nearest even, NaNs canonical. src is readable up to n rounded up. */
  void (*store_row[SPL_N_PLAIN_DTYPES])(void *dst, const float *src, int64_t n);
  /* Fills codes->row_scales of the n tokens of a tile, a multiple of SPL_LANES, from
   * scales[rows[t] + ahead][n_groups], and row_zeros likewise, if there are any. rows NULL: that is
   * scales[ahead] for all of them. zeros NULL: they are `zero`. */
  void (*load_rows)(const spl_codes *codes, const void *scales, const int8_t *zeros, float zero,
                    const int64_t *rows, int64_t ahead, int64_t n);
  /* Asks for n > 0 rows of `bytes` > 0 that lie `step` bytes apart, and will be read soon. */
  void (*ask_for_rows)(const void *base, int64_t n, int64_t step, int64_t bytes);

  /* Stores the rows of one token, all heads, in any dtype of KV and from any of Q. */
  void (*append)(const spl_append_rule *rule, const spl_append_token *token);
  /* What this thread stored past the caches comes before what it stores next. */
  void (*append_end)(void);

  /* Probes for benchmarks: see splitkv/probe.h. */
  int64_t (*probe_multiply_add)(int64_t n_fma, float *sink);
  int64_t (*probe_read)(const void *data, size_t size_bytes, size_t prefetch_bytes, uint32_t *sink);
} spl_kernel_set;

/* Every set of this build, best first: kernels.def. */
#define SPL_KERNEL_SET(name, text) extern const spl_kernel_set spl_kernels_##name;
#include "kernels.def"
#undef SPL_KERNEL_SET

#endif
