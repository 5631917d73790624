/* Scales and zero points of quantised KV: from the tensors to the kernels.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "scales.h"

#include "checked.h"
#include "error.h"

static bool has_f16_scales(const spl_shape *shape) {
  return shape->problem.dtype_scales == SPLITKV_F16;
}

void spl_describe_codes(const spl_shape *shape, const spl_quant *quant, spl_codes *codes) {
  codes->form = quant->form;
  codes->has_f16_scales = has_f16_scales(shape);
  codes->unit = quant->unit;
  codes->n_scales = quant->n_folded;
  codes->n_groups = quant->n_groups;
  codes->group_size = quant->group_size;
}

static int64_t scale_bytes(const spl_shape *shape) {
  return has_f16_scales(shape) ? sizeof(uint16_t) : sizeof(float);
}

static const void *scale_at(const spl_shape *shape, const void *scales, int64_t i) {
  return (const unsigned char *)scales + i * scale_bytes(shape);
}

void spl_begin_codes(const spl_shape *shape, const spl_scale_tensors *tensors, int64_t head,
                     int64_t dim, spl_codes *codes) {
  static const float one = 1;
  if (codes->n_scales > 0 && tensors->scales == NULL) { /* SCALE_NONE: the unit alone */
    codes->has_f16_scales = 0;
    codes->scales = &one;
  } else if (codes->n_scales > 0) {
    codes->scales = scale_at(shape, tensors->scales, head * tensors->quant->folded_stride);
  }
  if (codes->form == SPL_FORM_CHANNELS) codes->zeros = tensors->zeros + head * dim;
}

/* From a token to the next one of its page, and from a head to the next one. */
static int64_t token_step(const splitkv_problem *p) {
  return p->layout == SPLITKV_LAYOUT_HND ? 1 : p->n_heads_kv;
}
static int64_t head_step(const splitkv_problem *p) {
  return p->layout == SPLITKV_LAYOUT_HND ? p->page_size_tokens : 1;
}

void spl_find_scale_rows(const splitkv_problem *p, int64_t page, int64_t slot, int64_t n,
                         int64_t *rows) {
  const int64_t first = page * p->page_size_tokens * p->n_heads_kv;
  const int64_t step = token_step(p);
  for (int64_t i = 0; i < n; i++)
    rows[i] = first + (slot + i) * step;
}

void spl_ask_for_scales(const spl_shape *shape, const spl_scale_tensors *tensors, int64_t head,
                        int64_t n_heads, int64_t scale_row, int64_t n) {
  const spl_quant *quant = tensors->quant;
  if (!quant->by_token) return;
  const int64_t bytes = scale_bytes(shape), each = quant->n_groups;
  const int64_t first = (scale_row + head * head_step(&shape->problem)) * each;
  const int64_t step = token_step(&shape->problem) * each;
  shape->kernels->ask_for_rows(scale_at(shape, tensors->scales, first), n, step * bytes,
                               n_heads * each * bytes);
  if (tensors->zeros == NULL) return;
  shape->kernels->ask_for_rows(tensors->zeros + first, n, step, n_heads * each);
}

void spl_load_scale_rows(const spl_shape *shape, const spl_scale_tensors *tensors, int64_t head,
                         const int64_t *scale_rows, int64_t n, const spl_codes *codes) {
  const spl_quant *quant = tensors->quant;
  if (quant->n_groups == 0) return;
  const int64_t ahead =
      head * (quant->by_token ? head_step(&shape->problem) : quant->folded_stride);
  shape->kernels->load_rows(codes, tensors->scales, tensors->zeros, quant->zero,
                            quant->by_token ? scale_rows : NULL, ahead,
                            spl_ceil_div(n, SPL_LANES) * SPL_LANES);
}

splitkv_status spl_check_scales(const spl_shape *shape, const splitkv_tensors *t, bool attended,
                                splitkv_error *error) {
  const splitkv_problem *p = &shape->problem;
  const bool flag = (p->flags & SPLITKV_FLAG_ZERO_POINTS) != 0;
  const bool k = p->k_scale_mode != SPLITKV_SCALE_NONE, v = p->v_scale_mode != SPLITKV_SCALE_NONE;
  const int64_t bytes = scale_bytes(shape);
  const struct {
    const char *field;
    const void *pointer;
    bool wanted, is_zeros, has_mode;
    int64_t alignment;
  } pointers[] = {{"tensors.k_scales", t->k_scales, k, false, k, bytes},
                  {"tensors.v_scales", t->v_scales, v, false, v, bytes},
                  {"tensors.k_zeros", t->k_zeros, k && flag, true, k, 1},
                  {"tensors.v_zeros", t->v_zeros, v && flag, true, v, 1}};
  for (size_t i = 0; i < sizeof pointers / sizeof pointers[0]; i++) {
    const splitkv_status status =
        spl_check_pointer(error, pointers[i].field, pointers[i].pointer,
                          pointers[i].wanted && attended, pointers[i].alignment);
    if (status != SPLITKV_OK) return status;
    if (pointers[i].pointer == NULL || pointers[i].wanted) continue;
    return spl_fail(error, SPLITKV_ERROR_TENSOR_UNUSED, pointers[i].field, 0, "is given, but %s",
                    pointers[i].has_mode ? "problem.flags lacks SPLITKV_FLAG_ZERO_POINTS"
                                         : "the problem's scale mode is SPLITKV_SCALE_NONE");
  }
  return SPLITKV_OK;
}
