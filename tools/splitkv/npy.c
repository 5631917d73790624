/* NumPy's .npy format, versions 1.0, 2.0 and 3.0, little-endian and in C order.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The file is "\x93NUMPY", two version bytes, the header's length (16 bits in version 1, else 32),
 * the header, the data. The header is a Python dictionary literal:
 *   {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
 * It is read as that and nothing more of Python: three keys in any order, each exactly once. */
#include "npy.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct cursor {
  const char *at, *end;
  const char *begin; /* of the header; messages count bytes from here */
  file_error *error;
} cursor;

typedef struct text_span {
  const char *begin;
  size_t size;
} text_span;

static void skip_blanks(cursor *c) {
  while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
    c->at++;
}

/* After blanks: takes `wanted` if it is next. */
static bool take(cursor *c, char wanted) {
  skip_blanks(c);
  if (c->at == c->end || *c->at != wanted) return false;
  c->at++;
  return true;
}

static bool expect(cursor *c, char wanted, const char *where) {
  if (take(c, wanted)) return true;
  if (c->at == c->end)
    return file_fail(c->error, "the header ends where '%c' should stand %s", wanted, where);
  return file_fail(c->error, "header byte %td is '%c' where '%c' should stand %s", c->at - c->begin,
                   *c->at, wanted, where);
}

/* A string in either kind of quotes, without escapes: no key or descr has any. */
static bool read_string(cursor *c, text_span *text, const char *what) {
  skip_blanks(c);
  if (c->at == c->end || (*c->at != '\'' && *c->at != '"'))
    return file_fail(c->error, "header byte %td: %s is not a string", c->at - c->begin, what);
  const char quote = *c->at++;
  text->begin = c->at;
  while (c->at < c->end && *c->at != quote && *c->at != '\\')
    c->at++;
  if (c->at == c->end || *c->at != quote)
    return file_fail(c->error, "header byte %td: %s is not a plain string", c->at - c->begin, what);
  text->size = (size_t)(c->at - text->begin);
  c->at++;
  return true;
}

static bool is_text(text_span span, const char *text) {
  return span.size == strlen(text) && memcmp(span.begin, text, span.size) == 0;
}

static bool is_word_char(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         c == '.';
}

static text_span read_word(cursor *c) {
  skip_blanks(c);
  const text_span word = {.begin = c->at};
  const char *at = c->at;
  while (at < c->end && is_word_char(*at))
    at++;
  c->at = at;
  return (text_span){.begin = word.begin, .size = (size_t)(at - word.begin)};
}

/* ── the three values ───────────────────────────────────────────────────────────────────────── */

static const struct {
  const char *descr;
  array_dtype dtype;
} descrs[] = {
    {"<f4", ARRAY_F32}, {"<f2", ARRAY_F16},  {"<u2", ARRAY_U16}, {"<i4", ARRAY_I32},
    {"<i8", ARRAY_I64}, {"<V2", ARRAY_U16},  {"|V2", ARRAY_U16}, {"|i1", ARRAY_I8},
    {"|u1", ARRAY_U8},  {"|b1", ARRAY_BOOL}, {"<V1", ARRAY_U8},  {"|V1", ARRAY_U8},
};

static bool read_descr(cursor *c, file_array *array) {
  skip_blanks(c);
  if (c->at < c->end && *c->at == '[')
    return file_fail(c->error, "descr is a list (a structured type), which is not read");
  text_span text;
  if (!read_string(c, &text, "descr")) return false;
  for (size_t i = 0; i < sizeof descrs / sizeof descrs[0]; i++) {
    if (is_text(text, descrs[i].descr)) {
      array->dtype = descrs[i].dtype;
      return true;
    }
  }
  const int shown = text.size < 40 ? (int)text.size : 40;
  if (text.size > 0 && text.begin[0] == '>')
    return file_fail(c->error, "descr is '%.*s', big-endian; only little-endian data are read",
                     shown, text.begin);
  return file_fail(c->error,
                   "descr is '%.*s'; what is read is <f4, <f2, <u2, <i4, <i8, |i1, |u1 and |b1",
                   shown, text.begin);
}

static bool read_fortran_order(cursor *c, bool *is_fortran) {
  const text_span word = read_word(c);
  *is_fortran = is_text(word, "True");
  if (*is_fortran || is_text(word, "False")) return true;
  return file_fail(c->error, "fortran_order is '%.*s'; it should be True or False",
                   word.size < 40 ? (int)word.size : 40, word.begin);
}

static bool read_dimension(cursor *c, int64_t *dimension) {
  skip_blanks(c);
  const bool is_negative = c->at < c->end && *c->at == '-';
  if (is_negative) c->at++;
  const text_span word = read_word(c);
  const int shown = word.size < 40 ? (int)word.size : 40;
  /* Python 2 wrote long integers as 3L. */
  const size_t n_digits =
      word.size > 1 && word.begin[word.size - 1] == 'L' ? word.size - 1 : word.size;
  if (n_digits == 0)
    return file_fail(c->error, "header byte %td: a dimension is not a number", c->at - c->begin);
  int64_t value = 0;
  for (size_t i = 0; i < n_digits; i++) {
    const char digit = word.begin[i];
    if (digit < '0' || digit > '9')
      return file_fail(c->error, "the dimension '%.*s' is not a whole number", shown, word.begin);
    if (value > (INT64_MAX - (digit - '0')) / 10)
      return file_fail(c->error, "the dimension %s%.*s does not fit in 63 bits",
                       is_negative ? "-" : "", shown, word.begin);
    value = value * 10 + (digit - '0');
  }
  *dimension = is_negative ? -value : value;
  return true;
}

static bool read_shape(cursor *c, file_array *array) {
  if (!expect(c, '(', "at the beginning of the shape")) return false;
  array->n_dims = 0;
  if (take(c, ')')) return true;
  for (;;) {
    if (array->n_dims == ARRAY_MAX_DIMS)
      return file_fail(c->error, "the shape has more than %d dimensions", (int)ARRAY_MAX_DIMS);
    if (!read_dimension(c, &array->shape[array->n_dims])) return false;
    array->n_dims++;
    const bool has_comma = take(c, ',');
    if (take(c, ')')) {
      /* (3) is a number in Python, (3,) a shape. */
      if (array->n_dims == 1 && !has_comma)
        return file_fail(c->error, "the shape is a number, not a tuple");
      return true;
    }
    if (!has_comma) return expect(c, ')', "at the end of the shape");
  }
}

/* ── the dictionary ─────────────────────────────────────────────────────────────────────────── */

enum { KEY_DESCR, KEY_FORTRAN_ORDER, KEY_SHAPE, N_KEYS };
static const char *const key_names[N_KEYS] = {"descr", "fortran_order", "shape"};

static bool read_entry(cursor *c, file_array *array, bool *is_fortran, bool seen[N_KEYS]) {
  text_span key;
  if (!read_string(c, &key, "a key")) return false;
  int k = 0;
  while (k < N_KEYS && !is_text(key, key_names[k]))
    k++;
  if (k == N_KEYS)
    return file_fail(c->error, "the header has the unknown key '%.*s'",
                     key.size < 40 ? (int)key.size : 40, key.begin);
  if (seen[k]) return file_fail(c->error, "the header has %s twice", key_names[k]);
  seen[k] = true;
  if (!expect(c, ':', "after a key")) return false;
  switch (k) {
  case KEY_DESCR:
    return read_descr(c, array);
  case KEY_FORTRAN_ORDER:
    return read_fortran_order(c, is_fortran);
  default:
    return read_shape(c, array);
  }
}

static bool read_dictionary(cursor *c, file_array *array, bool *is_fortran) {
  bool seen[N_KEYS] = {false};
  if (!expect(c, '{', "at the beginning")) return false;
  while (!take(c, '}')) {
    if (!read_entry(c, array, is_fortran, seen)) return false;
    if (take(c, ',')) continue;
    if (!expect(c, '}', "at the end")) return false;
    break;
  }
  for (int k = 0; k < N_KEYS; k++) {
    if (!seen[k]) return file_fail(c->error, "the header has no %s", key_names[k]);
  }
  skip_blanks(c);
  if (c->at != c->end)
    return file_fail(c->error, "header byte %td: something follows the dictionary",
                     c->at - c->begin);
  return true;
}

/* ── the file ───────────────────────────────────────────────────────────────────────────────── */

static const unsigned char magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

enum {
  LONGEST_PREFIX_BYTES = 12, /* magic, version and length; every file has more */
  MAX_HEADER_BYTES = 1 << 20 /* a hundred times what NumPy itself takes */
};

/* Finds the header: its first byte and its length, which may lie beyond the bytes given. */
static bool find_header(const unsigned char *bytes, size_t size_bytes, size_t *begin, size_t *size,
                        file_error *error) {
  const size_t n_magic = sizeof magic;
  if (memcmp(bytes, magic, size_bytes < n_magic ? size_bytes : n_magic) != 0)
    return file_fail(error, "is not a .npy file: it does not begin with \\x93NUMPY");
  if (size_bytes < n_magic + 2)
    return file_fail(error, "is cut short: %zu bytes, less than the magic and version", size_bytes);
  const unsigned major = bytes[n_magic], minor = bytes[n_magic + 1];
  if (major < 1 || major > 3 || minor != 0)
    return file_fail(error, "has format version %u.%u; what is read is 1.0, 2.0 and 3.0", major,
                     minor);
  const size_t n_length = major == 1 ? 2 : 4;
  *begin = n_magic + 2 + n_length;
  if (size_bytes < *begin)
    return file_fail(error, "is cut short: %zu bytes, less than the header's length", size_bytes);
  *size = 0;
  for (size_t i = 0; i < n_length; i++)
    *size |= (size_t)bytes[n_magic + 2 + i] << (8 * i);
  if (*size > MAX_HEADER_BYTES)
    return file_fail(error, "says that its header has %zu bytes; at most %d are allowed", *size,
                     (int)MAX_HEADER_BYTES);
  return true;
}

/* Fortran's order is C's where at most one dimension is longer than 1. */
static bool orders_differ(const file_array *array) {
  int n_long = 0;
  for (int i = 0; i < array->n_dims; i++)
    n_long += array->shape[i] > 1;
  return n_long > 1 && array->n_elements > 0;
}

/* The array that a whole header describes, without its data. */
static bool read_header(const char *header, size_t size, file_array *array, file_error *error) {
  cursor c = {.at = header, .end = header + size, .begin = header, .error = error};
  bool is_fortran = false;
  *array = (file_array){0};
  if (!read_dictionary(&c, array, &is_fortran) || !array_measure(array, error)) return false;
  if (is_fortran && orders_differ(array))
    return file_fail(error, "is in Fortran order; save it with numpy.ascontiguousarray");
  return true;
}

bool npy_measure(const void *bytes, size_t size_bytes, file_extent *extent, file_error *error) {
  size_t begin = 0, size = 0;
  file_array array;
  *extent = (file_extent){.size_bytes = LONGEST_PREFIX_BYTES};
  if (size_bytes < LONGEST_PREFIX_BYTES) return true;
  if (!find_header(bytes, size_bytes, &begin, &size, error)) return false;
  extent->size_bytes = begin + size;
  if (size_bytes < begin + size) return true;
  if (!read_header((const char *)bytes + begin, size, &array, error)) return false;
  extent->size_bytes = (uint64_t)begin + size + array.size_bytes;
  extent->is_whole = true;
  return true;
}

bool npy_parse(const void *bytes, size_t size_bytes, file_array *array_out, file_error *error) {
  size_t begin = 0, size = 0;
  if (size_bytes == 0) return file_fail(error, "is empty");
  if (!find_header(bytes, size_bytes, &begin, &size, error)) return false;
  if (size > size_bytes - begin)
    return file_fail(error,
                     "is cut short: the header has %zu bytes and the file %zu after its "
                     "length",
                     size, size_bytes - begin);
  const char *header = (const char *)bytes + begin;
  file_array array;
  if (!read_header(header, size, &array, error)) return false;
  char shape[ARRAY_SHAPE_BYTES];
  const size_t n_data = size_bytes - begin - size;
  if (n_data < array.size_bytes)
    return file_fail(error, "is cut short: %zu bytes of data where shape %s of %s needs %zu",
                     n_data, array_shape_text(&array, shape), array_dtype_name(array.dtype),
                     array.size_bytes);
  if (n_data > array.size_bytes)
    return file_fail(error, "is too long: %zu bytes of data where shape %s of %s needs %zu", n_data,
                     array_shape_text(&array, shape), array_dtype_name(array.dtype),
                     array.size_bytes);
  array.data = header + size;
  *array_out = array;
  return true;
}

size_t npy_header(array_dtype dtype, int n_dims, const int64_t *shape,
                  char header[NPY_HEADER_BYTES]) {
  static const char *const written[] = {
      [ARRAY_F32] = "<f4",  [ARRAY_F16] = "<f2",     [ARRAY_BF16] = "<u2",    [ARRAY_U16] = "<u2",
      [ARRAY_I32] = "<i4",  [ARRAY_I64] = "<i8",     [ARRAY_I8] = "|i1",      [ARRAY_U8] = "|u1",
      [ARRAY_BOOL] = "|b1", [ARRAY_F8_E4M3] = "|u1", [ARRAY_F8_E5M2] = "|u1",
  };
  enum { PREFIX = 10 };
  assert(n_dims >= 0 && n_dims <= ARRAY_MAX_DIMS);
  char *text = header + PREFIX;
  const size_t room = NPY_HEADER_BYTES - PREFIX;
  size_t used = (size_t)snprintf(text, room, "{'descr': '%s', 'fortran_order': False, 'shape': (",
                                 written[dtype]);
  for (int i = 0; i < n_dims; i++)
    used += (size_t)snprintf(text + used, room - used, "%s%" PRId64 "%s", i > 0 ? " " : "",
                             shape[i], i + 1 < n_dims || n_dims == 1 ? "," : "");
  used += (size_t)snprintf(text + used, room - used, "), }");
  /* The data begin at a multiple of 64; blanks and a newline fill up to it. */
  const size_t size_bytes = (PREFIX + used + 1 + 63) / 64 * 64;
  assert(size_bytes <= NPY_HEADER_BYTES);
  memset(text + used, ' ', size_bytes - PREFIX - used - 1);
  header[size_bytes - 1] = '\n';
  memcpy(header, magic, sizeof magic);
  header[6] = 1;
  header[7] = 0;
  header[8] = (char)((size_bytes - PREFIX) & 0xff);
  header[9] = (char)((size_bytes - PREFIX) >> 8);
  return size_bytes;
}

bool npy_create(const char *path, array_dtype dtype, int n_dims, const int64_t *shape,
                const void *data, size_t size_bytes, output_file *output, file_error *error) {
  char header[NPY_HEADER_BYTES];
  const size_t header_bytes = npy_header(dtype, n_dims, shape, header);
  return output_create(path, output, error) && output_write(output, header, header_bytes, error) &&
         output_write(output, data, size_bytes, error) && output_flush(output, error);
}
