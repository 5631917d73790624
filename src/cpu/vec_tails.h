/* Tails and columns by way of a copy, for vocabularies without masked loads of every element size.
 * Included by vec_<isa>.h behind its whole loads and stores.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CPU_VEC_TAILS_H
#define SPL_CPU_VEC_TAILS_H

/* Fewer than SPL_LANES (SPL_DOT_LANES) elements, zero beyond them. */
#define VEC_TAIL(name, vector, element, lanes, load)                                               \
  SPL_INLINE vector name(const element *p, int n) {                                                \
    element copy[lanes] = {0};                                                                     \
    memcpy(copy, p, (size_t)n * sizeof *p);                                                        \
    return load(copy);                                                                             \
  }
VEC_TAIL(vf_load_tail, vf, float, SPL_LANES, vf_load)
VEC_TAIL(vf_load_f16_tail, vf, uint16_t, SPL_LANES, vf_load_f16)
VEC_TAIL(vf_load_bf16_tail, vf, uint16_t, SPL_LANES, vf_load_bf16)
VEC_TAIL(vd_load_f32_tail, vd, float, SPL_DOT_LANES, vd_load_f32)
VEC_TAIL(vd_load_f16_tail, vd, uint16_t, SPL_DOT_LANES, vd_load_f16)
VEC_TAIL(vd_load_bf16_tail, vd, uint16_t, SPL_DOT_LANES, vd_load_bf16)
#undef VEC_TAIL

/* The same of codes, n of them, `per_byte` to a byte, code 0 beyond. */
#define VEC_CODES_TAIL(type, per_byte)                                                             \
  SPL_INLINE vf vf_load_##type##_tail(const uint8_t *p, int n) {                                   \
    uint8_t copy[SPL_LANES] = {0};                                                                 \
    memcpy(copy, p, (size_t)(n / (per_byte)));                                                     \
    return vf_load_##type(copy);                                                                   \
  }                                                                                                \
  SPL_INLINE vd vd_load_##type##_tail(const uint8_t *p, int n) {                                   \
    uint8_t copy[SPL_DOT_LANES] = {0};                                                             \
    memcpy(copy, p, (size_t)(n / (per_byte)));                                                     \
    return vd_load_##type(copy);                                                                   \
  }
VEC_CODES_TAIL(i8, 1)
VEC_CODES_TAIL(e4m3, 1)
VEC_CODES_TAIL(e5m2, 1)
VEC_CODES_TAIL(u4, 2)
VEC_CODES_TAIL(i4, 2)
#undef VEC_CODES_TAIL

SPL_INLINE void vf_store_tail(float *p, vf x, int n) {
  float copy[SPL_LANES];
  vf_store(copy, x);
  memcpy(p, copy, (size_t)n * sizeof *p);
}

/* Lane t is p[rows[t]]. */
SPL_INLINE vf vf_column(const float *p, const int64_t *rows) {
  float column[SPL_LANES];
  for (int t = 0; t < SPL_LANES; t++)
    column[t] = p[rows[t]];
  return vf_load(column);
}

#endif
