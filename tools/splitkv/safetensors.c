/* The safetensors format: named arrays in one file.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "safetensors.h"

#include <cjson/cJSON.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
  LENGTH_BYTES = 8,
  /* The limit of the format's own implementation. */
  MAX_HEADER_BYTES = 100000000
};

/* cJSON keeps numbers as double: from here on neighbours are no longer told apart. */
#define FIRST_INEXACT_INTEGER 9007199254740992.0 /* 2^53 */

typedef struct tensor_entry {
  const char *name; /* in the JSON tree */
  const char *dtype;
  const cJSON *shape;
  uint64_t begin, end; /* bytes of the data */
} tensor_entry;

struct safetensors {
  cJSON *header;
  tensor_entry *tensors; /* in order of names */
  size_t n_tensors;
  const unsigned char *data;
  size_t data_bytes;
};

/* ── JSON ───────────────────────────────────────────────────────────────────────────────────── */

/* cJSON's strings end at the first zero: "q\u0000x" would pass for "q". */
static bool check_no_zero(const char *text, size_t size, file_error *error) {
  const char *zero = memchr(text, 0, size);
  if (zero != NULL) return file_fail(error, "header byte %td is a zero byte", zero - text);
  for (size_t i = 0; i + 5 < size; i++) {
    if (text[i] != '\\') continue;
    if (memcmp(text + i, "\\u0000", 6) == 0)
      return file_fail(error, "header byte %zu is a zero character in a string", i);
    i++; /* what a backslash escapes is not itself a backslash */
  }
  return true;
}

static bool is_json_blank(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static cJSON *parse_json(const char *text, size_t size, file_error *error) {
  if (!check_no_zero(text, size, error)) return NULL;
  if (size == 0 || text[0] != '{') {
    (void)file_fail(error, "the header does not begin with '{'");
    return NULL;
  }
  const char *end = text;
  cJSON *header = cJSON_ParseWithLengthOpts(text, size, &end, 0);
  if (header == NULL) {
    (void)file_fail(error, "the header is not JSON, from byte %td on", end - text);
    return NULL;
  }
  while (end < text + size && is_json_blank(*end))
    end++;
  if (end != text + size) {
    (void)file_fail(error, "header byte %td: something follows the JSON object", end - text);
    cJSON_Delete(header);
    return NULL;
  }
  return header;
}

/* A whole number that a double holds exactly. */
static bool read_integer(const cJSON *item, uint64_t *value) {
  if (!cJSON_IsNumber(item)) return false;
  const double number = item->valuedouble;
  if (!(number >= 0 && number < FIRST_INEXACT_INTEGER)) return false;
  *value = (uint64_t)number;
  return (double)*value == number;
}

/* ── one tensor ─────────────────────────────────────────────────────────────────────────────── */

static bool check_shape(const tensor_entry *entry, file_error *error) {
  const cJSON *dimension = NULL;
  uint64_t value;
  if (!cJSON_IsArray(entry->shape))
    return file_fail(error, "tensor '%s': shape is not a list", entry->name);
  cJSON_ArrayForEach(dimension, entry->shape) {
    if (!cJSON_IsNumber(dimension))
      return file_fail(error, "tensor '%s': a dimension is not a number", entry->name);
    if (!read_integer(dimension, &value))
      return file_fail(error,
                       "tensor '%s': a dimension is %.17g; it should be a whole number from 0 to "
                       "2^53 - 1",
                       entry->name, dimension->valuedouble);
  }
  return true;
}

static bool read_offsets(const cJSON *item, size_t data_bytes, tensor_entry *entry,
                         file_error *error) {
  if (!cJSON_IsArray(item) || cJSON_GetArraySize(item) != 2)
    return file_fail(error, "tensor '%s': data_offsets is not a list of two numbers", entry->name);
  const cJSON *const ends[2] = {cJSON_GetArrayItem(item, 0), cJSON_GetArrayItem(item, 1)};
  uint64_t values[2];
  for (int i = 0; i < 2; i++) {
    if (!cJSON_IsNumber(ends[i]))
      return file_fail(error, "tensor '%s': data_offsets[%d] is not a number", entry->name, i);
    if (!read_integer(ends[i], &values[i]))
      return file_fail(error,
                       "tensor '%s': data_offsets[%d] is %.17g; it should be a whole number "
                       "from 0 to 2^53 - 1",
                       entry->name, i, ends[i]->valuedouble);
  }
  entry->begin = values[0];
  entry->end = values[1];
  if (entry->begin > entry->end)
    return file_fail(error,
                     "tensor '%s': data_offsets begin at %" PRIu64 ", after their end %" PRIu64,
                     entry->name, entry->begin, entry->end);
  if (entry->end > data_bytes)
    return file_fail(
        error, "tensor '%s': data_offsets end at %" PRIu64 ", and the file has %zu bytes of data",
        entry->name, entry->end, data_bytes);
  return true;
}

static bool read_tensor(const cJSON *item, size_t data_bytes, tensor_entry *entry,
                        file_error *error) {
  static const char *const keys[3] = {"dtype", "shape", "data_offsets"};
  const cJSON *values[3] = {NULL, NULL, NULL};
  entry->name = item->string;
  if (!cJSON_IsObject(item))
    return file_fail(error, "tensor '%s' is not described by an object", entry->name);
  const cJSON *value = NULL;
  cJSON_ArrayForEach(value, item) {
    for (int k = 0; k < 3; k++) {
      if (strcmp(value->string, keys[k]) != 0) continue;
      if (values[k] != NULL)
        return file_fail(error, "tensor '%s' has %s twice", entry->name, keys[k]);
      values[k] = value;
    }
  }
  for (int k = 0; k < 3; k++) {
    if (values[k] == NULL) return file_fail(error, "tensor '%s' has no %s", entry->name, keys[k]);
  }
  if (!cJSON_IsString(values[0]))
    return file_fail(error, "tensor '%s': dtype is not a string", entry->name);
  entry->dtype = values[0]->valuestring;
  entry->shape = values[1];
  return check_shape(entry, error) && read_offsets(values[2], data_bytes, entry, error);
}

static bool check_metadata(const cJSON *item, file_error *error) {
  const cJSON *value = NULL;
  if (!cJSON_IsObject(item)) return file_fail(error, "__metadata__ is not an object");
  cJSON_ArrayForEach(value, item) {
    if (!cJSON_IsString(value))
      return file_fail(error, "__metadata__ '%s' is not a string", value->string);
  }
  return true;
}

/* ── the file ───────────────────────────────────────────────────────────────────────────────── */

static int compare_names(const void *a, const void *b) {
  return strcmp(((const tensor_entry *)a)->name, ((const tensor_entry *)b)->name);
}

static int compare_offsets(const void *a, const void *b) {
  const tensor_entry *left = a, *right = b;
  if (left->begin != right->begin) return left->begin < right->begin ? -1 : 1;
  return (left->end > right->end) - (left->end < right->end);
}

/* Every byte of the data belongs to exactly one tensor. */
static bool check_cover(safetensors *file, file_error *error) {
  uint64_t covered = 0;
  qsort(file->tensors, file->n_tensors, sizeof *file->tensors, compare_offsets);
  for (size_t i = 0; i < file->n_tensors; i++) {
    const tensor_entry *entry = &file->tensors[i];
    if (entry->begin < covered)
      return file_fail(error,
                       "tensor '%s' begins at byte %" PRIu64 " of the data, inside tensor '%s'",
                       entry->name, entry->begin, file->tensors[i - 1].name);
    if (entry->begin > covered)
      return file_fail(error,
                       "bytes %" PRIu64 " to %" PRIu64 " of the data, before tensor '%s', "
                       "belong to no tensor",
                       covered, entry->begin, entry->name);
    covered = entry->end;
  }
  if (covered != file->data_bytes)
    return file_fail(error, "the tensors end at byte %" PRIu64 " of the data, and there are %zu",
                     covered, file->data_bytes);
  return true;
}

static bool sort_names(safetensors *file, file_error *error) {
  qsort(file->tensors, file->n_tensors, sizeof *file->tensors, compare_names);
  for (size_t i = 1; i < file->n_tensors; i++) {
    if (strcmp(file->tensors[i - 1].name, file->tensors[i].name) == 0)
      return file_fail(error, "tensor '%s' is there twice", file->tensors[i].name);
  }
  return true;
}

static bool read_tensors(safetensors *file, file_error *error) {
  static const char metadata_name[] = "__metadata__";
  const cJSON *item = NULL;
  size_t n_items = 0;
  bool has_metadata = false;
  cJSON_ArrayForEach(item, file->header) n_items++;
  file->tensors = calloc(n_items > 0 ? n_items : 1, sizeof *file->tensors);
  if (file->tensors == NULL) return file_fail_memory(error, "no memory for %zu tensors", n_items);
  cJSON_ArrayForEach(item, file->header) {
    if (strcmp(item->string, metadata_name) != 0) {
      if (!read_tensor(item, file->data_bytes, &file->tensors[file->n_tensors], error))
        return false;
      file->n_tensors++;
      continue;
    }
    if (has_metadata) return file_fail(error, "%s is there twice", metadata_name);
    has_metadata = true;
    if (!check_metadata(item, error)) return false;
  }
  /* Before any look at the data: of a tensor that is there twice this is the better message. */
  return sort_names(file, error);
}

/* The length of the header, from the first LENGTH_BYTES of a file. */
static bool read_length(const unsigned char *bytes, size_t *n_header, file_error *error) {
  uint64_t header_bytes = 0;
  for (int i = 0; i < LENGTH_BYTES; i++)
    header_bytes |= (uint64_t)bytes[i] << (8 * i);
  if (header_bytes > MAX_HEADER_BYTES)
    return file_fail(error, "says that its header has %" PRIu64 " bytes; at most %d are allowed",
                     header_bytes, (int)MAX_HEADER_BYTES);
  *n_header = (size_t)header_bytes;
  return true;
}

/* A file of that header and so many bytes of data; NULL on error. */
static safetensors *read_header(const char *header, size_t n_header, size_t data_bytes,
                                file_error *error) {
  safetensors *file = calloc(1, sizeof *file);
  if (file == NULL) {
    (void)file_fail_memory(error, "no memory");
    return NULL;
  }
  file->data_bytes = data_bytes;
  file->header = parse_json(header, n_header, error);
  if (file->header != NULL && read_tensors(file, error)) return file;
  safetensors_free(file);
  return NULL;
}

bool safetensors_measure(const void *bytes, size_t size_bytes, file_extent *extent,
                         file_error *error) {
  size_t n_header = 0;
  *extent = (file_extent){.size_bytes = LENGTH_BYTES};
  if (size_bytes < LENGTH_BYTES) return true;
  if (!read_length(bytes, &n_header, error)) return false;
  extent->size_bytes = LENGTH_BYTES + n_header;
  if (size_bytes < extent->size_bytes) return true;
  const char *header = (const char *)bytes + LENGTH_BYTES;
  safetensors *file = read_header(header, n_header, SIZE_MAX, error);
  if (file == NULL) return false;
  uint64_t end = 0;
  for (size_t i = 0; i < file->n_tensors; i++)
    end = file->tensors[i].end > end ? file->tensors[i].end : end;
  safetensors_free(file);
  extent->size_bytes += end; /* below 2^53 */
  extent->is_whole = true;
  return true;
}

safetensors *safetensors_parse(const void *bytes, size_t size_bytes, file_error *error) {
  const unsigned char *all = bytes;
  size_t n_header = 0;
  if (size_bytes < LENGTH_BYTES) {
    (void)file_fail(error, "is cut short: %zu bytes, less than the header's length", size_bytes);
    return NULL;
  }
  if (!read_length(all, &n_header, error)) return NULL;
  if (n_header > size_bytes - LENGTH_BYTES) {
    (void)file_fail(error, "says that its header has %zu bytes, and %zu follow", n_header,
                    size_bytes - LENGTH_BYTES);
    return NULL;
  }
  const size_t data_bytes = size_bytes - LENGTH_BYTES - n_header;
  safetensors *file = read_header((const char *)all + LENGTH_BYTES, n_header, data_bytes, error);
  if (file == NULL) return NULL;
  file->data = all + LENGTH_BYTES + n_header;
  const bool is_covered = check_cover(file, error);
  qsort(file->tensors, file->n_tensors, sizeof *file->tensors, compare_names);
  if (is_covered) return file;
  safetensors_free(file);
  return NULL;
}

void safetensors_free(safetensors *file) {
  if (file == NULL) return;
  cJSON_Delete(file->header);
  free(file->tensors);
  free(file);
}

size_t safetensors_count(const safetensors *file) {
  return file->n_tensors;
}

const char *safetensors_name(const safetensors *file, size_t index) {
  return file->tensors[index].name;
}

static const tensor_entry *find(const safetensors *file, const char *name) {
  const tensor_entry wanted = {.name = name};
  return bsearch(&wanted, file->tensors, file->n_tensors, sizeof *file->tensors, compare_names);
}

bool safetensors_has(const safetensors *file, const char *name) {
  return find(file, name) != NULL;
}

static bool find_dtype(const char *name, array_dtype *dtype) {
  static const struct {
    const char *name;
    array_dtype dtype;
  } dtypes[] = {{"F32", ARRAY_F32},        {"F16", ARRAY_F16},   {"BF16", ARRAY_BF16},
                {"I32", ARRAY_I32},        {"I64", ARRAY_I64},   {"I8", ARRAY_I8},
                {"U8", ARRAY_U8},          {"BOOL", ARRAY_BOOL}, {"F8_E4M3", ARRAY_F8_E4M3},
                {"F8_E5M2", ARRAY_F8_E5M2}};
  for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
    if (strcmp(name, dtypes[i].name) == 0) {
      *dtype = dtypes[i].dtype;
      return true;
    }
  }
  return false;
}

bool safetensors_get(const safetensors *file, const char *name, file_array *array_out,
                     file_error *error) {
  const tensor_entry *entry = find(file, name);
  if (entry == NULL) return file_fail(error, "has no tensor '%s'", name);
  file_array array = {0};
  if (!find_dtype(entry->dtype, &array.dtype))
    return file_fail(error,
                     "tensor '%s' has dtype %s; what is read is F32, F16, BF16, I32, I64, I8, U8, "
                     "BOOL, F8_E4M3 and F8_E5M2",
                     name, entry->dtype);
  const cJSON *dimension = NULL;
  cJSON_ArrayForEach(dimension, entry->shape) {
    if (array.n_dims == ARRAY_MAX_DIMS)
      return file_fail(error, "tensor '%s' has more than %d dimensions", name, (int)ARRAY_MAX_DIMS);
    array.shape[array.n_dims++] = (int64_t)dimension->valuedouble;
  }
  file_error cause;
  if (!array_measure(&array, &cause))
    return file_fail(error, "tensor '%s': %s", name, cause.message);
  const uint64_t n_bytes = entry->end - entry->begin;
  char shape[ARRAY_SHAPE_BYTES];
  if (n_bytes != array.size_bytes)
    return file_fail(error, "tensor '%s' has %" PRIu64 " bytes where shape %s of %s needs %zu",
                     name, n_bytes, array_shape_text(&array, shape), array_dtype_name(array.dtype),
                     array.size_bytes);
  array.data = file->data + entry->begin;
  *array_out = array;
  return true;
}
