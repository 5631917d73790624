/* Arrays in files: the bytes of a file, an array inside them, and output that replaces a file
 * whole.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700 /* realpath, mkstemp, mmap */
#endif
#include "array.h"

#include "machine.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the file readers take little-endian data as it lies"
#endif

static void set_message(file_error *error, bool is_memory, const char *format, va_list arguments) {
  (void)vsnprintf(error->message, sizeof error->message, format, arguments);
  error->is_memory = is_memory;
  /* File and tensor names may hold anything; a message is one line all the same. */
  for (unsigned char *c = (unsigned char *)error->message; *c != 0; c++) {
    if (*c < 0x20 || *c == 0x7f) *c = '?';
  }
}

bool file_fail(file_error *error, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  set_message(error, false, format, arguments);
  va_end(arguments);
  return false;
}

bool file_fail_memory(file_error *error, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  set_message(error, true, format, arguments);
  va_end(arguments);
  return false;
}

/* ── arrays ─────────────────────────────────────────────────────────────────────────────────── */

static const struct {
  const char *name;
  size_t size_bytes;
} dtypes[] = {
    [ARRAY_F32] = {"float32", 4},
    [ARRAY_F16] = {"float16", 2},
    [ARRAY_BF16] = {"bfloat16", 2},
    [ARRAY_U16] = {"uint16", 2},
    [ARRAY_I32] = {"int32", 4},
    [ARRAY_I64] = {"int64", 8},
    [ARRAY_I8] = {"int8", 1},
    [ARRAY_U8] = {"uint8", 1},
    [ARRAY_BOOL] = {"bool", 1},
    [ARRAY_F8_E4M3] = {"float8_e4m3", 1},
    [ARRAY_F8_E5M2] = {"float8_e5m2", 1},
};

size_t array_dtype_size(array_dtype dtype) {
  return dtypes[dtype].size_bytes;
}

const char *array_dtype_name(array_dtype dtype) {
  return dtypes[dtype].name;
}

const char *array_shape_text(const file_array *array, char text[ARRAY_SHAPE_BYTES]) {
  size_t used = 0;
  text[used++] = '[';
  for (int i = 0; i < array->n_dims; i++) {
    /* 8 dimensions of at most 20 characters and a separator fit in ARRAY_SHAPE_BYTES. */
    const int n = snprintf(text + used, ARRAY_SHAPE_BYTES - used, "%s%" PRId64, i > 0 ? ", " : "",
                           array->shape[i]);
    used += (size_t)n;
  }
  text[used++] = ']';
  text[used] = 0;
  return text;
}

bool array_measure(file_array *array, file_error *error) {
  char shape[ARRAY_SHAPE_BYTES];
  const int64_t most = INT64_MAX / (int64_t)array_dtype_size(array->dtype);
  int64_t product = 1;
  bool is_empty = false;
  for (int i = 0; i < array->n_dims; i++) {
    const int64_t dim = array->shape[i];
    if (dim < 0) return file_fail(error, "the shape has a negative dimension, %" PRId64, dim);
    if (dim == 0) {
      is_empty = true;
      continue;
    }
    if (dim > most / product)
      return file_fail(error, "the bytes of shape %s do not fit in 63 bits",
                       array_shape_text(array, shape));
    product *= dim;
  }
  array->n_elements = is_empty ? 0 : product;
  if ((uint64_t)array->n_elements > SIZE_MAX / array_dtype_size(array->dtype))
    return file_fail(error, "shape %s is more than this machine can address",
                     array_shape_text(array, shape));
  array->size_bytes = (size_t)array->n_elements * array_dtype_size(array->dtype);
  return true;
}

bool array_align(file_array *array, file_error *error) {
  static const int64_t nothing = 0; /* what an empty array points at */
  if (array->size_bytes == 0) array->data = &nothing;
  if ((uintptr_t)array->data % array_dtype_size(array->dtype) == 0) return true;
  array->copy = malloc(array->size_bytes);
  if (array->copy == NULL)
    return file_fail_memory(error,
                            "no memory for a copy of %zu bytes, which the file has misaligned",
                            array->size_bytes);
  memcpy(array->copy, array->data, array->size_bytes);
  array->data = array->copy;
  return true;
}

void array_free(file_array *array) {
  free(array->copy);
  array->copy = NULL;
  array->data = NULL;
}

/* ── input files ────────────────────────────────────────────────────────────────────────────── */

/* Bytes of a file that are in memory so far. */
typedef struct read_buffer {
  unsigned char *data;
  size_t used, capacity;
} read_buffer;

/* Reads until the buffer has `wanted` bytes or the file ends. Memory grows with what has come, not
 * with what a header promises. */
static bool read_up_to(int descriptor, read_buffer *buffer, size_t wanted, bool *has_ended,
                       file_error *error) {
  enum { FIRST_BYTES = 65536 };
  while (buffer->used < wanted && !*has_ended) {
    if (buffer->used == buffer->capacity) {
      const size_t twice = buffer->capacity < SIZE_MAX / 2 ? buffer->capacity * 2 : SIZE_MAX;
      const size_t larger = twice > FIRST_BYTES ? twice : FIRST_BYTES;
      const size_t capacity = larger < wanted ? larger : wanted;
      unsigned char *grown = realloc(buffer->data, capacity);
      if (grown == NULL) return file_fail_memory(error, "no memory after %zu bytes", buffer->used);
      buffer->data = grown;
      buffer->capacity = capacity;
    }
    const size_t room = buffer->capacity - buffer->used;
    const ssize_t n = read(descriptor, buffer->data + buffer->used, room);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return file_fail(error, "cannot be read: %s", strerror(errno));
    *has_ended = n == 0;
    buffer->used += (size_t)n;
  }
  return true;
}

static bool read_measured(int descriptor, file_measure *measure, read_buffer *buffer,
                          file_error *error) {
  file_extent extent = {0};
  bool has_ended = false;
  for (;;) {
    if (!measure(buffer->data, buffer->used, &extent, error)) return false;
    if (extent.size_bytes > machine_available_bytes())
      return file_fail_memory(error,
                              "says that it has %" PRIu64 " bytes, and %zu bytes of memory are "
                              "free",
                              extent.size_bytes, machine_available_bytes());
    assert(extent.is_whole || extent.size_bytes > buffer->used);
    const size_t wanted = (size_t)extent.size_bytes + (extent.is_whole ? 1 : 0);
    if (!read_up_to(descriptor, buffer, wanted, &has_ended, error)) return false;
    if (extent.is_whole || has_ended) return true;
  }
}

static bool read_file(int descriptor, file_measure *measure, file_bytes *file, file_error *error) {
  read_buffer buffer = {0};
  if (!read_measured(descriptor, measure, &buffer, error)) {
    free(buffer.data);
    return false;
  }
  *file = (file_bytes){.data = buffer.data, .size_bytes = buffer.used, .is_mapped = false};
  return true;
}

static bool map_or_read(int descriptor, file_measure *measure, file_bytes *file,
                        file_error *error) {
  struct stat status;
  if (fstat(descriptor, &status) != 0)
    return file_fail(error, "cannot be read: %s", strerror(errno));
  if (S_ISDIR(status.st_mode)) return file_fail(error, "is a directory");
  /* Files of size 0 are read, too: some special files have no size but have bytes. */
  if (!S_ISREG(status.st_mode) || status.st_size <= 0)
    return read_file(descriptor, measure, file, error);
  if ((uintmax_t)status.st_size > SIZE_MAX)
    return file_fail(error, "has %jd bytes, more than this machine can address",
                     (intmax_t)status.st_size);
  const size_t size_bytes = (size_t)status.st_size;
  void *data = mmap(NULL, size_bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (data == MAP_FAILED) return read_file(descriptor, measure, file, error);
  *file = (file_bytes){.data = data, .size_bytes = size_bytes, .is_mapped = true};
  return true;
}

bool file_open(const char *path, file_measure *measure, file_bytes *file, file_error *error) {
  *file = (file_bytes){0};
  const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return file_fail(error, "cannot be opened: %s", strerror(errno));
  const bool ok = map_or_read(descriptor, measure, file, error);
  (void)close(descriptor);
  return ok;
}

void file_close(file_bytes *file) {
  if (file->is_mapped)
    (void)munmap((void *)(uintptr_t)file->data, file->size_bytes);
  else
    free((void *)(uintptr_t)file->data);
  *file = (file_bytes){0};
}

/* ── output files ───────────────────────────────────────────────────────────────────────────── */

static char *copy_text(const char *text, const char *tail) {
  const size_t n = strlen(text), n_tail = strlen(tail);
  char *copy = malloc(n + n_tail + 1);
  if (copy == NULL) return NULL;
  memcpy(copy, text, n);
  memcpy(copy + n, tail, n_tail + 1);
  return copy;
}

/* The path without symbolic links, also of a file that is not there yet: two names of one file then
 * compare equal. */
static char *resolve(const char *path) {
  char *whole = realpath(path, NULL);
  if (whole != NULL) return whole;
  const char *slash = strrchr(path, '/');
  char *directory = slash != NULL ? copy_text(path, "") : copy_text(".", "");
  if (directory == NULL) return NULL;
  if (slash != NULL) directory[slash - path + 1] = 0; /* "/" stays "/" */
  char *real = realpath(directory, NULL);
  free(directory);
  if (real == NULL) /* no such directory: opening the file says so */
    return copy_text(path, "");
  char *parent = copy_text(real, "/");
  free(real);
  if (parent == NULL) return NULL;
  char *joined = copy_text(parent, slash != NULL ? slash + 1 : path);
  free(parent);
  return joined;
}

/* The mode that a file created by open would have; umask can be read only by setting it. */
static mode_t new_file_mode(void) {
  const mode_t mask = umask(0);
  (void)umask(mask);
  return (mode_t)0666 & ~mask;
}

/* A file that is there keeps its permission bits, as it would if it were written in place. */
static bool open_beside(const char *path, mode_t mode, output_file *output, file_error *error) {
  output->temporary = copy_text(path, ".tmp-XXXXXX");
  if (output->temporary == NULL) return file_fail_memory(error, "no memory for a file name");
  output->descriptor = mkstemp(output->temporary);
  if (output->descriptor < 0) {
    const int cause = errno;
    free(output->temporary);
    output->temporary = NULL;
    return file_fail(error, "cannot be written: %s", strerror(cause));
  }
  (void)fchmod(output->descriptor, mode); /* best effort: some file systems have no modes */
  return true;
}

bool output_create(const char *path, output_file *output, file_error *error) {
  *output = (output_file){.descriptor = -1};
  if (path[0] == 0) return file_fail(error, "the file name is empty");
  struct stat status;
  const bool exists = stat(path, &status) == 0;
  if (exists && S_ISDIR(status.st_mode))
    return file_fail(error, "cannot be written: it is a directory");
  /* Through a symbolic link: what it points at is replaced, not the link. */
  output->path = resolve(path);
  if (output->path == NULL) return file_fail_memory(error, "no memory for a file name");

  bool ok;
  if (exists && !S_ISREG(status.st_mode)) {
    /* Renaming over /dev/null would put a file in its place. */
    output->descriptor = open(path, O_WRONLY | O_CLOEXEC);
    ok = output->descriptor >= 0 || file_fail(error, "cannot be written: %s", strerror(errno));
  } else if (exists && access(output->path, W_OK) != 0) {
    /* A rename would get past a file's own write protection. */
    ok = file_fail(error, "cannot be written: %s", strerror(errno));
  } else {
    const mode_t mode = exists ? status.st_mode & (mode_t)07777 : new_file_mode();
    ok = open_beside(output->path, mode, output, error);
  }
  if (!ok) {
    free(output->path);
    output->path = NULL;
  }
  return ok;
}

bool output_probe(const char *path, file_error *error) {
  struct stat status;
  /* Opening a pipe has effects that its reader sees. */
  if (stat(path, &status) == 0 && S_ISFIFO(status.st_mode)) return true;
  output_file output;
  if (!output_create(path, &output, error)) return false;
  output_abandon(&output);
  return true;
}

bool output_same(const char *path, const char *other) {
  struct stat status;
  if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) return false;
  char *whole = resolve(path), *whole_other = resolve(other);
  const bool is_same = whole != NULL && whole_other != NULL && strcmp(whole, whole_other) == 0;
  free(whole);
  free(whole_other);
  return is_same;
}

bool output_write(output_file *output, const void *data, size_t size_bytes, file_error *error) {
  const unsigned char *next = data;
  while (size_bytes > 0) {
    const size_t block = size_bytes < ((size_t)1 << 30) ? size_bytes : (size_t)1 << 30;
    const ssize_t n = write(output->descriptor, next, block);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return file_fail(error, "cannot be written: %s", strerror(errno));
    next += n;
    size_bytes -= (size_t)n;
  }
  return true;
}

bool output_flush(output_file *output, file_error *error) {
  if (output->temporary == NULL || fsync(output->descriptor) == 0) return true;
  if (errno == EINVAL || errno == ENOSYS || errno == EROFS) /* this file system has no fsync */
    return true;
  return file_fail(error, "cannot be written: %s", strerror(errno));
}

bool output_commit(output_file *output, file_error *error) {
  const int closed = close(output->descriptor);
  output->descriptor = -1;
  if (closed != 0) return file_fail(error, "cannot be written: %s", strerror(errno));
  if (output->temporary != NULL && rename(output->temporary, output->path) != 0)
    return file_fail(error, "cannot be put in place: %s", strerror(errno));
  free(output->temporary);
  output->temporary = NULL;
  output_abandon(output);
  return true;
}

void output_abandon(output_file *output) {
  if (output->path == NULL) return;
  if (output->descriptor >= 0) (void)close(output->descriptor);
  if (output->temporary != NULL) (void)unlink(output->temporary);
  free(output->temporary);
  free(output->path);
  *output = (output_file){.descriptor = -1};
}
