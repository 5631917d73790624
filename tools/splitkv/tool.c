/* SPDX-License-Identifier: Apache-2.0 */
#include "tool.h"

#include "array.h"
#include "build_info.h"
#include "machine.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void tool_fill_standard_descriptors(void) {
  for (int fd = 0; fd <= 2; fd++) {
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
      /* The lowest free number is this one. The wrong direction: a lost report is no success. */
      (void)open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
    }
  }
}

/* For the reports, which say why a command stopped. Errors are printed by the main thread alone. */
static char last_error[1024];

/* Prints one line whatever the input holds: a line break in an argument would make it two. */
static void print_line(const char *format, va_list arguments) {
  int length = vsnprintf(last_error, sizeof last_error, format, arguments);
  if (length < 0) {
    return;
  }
  for (char *c = last_error; *c; c++) {
    if ((unsigned char)*c < 0x20 || *c == 0x7f) {
      *c = '?';
    }
  }
  fprintf(stderr, "splitkv: %s%s\n", last_error, (size_t)length >= sizeof last_error ? "..." : "");
}

const char *tool_last_error(void) {
  return last_error;
}

int tool_exit_status(int n_failed, int status) {
  return n_failed > 0 ? TOOL_FAILED : status;
}

int tool_usage_error(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  print_line(format, arguments);
  va_end(arguments);
  return TOOL_USAGE;
}

int tool_unsupported(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  print_line(format, arguments);
  va_end(arguments);
  return TOOL_UNSUPPORTED;
}

int tool_file_error(const char *option, const char *path, const file_error *error) {
  const char *blank = *path ? " " : "";
  return error->is_memory ? tool_unsupported("%s%s%s: %s", option, blank, path, error->message)
                          : tool_usage_error("%s%s%s: %s", option, blank, path, error->message);
}

int tool_probe_output(const char *option, const char *path) {
  file_error error;
  return output_probe(path, &error) ? TOOL_OK : tool_file_error(option, path, &error);
}

int tool_library_error(const char *context, splitkv_status status, const splitkv_error *error) {
  const char *separator = *context ? ": " : "";
  const char *text = splitkv_status_text(status);
  if (error && error->status == status && error->message[0]) {
    text = error->message;
  }
  static const splitkv_status missing_here[] = {
      SPLITKV_ERROR_ISA_UNAVAILABLE, SPLITKV_ERROR_OUT_OF_MEMORY, SPLITKV_ERROR_THREADS,
      SPLITKV_ERROR_ASCEND_LIBRARY,  SPLITKV_ERROR_ASCEND_SYMBOL, SPLITKV_ERROR_ASCEND_RUNTIME};
  int is_missing_here = 0;
  for (size_t i = 0; i < sizeof missing_here / sizeof missing_here[0]; i++) {
    is_missing_here |= status == missing_here[i];
  }
  return is_missing_here ? tool_unsupported("%s%s%s", context, separator, text)
                         : tool_usage_error("%s%s%s", context, separator, text);
}

/* Bytes of the UTF-8 character at `text`; 0 where none begins there (RFC 3629). */
static size_t utf8_size(const unsigned char *text) {
  static const struct {
    unsigned char first, last;     /* range of the first byte */
    unsigned char lowest, highest; /* and of the second */
    size_t size;
  } forms[] = {{0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
               {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3},
               {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
               {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};
  if (text[0] < 0x80) {
    return 1;
  }
  for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
    if (text[0] < forms[i].first || text[0] > forms[i].last) {
      continue;
    }
    size_t n = text[1] >= forms[i].lowest && text[1] <= forms[i].highest ? 2 : 0;
    while (n > 0 && n < forms[i].size) {
      n = (text[n] & 0xc0u) == 0x80 ? n + 1 : 0;
    }
    return n;
  }
  return 0;
}

/* A copy in which U+FFFD stands for each byte that is not UTF-8: file names may hold any bytes, and
 * JSON may not. One more byte than the text is there to be written. NULL where memory is short. */
static char *utf8_copy(const char *text) {
  static const char replacement[] = "\xef\xbf\xbd";
  char *copy = malloc(3 * strlen(text) + 2);
  char *end = copy;
  for (const char *c = text; copy && *c;) {
    size_t n = utf8_size((const unsigned char *)c);
    memcpy(end, n > 0 ? c : replacement, n > 0 ? n : 3);
    end += n > 0 ? n : 3;
    c += n > 0 ? n : 1;
  }
  if (copy) {
    *end = '\0';
  }
  return copy;
}

/* The text of a JSON value and a newline; NULL, with an error line printed, where memory is short.
 * To be freed. */
static char *json_text(const cJSON *json) {
  char *text = cJSON_Print(json);
  char *line = text ? utf8_copy(text) : NULL; /* cJSON hands bytes above 127 on as they are */
  free(text);
  if (line) {
    strcat(line, "\n");
  } else {
    tool_unsupported("out of memory while writing JSON");
  }
  return line;
}

int tool_print_json(const cJSON *json) {
  char *text = json_text(json);
  if (!text) {
    return TOOL_UNSUPPORTED;
  }
  int failed = fputs(text, stdout) < 0;
  failed |= fflush(stdout) != 0;
  free(text);
  return failed ? tool_usage_error("cannot write to stdout: %s", strerror(errno)) : TOOL_OK;
}

int tool_write_file(const void *data, size_t size_bytes, const char *option, const char *path) {
  output_file output;
  file_error error;
  int ok = output_create(path, &output, &error) &&
           output_write(&output, data, size_bytes, &error) && output_flush(&output, &error) &&
           output_commit(&output, &error);
  output_abandon(&output);
  return ok ? TOOL_OK : tool_file_error(option, path, &error);
}

int tool_write_json(const cJSON *json, const char *option, const char *path) {
  char *text = json_text(json);
  int status = text ? tool_write_file(text, strlen(text), option, path) : TOOL_UNSUPPORTED;
  free(text);
  return status;
}

cJSON *tool_json_report(const char *command) {
  cJSON *report = cJSON_CreateObject();
  cJSON_AddStringToObject(report, "command", command);
  cJSON_AddStringToObject(report, "version", splitkv_version());
  cJSON_AddStringToObject(report, "cpu", machine_cpu_name());
  cJSON_AddStringToObject(report, "compiler", build_compiler);
  cJSON_AddStringToObject(report, "compile_flags", build_flags);
  cJSON_AddStringToObject(report, "commit", build_commit);
  return report;
}

/* Levenshtein's distance, on words cut to MAX_WORD characters. */
enum { MAX_WORD = 24 };

static size_t min3(size_t a, size_t b, size_t c) {
  size_t least = a < b ? a : b;
  return least < c ? least : c;
}

static size_t word_distance(const char *a, const char *b) {
  size_t a_length = strlen(a) < MAX_WORD ? strlen(a) : MAX_WORD;
  size_t b_length = strlen(b) < MAX_WORD ? strlen(b) : MAX_WORD;
  size_t row[MAX_WORD + 1];
  for (size_t j = 0; j <= b_length; j++) {
    row[j] = j;
  }
  for (size_t i = 1; i <= a_length; i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b_length; j++) {
      size_t above = row[j];
      row[j] = min3(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
      diagonal = above;
    }
  }
  return row[b_length];
}

const char *tool_near_word(const char *word, const char *const *words, size_t n_words) {
  const char *best = NULL;
  size_t best_distance = strlen(word) < 4 ? 2 : 3; /* near: below this */
  for (size_t i = 0; i < n_words; i++) {
    size_t distance = word_distance(word, words[i]);
    if (distance < best_distance && distance < strlen(words[i])) {
      best = words[i];
      best_distance = distance;
    }
  }
  return best;
}

const char *tool_option_value(int argc, char **argv, int *index) {
  if (*index + 1 >= argc) {
    tool_usage_error("%s: needs a value", argv[*index]);
    return NULL;
  }
  *index += 1;
  return argv[*index];
}

int tool_is_help(const char *argument) {
  return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0;
}
