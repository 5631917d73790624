/* Validating a problem: every rejection has its own status.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "problem.h"

#include <float.h>
#include <math.h>

#include "checked.h"
#include "cpu/dispatch.h"
#include "cpu/isa.h"
#include "error.h"

/* Problems are compared as bytes, so they must have no padding. */
_Static_assert(sizeof(splitkv_problem) == sizeof(size_t) + 18 * sizeof(int64_t) +
                                              9 * sizeof(splitkv_dtype) + 2 * sizeof(uint32_t) +
                                              sizeof(float) + /* and since the first header: */
                                              sizeof(int64_t) + sizeof(float) + sizeof(uint32_t) +
                                              3 * sizeof(int64_t) + 4 * sizeof(uint32_t),
               "padding in splitkv_problem");

static const double log2e = 1.4426950408889634;

int64_t spl_dtype_bytes(splitkv_dtype dtype) {
  switch ((int)dtype) {
  case SPLITKV_F32:
    return 4;
  case SPLITKV_F16:
  case SPLITKV_BF16:
    return 2;
  default:
    return 0;
  }
}

int64_t spl_index_bytes(splitkv_index_type type) {
  switch ((int)type) {
  case SPLITKV_I32:
    return 4;
  case SPLITKV_I64:
    return 8;
  default:
    return 0;
  }
}

splitkv_status spl_import_problem(const splitkv_problem *problem, splitkv_problem *full,
                                  splitkv_error *error) {
  return spl_import(error, "problem.struct_size", problem, offsetof(splitkv_problem, arithmetic),
                    full, sizeof *full);
}

/* One number that must lie in [lowest, highest]. */
typedef struct range {
  const char *field;
  int64_t value, lowest, highest;
  splitkv_status status;
} range;

static splitkv_status check_ranges(const range *ranges, int n, splitkv_error *error) {
  for (int i = 0; i < n; i++) {
    const range *r = &ranges[i];
    if (r->value >= r->lowest && r->value <= r->highest) continue;
    return spl_fail(error, r->status, r->field, r->value, "%lld is outside %lld..%lld",
                    (long long)r->value, (long long)r->lowest, (long long)r->highest);
  }
  return SPLITKV_OK;
}
#define CHECK_RANGES(ranges, error)                                                                \
  check_ranges((ranges), (int)(sizeof(ranges) / sizeof(ranges)[0]), (error))

static splitkv_status check_counts(const splitkv_problem *p, splitkv_error *error) {
  const range counts[] = {
      {"problem.n_heads_q", p->n_heads_q, 1, INT32_MAX, SPLITKV_ERROR_N_HEADS_Q},
      {"problem.n_heads_kv", p->n_heads_kv, 1, INT32_MAX, SPLITKV_ERROR_N_HEADS_KV},
      {"problem.head_dim", p->head_dim, 1, SPLITKV_MAX_HEAD_DIM, SPLITKV_ERROR_HEAD_DIM},
      {"problem.head_dim_v", p->head_dim_v, 1, SPLITKV_MAX_HEAD_DIM, SPLITKV_ERROR_HEAD_DIM_V},
      {"problem.page_size_tokens", p->page_size_tokens, 1, INT64_MAX, SPLITKV_ERROR_PAGE_SIZE},
      {"problem.n_pages", p->n_pages, 0, INT64_MAX, SPLITKV_ERROR_N_PAGES},
      {"problem.dtype_q", (int)p->dtype_q, SPLITKV_F32, SPLITKV_BF16, SPLITKV_ERROR_DTYPE},
      {"problem.dtype_kv", (int)p->dtype_kv, SPLITKV_F32, SPLITKV_INT4, SPLITKV_ERROR_DTYPE},
      {"problem.dtype_out", (int)p->dtype_out, SPLITKV_F32, SPLITKV_BF16, SPLITKV_ERROR_DTYPE},
      {"problem.layout", (int)p->layout, SPLITKV_LAYOUT_NHD, SPLITKV_LAYOUT_STRIDES,
       SPLITKV_ERROR_LAYOUT},
      {"problem.table_format", (int)p->table_format, SPLITKV_TABLE_DENSE, SPLITKV_TABLE_CSR,
       SPLITKV_ERROR_TABLE_FORMAT},
      {"problem.table_type", (int)p->table_type, SPLITKV_I32, SPLITKV_I64,
       SPLITKV_ERROR_INDEX_TYPE},
      {"problem.table_width", p->table_width, 0,
       p->table_format == SPLITKV_TABLE_DENSE ? INT64_MAX : 0, SPLITKV_ERROR_TABLE_WIDTH},
      {"problem.split_policy", (int)p->split_policy, SPLITKV_SPLIT_AUTO, SPLITKV_SPLIT_NONE,
       SPLITKV_ERROR_SPLIT_POLICY},
      {"problem.arithmetic", (int)p->arithmetic, SPLITKV_ARITHMETIC_F32, SPLITKV_ARITHMETIC_INT8,
       SPLITKV_ERROR_ARITHMETIC},
      {"problem.reserved", p->reserved, 0, 0, SPLITKV_ERROR_RESERVED},
      {"problem.window_tokens", p->window_tokens, 0, INT64_MAX, SPLITKV_ERROR_WINDOW},
      {"problem.reserved2", p->reserved2, 0, 0, SPLITKV_ERROR_RESERVED},
      {"problem.window_right_tokens", p->window_right_tokens, 0, INT64_MAX, SPLITKV_ERROR_WINDOW},
      {"problem.chunk_tokens", p->chunk_tokens, 0, INT64_MAX, SPLITKV_ERROR_CHUNK},
      {"problem.tree_tokens", p->tree_tokens, 0, INT32_MAX, SPLITKV_ERROR_TREE},
      {"problem.k_scale_mode", (int)p->k_scale_mode, SPLITKV_SCALE_NONE, SPLITKV_SCALE_GROUP64,
       SPLITKV_ERROR_SCALE_MODE},
      {"problem.v_scale_mode", (int)p->v_scale_mode, SPLITKV_SCALE_NONE, SPLITKV_SCALE_GROUP64,
       SPLITKV_ERROR_SCALE_MODE},
      {"problem.dtype_scales", (int)p->dtype_scales, SPLITKV_F32, SPLITKV_F16, SPLITKV_ERROR_DTYPE},
      {"problem.reserved3", p->reserved3, 0, 0, SPLITKV_ERROR_RESERVED},
  };
  const splitkv_status status = CHECK_RANGES(counts, error);
  if (status != SPLITKV_OK) return status;
  if (p->n_heads_q % p->n_heads_kv != 0) {
    return spl_fail(error, SPLITKV_ERROR_HEAD_GROUP, "problem.n_heads_q", p->n_heads_q,
                    "%lld query heads are not a multiple of %lld KV heads", (long long)p->n_heads_q,
                    (long long)p->n_heads_kv);
  }
  const int takes_value =
      p->split_policy == SPLITKV_SPLIT_FIXED_SIZE || p->split_policy == SPLITKV_SPLIT_FIXED_COUNT;
  const int64_t most = p->split_policy == SPLITKV_SPLIT_FIXED_SIZE ? INT64_MAX - 1 : INT32_MAX;
  const range value[] = {{"problem.split_value", p->split_value, takes_value ? 1 : 0,
                          takes_value ? most : 0, SPLITKV_ERROR_SPLIT_VALUE}};
  return CHECK_RANGES(value, error);
}

/* A constant as the sum of two f32. */
static void in_two(double x, float *hi, float *lo) {
  *hi = (float)x;
  *lo = (float)(x - (double)*hi);
}

/* The same for a factor of dot products. Where a product with the second part can overflow, that
 * one has the sign of the first: the sum of both products is then infinite with the right sign. */
static void factor_in_two(double x, float *hi, float *lo) {
  in_two(x, hi, lo);
  if (fabsf(*lo) <= 1 || (*lo < 0) == (*hi < 0)) return;
  *hi = nextafterf(*hi, 0);
  *lo = (float)(x - (double)*hi);
}

static splitkv_status resolve_softcap(const splitkv_problem *p, double scale, spl_score_rule *rule,
                                      splitkv_error *error) {
  const double cap = (double)p->logit_softcap, inner = scale / cap, outer = cap * log2e;
  if (!isfinite(p->logit_softcap) || cap < 0) {
    return spl_fail(error, SPLITKV_ERROR_SOFTCAP, "problem.logit_softcap", 0,
                    "%g is not finite and positive", cap);
  }
  if (outer > (double)FLT_MAX || fabs(inner) > (double)FLT_MAX || fabs(inner) < (double)FLT_MIN) {
    return spl_fail(error, SPLITKV_ERROR_SOFTCAP, "problem.logit_softcap", 0,
                    "with %g, %g times log2(e) or scale / %g is no normal f32 number", cap, cap,
                    cap);
  }
  rule->scale = 1; /* the product is exact: the scale comes in two parts */
  rule->is_capped = 1;
  factor_in_two(inner, &rule->inner_hi, &rule->inner_lo);
  in_two(outer, &rule->outer_hi, &rule->outer_lo);
  return SPLITKV_OK;
}

static splitkv_status resolve_scale(const splitkv_problem *p, spl_shape *shape,
                                    splitkv_error *error) {
  if (!isfinite(p->scale)) {
    return spl_fail(error, SPLITKV_ERROR_SCALE, "problem.scale", 0, "%f is not finite",
                    (double)p->scale);
  }
  if (p->scale == 0 && p->head_dim != p->head_dim_v) {
    return spl_fail(error, SPLITKV_ERROR_SCALE, "problem.scale", 0,
                    "0 stands for 1/sqrt(head_dim) only where head_dim == head_dim_v, not for "
                    "%lld and %lld; set it",
                    (long long)p->head_dim, (long long)p->head_dim_v);
  }
  const double scale = p->scale != 0 ? (double)p->scale : 1.0 / sqrt((double)p->head_dim);
  const double base2 = scale * log2e;
  if (fabs(base2) > (double)FLT_MAX) {
    return spl_fail(error, SPLITKV_ERROR_SCALE, "problem.scale", 0,
                    "%g times log2(e) does not fit in f32", (double)p->scale);
  }
  shape->rule = (spl_score_rule){.scale = (float)base2};
  return p->logit_softcap == 0 ? SPLITKV_OK : resolve_softcap(p, scale, &shape->rule, error);
}

static splitkv_status fail_stride(splitkv_error *error, const char *field, int64_t value,
                                  int64_t least) {
  return spl_fail(error, SPLITKV_ERROR_STRIDE, field, value, "%lld is less than %lld",
                  (long long)value, (long long)least);
}

static splitkv_status fail_overflow(splitkv_error *error, const char *field, int64_t value) {
  return spl_fail(error, SPLITKV_ERROR_OVERFLOW, field, value,
                  "with %lld a size does not fit in 64 bits", (long long)value);
}

/* ── quantised KV ───────────────────────────────────────────────────────────────────────────── */

static int64_t kv_bits(splitkv_dtype dtype) {
  switch ((int)dtype) {
  case SPLITKV_INT8:
  case SPLITKV_FP8_E4M3:
  case SPLITKV_FP8_E5M2:
    return 8;
  case SPLITKV_INT4:
    return 4;
  default:
    return 8 * spl_dtype_bytes(dtype);
  }
}

static splitkv_status check_quantised(const splitkv_problem *p, splitkv_error *error) {
  const bool is_plain = p->dtype_kv <= SPLITKV_BF16;
  const struct {
    const char *field;
    splitkv_scale_mode mode;
  } modes[] = {{"problem.k_scale_mode", p->k_scale_mode},
               {"problem.v_scale_mode", p->v_scale_mode}};
  for (int i = 0; i < 2 && is_plain; i++) {
    if (modes[i].mode == SPLITKV_SCALE_NONE) continue;
    return spl_fail(error, SPLITKV_ERROR_SCALE_MODE, modes[i].field, (int)modes[i].mode,
                    "%d is given, but KV in f32, f16 and bf16 has no scales", (int)modes[i].mode);
  }
  const bool is_integer = p->dtype_kv == SPLITKV_INT8 || p->dtype_kv == SPLITKV_INT4;
  if ((p->flags & SPLITKV_FLAG_ZERO_POINTS) && !is_integer) {
    return spl_fail(error, SPLITKV_ERROR_ZERO_POINTS, "problem.flags", p->flags,
                    "0x%x has SPLITKV_FLAG_ZERO_POINTS, which only KV in int8 and int4 takes",
                    (unsigned)p->flags);
  }
  if (p->dtype_kv != SPLITKV_INT4) return SPLITKV_OK;
  const range halves[] = {{"problem.head_dim", p->head_dim, 0, 0, SPLITKV_ERROR_HEAD_DIM},
                          {"problem.head_dim_v", p->head_dim_v, 0, 0, SPLITKV_ERROR_HEAD_DIM_V},
                          {"problem.k_stride_page", p->k_stride_page, 0, 0, SPLITKV_ERROR_STRIDE},
                          {"problem.k_stride_token", p->k_stride_token, 0, 0, SPLITKV_ERROR_STRIDE},
                          {"problem.k_stride_head", p->k_stride_head, 0, 0, SPLITKV_ERROR_STRIDE},
                          {"problem.v_stride_page", p->v_stride_page, 0, 0, SPLITKV_ERROR_STRIDE},
                          {"problem.v_stride_token", p->v_stride_token, 0, 0, SPLITKV_ERROR_STRIDE},
                          {"problem.v_stride_head", p->v_stride_head, 0, 0, SPLITKV_ERROR_STRIDE}};
  for (size_t i = 0; i < sizeof halves / sizeof halves[0]; i++) {
    if (halves[i].value % 2 == 0) continue;
    return spl_fail(error, halves[i].status, halves[i].field, halves[i].value,
                    "%lld is odd, and int4 has two channels to a byte", (long long)halves[i].value);
  }
  return SPLITKV_OK;
}

/* Channels of a group that shares a scale, where scales lie with the tokens; 0: they do not. */
static int64_t channels_of(splitkv_scale_mode mode, int64_t padded) {
  switch ((int)mode) {
  case SPLITKV_SCALE_TOKEN:
    return padded;
  case SPLITKV_SCALE_GROUP32:
    return 32;
  case SPLITKV_SCALE_GROUP64:
    return 64;
  default:
    return 0;
  }
}

/* Scales of the whole tensor, of heads and of channels are taken out of the sums, those of tokens
 * too; of groups they are not, and neither is any scale where codes first lose a zero point that is
 * not the channel's own. */
static spl_quant resolve_quant(const splitkv_problem *p, splitkv_scale_mode mode, int64_t dim,
                               int64_t padded) {
  spl_quant q = {.unit = 1};
  if (p->dtype_kv <= SPLITKV_BF16) return q;
  if (p->dtype_kv == SPLITKV_FP8_E4M3) q.unit = 256; /* the kernels take its codes as f16 */
  const bool is_integer = p->dtype_kv == SPLITKV_INT8 || p->dtype_kv == SPLITKV_INT4;
  const bool zeros = (p->flags & SPLITKV_FLAG_ZERO_POINTS) && mode != SPLITKV_SCALE_NONE;
  const int64_t group = channels_of(mode, padded);
  const bool is_group = mode == SPLITKV_SCALE_GROUP32 || mode == SPLITKV_SCALE_GROUP64;
  q.by_token = group > 0;
  q.folded_stride = mode == SPLITKV_SCALE_CHANNEL ? dim : mode == SPLITKV_SCALE_HEAD ? 1 : 0;
  if (mode == SPLITKV_SCALE_CHANNEL && zeros) {
    q.form = SPL_FORM_CHANNELS;
  } else if (is_group || zeros) {
    q.form = SPL_FORM_ROWS;
    q.has_zeros = is_integer;
    q.zero = p->dtype_kv == SPLITKV_INT4 ? 8 : 0;
  }
  if (q.form == SPL_FORM_ROWS || q.by_token) {
    q.group_size = group > 0 ? group : padded;
    q.n_groups = spl_ceil_div(padded, q.group_size);
    if (is_group) q.n_groups = spl_ceil_div(dim, q.group_size);
  } else if (mode != SPLITKV_SCALE_NONE || q.unit != 1) {
    q.n_folded = mode == SPLITKV_SCALE_CHANNEL ? dim : 1;
  }
  return q;
}

/* Every scale that lies with a token has an int64 offset. */
static splitkv_status check_scale_rows(const splitkv_problem *p, const spl_quant *quant,
                                       splitkv_error *error) {
  int64_t n = 0;
  if (!quant->by_token ||
      (spl_mul(p->n_pages, p->page_size_tokens, &n) && spl_mul(n, p->n_heads_kv, &n) &&
       spl_mul(n, quant->n_groups * (int64_t)sizeof(float), &n))) {
    return SPLITKV_OK;
  }
  return fail_overflow(error, "problem.n_pages", p->n_pages);
}

/* Strides of K or V, by layout or as given. Fits: the last byte of the cache has an int64 offset.
 */
static splitkv_status resolve_cache(const splitkv_problem *p, int64_t dim, int64_t element_bits,
                                    const char *const *fields, const int64_t *given,
                                    spl_cache_strides *strides, splitkv_error *error) {
  if (p->layout == SPLITKV_LAYOUT_STRIDES) {
    for (int i = 0; i < 3; i++) {
      if (given[i] < 0) return fail_stride(error, fields[i], given[i], 0);
    }
    *strides = (spl_cache_strides){given[0], given[1], given[2]};
  } else {
    for (int i = 0; i < 3; i++) {
      if (given[i] == 0) continue;
      return spl_fail(error, SPLITKV_ERROR_STRIDE, fields[i], given[i],
                      "%lld is given, but only SPLITKV_LAYOUT_STRIDES takes strides",
                      (long long)given[i]);
    }
    int64_t per_token = 0, per_head = 0, per_page = 0;
    if (!spl_mul(p->n_heads_kv, dim, &per_token) || !spl_mul(p->page_size_tokens, dim, &per_head) ||
        !spl_mul(p->page_size_tokens, per_token, &per_page)) {
      return fail_overflow(error, "problem.page_size_tokens", p->page_size_tokens);
    }
    *strides = p->layout == SPLITKV_LAYOUT_NHD ? (spl_cache_strides){per_page, per_token, dim}
                                               : (spl_cache_strides){per_page, dim, per_head};
  }
  int64_t end = dim, bytes = 0;
  if (!spl_mul_add(strides->page, spl_max(p->n_pages - 1, 0), &end) ||
      !spl_mul_add(strides->token, p->page_size_tokens - 1, &end) ||
      !spl_mul_add(strides->head, p->n_heads_kv - 1, &end) ||
      !spl_mul(end, spl_ceil_div(element_bits, 8), &bytes)) {
    return fail_overflow(error, "problem.n_pages", p->n_pages);
  }
  return SPLITKV_OK;
}

static splitkv_status resolve_caches(const splitkv_problem *p, spl_shape *shape,
                                     splitkv_error *error) {
  static const char *const k_fields[] = {"problem.k_stride_page", "problem.k_stride_token",
                                         "problem.k_stride_head"};
  static const char *const v_fields[] = {"problem.v_stride_page", "problem.v_stride_token",
                                         "problem.v_stride_head"};
  const int64_t k_given[] = {p->k_stride_page, p->k_stride_token, p->k_stride_head};
  const int64_t v_given[] = {p->v_stride_page, p->v_stride_token, p->v_stride_head};
  const splitkv_status status =
      resolve_cache(p, p->head_dim, shape->kv_bits, k_fields, k_given, &shape->k, error);
  if (status != SPLITKV_OK) return status;
  return resolve_cache(p, p->head_dim_v, shape->kv_bits, v_fields, v_given, &shape->v, error);
}

/* Row strides of Q or out: as given, or contiguous where 0. `least` > 0 asks that rows do not
 * overlap (out). */
static splitkv_status resolve_rows(const splitkv_problem *p, int64_t dim, int64_t least,
                                   const char *const *fields, const int64_t *given,
                                   int64_t *request, int64_t *head, splitkv_error *error) {
  for (int i = 0; i < 2; i++) {
    const int64_t lowest = given[i] == 0 ? 0 : least;
    if (given[i] < lowest) return fail_stride(error, fields[i], given[i], lowest);
  }
  *head = given[1] != 0 ? given[1] : dim;
  if (given[0] != 0) {
    *request = given[0];
    return SPLITKV_OK;
  }
  if (!spl_mul(p->n_heads_q, *head, request)) {
    return fail_overflow(error, "problem.n_heads_q", p->n_heads_q);
  }
  return SPLITKV_OK;
}

static splitkv_status resolve_q_and_out(const splitkv_problem *p, spl_shape *shape,
                                        splitkv_error *error) {
  static const char *const q_fields[] = {"problem.q_stride_request", "problem.q_stride_head"};
  static const char *const out_fields[] = {"problem.out_stride_request", "problem.out_stride_head"};
  const int64_t q_given[] = {p->q_stride_request, p->q_stride_head};
  const int64_t out_given[] = {p->out_stride_request, p->out_stride_head};
  const splitkv_status status =
      resolve_rows(p, p->head_dim, 0, q_fields, q_given, &shape->q_request, &shape->q_head, error);
  if (status != SPLITKV_OK) return status;
  return resolve_rows(p, p->head_dim_v, p->head_dim_v, out_fields, out_given, &shape->out_request,
                      &shape->out_head, error);
}

splitkv_status spl_resolve(const splitkv_problem *problem, spl_shape *shape, splitkv_error *error) {
  splitkv_status status = spl_import_problem(problem, &shape->problem, error);
  if (status != SPLITKV_OK) return status;
  const splitkv_problem *p = &shape->problem;
  status = check_counts(p, error);
  if (status != SPLITKV_OK) return status;
  const uint32_t known = SPLITKV_FLAG_TRUST_TABLE | SPLITKV_FLAG_SINKS | SPLITKV_FLAG_ALIBI |
                         SPLITKV_FLAG_CAUSAL | SPLITKV_FLAG_ZERO_POINTS;
  if ((p->flags & ~known) != 0) {
    return spl_fail(error, SPLITKV_ERROR_FLAGS, "problem.flags", p->flags,
                    "0x%x has bits that this library does not know", (unsigned)p->flags);
  }
  if ((p->flags & SPLITKV_FLAG_CAUSAL) != 0 && p->window_right_tokens != 0) {
    return spl_fail(error, SPLITKV_ERROR_MASK, "problem.window_right_tokens",
                    p->window_right_tokens,
                    "%lld is given beside SPLITKV_FLAG_CAUSAL, which says 1",
                    (long long)p->window_right_tokens);
  }
  status = check_quantised(p, error);
  if (status != SPLITKV_OK) return status;
  status = resolve_scale(p, shape, error);
  if (status != SPLITKV_OK) return status;

  shape->group = p->n_heads_q / p->n_heads_kv;
  shape->d_padded = spl_ceil_div(p->head_dim, SPL_LANES) * SPL_LANES;
  shape->dv_padded = spl_ceil_div(p->head_dim_v, SPL_LANES) * SPL_LANES;
  shape->q_bytes = spl_dtype_bytes(p->dtype_q);
  shape->kv_bits = kv_bits(p->dtype_kv);
  shape->kv_offset = p->dtype_kv == SPLITKV_INT8 ? 128 : 8;
  shape->cpu_bits = spl_cpu_bits();
  shape->k_quant = resolve_quant(p, p->k_scale_mode, p->head_dim, shape->d_padded);
  shape->v_quant = resolve_quant(p, p->v_scale_mode, p->head_dim_v, shape->dv_padded);
  shape->out_bytes = spl_dtype_bytes(p->dtype_out);
  status = check_scale_rows(p, &shape->k_quant, error);
  if (status != SPLITKV_OK) return status;
  status = check_scale_rows(p, &shape->v_quant, error);
  if (status != SPLITKV_OK) return status;
  status = resolve_caches(p, shape, error);
  if (status != SPLITKV_OK) return status;
  status = resolve_q_and_out(p, shape, error);
  if (status != SPLITKV_OK) return status;
  const bool has_plain_codes = shape->k_quant.form == SPL_FORM_PLAIN &&
                               shape->v_quant.form == SPL_FORM_PLAIN &&
                               p->k_scale_mode != SPLITKV_SCALE_CHANNEL;
  status = spl_choose_kernels(p->isa, p->arithmetic, p->dtype_kv, has_plain_codes, &shape->kernels,
                              error);
  if (status != SPLITKV_OK) return status;
  shape->is_side_by_side =
      p->n_heads_kv > 1 && shape->k.head < shape->k.token && shape->v.head < shape->v.token;
  const bool few_heads = shape->group <= shape->kernels->strip_heads;
  shape->together = (shape->is_side_by_side || !few_heads) && shape->group <= SPL_TOGETHER_HEADS &&
                    (int)p->dtype_kv < SPL_N_PLAIN_DTYPES &&
                    shape->kernels->attend_together[p->dtype_kv] != NULL;
  shape->by_strips = shape->together && few_heads;
  return SPLITKV_OK;
}

splitkv_status splitkv_describe(const splitkv_problem *problem, splitkv_error *error) {
  spl_shape shape;
  return spl_resolve(problem, &shape, error);
}
