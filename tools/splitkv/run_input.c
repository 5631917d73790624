/* The tensors of `splitkv run`: found in files, checked against each other, made a problem.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "run_input.h"

#include "npy.h"
#include "problem_text.h"
#include "tool.h"

#include "ref.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef enum role_kind {
  ROLE_FLOATS, /* of the attention */
  ROLE_KV,     /* floats or codes */
  ROLE_INDEX,  /* int32 or int64 */
  ROLE_MASK,   /* bool, or bytes that are 0 or not */
  ROLE_ZEROS   /* int8 */
} role_kind;

static const struct {
  const char *option, *name_option, *tensor;
  role_kind kind;
  bool is_optional;
} roles[RUN_N_ROLES] = {
    [RUN_Q] = {"--q", "--name-q", "q", ROLE_FLOATS, false},
    [RUN_K] = {"--k", "--name-k", "k", ROLE_KV, false},
    [RUN_V] = {"--v", "--name-v", "v", ROLE_KV, false},
    [RUN_TABLE] = {"--table", "--name-table", "table", ROLE_INDEX, false},
    [RUN_KV_LENS] = {"--kv-lens", "--name-kv-lens", "kv_lens", ROLE_INDEX, false},
    [RUN_OFFSETS] = {"--offsets", "--name-offsets", "offsets", ROLE_INDEX, true},
    [RUN_SINKS] = {"--sinks", "--name-sinks", "sinks", ROLE_FLOATS, true},
    [RUN_ALIBI] = {"--alibi", "--name-alibi", "alibi", ROLE_FLOATS, true},
    [RUN_Q_OFFSETS] = {"--q-offsets", "--name-q-offsets", "q_offsets", ROLE_INDEX, true},
    [RUN_TREE_MASK] = {"--tree-mask", "--name-tree-mask", "tree_mask", ROLE_MASK, true},
    [RUN_K_SCALES] = {"--k-scales", "--name-k-scales", "k_scales", ROLE_FLOATS, true},
    [RUN_V_SCALES] = {"--v-scales", "--name-v-scales", "v_scales", ROLE_FLOATS, true},
    [RUN_K_ZEROS] = {"--k-zeros", "--name-k-zeros", "k_zeros", ROLE_ZEROS, true},
    [RUN_V_ZEROS] = {"--v-zeros", "--name-v-zeros", "v_zeros", ROLE_ZEROS, true},
};

const char *run_role_option(run_role role) {
  return roles[role].option;
}

const char *run_role_name_option(run_role role) {
  return roles[role].name_option;
}

const char *run_role_tensor(run_role role) {
  return roles[role].tensor;
}

static const char *tensor_name(const run_input *input, run_role role) {
  return input->sources.names[role] != NULL ? input->sources.names[role] : roles[role].tensor;
}

const char *run_input_source(const run_input *input, run_role role, char text[RUN_SOURCE_BYTES]) {
  if (input->sources.paths[role] != NULL)
    (void)snprintf(text, RUN_SOURCE_BYTES, "%s %s", roles[role].option, input->sources.paths[role]);
  else
    (void)snprintf(text, RUN_SOURCE_BYTES, "--tensors %s: tensor '%s'", input->sources.tensors_path,
                   tensor_name(input, role));
  return text;
}

int run_sources_check(const run_sources *sources) {
  for (int role = 0; role < RUN_N_ROLES; role++) {
    if (sources->names[role] != NULL && sources->tensors_path == NULL)
      return tool_usage_error("%s: is for tensors of a --tensors file", roles[role].name_option);
    if (sources->names[role] != NULL && sources->paths[role] != NULL)
      return tool_usage_error("%s: names a tensor where %s names a file", roles[role].name_option,
                              roles[role].option);
  }
  if (sources->mla_channels > 0 && (sources->paths[RUN_V] != NULL || sources->names[RUN_V] != NULL))
    return tool_usage_error("%s: goes without --mla, which has V in K",
                            sources->paths[RUN_V] != NULL ? "--v" : "--name-v");
  return TOOL_OK;
}

int run_sources_check_output(const run_sources *sources, const char *option, const char *path) {
  struct stat output, input;
  if (stat(path, &output) != 0 || !S_ISREG(output.st_mode)) return TOOL_OK;
  for (int role = -1; role < RUN_N_ROLES; role++) {
    const char *name = role < 0 ? sources->tensors_path : sources->paths[role];
    if (name == NULL || stat(name, &input) != 0) continue;
    if (input.st_dev == output.st_dev && input.st_ino == output.st_ino)
      return tool_usage_error("%s %s: is the file of %s, which would be overwritten", option, path,
                              role < 0 ? "--tensors" : run_role_option((run_role)role));
  }
  return TOOL_OK;
}

/* ── reading ────────────────────────────────────────────────────────────────────────────────── */

static int load_npy(run_input *input, run_role role) {
  const char *path = input->sources.paths[role];
  file_bytes *file = &input->files[role];
  file_array *array = &input->arrays[role];
  file_error error;
  if (!file_open(path, npy_measure, file, &error) ||
      !npy_parse(file->data, file->size_bytes, array, &error) || !array_align(array, &error))
    return tool_file_error(roles[role].option, path, &error);
  input->has[role] = true;
  return TOOL_OK;
}

static int load_tensor(run_input *input, run_role role) {
  file_array *array = &input->arrays[role];
  file_error error;
  if (!safetensors_get(input->tensors, tensor_name(input, role), array, &error) ||
      !array_align(array, &error))
    return tool_file_error("--tensors", input->sources.tensors_path, &error);
  input->has[role] = true;
  return TOOL_OK;
}

static int open_tensors(run_input *input) {
  const char *path = input->sources.tensors_path;
  file_error error;
  if (!file_open(path, safetensors_measure, &input->tensors_file, &error))
    return tool_file_error("--tensors", path, &error);
  input->tensors =
      safetensors_parse(input->tensors_file.data, input->tensors_file.size_bytes, &error);
  if (input->tensors == NULL) return tool_file_error("--tensors", path, &error);
  return TOOL_OK;
}

static bool is_of_kind(role_kind kind, array_dtype dtype) {
  const bool is_float = dtype == ARRAY_F32 || dtype == ARRAY_F16 || dtype == ARRAY_BF16;
  switch (kind) {
  case ROLE_FLOATS:
    return is_float || dtype == ARRAY_U16;
  case ROLE_KV:
    return dtype != ARRAY_I32 && dtype != ARRAY_I64 && dtype != ARRAY_BOOL;
  case ROLE_INDEX:
    return dtype == ARRAY_I32 || dtype == ARRAY_I64;
  case ROLE_MASK:
    return dtype == ARRAY_BOOL || dtype == ARRAY_I8 || dtype == ARRAY_U8;
  case ROLE_ZEROS:
    return dtype == ARRAY_I8;
  }
  return false;
}

/* Types without a name of their own in the file have to be vouched for. */
static int settle_dtype(run_input *input, run_role role) {
  static const char *const wanted[] = {[ROLE_FLOATS] = "float32, float16 or bfloat16",
                                       [ROLE_KV] = "float32, float16, bfloat16 or codes",
                                       [ROLE_INDEX] = "int32 or int64",
                                       [ROLE_MASK] = "bool, int8 or uint8",
                                       [ROLE_ZEROS] = "int8"};
  char source[RUN_SOURCE_BYTES];
  file_array *array = &input->arrays[role];
  role_kind kind = roles[role].kind;
  if (kind == ROLE_KV && input->sources.takes_floats) kind = ROLE_FLOATS;
  if (!is_of_kind(kind, array->dtype))
    return tool_usage_error("%s: holds %s; it should be %s", run_input_source(input, role, source),
                            array_dtype_name(array->dtype), wanted[kind]);
  if (array->dtype == ARRAY_U16 && !input->sources.is_bf16)
    return tool_usage_error("%s: holds 16-bit values of no float type; say --bf16 if they are "
                            "bfloat16",
                            run_input_source(input, role, source));
  if (array->dtype == ARRAY_U16) array->dtype = ARRAY_BF16;
  return TOOL_OK;
}

static int load_role(run_input *input, run_role role) {
  int status = TOOL_OK;
  if (role == RUN_V && input->sources.mla_channels > 0) return TOOL_OK;
  if (input->sources.paths[role] != NULL) {
    status = load_npy(input, role);
  } else if (input->tensors != NULL) {
    const bool is_optional = roles[role].is_optional && input->sources.names[role] == NULL;
    if (is_optional && !safetensors_has(input->tensors, roles[role].tensor)) return TOOL_OK;
    status = load_tensor(input, role);
  } else {
    return roles[role].is_optional ? TOOL_OK
                                   : tool_usage_error("%s FILE.npy is missing", roles[role].option);
  }
  return status == TOOL_OK ? settle_dtype(input, role) : status;
}

int run_input_load(const run_sources *sources, run_input *input) {
  *input = (run_input){.sources = *sources};
  if (sources->tensors_path != NULL) {
    const int status = open_tensors(input);
    if (status != TOOL_OK) return status;
  }
  for (int role = 0; role < RUN_N_ROLES; role++) {
    const int status = load_role(input, (run_role)role);
    if (status != TOOL_OK) return status;
  }
  return TOOL_OK;
}

void run_input_free(run_input *input) {
  for (int role = 0; role < RUN_N_ROLES; role++) {
    array_free(&input->arrays[role]);
    file_close(&input->files[role]);
  }
  free(input->offsets_copy);
  free(input->sinks);
  free(input->slopes);
  free(input->tree_mask);
  free(input->wide_scales[0]);
  free(input->wide_scales[1]);
  safetensors_free(input->tensors);
  file_close(&input->tensors_file);
  *input = (run_input){0};
}

static splitkv_dtype float_dtype(const file_array *array) {
  return array->dtype == ARRAY_F32   ? SPLITKV_F32
         : array->dtype == ARRAY_F16 ? SPLITKV_F16
                                     : SPLITKV_BF16;
}

/* ── shapes ─────────────────────────────────────────────────────────────────────────────────── */

static int check_rank(const run_input *input, run_role role, int n_dims, const char *meaning) {
  char source[RUN_SOURCE_BYTES], shape[ARRAY_SHAPE_BYTES];
  const file_array *array = &input->arrays[role];
  if (array->n_dims == n_dims) return TOOL_OK;
  return tool_usage_error("%s: has shape %s; it should be %s",
                          run_input_source(input, role, source), array_shape_text(array, shape),
                          meaning);
}

/* Two dimensions that should be one number. */
typedef struct pairing {
  run_role role;
  int dim;
  run_role other;
  int other_dim;
  const char *what;
} pairing;

static int check_pairing(const run_input *input, const pairing *p) {
  char source[RUN_SOURCE_BYTES], other_source[RUN_SOURCE_BYTES];
  char shape[ARRAY_SHAPE_BYTES];
  const int64_t value = input->arrays[p->role].shape[p->dim];
  const int64_t other = input->arrays[p->other].shape[p->other_dim];
  if (value == other) return TOOL_OK;
  return tool_usage_error("%s: shape %s has %" PRId64 " %s, and %s has %" PRId64,
                          run_input_source(input, p->role, source),
                          array_shape_text(&input->arrays[p->role], shape), value, p->what,
                          run_input_source(input, p->other, other_source), other);
}

static int check_ranks(const run_input *input, bool is_hnd) {
  const bool is_csr = input->has[RUN_OFFSETS];
  const char *cache = is_hnd ? "[pages, KV heads, page size, channels] (--layout hnd)"
                             : "[pages, page size, KV heads, channels] (--layout nhd)";
  char source[RUN_SOURCE_BYTES];
  if (!is_csr && input->arrays[RUN_TABLE].n_dims == 1)
    return tool_usage_error("%s: has one dimension; a table of that kind (CSR) needs --offsets",
                            run_input_source(input, RUN_TABLE, source));
  const struct {
    run_role role;
    int n_dims;
    const char *meaning;
  } ranks[] = {
      {RUN_Q, 3,
       input->has[RUN_Q_OFFSETS] ? "[rows, query heads, channels]"
                                 : "[requests, query heads, channels]"},
      {RUN_K, 4, cache},
      {RUN_V, 4, cache},
      {RUN_TABLE, is_csr ? 1 : 2, is_csr ? "[entries] with --offsets" : "[requests, pages]"},
      {RUN_KV_LENS, 1, "[requests]"},
      {RUN_OFFSETS, 1, "[requests + 1]"},
      {RUN_SINKS, 1, "[query heads]"},
      {RUN_ALIBI, 1, "[query heads]"},
      {RUN_Q_OFFSETS, 1, "[requests + 1]"},
      {RUN_TREE_MASK, 2, "[rows, tokens]"},
  };
  for (size_t i = 0; i < sizeof ranks / sizeof ranks[0]; i++) {
    if (!input->has[ranks[i].role]) continue;
    const int status = check_rank(input, ranks[i].role, ranks[i].n_dims, ranks[i].meaning);
    if (status != TOOL_OK) return status;
  }
  return TOOL_OK;
}

static int check_shapes(const run_input *input, splitkv_layout layout) {
  const bool is_hnd = layout == SPLITKV_LAYOUT_HND;
  const int status = check_ranks(input, is_hnd);
  if (status != TOOL_OK) return status;
  /* With rows of their own, the requests are those of the lengths. */
  const bool has_rows = input->has[RUN_Q_OFFSETS], is_csr = input->has[RUN_OFFSETS];
  const struct {
    pairing p;
    bool is_asked;
  } pairings[] = {
      {{RUN_K, 3, RUN_Q, 2, "channels"}, true},
      {{RUN_V, 0, RUN_K, 0, "pages"}, true},
      {{RUN_V, 1, RUN_K, 1, is_hnd ? "KV heads" : "tokens per page"}, true},
      {{RUN_V, 2, RUN_K, 2, is_hnd ? "tokens per page" : "KV heads"}, true},
      {{RUN_KV_LENS, 0, RUN_Q, 0, "requests"}, !has_rows},
      {{RUN_SINKS, 0, RUN_Q, 1, "query heads"}, true},
      {{RUN_ALIBI, 0, RUN_Q, 1, "query heads"}, true},
      {{RUN_TREE_MASK, 0, RUN_Q, 0, "rows"}, true},
      {{RUN_TABLE, 0, has_rows ? RUN_KV_LENS : RUN_Q, 0, "requests"}, !is_csr},
  };
  for (size_t i = 0; i < sizeof pairings / sizeof pairings[0]; i++) {
    if (!pairings[i].is_asked || !input->has[pairings[i].p.role]) continue;
    const int failed = check_pairing(input, &pairings[i].p);
    if (failed != TOOL_OK) return failed;
  }
  return TOOL_OK;
}

/* ── offsets ────────────────────────────────────────────────────────────────────────────────── */

static int64_t load_index(const file_array *array, int64_t i) {
  return array->dtype == ARRAY_I32 ? ((const int32_t *)array->data)[i]
                                   : ((const int64_t *)array->data)[i];
}

/* The library takes one type for ids and offsets: offsets, which are few, follow the ids. */
static int convert_offsets(run_input *input) {
  char source[RUN_SOURCE_BYTES];
  file_array *offsets = &input->arrays[RUN_OFFSETS];
  const array_dtype wanted = input->arrays[RUN_TABLE].dtype;
  if (offsets->dtype == wanted || offsets->n_elements == 0) return TOOL_OK;
  const size_t count = (size_t)offsets->n_elements;
  void *copy = calloc(count, array_dtype_size(wanted));
  if (copy == NULL) return tool_unsupported("no memory for %zu offsets", count);
  input->offsets_copy = copy;
  for (int64_t i = 0; i < offsets->n_elements; i++) {
    const int64_t value = load_index(offsets, i);
    if (wanted == ARRAY_I64) {
      ((int64_t *)copy)[i] = value;
      continue;
    }
    if (value < INT32_MIN || value > INT32_MAX)
      return tool_usage_error("%s: offset %" PRId64 " is %" PRId64
                              ", which does not fit in the int32 of --table",
                              run_input_source(input, RUN_OFFSETS, source), i, value);
    ((int32_t *)copy)[i] = (int32_t)value;
  }
  offsets->data = copy;
  offsets->dtype = wanted;
  return TOOL_OK;
}

static int check_n_offsets(const run_input *input, run_role role, int64_t n_requests) {
  char source[RUN_SOURCE_BYTES];
  const int64_t n = input->arrays[role].shape[0];
  if (n == n_requests + 1) return TOOL_OK;
  return tool_usage_error("%s: has %" PRId64 " offsets; %" PRId64 " requests need %" PRId64,
                          run_input_source(input, role, source), n, n_requests, n_requests + 1);
}

static int describe_offsets(run_input *input, int64_t n_requests) {
  const int status = check_n_offsets(input, RUN_OFFSETS, n_requests);
  return status == TOOL_OK ? convert_offsets(input) : status;
}

int64_t run_input_n_rows(const run_input *input) {
  return input->arrays[RUN_Q].shape[0];
}

/* That they begin at 0 and ascend is for the library to check; where they end only Q says. */
static int describe_q_offsets(const run_input *input, splitkv_batch *batch) {
  char source[RUN_SOURCE_BYTES], q_source[RUN_SOURCE_BYTES];
  const file_array *offsets = &input->arrays[RUN_Q_OFFSETS];
  if (!input->has[RUN_Q_OFFSETS]) return TOOL_OK;
  const int status = check_n_offsets(input, RUN_Q_OFFSETS, batch->n_requests);
  if (status != TOOL_OK) return status;
  const int64_t end = load_index(offsets, batch->n_requests);
  if (end != run_input_n_rows(input))
    return tool_usage_error("%s: ends at row %" PRId64 ", and %s has %" PRId64 " rows",
                            run_input_source(input, RUN_Q_OFFSETS, source), end,
                            run_input_source(input, RUN_Q, q_source), run_input_n_rows(input));
  batch->q_offsets = offsets->data;
  batch->q_offsets_type = offsets->dtype == ARRAY_I32 ? SPLITKV_I32 : SPLITKV_I64;
  return TOOL_OK;
}

/* ── the tree ───────────────────────────────────────────────────────────────────────────────── */

/* A byte for each token becomes a bit. */
static int describe_tree(run_input *input, splitkv_problem *problem) {
  if (!input->has[RUN_TREE_MASK]) return TOOL_OK;
  char source[RUN_SOURCE_BYTES];
  const file_array *array = &input->arrays[RUN_TREE_MASK];
  const int64_t n = array->shape[1], n_words = n / 64 + (n % 64 > 0);
  if (n == 0)
    return tool_usage_error("%s: has no token", run_input_source(input, RUN_TREE_MASK, source));
  input->tree_mask = calloc((size_t)(array->shape[0] * n_words) + 1, sizeof *input->tree_mask);
  if (input->tree_mask == NULL)
    return tool_unsupported("no memory for a mask of %" PRId64 " rows", array->shape[0]);
  for (int64_t i = 0; i < array->n_elements; i++) {
    const int64_t bit = i % n;
    if (((const unsigned char *)array->data)[i] != 0)
      input->tree_mask[i / n * n_words + bit / 64] |= (uint64_t)1 << (bit % 64);
  }
  problem->tree_tokens = n;
  return TOOL_OK;
}

/* ── numbers as f32 ─────────────────────────────────────────────────────────────── */

/* An array's numbers as f32, which every float type of a file fits into. */
static int describe_numbers(const run_input *input, run_role role, float **numbers) {
  if (!input->has[role]) return TOOL_OK;
  const file_array *array = &input->arrays[role];
  const size_t count = (size_t)array->n_elements;
  *numbers = calloc(count + 1, sizeof **numbers);
  if (*numbers == NULL) return tool_unsupported("no memory for %zu numbers", count);
  for (int64_t i = 0; i < array->n_elements; i++)
    (*numbers)[i] = (float)ref_load(float_dtype(array), array->data, i);
  return TOOL_OK;
}

/* ── the problem ────────────────────────────────────────────────────────────────────────────── */

static splitkv_index_type index_type(const file_array *array) {
  return array->dtype == ARRAY_I32 ? SPLITKV_I32 : SPLITKV_I64;
}

static int check_kv_dtypes(const run_input *input) {
  char source[RUN_SOURCE_BYTES], k_source[RUN_SOURCE_BYTES];
  const file_array *k = &input->arrays[RUN_K], *v = &input->arrays[RUN_V];
  if (!input->has[RUN_V] || k->dtype == v->dtype) return TOOL_OK;
  return tool_usage_error("%s: holds %s, and %s holds %s; they should be the same",
                          run_input_source(input, RUN_V, source), array_dtype_name(v->dtype),
                          run_input_source(input, RUN_K, k_source), array_dtype_name(k->dtype));
}

/* Two channels to a byte: from here on the shape counts channels. More than the library takes are
 * too many either way. */
static void unpack_shape(file_array *array) {
  if (array->shape[3] <= SPLITKV_MAX_HEAD_DIM) array->shape[3] *= 2;
}

/* What K and V are: what their arrays are called, or what the user says of bytes. */
static int settle_kv_dtype(run_input *input) {
  static const struct {
    array_dtype dtype;
    splitkv_dtype kv_dtype;
  } named[] = {{ARRAY_F32, SPLITKV_F32},          {ARRAY_F16, SPLITKV_F16},
               {ARRAY_BF16, SPLITKV_BF16},        {ARRAY_I8, SPLITKV_INT8},
               {ARRAY_F8_E4M3, SPLITKV_FP8_E4M3}, {ARRAY_F8_E5M2, SPLITKV_FP8_E5M2}};
  char source[RUN_SOURCE_BYTES];
  const run_sources *sources = &input->sources;
  const array_dtype dtype = input->arrays[RUN_K].dtype;
  const bool is_said = sources->has_kv_dtype, is_bytes = dtype == ARRAY_U8;
  if (is_bytes && !is_said)
    return tool_usage_error("%s: holds uint8, which says little; add --kv-dtype fp8_e4m3, fp8_e5m2 "
                            "or int4",
                            run_input_source(input, RUN_K, source));
  input->kv_dtype = sources->kv_dtype;
  for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
    if (named[i].dtype == dtype) input->kv_dtype = named[i].kv_dtype;
  }
  const bool is_byte_code = input->kv_dtype == SPLITKV_FP8_E4M3 ||
                            input->kv_dtype == SPLITKV_FP8_E5M2 || input->kv_dtype == SPLITKV_INT4;
  if (is_said && (is_bytes ? !is_byte_code : input->kv_dtype != sources->kv_dtype))
    return tool_usage_error("--kv-dtype %s: %s holds %s", problem_dtype_name(sources->kv_dtype),
                            run_input_source(input, RUN_K, source), array_dtype_name(dtype));
  if (input->kv_dtype == SPLITKV_INT4) {
    unpack_shape(&input->arrays[RUN_K]);
    if (input->has[RUN_V]) unpack_shape(&input->arrays[RUN_V]);
  }
  return TOOL_OK;
}

/* ── scales ─────────────────────────────────────────────────────────────────────────────────── */

static bool has_shape(const file_array *array, int n_dims, const int64_t *shape) {
  bool is_same = array->n_dims == n_dims;
  for (int i = 0; i < n_dims && is_same; i++)
    is_same = array->shape[i] == shape[i];
  return is_same;
}

/* The mode that a shape means. Two modes may have one shape, and are then the same. */
static int find_mode(const run_input *input, run_role role, const splitkv_problem *p,
                     splitkv_scale_mode *mode) {
  const bool is_hnd = p->layout == SPLITKV_LAYOUT_HND;
  const int64_t channels = role == RUN_K_SCALES ? p->head_dim : p->head_dim_v;
  const int64_t pages = p->n_pages, page = p->page_size_tokens, heads = p->n_heads_kv;
  const int64_t first = is_hnd ? heads : page, second = is_hnd ? page : heads;
  const struct {
    splitkv_scale_mode mode;
    int n_dims;
    int64_t shape[4];
  } shapes[] = {{SPLITKV_SCALE_TENSOR, 0, {0}},
                {SPLITKV_SCALE_TENSOR, 1, {1}},
                {SPLITKV_SCALE_HEAD, 1, {heads}},
                {SPLITKV_SCALE_CHANNEL, 2, {heads, channels}},
                {SPLITKV_SCALE_TOKEN, 3, {pages, first, second}},
                {SPLITKV_SCALE_TOKEN, 4, {pages, first, second, 1}},
                {SPLITKV_SCALE_GROUP32, 4, {pages, first, second, (channels + 31) / 32}},
                {SPLITKV_SCALE_GROUP64, 4, {pages, first, second, (channels + 63) / 64}}};
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
    *mode = shapes[i].mode;
    if (has_shape(&input->arrays[role], shapes[i].n_dims, shapes[i].shape)) return TOOL_OK;
  }
  char source[RUN_SOURCE_BYTES], shape[ARRAY_SHAPE_BYTES];
  return tool_usage_error(
      "%s: has shape %s; it should be [1], [%" PRId64 "], [%" PRId64 ", %" PRId64 "], or [%" PRId64
      ", %" PRId64 ", %" PRId64 ", n] with n 1, %" PRId64 " or %" PRId64,
      run_input_source(input, role, source), array_shape_text(&input->arrays[role], shape), heads,
      heads, channels, pages, first, second, (channels + 31) / 32, (channels + 63) / 64);
}

/* Zero points have the shape of their scales. */
static int check_zeros(const run_input *input, run_role zeros, run_role scales) {
  char source[RUN_SOURCE_BYTES], shape[ARRAY_SHAPE_BYTES], scales_shape[ARRAY_SHAPE_BYTES];
  const file_array *a = &input->arrays[zeros], *b = &input->arrays[scales];
  if (!input->has[zeros]) return TOOL_OK;
  if (!input->has[scales])
    return tool_usage_error("%s: goes with %s", run_input_source(input, zeros, source),
                            roles[scales].option);
  if (has_shape(a, b->n_dims, b->shape)) return TOOL_OK;
  return tool_usage_error("%s: has shape %s, and %s has %s; they should be the same",
                          run_input_source(input, zeros, source), array_shape_text(a, shape),
                          roles[scales].option, array_shape_text(b, scales_shape));
}

/* The library takes one type for both: f32 where they differ, and for bfloat16. */
static int widen_scales(run_input *input, splitkv_problem *problem) {
  const run_role both[2] = {RUN_K_SCALES, RUN_V_SCALES};
  bool is_f16 = true;
  for (int i = 0; i < 2; i++)
    is_f16 = is_f16 && (!input->has[both[i]] || input->arrays[both[i]].dtype == ARRAY_F16);
  problem->dtype_scales = is_f16 ? SPLITKV_F16 : SPLITKV_F32;
  for (int i = 0; i < 2; i++) {
    const file_array *array = &input->arrays[both[i]];
    if (!input->has[both[i]] || is_f16 || array->dtype == ARRAY_F32) continue;
    const int status = describe_numbers(input, both[i], &input->wide_scales[i]);
    if (status != TOOL_OK) return status;
  }
  return TOOL_OK;
}

static int describe_scales(run_input *input, splitkv_problem *problem) {
  const bool has_k = input->has[RUN_K_SCALES], has_v = input->has[RUN_V_SCALES];
  const bool has_k_zeros = input->has[RUN_K_ZEROS], has_v_zeros = input->has[RUN_V_ZEROS];
  int status = TOOL_OK;
  if (has_k) status = find_mode(input, RUN_K_SCALES, problem, &problem->k_scale_mode);
  if (status == TOOL_OK && has_v)
    status = find_mode(input, RUN_V_SCALES, problem, &problem->v_scale_mode);
  if (status == TOOL_OK) status = check_zeros(input, RUN_K_ZEROS, RUN_K_SCALES);
  if (status == TOOL_OK) status = check_zeros(input, RUN_V_ZEROS, RUN_V_SCALES);
  if (status != TOOL_OK || (!has_k && !has_v)) return status;
  if (input->sources.mla_channels > 0 && has_k != has_v)
    return tool_usage_error("%s FILE.npy is missing: with --mla K and V are the same codes, and "
                            "have the same scales",
                            has_k ? "--v-scales" : "--k-scales");
  if (has_k && has_v && has_k_zeros != has_v_zeros)
    return tool_usage_error("%s FILE.npy is missing: %s has zero points, too",
                            has_k_zeros ? "--v-zeros" : "--k-zeros", has_k_zeros ? "K" : "V");
  if (has_k_zeros || has_v_zeros) problem->flags |= SPLITKV_FLAG_ZERO_POINTS;
  return widen_scales(input, problem);
}

/* ── V in K ─────────────────────────────────────────────────────────────────────────────────── */

static int describe_v(const run_input *input, splitkv_problem *p) {
  const int64_t channels = input->sources.mla_channels;
  if (channels == 0) {
    p->head_dim_v = input->arrays[RUN_V].shape[3];
    return TOOL_OK;
  }
  char source[RUN_SOURCE_BYTES];
  if (channels > p->head_dim)
    return tool_usage_error("--mla %" PRId64 ": V is the first channels of K, and %s has %" PRId64,
                            channels, run_input_source(input, RUN_K, source), p->head_dim);
  const bool is_hnd = p->layout == SPLITKV_LAYOUT_HND;
  p->head_dim_v = channels;
  p->k_stride_page = p->page_size_tokens * p->n_heads_kv * p->head_dim;
  p->k_stride_token = is_hnd ? p->head_dim : p->n_heads_kv * p->head_dim;
  p->k_stride_head = is_hnd ? p->page_size_tokens * p->head_dim : p->head_dim;
  p->v_stride_page = p->k_stride_page;
  p->v_stride_token = p->k_stride_token;
  p->v_stride_head = p->k_stride_head;
  p->layout = SPLITKV_LAYOUT_STRIDES;
  return TOOL_OK;
}

/* What the arrays say together. */
static int describe_arrays(run_input *input, splitkv_problem *problem) {
  const bool is_hnd = problem->layout == SPLITKV_LAYOUT_HND;
  const file_array *q = &input->arrays[RUN_Q], *k = &input->arrays[RUN_K];
  problem->n_heads_q = q->shape[1];
  problem->n_heads_kv = k->shape[is_hnd ? 1 : 2];
  problem->head_dim = q->shape[2];
  problem->page_size_tokens = k->shape[is_hnd ? 2 : 1];
  problem->n_pages = k->shape[0];
  problem->dtype_q = float_dtype(q);
  problem->dtype_kv = input->kv_dtype;
  problem->dtype_out = problem->dtype_q;
  problem->table_type = index_type(&input->arrays[RUN_TABLE]);
  problem->flags = (input->sinks != NULL ? SPLITKV_FLAG_SINKS : 0) |
                   (input->slopes != NULL ? SPLITKV_FLAG_ALIBI : 0);
  int status = describe_v(input, problem);
  if (status == TOOL_OK) status = describe_scales(input, problem);
  return status == TOOL_OK ? describe_tree(input, problem) : status;
}

int run_input_describe(run_input *input, splitkv_problem *problem, splitkv_batch *batch) {
  int status = check_kv_dtypes(input);
  if (status == TOOL_OK) status = check_ranks(input, problem->layout == SPLITKV_LAYOUT_HND);
  if (status == TOOL_OK) status = settle_kv_dtype(input);
  if (status == TOOL_OK) status = check_shapes(input, problem->layout);
  if (status == TOOL_OK) status = describe_numbers(input, RUN_SINKS, &input->sinks);
  if (status == TOOL_OK) status = describe_numbers(input, RUN_ALIBI, &input->slopes);
  if (status == TOOL_OK) status = describe_arrays(input, problem);
  if (status != TOOL_OK) return status;
  const file_array *kv_lens = &input->arrays[RUN_KV_LENS], *table = &input->arrays[RUN_TABLE];
  batch->n_requests = kv_lens->shape[0];
  batch->kv_lens = kv_lens->data;
  batch->kv_lens_type = index_type(kv_lens);
  status = describe_q_offsets(input, batch);
  if (status != TOOL_OK) return status;
  if (!input->has[RUN_OFFSETS]) {
    problem->table_format = SPLITKV_TABLE_DENSE;
    problem->table_width = table->shape[1];
    return TOOL_OK;
  }
  problem->table_format = SPLITKV_TABLE_CSR;
  return describe_offsets(input, batch->n_requests);
}

void run_input_tensors(const run_input *input, splitkv_tensors *tensors) {
  tensors->q = input->arrays[RUN_Q].data;
  tensors->k = input->arrays[RUN_K].data;
  tensors->v = input->arrays[input->has[RUN_V] ? RUN_V : RUN_K].data;
  tensors->block_table = input->arrays[RUN_TABLE].data;
  tensors->sinks = input->sinks;
  tensors->alibi_slopes = input->slopes;
  tensors->tree_mask = input->tree_mask;
  tensors->k_scales =
      input->wide_scales[0] ? (void *)input->wide_scales[0] : input->arrays[RUN_K_SCALES].data;
  tensors->v_scales =
      input->wide_scales[1] ? (void *)input->wide_scales[1] : input->arrays[RUN_V_SCALES].data;
  tensors->k_zeros = input->arrays[RUN_K_ZEROS].data;
  tensors->v_zeros = input->arrays[RUN_V_ZEROS].data;
  if (!input->has[RUN_OFFSETS]) return;
  tensors->table_offsets = input->arrays[RUN_OFFSETS].data;
  tensors->table_entries = input->arrays[RUN_TABLE].n_elements;
}

/* ── the Ascend kernel's table ──────────────────────────────────────────────────────────────── */

int run_input_check_pages(const run_input *input, const splitkv_problem *problem) {
  char source[RUN_SOURCE_BYTES];
  const file_array *table = &input->arrays[RUN_TABLE], *kv_lens = &input->arrays[RUN_KV_LENS];
  const int64_t page = problem->page_size_tokens;
  for (int64_t r = 0; r < kv_lens->n_elements; r++) {
    const int64_t kv_len = load_index(kv_lens, r);
    for (int64_t i = 0; i * page < kv_len; i++) {
      const int64_t id = load_index(table, r * problem->table_width + i);
      if (id >= 0 && id < problem->n_pages) continue;
      return tool_usage_error("%s: entry [%" PRId64 ", %" PRId64 "] is page %" PRId64
                              ", and the cache has %" PRId64 " pages",
                              run_input_source(input, RUN_TABLE, source), r, i, id,
                              problem->n_pages);
    }
  }
  return TOOL_OK;
}

int run_input_narrow_table(run_input *input) {
  file_array *table = &input->arrays[RUN_TABLE];
  if (table->dtype == ARRAY_I32) return TOOL_OK;
  const size_t count = (size_t)table->n_elements;
  int32_t *copy = calloc(count + 1, sizeof *copy);
  if (copy == NULL) return tool_unsupported("no memory for %zu page ids", count);
  for (int64_t i = 0; i < table->n_elements; i++) {
    const int64_t id = load_index(table, i);
    copy[i] = id < INT32_MIN || id > INT32_MAX ? -1 : (int32_t)id;
  }
  free(table->copy);
  table->copy = copy;
  table->data = copy;
  table->dtype = ARRAY_I32;
  table->size_bytes = count * sizeof *copy;
  return TOOL_OK;
}

/* ── errors of the library ──────────────────────────────────────────────────────────────────── */

/* The tensor whose values or shape a status is about. */
static const struct {
  splitkv_status status;
  run_role role;
} status_roles[] = {
    {SPLITKV_ERROR_N_HEADS_Q, RUN_Q},
    {SPLITKV_ERROR_HEAD_GROUP, RUN_Q},
    {SPLITKV_ERROR_HEAD_DIM, RUN_Q},
    {SPLITKV_ERROR_N_REQUESTS, RUN_Q},
    {SPLITKV_ERROR_N_HEADS_KV, RUN_K},
    {SPLITKV_ERROR_PAGE_SIZE, RUN_K},
    {SPLITKV_ERROR_N_PAGES, RUN_K},
    {SPLITKV_ERROR_HEAD_DIM_V, RUN_V},
    {SPLITKV_ERROR_TABLE_WIDTH, RUN_TABLE},
    {SPLITKV_ERROR_PAGE_ID, RUN_TABLE},
    {SPLITKV_ERROR_TABLE_OFFSETS, RUN_OFFSETS},
    {SPLITKV_ERROR_TABLE_SHORT, RUN_OFFSETS},
    {SPLITKV_ERROR_KV_LEN, RUN_KV_LENS},
    {SPLITKV_ERROR_KV_LEN_TABLE, RUN_KV_LENS},
    {SPLITKV_ERROR_Q_OFFSETS, RUN_Q_OFFSETS},
    {SPLITKV_ERROR_TREE, RUN_TREE_MASK},
    {SPLITKV_ERROR_ASCEND_DTYPE, RUN_Q},
    {SPLITKV_ERROR_ASCEND_HEAD_DIM, RUN_Q},
    {SPLITKV_ERROR_ASCEND_HEAD_DIMS, RUN_V},
    {SPLITKV_ERROR_ASCEND_TABLE, RUN_TABLE},
    {SPLITKV_ERROR_ASCEND_EMPTY, RUN_KV_LENS},
};

int run_input_library_error(const run_input *input, splitkv_status status,
                            const splitkv_error *error) {
  char source[RUN_SOURCE_BYTES] = "";
  /* K or V: the one that has them. */
  if (status == SPLITKV_ERROR_SCALE_MODE)
    (void)run_input_source(input, input->has[RUN_K_SCALES] ? RUN_K_SCALES : RUN_V_SCALES, source);
  if (status == SPLITKV_ERROR_ZERO_POINTS)
    (void)run_input_source(input, input->has[RUN_K_ZEROS] ? RUN_K_ZEROS : RUN_V_ZEROS, source);
  for (size_t i = 0; i < sizeof status_roles / sizeof status_roles[0]; i++) {
    if (status_roles[i].status == status)
      (void)run_input_source(input, status_roles[i].role, source);
  }
  return tool_library_error(source, status, error);
}
