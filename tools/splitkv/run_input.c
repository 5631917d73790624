/* The tensors of `splitkv run`: found in files, checked against each other, made a problem.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "run_input.h"

#include "npy.h"
#include "tool.h"

#include "ref.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const struct {
  const char *option, *name_option, *tensor;
  bool is_index; /* int32 or int64, else a tensor of the attention */
  bool is_optional;
} roles[RUN_N_ROLES] = {
    [RUN_Q] = {"--q", "--name-q", "q", false, false},
    [RUN_K] = {"--k", "--name-k", "k", false, false},
    [RUN_V] = {"--v", "--name-v", "v", false, false},
    [RUN_TABLE] = {"--table", "--name-table", "table", true, false},
    [RUN_KV_LENS] = {"--kv-lens", "--name-kv-lens", "kv_lens", true, false},
    [RUN_OFFSETS] = {"--offsets", "--name-offsets", "offsets", true, true},
    [RUN_SINKS] = {"--sinks", "--name-sinks", "sinks", false, true},
    [RUN_ALIBI] = {"--alibi", "--name-alibi", "alibi", false, true},
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

/* Bfloat16 without a type of its own has to be vouched for. */
static int settle_dtype(run_input *input, run_role role) {
  char source[RUN_SOURCE_BYTES];
  file_array *array = &input->arrays[role];
  const bool is_int = array->dtype == ARRAY_I32 || array->dtype == ARRAY_I64;
  if (roles[role].is_index && !is_int)
    return tool_usage_error("%s: holds %s; it should be int32 or int64",
                            run_input_source(input, role, source), array_dtype_name(array->dtype));
  if (roles[role].is_index) return TOOL_OK;
  if (is_int)
    return tool_usage_error("%s: holds %s; it should be float32, float16 or bfloat16",
                            run_input_source(input, role, source), array_dtype_name(array->dtype));
  if (array->dtype == ARRAY_U16 && !input->sources.is_bf16)
    return tool_usage_error("%s: holds 16-bit values of no float type; say --bf16 if they are "
                            "bfloat16",
                            run_input_source(input, role, source));
  if (array->dtype == ARRAY_U16) array->dtype = ARRAY_BF16;
  return TOOL_OK;
}

static int load_role(run_input *input, run_role role) {
  int status = TOOL_OK;
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

static int check_shapes(const run_input *input, splitkv_layout layout) {
  const bool is_hnd = layout == SPLITKV_LAYOUT_HND;
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
      {RUN_Q, 3, "[requests, query heads, channels]"},
      {RUN_K, 4, cache},
      {RUN_V, 4, cache},
      {RUN_TABLE, is_csr ? 1 : 2, is_csr ? "[entries] with --offsets" : "[requests, pages]"},
      {RUN_KV_LENS, 1, "[requests]"},
      {RUN_OFFSETS, 1, "[requests + 1]"},
      {RUN_SINKS, 1, "[query heads]"},
      {RUN_ALIBI, 1, "[query heads]"},
  };
  for (size_t i = 0; i < sizeof ranks / sizeof ranks[0]; i++) {
    if (!input->has[ranks[i].role]) continue;
    const int status = check_rank(input, ranks[i].role, ranks[i].n_dims, ranks[i].meaning);
    if (status != TOOL_OK) return status;
  }
  const pairing pairings[] = {
      {RUN_K, 3, RUN_Q, 2, "channels"},
      {RUN_V, 0, RUN_K, 0, "pages"},
      {RUN_V, 1, RUN_K, 1, is_hnd ? "KV heads" : "tokens per page"},
      {RUN_V, 2, RUN_K, 2, is_hnd ? "tokens per page" : "KV heads"},
      {RUN_KV_LENS, 0, RUN_Q, 0, "requests"},
      {RUN_SINKS, 0, RUN_Q, 1, "query heads"},
      {RUN_ALIBI, 0, RUN_Q, 1, "query heads"},
      {RUN_TABLE, 0, RUN_Q, 0, "requests"},
  };
  /* A CSR table has no row per request: the last pairing is not for it. */
  const size_t n_pairings = sizeof pairings / sizeof pairings[0] - (is_csr ? 1 : 0);
  for (size_t i = 0; i < n_pairings; i++) {
    if (!input->has[pairings[i].role]) continue;
    const int status = check_pairing(input, &pairings[i]);
    if (status != TOOL_OK) return status;
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

static int describe_offsets(run_input *input, int64_t n_requests) {
  char source[RUN_SOURCE_BYTES];
  const int64_t n = input->arrays[RUN_OFFSETS].shape[0];
  if (n != n_requests + 1)
    return tool_usage_error("%s: has %" PRId64 " offsets; %" PRId64 " requests need %" PRId64,
                            run_input_source(input, RUN_OFFSETS, source), n, n_requests,
                            n_requests + 1);
  return convert_offsets(input);
}

/* ── numbers of the query heads ─────────────────────────────────────────────────────────────── */

/* One number per query head as f32, which every float type of a file fits into. */
static int describe_heads(const run_input *input, run_role role, float **numbers) {
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
  if (k->dtype == v->dtype) return TOOL_OK;
  return tool_usage_error("%s: holds %s, and %s holds %s; they should be the same",
                          run_input_source(input, RUN_V, source), array_dtype_name(v->dtype),
                          run_input_source(input, RUN_K, k_source), array_dtype_name(k->dtype));
}

int run_input_describe(run_input *input, splitkv_problem *problem, splitkv_batch *batch) {
  const bool is_hnd = problem->layout == SPLITKV_LAYOUT_HND;
  int status = check_shapes(input, problem->layout);
  if (status == TOOL_OK) status = check_kv_dtypes(input);
  if (status == TOOL_OK) status = describe_heads(input, RUN_SINKS, &input->sinks);
  if (status == TOOL_OK) status = describe_heads(input, RUN_ALIBI, &input->slopes);
  if (status != TOOL_OK) return status;
  problem->flags = (input->sinks != NULL ? SPLITKV_FLAG_SINKS : 0) |
                   (input->slopes != NULL ? SPLITKV_FLAG_ALIBI : 0);
  const file_array *q = &input->arrays[RUN_Q], *k = &input->arrays[RUN_K];
  const file_array *table = &input->arrays[RUN_TABLE];
  problem->n_heads_q = q->shape[1];
  problem->n_heads_kv = k->shape[is_hnd ? 1 : 2];
  problem->head_dim = q->shape[2];
  problem->head_dim_v = input->arrays[RUN_V].shape[3];
  problem->page_size_tokens = k->shape[is_hnd ? 2 : 1];
  problem->n_pages = k->shape[0];
  problem->dtype_q = float_dtype(q);
  problem->dtype_kv = float_dtype(k);
  problem->dtype_out = problem->dtype_q;
  problem->table_type = index_type(table);
  batch->n_requests = q->shape[0];
  batch->kv_lens = input->arrays[RUN_KV_LENS].data;
  batch->kv_lens_type = index_type(&input->arrays[RUN_KV_LENS]);
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
  tensors->v = input->arrays[RUN_V].data;
  tensors->block_table = input->arrays[RUN_TABLE].data;
  tensors->sinks = input->sinks;
  tensors->alibi_slopes = input->slopes;
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
    {SPLITKV_ERROR_ASCEND_DTYPE, RUN_Q},
    {SPLITKV_ERROR_ASCEND_HEAD_DIM, RUN_Q},
    {SPLITKV_ERROR_ASCEND_HEAD_DIMS, RUN_V},
    {SPLITKV_ERROR_ASCEND_TABLE, RUN_TABLE},
    {SPLITKV_ERROR_ASCEND_EMPTY, RUN_KV_LENS},
};

int run_input_library_error(const run_input *input, splitkv_status status,
                            const splitkv_error *error) {
  char source[RUN_SOURCE_BYTES] = "";
  for (size_t i = 0; i < sizeof status_roles / sizeof status_roles[0]; i++) {
    if (status_roles[i].status == status)
      (void)run_input_source(input, status_roles[i].role, source);
  }
  return tool_library_error(source, status, error);
}
