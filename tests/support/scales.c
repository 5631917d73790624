/* Scales, zero points and codes of quantised KV.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "scales.h"

#include "value.h"

#include <math.h>

static splitkv_scale_mode mode_of(const splitkv_problem *p, char tensor) {
  return tensor == 'k' ? p->k_scale_mode : p->v_scale_mode;
}

static int64_t dim_of(const splitkv_problem *p, char tensor) {
  return tensor == 'k' ? p->head_dim : p->head_dim_v;
}

int64_t test_group_size(const splitkv_problem *p, char tensor) {
  switch (mode_of(p, tensor)) {
  case SPLITKV_SCALE_CHANNEL:
    return 1;
  case SPLITKV_SCALE_GROUP32:
    return 32;
  case SPLITKV_SCALE_GROUP64:
    return 64;
  default:
    return dim_of(p, tensor);
  }
}

int64_t test_scale_count(const splitkv_problem *p, char tensor) {
  const int64_t size = test_group_size(p, tensor);
  return (dim_of(p, tensor) + size - 1) / size;
}

bool test_scales_by_token(const splitkv_problem *p, char tensor) {
  return mode_of(p, tensor) >= SPLITKV_SCALE_TOKEN;
}

bool test_has_scales(const splitkv_problem *p, char tensor) {
  return mode_of(p, tensor) != SPLITKV_SCALE_NONE;
}

bool test_has_zeros(const splitkv_problem *p, char tensor) {
  return test_has_scales(p, tensor) && (p->flags & SPLITKV_FLAG_ZERO_POINTS) != 0;
}

/* The value of `number`, with what the scale mode does not know left out. */
static double shared_value(const test_spec *s, char tensor, char number, int64_t source,
                           int64_t head, int64_t token, int64_t channel) {
  const bool by_token = test_scales_by_token(&s->problem, tensor);
  const int64_t size = test_group_size(&s->problem, tensor);
  const bool is_tensor = mode_of(&s->problem, tensor) == SPLITKV_SCALE_TENSOR;
  return test_value_at(s, number, by_token ? source : 0, is_tensor ? 0 : head, by_token ? token : 0,
                       channel / size * size);
}

double test_scale_at(const test_spec *s, char tensor, int64_t source, int64_t head, int64_t token,
                     int64_t channel) {
  if (!test_has_scales(&s->problem, tensor)) return 1;
  const double value =
      shared_value(s, tensor, tensor == 'k' ? 'x' : 'y', source, head, token, channel);
  unsigned char stored[sizeof(float)];
  ref_store(s->problem.dtype_scales, stored, 0, value);
  return ref_load(s->problem.dtype_scales, stored, 0);
}

double test_zero_at(const test_spec *s, char tensor, int64_t source, int64_t head, int64_t token,
                    int64_t channel) {
  if (!test_has_zeros(&s->problem, tensor)) return s->problem.dtype_kv == SPLITKV_INT4 ? 8 : 0;
  return shared_value(s, tensor, tensor == 'k' ? 'm' : 'n', source, head, token, channel);
}

void test_store_code(const test_spec *s, unsigned char *data, int64_t index, char tensor,
                     int64_t source, int64_t head, int64_t token, int64_t channel) {
  const double element = test_value_at(s, tensor, source, head, token, channel);
  const double scale = test_scale_at(s, tensor, source, head, token, channel);
  const double zero = test_zero_at(s, tensor, source, head, token, channel);
  /* A special element is a code of its own, whatever its scale. */
  const double code =
      isfinite(element) && isfinite(scale) && scale != 0 ? element / scale : element;
  ref_store(s->problem.dtype_kv, data, index, code + zero);
}

void test_fill_fixed_scales(test_batch *b, char tensor) {
  const test_spec *s = &b->spec;
  const splitkv_problem *p = &b->problem;
  const splitkv_scale_mode mode = mode_of(p, tensor);
  guard_buffer *scales = tensor == 'k' ? &b->k_scales : &b->v_scales;
  guard_buffer *zeros = tensor == 'k' ? &b->k_zeros : &b->v_zeros;
  const int64_t heads = mode == SPLITKV_SCALE_TENSOR ? 1 : p->n_heads_kv;
  const int64_t each = mode == SPLITKV_SCALE_CHANNEL ? test_scale_count(p, tensor) : 1;
  const bool has_zeros = test_has_zeros(p, tensor);
  *scales = guard_create((size_t)(heads * each) * ref_dtype_size(p->dtype_scales), s->side, 1);
  *zeros = guard_create(has_zeros ? (size_t)(heads * each) : 0, s->side, 1);
  for (int64_t g = 0; g < heads; ++g)
    for (int64_t c = 0; c < each; ++c) {
      ref_store(p->dtype_scales, scales->data, g * each + c, test_scale_at(s, tensor, 0, g, 0, c));
      if (has_zeros)
        ref_store(SPLITKV_INT8, zeros->data, g * each + c, test_zero_at(s, tensor, 0, g, 0, c));
    }
}
