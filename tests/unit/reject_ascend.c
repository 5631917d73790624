/* What the host side of the Ascend kernel refuses, by field, value and status, and with which
 * advice.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "check.h"
#include "reject.h"

#include <splitkv/ascend.h>

#include <string.h>

enum { MOST_REQUESTS = 4100, MOST_WORDS = 44 + 17 * MOST_REQUESTS };

static int64_t lens[MOST_REQUESTS];
static uint32_t words[MOST_WORDS];

/* Everything that a call takes; good as it comes from begin(). */
typedef struct call {
  splitkv_problem p;
  splitkv_batch b;
  splitkv_ascend_target t;
} call;

static call begin(void) {
  call c;
  splitkv_problem_init(&c.p);
  c.p.n_heads_q = 16;
  c.p.n_heads_kv = 2;
  c.p.head_dim = c.p.head_dim_v = 128;
  c.p.page_size_tokens = 128;
  c.p.n_pages = 1000;
  c.p.table_width = 400;
  c.p.dtype_q = c.p.dtype_kv = c.p.dtype_out = SPLITKV_F16;
  splitkv_batch_init(&c.b);
  c.b.n_requests = 2;
  c.b.kv_lens = lens;
  c.b.kv_lens_type = SPLITKV_I64;
  splitkv_ascend_target_init(&c.t);
  for (int i = 0; i < MOST_REQUESTS; ++i)
    lens[i] = 1000 + i;
  return c;
}

/* Refused, with words and info untouched, and `advice` in the message. */
static void refused(const call *c, splitkv_status want, const char *field, int64_t value,
                    const char *advice) {
  memset(words, 0x3c, sizeof words);
  splitkv_ascend_info info, before;
  memset(&info, 0x3c, sizeof info);
  info.struct_size = sizeof info;
  before = info;
  splitkv_error error = reject_error();
  REJECT(splitkv_ascend_tile(&c->p, &c->b, &c->t, words, MOST_WORDS, &info, &error), &error, want,
         field, value);
  CHECK_MSG(strstr(error.message, advice) != NULL, "\"%s\" in \"%s\"", advice, error.message);
  CHECK(splitkv_ascend_tile(&c->p, &c->b, &c->t, words, MOST_WORDS, &info, NULL) == want);
  CHECK(memcmp(&info, &before, sizeof info) == 0);
  for (int i = 0; i < MOST_WORDS; ++i)
    if (!CHECK(words[i] == 0x3c3c3c3c)) return;
}

static void targets(void) {
  call c = begin();
  c.t.n_cores = 0;
  refused(&c, SPLITKV_ERROR_ASCEND_CORES, "target.n_cores", 0, "1..65535");
  c.t.n_cores = 65536;
  refused(&c, SPLITKV_ERROR_ASCEND_CORES, "target.n_cores", 65536, "1..65535");
  c = begin();
  c.t.rule = (splitkv_ascend_rule)2;
  refused(&c, SPLITKV_ERROR_ASCEND_RULE, "target.rule", 2, "");
  c = begin();
  c.t.flags = 12;
  refused(&c, SPLITKV_ERROR_FLAGS, "target.flags", 12, "");
  c = begin();
  c.t.struct_size = 3;
  refused(&c, SPLITKV_ERROR_STRUCT_SIZE, "target.struct_size", 3, "");
  c = begin();
  splitkv_error error = reject_error();
  REJECT(splitkv_ascend_tile(&c.p, &c.b, NULL, NULL, 0, NULL, &error), &error,
         SPLITKV_ERROR_NULL_POINTER, "target", 0);
}

static void forms(void) {
  call c = begin();
  c.p.dtype_q = c.p.dtype_kv = c.p.dtype_out = SPLITKV_F32;
  refused(&c, SPLITKV_ERROR_ASCEND_DTYPE, "problem.dtype_q", SPLITKV_F32, "f16");
  c = begin();
  c.p.dtype_kv = SPLITKV_BF16;
  refused(&c, SPLITKV_ERROR_ASCEND_DTYPE, "problem.dtype_kv", SPLITKV_BF16, "f16");
  for (int dtype = SPLITKV_INT8; dtype <= SPLITKV_INT4; ++dtype) {
    static const char *const names[] = {"int8", "fp8_e4m3", "fp8_e5m2", "int4"};
    c = begin();
    c.p.dtype_kv = (splitkv_dtype)dtype;
    refused(&c, SPLITKV_ERROR_ASCEND_DTYPE, "problem.dtype_kv", dtype, names[dtype - SPLITKV_INT8]);
  }
  c = begin();
  c.p.dtype_out = SPLITKV_F32;
  refused(&c, SPLITKV_ERROR_ASCEND_DTYPE, "problem.dtype_out", SPLITKV_F32, "f16");
  c = begin();
  c.p.layout = SPLITKV_LAYOUT_HND;
  refused(&c, SPLITKV_ERROR_ASCEND_LAYOUT, "problem.layout", SPLITKV_LAYOUT_HND, "contiguous");
  c = begin();
  c.p.q_stride_request = 16 * 128;
  CHECK(splitkv_ascend_tile(&c.p, &c.b, &c.t, NULL, 0, NULL, NULL) == SPLITKV_OK);
  c.p.q_stride_request = 4096;
  refused(&c, SPLITKV_ERROR_ASCEND_LAYOUT, "problem.q_stride_request", 4096, "2048");
  c = begin();
  c.p.table_format = SPLITKV_TABLE_CSR;
  c.p.table_width = 0;
  refused(&c, SPLITKV_ERROR_ASCEND_TABLE, "problem.table_format", 1, "dense");
  c = begin();
  c.p.table_type = SPLITKV_I64;
  refused(&c, SPLITKV_ERROR_ASCEND_TABLE, "problem.table_type", 1, "int32");
  c = begin();
  c.p.split_policy = SPLITKV_SPLIT_NONE;
  refused(&c, SPLITKV_ERROR_ASCEND_POLICY, "problem.split_policy", SPLITKV_SPLIT_NONE, "AUTO");
  c = begin();
  c.p.head_dim_v = 64;
  c.p.scale = 1;
  refused(&c, SPLITKV_ERROR_ASCEND_HEAD_DIMS, "problem.head_dim_v", 64, "128");
  c.p.scale = 0; /* no scale of its own, but not what is wrong first of all */
  refused(&c, SPLITKV_ERROR_ASCEND_HEAD_DIMS, "problem.head_dim_v", 64, "128");
  c.t.flags = SPLITKV_ASCEND_UNCHECKED;
  refused(&c, SPLITKV_ERROR_SCALE, "problem.scale", 0, "head_dim_v");
  c = begin();
  c.p.head_dim = c.p.head_dim_v = 512;
  refused(&c, SPLITKV_ERROR_ASCEND_HEAD_DIM, "problem.head_dim", 512, "256");
  c = begin();
  c.p.n_pages = (int64_t)1 << 31;
  refused(&c, SPLITKV_ERROR_ASCEND_OFFSET, "problem.n_pages", (int64_t)1 << 31, "32 bits");
}

static void variants(void) {
  call c = begin();
  c.p.window_tokens = 4096;
  refused(&c, SPLITKV_ERROR_ASCEND_VARIANT, "problem.window_tokens", 4096, "no window");
  c = begin();
  c.p.logit_softcap = 50;
  refused(&c, SPLITKV_ERROR_ASCEND_VARIANT, "problem.logit_softcap", 0, "50");
  c = begin();
  c.p.flags = SPLITKV_FLAG_SINKS;
  refused(&c, SPLITKV_ERROR_ASCEND_VARIANT, "problem.flags", SPLITKV_FLAG_SINKS, "sinks");
  c.p.flags = SPLITKV_FLAG_ALIBI | SPLITKV_FLAG_TRUST_TABLE;
  refused(&c, SPLITKV_ERROR_ASCEND_VARIANT, "problem.flags", SPLITKV_FLAG_ALIBI, "ALiBi");
}

static void on_chip(void) {
  call c = begin();
  c.p.head_dim = c.p.head_dim_v = 256;
  refused(&c, SPLITKV_ERROR_ASCEND_KEY, "problem.page_size_tokens", 128,
          "key 128, at which the kernel does nothing; problem.page_size_tokens=64 would do");
  c = begin();
  c.p.head_dim = c.p.head_dim_v = 192;
  c.p.page_size_tokens = 256;
  refused(&c, SPLITKV_ERROR_ASCEND_TILE, "problem.page_size_tokens", 256,
          "49152 tile tokens x head_dim, the kernel takes 32768; problem.page_size_tokens=128");
  c = begin();
  c.p.head_dim = c.p.head_dim_v = 16;
  c.p.page_size_tokens = 1024;
  c.p.n_heads_q = 32;
  c.t.n_cores = 1;
  refused(&c, SPLITKV_ERROR_ASCEND_TILE, "problem.page_size_tokens", 1024, "=512 would do");
  /* Long enough to be split over all cores, by the pull request's rule. */
  c = begin();
  for (int i = 0; i < 100; ++i)
    lens[i] = 36000;
  c.t.rule = SPLITKV_ASCEND_PR683;
  c.t.n_cores = 100;
  c.b.n_requests = 100;
  refused(&c, SPLITKV_ERROR_ASCEND_SPLITS, "target.n_cores", 100,
          "94 splits, the kernel takes 64; the rule GUARDED would do");
  c.b.n_requests = 1;
  c.t.rule = SPLITKV_ASCEND_GUARDED;
  refused(&c, SPLITKV_ERROR_ASCEND_SPLITS, "target.n_cores", 100, "; target.n_cores=64 would do");
  c.p.head_dim = c.p.head_dim_v = 240;
  c.t.n_cores = 48;
  c.p.page_size_tokens = 64;
  c.p.table_width = 1000;
  refused(&c, SPLITKV_ERROR_ASCEND_COMBINE, "target.n_cores", 48, "; target.n_cores=35 would do");
}

static void accepted(const call *c) {
  splitkv_error error = reject_error();
  CHECK_MSG(splitkv_ascend_tile(&c->p, &c->b, &c->t, NULL, 0, NULL, &error) == SPLITKV_OK, "%s",
            error.message);
}

/* What just fits, and the next. */
static void at_limits(void) {
  call c = begin();
  c.b.n_requests = 1;
  c.p.head_dim = c.p.head_dim_v = 256;
  c.p.page_size_tokens = 64;
  c.p.table_width = 1000;
  c.t.n_cores = 32;
  lens[0] = 64 * 32 * 10;
  accepted(&c); /* 32 x 256 = 8192 */
  c.p.head_dim = c.p.head_dim_v = 200;
  c.t.n_cores = 41;
  lens[0] = 64 * 41 * 10;
  refused(&c, SPLITKV_ERROR_ASCEND_COMBINE, "target.n_cores", 41, "8200 splits x head_dim");
  c = begin();
  c.p.head_dim = c.p.head_dim_v = 16;
  c.p.n_heads_q = 32;
  c.t.n_cores = 1;
  c.p.page_size_tokens = 512;
  accepted(&c); /* 32 x 512 = 16384 */
  c.p.page_size_tokens = 513;
  refused(&c, SPLITKV_ERROR_ASCEND_TILE, "problem.page_size_tokens", 513, "16896 heads of a task");
  /* One request with tokens among 4100, in 36 splits, and 31250 tasks for the heads of each. */
  c = begin();
  memset(lens, 0, sizeof lens);
  lens[7] = 36000;
  c.p.head_dim = c.p.head_dim_v = 1;
  c.p.n_heads_q = 1000000;
  c.p.n_heads_kv = 1;
  c.t.n_cores = 40;
  c.t.rule = SPLITKV_ASCEND_PR683;
  c.b.n_requests = MOST_REQUESTS;
  refused(&c, SPLITKV_ERROR_ASCEND_OFFSET, "batch.n_requests", MOST_REQUESTS,
          "4612500000 tasks, the kernel takes 4294967295; the rule GUARDED would do");
}

static void batches(void) {
  call c = begin();
  c.b.n_requests = 0;
  refused(&c, SPLITKV_ERROR_N_REQUESTS, "batch.n_requests", 0, "");
  c = begin();
  lens[1] = -1;
  refused(&c, SPLITKV_ERROR_KV_LEN, "batch.kv_lens[1]", -1, "");
  lens[1] = 400 * 128 + 1;
  refused(&c, SPLITKV_ERROR_KV_LEN_TABLE, "batch.kv_lens[1]", 51201, "51200");
  lens[0] = lens[1] = 0;
  refused(&c, SPLITKV_ERROR_ASCEND_EMPTY, "batch.kv_lens", 0, "zeros");
  c.p.page_size_tokens = 16;
  c.p.table_width = (int64_t)1 << 30;
  lens[0] = INT32_MAX;
  refused(&c, SPLITKV_ERROR_ASCEND_OFFSET, "batch.kv_lens", INT32_MAX, "32 bits");
  /* 4100 requests x 128 heads x 32 splits x 256 channels pass 2^32. */
  c = begin();
  for (int i = 0; i < MOST_REQUESTS; ++i)
    lens[i] = 16000;
  c.p.n_heads_q = 128;
  c.p.head_dim = c.p.head_dim_v = 256;
  c.p.page_size_tokens = 64;
  c.p.table_width = 1000;
  c.t.n_cores = 32;
  c.b.n_requests = MOST_REQUESTS;
  c.t.rule = SPLITKV_ASCEND_PR683;
  refused(&c, SPLITKV_ERROR_ASCEND_OFFSET, "batch.n_requests", MOST_REQUESTS,
          "elements of o_core, the kernel takes 4294967295; the rule GUARDED would do");
  c.p.n_heads_q = 4096;
  refused(&c, SPLITKV_ERROR_ASCEND_OFFSET, "batch.n_requests", MOST_REQUESTS, "offsets of q");
  /* The last entry of the block table that fits, and one row more. */
  c = begin();
  c.p.table_width = (int64_t)1 << 20;
  c.b.n_requests = 4095;
  CHECK(splitkv_ascend_tile(&c.p, &c.b, &c.t, NULL, 0, NULL, NULL) == SPLITKV_OK);
  c.b.n_requests = 4096;
  refused(&c, SPLITKV_ERROR_ASCEND_OFFSET, "batch.n_requests", 4096, "entries of the block table");
}

static void words_and_sizes(void) {
  call c = begin();
  splitkv_error error = reject_error();
  REJECT(splitkv_ascend_tile(&c.p, &c.b, &c.t, words, 77, NULL, &error), &error,
         SPLITKV_ERROR_ASCEND_WORDS, "n_words", 77);
  error = reject_error();
  REJECT(splitkv_ascend_tile(&c.p, &c.b, &c.t, NULL, 78, NULL, &error), &error,
         SPLITKV_ERROR_NULL_POINTER, "words", 0);
  uint32_t *const beyond = (uint32_t *)(uintptr_t)((uintptr_t)words + 2);
  error = reject_error();
  REJECT(splitkv_ascend_tile(&c.p, &c.b, &c.t, beyond, 78, NULL, &error), &error,
         SPLITKV_ERROR_TENSOR_ALIGNMENT, "words", 2);
  if (!CHECK(splitkv_ascend_tile(&c.p, &c.b, &c.t, words, 78, NULL, NULL) == SPLITKV_OK)) return;
  splitkv_ascend_sizes sizes, before;
  memset(&sizes, 0x3c, sizeof sizes);
  before = sizes;
  error = reject_error();
  REJECT(splitkv_ascend_get_sizes(words, 77, 24, SPLITKV_ASCEND_EXACT, &sizes, &error), &error,
         SPLITKV_ERROR_ASCEND_WORDS, "n_words", 77);
  error = reject_error();
  REJECT(splitkv_ascend_get_sizes(beyond, 78, 24, SPLITKV_ASCEND_EXACT, &sizes, &error), &error,
         SPLITKV_ERROR_TENSOR_ALIGNMENT, "words", 2);
  error = reject_error();
  REJECT(splitkv_ascend_get_sizes(words, 78, 0, SPLITKV_ASCEND_EXACT, &sizes, &error), &error,
         SPLITKV_ERROR_ASCEND_CORES, "n_cores", 0);
  error = reject_error();
  REJECT(splitkv_ascend_get_sizes(words, 78, 24, (splitkv_ascend_sizing)3, &sizes, &error), &error,
         SPLITKV_ERROR_FORMAT, "sizing", 3);
  words[9] = 33;
  error = reject_error();
  REJECT(splitkv_ascend_get_sizes(words, 78, 24, SPLITKV_ASCEND_EXACT, &sizes, &error), &error,
         SPLITKV_ERROR_ASCEND_TASK_HEADS, "words[9], words[11]", 33);
  words[9] = 0;
  error = reject_error();
  REJECT(splitkv_ascend_get_sizes(words, 78, 24, SPLITKV_ASCEND_EXACT, &sizes, &error), &error,
         SPLITKV_ERROR_ASCEND_WORDS, "words[9] (former heads)", 0);
  CHECK(memcmp(&sizes, &before, sizeof sizes) == 0);

  splitkv_limits limits;
  splitkv_limits_init(&limits);
  limits.max_requests = -1;
  error = reject_error();
  REJECT(splitkv_ascend_get_bound(&c.p, &limits, &c.t, &sizes, &error), &error,
         SPLITKV_ERROR_LIMITS, "limits.max_requests", -1);
  limits.max_requests = 4;
  limits.max_kv_tokens_per_request = (int64_t)1 << 31;
  error = reject_error();
  REJECT(splitkv_ascend_get_bound(&c.p, &limits, &c.t, &sizes, &error), &error,
         SPLITKV_ERROR_LIMITS, "limits.max_kv_tokens_per_request", (int64_t)1 << 31);
  CHECK(memcmp(&sizes, &before, sizeof sizes) == 0);
  CHECK(strcmp(splitkv_ascend_buffer_name(SPLITKV_ASCEND_WORDS), "words") == 0);
  CHECK(strcmp(splitkv_ascend_buffer_name((splitkv_ascend_buffer)15), "unknown buffer") == 0);
}

void reject_ascend(void) {
  targets();
  forms();
  variants();
  on_chip();
  at_limits();
  batches();
  words_and_sizes();
}
