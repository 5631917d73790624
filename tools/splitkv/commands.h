/* The tool's commands. Each takes its arguments without the program's and the command's name and
 * returns an exit status of tool.h.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_COMMANDS_H
#define SPLITKV_TOOL_COMMANDS_H

int cmd_info(int argc, char **argv);
int cmd_plan(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_ascend(int argc, char **argv);

/* What `splitkv help COMMAND` prints below the usage line: plain text, each line at most 80 wide,
 * ending in a newline. */
extern const char cmd_info_help[];
extern const char cmd_plan_help[];
extern const char cmd_check_help[];
extern const char cmd_bench_help[];
extern const char cmd_run_help[];
extern const char cmd_ascend_help[];

#endif
