/* Aligned columns for people, printed row by row as results come in.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_TABLE_H
#define SPLITKV_TOOL_TABLE_H

#include <stddef.h>
#include <stdint.h>

typedef struct table_column {
  const char *title;
  int width;   /* least width; 0: the title's */
  int is_text; /* to the left, else to the right */
} table_column;

/* Prints the titles. */
void table_header(const table_column *columns, size_t n_columns);
/* Prints one row, [n_columns] cells; flushes, so that people see it at once. */
void table_row(const table_column *columns, size_t n_columns, const char *const *cells);

/* "46,137,344" */
void table_count_text(uint64_t n, char *text, size_t capacity);
/* "1.1 GB", "46.9 MB", "512 B". */
void table_bytes_text(double bytes, char *text, size_t capacity);
/* "1.23 s", "17.1 ms", "85.2 us". */
void table_time_text(double seconds, char *text, size_t capacity);

#endif
