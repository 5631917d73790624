/* Sizes and places of slots, scratch and the workspace.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "layout.h"

#include "checked.h"

/* Bytes of one partial slot: [group][dv] sums, and [group] pairs (max, weight). */
static bool slot_bytes(const spl_shape *shape, int64_t *out_bytes, int64_t *state_bytes) {
  return spl_mul(shape->group, shape->problem.head_dim_v * (int64_t)sizeof(float), out_bytes) &&
         spl_mul(shape->group, 2 * (int64_t)sizeof(float), state_bytes);
}

/* Takes n elements at *offset; the address is meaningful only when base is not NULL. */
static bool take(unsigned char *base, int64_t *offset, int64_t n, size_t element, void **array) {
  *array = base == NULL ? NULL : base + *offset;
  return spl_mul_add(n, (int64_t)element, offset);
}

/* The one description of a task's scratch. Rows first: they are multiples of 64 bytes, so that from
 * an aligned base each vector lies in one line. All sizes are multiples of 8, so that tasks can
 * follow one another without a gap. */
static bool place_scratch(const spl_shape *shape, int64_t max_piece_tokens, unsigned char *base,
                          spl_group *g, int64_t *bytes) {
  *bytes = 0;
  if (max_piece_tokens == 0) return true;
  const int64_t heads = shape->group;
  const spl_kernel_set *kernels = shape->kernels;
  const int64_t q = kernels->q_floats(heads, shape->d_padded, (int)shape->problem.dtype_q);
  int64_t width = SPL_TILE_TOKENS, acc = 0, scores = 0;
  if (max_piece_tokens < width) width = spl_ceil_div(max_piece_tokens, SPL_LANES) * SPL_LANES;
  if (!spl_mul(heads, shape->dv_padded, &acc) || !spl_mul(heads, width, &scores)) return false;
  /* The last tile may be a partial one: what counts is that there is a tile that folds. */
  const int64_t folds = max_piece_tokens > (int64_t)(SPL_FOLD_TILES - 1) * SPL_TILE_TOKENS;
  void *q_rows, *acc_rows, *hi, *lo, *score_rows, *weight, *rounded, *max;
  if (!take(base, bytes, q, sizeof(float), &q_rows) ||
      !take(base, bytes, acc, sizeof(float), &acc_rows) ||
      !take(base, bytes, folds * acc, sizeof(float), &hi) ||
      !take(base, bytes, folds * acc, sizeof(float), &lo) ||
      !take(base, bytes, scores, sizeof(float), &score_rows) ||
      !take(base, bytes, heads, sizeof(double), &weight) ||
      !take(base, bytes, kernels->rounds_weights * heads, sizeof(double), &rounded) ||
      !take(base, bytes, heads, sizeof(double), &max)) {
    return false;
  }
  if (g == NULL) return true;
  g->score_stride = width;
  g->weight = (double *)weight;
  g->rounded = kernels->rounds_weights ? (double *)rounded : NULL;
  g->q = (float *)q_rows;
  g->acc = (float *)acc_rows;
  g->sum_hi = (float *)hi;
  g->sum_lo = (float *)lo;
  g->scores = (float *)score_rows;
  g->max = (double *)max;
  return true;
}

bool spl_scratch_bytes(const spl_shape *shape, int64_t max_piece_tokens, int64_t *bytes) {
  return place_scratch(shape, max_piece_tokens, NULL, NULL, bytes);
}

void spl_scratch_place(const spl_shape *shape, int64_t max_piece_tokens, unsigned char *scratch,
                       spl_group *group) {
  int64_t bytes = 0;
  const bool fits = place_scratch(shape, max_piece_tokens, scratch, group, &bytes);
  assert(fits);
  (void)fits;
}

bool spl_workspace_layout(const spl_shape *shape, int64_t n_slots, int64_t scratch_bytes,
                          spl_workspace *workspace) {
  int64_t out_bytes = 0, state_bytes = 0, end = 0;
  if (!slot_bytes(shape, &out_bytes, &state_bytes)) return false;
  const struct {
    const char *name;
    int64_t n, bytes, alignment;
  } wanted[SPL_N_REGIONS] = {
      {"partial_out", n_slots, out_bytes, sizeof(float)},
      {"partial_state", n_slots, state_bytes, sizeof(float)},
      {"scratch", 1, scratch_bytes, SPLITKV_ALIGNMENT},
  };
  for (int i = 0; i < SPL_N_REGIONS; i++) {
    spl_region *region = &workspace->regions[i];
    region->name = wanted[i].name;
    if (!spl_mul(wanted[i].n, wanted[i].bytes, &region->bytes)) return false;
    if (region->bytes > 0 && !spl_round_up(end, wanted[i].alignment, &end)) return false;
    region->offset = end;
    if (!spl_add(end, region->bytes, &end)) return false;
  }
  workspace->bytes = end;
  return true;
}
