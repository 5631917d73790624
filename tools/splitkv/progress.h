/* A line on stderr that says how far long work is; nothing unless stderr is a terminal.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_PROGRESS_H
#define SPLITKV_TOOL_PROGRESS_H

#include <stddef.h>

/* Shows "[index/n] name: what" in place of the line before. Call it from one thread only. */
void progress_show(size_t index, size_t n, const char *name, const char *what);
/* Removes the line, before anything else is printed. */
void progress_clear(void);

#endif
