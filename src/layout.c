/* Sizes and places of slots, scratch and the workspace.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "layout.h"

#include <string.h>

#include "checked.h"

/* Bytes of one partial slot: [group][dv] sums, and [group] pairs (lse, weight). */
static bool slot_bytes(const spl_shape *shape, int64_t *out_bytes, int64_t *state_bytes) {
  return spl_mul(shape->group, shape->problem.head_dim_v * (int64_t)sizeof(float), out_bytes) &&
         spl_mul(shape->group, 2 * (int64_t)sizeof(float), state_bytes);
}

/* Takes n elements at *offset; the address is meaningful only when base is not NULL. */
static bool take(unsigned char *base, int64_t *offset, int64_t n, size_t element, void **array) {
  *array = base == NULL ? NULL : base + *offset;
  return spl_mul_add(n, (int64_t)element, offset);
}

/* ── scratch ────────────────────────────────────────────────────────────────────────────────── */

static void raise_to(uint8_t *most, int64_t n) {
  if (n > *most) *most = (uint8_t)n; /* at most SPL_MAX_BLOCK_ROWS or SPL_TILE_TOKENS */
}

static int64_t q_floats(const spl_shape *shape, int64_t n_rows) {
  return shape->kernels->q_floats(n_rows * shape->group, shape->d_padded,
                                  (int)shape->problem.dtype_q);
}

/* Of K that the kernels convert strip by strip. */
static int64_t wide_floats(const spl_shape *shape, int64_t n_rows, int64_t n_tokens) {
  const spl_kernel_set *kernels = shape->kernels;
  if (kernels->wide_floats == NULL) return 0;
  return kernels->wide_floats(n_rows * shape->group, shape->problem.head_dim,
                              (int)shape->problem.dtype_kv, n_tokens);
}

/* What a piece of n_rows and n_tokens > 0 asks for at its place. */
typedef struct piece_needs {
  int64_t n_rows, stride, wide;
  bool together, has_part, folds;
} piece_needs;

static piece_needs needs_of_piece(const spl_shape *shape, int64_t n_rows, int64_t n_tokens) {
  n_tokens = spl_scratch_tokens(n_tokens);
  return (piece_needs){.n_rows = n_rows,
                       .stride = spl_score_stride(n_tokens),
                       .wide = wide_floats(shape, n_rows, n_tokens),
                       .together = spl_walks_together(shape, n_rows),
                       .has_part = shape->by_strips && n_tokens > SPL_CHUNK_TOKENS,
                       .folds = n_tokens > SPL_UNFOLDED_TOKENS};
}

static void add_at(const spl_shape *shape, spl_scratch *scratch, int64_t place,
                   const piece_needs *piece) {
  scratch->n_groups = spl_max(scratch->n_groups, place + 1);
  scratch->max_stride = spl_max(scratch->max_stride, piece->stride);
  scratch->max_wide = spl_max(scratch->max_wide, piece->wide);
  if (piece->together) {
    raise_to(&scratch->own_stride[place], piece->stride);
    raise_to(&scratch->has_part[place], piece->has_part);
  } else {
    scratch->max_scores = spl_max(scratch->max_scores, piece->n_rows * piece->stride);
  }
  raise_to(&scratch->rows[place], piece->n_rows);
  if (piece->folds) raise_to(&scratch->folding_rows[place], piece->n_rows);
  const int64_t q_rows = scratch->q_rows[place];
  if (q_rows == piece->n_rows) return;
  if (q_rows == 0 || q_floats(shape, piece->n_rows) > q_floats(shape, q_rows))
    scratch->q_rows[place] = (uint8_t)piece->n_rows;
}

void spl_scratch_add(const spl_shape *shape, spl_scratch *scratch, int64_t place, int64_t n_rows,
                     int64_t n_tokens) {
  if (n_tokens == 0) return;
  const piece_needs piece = needs_of_piece(shape, n_rows, n_tokens);
  add_at(shape, scratch, place, &piece);
}

void spl_scratch_add_all(const spl_shape *shape, spl_scratch *scratch, int64_t n_places,
                         int64_t n_rows, int64_t n_tokens) {
  if (n_tokens == 0) return;
  const piece_needs piece = needs_of_piece(shape, n_rows, n_tokens);
  for (int64_t i = 0; i < n_places; i++)
    add_at(shape, scratch, i, &piece);
}

static bool same_places(const spl_scratch *a, int64_t i, const spl_scratch *b, int64_t j) {
  return a->rows[i] == b->rows[j] && a->folding_rows[i] == b->folding_rows[j] &&
         a->q_rows[i] == b->q_rows[j] && a->own_stride[i] == b->own_stride[j] &&
         a->has_part[i] == b->has_part[j];
}

bool spl_scratch_same(const spl_scratch *a, const spl_scratch *b) {
  return memcmp(a, b, sizeof *a) == 0;
}

bool spl_scratch_is_full(const spl_scratch *scratch, const spl_scratch *most, int64_t n_places) {
  if (scratch->max_stride != most->max_stride || scratch->max_scores != most->max_scores ||
      scratch->max_wide != most->max_wide) {
    return false;
  }
  for (int64_t i = 0; i < n_places; i++) {
    if (!same_places(scratch, i, most, i)) return false;
  }
  return true;
}

enum { LINE_BYTES = 64 };

/* Arrays of floats that each place of a bundle has. */
enum { Q_ROWS, SCORE_ROWS, PART_ROWS, CHUNK_ROWS, ACC_ROWS, HIGH_ROWS, LOW_ROWS, N_ARRAYS };

/* What one place takes: floats of each array, and how many doubles. */
typedef struct place_needs {
  int64_t floats[N_ARRAYS];
  int64_t heads, rounded;
} place_needs;

static bool find_needs(const spl_shape *shape, const spl_scratch *scratch, int64_t place,
                       place_needs *needs) {
  const int64_t folding_heads = scratch->folding_rows[place] * shape->group;
  const int64_t scores = scratch->own_stride[place] * shape->group;
  const int64_t sums = shape->group * shape->dv_padded; /* of one query row */
  needs->heads = scratch->rows[place] * shape->group;
  needs->rounded = shape->kernels->rounds_weights ? needs->heads : 0;
  needs->floats[Q_ROWS] = q_floats(shape, scratch->q_rows[place]);
  needs->floats[SCORE_ROWS] = scores;
  needs->floats[PART_ROWS] = scratch->has_part[place] ? sums : 0;
  needs->floats[CHUNK_ROWS] = shape->by_strips && scores > 0 ? sums : 0;
  if (!spl_mul(needs->heads, shape->dv_padded, &needs->floats[ACC_ROWS]) ||
      !spl_mul(folding_heads, shape->dv_padded, &needs->floats[HIGH_ROWS])) {
    return false;
  }
  needs->floats[LOW_ROWS] = needs->floats[HIGH_ROWS];
  return true;
}

static bool add_bytes(const place_needs *needs, int64_t *row_bytes, int64_t *sum_bytes) {
  bool fits = spl_mul_add(2 * needs->heads + needs->rounded, sizeof(double), sum_bytes);
  for (int i = 0; i < N_ARRAYS && fits; i++)
    fits = spl_mul_add(needs->floats[i], sizeof(float), row_bytes);
  return fits;
}

/* What lasts for one tile of one group, so that all groups share one place. */
typedef struct tile_rows {
  float *scores, *wide;
  spl_codes k, v; /* row_scales and row_zeros alone */
} tile_rows;

/* Scales and zero points of a tile's tokens. */
static bool place_codes(const spl_quant *quant, int64_t width, unsigned char *rows,
                        spl_codes *codes, int64_t *row_bytes) {
  void *scales, *zeros;
  const int64_t n = width * quant->n_groups;
  if (!take(rows, row_bytes, n, sizeof(float), &scales) ||
      !take(rows, row_bytes, quant->has_zeros ? n : 0, sizeof(float), &zeros)) {
    return false;
  }
  codes->row_scales = n > 0 ? (float *)scales : NULL;
  codes->row_zeros = quant->has_zeros ? (float *)zeros : NULL;
  return true;
}

static bool place_tile(const spl_shape *shape, const spl_scratch *scratch, unsigned char *rows,
                       tile_rows *tile, int64_t *row_bytes) {
  void *array, *wide;
  int64_t n = 0;
  if (!spl_mul(shape->group, scratch->max_scores, &n) ||
      !take(rows, row_bytes, n, sizeof(float), &array) ||
      !take(rows, row_bytes, scratch->max_wide, sizeof(float), &wide) ||
      !place_codes(&shape->k_quant, scratch->max_stride, rows, &tile->k, row_bytes) ||
      !place_codes(&shape->v_quant, scratch->max_stride, rows, &tile->v, row_bytes)) {
    return false;
  }
  tile->scores = (float *)array;
  tile->wide = scratch->max_wide > 0 ? (float *)wide : NULL;
  return true;
}

bool spl_scratch_bytes(const spl_shape *shape, const spl_scratch *scratch, int64_t *row_bytes,
                       int64_t *sum_bytes) {
  tile_rows tile = {0};
  place_needs needs;
  *row_bytes = *sum_bytes = 0;
  if (!place_tile(shape, scratch, NULL, &tile, row_bytes)) return false;
  for (int64_t i = 0; i < scratch->n_groups; i++) {
    const bool as_before = i > 0 && same_places(scratch, i, scratch, i - 1);
    if (!as_before && !find_needs(shape, scratch, i, &needs)) return false;
    if (!add_bytes(&needs, row_bytes, sum_bytes)) return false;
  }
  return spl_round_up(*sum_bytes, LINE_BYTES, sum_bytes);
}

/* Takes one array of each place, one behind the other. */
static void take_array(unsigned char *rows, const place_needs *needs, int64_t n_groups, int kind,
                       float **arrays, int64_t *row_bytes) {
  for (int64_t i = 0; i < n_groups; i++) {
    const int64_t n = needs[i].floats[kind];
    arrays[i] = n > 0 ? (float *)(void *)(rows + *row_bytes) : NULL;
    *row_bytes += n * (int64_t)sizeof(float); /* fits: counted before */
  }
}

static double *take_sums(unsigned char *sums, int64_t n, int64_t *sum_bytes) {
  double *array = n > 0 ? (double *)(void *)(sums + *sum_bytes) : NULL;
  *sum_bytes += n * (int64_t)sizeof(double);
  return array;
}

/* Arrays of one kind lie side by side, in the order in which groups have their turn, and Q, which
 * is only read, comes first, as sums, the last of a task, fill whole lines: a prefetcher that sees
 * steps from group to group runs on beyond the last one, and would take lines of the next task away
 * from the core that writes them. */
void spl_scratch_place(const spl_shape *shape, const spl_scratch *scratch, unsigned char *rows,
                       unsigned char *sums, spl_group *groups, spl_score_places *places) {
  const int64_t n = scratch->n_groups;
  place_needs needs[SPL_MAX_BUNDLE];
  float *arrays[N_ARRAYS][SPL_MAX_BUNDLE];
  tile_rows tile = {0};
  int64_t row_bytes = 0, sum_bytes = 0;
  bool fits = true;
  for (int64_t i = 0; i < n; i++)
    fits = fits && find_needs(shape, scratch, i, &needs[i]);
  take_array(rows, needs, n, Q_ROWS, arrays[Q_ROWS], &row_bytes);
  fits = fits && place_tile(shape, scratch, rows, &tile, &row_bytes);
  for (int kind = Q_ROWS + 1; kind < N_ARRAYS; kind++)
    take_array(rows, needs, n, kind, arrays[kind], &row_bytes);
  for (int64_t i = 0; i < n; i++) {
    spl_group *g = &groups[i];
    g->q = arrays[Q_ROWS][i];
    g->acc = arrays[ACC_ROWS][i];
    g->sum_hi = arrays[HIGH_ROWS][i];
    g->sum_lo = arrays[LOW_ROWS][i];
    g->weight = take_sums(sums, needs[i].heads, &sum_bytes);
    g->rounded = take_sums(sums, needs[i].rounded, &sum_bytes);
    g->max = take_sums(sums, needs[i].heads, &sum_bytes);
    g->wide = tile.wide;
    g->k_codes.row_scales = tile.k.row_scales;
    g->k_codes.row_zeros = tile.k.row_zeros;
    g->v_codes.row_scales = tile.v.row_scales;
    g->v_codes.row_zeros = tile.v.row_zeros;
    places[i] = (spl_score_places){tile.scores, arrays[SCORE_ROWS][i], arrays[PART_ROWS][i],
                                   arrays[CHUNK_ROWS][i]};
  }
  while (sum_bytes % LINE_BYTES != 0)
    *take_sums(sums, 1, &sum_bytes) = 0;
  assert(fits);
  (void)fits;
}

/* ── the workspace ──────────────────────────────────────────────────────────────────────────── */

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
