/* What every command shares: exit statuses, error lines, the machine.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_TOOL_H
#define SPLITKV_TOOL_TOOL_H

#include <splitkv/splitkv.h>

#include <stddef.h>
#include <stdint.h>

struct cJSON;
struct file_error;

/* Exit statuses, as the manual page promises them. */
enum {
  TOOL_OK = 0,
  TOOL_FAILED = 1,     /* a check failed */
  TOOL_USAGE = 2,      /* bad usage or bad input */
  TOOL_UNSUPPORTED = 3 /* not supported here: CPU, memory, a missing program */
};

/* Gives each standard descriptor that is closed to /dev/null, so that no file or pipe gets its
 * number. Reading or writing it fails as before. To be called first of all. */
void tool_fill_standard_descriptors(void);

/* One line "splitkv: ..." on stderr; control characters of the input are shown as '?'. They return
 * TOOL_USAGE and TOOL_UNSUPPORTED. */
int tool_usage_error(const char *format, ...);
int tool_unsupported(const char *format, ...);

/* "option path: what is wrong with the file" as such a line. Returns TOOL_UNSUPPORTED where memory
 * is short, else TOOL_USAGE. */
int tool_file_error(const char *option, const char *path, const struct file_error *error);

/* The library's own message as such a line, after "context: " where context is not "". Returns
 * TOOL_UNSUPPORTED for an instruction set, memory or a library that is missing here, else
 * TOOL_USAGE. */
int tool_library_error(const char *context, splitkv_status status, const splitkv_error *error);

/* Can a file be put at an option's path? To be asked before long work whose result goes there;
 * leaves what is there. Returns TOOL_OK, or the status of the error line it printed. */
int tool_probe_output(const char *option, const char *path);

/* Prints a JSON value (not released) and a newline to stdout. Returns TOOL_OK, or the status of the
 * error line it printed. */
int tool_print_json(const struct cJSON *json);

/* Bytes, or a JSON value as text, to the file of an option such as "--json-file", which is replaced
 * whole or not at all. Return as above. */
int tool_write_file(const void *data, size_t size_bytes, const char *option, const char *path);
int tool_write_json(const struct cJSON *json, const char *option, const char *path);

/* The last error line without "splitkv: "; "" where there was none. */
const char *tool_last_error(void);

/* The exit status of a command that ran cases: a check that failed goes before the reason why the
 * command stopped. */
int tool_exit_status(int n_failed, int status);

/* {"command": command, "version": ..., "cpu": ...} and how it was built; the caller adds to it and
 * deletes it. */
struct cJSON *tool_json_report(const char *command);

/* The word among words[0..n) that is nearest to `word`, or NULL where none is near. */
const char *tool_near_word(const char *word, const char *const *words, size_t n_words);

/* The option's argument: argv[*index + 1], and *index moves on. NULL, with an error line printed,
 * where there is none. */
const char *tool_option_value(int argc, char **argv, int *index);

/* True for "--help" and "-h". */
int tool_is_help(const char *argument);

/* Prints the usage line and the help text of one command to stdout. Returns TOOL_OK. */
int tool_print_help(const char *command_name);

#endif
