/* Fuzz target: the safetensors reader on any bytes.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * In a file that it accepts, names ascend, every tensor that it gives lies inside the bytes and has
 * the bytes of its shape; what it refuses comes with one line of text. */
#include "safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition, const char *what) {
  if (condition) return;
  fprintf(stderr, "tool_safetensors: not so: %s\n", what);
  abort();
}

static void check_message(const file_error *error) {
  require(error->message[0] != 0, "a refusal has a message");
  for (const char *c = error->message; *c != 0; c++)
    require((unsigned char)*c >= 0x20, "a message is one line");
}

static void check_tensor(const safetensors *file, const char *name, const uint8_t *data,
                         size_t size) {
  file_array array = {0};
  file_error error = {.is_memory = false};
  require(safetensors_has(file, name), "a listed tensor is there");
  if (!safetensors_get(file, name, &array, &error)) {
    check_message(&error);
    return;
  }
  const uint8_t *begin = array.data;
  require(begin >= data && begin <= data + size, "a tensor lies in the file");
  require(array.size_bytes <= (size_t)(data + size - begin), "a tensor ends in the file");
  require(array.size_bytes == (size_t)array.n_elements * array_dtype_size(array.dtype),
          "a tensor has the bytes of its shape");
  /* Touches every byte, for the sanitizers. */
  uint8_t sum = 0;
  for (size_t i = 0; i < array.size_bytes; i++)
    sum = (uint8_t)(sum ^ begin[i]);
  require(array_align(&array, &error), "a small tensor can be aligned");
  const uint8_t *aligned = array.data;
  require((uintptr_t)aligned % array_dtype_size(array.dtype) == 0, "it is aligned then");
  for (size_t i = 0; i < array.size_bytes; i++)
    sum = (uint8_t)(sum ^ aligned[i]);
  require(sum == 0, "the copy is the tensor");
  array_free(&array);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  file_array array;
  file_error error = {.is_memory = false};
  safetensors *file = safetensors_parse(data, size, &error);
  if (file == NULL) {
    check_message(&error);
    return 0;
  }
  for (size_t i = 0; i < safetensors_count(file); i++) {
    const char *name = safetensors_name(file, i);
    require(i == 0 || strcmp(safetensors_name(file, i - 1), name) < 0, "names ascend");
    check_tensor(file, name, data, size);
  }
  if (!safetensors_has(file, "no such tensor")) {
    require(!safetensors_get(file, "no such tensor", &array, &error), "what is absent is refused");
    check_message(&error);
  }
  safetensors_free(file);
  return 0;
}
