/* NumPy's .npy format, versions 1.0, 2.0 and 3.0, little-endian and in C order.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_NPY_H
#define SPLITKV_TOOL_NPY_H

#include "array.h"

/* Reads the .npy file that `bytes` holds whole: element types <f4, <f2, <u2, <i4, <i8, |i1, |u1 and
 * |b1, and the void types of two bytes and of one under which NumPy saves a bfloat16 or FP8 of
 * another package (read as ARRAY_U16 and ARRAY_U8). array->data points into bytes and may be
 * misaligned (array_align). On error false, *array undefined. */
bool npy_parse(const void *bytes, size_t size_bytes, file_array *array, file_error *error);

/* What the first bytes of a .npy file say of its size (a file_measure). */
bool npy_measure(const void *bytes, size_t size_bytes, file_extent *extent, file_error *error);

enum { NPY_HEADER_BYTES = 320 };

/* Writes the header of a version 1.0 file for this dtype and shape; ARRAY_BF16 as uint16, FP8 as
 * uint8. Returns
 * its bytes, a multiple of 64; the data follow in C order. */
size_t npy_header(array_dtype dtype, int n_dims, const int64_t *shape,
                  char header[NPY_HEADER_BYTES]);

/* Creates an output that holds header and data, and puts it on the disk; committing it is the
 * caller's. */
bool npy_create(const char *path, array_dtype dtype, int n_dims, const int64_t *shape,
                const void *data, size_t size_bytes, output_file *output, file_error *error);

#endif
