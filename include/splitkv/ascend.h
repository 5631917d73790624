/* The host side of the Ascend paged attention kernel of pull request 683: tiling words, exact
 * scratch sizes, a functional model of the kernel, and its launch.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 *   problem + batch + target ──tile──▶ words ──get_sizes──▶ bytes of each scratch buffer
 *                                        ├──model_run──▶ out, computed on the host, every access
 * checked └──device_run─▶ out, computed by the kernel
 *
 * The kernel runs on groups of one cube and two vector cores and reads nothing but its tiling
 * words: 44 for the batch and 17 for each request (docs/ascend.md has their meaning). It does one
 * query token per request, Q, K, V and out all in f16 or all in bf16, head_dim == head_dim_v <=
 * 256, K and V as [pages, page_size, n_heads_kv, head_dim], a dense int32 block table.
 *
 * Conventions are those of splitkv.h. Of splitkv_problem the policy must be AUTO (the target's rule
 * decides), isa and arithmetic are not looked at; of splitkv_batch n_workers is not looked at. */
#ifndef SPLITKV_ASCEND_H
#define SPLITKV_ASCEND_H

#include <splitkv/splitkv.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Largest number of cube cores that words can be made for. */
#define SPLITKV_ASCEND_MAX_CORES 65535
#define SPLITKV_ASCEND_HEADER_WORDS 44
#define SPLITKV_ASCEND_REQUEST_WORDS 17

/* ── tiling: problem + lengths + cores → words ──────────────────────────────────────────────── */

/* When long sequences are split over cores. */
typedef enum splitkv_ascend_rule {
  /* As the library that the kernel was ported from: only while the batch is at most 0.8 x cores. */
  SPLITKV_ASCEND_GUARDED = 0,
  /* As the pull request: whatever the batch. */
  SPLITKV_ASCEND_PR683 = 1
} splitkv_ascend_rule;

/* target.flags: for showing what goes wrong, not for use. */
/* Words also for what the kernel cannot do, as the reference makes them. */
#define SPLITKV_ASCEND_UNCHECKED 1u
/* The offset of o_core in the words times the number of splits, as a review of the pull request
 * suggested. The kernel multiplies by it too. */
#define SPLITKV_ASCEND_SCALED_OFFSETS 2u

typedef struct splitkv_ascend_target {
  size_t struct_size;
  int64_t n_cores; /* cube cores, 1 .. SPLITKV_ASCEND_MAX_CORES; a 910B has 24 */
  splitkv_ascend_rule rule;
  uint32_t flags; /* SPLITKV_ASCEND_UNCHECKED, SPLITKV_ASCEND_SCALED_OFFSETS */
} splitkv_ascend_target;

/* Zeroes and sets struct_size: 24 cores, GUARDED. */
static inline void splitkv_ascend_target_init(splitkv_ascend_target *target) {
  memset(target, 0, sizeof *target);
  target->struct_size = sizeof *target;
  target->n_cores = 24;
}

/* What the words say, in names. */
typedef struct splitkv_ascend_info {
  size_t struct_size;   /* sizeof(splitkv_ascend_info), set by the caller */
  int64_t n_words;      /* 44 + 17 n_requests */
  int64_t n_groups;     /* groups to launch ("effective block_dim"), <= n_cores */
  int64_t key;          /* which kernel: 0 f16, 1 bf16, 16 and 17 the same with splits */
  int64_t n_splits;     /* split slots of each (request, head), 1 without splits */
  int64_t split_tokens; /* tokens per split, a multiple of the page size */
  int64_t tile_tokens;  /* tokens that one step of the kernel takes */
  int64_t n_requests_former, heads_per_task_former; /* the shorter requests come first, */
  int64_t n_requests_tail, heads_per_task_tail;     /* the longest last, with fewer heads a task */
  int64_t n_tasks;                                  /* of both phases, those without tokens too */
} splitkv_ascend_info;

/* Makes the words of a batch. `words` holds at least 44 + 17 n_requests of them and is written on
 * success only; NULL with n_words 0: only *info is wanted. info may be NULL. Allocates nothing.
 * Here n_words is the room that there is; the calls below take info.n_words, the words themselves.
 * Errors: as splitkv_describe but for the instruction set; N_REQUESTS (0 too), KV_LEN,
 * KV_LEN_TABLE, INDEX_TYPE, TENSOR_ALIGNMENT (kv_lens, words), NULL_POINTER, STRUCT_SIZE, FLAGS,
 * ASCEND_CORES, ASCEND_RULE, and what the kernel cannot do: ASCEND_DTYPE, ASCEND_LAYOUT,
 * ASCEND_TABLE, ASCEND_POLICY, ASCEND_HEAD_DIMS, ASCEND_HEAD_DIM, ASCEND_KEY, ASCEND_TILE,
 * ASCEND_SPLITS, ASCEND_COMBINE, ASCEND_OFFSET, ASCEND_EMPTY; ASCEND_WORDS: the memory for the
 * words is too small. Where another rule, core count or page size would do, the
 * message says so. */
SPLITKV_API splitkv_status splitkv_ascend_tile(const splitkv_problem *problem,
                                               const splitkv_batch *batch,
                                               const splitkv_ascend_target *target, uint32_t *words,
                                               int64_t n_words, splitkv_ascend_info *info,
                                               splitkv_error *error);

/* ── scratch: bytes of the eight buffers ────────────────────────────────────────────────────── */

/* What the kernel is given memory for: the eight scratch buffers, in the order of its arguments,
 * and then its tensors. */
typedef enum splitkv_ascend_buffer {
  SPLITKV_ASCEND_S = 0,      /* scores, f32 */
  SPLITKV_ASCEND_P = 1,      /* weights, f16 or bf16 */
  SPLITKV_ASCEND_O_TMP = 2,  /* P.V of one tile, f32 */
  SPLITKV_ASCEND_GO = 3,     /* never touched */
  SPLITKV_ASCEND_O_CORE = 4, /* partial results of splits, f32 */
  SPLITKV_ASCEND_L = 5,      /* their log-sum-exp, f32 */
  SPLITKV_ASCEND_K16 = 6,    /* never touched: dequantised K */
  SPLITKV_ASCEND_V16 = 7,    /* never touched: dequantised V */
  SPLITKV_ASCEND_Q = 8,
  SPLITKV_ASCEND_K = 9,
  SPLITKV_ASCEND_V = 10,
  SPLITKV_ASCEND_BLOCK_TABLE = 11,
  SPLITKV_ASCEND_MASK = 12,
  SPLITKV_ASCEND_OUT = 13,
  SPLITKV_ASCEND_WORDS = 14
} splitkv_ascend_buffer;
enum { SPLITKV_ASCEND_N_SCRATCH = 8, SPLITKV_ASCEND_N_BUFFERS = 15 };

/* "s", "p", "o_tmp", "go", "o_core", "l", "k16", "v16", "q", "k", "v", "block_table", "mask",
 * "out", "words"; "unknown buffer" for other numbers. Static strings. */
SPLITKV_API const char *splitkv_ascend_buffer_name(splitkv_ascend_buffer buffer);

typedef enum splitkv_ascend_sizing {
  SPLITKV_ASCEND_EXACT = 0,  /* one past the last byte that the kernel touches */
  SPLITKV_ASCEND_BEFORE = 1, /* what the pull request allocated before its change */
  SPLITKV_ASCEND_AFTER = 2   /* and after it */
} splitkv_ascend_sizing;

/* Frozen. */
typedef struct splitkv_ascend_sizes {
  uint64_t bytes[SPLITKV_ASCEND_N_SCRATCH]; /* by splitkv_ascend_buffer */
} splitkv_ascend_sizes;

/* Bytes of each scratch buffer for words of splitkv_ascend_tile; n_cores is the target's. EXACT is
 * counted from the words by walking tasks as the kernel does. sizes is written on success only.
 * Errors: NULL_POINTER, TENSOR_ALIGNMENT (words), ASCEND_CORES, ASCEND_WORDS (no words of
 * splitkv_ascend_tile), ASCEND_TASK_HEADS (words of a host that gives a task more than 32 heads),
 * FORMAT (unknown sizing), OVERFLOW. */
SPLITKV_API splitkv_status splitkv_ascend_get_sizes(const uint32_t *words, int64_t n_words,
                                                    int64_t n_cores, splitkv_ascend_sizing sizing,
                                                    splitkv_ascend_sizes *sizes,
                                                    splitkv_error *error);

/* Bytes that EXACT never exceeds for any batch of at most limits->max_requests requests of at most
 * limits->max_kv_tokens_per_request tokens; monotone in both, so that memory taken once stays
 * enough. The other limits are not looked at. Errors: as splitkv_ascend_tile without a batch;
 * LIMITS, OVERFLOW. */
SPLITKV_API splitkv_status splitkv_ascend_get_bound(const splitkv_problem *problem,
                                                    const splitkv_limits *limits,
                                                    const splitkv_ascend_target *target,
                                                    splitkv_ascend_sizes *sizes,
                                                    splitkv_error *error);

/* ── the functional model ───────────────────────────────────────────────────────────────────── */

/* Memory of one launch, in host memory. Each buffer is an allocation of its own whose bounds are
 * bytes[...]; data[...] may be NULL where bytes[...] is 0. Scratch (0 .. 7) and out are written,
 * the rest is read. Where head_dim is no multiple of 16, the kernel may read Q up to 30 bytes past
 * its last row: give it that room. A mask is optional, in the dtype of out. WORDS is not looked at.
 */
typedef struct splitkv_ascend_memory {
  size_t struct_size;
  void *data[SPLITKV_ASCEND_N_BUFFERS];
  uint64_t bytes[SPLITKV_ASCEND_N_BUFFERS];
} splitkv_ascend_memory;

static inline void splitkv_ascend_memory_init(splitkv_ascend_memory *memory) {
  memset(memory, 0, sizeof *memory);
  memory->struct_size = sizeof *memory;
}

/* model flags: where the reference misbehaves. */
/* A mask is applied wherever there is one, as the reference does, even where the words say that
 * masks have no length. Without the flag such a mask is not looked at. */
#define SPLITKV_ASCEND_MODEL_MASK_BY_POINTER 1u
/* Rows of out of empty requests keep what they held, as the kernel leaves them. Without the flag
 * they are zeroed first, which is the host's part of a launch. */
#define SPLITKV_ASCEND_MODEL_KEEP_EMPTY_ROWS 2u

/* An access outside of its buffer. */
typedef struct splitkv_ascend_fault {
  splitkv_ascend_buffer buffer;
  int is_write;
  int64_t byte;    /* first byte of the access that lies outside (negative: before the buffer) */
  int64_t task;    /* of the main part, counted over both phases; -1 in the combine */
  int64_t request; /* index in the batch, -1 where it is not known */
  int64_t split, head;
} splitkv_ascend_fault;

/* What a run touched. Accesses outside of a buffer are not carried out: a read gives zeros, a write
 * is dropped, and the walk goes on, so that the marks say how far the launch would have reached. */
typedef struct splitkv_ascend_report {
  size_t struct_size;         /* sizeof(splitkv_ascend_report), set by the caller */
  int64_t n_tasks;            /* tasks with tokens */
  int64_t n_faults;           /* accesses outside of their buffer */
  splitkv_ascend_fault first; /* in the order of tasks, then the combine; where n_faults > 0 */
  /* Lowest byte of each buffer that was accessed outside of it; INT64_MAX where none was. */
  int64_t lowest_outside[SPLITKV_ASCEND_N_BUFFERS];
  /* One past the last byte accessed, inside or outside; 0 where none was. */
  uint64_t high_water[SPLITKV_ASCEND_N_BUFFERS];
  int64_t n_rows_unwritten; /* rows of out that nobody wrote */
} splitkv_ascend_report;

/* Runs the kernel as its words say, on the host: n_groups groups, each one cube and two vector
 * cores, tasks, tiles, rounding, barrier and combine as docs/ascend.md describes. It reads the
 * words and trusts nothing in them. pool NULL: the calling thread does all; the result does not
 * depend on the pool. Allocates its on-chip memory once through `allocator` (NULL: malloc). On
 * success and on ASCEND_BOUNDS, *report is written (may be NULL). Errors: NULL_POINTER,
 * TENSOR_ALIGNMENT (words), STRUCT_SIZE, POOL, ALLOCATOR, OUT_OF_MEMORY, FLAGS, ASCEND_CORES
 * (n_groups), ASCEND_WORDS (words that no launch can be made of), ASCEND_KEY (a key that the kernel
 * does not know: it would do nothing), ASCEND_BOUNDS (an access outside of its buffer). */
SPLITKV_API splitkv_status splitkv_ascend_model_run(
    const uint32_t *words, int64_t n_words, int64_t n_groups, const splitkv_ascend_memory *memory,
    uint32_t flags, const splitkv_pool *pool, const splitkv_allocator *allocator,
    splitkv_ascend_report *report, splitkv_error *error);

/* ── launch on a device ─────────────────────────────────────────────────────────────────────── */

/* The kernel library and the Ascend runtime, loaded with dlopen. */
typedef struct splitkv_ascend_device splitkv_ascend_device;

typedef struct splitkv_ascend_device_options {
  size_t struct_size;
  const char *kernel_path;  /* the kernel's shared library, such as "./pa_lib.so" */
  const char *runtime_path; /* NULL: "libascendcl.so", as the loader finds it */
  int32_t device_id;
} splitkv_ascend_device_options;

static inline void splitkv_ascend_device_options_init(splitkv_ascend_device_options *options) {
  memset(options, 0, sizeof *options);
  options->struct_size = sizeof *options;
}

/* Loads both libraries and takes the device. Allocates with malloc. The libraries stay loaded,
 * whatever becomes of the device. Errors: NULL_POINTER, STRUCT_SIZE, OUT_OF_MEMORY, ASCEND_LIBRARY
 * (not found or not loadable), ASCEND_SYMBOL (a function is missing), ASCEND_RUNTIME (a call of the
 * runtime failed; field is its name, value its code). *device is written on success only. */
SPLITKV_API splitkv_status splitkv_ascend_device_open(const splitkv_ascend_device_options *options,
                                                      splitkv_ascend_device **device,
                                                      splitkv_error *error);
/* Gives the device back. NULL is left alone. The runtime is not finalised: another part of the
 * process may use it. */
SPLITKV_API void splitkv_ascend_device_close(splitkv_ascend_device *device);

/* One launch or several of the same: allocates device memory of exactly memory->bytes for every
 * buffer (a missing mask is a null pointer), copies words and tensors there, zeroes the rows of out
 * that belong to empty requests, launches n_launches times, copies out back, and releases all. The
 * scratch in *memory needs sizes only, its data may be NULL. milliseconds, if not NULL,
 * [n_launches], is the time of each launch between two events of the runtime. out and milliseconds
 * are written on success only. Any thread may call, one run at a time uses a device, and the device
 * is the calling thread's current one afterwards. Allocates with malloc for the results.
 * Errors: NULL_POINTER, TENSOR_ALIGNMENT (words), STRUCT_SIZE, ASCEND_CORES (n_groups),
 * ASCEND_WORDS, ASCEND_KEY (the kernel would do nothing, and out would be what the memory held
 * before), INDEX (n_launches < 1), OVERFLOW (more bytes than the machine can address),
 * OUT_OF_MEMORY, ASCEND_RUNTIME. */
SPLITKV_API splitkv_status splitkv_ascend_device_run(splitkv_ascend_device *device,
                                                     const uint32_t *words, int64_t n_words,
                                                     int64_t n_groups,
                                                     const splitkv_ascend_memory *memory,
                                                     int64_t n_launches, float *milliseconds,
                                                     splitkv_error *error);

#ifdef __cplusplus
}
#endif
#endif
