/* Statuses, errors, version.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

#define SPL_STRING(x) #x
#define SPL_STRING_OF(x) SPL_STRING(x)

const char *splitkv_version(void) {
  return SPL_STRING_OF(SPLITKV_VERSION_MAJOR) "." SPL_STRING_OF(
      SPLITKV_VERSION_MINOR) "." SPL_STRING_OF(SPLITKV_VERSION_PATCH);
}

const char *splitkv_status_name(splitkv_status status) {
  switch ((int)status) {
#define SPL_CASE(name, value, text)                                                                \
  case value:                                                                                      \
    return #name;
    SPLITKV_STATUS_LIST(SPL_CASE)
#undef SPL_CASE
  default:
    return "unknown status";
  }
}

const char *splitkv_status_text(splitkv_status status) {
  switch ((int)status) {
#define SPL_CASE(name, value, text)                                                                \
  case value:                                                                                      \
    return text;
    SPLITKV_STATUS_LIST(SPL_CASE)
#undef SPL_CASE
  default:
    return "unknown status";
  }
}

splitkv_status spl_fail(splitkv_error *error, splitkv_status status, const char *field,
                        int64_t value, const char *format, ...) {
  if (error == NULL) return status;
  error->status = status;
  error->value = value;
  (void)snprintf(error->field, sizeof error->field, "%s", field);
  int used = snprintf(error->message, sizeof error->message, "%s: ", field);
  if (used < 0 || (size_t)used >= sizeof error->message) return status;
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(error->message + used, sizeof error->message - (size_t)used, format, arguments);
  va_end(arguments);
  return status;
}

splitkv_status spl_fail_null(splitkv_error *error, const char *field) {
  return spl_fail(error, SPLITKV_ERROR_NULL_POINTER, field, 0, "must not be null");
}

splitkv_status spl_check_pointer(splitkv_error *error, const char *field, const void *pointer,
                                 int needed, int64_t alignment) {
  if (pointer == NULL) return needed ? spl_fail_null(error, field) : SPLITKV_OK;
  const int64_t beyond = (int64_t)((uintptr_t)pointer % (uintptr_t)alignment);
  if (beyond == 0) return SPLITKV_OK;
  return spl_fail(error, SPLITKV_ERROR_TENSOR_ALIGNMENT, field, beyond,
                  "the address is %lld beyond a multiple of %lld", (long long)beyond,
                  (long long)alignment);
}

splitkv_status spl_check_struct_size(splitkv_error *error, const char *field, size_t struct_size,
                                     size_t oldest, size_t known) {
  /* Structs have grown by whole words: a size between cuts no field in two. */
  if (struct_size >= oldest && struct_size <= known && struct_size % sizeof(int64_t) == 0)
    return SPLITKV_OK;
  return spl_fail(error, SPLITKV_ERROR_STRUCT_SIZE, field, (int64_t)struct_size,
                  "%zu is no size this library knows (%zu..%zu); call the struct's init function",
                  struct_size, oldest, known);
}

splitkv_status spl_import(splitkv_error *error, const char *field, const void *given, size_t oldest,
                          void *full, size_t known) {
  if (given == NULL) {
    char name[48];
    (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(field, "."), field);
    return spl_fail_null(error, name);
  }
  size_t struct_size = 0;
  memcpy(&struct_size, given, sizeof struct_size);
  const splitkv_status status = spl_check_struct_size(error, field, struct_size, oldest, known);
  if (status != SPLITKV_OK) return status;
  memset(full, 0, known);
  memcpy(full, given, struct_size);
  memcpy(full, &known, sizeof known);
  return SPLITKV_OK;
}

void spl_export(void *dst, const void *src, size_t caller_size) {
  memcpy(dst, src, caller_size);
  memcpy(dst, &caller_size, sizeof caller_size); /* struct_size comes first */
}
