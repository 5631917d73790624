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

static const void *scale_at(const spl_shape *shape, const void *scales, int64_t i) {
  const int64_t bytes = has_f16_scales(shape) ? sizeof(uint16_t) : sizeof(float);
  return (const unsigned char *)scales + i * bytes;
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

int64_t spl_scale_row(const splitkv_problem *p, int64_t page, int64_t slot) {
  const int64_t first = page * p->page_size_tokens * p->n_heads_kv;
  return p->layout == SPLITKV_LAYOUT_HND ? first + slot : first + slot * p->n_heads_kv;
}

void spl_load_scale_rows(const spl_shape *shape, const spl_scale_tensors *tensors, int64_t head,
                         const int64_t *scale_rows, int64_t n, const spl_codes *codes) {
  const spl_quant *quant = tensors->quant;
  if (quant->n_groups == 0) return;
  const splitkv_problem *p = &shape->problem;
  const int64_t head_rows = p->layout == SPLITKV_LAYOUT_HND ? p->page_size_tokens : 1;
  int64_t rows[SPL_TILE_TOKENS];
  const int64_t all = spl_ceil_div(n, SPL_LANES) * SPL_LANES;
  for (int64_t t = 0; t < all; t++) {
    rows[t] = quant->by_token ? scale_rows[spl_min(t, n - 1)] + head * head_rows
                              : head * quant->folded_stride;
  }
  shape->kernels->load_rows(codes, tensors->scales, tensors->zeros, quant->zero, rows, all);
}

splitkv_status spl_check_scales(const spl_shape *shape, const splitkv_tensors *t, bool attended,
                                splitkv_error *error) {
  const splitkv_problem *p = &shape->problem;
  const bool flag = (p->flags & SPLITKV_FLAG_ZERO_POINTS) != 0;
  const bool k = p->k_scale_mode != SPLITKV_SCALE_NONE, v = p->v_scale_mode != SPLITKV_SCALE_NONE;
  const int64_t bytes = has_f16_scales(shape) ? sizeof(uint16_t) : sizeof(float);
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
