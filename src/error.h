/* One way to refuse: fill the caller's error and return its status.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_ERROR_H
#define SPL_ERROR_H

#include <splitkv/splitkv.h>

#if defined(__GNUC__)
#define SPL_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define SPL_PRINTF(text, first)
#endif

/* Writes status, field, value and the sentence to *error unless it is NULL. Returns status. */
splitkv_status spl_fail(splitkv_error *error, splitkv_status status, const char *field,
                        int64_t value, const char *format, ...) SPL_PRINTF(5, 6);

/* A required pointer that is null. */
splitkv_status spl_fail_null(splitkv_error *error, const char *field);

/* NULL_POINTER where `needed`, TENSOR_ALIGNMENT where the address is no multiple of `alignment`. */
splitkv_status spl_check_pointer(splitkv_error *error, const char *field, const void *pointer,
                                 int needed, int64_t alignment);

/* Is this struct_size one that this library knows? `known` is sizeof the struct here, `oldest` the
 * size of its first published form. */
splitkv_status spl_check_struct_size(splitkv_error *error, const char *field, size_t struct_size,
                                     size_t oldest, size_t known);

/* Copies a caller's struct of any known size, whose first field is struct_size, into *full of
 * `known` bytes, zero beyond what the caller has. `field` is the name of that first field; a null
 * struct is refused by what stands before its point. Errors: NULL_POINTER, STRUCT_SIZE. */
splitkv_status spl_import(splitkv_error *error, const char *field, const void *given, size_t oldest,
                          void *full, size_t known);

/* Writes of an output struct what its caller knows of it: dst->struct_size bytes. */
void spl_export(void *dst, const void *src, size_t caller_size);

#endif
