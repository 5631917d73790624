/* Storing codes on AVX-512.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CPU_CODES_AVX512_H
#define SPL_CPU_CODES_AVX512_H

#include "codes_common.h"
#include "vec_avx512.h"

SPL_INLINE vf vf_swap_pairs(vf x) {
  return _mm512_permute_ps(x, 0xb1);
}
SPL_INLINE vf vf_load_twice(const float *p) {
  const __m512i twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
  return _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
}
SPL_INLINE vf vf_lesser(vf a, vf b) {
  return _mm512_min_ps(a, b);
}
SPL_INLINE vf vf_number(vf x) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, x, _CMP_ORD_Q), x);
}
SPL_INLINE __m128i vf_bytes(vf x) {
  return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x));
}
SPL_INLINE void vf_to_int8(unsigned char *p, vf x) {
  _mm_storeu_si128((__m128i *)(void *)p, vf_bytes(x));
}
SPL_INLINE void vf_to_int4(unsigned char *p, vf x) {
  const __m128i pairs = _mm_maddubs_epi16(vf_bytes(x), _mm_set1_epi16(0x1001));
  _mm_storel_epi64((__m128i *)(void *)p, _mm_packus_epi16(pairs, pairs));
}
SPL_INLINE void vf_to_fp8(unsigned char *p, vf x, const spl_fp8 *f) {
  const __m512i sign =
      _mm512_and_si512(_mm512_srli_epi32(_mm512_castps_si512(x), 24), _mm512_set1_epi32(0x80));
  const __m512 a = _mm512_min_ps(_mm512_abs_ps(x), _mm512_set1_ps(f->largest));
  const __m512 magic = _mm512_set1_ps(f->magic);
  const __m512i m = _mm512_castps_si512(a);
  const __m128i shift = _mm_cvtsi32_si128((int)f->shift);
  const __m512i odd = _mm512_and_si512(_mm512_srl_epi32(m, shift), _mm512_set1_epi32(1));
  const uint32_t offset = (1u << (f->shift - 1)) - 1u - f->rebias;
  const __m512i up = _mm512_add_epi32(_mm512_add_epi32(m, _mm512_set1_epi32((int)offset)), odd);
  const __m512i small =
      _mm512_sub_epi32(_mm512_castps_si512(_mm512_add_ps(a, magic)), _mm512_castps_si512(magic));
  const __mmask16 is_small = _mm512_cmplt_epi32_mask(m, _mm512_set1_epi32((int)f->least_normal));
  __m512i code = _mm512_mask_mov_epi32(_mm512_srl_epi32(up, shift), is_small, small);
  code = _mm512_mask_mov_epi32(_mm512_or_si512(code, sign), _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q),
                               _mm512_set1_epi32((int)f->nan));
  _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(code));
}
SPL_INLINE void vf_store_line_past(void *dst, const void *src) {
  _mm512_stream_si512((__m512i *)dst, _mm512_loadu_si512(src));
}
SPL_INLINE void vf_end_past(void) {
  _mm_sfence();
}

#endif
