/* Storing codes on AVX2.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CPU_CODES_AVX2_H
#define SPL_CPU_CODES_AVX2_H

#include "codes_common.h"
#include "vec_avx2.h"

SPL_INLINE vf vf_swap_pairs(vf x) {
  return vf_make(_mm256_permute_ps(x.lo, 0xb1), _mm256_permute_ps(x.hi, 0xb1));
}
SPL_INLINE vf vf_load_twice(const float *p) {
  const __m256 x = _mm256_loadu_ps(p);
  return vf_make(_mm256_permutevar8x32_ps(x, _mm256_set_epi32(3, 3, 2, 2, 1, 1, 0, 0)),
                 _mm256_permutevar8x32_ps(x, _mm256_set_epi32(7, 7, 6, 6, 5, 5, 4, 4)));
}
SPL_INLINE vf vf_lesser(vf a, vf b) {
  return vf_make(_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi));
}
SPL_INLINE vf vf_number(vf x) {
  return vf_make(_mm256_and_ps(x.lo, _mm256_cmp_ps(x.lo, x.lo, _CMP_ORD_Q)),
                 _mm256_and_ps(x.hi, _mm256_cmp_ps(x.hi, x.hi, _CMP_ORD_Q)));
}
/* Sixteen integers of 32 bits, in -128 .. 127, as bytes. */
SPL_INLINE __m128i vf_pack_bytes(__m256i lo, __m256i hi) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xd8);
  return _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}
SPL_INLINE __m128i vf_bytes(vf x) {
  return vf_pack_bytes(_mm256_cvtps_epi32(x.lo), _mm256_cvtps_epi32(x.hi));
}
SPL_INLINE void vf_to_int8(unsigned char *p, vf x) {
  _mm_storeu_si128((__m128i *)(void *)p, vf_bytes(x));
}
SPL_INLINE void vf_to_int4(unsigned char *p, vf x) {
  const __m128i pairs = _mm_maddubs_epi16(vf_bytes(x), _mm_set1_epi16(0x1001));
  _mm_storel_epi64((__m128i *)(void *)p, _mm_packus_epi16(pairs, pairs));
}
/* The code with its sign: what a byte of 0 .. 255 is as an int8_t. */
SPL_INLINE __m256i vf_fp8_half(__m256 x, const spl_fp8 *f) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i sign = _mm256_slli_epi32(_mm256_srai_epi32(bits, 31), 7); /* -128 or 0 */
  const __m256 magnitude =
      _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)));
  const __m256 a = _mm256_min_ps(magnitude, _mm256_set1_ps(f->largest));
  const __m256 magic = _mm256_set1_ps(f->magic);
  const __m256i m = _mm256_castps_si256(a);
  const __m128i shift = _mm_cvtsi32_si128((int)f->shift);
  const __m256i odd = _mm256_and_si256(_mm256_srl_epi32(m, shift), _mm256_set1_epi32(1));
  const uint32_t offset = (1u << (f->shift - 1)) - 1u - f->rebias;
  const __m256i up = _mm256_add_epi32(_mm256_add_epi32(m, _mm256_set1_epi32((int)offset)), odd);
  const __m256i small =
      _mm256_sub_epi32(_mm256_castps_si256(_mm256_add_ps(a, magic)), _mm256_castps_si256(magic));
  const __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)f->least_normal), m);
  const __m256i code = _mm256_blendv_epi8(_mm256_srl_epi32(up, shift), small, is_small);
  return _mm256_blendv_epi8(_mm256_or_si256(code, sign), _mm256_set1_epi32((int)f->nan),
                            _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}
SPL_INLINE void vf_to_fp8(unsigned char *p, vf x, const spl_fp8 *f) {
  _mm_storeu_si128((__m128i *)(void *)p, vf_pack_bytes(vf_fp8_half(x.lo, f), vf_fp8_half(x.hi, f)));
}
SPL_INLINE void vf_store_line_past(void *dst, const void *src) {
  const __m256i *from = (const __m256i *)src;
  __m256i *to = (__m256i *)dst;
  _mm256_stream_si256(to, _mm256_loadu_si256(from));
  _mm256_stream_si256(to + 1, _mm256_loadu_si256(from + 1));
}
SPL_INLINE void vf_end_past(void) {
  _mm_sfence();
}

#endif
