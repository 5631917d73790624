/* Fuzz target: the .npy reader on any bytes.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * What it accepts lies inside the bytes and survives being written and read again; what it refuses
 * comes with one line of text. */
#include "npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition, const char *what) {
  if (condition) return;
  fprintf(stderr, "tool_npy: not so: %s\n", what);
  abort();
}

static void check_message(const file_error *error) {
  require(error->message[0] != 0, "a refusal has a message");
  for (const char *c = error->message; *c != 0; c++)
    require((unsigned char)*c >= 0x20, "a message is one line");
}

/* The same array through the writer and the reader. */
static void check_round_trip(const file_array *array) {
  char header[NPY_HEADER_BYTES];
  const size_t header_bytes = npy_header(array->dtype, array->n_dims, array->shape, header);
  require(header_bytes % 64 == 0, "the data begin at a multiple of 64");
  unsigned char *whole = malloc(header_bytes + array->size_bytes);
  if (whole == NULL) return;
  memcpy(whole, header, header_bytes);
  if (array->size_bytes > 0) memcpy(whole + header_bytes, array->data, array->size_bytes);
  file_array again;
  file_error error = {.is_memory = false};
  require(npy_parse(whole, header_bytes + array->size_bytes, &again, &error),
          "what the writer wrote is read");
  require(again.dtype == array->dtype && again.n_dims == array->n_dims, "the dtype and rank last");
  require(memcmp(again.shape, array->shape, (size_t)array->n_dims * sizeof array->shape[0]) == 0,
          "the shape lasts");
  require(again.size_bytes == array->size_bytes && again.data == whole + header_bytes,
          "the data last");
  free(whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  file_array array = {0};
  file_error error = {.is_memory = false};
  if (!npy_parse(data, size, &array, &error)) {
    check_message(&error);
    return 0;
  }
  const uint8_t *begin = array.data;
  require(begin >= data && begin <= data + size, "the data lie in the file");
  require(array.size_bytes == (size_t)(data + size - begin), "the data end with the file");
  require(array.n_dims >= 0 && array.n_dims <= ARRAY_MAX_DIMS, "the rank is in range");
  uint64_t n_elements = 1;
  for (int i = 0; i < array.n_dims; i++) {
    require(array.shape[i] >= 0, "no dimension is negative");
    n_elements *= (uint64_t)array.shape[i];
  }
  require(n_elements == (uint64_t)array.n_elements, "the elements are the product of the shape");
  check_round_trip(&array);
  require(array_align(&array, &error), "a small array can be aligned");
  require((uintptr_t)array.data % array_dtype_size(array.dtype) == 0, "it is aligned then");
  array_free(&array);
  return 0;
}
