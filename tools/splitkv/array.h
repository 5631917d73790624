/* Arrays in files: the bytes of a file, an array inside them, and output that replaces a file
 * whole.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The readers (npy.h, safetensors.h) work on bytes in memory and trust none of them. Their messages
 * say what is wrong with which value; the caller puts the file's name in front. */
#ifndef SPLITKV_TOOL_ARRAY_H
#define SPLITKV_TOOL_ARRAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ARRAY_MAX_DIMS = 8, FILE_MESSAGE_BYTES = 600, ARRAY_SHAPE_BYTES = 192 };

/* One sentence without a newline or any other control character, whatever the file holds. */
typedef struct file_error {
  char message[FILE_MESSAGE_BYTES];
  bool is_memory; /* memory is short, and nothing is wrong with the file */
} file_error;

#if defined(__GNUC__)
#define FILE_PRINTF(text, arguments) __attribute__((format(printf, text, arguments)))
#else
#define FILE_PRINTF(text, arguments)
#endif

/* Writes the message; returns false, so that a reader can `return file_fail(error, ...)`. */
bool file_fail(file_error *error, const char *format, ...) FILE_PRINTF(2, 3);
/* The same where memory is short. */
bool file_fail_memory(file_error *error, const char *format, ...) FILE_PRINTF(2, 3);

/* ── arrays ─────────────────────────────────────────────────────────────────────────────────── */

typedef enum array_dtype {
  ARRAY_F32,
  ARRAY_F16,
  ARRAY_BF16,
  ARRAY_U16, /* 16 bits that mean what the user says: NumPy has no bfloat16 */
  ARRAY_I32,
  ARRAY_I64,
  ARRAY_I8,
  ARRAY_U8, /* 8 bits that mean what the user says: NumPy has no FP8 and no INT4 */
  ARRAY_BOOL,
  ARRAY_F8_E4M3,
  ARRAY_F8_E5M2
} array_dtype;

/* An array in C order. data points into the bytes it was read from, or at `copy`. */
typedef struct file_array {
  array_dtype dtype;
  int n_dims;
  int64_t shape[ARRAY_MAX_DIMS];
  int64_t n_elements;
  size_t size_bytes;
  const void *data;
  void *copy; /* owned: the elements again, aligned; NULL where data is aligned as it lies */
} file_array;

size_t array_dtype_size(array_dtype dtype);
/* "float32", "bfloat16" */
const char *array_dtype_name(array_dtype dtype);
/* Writes "[2, 3, 4]" into text and returns it. */
const char *array_shape_text(const file_array *array, char text[ARRAY_SHAPE_BYTES]);

/* Multiplies out the shape: sets n_elements and size_bytes. False, with a message, when a dimension
 * is negative or the product passes 63 bits, dimensions of 0 left out: a shape like [0, 2^62, 2^62]
 * describes no array either. */
bool array_measure(file_array *array, file_error *error);

/* Makes data aligned to its element, by a copy where the file has it otherwise. */
bool array_align(file_array *array, file_error *error);
void array_free(file_array *array);

/* ── input files ────────────────────────────────────────────────────────────────────────────── */

typedef struct file_bytes {
  const unsigned char *data;
  size_t size_bytes;
  bool is_mapped; /* else allocated */
} file_bytes;

/* What the first bytes of a file say of its size. */
typedef struct file_extent {
  uint64_t size_bytes; /* of the whole file; before that is known, the bytes needed to say more */
  bool is_whole;
} file_extent;

/* Reads the extent of a format from the first bytes of a file; size_bytes comes back above the
 * bytes given unless is_whole. False, with a message, for bytes that begin no file of the format.
 */
typedef bool file_measure(const void *bytes, size_t size_bytes, file_extent *extent,
                          file_error *error);

/* Maps a regular file. Reads anything else (a pipe, a device), which may have no end: as far as
 * `measure` says that the file goes, and one byte more, so that one that is too long is noticed. A
 * file that another program cuts short while it is mapped ends the tool with SIGBUS, as with every
 * tool that maps. */
bool file_open(const char *path, file_measure *measure, file_bytes *file, file_error *error);
void file_close(file_bytes *file);

/* ── output files ───────────────────────────────────────────────────────────────────────────── */

/* Can a file be put at this path? Asked before long work, so that it is not lost afterwards. */
bool output_probe(const char *path, file_error *error);

/* Would an output at one path replace the output at the other? Devices and pipes take both. */
bool output_same(const char *path, const char *other);

/* Output goes into a temporary file beside its destination; commit renames it into place, abandon
 * removes it. Devices and pipes are written to directly. */
typedef struct output_file {
  char *path;      /* where it will be, symbolic links followed */
  char *temporary; /* NULL when written directly */
  int descriptor;
} output_file;

bool output_create(const char *path, output_file *output, file_error *error);
bool output_write(output_file *output, const void *data, size_t size_bytes, file_error *error);
/* Puts the bytes on the disk, which is where a full one is noticed. */
bool output_flush(output_file *output, file_error *error);
bool output_commit(output_file *output, file_error *error);
/* After a commit, or for an output that is all zeros, does nothing. */
void output_abandon(output_file *output);

#endif
