/* Lanes of AVX-512 registers that are heads: what the classes of dot products in integers and in
 * bf16 share.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CPU_LANES_AVX512_H
#define SPL_CPU_LANES_AVX512_H

#include "vec_avx512.h"

/* Lane i of a gets lane i ^ distance of b, where mask says so. */
SPL_INLINE __m512 cross(__m512 a, __m512 b, const int distance, const __mmask16 mask) {
  switch (distance) {
  case 1:
    return _mm512_mask_permute_ps(a, mask, b, 0xb1);
  case 2:
    return _mm512_mask_permute_ps(a, mask, b, 0x4e);
  case 4:
    return _mm512_mask_shuffle_f32x4(a, mask, b, b, 0xb1);
  default:
    return _mm512_mask_shuffle_f32x4(a, mask, b, b, 0x4e);
  }
}

/* One step of the tree for two vectors: lanes i and i ^ distance are added, of a where bit
 * `distance` of i is 0, else of b. */
SPL_INLINE __m512 fold_two(__m512 a, __m512 b, const int distance) {
  static const unsigned masks[] = {0, 0xaaaa, 0xcccc, 0, 0xf0f0, 0, 0, 0, 0xff00};
  const unsigned odd = masks[distance];
  return _mm512_add_ps(cross(a, b, distance, (__mmask16)odd),
                       cross(b, a, distance, (__mmask16)(0xffff & ~odd)));
}

/* Words of x, in groups of nh, rotated: lane i of a group gets word (i + rotation) mod nh. */
SPL_INLINE __m512i rotate_k(__m512i x, const int rotation, const int nh) {
  if (rotation == 0) return x;
  if (nh == 2) return _mm512_shuffle_epi32(x, _MM_PERM_CDAB);
  switch (rotation) {
  case 1:
    return _mm512_shuffle_epi32(x, _MM_PERM_ADCB);
  case 2:
    return _mm512_shuffle_epi32(x, _MM_PERM_BADC);
  default:
    return _mm512_shuffle_epi32(x, _MM_PERM_CBAD);
  }
}

#endif
