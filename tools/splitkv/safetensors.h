/* The safetensors format: named arrays in one file.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Eight bytes of length (little-endian), that many bytes of JSON, the data:
 *   {"q": {"dtype": "F16", "shape": [1, 8, 64], "data_offsets": [0, 1024]}, "__metadata__": {...}}
 * Offsets count from the end of the JSON. The arrays cover the data without gap or overlap. */
#ifndef SPLITKV_TOOL_SAFETENSORS_H
#define SPLITKV_TOOL_SAFETENSORS_H

#include "array.h"

typedef struct safetensors safetensors;

/* Reads and checks the header of the file that `bytes` holds whole, and where every tensor lies;
 * bytes stay with the caller and have to outlive *file. NULL on error. */
safetensors *safetensors_parse(const void *bytes, size_t size_bytes, file_error *error);
void safetensors_free(safetensors *file);

/* What the first bytes of a safetensors file say of its size (a file_measure). */
bool safetensors_measure(const void *bytes, size_t size_bytes, file_extent *extent,
                         file_error *error);

size_t safetensors_count(const safetensors *file);
/* Name of tensor `index`, in order of names. */
const char *safetensors_name(const safetensors *file, size_t index);

bool safetensors_has(const safetensors *file, const char *name);

/* The tensor of that name, dtype F32, F16, BF16, I32 or I64. array->data points into the bytes and
 * may be misaligned (array_align). Errors: no such tensor, another dtype, a shape that its bytes do
 * not fit. */
bool safetensors_get(const safetensors *file, const char *name, file_array *array,
                     file_error *error);

#endif
