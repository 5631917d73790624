/* splitkv_append: K and V of new tokens go into the paged cache.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <splitkv/append.h>

#include "caller.h"
#include "checked.h"
#include "error.h"
#include "problem.h"

#include <stdbool.h>

enum {
  /* Bytes of memory that a task reads and writes: worth waking a thread for. */
  TASK_BYTES = 256 << 10,
  /* Where a call stores so much, whole lines go past the caches. Into them, a line of a page that
   * nobody has touched for long is read before it is written, which takes twice the time. */
  PAST_CACHES_BYTES = 256 << 10
};

/* K or V on its way: what is the same for all tokens. */
typedef struct side {
  spl_append_rule rule;
  const unsigned char *rows;
  unsigned char *cache, *scales;
  int8_t *zeros;
  int64_t row_token;               /* bytes between the new tokens */
  int64_t kv_page, kv_token;       /* bytes */
  int64_t scale_page, scale_token; /* scales */
  int64_t scale_bytes;
} side;

/* What every task of one call shares; read only. */
typedef struct append_job {
  const splitkv_append_args *args;
  const spl_kernel_set *kernels;
  int64_t page_size, task_tokens;
  int64_t rotary_stride;
  int n_sides; /* V only where it is stored */
  side sides[2];
} append_job;

static int64_t load_index(splitkv_index_type type, const void *array, int64_t i) {
  return type == SPLITKV_I32 ? ((const int32_t *)array)[i] : ((const int64_t *)array)[i];
}

/* ── what the caller hands in ───────────────────────────────────────────────────────────────── */

/* K or V: the fields of problem and args that speak of it, and their names. */
typedef struct tensors {
  const char *rows_name, *cache_name, *scales_name, *zeros_name;
  const char *stride_names[2], *mode_name;
  const void *rows, *cache, *scales, *zeros;
  int64_t strides[2]; /* of the new rows, token and head, as given */
  int64_t n_channels;
  splitkv_scale_mode mode;
  spl_cache_strides kv;
  bool is_stored, computes;
} tensors;

static void find_tensors(const spl_shape *shape, const splitkv_append_args *a, tensors *k,
                         tensors *v) {
  const splitkv_problem *p = &shape->problem;
  *k = (tensors){"args.k_new",
                 "args.k",
                 "args.k_scales",
                 "args.k_zeros",
                 {"args.k_new_stride_token", "args.k_new_stride_head"},
                 "problem.k_scale_mode",
                 a->k_new,
                 a->k,
                 a->k_scales,
                 a->k_zeros,
                 {a->k_new_stride_token, a->k_new_stride_head},
                 p->head_dim,
                 p->k_scale_mode,
                 shape->k,
                 true,
                 (a->flags & SPLITKV_APPEND_COMPUTE_K_SCALES) != 0};
  *v = (tensors){"args.v_new",
                 "args.v",
                 "args.v_scales",
                 "args.v_zeros",
                 {"args.v_new_stride_token", "args.v_new_stride_head"},
                 "problem.v_scale_mode",
                 a->v_new,
                 a->v,
                 a->v_scales,
                 a->v_zeros,
                 {a->v_new_stride_token, a->v_new_stride_head},
                 p->head_dim_v,
                 p->v_scale_mode,
                 shape->v,
                 a->v_new != NULL || (a->v != NULL && a->v != a->k),
                 (a->flags & SPLITKV_APPEND_COMPUTE_V_SCALES) != 0};
}

static bool is_by_token(splitkv_scale_mode mode) {
  return mode >= SPLITKV_SCALE_TOKEN;
}

static splitkv_status fail_overflow(splitkv_error *error, const char *field, int64_t value) {
  return spl_fail(error, SPLITKV_ERROR_OVERFLOW, field, value,
                  "with %lld a size does not fit in 64 bits", (long long)value);
}

static splitkv_status check_numbers(const splitkv_append_args *a, splitkv_error *error) {
  const uint32_t known = SPLITKV_APPEND_COMPUTE_K_SCALES | SPLITKV_APPEND_COMPUTE_V_SCALES;
  const struct {
    const char *field;
    int64_t value, lowest, highest;
    splitkv_status status;
  } numbers[] = {
      {"args.n_tokens", a->n_tokens, 0, INT64_MAX, SPLITKV_ERROR_APPEND_TOKENS},
      {"args.dtype_new", (int)a->dtype_new, SPLITKV_F32, SPLITKV_BF16, SPLITKV_ERROR_DTYPE},
      {"args.slot_type", (int)a->slot_type, SPLITKV_I32, SPLITKV_I64, SPLITKV_ERROR_INDEX_TYPE},
      {"args.position_type", (int)a->position_type, SPLITKV_I32, SPLITKV_I64,
       SPLITKV_ERROR_INDEX_TYPE},
      {"args.k_new_stride_token", a->k_new_stride_token, 0, INT64_MAX, SPLITKV_ERROR_STRIDE},
      {"args.k_new_stride_head", a->k_new_stride_head, 0, INT64_MAX, SPLITKV_ERROR_STRIDE},
      {"args.v_new_stride_token", a->v_new_stride_token, 0, INT64_MAX, SPLITKV_ERROR_STRIDE},
      {"args.v_new_stride_head", a->v_new_stride_head, 0, INT64_MAX, SPLITKV_ERROR_STRIDE},
      {"args.rotary_stride", a->rotary_stride, 0, INT64_MAX, SPLITKV_ERROR_STRIDE},
      {"args.reserved", a->reserved, 0, 0, SPLITKV_ERROR_RESERVED},
  };
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    if (numbers[i].value >= numbers[i].lowest && numbers[i].value <= numbers[i].highest) continue;
    return spl_fail(error, numbers[i].status, numbers[i].field, numbers[i].value,
                    "%lld is outside %lld..%lld", (long long)numbers[i].value,
                    (long long)numbers[i].lowest, (long long)numbers[i].highest);
  }
  if ((a->flags & ~known) == 0) return SPLITKV_OK;
  return spl_fail(error, SPLITKV_ERROR_FLAGS, "args.flags", a->flags,
                  "0x%x has bits that this library does not know", (unsigned)a->flags);
}

static splitkv_status check_rotary(const splitkv_problem *p, const splitkv_append_args *a,
                                   splitkv_error *error) {
  if (a->rotary_dim < 0 || a->rotary_dim > p->head_dim || a->rotary_dim % 2 != 0) {
    return spl_fail(error, SPLITKV_ERROR_APPEND_ROTARY, "args.rotary_dim", a->rotary_dim,
                    "%lld is no even number in 0..head_dim, which is %lld",
                    (long long)a->rotary_dim, (long long)p->head_dim);
  }
  if ((int)a->rotary_style < 0 || (int)a->rotary_style > SPLITKV_ROTARY_INTERLEAVED) {
    return spl_fail(error, SPLITKV_ERROR_APPEND_ROTARY, "args.rotary_style", (int)a->rotary_style,
                    "%d is no style", (int)a->rotary_style);
  }
  if (a->n_positions < 0) {
    return spl_fail(error, SPLITKV_ERROR_APPEND_ROTARY, "args.n_positions", a->n_positions,
                    "%lld is negative", (long long)a->n_positions);
  }
  int64_t floats = a->rotary_dim / 2, bytes = 0;
  if (!spl_mul_add(spl_max(a->n_positions - 1, 0), a->rotary_stride, &floats) ||
      !spl_mul(floats, (int64_t)sizeof(float), &bytes) ||
      !spl_mul(a->n_positions, a->rotary_dim / 2 * (int64_t)sizeof(float), &bytes)) {
    return fail_overflow(error, "args.n_positions", a->n_positions);
  }
  return SPLITKV_OK;
}

static splitkv_status fail_unused(splitkv_error *error, const char *field, const char *why) {
  return spl_fail(error, SPLITKV_ERROR_TENSOR_UNUSED, field, 0, "%s; it must be null", why);
}

/* NULL_POINTER, TENSOR_ALIGNMENT where a pointer may be given, TENSOR_UNUSED where not. */
static splitkv_status check_optional(splitkv_error *error, const char *field, const void *pointer,
                                     int may, int must, int64_t alignment, const char *why_not) {
  if (pointer != NULL && !may) return fail_unused(error, field, why_not);
  return spl_check_pointer(error, field, pointer, must, alignment);
}

static splitkv_status check_side(const spl_shape *shape, const splitkv_append_args *a,
                                 const tensors *t, splitkv_error *error) {
  const splitkv_problem *p = &shape->problem;
  const bool has_tokens = a->n_tokens > 0, has_scales = t->mode != SPLITKV_SCALE_NONE;
  const bool has_zeros = has_scales && (p->flags & SPLITKV_FLAG_ZERO_POINTS) != 0;
  const bool is_missing =
      !t->is_stored && has_tokens; /* without tokens there are no rows to give */
  if (t->computes && (is_missing || !is_by_token(t->mode))) {
    return spl_fail(error, SPLITKV_ERROR_APPEND_SCALES, t->mode_name, (int)t->mode,
                    !is_missing ? "scales of mode %d are not by token, so that they cannot be "
                                  "computed from new rows"
                                : "scales of mode %d are to be computed, but v_new is null",
                    (int)t->mode);
  }
  const struct {
    const char *field;
    const void *pointer;
    bool may;
    int64_t alignment;
    const char *why_not;
  } pointers[] = {
      {t->rows_name, t->rows, t->is_stored, spl_dtype_bytes(a->dtype_new), ""},
      {t->cache_name, t->cache, t->is_stored, spl_max(shape->kv_bits / 8, 1), ""},
      {t->scales_name, t->scales, t->is_stored && has_scales, spl_dtype_bytes(p->dtype_scales),
       t->is_stored ? "is given, but the problem's scale mode is NONE"
                    : "is given, but v_new is null"},
      {t->zeros_name, t->zeros, t->is_stored && has_zeros, 1,
       t->is_stored ? "is given, but the problem has no zero points"
                    : "is given, but v_new is null"},
  };
  /* The first two are null where the side is not stored, but for a v that is k. */
  for (int i = t->is_stored ? 0 : 2; i < 4; i++) {
    const splitkv_status status =
        check_optional(error, pointers[i].field, pointers[i].pointer, pointers[i].may,
                       pointers[i].may && has_tokens, pointers[i].alignment, pointers[i].why_not);
    if (status != SPLITKV_OK) return status;
  }
  return SPLITKV_OK;
}

static splitkv_status check_pointers(const spl_shape *shape, const splitkv_append_args *a,
                                     const tensors *k, const tensors *v, splitkv_error *error) {
  if (a->v_new != NULL && a->v != NULL && a->v == a->k) {
    return fail_unused(error, "args.v_new", "is given, but v is k, so that V aliases K");
  }
  splitkv_status status = check_side(shape, a, k, error);
  if (status != SPLITKV_OK) return status;
  status = check_side(shape, a, v, error);
  if (status != SPLITKV_OK) return status;
  const int has_tokens = a->n_tokens > 0, rotates = a->rotary_dim > 0;
  status = spl_check_pointer(error, "args.slot_mapping", a->slot_mapping, has_tokens,
                             spl_index_bytes(a->slot_type));
  const struct {
    const char *field;
    const void *pointer;
    int64_t alignment;
  } tables[] = {{"args.cos", a->cos, (int64_t)sizeof(float)},
                {"args.sin", a->sin, (int64_t)sizeof(float)},
                {"args.positions", a->positions, spl_index_bytes(a->position_type)}};
  for (int i = 0; i < 3 && status == SPLITKV_OK; i++) {
    status =
        check_optional(error, tables[i].field, tables[i].pointer, rotates, rotates && has_tokens,
                       tables[i].alignment, "is given, but rotary_dim is 0");
  }
  return status;
}

static splitkv_status check_places(const spl_shape *shape, const splitkv_append_args *a,
                                   splitkv_error *error) {
  const splitkv_problem *p = &shape->problem;
  int64_t n_slots = 0;
  if (!spl_mul(p->n_pages, p->page_size_tokens, &n_slots)) n_slots = INT64_MAX;
  for (int64_t t = 0; t < a->n_tokens; t++) {
    const int64_t slot = load_index(a->slot_type, a->slot_mapping, t);
    if (slot == -1) continue;
    if (slot < 0 || slot >= n_slots) {
      return spl_fail(error, SPLITKV_ERROR_APPEND_SLOT, "args.slot_mapping", slot,
                      "token %lld has slot %lld, the cache has slots 0..%lld", (long long)t,
                      (long long)slot, (long long)n_slots - 1);
    }
    if (a->rotary_dim == 0) continue;
    const int64_t position = load_index(a->position_type, a->positions, t);
    if (position < 0 || position >= a->n_positions) {
      return spl_fail(error, SPLITKV_ERROR_APPEND_POSITION, "args.positions", position,
                      "token %lld has position %lld, the tables have positions 0..%lld",
                      (long long)t, (long long)position, (long long)a->n_positions - 1);
    }
  }
  return SPLITKV_OK;
}

/* ── K or V on its way ──────────────────────────────────────────────────────────────────────── */

/* Bytes from one of `count` to the next; 0 where there is no next one, whatever the stride. */
static int64_t kv_step(const spl_shape *shape, int64_t count, int64_t stride) {
  return count > 1 ? spl_kv_bytes(shape, stride) : 0;
}

/* Where the scales of a token and of its heads lie. */
static splitkv_status place_scales(const splitkv_problem *p, const tensors *t, side *s,
                                   splitkv_error *error) {
  /* By splitkv_scale_mode: channels that share a scale, where not all do. */
  static const int64_t channels[] = {0, 0, 0, 1, 0, 32, 64};
  const int64_t shared = channels[t->mode],
                n = shared > 0 ? spl_ceil_div(t->n_channels, shared) : 1;
  s->rule.scale_channels = shared > 0 ? shared : spl_ceil_div(t->n_channels, SPL_LANES) * SPL_LANES;
  s->rule.scale_head = t->mode == SPLITKV_SCALE_TENSOR ? 0 : n;
  if (!is_by_token(t->mode)) return SPLITKV_OK;
  int64_t of_token = 0, of_head = 0, of_page = 0, all = 0;
  if (!spl_mul(p->n_heads_kv, n, &of_token) || !spl_mul(p->page_size_tokens, n, &of_head) ||
      !spl_mul(p->page_size_tokens, of_token, &of_page) || !spl_mul(p->n_pages, of_page, &all) ||
      !spl_mul(all, s->scale_bytes, &all)) {
    return fail_overflow(error, "problem.n_pages", p->n_pages);
  }
  const bool is_hnd = p->layout == SPLITKV_LAYOUT_HND;
  s->rule.scale_head = is_hnd ? of_head : n;
  s->scale_token = is_hnd ? n : of_token;
  s->scale_page = of_page;
  return SPLITKV_OK;
}

static splitkv_status resolve_side(const spl_shape *shape, const splitkv_append_args *a,
                                   const tensors *t, side *s, splitkv_error *error) {
  const splitkv_problem *p = &shape->problem;
  const int64_t new_bytes = spl_dtype_bytes(a->dtype_new);
  const int64_t head = t->strides[1] != 0 ? t->strides[1] : t->n_channels;
  int64_t token = t->strides[0], end = t->n_channels, bytes = 0;
  if (token == 0 && !spl_mul(p->n_heads_kv, head, &token)) {
    return fail_overflow(error, t->stride_names[1], head);
  }
  if (!spl_mul_add(head, p->n_heads_kv - 1, &end) ||
      !spl_mul_add(token, spl_max(a->n_tokens - 1, 0), &end) || !spl_mul(end, new_bytes, &bytes)) {
    return fail_overflow(error, "args.n_tokens", a->n_tokens);
  }
  const bool has_scales = t->mode != SPLITKV_SCALE_NONE;
  *s = (side){.rule = {.n_heads = p->n_heads_kv,
                       .n_channels = t->n_channels,
                       .dtype_new = (int)a->dtype_new,
                       .dtype_kv = (int)p->dtype_kv,
                       .new_head = p->n_heads_kv > 1 ? head * new_bytes : 0,
                       .kv_head = kv_step(shape, p->n_heads_kv, t->kv.head),
                       .has_scales = has_scales,
                       .has_zeros = has_scales && (p->flags & SPLITKV_FLAG_ZERO_POINTS) != 0,
                       .has_f16_scales = p->dtype_scales == SPLITKV_F16,
                       .computes_scales = t->computes},
              .rows = (const unsigned char *)t->rows,
              .row_token = a->n_tokens > 1 ? token * new_bytes : 0,
              .kv_page = kv_step(shape, p->n_pages, t->kv.page),
              .kv_token = kv_step(shape, p->page_size_tokens, t->kv.token),
              .scale_bytes = spl_dtype_bytes(p->dtype_scales)};
  return place_scales(p, t, s, error);
}

/* ── tasks ──────────────────────────────────────────────────────────────────────────────────── */

static void append_token(const append_job *job, const side *s, int64_t t, int64_t page,
                         int64_t place) {
  const splitkv_append_args *a = job->args;
  const int64_t scale = page * s->scale_page + place * s->scale_token;
  spl_append_token token = {.row = s->rows + t * s->row_token,
                            .kv = s->cache + page * s->kv_page + place * s->kv_token};
  if (s->rule.has_scales) token.scales = s->scales + scale * s->scale_bytes;
  if (s->rule.has_zeros) token.zeros = s->zeros + scale;
  if (s->rule.rotary_dim > 0) {
    const int64_t position = load_index(a->position_type, a->positions, t);
    token.cos = a->cos + position * job->rotary_stride;
    token.sin = a->sin + position * job->rotary_stride;
  }
  job->kernels->append(&s->rule, &token);
}

static void append_task(void *context, int64_t task) {
  const append_job *job = (const append_job *)context;
  const splitkv_append_args *a = job->args;
  const int64_t first = task * job->task_tokens;
  const int64_t end = first + spl_min(job->task_tokens, a->n_tokens - first);
  for (int64_t t = first; t < end; t++) {
    const int64_t slot = load_index(a->slot_type, a->slot_mapping, t);
    if (slot < 0) continue;
    const int64_t page = slot / job->page_size, place = slot % job->page_size;
    for (int i = 0; i < job->n_sides; i++)
      append_token(job, &job->sides[i], t, page, place);
  }
  job->kernels->append_end();
}

/* Bytes of one token's rows, at most 2^63: new ones and those in the cache exist in memory. */
static void count_bytes(const append_job *job, const spl_shape *shape, int64_t *read,
                        int64_t *written) {
  *read = *written = 0;
  for (int i = 0; i < job->n_sides; i++) {
    const spl_append_rule *rule = &job->sides[i].rule;
    *read += rule->n_heads * rule->n_channels * spl_dtype_bytes((splitkv_dtype)rule->dtype_new);
    *written += rule->n_heads * spl_kv_bytes(shape, rule->n_channels);
  }
}

static void run_tasks(append_job *job, const spl_shape *shape, const splitkv_pool *pool) {
  int64_t read = 0, written = 0;
  count_bytes(job, shape, &read, &written);
  for (int i = 0; i < job->n_sides; i++)
    job->sides[i].rule.passes_caches = job->args->n_tokens >= PAST_CACHES_BYTES / written;
  job->task_tokens = spl_max(TASK_BYTES / (read + written), 1);
  spl_parallel_for(pool, spl_ceil_div(job->args->n_tokens, job->task_tokens), append_task, job);
}

splitkv_status splitkv_append(const splitkv_problem *problem, const splitkv_append_args *args,
                              const splitkv_pool *pool, splitkv_error *error) {
  spl_shape shape;
  splitkv_status status = spl_resolve(problem, &shape, error);
  if (status != SPLITKV_OK) return status;
  const splitkv_problem *p = &shape.problem;
  append_job job = {.args = args, .kernels = shape.kernels, .page_size = p->page_size_tokens};

  if (args == NULL) return spl_fail_null(error, "args");
  status = spl_check_struct_size(error, "args.struct_size", args->struct_size, sizeof *args,
                                 sizeof *args);
  if (status != SPLITKV_OK) return status;
  status = check_numbers(args, error);
  if (status != SPLITKV_OK) return status;
  status = check_rotary(p, args, error);
  if (status != SPLITKV_OK) return status;
  tensors both[2];
  find_tensors(&shape, args, &both[0], &both[1]);
  status = check_pointers(&shape, args, &both[0], &both[1], error);
  if (status != SPLITKV_OK) return status;
  job.n_sides = both[1].is_stored ? 2 : 1;
  for (int i = 0; i < job.n_sides; i++) {
    status = resolve_side(&shape, args, &both[i], &job.sides[i], error);
    if (status != SPLITKV_OK) return status;
  }
  status = spl_check_pool(pool, error);
  if (status != SPLITKV_OK) return status;
  status = check_places(&shape, args, error);
  if (status != SPLITKV_OK || args->n_tokens == 0) return status;

  side *k = &job.sides[0], *v = &job.sides[1];
  k->cache = (unsigned char *)args->k, k->scales = (unsigned char *)args->k_scales;
  k->zeros = args->k_zeros;
  k->rule.rotary_dim = args->rotary_dim;
  k->rule.is_interleaved = args->rotary_style == SPLITKV_ROTARY_INTERLEAVED;
  job.rotary_stride = args->rotary_stride != 0 ? args->rotary_stride : args->rotary_dim / 2;
  if (job.n_sides == 2) {
    v->cache = (unsigned char *)args->v, v->scales = (unsigned char *)args->v_scales;
    v->zeros = args->v_zeros;
  }
  run_tasks(&job, &shape, pool);
  return SPLITKV_OK;
}
