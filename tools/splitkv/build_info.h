/* How this build was made. The definitions are written by cmake/build_info.cmake.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_BUILD_INFO_H
#define SPLITKV_TOOL_BUILD_INFO_H

extern const char build_commit[];   /* what git describe says, "unknown" without git */
extern const char build_compiler[]; /* "GNU 12.2.0" */
extern const char build_flags[];    /* of the library, and after a name those of a kernel set */

#endif
