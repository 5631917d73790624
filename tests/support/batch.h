/* Whole problems for tests: tensors made from a description, run, and compared with the oracle.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The contents of a request depend on its source number, its token numbers and the seed alone, not
 * on where its pages lie: the same request gives the same rows in any batch, layout and page size.
 * Every element that no token attended to occupies is NaN, every table entry that no request needs
 * names no page: those before a window, and of tokens that all rows of a request mask, too. */
#ifndef SPLITKV_TEST_BATCH_H
#define SPLITKV_TEST_BATCH_H

#include "guard.h"
#include "ref.h"
#include "rng.h"

#include <splitkv/splitkv.h>

#include <stdbool.h>

enum { TEST_MAX_REQUESTS = 320 };

typedef enum test_table {
  TABLE_IDENTITY = 0, /* pages in the order of requests and tokens */
  TABLE_SHUFFLED = 1, /* in random order, with unnamed pages between */
  TABLE_SHARED = 2    /* shuffled, and requests of equal source name the same pages */
} test_table;

typedef enum test_data {
  DATA_NORMAL = 0,      /* near normal, scores near normal with the default scale */
  DATA_PEAKED = 1,      /* few tokens carry nearly all the weight */
  DATA_ADVERSARIAL = 2, /* zero, equal and large scores; V from 2^-14 to 1000 */
  N_TEST_DATA = 3
} test_data;

/* How STRIDES lays the cache out. */
typedef enum test_stride_kind {
  STRIDES_NHD = 0,         /* NHD with padding after each row and page */
  STRIDES_HND = 1,         /* HND with padding after each row and page */
  STRIDES_HEAD_OUTER = 2,  /* [heads, pages, page] */
  STRIDES_TOKEN_OUTER = 3, /* [page, heads, pages] */
  N_STRIDE_KINDS = 4
} test_stride_kind;

/* Which bits of the tree mask are set. Those of no token are random. */
typedef enum test_tree {
  TREE_RANDOM = 0, /* by row: none, all, few or half of them */
  TREE_ALL = 1,
  TREE_CAUSAL = 2 /* those up to the row's own token */
} test_tree;

struct test_spec;
/* Element `channel` of the row (tensor 'q', 'k' or 'v') of a source; token is 0 for the last row of
 * 'q', 1 for the one before and so on. And of 's', the sinks, and 'a', the slopes of ALiBi, where
 * the problem has them: by head alone. Where KV is quantised also of 'x' and 'y', the scales of K
 * and V, and 'm' and 'n', their zero points: channel is the first one that has it, source, head and
 * token are 0 where the scale mode knows none. The codes are those nearest to the elements. */
typedef double (*test_value)(const struct test_spec *spec, char tensor, int64_t source,
                             int64_t head, int64_t token, int64_t channel);

typedef struct test_spec {
  splitkv_problem problem; /* n_pages, table_width and K/V strides are the builder's */
  int64_t n_requests;
  int64_t kv_lens[TEST_MAX_REQUESTS];
  int64_t sources[TEST_MAX_REQUESTS];      /* whose contents a request has */
  int64_t first_tokens[TEST_MAX_REQUESTS]; /* its token 0 is that token of the source */
  const int64_t *token_order;              /* NULL, or: its token t is token_order[t] */
  bool has_rows; /* batch.q_offsets is given; else each request has one row */
  int64_t n_rows[TEST_MAX_REQUESTS];
  int64_t q_ages[TEST_MAX_REQUESTS]; /* its last row is that many rows before the source's last */
  splitkv_index_type q_offsets_type;
  test_tree tree;
  bool specials; /* NaN and infinities in K and V of tokens that some rows mask and some do not */
  int64_t n_workers;
  uint64_t seed;
  test_table table;
  test_data data;
  test_value value;          /* NULL: as `data` says */
  const void *value_context; /* for value */
  test_stride_kind stride_kind;
  int64_t stride_pad;  /* elements */
  int64_t extra_pages; /* pages that no request names */
  int64_t extra_width; /* entries per table row that no request needs */
  splitkv_index_type kv_lens_type;
  guard_side side;
  bool v_aliases_k; /* needs head_dim_v <= head_dim, and NHD/HND with both equal, or STRIDES */
  bool trim;        /* K and V hold no more than reaches from the first to the last token */
  bool no_lse;
} test_spec;

typedef struct test_batch {
  test_spec spec;
  splitkv_problem problem; /* complete; a test may change policy, isa and flags between runs */
  splitkv_batch batch;
  splitkv_tensors tensors;
  guard_buffer q, k, v, table, offsets, kv_lens, q_offsets, out, lse, sinks, slopes, tree;
  guard_buffer k_scales, v_scales, k_zeros, v_zeros;
  int64_t first_rows[TEST_MAX_REQUESTS + 1]; /* first query row of each request; their number */
  ref_result exact;                          /* NULLs until test_batch_compare */
  splitkv_arithmetic arithmetic;             /* class of the kernel set that the last run took */
} test_batch;

/* f32, NHD, d = dv = 64, page 16, one worker, one request without tokens. */
void test_spec_init(test_spec *spec);

/* Sets n_requests and, for each, source r, first token 0 and length kv_len. */
void test_spec_requests(test_spec *spec, int64_t n_requests, int64_t kv_len);

/* Limits of test_spec_random. */
typedef struct test_ranges {
  int64_t max_requests, max_kv_len, max_head_dim, max_heads_kv, max_group;
  int64_t max_elements; /* of K, about */
} test_ranges;

/* Anything that the library supports. */
void test_spec_random(test_spec *spec, rng *r, const test_ranges *ranges);

/* Window, soft-cap, sinks and ALiBi: bit i of `which` asks for the i-th, with random numbers. */
enum {
  VARIANT_WINDOW = 1,
  VARIANT_SOFTCAP = 2,
  VARIANT_SINKS = 4,
  VARIANT_ALIBI = 8,
  N_VARIANTS = 16
};
void test_spec_vary(test_spec *spec, rng *r, int which);

/* Quantises KV: one of its dtypes with one of the scale modes for K and V each. */
void test_spec_quantise(test_spec *spec, rng *r);

/* Causal, right window, chunk and tree mask, in the same manner; of the first two the first. */
enum { MASK_CAUSAL = 1, MASK_RIGHT = 2, MASK_CHUNK = 4, MASK_TREE = 8, N_MASKS = 16 };
void test_spec_mask(test_spec *spec, rng *r, int which);

/* Query rows for each request: none, one, a few, many, and sometimes more than it has tokens;
 * max_rows at most in all, about. */
void test_spec_rows(test_spec *spec, rng *r, int64_t max_rows);

/* Query rows of a request and of all of them. */
int64_t test_rows_of(const test_spec *spec, int64_t r);
int64_t test_n_rows(const test_spec *spec);

/* How many rows of request r attend to a token of it. */
int64_t test_attending(const test_spec *spec, int64_t r, int64_t token);

/* Tokens begin .. end-1 of request r are those from the first to the last one that a row attends to
 * by all rules but the tree mask. Both 0 where there is none. */
void test_span(const test_spec *spec, int64_t r, int64_t *begin, int64_t *end);

/* Bit `bit` of the tree mask of row i of request r. */
bool test_tree_bit(const test_spec *spec, int64_t r, int64_t i, int64_t bit);

/* Tokens of a request of this length before the window, where it has one row. */
int64_t test_tokens_before(const test_spec *spec, int64_t kv_len);

/* Builds tensors, table and outputs. */
void test_batch_build(test_batch *b, const test_spec *spec);
void test_batch_destroy(test_batch *b);

/* Plans b->problem and b->batch, runs with a workspace of exactly the stated bytes flush against
 * guards, and checks that status, gaps between output rows and redzones are right. out and lse are
 * overwritten with a pattern before. False after a failed check, with everything printed. */
bool test_batch_run(test_batch *b, const splitkv_pool *pool);

/* Compares every row with the oracle (computed on the first call). False, with everything printed,
 * when a row is out of bounds. *worst (may be NULL) gains the largest error / bound. */
bool test_batch_compare(test_batch *b, double *worst);

/* Bytes that one row of out has; where row `row` = query row * n_heads_q + head begins. */
size_t test_row_bytes(const test_batch *b);
const unsigned char *test_out_row(const test_batch *b, int64_t row);

/* 64-bit FNV-1a over the rows of out and over lse, the same on every machine. */
uint64_t test_batch_digest(const test_batch *b);

/* Everything that is needed to repeat it, on stderr. */
void test_batch_print(const test_batch *b);

/* The usable kernel sets, best first; returns how many. */
enum { TEST_MAX_ISAS = 8 };
int test_usable_isas(splitkv_isa isas[TEST_MAX_ISAS]);
splitkv_arithmetic test_isa_arithmetic(splitkv_isa isa);

/* Whether the kernel sets of a class do KV of a type; with codes not whatever their scales. */
bool test_class_does(splitkv_arithmetic arithmetic, splitkv_dtype dtype_kv);

/* Names a kernel set in b->problem. Of another class than f32 it is allowed as well, and where it
 * does not do the dtype of KV nothing is named: the class f32 has to take over. */
void test_batch_use(test_batch *b, splitkv_isa isa);
const char *test_isa_name(splitkv_isa isa);

/* A pool that runs everything on the calling thread, last task first. */
splitkv_pool test_pool_reversed(void);

#endif
