/* Elements of quantised K and V from their codes.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "ref_internal.h"

#include "ref.h"

#include <math.h>

int64_t ref_scale_index(const splitkv_problem *p, splitkv_scale_mode mode, int64_t dim,
                        int64_t page, int64_t slot, int64_t head, int64_t c) {
  const int64_t row = p->layout == SPLITKV_LAYOUT_HND
                          ? (page * p->n_heads_kv + head) * p->page_size_tokens + slot
                          : (page * p->page_size_tokens + slot) * p->n_heads_kv + head;
  switch (mode) {
  case SPLITKV_SCALE_HEAD:
    return head;
  case SPLITKV_SCALE_CHANNEL:
    return head * dim + c;
  case SPLITKV_SCALE_TOKEN:
    return row;
  case SPLITKV_SCALE_GROUP32:
    return row * ((dim + 31) / 32) + c / 32;
  case SPLITKV_SCALE_GROUP64:
    return row * ((dim + 63) / 64) + c / 64;
  default:
    return 0;
  }
}

void ref_dequantise(const splitkv_problem *p, const splitkv_tensors *tensors, int is_v,
                    int64_t page, int64_t slot, int64_t head, double *row) {
  if (p->dtype_kv <= SPLITKV_BF16) return;
  const splitkv_scale_mode mode = is_v ? p->v_scale_mode : p->k_scale_mode;
  const int64_t dim = is_v ? p->head_dim_v : p->head_dim;
  const void *scales = is_v ? tensors->v_scales : tensors->k_scales;
  const int8_t *zeros = is_v ? tensors->v_zeros : tensors->k_zeros;
  for (int64_t c = 0; c < dim; ++c) {
    const int64_t i = ref_scale_index(p, mode, dim, page, slot, head, c);
    const double zero = zeros != NULL ? (double)zeros[i] : p->dtype_kv == SPLITKV_INT4 ? 8 : 0;
    const double scale = mode == SPLITKV_SCALE_NONE ? 1 : ref_load(p->dtype_scales, scales, i);
    /* Exact in double: the one rounding is that to f32. */
    row[c] = isinf(scale) ? (double)NAN : (double)(float)(scale * (row[c] - zero));
  }
}

double ref_reach_v(const splitkv_problem *p, const splitkv_tensors *tensors, int64_t page,
                   int64_t slot, int64_t head) {
  if (p->v_scale_mode != SPLITKV_SCALE_TOKEN) return 0;
  const int64_t i = ref_scale_index(p, p->v_scale_mode, p->head_dim_v, page, slot, head, 0);
  return fabs(ref_load(p->dtype_scales, tensors->v_scales, i)) *
         (p->dtype_kv == SPLITKV_INT4 ? 8 : 128);
}
