/* splitkv: paged attention for LLM inference, one C ABI.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 *   problem ──describe──▶ supported, or the reason why not
 *      ├──sizes(limits)──▶ bytes that suffice for every batch within the limits
 *      └──plan(lengths)──▶ plan ──▶ exact workspace bytes ──run(tensors)──▶ out, lse
 *
 * Query rows, one for each request or any number of them, attend to the request's first kv_len
 * tokens in a paged KV cache:
 *
 *   score[t] = scale * sum_c q[c] * k[t][c]         t = 0 .. kv_len-1
 *   out[c]   = sum_t exp(score[t]) * v[t][c] / sum_t exp(score[t])
 *   lse      = ln sum_t exp(score[t])
 *
 * and, where the problem says so, with causal, window, chunk and tree masks, a soft-cap of the
 * scores, ALiBi and attention sinks, in any combination (docs/variants.md).
 *
 * The numeric contract (empty requests, NaN, error bounds, which bits depend on what) stands in
 * docs/numerics.md.
 *
 * Conventions that hold for every function:
 *  - Structs that may grow begin with struct_size, set to sizeof by the caller (the *_init
 * functions do it; they are inline, so that the size is the caller's). They grow at the end: a
 * struct of an older header is accepted, and of an output struct only the caller's size is written.
 * A larger struct than this library knows is refused. splitkv_error, splitkv_sizes and splitkv_pool
 * are frozen.
 *  - Arithmetic assumes the default rounding mode, to nearest.
 *  - Nothing is global: any function may be called from any thread at any time. A plan is
 *    immutable; any number of threads may run it at once, each with its own workspace and outputs.
 *  - Errors: the return value is the status; `error`, where given, receives the field, the value
 *    and a sentence. `error` may be NULL. On every error, out, lse and workspace are untouched.
 *  - Strides are in elements, sizes in bytes, lengths in tokens.
 */
#ifndef SPLITKV_SPLITKV_H
#define SPLITKV_SPLITKV_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SPLITKV_VERSION_MAJOR 0
#define SPLITKV_VERSION_MINOR 1
#define SPLITKV_VERSION_PATCH 0

#if defined(SPLITKV_STATIC)
#define SPLITKV_API
#elif defined(__GNUC__)
#define SPLITKV_API __attribute__((visibility("default")))
#else
#define SPLITKV_API
#endif

/* Alignment, in bytes, of the workspace and of plan storage. */
#define SPLITKV_ALIGNMENT 64
/* Largest head_dim and head_dim_v, in channels. */
#define SPLITKV_MAX_HEAD_DIM 576
/* Largest number of workers a plan can be made for. */
#define SPLITKV_MAX_WORKERS 65535

/* ── statuses ───────────────────────────────────────────────────────────────────────────────── */

/* Every rejection has a status of its own. X(enumerator, value, what it means) */
#define SPLITKV_STATUS_LIST(X)                                                                     \
  X(SPLITKV_OK, 0, "ok")                                                                           \
  X(SPLITKV_ERROR_NULL_POINTER, 1, "a required pointer is null")                                   \
  X(SPLITKV_ERROR_STRUCT_SIZE, 2, "struct_size is none that this library knows")                   \
  X(SPLITKV_ERROR_N_HEADS_Q, 3, "the number of query heads is out of range")                       \
  X(SPLITKV_ERROR_N_HEADS_KV, 4, "the number of KV heads is out of range")                         \
  X(SPLITKV_ERROR_HEAD_GROUP, 5, "query heads are not a multiple of KV heads")                     \
  X(SPLITKV_ERROR_HEAD_DIM, 6, "head_dim is out of range")                                         \
  X(SPLITKV_ERROR_HEAD_DIM_V, 7, "head_dim_v is out of range")                                     \
  X(SPLITKV_ERROR_PAGE_SIZE, 8, "the page size is out of range")                                   \
  X(SPLITKV_ERROR_N_PAGES, 9, "the number of pages is out of range")                               \
  X(SPLITKV_ERROR_DTYPE, 10, "unknown dtype")                                                      \
  X(SPLITKV_ERROR_SCALE, 11, "the scale is not finite, or missing")                                \
  X(SPLITKV_ERROR_LAYOUT, 12, "unknown layout")                                                    \
  X(SPLITKV_ERROR_STRIDE, 13, "a stride is impossible")                                            \
  X(SPLITKV_ERROR_TABLE_FORMAT, 14, "unknown block table format")                                  \
  X(SPLITKV_ERROR_TABLE_WIDTH, 15, "the width of the block table is out of range")                 \
  X(SPLITKV_ERROR_INDEX_TYPE, 16, "unknown index type")                                            \
  X(SPLITKV_ERROR_SPLIT_POLICY, 17, "unknown split policy")                                        \
  X(SPLITKV_ERROR_SPLIT_VALUE, 18, "the split size or count is out of range")                      \
  X(SPLITKV_ERROR_ISA_UNKNOWN, 19, "unknown instruction set")                                      \
  X(SPLITKV_ERROR_ISA_UNAVAILABLE, 20, "this build or this CPU lacks the instruction set")         \
  X(SPLITKV_ERROR_FLAGS, 21, "unknown flag bits")                                                  \
  X(SPLITKV_ERROR_OVERFLOW, 22, "a size does not fit in 64 bits")                                  \
  X(SPLITKV_ERROR_N_REQUESTS, 23, "the number of requests is out of range")                        \
  X(SPLITKV_ERROR_N_WORKERS, 24, "the number of workers is out of range")                          \
  X(SPLITKV_ERROR_KV_LEN, 25, "a KV length is negative")                                           \
  X(SPLITKV_ERROR_KV_LEN_TABLE, 26, "a KV length reaches past its row of the block table")         \
  X(SPLITKV_ERROR_LIMITS, 27, "a limit is out of range")                                           \
  X(SPLITKV_ERROR_PLAN_STORAGE, 28, "plan storage is too small")                                   \
  X(SPLITKV_ERROR_PLAN_ALIGNMENT, 29, "plan storage is misaligned")                                \
  X(SPLITKV_ERROR_ALLOCATOR, 30, "the allocator lacks a function")                                 \
  X(SPLITKV_ERROR_OUT_OF_MEMORY, 31, "the allocator returned nothing")                             \
  X(SPLITKV_ERROR_PLAN_INVALID, 32, "this is no plan of this library")                             \
  X(SPLITKV_ERROR_PLAN_MISMATCH, 33, "the plan was made for another problem")                      \
  X(SPLITKV_ERROR_WORKSPACE_SIZE, 34, "the workspace is too small")                                \
  X(SPLITKV_ERROR_WORKSPACE_ALIGNMENT, 35, "the workspace is misaligned")                          \
  X(SPLITKV_ERROR_TENSOR_ALIGNMENT, 36, "a tensor is not aligned to its element")                  \
  X(SPLITKV_ERROR_PAGE_ID, 37, "the block table names a page outside the cache")                   \
  X(SPLITKV_ERROR_TABLE_OFFSETS, 38, "CSR offsets are not ascending or leave the table")           \
  X(SPLITKV_ERROR_TABLE_SHORT, 39, "a CSR row holds fewer pages than its KV length needs")         \
  X(SPLITKV_ERROR_POOL, 40, "the pool lacks its function")                                         \
  X(SPLITKV_ERROR_MERGE_SHAPE, 41, "a count of states, rows or channels is out of range")          \
  X(SPLITKV_ERROR_FORMAT, 42, "unknown text format")                                               \
  X(SPLITKV_ERROR_INDEX, 43, "an index is out of range")                                           \
  X(SPLITKV_ERROR_THREADS, 44, "a thread could not be started")                                    \
  X(SPLITKV_ERROR_ARITHMETIC, 45, "unknown arithmetic class, or one that is not allowed")          \
  X(SPLITKV_ERROR_RESERVED, 46, "a reserved field is not zero")                                    \
  X(SPLITKV_ERROR_ISA_DTYPE, 47, "the kernel set has no kernels for the dtype of KV")              \
  X(SPLITKV_ERROR_ASCEND_CORES, 48, "the number of cores or groups is out of range")               \
  X(SPLITKV_ERROR_ASCEND_RULE, 49, "unknown rule for splitting")                                   \
  X(SPLITKV_ERROR_ASCEND_DTYPE, 50, "the Ascend kernel has no such dtype or mixture")              \
  X(SPLITKV_ERROR_ASCEND_LAYOUT, 51, "the Ascend kernel reads contiguous NHD only")                \
  X(SPLITKV_ERROR_ASCEND_TABLE, 52, "the Ascend kernel reads dense int32 block tables only")       \
  X(SPLITKV_ERROR_ASCEND_POLICY, 53, "the rule decides where the Ascend kernel splits")            \
  X(SPLITKV_ERROR_ASCEND_HEAD_DIMS, 54, "the Ascend kernel needs head_dim == head_dim_v")          \
  X(SPLITKV_ERROR_ASCEND_HEAD_DIM, 55, "head_dim is more than the Ascend kernel takes")            \
  X(SPLITKV_ERROR_ASCEND_KEY, 56, "the Ascend kernel does not know this key and would do nothing") \
  X(SPLITKV_ERROR_ASCEND_TILE, 57, "a tile does not fit in a buffer on the chip")                  \
  X(SPLITKV_ERROR_ASCEND_TASK_HEADS, 58, "a task has more heads than the Ascend kernel takes")     \
  X(SPLITKV_ERROR_ASCEND_SPLITS, 59, "more splits than the Ascend kernel can combine")             \
  X(SPLITKV_ERROR_ASCEND_COMBINE, 60, "splits times channels do not fit in the combine")           \
  X(SPLITKV_ERROR_ASCEND_OFFSET, 61, "an offset or count does not fit in the kernel's words")      \
  X(SPLITKV_ERROR_ASCEND_EMPTY, 62, "no request has tokens: there is nothing to launch")           \
  X(SPLITKV_ERROR_ASCEND_WORDS, 63, "these are no tiling words, or too few")                       \
  X(SPLITKV_ERROR_ASCEND_BOUNDS, 64, "the kernel accesses memory outside of a buffer")             \
  X(SPLITKV_ERROR_ASCEND_LIBRARY, 65, "a library could not be loaded")                             \
  X(SPLITKV_ERROR_ASCEND_SYMBOL, 66, "a library lacks a function")                                 \
  X(SPLITKV_ERROR_ASCEND_RUNTIME, 67, "a call of the Ascend runtime failed")                       \
  X(SPLITKV_ERROR_WINDOW, 68, "the sliding window is negative")                                    \
  X(SPLITKV_ERROR_SOFTCAP, 69, "the soft-cap is not finite and positive, or out of range")         \
  X(SPLITKV_ERROR_TENSOR_UNUSED, 70, "a tensor is given that the problem has no flag for")         \
  X(SPLITKV_ERROR_ASCEND_VARIANT, 71, "the Ascend kernel has no such variant of attention")        \
  X(SPLITKV_ERROR_Q_OFFSETS, 72, "offsets of query rows do not begin at 0 and ascend")             \
  X(SPLITKV_ERROR_MASK, 73, "two rules of masking that exclude each other")                        \
  X(SPLITKV_ERROR_CHUNK, 74, "the attention chunk is negative")                                    \
  X(SPLITKV_ERROR_TREE, 75, "the number of tokens under a tree mask is out of range")              \
  X(SPLITKV_ERROR_SCALE_MODE, 76, "unknown scale mode, or one that the dtype does not take")       \
  X(SPLITKV_ERROR_ZERO_POINTS, 77, "the dtype of KV takes no zero points")                         \
  X(SPLITKV_ERROR_PREFIX, 78, "a shared prefix is out of range")                                   \
  X(SPLITKV_ERROR_APPEND_SLOT, 79, "a slot lies outside the cache")                                \
  X(SPLITKV_ERROR_APPEND_POSITION, 80, "a position lies outside the rotary table")                 \
  X(SPLITKV_ERROR_APPEND_ROTARY, 81, "the rotary embedding is impossible")                         \
  X(SPLITKV_ERROR_APPEND_SCALES, 82, "scales of this mode cannot be computed at append")           \
  X(SPLITKV_ERROR_APPEND_TOKENS, 83, "the number of new tokens is negative")

typedef enum splitkv_status {
#define SPLITKV_STATUS_ENUM(name, value, text) name = value,
  SPLITKV_STATUS_LIST(SPLITKV_STATUS_ENUM)
#undef SPLITKV_STATUS_ENUM
      SPLITKV_STATUS_END
} splitkv_status;

/* What went wrong. Filled on error, left alone on success. */
typedef struct splitkv_error {
  splitkv_status status;
  char field[48];    /* e.g. "problem.n_heads_q", "batch.kv_lens[3]" */
  int64_t value;     /* the value of that field, or 0 where it has none that is a number */
  char message[200]; /* one sentence with the field, the value and what would be right */
} splitkv_error;

/* "SPLITKV_ERROR_PAGE_ID"; "unknown status" for other numbers. Static strings. */
SPLITKV_API const char *splitkv_status_name(splitkv_status status);
/* "the block table names a page outside the cache". Static strings. */
SPLITKV_API const char *splitkv_status_text(splitkv_status status);
/* "0.1.0", the version of the library that is linked. */
SPLITKV_API const char *splitkv_version(void);

/* ── the problem: what, in numbers, no tensors ──────────────────────────────────────────────── */

typedef enum splitkv_dtype {
  SPLITKV_F32 = 0,
  SPLITKV_F16 = 1,  /* IEEE binary16, stored as uint16_t */
  SPLITKV_BF16 = 2, /* the upper half of binary32, stored as uint16_t */
  /* Of KV only; what a code stands for is multiplied by a scale (splitkv_scale_mode). */
  SPLITKV_INT8 = 3,     /* int8_t */
  SPLITKV_FP8_E4M3 = 4, /* OCP E4M3: no infinity, NaN is 0x7f and 0xff */
  SPLITKV_FP8_E5M2 = 5, /* OCP E5M2: the upper half of binary16 */
  /* Two to a byte, the even channel in the lower half; code 0 .. 15 stands for code - 8, or for
   * code - zero point. Counts and strides are of elements, and even. */
  SPLITKV_INT4 = 6
} splitkv_dtype;

/* Which elements of a quantised cache share a scale. Element = scale * (code - zero point), the
 * product rounded to f32 (docs/numerics.md). Scales of modes TOKEN and on lie in the order of the
 * cache: [n_pages, page_size, n_heads_kv, n] with NHD and STRIDES, [n_pages, n_heads_kv, page_size,
 * n] with HND. */
typedef enum splitkv_scale_mode {
  SPLITKV_SCALE_NONE = 0,    /* all are 1; the only mode of f32, f16 and bf16 */
  SPLITKV_SCALE_TENSOR = 1,  /* [1] */
  SPLITKV_SCALE_HEAD = 2,    /* [n_heads_kv] */
  SPLITKV_SCALE_CHANNEL = 3, /* [n_heads_kv, channels] */
  SPLITKV_SCALE_TOKEN = 4,   /* one for each token and KV head: n = 1 */
  SPLITKV_SCALE_GROUP32 =
      5, /* one for each token, KV head and 32 channels: n = ceil(channels / 32) */
  SPLITKV_SCALE_GROUP64 = 6 /* the same of 64 channels */
} splitkv_scale_mode;

typedef enum splitkv_layout {
  SPLITKV_LAYOUT_NHD = 0,    /* K, V are [pages, page_size, n_heads_kv, head_dim] ("BSND") */
  SPLITKV_LAYOUT_HND = 1,    /* K, V are [pages, n_heads_kv, page_size, head_dim] ("BNSD") */
  SPLITKV_LAYOUT_STRIDES = 2 /* K, V as the six stride fields say */
} splitkv_layout;

typedef enum splitkv_table_format {
  SPLITKV_TABLE_DENSE = 0, /* ids [n_requests, table_width] */
  SPLITKV_TABLE_CSR = 1    /* ids of request r at [offsets[r], offsets[r+1]) of one array */
} splitkv_table_format;

typedef enum splitkv_index_type { SPLITKV_I32 = 0, SPLITKV_I64 = 1 } splitkv_index_type;

typedef enum splitkv_split_policy {
  /* Equal work for each worker; at most 2 partial slots per worker whatever the batch, times the
   * query rows that are walked together where requests have several, or times n_heads_kv in decode
   * where the KV heads of a token lie side by side: there a cut goes through all of them, so that
   * each worker reads whole rows. A shared prefix takes slots for each of its rows. */
  SPLITKV_SPLIT_AUTO = 0,
  /* Cuts every split_value tokens from the first one attended to (token 0, or where a window or a
   * chunk begins): a row's bits depend on its request alone, and without these on that row alone.
   */
  SPLITKV_SPLIT_FIXED_SIZE = 1,
  /* Each request cut into min(split_value, tokens attended to) nearly equal splits. */
  SPLITKV_SPLIT_FIXED_COUNT = 2,
  /* No request is cut: a row's bits depend on what they do under FIXED_SIZE. */
  SPLITKV_SPLIT_NONE = 3
} splitkv_split_policy;

/* Which kernel set: the best that this CPU has, or that one and no other. */
typedef enum splitkv_isa {
  SPLITKV_ISA_AUTO = 0,
  SPLITKV_ISA_SCALAR = 1,
  SPLITKV_ISA_AVX2 = 2,   /* x86-64 with AVX2, FMA and F16C */
  SPLITKV_ISA_AVX512 = 3, /* x86-64 with AVX-512 F, BW, DQ and VL */
  SPLITKV_ISA_NEON = 4,   /* AArch64 */
  /* x86-64 with AVX512-BF16 and VBMI too: arithmetic BF16, for KV in bf16 and fp8 */
  SPLITKV_ISA_AVX512BF16 = 5,
  /* x86-64 with AVX512-VNNI too: arithmetic INT8, for KV in int8 and int4 */
  SPLITKV_ISA_AVX512VNNI = 6
} splitkv_isa;

/* What the arithmetic may be (docs/numerics.md has the error bound of each class). */
typedef enum splitkv_arithmetic {
  SPLITKV_ARITHMETIC_F32 = 0, /* the class f32 and no other: the same bits on every CPU */
  /* Also dot products of bf16, in a class of its own, where the CPU has them and KV is bf16, or fp8
   * without scales or with those of the tensor, heads or tokens (V also of channels): weights are
   * rounded to bf16. Elsewhere the class f32. */
  SPLITKV_ARITHMETIC_BF16 = 1,
  /* Also integer dot products, in a class of its own, where the CPU has them and KV is int8 or int4
   * without zero points, with scales of the tensor, heads or tokens (V also of channels): Q and the
   * weights are rounded to 16 bits. Elsewhere the class f32. */
  SPLITKV_ARITHMETIC_INT8 = 2
} splitkv_arithmetic;

/* problem.flags */
#define SPLITKV_FLAG_TRUST_TABLE 1u  /* run does not check page ids: the caller vouches for them */
#define SPLITKV_FLAG_SINKS 2u        /* tensors.sinks joins the denominator */
#define SPLITKV_FLAG_ALIBI 4u        /* tensors.alibi_slopes biases the scores by distance */
#define SPLITKV_FLAG_CAUSAL 8u       /* a row attends to no token behind its own */
#define SPLITKV_FLAG_ZERO_POINTS 16u /* of INT8 and INT4: tensors.k_zeros and v_zeros are given */

typedef struct splitkv_problem {
  size_t struct_size;

  int64_t n_heads_q;        /* query heads, >= 1, a multiple of n_heads_kv */
  int64_t n_heads_kv;       /* KV heads, >= 1 */
  int64_t head_dim;         /* channels of Q and K, 1 .. SPLITKV_MAX_HEAD_DIM */
  int64_t head_dim_v;       /* channels of V and out, 1 .. SPLITKV_MAX_HEAD_DIM */
  int64_t page_size_tokens; /* tokens per page, >= 1, any number */
  int64_t n_pages;          /* pages in the cache, >= 0; page ids are 0 .. n_pages-1 */

  splitkv_dtype dtype_q, dtype_kv, dtype_out;
  splitkv_layout layout;
  splitkv_table_format table_format;
  splitkv_index_type table_type; /* of page ids and of CSR offsets */
  splitkv_split_policy split_policy;
  splitkv_isa isa;
  uint32_t flags; /* SPLITKV_FLAG_* */

  /* Factor of q.k before the softmax. 0 means 1/sqrt(head_dim), which is allowed only where
   * head_dim == head_dim_v; a latent cache (MLA) has to say what it wants. */
  float scale;

  int64_t split_value; /* FIXED_SIZE: tokens >= 1; FIXED_COUNT: splits >= 1; else 0 */
  int64_t table_width; /* DENSE: entries per row of the block table; CSR: 0 */

  /* Strides in elements. Q and out are [n_rows, n_heads_q, head_dim(_v)], channels adjacent, where
   * a row is one query token: one of each request, or as batch.q_offsets says. 0 means contiguous.
   * Rows of out must not overlap (checked when the batch is known). */
  int64_t q_stride_request, q_stride_head; /* between rows, between heads */
  int64_t out_stride_request, out_stride_head;

  /* With SPLITKV_LAYOUT_STRIDES only, else 0. Channels are adjacent. V may alias K. */
  int64_t k_stride_page, k_stride_token, k_stride_head;
  int64_t v_stride_page, v_stride_token, v_stride_head;

  splitkv_arithmetic arithmetic; /* what the caller allows */
  uint32_t reserved;             /* 0 */

  /* W > 0: a query row attends to no token before position - W + 1, the first of the last W up to
   * its own (batch.q_offsets has positions); 0: to all before it. What lies before the window of a
   * request's first row is neither read nor counted: cuts and tiles begin there, or where the first
   * window of the rows begins that are walked together. So one row is computed as the row without
   * those tokens. Table entries of pages that lie wholly before it may hold anything, but a row of
   * the table still has them. >= 0; kv_len or more is no window. */
  int64_t window_tokens;
  /* 0, or c > 0: score = c * tanh(scale * q.k / c), before ALiBi. Finite; c * log2(e) fits in f32,
   * and scale / c is a normal f32 number. */
  float logit_softcap;
  uint32_t reserved2; /* 0 */

  /* Query row i of n (batch.q_offsets) stands at token position = kv_len - n + i: the last row at
   * the last token. 0: a row attends to all tokens behind its own; n > 0: to the first n from its
   * own on, its own included. SPLITKV_FLAG_CAUSAL is 1 and excludes a value here. */
  int64_t window_right_tokens;
  /* 0, or C > 0: a row attends to tokens of its own chunk alone, those t with t / C == position / C
   * (Llama 4). >= 0. */
  int64_t chunk_tokens;
  /* 0, or N > 0: tensors.tree_mask says which of the request's newest N tokens a row attends to. */
  int64_t tree_tokens;
  /* Of a quantised cache. */
  splitkv_scale_mode k_scale_mode, v_scale_mode;
  splitkv_dtype dtype_scales; /* F32 or F16 */
  uint32_t reserved3;         /* 0 */
} splitkv_problem;

/* Zeroes *problem and sets struct_size: f32, NHD, dense int32 table, AUTO, best kernel set of the
 * arithmetic class f32. */
static inline void splitkv_problem_init(splitkv_problem *problem) {
  memset(problem, 0, sizeof *problem);
  problem->struct_size = sizeof *problem;
}

/* Is this problem one that the library can do on this CPU? SPLITKV_OK or the first reason why
 * not. Pure; allocates nothing. */
SPLITKV_API splitkv_status splitkv_describe(const splitkv_problem *problem, splitkv_error *error);

/* ── sizes: a bound from limits alone ───────────────────────────────────────────────────────── */

/* The most that any later batch will have. Every field >= 0, max_workers 1 .. MAX_WORKERS. */
typedef struct splitkv_limits {
  size_t struct_size;
  int64_t max_requests;
  int64_t max_kv_tokens_total;       /* sum of kv_len over the requests of one batch */
  int64_t max_kv_tokens_per_request; /* largest kv_len */
  int64_t max_workers;
  int64_t max_q_rows_total;       /* query rows of one batch; 0: one of each request */
  int64_t max_q_rows_per_request; /* 0: 1 */
  int64_t max_prefix_rows; /* query rows of requests with a shared prefix; 0: batches name none */
} splitkv_limits;

typedef struct splitkv_sizes {
  size_t plan_bytes;      /* storage that every plan within the limits fits into */
  size_t workspace_bytes; /* workspace that every run within the limits fits into */
} splitkv_sizes;

/* Zeroes and sets struct_size; max_workers is 1. */
static inline void splitkv_limits_init(splitkv_limits *limits) {
  memset(limits, 0, sizeof *limits);
  limits->struct_size = sizeof *limits;
  limits->max_workers = 1;
}

/* Bytes that no plan within `limits` exceeds, in closed form; monotone in every limit, from 1 on
 * where 0 stands for another number. Limits speak of kv_len; a window is taken into account. sizes
 * is written on success only. Errors: as splitkv_describe; LIMITS, N_WORKERS, OVERFLOW,
 * NULL_POINTER, STRUCT_SIZE. */
SPLITKV_API splitkv_status splitkv_get_sizes(const splitkv_problem *problem,
                                             const splitkv_limits *limits, splitkv_sizes *sizes,
                                             splitkv_error *error);

/* ── plan: how ──────────────────────────────────────────────────────────────────────────────── */

typedef struct splitkv_plan splitkv_plan;

/* Requests [first_request, first_request + n_requests) whose first n_tokens tokens lie in the same
 * pages: their entries of the block table are the same up to there. */
typedef struct splitkv_prefix {
  int64_t first_request, n_requests; /* n_requests >= 1 */
  int64_t n_tokens;                  /* 0 .. the least kv_len of these requests */
} splitkv_prefix;

/* One batch. Lengths are copied and must not change during the call; the pointer is not kept. */
typedef struct splitkv_batch {
  size_t struct_size;
  int64_t n_requests;              /* >= 0 */
  const void *kv_lens;             /* [n_requests] tokens attended to, each >= 0 */
  splitkv_index_type kv_lens_type; /* of kv_lens */
  int64_t n_workers;               /* 1 .. MAX_WORKERS: how many tasks may run side by side */
  /* [n_requests + 1], from 0 on and ascending, at most INT32_MAX: query rows of request r are
   * q_offsets[r] .. q_offsets[r+1]-1. NULL: one row of each request. */
  const void *q_offsets;
  splitkv_index_type q_offsets_type;
  uint32_t reserved; /* 0 */
  /* [n_prefixes] shared prefixes in ascending order of requests, none twice, or NULL. With AUTO and
   * FIXED_SIZE a prefix is read once for many requests, as far as cuts and masks allow; with
   * FIXED_SIZE no bit of the results is other for it, and classes but f32 share nothing.
   * splitkv_find_prefixes finds them. */
  const splitkv_prefix *prefixes;
  int64_t n_prefixes;
} splitkv_batch;

/* Zeroes and sets struct_size; n_workers is 1. */
static inline void splitkv_batch_init(splitkv_batch *batch) {
  memset(batch, 0, sizeof *batch);
  batch->struct_size = sizeof *batch;
  batch->n_workers = 1;
}

/* Caller's memory functions. allocate returns `size` bytes aligned to `alignment` (a power of two,
 * at most SPLITKV_ALIGNMENT) or NULL; release takes what allocate returned. */
typedef struct splitkv_allocator {
  size_t struct_size;
  void *(*allocate)(void *context, size_t size, size_t alignment);
  void (*release)(void *context, void *memory);
  void *context;
} splitkv_allocator;

/* Bytes that a plan of this batch takes: what splitkv_plan_init asks for, exactly. */
SPLITKV_API splitkv_status splitkv_plan_size(const splitkv_problem *problem,
                                             const splitkv_batch *batch, size_t *plan_bytes,
                                             splitkv_error *error);

/* Makes a plan inside caller storage, allocating nothing. `storage` is SPLITKV_ALIGNMENT-aligned
 * and lives as long as the plan; planning again into the same storage replaces the old plan. On
 * success *plan points into storage. On error storage and *plan are untouched.
 * Errors: as splitkv_describe; N_REQUESTS, N_WORKERS, INDEX_TYPE, KV_LEN, KV_LEN_TABLE, Q_OFFSETS,
 * PREFIX, STRIDE (rows of out overlap), OVERFLOW, RESERVED, TENSOR_ALIGNMENT (of the batch's
 * arrays), PLAN_STORAGE, PLAN_ALIGNMENT, NULL_POINTER, STRUCT_SIZE. */
SPLITKV_API splitkv_status splitkv_plan_init(void *storage, size_t storage_bytes,
                                             const splitkv_problem *problem,
                                             const splitkv_batch *batch, splitkv_plan **plan,
                                             splitkv_error *error);

/* The same with one allocation; allocator NULL means malloc. Further errors: ALLOCATOR,
 * OUT_OF_MEMORY, PLAN_ALIGNMENT (the allocator returned less; its memory is released). The plan
 * keeps a copy of *allocator. */
SPLITKV_API splitkv_status splitkv_plan_create(const splitkv_problem *problem,
                                               const splitkv_batch *batch,
                                               const splitkv_allocator *allocator,
                                               splitkv_plan **plan, splitkv_error *error);

/* Releases a plan of splitkv_plan_create. NULL and plans of splitkv_plan_init are left alone. */
SPLITKV_API void splitkv_plan_destroy(splitkv_plan *plan);

/* Workspace bytes that running this plan takes, exactly; may be 0. 0 for NULL. */
SPLITKV_API size_t splitkv_plan_workspace_bytes(const splitkv_plan *plan);

/* What the plan decided, for people and tests. Strings are static. */
typedef struct splitkv_plan_info {
  size_t struct_size;
  const char *kernel_set; /* "avx512" */
  splitkv_split_policy policy;
  int64_t n_requests;
  int64_t n_tasks;    /* calls that the pool makes side by side, <= n_workers */
  int64_t n_splits;   /* pieces of (request, KV head) in all, empty requests left out */
  int64_t max_splits; /* most pieces that one (request, KV head) is cut into */
  int64_t n_slots;    /* partial results kept in the workspace */
  int64_t n_merges;   /* (request, KV head) pairs that are merged from slots */
  size_t workspace_bytes;
  size_t plan_bytes;
  size_t stack_bytes;     /* scratch per task that lies on the stack instead */
  double balance;         /* mean work of a task / most work of a task; 1 is perfect */
  int64_t n_regions;      /* see splitkv_plan_get_region */
  const char *arithmetic; /* class of the kernel set: "f32", "bf16" or "int8" */
} splitkv_plan_info;

/* Errors: NULL_POINTER, STRUCT_SIZE, PLAN_INVALID. The caller sets info->struct_size. */
SPLITKV_API splitkv_status splitkv_plan_get_info(const splitkv_plan *plan, splitkv_plan_info *info,
                                                 splitkv_error *error);

typedef struct splitkv_region {
  size_t struct_size;
  const char *name; /* "partial_out", "partial_state", "scratch" */
  size_t offset_bytes, size_bytes;
} splitkv_region;

/* Region `index` of the workspace, in ascending offset. Errors: INDEX and as above. */
SPLITKV_API splitkv_status splitkv_plan_get_region(const splitkv_plan *plan, int64_t index,
                                                   splitkv_region *region, splitkv_error *error);

typedef struct splitkv_task_info {
  size_t struct_size;
  int64_t kv_tokens; /* tokens in the window times KV heads that the task reads */
  int64_t n_pieces;  /* splits, or whole rows; rows of empty requests are not counted */
} splitkv_task_info;

/* Work of task `index`, 0 .. n_tasks-1. Errors: INDEX and as above. */
SPLITKV_API splitkv_status splitkv_plan_get_task(const splitkv_plan *plan, int64_t index,
                                                 splitkv_task_info *task, splitkv_error *error);

typedef enum splitkv_text_format { SPLITKV_TEXT = 0, SPLITKV_JSON = 1 } splitkv_text_format;

/* The plan in words or as one JSON object. Writes at most `capacity` bytes including the final
 * zero, and to *length (if not NULL) the bytes that the whole text has without it, as snprintf
 * does. buffer may be NULL when capacity is 0. Errors: FORMAT, PLAN_INVALID, NULL_POINTER. */
SPLITKV_API splitkv_status splitkv_plan_explain(const splitkv_plan *plan,
                                                splitkv_text_format format, char *buffer,
                                                size_t capacity, size_t *length,
                                                splitkv_error *error);

/* ── run ────────────────────────────────────────────────────────────────────────────────────── */

/* The caller's threads. `parallel_for` calls body(body_context, i) exactly once for each i in
 * 0 .. n-1, on any threads in any order, and returns when all calls have returned. It is called at
 * most twice per run and never nested. The results do not depend on how it does that. */
typedef struct splitkv_pool {
  size_t struct_size;
  void (*parallel_for)(void *context, int64_t n, void (*body)(void *body_context, int64_t i),
                       void *body_context);
  void *context;
} splitkv_pool;

/* Tensors of one run; the caller owns all of them. Element-aligned, no other alignment needed. */
typedef struct splitkv_tensors {
  size_t struct_size;
  const void *q;             /* [n_rows, n_heads_q, head_dim] of dtype_q */
  const void *k;             /* the K cache, dtype_kv */
  const void *v;             /* the V cache, dtype_kv; may alias k */
  const void *block_table;   /* page ids, table_type; DENSE [n_requests, table_width] */
  const void *table_offsets; /* CSR: [n_requests + 1] of table_type; DENSE: NULL */
  int64_t table_entries;     /* CSR: entries in block_table; DENSE: 0 */
  void *out;                 /* [n_rows, n_heads_q, head_dim_v] of dtype_out */
  float *lse;                /* [n_rows, n_heads_q], or NULL if not wanted */
  /* [n_heads_q] with SPLITKV_FLAG_SINKS, else NULL: exp(sinks[h]) joins the denominator of out, and
   * lse. Natural logarithms, not multiplied by scale; -INFINITY is no sink. Partials carry none: a
   * sink counts as the last partial of its row, one with lse = sinks[h] and out 0. */
  const float *sinks;
  /* [n_heads_q] with SPLITKV_FLAG_ALIBI, else NULL: score[t] += slope * (t - position). */
  const float *alibi_slopes;
  /* [n_rows, ceil(tree_tokens / 64)] with problem.tree_tokens, else NULL: bit b of a row, counted
   * from the lowest bit of its first word, is token kv_len - tree_tokens + b of its request. */
  const uint64_t *tree_mask;
  /* In the shapes of problem.k_scale_mode and v_scale_mode, of dtype_scales; NULL with SCALE_NONE.
   * Zero points in the same shapes, with SPLITKV_FLAG_ZERO_POINTS, else NULL. */
  const void *k_scales, *v_scales;
  const int8_t *k_zeros, *v_zeros;
} splitkv_tensors;

static inline void splitkv_tensors_init(splitkv_tensors *tensors) {
  memset(tensors, 0, sizeof *tensors);
  tensors->struct_size = sizeof *tensors;
}

/* Computes out and lse. Allocates nothing; a task takes up to about 164 KB of stack. `problem` is
 * the one that the plan was made of: a mismatch is refused. workspace is SPLITKV_ALIGNMENT-aligned,
 * at least the plan's bytes (NULL when 0), needs no initialisation, and is free again on return.
 * pool NULL: the calling thread does all. q, k, v, block_table and alibi_slopes may be NULL when no
 * row attends to anything, out and sinks too when there are no query rows. Errors: NULL_POINTER,
 * STRUCT_SIZE, PLAN_INVALID, PLAN_MISMATCH, WORKSPACE_SIZE, WORKSPACE_ALIGNMENT, TENSOR_ALIGNMENT,
 * TENSOR_UNUSED, TABLE_OFFSETS, TABLE_SHORT, PAGE_ID, PREFIX, POOL. */
SPLITKV_API splitkv_status splitkv_run(const splitkv_plan *plan, const splitkv_problem *problem,
                                       const splitkv_tensors *tensors, void *workspace,
                                       size_t workspace_bytes, const splitkv_pool *pool,
                                       splitkv_error *error);

/* Finds requests next to each other in the batch whose block tables begin with the same pages, at
 * least min_tokens tokens of them: groups for batch.prefixes. Of tensors only the block table is
 * read. Writes the first `capacity` groups and their number to *n_prefixes, which is at most half
 * of n_requests. Errors: as splitkv_describe; N_REQUESTS, INDEX_TYPE, KV_LEN, KV_LEN_TABLE,
 * TABLE_OFFSETS, TABLE_SHORT, TENSOR_ALIGNMENT, NULL_POINTER, STRUCT_SIZE. */
SPLITKV_API splitkv_status splitkv_find_prefixes(const splitkv_problem *problem,
                                                 const splitkv_batch *batch,
                                                 const splitkv_tensors *tensors, int64_t min_tokens,
                                                 splitkv_prefix *prefixes, int64_t capacity,
                                                 int64_t *n_prefixes, splitkv_error *error);

/* ── merge: several partial results over disjoint KV ranges become one ──────────────────────── */

/* Partial s of row i is out_parts[s][i][0..head_dim_v) with lse_parts[s][i]; an lse of -inf is a
 * partial that attended to nothing. The merge is the one that run applies to its own splits, in
 * ascending s: merging by hand what was cut by hand gives FIXED_SIZE's bits. With sinks: cut and
 * run without them, and merge with one more state behind the others, of out 0 and lse sinks[h]. */
typedef struct splitkv_merge_args {
  size_t struct_size;
  int64_t n_states;       /* >= 0 */
  int64_t n_rows;         /* >= 0 */
  int64_t head_dim_v;     /* channels, 1 .. SPLITKV_MAX_HEAD_DIM */
  const float *out_parts; /* [n_states, n_rows, head_dim_v] */
  const float *lse_parts; /* [n_states, n_rows] */
  splitkv_dtype dtype_out;
  void *out;  /* [n_rows, head_dim_v] of dtype_out; must not overlap the inputs */
  float *lse; /* [n_rows], or NULL */
} splitkv_merge_args;

static inline void splitkv_merge_args_init(splitkv_merge_args *args) {
  memset(args, 0, sizeof *args);
  args->struct_size = sizeof *args;
}

/* No state, or only states of -inf: out 0, lse -inf. Errors: NULL_POINTER, STRUCT_SIZE,
 * MERGE_SHAPE, DTYPE, OVERFLOW, TENSOR_ALIGNMENT. */
SPLITKV_API splitkv_status splitkv_merge(const splitkv_merge_args *args, splitkv_error *error);

/* ── kernel sets ────────────────────────────────────────────────────────────────────────────── */

typedef struct splitkv_kernel_set_info {
  size_t struct_size;
  const char *name; /* "avx2" */
  splitkv_isa isa;
  const char
      *arithmetic;     /* sets of one arithmetic class give the same bits: "f32", "bf16", "int8" */
  const char *needs;   /* "AVX2 FMA F16C" */
  const char *missing; /* what this CPU or OS lacks of it, "" when usable */
  int is_usable;
  int is_default; /* the one that SPLITKV_ISA_AUTO takes */
} splitkv_kernel_set_info;

/* Kernel sets in this build, best first. */
SPLITKV_API int64_t splitkv_kernel_set_count(void);
/* Errors: NULL_POINTER, STRUCT_SIZE, INDEX. */
SPLITKV_API splitkv_status splitkv_kernel_set_get(int64_t index, splitkv_kernel_set_info *info,
                                                  splitkv_error *error);

#ifdef __cplusplus
}
#endif
#endif
