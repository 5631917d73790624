/* SPDX-License-Identifier: Apache-2.0 */
#include "table.h"

#include <stdio.h>
#include <string.h>

static void print_cell(const table_column *column, const char *text, int is_last) {
  int width =
      column->width > (int)strlen(column->title) ? column->width : (int)strlen(column->title);
  if (column->is_text && is_last) {
    fputs(text, stdout);
  } else {
    printf("%*s%s", column->is_text ? -width : width, text, is_last ? "" : "  ");
  }
}

void table_header(const table_column *columns, size_t n_columns) {
  for (size_t i = 0; i < n_columns; i++) {
    print_cell(&columns[i], columns[i].title, i + 1 == n_columns);
  }
  putchar('\n');
}

void table_row(const table_column *columns, size_t n_columns, const char *const *cells) {
  for (size_t i = 0; i < n_columns; i++) {
    print_cell(&columns[i], cells[i], i + 1 == n_columns);
  }
  putchar('\n');
  fflush(stdout);
}

void table_count_text(uint64_t n, char *text, size_t capacity) {
  char digits[24];
  size_t length = (size_t)snprintf(digits, sizeof digits, "%llu", (unsigned long long)n), used = 0;
  for (size_t i = 0; i < length && used + 2 < capacity; i++) {
    if (i > 0 && (length - i) % 3 == 0) {
      text[used++] = ',';
    }
    text[used++] = digits[i];
  }
  text[used] = '\0';
}

typedef struct unit {
  double size;
  const char *name;
} unit;

/* The first unit that the amount reaches, else the last. */
static void amount_text(const unit *units, size_t n_units, double amount, char *text,
                        size_t capacity) {
  size_t i = 0;
  while (i + 1 < n_units && amount < units[i].size) {
    i++;
  }
  double shown = amount / units[i].size;
  int decimals = shown >= 99.95 || shown == 0 ? 0 : shown >= 9.995 ? 1 : 2;
  snprintf(text, capacity, "%.*f %s", decimals, shown, units[i].name);
}

void table_bytes_text(double bytes, char *text, size_t capacity) {
  static const unit units[] = {{1e12, "TB"}, {1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}};
  if (bytes < 1e3) {
    snprintf(text, capacity, "%.0f B", bytes);
    return;
  }
  amount_text(units, sizeof units / sizeof units[0], bytes, text, capacity);
}

void table_time_text(double seconds, char *text, size_t capacity) {
  static const unit units[] = {{1, "s"}, {1e-3, "ms"}, {1e-6, "us"}};
  amount_text(units, sizeof units / sizeof units[0], seconds, text, capacity);
}
