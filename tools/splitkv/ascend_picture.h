/* A picture of which core of an Ascend device works on what.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_ASCEND_PICTURE_H
#define SPLITKV_TOOL_ASCEND_PICTURE_H

#include "ascend_case.h"

/* Replaces the file by an SVG: a lane for each core, with its tasks as blocks as wide as their
 * work. Returns TOOL_OK, or the status of the error line it printed. */
int ascend_draw(const char *path, const selected_case *entry, const tool_case *c,
                const ascend_tiling *t, const ascend_work *w);

#endif
