/* Fuzzes describe, sizes and plan with any numbers at all in the structs.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#define _POSIX_C_SOURCE 200809L /* posix_memalign */
#include "lib_plan_check.h"

enum { MAX_REQUESTS = 6, MAX_PLAN_BYTES = 1 << 20 };

/* Begins as a good problem; the input says how many fields it changes, and to what. */
static void read_problem(fuzz_input *in, splitkv_problem *p) {
  splitkv_problem_init(p);
  p->n_heads_q = fuzz_range(in, 1, 8);
  p->n_heads_kv = 1;
  p->head_dim = p->head_dim_v = fuzz_range(in, 1, 200);
  p->page_size_tokens = fuzz_range(in, 1, 200);
  p->n_pages = fuzz_range(in, 0, 255);
  p->table_format = SPLITKV_TABLE_CSR;
  int64_t *const numbers[] = {
      &p->n_heads_q,        &p->n_heads_kv,     &p->head_dim,           &p->head_dim_v,
      &p->page_size_tokens, &p->n_pages,        &p->split_value,        &p->table_width,
      &p->q_stride_request, &p->q_stride_head,  &p->out_stride_request, &p->out_stride_head,
      &p->k_stride_page,    &p->k_stride_token, &p->k_stride_head,      &p->v_stride_page,
      &p->v_stride_token,   &p->v_stride_head,
  };
  for (int64_t n = fuzz_range(in, 0, 7); n > 0; --n) {
    const size_t which = (size_t)fuzz_range(in, 0, 35);
    const int64_t number = fuzz_number(in);
    const unsigned small = (unsigned)number;
    switch (which) {
    case 18:
      p->dtype_q = (splitkv_dtype)small;
      break;
    case 19:
      p->dtype_kv = (splitkv_dtype)small;
      break;
    case 20:
      p->dtype_out = (splitkv_dtype)small;
      break;
    case 21:
      p->layout = (splitkv_layout)small;
      break;
    case 22:
      p->table_format = (splitkv_table_format)small;
      break;
    case 23:
      p->table_type = (splitkv_index_type)small;
      break;
    case 24:
    case 25:
      p->split_policy = (splitkv_split_policy)small;
      break;
    case 26:
      p->isa = (splitkv_isa)small;
      break;
    case 27:
      p->flags = small;
      break;
    case 28:
      memcpy(&p->scale, &small, sizeof p->scale);
      break;
    case 29:
      p->scale = 0.25F;
      break;
    case 31:
      p->arithmetic = (splitkv_arithmetic)small;
      break;
    case 32:
    case 33:
      p->window_tokens = number;
      break;
    case 34:
      memcpy(&p->logit_softcap, &small, sizeof p->logit_softcap);
      break;
    case 35:
      p->reserved2 = small;
      break;
    case 30:
      p->struct_size = (size_t)number;
      break;
    default:
      *numbers[which % 18] = number;
      break;
    }
  }
}

/* Bounds of limits, and bounds of wider limits. */
static splitkv_status check_sizes(fuzz_input *in, const splitkv_problem *p,
                                  splitkv_status described) {
  splitkv_limits limits;
  splitkv_limits_init(&limits);
  limits.max_requests = fuzz_number(in);
  limits.max_kv_tokens_total = fuzz_number(in);
  limits.max_kv_tokens_per_request = fuzz_number(in);
  limits.max_workers = fuzz_number(in);
  splitkv_error error;
  splitkv_sizes sizes = {0, 0}, wider = {0, 0};
  const splitkv_status status = splitkv_get_sizes(p, &limits, &sizes, &error);
  check_error(status, &error);
  FUZZ_CHECK(described == SPLITKV_OK || status == described);
  int64_t *const fields[] = {&limits.max_requests, &limits.max_kv_tokens_total,
                             &limits.max_kv_tokens_per_request, &limits.max_workers};
  int64_t *const field = fields[fuzz_range(in, 0, 3)];
  const int64_t more = fuzz_number(in);
  if (status != SPLITKV_OK || more < 0 || *field > INT64_MAX - more) return status;
  *field += more;
  if (splitkv_get_sizes(p, &limits, &wider, NULL) == SPLITKV_OK)
    FUZZ_CHECK(wider.plan_bytes >= sizes.plan_bytes &&
               wider.workspace_bytes >= sizes.workspace_bytes);
  return status;
}

/* Tokens inside the window, as far as the struct's size has one. */
static int64_t tokens_inside(const splitkv_problem *p, int64_t kv_len) {
  splitkv_problem known;
  memset(&known, 0, sizeof known);
  memcpy(&known, p, p->struct_size < sizeof known ? p->struct_size : sizeof known);
  return known.window_tokens > 0 && known.window_tokens < kv_len ? known.window_tokens : kv_len;
}

static void check_bound(const splitkv_problem *p, const splitkv_batch *b, const int64_t *lens,
                        const splitkv_plan *plan, size_t plan_bytes) {
  splitkv_limits limits;
  splitkv_limits_init(&limits);
  limits.max_requests = b->n_requests;
  limits.max_workers = b->n_workers;
  int64_t inside = 0;
  for (int64_t i = 0; i < b->n_requests; ++i) {
    inside += tokens_inside(p, lens[i]);
    limits.max_kv_tokens_total += lens[i];
    if (lens[i] > limits.max_kv_tokens_per_request) limits.max_kv_tokens_per_request = lens[i];
  }
  splitkv_sizes sizes;
  if (splitkv_get_sizes(p, &limits, &sizes, NULL) == SPLITKV_OK)
    FUZZ_CHECK(sizes.plan_bytes >= plan_bytes &&
               sizes.workspace_bytes >= splitkv_plan_workspace_bytes(plan));
  check_plan(plan, inside, p->n_heads_kv);
}

static void check_planning(fuzz_input *in, const splitkv_problem *p, splitkv_status described) {
  int64_t lens[MAX_REQUESTS];
  splitkv_batch b;
  splitkv_batch_init(&b);
  b.n_requests = fuzz_range(in, 0, MAX_REQUESTS);
  for (int64_t i = 0; i < b.n_requests; ++i)
    lens[i] = fuzz_number(in);
  b.kv_lens = lens;
  b.kv_lens_type = SPLITKV_I64;
  b.n_workers = fuzz_range(in, 0, 15) == 0 ? fuzz_number(in) : fuzz_range(in, 1, 40);
  splitkv_error error;
  size_t bytes = 0;
  const splitkv_status status = splitkv_plan_size(p, &b, &bytes, &error);
  check_error(status, &error);
  FUZZ_CHECK(described == SPLITKV_OK || status == described);
  if (status != SPLITKV_OK || bytes > MAX_PLAN_BYTES) return;
  /* Storage of exactly the stated size, so that a sanitizer sees one byte too many. */
  void *storage = NULL;
  if (posix_memalign(&storage, SPLITKV_ALIGNMENT, bytes) != 0) return;
  splitkv_plan *plan = NULL;
  FUZZ_CHECK(splitkv_plan_init(storage, bytes - 1, p, &b, &plan, &error) ==
             SPLITKV_ERROR_PLAN_STORAGE);
  FUZZ_CHECK(splitkv_plan_init(storage, bytes, p, &b, &plan, &error) == SPLITKV_OK);
  check_bound(p, &b, lens, plan, bytes);
  free(storage);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_input in = {data, size};
  splitkv_problem p;
  read_problem(&in, &p);
  const splitkv_problem before = p;
  splitkv_error error;
  const splitkv_status described = splitkv_describe(&p, &error);
  check_error(described, &error);
  (void)check_sizes(&in, &p, described);
  check_planning(&in, &p, described);
  FUZZ_CHECK(memcmp(&p, &before, sizeof p) == 0);
  return 0;
}
