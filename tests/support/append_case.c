/* SPDX-License-Identifier: Apache-2.0 */
#include "append_case.h"

#include "batch.h"
#include "check.h"
#include "ref.h"
#include "ref_append.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATTERN = 0x5c };

static int64_t pick(rng *r, const int64_t *from, int n) {
  return from[rng_range(r, 0, n - 1)];
}

static bool is_quantised(splitkv_dtype dtype) {
  return dtype > SPLITKV_BF16;
}

static void quantise_randomly(append_spec *spec, rng *r) {
  splitkv_problem *p = &spec->problem;
  p->k_scale_mode = (splitkv_scale_mode)rng_range(r, 0, SPLITKV_SCALE_GROUP64);
  p->v_scale_mode = (splitkv_scale_mode)rng_range(r, 0, SPLITKV_SCALE_GROUP64);
  p->dtype_scales = rng_one_in(r, 2) ? SPLITKV_F16 : SPLITKV_F32;
  if ((p->dtype_kv == SPLITKV_INT8 || p->dtype_kv == SPLITKV_INT4) && rng_one_in(r, 2)) {
    p->flags |= SPLITKV_FLAG_ZERO_POINTS;
    /* Zero points have the shape of scales. */
    if (p->k_scale_mode == 0) p->k_scale_mode = SPLITKV_SCALE_HEAD;
    if (p->v_scale_mode == 0) p->v_scale_mode = SPLITKV_SCALE_TOKEN;
  }
  if (p->k_scale_mode >= SPLITKV_SCALE_TOKEN && !rng_one_in(r, 4))
    spec->flags |= SPLITKV_APPEND_COMPUTE_K_SCALES;
  if (spec->stores_v && p->v_scale_mode >= SPLITKV_SCALE_TOKEN && !rng_one_in(r, 4))
    spec->flags |= SPLITKV_APPEND_COMPUTE_V_SCALES;
}

void append_spec_random(append_spec *spec, rng *r) {
  static const int64_t wide[] = {64, 80, 96, 128, 192, 256, 576}, pages[] = {1, 7, 16, 128};
  memset(spec, 0, sizeof *spec);
  splitkv_problem *p = &spec->problem;
  splitkv_problem_init(p);
  p->dtype_kv = (splitkv_dtype)rng_range(r, SPLITKV_F32, SPLITKV_INT4);
  spec->dtype_new = (splitkv_dtype)rng_range(r, SPLITKV_F32, SPLITKV_BF16);
  p->n_heads_q = p->n_heads_kv = rng_range(r, 1, 3);
  p->head_dim = rng_one_in(r, 3) ? pick(r, wide, 7) : rng_range(r, 1, 70);
  p->head_dim_v = rng_one_in(r, 2) ? p->head_dim : rng_range(r, 1, 70);
  if (p->dtype_kv == SPLITKV_INT4)
    p->head_dim += p->head_dim % 2, p->head_dim_v += p->head_dim_v % 2;
  p->scale = 1;
  p->page_size_tokens = pick(r, pages, 4);
  p->n_pages = rng_range(r, 1, p->page_size_tokens == 128 ? 2 : 6);
  p->layout = (splitkv_layout)rng_range(r, 0, 2);
  spec->stores_v = !rng_one_in(r, 8);
  spec->stride_kind = (int)rng_range(r, 0, 2);
  const int64_t n_slots = p->page_size_tokens * p->n_pages;
  spec->n_tokens = rng_range(r, 0, n_slots < 20 ? n_slots : 20);
  spec->side = (guard_side)rng_range(r, 0, 1);
  spec->has_specials = rng_one_in(r, 3);
  if (is_quantised(p->dtype_kv)) quantise_randomly(spec, r);
  if (p->head_dim > 1 && !rng_one_in(r, 3)) {
    const int64_t most = p->head_dim / 2 * 2;
    spec->rotary_dim = rng_one_in(r, 2) ? most : rng_range(r, 1, most / 2) * 2;
    spec->rotary_style = (splitkv_rotary_style)rng_range(r, 0, 1);
  }
}

/* ── tensors ────────────────────────────────────────────────────────────────────────────────── */

static double number(rng *r, bool has_specials) {
  static const double specials[] = {(double)NAN,
                                    (double)INFINITY,
                                    -(double)INFINITY,
                                    -0.0,
                                    0x1p-130,
                                    -0x1p-20,
                                    60000,
                                    -3e38,
                                    3e38,
                                    0.5,
                                    -1.5,
                                    2.5};
  if (has_specials && rng_one_in(r, 6)) return RNG_PICK(r, specials);
  return (double)(rng_range(r, -2000, 2000) * rng_range(r, 1, 1000)) / 1000000;
}

static guard_buffer buffer(const append_spec *spec, int64_t n, int64_t bytes) {
  guard_buffer b = guard_create((size_t)(n * bytes), spec->side, (size_t)bytes);
  if (b.size_bytes > 0) memset(b.data, PATTERN, b.size_bytes);
  return b;
}

/* [n_tokens, heads, channels] of dtype_new, with strides of their own now and then. */
static guard_buffer new_rows(const append_spec *spec, rng *r, int64_t channels, int64_t *token,
                             int64_t *head) {
  const int64_t heads = spec->problem.n_heads_kv;
  int64_t per_head = channels, per_token = heads * channels;
  if (rng_one_in(r, 3)) {
    *head = per_head = channels + rng_range(r, 0, 5);
    *token = per_token = heads * per_head + rng_range(r, 1, 40);
  }
  const int64_t n = spec->n_tokens == 0
                        ? 0
                        : (spec->n_tokens - 1) * per_token + (heads - 1) * per_head + channels;
  guard_buffer b = buffer(spec, n, (int64_t)ref_dtype_size(spec->dtype_new));
  /* One row in four is all 0 or one number over and over, where scales are at their limits. */
  for (int64_t t = 0; t < spec->n_tokens; ++t)
    for (int64_t h = 0; h < heads; ++h) {
      const int kind = (int)rng_range(r, 0, 7);
      const double same = kind == 0 ? 0 : number(r, false);
      for (int64_t c = 0; c < channels; ++c)
        ref_store(spec->dtype_new, b.data, t * per_token + h * per_head + c,
                  kind < 2 ? same : number(r, spec->has_specials));
    }
  return b;
}

static void put_index(splitkv_index_type type, void *array, int64_t i, int64_t value) {
  if (type == SPLITKV_I32) {
    ((int32_t *)array)[i] = (int32_t)value;
  } else {
    ((int64_t *)array)[i] = value;
  }
}

/* Slots that differ, in no order, and some -1. */
static void fill_slots(append_case *c, const append_spec *spec, rng *r) {
  const int64_t n_slots = spec->problem.page_size_tokens * spec->problem.n_pages;
  int64_t *slots = malloc(sizeof *slots * (size_t)(n_slots + 1));
  if (!slots) exit(2);
  for (int64_t i = 0; i < n_slots; ++i)
    slots[i] = i;
  for (int64_t t = 0; t < spec->n_tokens; ++t) {
    const int64_t other = rng_range(r, t, n_slots - 1), slot = slots[other];
    slots[other] = slots[t];
    put_index(c->args.slot_type, c->inputs[2].data, t, rng_one_in(r, 6) ? -1 : slot);
  }
  free(slots);
}

static void fill_rotary(append_case *c, const append_spec *spec, rng *r) {
  splitkv_append_args *a = &c->args;
  const int64_t half = spec->rotary_dim / 2;
  a->rotary_dim = spec->rotary_dim;
  a->rotary_style = spec->rotary_style;
  if (half == 0) return;
  a->n_positions = rng_range(r, 1, 50);
  const bool is_one_table = rng_one_in(r, 2);
  a->rotary_stride = is_one_table ? 2 * half : 0;
  const int64_t n = a->n_positions * half;
  c->inputs[4] = buffer(spec, is_one_table ? 2 * n : n, (int64_t)sizeof(float));
  c->inputs[5] = buffer(spec, is_one_table ? 0 : n, (int64_t)sizeof(float));
  float *cosines = (float *)(void *)c->inputs[4].data, *sines = (float *)(void *)c->inputs[5].data;
  a->cos = cosines;
  a->sin = is_one_table ? cosines + half : sines;
  for (int64_t i = 0; i < 2 * n; ++i) {
    const float x = (float)rng_range(r, -100000, 100000) / 100000;
    if (is_one_table || i < n) {
      cosines[i] = x;
    } else {
      sines[i - n] = x;
    }
  }
  for (int64_t t = 0; t < spec->n_tokens; ++t) {
    const int64_t slot = a->slot_type == SPLITKV_I32 ? ((const int32_t *)a->slot_mapping)[t]
                                                     : ((const int64_t *)a->slot_mapping)[t];
    put_index(a->position_type, c->inputs[3].data, t,
              slot < 0 ? -77 : rng_range(r, 0, a->n_positions - 1));
  }
}

/* Strides of a cache of the given kind, with gaps; returns its elements. All even. */
static int64_t cache_strides(const splitkv_problem *p, int kind, int64_t channels, int64_t gap,
                             int64_t *page, int64_t *token, int64_t *head) {
  const int64_t row = channels + gap, heads = p->n_heads_kv, size = p->page_size_tokens;
  if (kind == 0) { /* NHD */
    *head = row, *token = heads * row + gap, *page = size * *token + gap;
  } else if (kind == 1) { /* HND */
    *token = row, *head = size * row + gap, *page = heads * *head + gap;
  } else { /* heads outermost */
    *token = row, *page = size * row + gap, *head = p->n_pages * *page + gap;
  }
  return (p->n_pages - 1) * *page + (size - 1) * *token + (heads - 1) * *head + channels;
}

static int64_t cache_elements(splitkv_problem *p, int kind, bool is_k) {
  const int64_t channels = is_k ? p->head_dim : p->head_dim_v;
  if (p->layout != SPLITKV_LAYOUT_STRIDES)
    return p->n_pages * p->page_size_tokens * p->n_heads_kv * channels;
  return is_k ? cache_strides(p, kind, channels, 6, &p->k_stride_page, &p->k_stride_token,
                              &p->k_stride_head)
              : cache_strides(p, kind, channels, 4, &p->v_stride_page, &p->v_stride_token,
                              &p->v_stride_head);
}

static int64_t n_scales(const splitkv_problem *p, splitkv_scale_mode mode, int64_t channels) {
  const int64_t tokens = p->n_pages * p->page_size_tokens, heads = p->n_heads_kv;
  const int64_t counts[] = {0,
                            1,
                            heads,
                            heads * channels,
                            tokens * heads,
                            tokens * heads * ((channels + 31) / 32),
                            tokens * heads * ((channels + 63) / 64)};
  return counts[mode];
}

/* Scales as a caller would give them, and zero points. */
static void fill_scales(append_case *c, const append_spec *spec, rng *r, int half) {
  const splitkv_problem *p = &spec->problem;
  const splitkv_scale_mode mode = half == 0 ? p->k_scale_mode : p->v_scale_mode;
  const int64_t n = n_scales(p, mode, half == 0 ? p->head_dim : p->head_dim_v);
  const bool has_zeros = (p->flags & SPLITKV_FLAG_ZERO_POINTS) != 0;
  guard_buffer *scales = &c->outputs[APPEND_K_SCALES + half];
  guard_buffer *zeros = &c->outputs[APPEND_K_ZEROS + half];
  *scales = buffer(spec, n, (int64_t)ref_dtype_size(p->dtype_scales));
  *zeros = buffer(spec, has_zeros ? n : 0, 1);
  for (int64_t i = 0; i < n; ++i) {
    double scale = (double)rng_range(r, 1, 1000) / 16384;
    if (spec->has_specials && rng_one_in(r, 20)) scale = rng_one_in(r, 2) ? 0 : (double)INFINITY;
    ref_store(p->dtype_scales, scales->data, i, scale);
    if (has_zeros) zeros->data[i] = (unsigned char)rng_range(r, 0, 255);
  }
}

static uint64_t fnv(uint64_t digest, const unsigned char *data, size_t size) {
  for (size_t i = 0; i < size; ++i)
    digest = (digest ^ data[i]) * 0x100000001b3ULL;
  return digest;
}

static uint64_t digest_of(const guard_buffer *buffers, int n) {
  uint64_t digest = 0xcbf29ce484222325ULL;
  for (int i = 0; i < n; ++i)
    digest = fnv(digest, buffers[i].data, buffers[i].size_bytes);
  return digest;
}

static unsigned char *copy_of(const guard_buffer *b) {
  unsigned char *copy = malloc(b->size_bytes + 1);
  if (!copy) exit(2);
  if (b->size_bytes > 0) memcpy(copy, b->data, b->size_bytes);
  return copy;
}

static void build_caches(append_case *c, const append_spec *spec) {
  splitkv_problem *p = &c->problem;
  const int64_t bits = ref_dtype_bits(p->dtype_kv), element_bytes = bits > 8 ? bits / 8 : 1;
  for (int half = 0; half < 2; ++half) {
    const int64_t elements = cache_elements(p, spec->stride_kind, half == 0);
    const int64_t bytes = (elements * bits + 7) / 8;
    guard_buffer *b = &c->outputs[APPEND_K + half];
    const int64_t align = spec->misaligned > 0 ? 64 : element_bytes;
    *b = guard_create((size_t)(half == 1 && !spec->stores_v ? 0 : bytes + spec->misaligned),
                      spec->side, (size_t)align);
    if (b->size_bytes > 0) memset(b->data, PATTERN, b->size_bytes);
  }
}

/* The six pointers of args that are written through. */
static void set_outputs(append_case *c, const append_spec *spec, unsigned char *const *data) {
  splitkv_append_args *a = &c->args;
  const splitkv_problem *p = &c->problem;
  const bool has_zeros = (p->flags & SPLITKV_FLAG_ZERO_POINTS) != 0;
  a->k = data[APPEND_K] + spec->misaligned;
  a->v = spec->stores_v ? data[APPEND_V] + spec->misaligned : NULL;
  a->k_scales = p->k_scale_mode ? data[APPEND_K_SCALES] : NULL;
  a->v_scales = p->v_scale_mode && spec->stores_v ? data[APPEND_V_SCALES] : NULL;
  a->k_zeros = a->k_scales && has_zeros ? (int8_t *)data[APPEND_K_ZEROS] : NULL;
  a->v_zeros = a->v_scales && has_zeros ? (int8_t *)data[APPEND_V_ZEROS] : NULL;
}

void append_case_build(append_case *c, const append_spec *spec, rng *r) {
  memset(c, 0, sizeof *c);
  c->problem = spec->problem;
  splitkv_append_args *a = &c->args;
  splitkv_append_args_init(a);
  a->n_tokens = spec->n_tokens;
  a->dtype_new = spec->dtype_new;
  a->flags = spec->flags;
  a->slot_type = (splitkv_index_type)rng_range(r, 0, 1);
  a->position_type = (splitkv_index_type)rng_range(r, 0, 1);
  c->inputs[0] =
      new_rows(spec, r, spec->problem.head_dim, &a->k_new_stride_token, &a->k_new_stride_head);
  if (spec->stores_v)
    c->inputs[1] =
        new_rows(spec, r, spec->problem.head_dim_v, &a->v_new_stride_token, &a->v_new_stride_head);
  c->inputs[2] = buffer(spec, spec->n_tokens, a->slot_type == SPLITKV_I32 ? 4 : 8);
  c->inputs[3] = buffer(spec, spec->rotary_dim > 0 ? spec->n_tokens : 0,
                        a->position_type == SPLITKV_I32 ? 4 : 8);
  a->k_new = c->inputs[0].data;
  a->v_new = spec->stores_v ? c->inputs[1].data : NULL;
  a->slot_mapping = c->inputs[2].data;
  a->positions = spec->rotary_dim > 0 ? c->inputs[3].data : NULL;
  fill_slots(c, spec, r);
  fill_rotary(c, spec, r);
  build_caches(c, spec);
  unsigned char *data[N_APPEND_OUTPUTS];
  for (int half = 0; half < 2; ++half)
    fill_scales(c, spec, r, half);
  for (int i = 0; i < N_APPEND_OUTPUTS; ++i) {
    c->before[i] = copy_of(&c->outputs[i]);
    c->want[i] = copy_of(&c->outputs[i]);
    data[i] = c->outputs[i].data;
  }
  set_outputs(c, spec, c->want);
  ref_append(&c->problem, a);
  set_outputs(c, spec, data);
  c->inputs_digest = digest_of(c->inputs, N_APPEND_INPUTS);
}

void append_case_destroy(append_case *c) {
  for (int i = 0; i < N_APPEND_INPUTS; ++i)
    guard_destroy(&c->inputs[i]);
  for (int i = 0; i < N_APPEND_OUTPUTS; ++i) {
    guard_destroy(&c->outputs[i]);
    free(c->before[i]);
    free(c->want[i]);
  }
}

/* ── running ────────────────────────────────────────────────────────────────────────────────── */

static void print_case(const append_case *c, const char *name) {
  const splitkv_problem *p = &c->problem;
  const splitkv_append_args *a = &c->args;
  if (!check_prints()) return;
  fprintf(stderr,
          "  %s: %" PRId64 " tokens of dtype %d into %d, hkv=%" PRId64 " d=%" PRId64 " dv=%" PRId64
          " page=%" PRId64 " n_pages=%" PRId64 " layout=%d scales %d %d of dtype %d flags %x %x"
          " rotary %" PRId64 " style %d, V %s\n",
          name, a->n_tokens, (int)a->dtype_new, (int)p->dtype_kv, p->n_heads_kv, p->head_dim,
          p->head_dim_v, p->page_size_tokens, p->n_pages, (int)p->layout, (int)p->k_scale_mode,
          (int)p->v_scale_mode, (int)p->dtype_scales, (unsigned)p->flags, (unsigned)a->flags,
          a->rotary_dim, (int)a->rotary_style, a->v ? "stored" : "aliases K");
}

static bool compare(const append_case *c, const char *name, const char *set) {
  static const char *const names[] = {"k", "v", "k_scales", "v_scales", "k_zeros", "v_zeros"};
  bool good = true;
  for (int i = 0; i < N_APPEND_OUTPUTS; ++i) {
    const guard_buffer *b = &c->outputs[i];
    good &= CHECK_MSG(guard_is_intact(b), "%s %s: a byte beside %s", name, set, names[i]);
    size_t at = 0;
    while (at < b->size_bytes && b->data[at] == c->want[i][at])
      ++at;
    const bool differs = at < b->size_bytes;
    good &= CHECK_MSG(!differs, "%s %s: byte %zu of %s is %02x, not %02x", name, set, at, names[i],
                      differs ? b->data[at] : 0U, differs ? c->want[i][at] : 0U);
  }
  for (int i = 0; i < N_APPEND_INPUTS; ++i)
    good &= CHECK_MSG(!c->inputs[i].map || guard_is_intact(&c->inputs[i]), "%s %s", name, set);
  return good & CHECK_MSG(digest_of(c->inputs, N_APPEND_INPUTS) == c->inputs_digest,
                          "%s %s: an input has changed", name, set);
}

void append_use(splitkv_problem *p, splitkv_isa isa) {
  p->arithmetic = test_isa_arithmetic(isa);
  p->isa = isa;
  /* A set that does not do these codes: the class f32 takes over. */
  if (splitkv_describe(p, NULL) == SPLITKV_ERROR_ISA_DTYPE) p->isa = SPLITKV_ISA_AUTO;
}

bool append_case_compare(const append_case *c, const char *name) {
  return compare(c, name, "");
}

bool append_case_run(append_case *c, splitkv_isa isa, const splitkv_pool *pool, const char *name) {
  for (int i = 0; i < N_APPEND_OUTPUTS; ++i)
    if (c->outputs[i].size_bytes > 0)
      memcpy(c->outputs[i].data, c->before[i], c->outputs[i].size_bytes);
  splitkv_problem p = c->problem;
  append_use(&p, isa);
  splitkv_error error;
  const splitkv_status status = splitkv_append(&p, &c->args, pool, &error);
  const char *set = test_isa_name(isa);
  const bool good = CHECK_MSG(status == SPLITKV_OK, "%s %s: %.199s", name, set,
                              status == SPLITKV_OK ? "" : error.message) &&
                    compare(c, name, set);
  if (!good) print_case(c, name);
  return good;
}

uint64_t append_case_digest(const append_case *c) {
  return digest_of(c->outputs, N_APPEND_OUTPUTS);
}
